"""Step times from the figures of a GPU, for models that nobody measured on it.

**Products.** A step reads the weights once and multiplies them with every token of it: `bytes / (bandwidth · hbm_efficiency)` and
`FLOP / (peak · gemm_efficiency)`, added, with a constant for each product. Weights of each part (attention, feed-forward, experts) have
the rates of their own precision, and experts those of their own kernels, which get few tokens each. Weight-only quantisation is read at
its own size and multiplied in 16 bits.

**Attention** of a prompt of L tokens reaches `attention_efficiency · L / (L + attention_half)` of peak: pairs of tokens in proportion to
L², and `attention_half` more of them a token. A decode step reads the KV of every context at `kv_efficiency`.

A history token costs two passes over its KV in HBM: attention reads it, and decoupled positions read and write K, half of it. Under MLA
its keys and values are made of the latent again (DeepSeek-V2, arXiv 2405.04434, section 2.1).

A layer that sums up tokens in a state scans a prompt chunk after chunk, so long a token whatever its heads; an indexer that chooses the
tokens to attend to adds a constant.

**Tensor parallelism** divides products and attention, but not their constants, nor what passes between them: norms and residuals read
and write whole activations on every GPU, tokens are copied to their experts and added up again, and two all-reduces a layer move
2(g−1)/g · hidden · bytes a token (ring; Megatron-LM), each after a floor: so small messages see little of the bandwidth, and large ones
all of it.

**Rates of whole steps.** An entry that says no `gemm_overhead` (one that `kvplan validate fit` made of measured steps, or an assumption)
has what lies between kernels, and the host's work, in its rates: nothing of that is added.

**Left out:** wave quantisation, unevenly chosen experts, the output head in prefill (one token only, counted in decode), pipeline
and expert parallelism, replicated projections of MLA.

Source of the form: Williams et al., CACM 52(4), 2009; transformer arithmetic as in Kaplan et al. (arXiv 2001.08361) table 1. Source of
the rates: the catalogue; `kvplan validate kerneltables` fits them to public tables, `kvplan validate steptimes` holds them to end-to-end
rows.
"""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.quantization import Arithmetic
from kvplan.hwmodels.schema import DTYPE_BYTES, Gpu, Model, Node, Products, Quantity
from kvplan.hwmodels.steptime import StepTime, Window

Number = TypeVar("Number", int, np.ndarray)
HOST_STEP_S, HOST_REQUEST_S = 126e-6, 4.4e-6
"""Of the CPU, in a step and for each request in it. Source: BLIS (inference-sim), fitted to vLLM servers."""
_PLAIN_BITS = 12
"""Parts with more bits a weight in the mean are mostly not quantised."""
_CALLS = {"attention": 2, "dense": 2, "experts": 1, "shared": 2}
"""Products of a layer: queries with keys and values, then output; gate with up, then down; all experts in one."""
_LATENT_CALLS = 5
"""Of attention with a latent: down, queries up, latent to heads and back, output."""
_PASSED = 8
"""Activations that two norms with their residuals read and write, in hidden widths."""


@dataclass(frozen=True)
class _Rates:
    """Seconds that products with one part's weights take, on all GPUs together: of a FLOP, of a byte of weights, of a call."""

    flop_s: float
    byte_s: float
    call_s: float


def roofline(model: Model, gpu: Gpu, node: Node, gpus: int) -> StepTime:
    """StepTime of `model` under tensor parallelism over `gpus` GPUs of a node."""
    rates = {part: _rates(model, gpu, gpus, part) for part in _CALLS}
    read = {part: float(size) * rates[part].byte_s for part, size in kvsize.part_bytes(model).items()}
    experts = read.pop("experts")
    multiply = sum(2 * count * rates[part].flop_s for part, count in kvsize.decoder_parts(model, model.num_experts_per_tok).items())
    plain = _plain(gpu, gpus)
    reduce_floor, reduce_token = _all_reduces(model, node, gpus)
    kv, windows, byte_s = kvsize.hbm_footprint(model, gpus), kvsize.windows(model), _kv_byte_s(gpu, gpus)
    layers, kv_read = kvsize.attention_layers(model), kv.per_token * byte_s
    pair, beside = _pair(model, gpu, gpus), gpu.gemm_overhead is not None
    passed = _passed(model) * plain.byte_s * gpus * beside
    return StepTime(
        layers=model.num_hidden_layers,
        fixed=sum(read.values()) + _head_bytes(model) * plain.byte_s + _calls(model, gpu, rates) + reduce_floor + HOST_STEP_S * beside,
        per_token=multiply + passed + _to_experts(model, gpu) + reduce_token + layers * pair * _or(gpu.attention_half, 0.0) / 2,
        per_pair=(layers - sum(windows.values())) * pair,
        per_history=2 * kv_read + 2 * layers * kvsize.expansion_parameters(model) * rates["attention"].flop_s,
        per_context=kv_read + _latent(model, gpu, gpus),
        source=f"roofline: {model.name} on {gpus} x {gpu.name}",
        windows=(
            *(Window(tokens, count * pair, 2 * dict(kv.windows).get(tokens, 0) * byte_s) for tokens, count in windows.items()),
            *_scans(model, gpu),
        ),
        per_window_byte=byte_s if kv.is_checkpoint else 0.0,
        experts=experts,
        spared=1 - model.num_experts_per_tok / model.num_experts if model.num_experts else 0.0,
        per_request=HOST_REQUEST_S * beside,
    )


def passed_to_experts(hidden: Number, experts: Number, width: int) -> Number:
    """Bytes of one token's activations on their way to its experts and back, in one layer, `width` bytes each: it is read, written for
    each, read for each and written."""
    return (2 + 2 * experts) * hidden * width


def _rates(model: Model, gpu: Gpu, gpus: int, part: str) -> _Rates:
    """Of a part's products, by the precision of its weights."""
    products = _of_part(model, gpu, part)
    if part != "experts":
        return _plain(gpu, gpus, products)
    efficiency = _or(products.expert_efficiency, products.gemm_efficiency.value)
    read = _or(products.expert_hbm_efficiency, products.hbm_efficiency.value)
    router_s = _or(gpu.gemm_overhead, 0.0)
    return _Rates(
        1 / (gpus * products.peak_flops.value * efficiency),
        1 / (gpus * gpu.hbm_bandwidth.value * read),
        router_s + _or(products.expert_overhead, 0.0),
    )


def _of_part(model: Model, gpu: Gpu, part: str) -> Products:
    """How the weights of a part are multiplied."""
    return gpu if getattr(model.bits, part) > _PLAIN_BITS else _products(gpu, model.arithmetic)


def _to_experts(model: Model, gpu: Gpu) -> float:
    """Seconds of one token's way to its experts and back in all layers, on each GPU alike."""
    size = model.moe_layers * passed_to_experts(model.hidden_size, model.num_experts_per_tok, DTYPE_BYTES[model.torch_dtype])
    return size * _or(_of_part(model, gpu, "experts").expert_passed, 0.0) / gpu.hbm_bandwidth.value


def _products(gpu: Gpu, arithmetic: Arithmetic) -> Products:
    """The GPU's own; 4-bit weights that it cannot multiply so are multiplied in 16 bits, as all others are."""
    ways: dict[str, Products | None] = {"fp8": gpu.fp8, "int8": gpu.int8, "fp4": gpu.fp4 or gpu.w4a16}
    ways |= {"fp8-block": gpu.fp8_block or gpu.fp8, "w4a8": gpu.w4a8 or gpu.w4a16, "w4a16": gpu.w4a16}
    return ways.get(arithmetic) or gpu


def _plain(gpu: Gpu, gpus: int, products: Products | None = None) -> _Rates:
    """Of large products; in 16 bits where no others are given."""
    of = products or gpu
    return _Rates(
        1 / (gpus * of.peak_flops.value * of.gemm_efficiency.value),
        1 / (gpus * gpu.hbm_bandwidth.value * of.hbm_efficiency.value),
        _or(of.gemm_overhead, 0.0),
    )


def _calls(model: Model, gpu: Gpu, rates: dict[str, _Rates]) -> float:
    """Seconds of a step that neither reading nor arithmetic takes, in all layers."""
    mixed = model.moe_layers
    layers = {"attention": model.num_hidden_layers, "dense": model.num_hidden_layers - mixed, "experts": mixed}
    layers["shared"] = mixed if model.shared_intermediate_size else 0
    calls = _CALLS if model.kv_lora_rank is None else {**_CALLS, "attention": _LATENT_CALLS}
    attention = model.num_hidden_layers * gpu.layer_overhead.value + kvsize.indexed_layers(model) * _or(gpu.indexer_overhead, 0.0)
    return attention + sum(layers[part] * calls[part] * rates[part].call_s for part in _CALLS)


def _scans(model: Model, gpu: Gpu) -> tuple[Window, ...]:
    """Prompts in layers that keep a state: each token with the state before it, as with a window of one token."""
    scan_s = kvsize.scanned_layers(model) * _or(gpu.scan_overhead, 0.0)
    return (Window(1, scan_s, 0.0),) if scan_s else ()


def _pair(model: Model, gpu: Gpu, gpus: int) -> float:
    """Seconds of attention of one token to one other in one layer."""
    flops = 2 * model.num_attention_heads * (model.head_dim + model.v_head_dim)
    return flops * _attention_flop_s(gpu, gpus)


def _latent(model: Model, gpu: Gpu, gpus: int) -> float:
    """Seconds of arithmetic of one decoding token with one other's latent: more than reading it may take. Others read more than they
    multiply."""
    if model.kv_lora_rank is None:
        return 0.0
    width = 2 * model.kv_lora_rank + model.qk_rope_head_dim
    return 2 * kvsize.attention_layers(model) * model.num_attention_heads * width * _attention_flop_s(gpu, gpus)


def _attention_flop_s(gpu: Gpu, gpus: int) -> float:
    return 1 / (gpus * gpu.peak_flops.value * gpu.attention_efficiency.value)


def _kv_byte_s(gpu: Gpu, gpus: int) -> float:
    """Seconds to read a byte of KV."""
    return 1 / (gpus * gpu.hbm_bandwidth.value * _or(gpu.kv_efficiency, gpu.hbm_efficiency.value))


def _all_reduces(model: Model, node: Node, gpus: int) -> tuple[float, float]:
    """Seconds of a step's all-reduces: of no bytes, and of each token."""
    if gpus == 1:
        return 0.0, 0.0
    count, ring_share = 2 * model.num_hidden_layers, 2 * (gpus - 1) / gpus
    token_bytes = ring_share * model.hidden_size * DTYPE_BYTES[model.torch_dtype]
    return count * node.interconnect_latency.value, count * token_bytes / node.interconnect_bandwidth.value


def _head_bytes(model: Model) -> float:
    """Of the output head, tied to the embedding or not."""
    return float(model.vocab_size * model.hidden_size * model.bits.head / 8)


def _passed(model: Model) -> int:
    """Bytes of one token's activations that pass through HBM between products, on each GPU."""
    return _PASSED * model.num_hidden_layers * model.hidden_size * DTYPE_BYTES[model.torch_dtype]


def _or(row: Quantity | None, otherwise: float) -> float:
    return otherwise if row is None else row.value
