"""Sizes of a model: KV of so many tokens, parameters, and what tensor parallelism makes of them.

    KV bytes per token = Σ over layers 2 · kv_heads · head_dim · bytes              (MHA, GQA, MQA)
                       = Σ over layers (kv_lora_rank + qk_rope_head_dim) · bytes    (MLA)

Source: CachedAttention (USENIX ATC 2024) section 2; DeepSeek-V2 (arXiv 2405.04434) section 2.1 for MLA; Mixtral (arXiv 2401.04088)
section 2 and DeepSeek-V2 section 2.2 for mixtures of experts. Not modelled: norms and biases.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Literal

from kvplan.hwmodels.footprint import Footprint, kept_as
from kvplan.hwmodels.layers import Both, Latent, LayerGroup, State
from kvplan.hwmodels.schema import DTYPE_BYTES, Model

KvDtype = Literal["bf16", "fp8", "nvfp4"]
KV_BITS: dict[KvDtype, Fraction] = {"bf16": Fraction(16), "fp8": Fraction(8), "nvfp4": Fraction(9, 2)}
"""Of an element of KV, scales included. FP8 has one scale a tensor, which is nothing; in NVFP4 16 elements share one of 8 bits.
Source: vLLM's quantised KV cache; NVIDIA, NVFP4 KV cache (TensorRT Model Optimizer)."""

Keeps = Literal["every-token", "windowed"]
"""What a store keeps of layers with a window: all tokens of a session, or those in the window."""


def kv_bytes(model: Model, tokens: int, keeps: Keeps = "windowed") -> int:
    """Bytes of a session of `tokens` in all layers together, stored once (as DRAM and SSD store it); one checkpoint of states.

    >>> from kvplan.hwmodels import catalogue
    >>> gemma = catalogue.load("model", "gemma-2-9b")    # every second of 42 layers has a window of 4,096 tokens
    >>> kv_bytes(gemma, 8192) / kv_bytes(gemma, 8192, "every-token")
    0.75
    """
    return sum(
        group.count
        * (group.kind.token_bytes(model.kv_bits) * (tokens if keeps == "every-token" else group.kind.kept(tokens)) + group.kind.state_bytes)
        for group in model.layers
    )


def in_dtype(model: Model, dtype: KvDtype | None) -> Model:
    """The model with KV of that dtype; None: of its own.

    >>> from kvplan.hwmodels import catalogue
    >>> llama = catalogue.load("model", "llama-3.1-8b")
    >>> [kv_bytes_per_token(in_dtype(llama, dtype)) for dtype in (None, "fp8", "nvfp4")]
    [131072, 65536, 36864]
    """
    return model if dtype is None else replace(model, kv_bits=KV_BITS[dtype])


def kv_bytes_per_token(model: Model) -> int:
    """Bytes that one more token's K and V take, stored once, where every layer keeps every token."""
    return footprint(model, "every-token").per_token


def footprint(model: Model, keeps: Keeps) -> Footprint:
    """Of a session in a store, stored once, with one checkpoint of states."""
    sizes = [group.count * group.kind.token_bytes(model.kv_bits) for group in model.layers]
    return _footprint(model, sizes) if keeps == "windowed" else kept_as(sum(sizes), (), state_bytes(model))


def hbm_footprint(model: Model, gpus: int, keeps: Keeps = "windowed") -> Footprint:
    """Of a running job in the HBM of all ranks together, under tensor parallelism, which keeps windows alone, or every token of them."""
    sizes = [_hbm_bytes(model, group, gpus) for group in model.layers]
    return _footprint(model, sizes) if keeps == "windowed" else kept_as(sum(sizes), (), state_bytes(model))


def _hbm_bytes(model: Model, group: LayerGroup, gpus: int) -> int:
    """Of one token, in all layers of the group and in all ranks together."""
    copies, of = group.kind.copies(gpus)
    return group.count * group.kind.token_bytes(model.kv_bits) // of * copies


def _footprint(model: Model, sizes: Sequence[int]) -> Footprint:
    """Of so many bytes a token in each group of layers, those with windows apart."""
    apart = _by_window(model, sizes)
    return kept_as(sum(sizes) - sum(apart.values()), tuple((window, size) for window, size in apart.items() if size), state_bytes(model))


def windows(model: Model) -> dict[int, int]:
    """Layers by their window in tokens, of those whose window is shorter than the model's; the shortest first."""
    return _by_window(model, [group.count for group in model.layers])


def _by_window(model: Model, numbers: Sequence[int]) -> dict[int, int]:
    """Sums of a number of each group of layers, of those with such a window."""
    found = Counter[int]()
    for group, number in zip(model.layers, numbers, strict=True):
        if group.kind.window is not None and group.kind.window < model.max_position_embeddings:
            found[group.kind.window] += number
    return dict(sorted(found.items()))


def state_bytes(model: Model) -> int:
    """Bytes of one checkpoint of all states, which ranks split."""
    return sum(group.count * group.kind.state_bytes for group in model.layers)


def attention_layers(model: Model) -> int:
    """Layers that attend to tokens, whose KV they keep or another layer does."""
    return sum(group.count for group in model.layers if group.kind.attends)


def state_layers(model: Model) -> int:
    """Layers that keep a state instead of KV."""
    return sum(group.count for group in model.layers if group.kind.state_bytes)


def scanned_layers(model: Model) -> int:
    """Layers that sum up tokens in a state."""
    states = [(group.kind.beside if isinstance(group.kind, Both) else group.kind, group.count) for group in model.layers]
    return sum(count for kind, count in states if isinstance(kind, State) and kind.recurrent)


def indexed_layers(model: Model) -> int:
    """Layers with an indexer of their own."""
    return sum(group.count for group in model.layers if isinstance(group.kind, Latent) and group.kind.index_width)


def expansion_parameters(model: Model) -> int:
    """Weights of one layer that turn the cached latent of a token into its keys and values (MLA); 0 where K and V are cached."""
    if model.kv_lora_rank is None:
        return 0
    return model.kv_lora_rank * model.num_attention_heads * (model.head_dim - model.qk_rope_head_dim + model.v_head_dim)


def decoder_parts(model: Model, experts: int) -> dict[str, int]:
    """Weights of all decoder layers by part, when `experts` routed experts of each layer that has them count."""
    of = model.weights
    return {"attention": of.attention, "dense": of.dense, "experts": experts * of.expert + of.router, "shared": of.shared}


def decoder_parameters(model: Model) -> int:
    """Weights of all decoder layers: what HBM holds."""
    return sum(decoder_parts(model, model.num_experts).values())


def active_decoder_parameters(model: Model) -> int:
    """Weights of the decoder layers that one token is multiplied with: of the routed experts only `num_experts_per_tok`."""
    return sum(decoder_parts(model, model.num_experts_per_tok).values())


def embedding_parameters(model: Model) -> int:
    """Weights of the input embedding and, when it is not tied to it, of the output head."""
    return model.weights.embedding + model.weights.head


def parameters(model: Model) -> int:
    """All weights but norms and biases."""
    return decoder_parameters(model) + embedding_parameters(model)


def active_parameters(model: Model) -> int:
    """As `parameters`, with the routed experts of one token only: the "active" count that model cards give."""
    return active_decoder_parameters(model) + embedding_parameters(model)


def part_bytes(model: Model) -> dict[str, Fraction]:
    """Bytes of all decoder layers by part, at the bits of each, scales included."""
    return {part: count * getattr(model.bits, part) / 8 for part, count in decoder_parts(model, model.num_experts).items()}


def decoder_bytes(model: Model) -> int:
    """Bytes of the decoder layers."""
    return math.ceil(sum(part_bytes(model).values()))


def weight_bytes(model: Model) -> int:
    """Bytes of all weights together; the input embedding keeps the model's dtype."""
    head = math.ceil(model.weights.head * model.bits.head / 8)
    return decoder_bytes(model) + model.weights.embedding * DTYPE_BYTES[model.torch_dtype] + head
