"""Weights of a model by part and layer: matrices, without norms and biases. Held against those that `transformers` builds by
`kvplan validate models`, to the weight.

Source: the modeling files of `transformers` 5.24.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kvplan.hwmodels import hflayers
from kvplan.hwmodels.weights import Weights

if TYPE_CHECKING:
    from kvplan.hwmodels.hfconfig import HfConfig


def weights(config: HfConfig, layers: Mapping[str, Sequence[int]]) -> Weights:
    """Of the whole model; `layers` as `by_layer` has them."""
    mixed, embedding = config.moe_layers, config.vocab_size * config.hidden_size
    return Weights(
        attention=sum(layers["attention"]),
        dense=sum(layers["dense"]),
        expert=mixed * _expert(config),
        router=mixed * _router(config),
        shared=sum(layers["shared"]),
        embedding=embedding + _inputs(config),
        head=0 if config.tie_word_embeddings else embedding,
    )


def by_layer(config: HfConfig) -> dict[str, list[int]]:
    """Part -> weights that each layer has of it; 0 where it has none."""
    mixed, dense, names = hflayers.with_experts(config), hflayers.dense(config), hflayers.names(config)
    layers = range(config.num_hidden_layers)
    experts, shared = config.num_experts * _expert(config) + _router(config), _shared(config)
    return {
        "attention": _mixers(config, names),
        "dense": [_dense(config, names[layer]) if layer in dense else 0 for layer in layers],
        "experts": [experts if layer in mixed else 0 for layer in layers],
        "shared": [shared if layer in mixed else 0 for layer in layers],
    }


def _mixers(config: HfConfig, names: Sequence[str]) -> list[int]:
    """Attention of each layer, or what stands in its place. Layers that share KV have no projections for it."""
    pairs = list(zip(hflayers.written(config), names, strict=True))
    each = {pair: _mixer(config, *pair) for pair in set(pairs)}
    return [each[pair] for pair in pairs]


def _mixer(config: HfConfig, kind: str, name: str) -> int:
    if kind == hflayers.NOTHING:
        return 0
    state = config.state.weights() if config.state is not None else 0
    if kind == hflayers.STATE:
        return state
    if config.kv_lora_rank is not None:
        return _latent(config) + (_indexer(config) if name == hflayers.FULL else 0)
    return _attention(config, kind, name == hflayers.SHARED) + (state if kind == hflayers.BOTH else 0)


def _attention(config: HfConfig, kind: str, shares: bool) -> int:
    """Projections of queries, keys, values and output. A gate of the output is as wide as the queries; values may be the keys."""
    of = hflayers.heads(config, kind)
    queries = of.heads * of.width * (2 if config.family.gated_output else 1)
    values = 0 if config.attention_k_eq_v and kind == hflayers.FULL else of.value_width
    kept = 0 if shares else of.kv_heads * (of.width + values)
    return config.hidden_size * (queries + kept + of.heads * of.value_width)


def _latent(config: HfConfig) -> int:
    """Of MLA: queries, through a latent of their own or at once; the way down to the latent; keys and values from it; output."""
    hidden, heads, rank = config.hidden_size, config.num_attention_heads, config.kv_lora_rank or 0
    queries = heads * (config.qk_nope_head_dim + config.qk_rope_head_dim)
    query = hidden * queries if config.q_lora_rank is None else config.q_lora_rank * (hidden + queries)
    up = rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
    return query + hidden * (rank + config.qk_rope_head_dim) + up + heads * config.v_head_dim * hidden


def _indexer(config: HfConfig) -> int:
    """Of one layer: its queries come from the latent of queries, its key and the weight of each head from the hidden state."""
    if not config.index_head_dim:
        return 0
    queries = config.index_n_heads * config.index_head_dim
    return queries * (config.q_lora_rank or config.hidden_size) + config.hidden_size * (config.index_head_dim + config.index_n_heads)


def _matrices(config: HfConfig) -> int:
    """Gate, up and down; or up and down."""
    return 3 if config.gated_mlp else 2


def _dense(config: HfConfig, name: str) -> int:
    """Feed-forward part, with what adds a layer's own input (Gemma-3n, 4) and low-rank residuals and mixing of streams (3n)."""
    wide = 2 if config.use_double_wide_mlp and name == hflayers.SHARED else 1
    hidden, streams = config.hidden_size, config.altup_num_inputs
    beside = 2 * hidden * (config.hidden_size_per_layer_input + config.laurel_rank) + hidden * streams + streams**2 + streams**3
    return wide * _matrices(config) * hidden * config.dense_width + beside


def _expert(config: HfConfig) -> int:
    """One routed expert of one layer. Latent experts work in a narrower state."""
    return _matrices(config) * (config.moe_latent_size or config.hidden_size) * config.expert_width if config.num_experts else 0


def _router(config: HfConfig) -> int:
    """With the way into the latent of latent experts and back."""
    return config.hidden_size * (config.num_experts + 2 * config.moe_latent_size) if config.num_experts else 0


def _shared(config: HfConfig) -> int:
    """Experts that every token passes; some have a gate."""
    gate = config.hidden_size if config.family.gated_shared else 0
    return _matrices(config) * config.hidden_size * config.shared_width + gate if config.shared_width else 0


def _inputs(config: HfConfig) -> int:
    """Embeddings of each layer's own input, the way to them, and to and from further streams."""
    own = config.num_hidden_layers * config.hidden_size_per_layer_input
    return own * (config.vocab_size_per_layer_input + config.hidden_size) + 2 * max(config.altup_num_inputs - 1, 0) * config.hidden_size**2
