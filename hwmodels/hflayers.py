"""Which layer of a `config.json` is of which kind, and which have experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvplan.hwmodels.hfstates import KimiDelta
from kvplan.hwmodels.layers import Borrowed, Layer, Pictures

if TYPE_CHECKING:
    from kvplan.hwmodels.families import Family
    from kvplan.hwmodels.hfconfig import HfConfig

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
STATE, CROSS, SHARED, NOTHING, BOTH = "linear_attention", "cross_attention", "shared", "mlp", "full attention and a state"
INDEXED = "attention by another layer's index"
TITLES = {FULL: "full attention", SLIDING: "sliding window", CHUNKED: "chunks"}
"""What a layer with KV of its own is called by `layer_types` -> by kvplan."""
WITHOUT_KV = {CROSS: Pictures(), SHARED: Borrowed(), NOTHING: Layer()}
_SAME = {"full": FULL, "shared": INDEXED, "indexed_attention": FULL, "attention": FULL, "mamba": STATE, "conv": STATE, "moe": NOTHING}
_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
"""Nemotron-H's `hybrid_override_pattern`: Mamba-2, attention, feed-forward, experts."""
OWN_KEYS = {
    "chunks": {"attention_chunk_size"},
    "cross": {"cross_attention_layers"},
    "flags": {"attn_type_list"},
    "indices": {"attn_layer_indices", "full_attn_idxs"},
    "interval": {"full_attention_interval"},
    "letters": {"hybrid_override_pattern"},
    "hybrid": {
        "attention_chunk_size",
        "hybrid_layer_pattern",
        "sliding_window_size",
        "swa_num_attention_heads",
        "swa_num_key_value_heads",
        "swa_head_dim",
        "swa_v_head_dim",
    },
    "pattern": {"sliding_window_pattern", "_sliding_window_pattern", "layer_switch", "global_attn_every_n_layers"},
    "period": {"attn_layer_period", "attn_layer_offset"},
    "index_head_dim": {"index_head_dim", "index_topk", "index_n_heads", "indexer_types", "index_topk_freq", "index_skip_topk_offset"},
    "global_head_dim": {"global_head_dim", "num_global_key_value_heads", "attention_k_eq_v", "use_double_wide_mlp", "enable_moe_block"},
    "hidden_size_per_layer_input": {"hidden_size_per_layer_input", "vocab_size_per_layer_input"},
    "kda": {"linear_attn_config"},
    "both": {"mamba_d_ssm"},
    "altup_num_inputs": {"altup_num_inputs", "laurel_rank"},
    "kv_lora_rank": {"kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"},
    "v_head_dim": {"v_head_dim"},
    "expert_layer_period": {"expert_layer_period", "expert_layer_offset"},
    "num_kv_shared_layers": {"num_kv_shared_layers"},
}
"""Keys that have a meaning only in families of this rule, or that need this field: elsewhere nobody knows what they mean."""
_EXPERT_LAYERS = {"sparse": True, "moe": True, "dense": False}


def names(config: HfConfig) -> list[str]:
    """What each layer keeps: the last `num_kv_shared_layers` nothing of their own. Raises ValueError."""
    found, shared = written(config), config.num_kv_shared_layers
    return found[: len(found) - shared] + [SHARED] * min(shared, len(found))


def written(config: HfConfig) -> list[str]:
    """What `layer_types` says of each layer, or would say. Raises ValueError."""
    found = [_SAME.get(name, name) for name in config.indexer_types or config.layer_types or _derived(config)]
    if len(found) != config.num_hidden_layers:
        raise ValueError(f"the kinds of {len(found)} layers are given, but num_hidden_layers is {config.num_hidden_layers}")
    if unknown := sorted(set(found) - _known(config.family)):
        raise ValueError(f"what layers of {', '.join(unknown)} keep is not modelled")
    return found


def _known(family: Family) -> set[str]:
    """Kinds that such a family may have."""
    own = {"letters": NOTHING, "cross": CROSS, "both": BOTH}
    return {*TITLES, INDEXED, *([STATE] if family.state else []), *([own[family.windowed]] if family.windowed in own else [])}


def counted(family: Family, data: dict[str, Any]) -> dict[str, int]:
    """Their number, where a list of them stands in its place (Nemotron-H)."""
    listed = [data[key] for key in ("layers_block_type", "hybrid_override_pattern") if key in data]
    return {"num_hidden_layers": len(listed[0])} if family.windowed == "letters" and listed and isinstance(listed[0], list | str) else {}


def foreign(family: Family) -> set[str]:
    """Keys that are read of other families, and not of this one."""
    own = {family.windowed, *family.needs, *family.written}
    return set().union(*OWN_KEYS.values()) - {key for of, keys in OWN_KEYS.items() if of in own for key in keys}


def _derived(config: HfConfig) -> list[str]:
    """For a file without `layer_types`, as its family's class does it."""
    if config.index_head_dim:
        return _indexed(config)
    if config.family.windowed in _RULES:
        return _RULES[config.family.windowed](config)
    if config.attention_chunk_size is not None:
        raise ValueError(f"attention_chunk_size, but which layers of model_type {config.model_type} have chunks is not said")
    if not config.sliding_window or not config.use_sliding_window:
        return [FULL for _ in range(config.num_hidden_layers)]
    return [SLIDING if _has_window(config, layer) else FULL for layer in range(config.num_hidden_layers)]


def _chunks(config: HfConfig) -> list[str]:
    """Llama 4: chunks where positions are rotary, all tokens where there are none."""
    layers = range(config.num_hidden_layers)
    positions = config.no_rope_layers or [int((layer + 1) % config.no_rope_layer_interval != 0) for layer in layers]
    return [CHUNKED if rotary and config.attention_chunk_size else FULL for rotary in positions]


def _interval(config: HfConfig) -> list[str]:
    """Qwen: each nth has KV."""
    return [FULL if (layer + 1) % config.full_attention_interval == 0 else STATE for layer in range(config.num_hidden_layers)]


def _period(config: HfConfig) -> list[str]:
    """Jamba: one in each period has KV."""
    period, offset = config.attn_layer_period, config.attn_layer_offset
    if period is None or offset is None or offset >= period:
        raise ValueError("attn_layer_period and attn_layer_offset do not say which layers have KV")
    return [FULL if layer % period == offset else STATE for layer in range(config.num_hidden_layers)]


def _indices(config: HfConfig) -> list[str]:
    """Bamba, LFM2: those with KV are named."""
    layers = range(config.num_hidden_layers)
    if not config.attn_layer_indices or not set(config.attn_layer_indices) <= set(layers):
        raise ValueError("which layers have KV is not said: give layer_types")
    return [FULL if layer in config.attn_layer_indices else STATE for layer in layers]


def _indexed(config: HfConfig) -> list[str]:
    """GLM-5.2: each layer chooses, or from some layer on each nth, for those after it."""
    after = [max(layer - config.index_skip_topk_offset + 1, 0) for layer in range(config.num_hidden_layers)]
    return [FULL if number % config.index_topk_freq == 0 else INDEXED for number in after]


def _flags(config: HfConfig) -> list[str]:
    """MiniMax-M1: 1 has KV, 0 has a state. M2 has no list, or one of 1."""
    if not config.attn_type_list:
        return [FULL] * config.num_hidden_layers
    if not set(config.attn_type_list) <= {0, 1}:
        raise ValueError("attn_type_list is not of 0 and 1")
    return [FULL if kept else STATE for kept in config.attn_type_list]


def _letters(config: HfConfig) -> list[str]:
    """Nemotron-H."""
    if unknown := sorted(set(config.hybrid_override_pattern) - set(_LETTERS)):
        raise ValueError(f"hybrid_override_pattern: what layers of {', '.join(unknown)} keep is not modelled")
    return [_LETTERS[letter] for letter in config.hybrid_override_pattern]


def _cross(config: HfConfig) -> list[str]:
    """Llama 3.2 with pictures."""
    layers = range(config.num_hidden_layers)
    if not set(config.cross_attention_layers) <= set(layers):
        raise ValueError("cross_attention_layers names layers that there are not")
    return [CROSS if layer in config.cross_attention_layers else FULL for layer in layers]


def _hybrid(config: HfConfig) -> list[str]:
    """MiMo-V2: 1 has a window."""
    if not set(config.hybrid_layer_pattern) <= {0, 1}:
        raise ValueError("hybrid_layer_pattern is not of 0 and 1")
    return [SLIDING if window else FULL for window in config.hybrid_layer_pattern]


def _kda(config: HfConfig) -> list[str]:
    """Kimi Linear: each layer is in one of two lists, which count from 1."""
    listed = config.state.linear_attn_config if isinstance(config.state, KimiDelta) else None
    layers = range(1, config.num_hidden_layers + 1)
    if listed is None or sorted([*listed.kda_layers, *listed.full_attn_layers]) != list(layers):
        raise ValueError("kda_layers and full_attn_layers do not say of each layer which it is")
    return [FULL if layer in listed.full_attn_layers else STATE for layer in layers]


def _both(config: HfConfig) -> list[str]:
    """Falcon-H1: each has both."""
    return [BOTH] * config.num_hidden_layers


_RULES: dict[str, Callable[[HfConfig], list[str]]] = {
    "both": _both,
    "chunks": _chunks,
    "hybrid": _hybrid,
    "kda": _kda,
    "cross": _cross,
    "flags": _flags,
    "indices": _indices,
    "interval": _interval,
    "letters": _letters,
    "period": _period,
}


def _has_window(config: HfConfig, layer: int) -> bool:
    rule = config.family.windowed
    if rule == "all":
        return True
    if rule == "upper" and config.max_window_layers is not None:
        return layer >= config.max_window_layers
    if rule == "pattern":
        return (layer + 1) % _pattern(config) != 0
    raise ValueError(f"sliding_window, but which layers of model_type {config.model_type} have it is not said: give layer_types")


def _pattern(config: HfConfig) -> int:
    """Each how-manieth layer has no window. `LLLG` is another writing of 4."""
    said = config.sliding_window_pattern or config.family.pattern
    if isinstance(said, str):
        if said != "L" * (len(said) - 1) + "G":
            raise ValueError(f"sliding_window_pattern {said!r} is no number and not of the form LLLG")
        return len(said)
    return said


@dataclass(frozen=True)
class Heads:
    """Of one layer's attention."""

    heads: int
    kv_heads: int
    width: int
    value_width: int


def heads(config: HfConfig, name: str) -> Heads:
    """Those of a layer of that kind: of the model, but for what has a key of its own."""
    own = config.family.others.get(name, {})
    value_width = config.width if config.kv_lora_rank is not None else config.v_head_dim or config.width
    whole = Heads(config.num_attention_heads, config.kv_heads, config.width, value_width)
    said = {what: getattr(config, key) for what, key in own.items()}
    return replace(whole, **{what: number for what, number in said.items() if number})


def window(config: HfConfig, name: str) -> int | None:
    """Tokens that such a layer attends to at most. Raises ValueError."""
    if name not in (SLIDING, CHUNKED):
        return None
    key = "sliding_window" if name == SLIDING else "attention_chunk_size"
    found = getattr(config, key)
    if not found:
        raise ValueError(f"layers of {name}, but {key} is missing")
    return found


def with_experts(config: HfConfig) -> list[int]:
    """Decoder layers with experts: those that are named, or all but the first `first_k_dense_replace`, those skipped by a step, and
    `mlp_only_layers`. Raises ValueError."""
    layers = range(config.num_hidden_layers)
    if not config.num_experts or not config.enable_moe_block:
        return []
    if config.family.windowed == "letters":
        return [layer for layer, block in enumerate(_blocks(config)) if block == "moe"]
    if config.expert_layer_period:
        return [layer for layer in layers if config.num_experts > 1 and layer % config.expert_layer_period == config.expert_layer_offset]
    if config.mlp_layer_types:
        if len(config.mlp_layer_types) != len(layers) or not set(config.mlp_layer_types) <= set(_EXPERT_LAYERS):
            raise ValueError(f"mlp_layer_types is not one of {', '.join(_EXPERT_LAYERS)} for each layer")
        return [layer for layer in layers if _EXPERT_LAYERS[config.mlp_layer_types[layer]]]
    if config.expert_layers:
        return [layer for layer in layers if layer in config.expert_layers]
    if isinstance(config.moe_layer_freq, list):
        if len(config.moe_layer_freq) != len(layers):
            raise ValueError("moe_layer_freq does not say of each layer whether it has experts")
        return [layer for layer in layers if config.moe_layer_freq[layer]]
    return _by_steps(config)


def _by_steps(config: HfConfig) -> list[int]:
    """All from a first layer on, but those between steps and those that are named."""
    layers = range(config.num_hidden_layers)
    first = max(config.first_k_dense_replace, config.moe_layer_start_index)
    last = config.num_hidden_layers - 1 if config.moe_layer_end_index < 0 else config.moe_layer_end_index
    dense, step = set(config.mlp_only_layers), config.decoder_sparse_step
    freq = config.moe_layer_freq if isinstance(config.moe_layer_freq, int) else 1
    return [layer for layer in layers[first : last + 1] if layer % freq == 0 and (layer + 1) % step == 0 and layer not in dense]


def dense(config: HfConfig) -> list[int]:
    """Decoder layers whose feed-forward part is not one of experts."""
    layers, mixed = range(config.num_hidden_layers), set(with_experts(config))
    if config.family.windowed == "letters":
        return [layer for layer, block in enumerate(_blocks(config)) if block == "mlp"]
    if "enable_moe_block" in config.family.written:  # experts stand beside it
        return list(layers)
    return [layer for layer in layers if layer not in mixed]


def _blocks(config: HfConfig) -> list[str]:
    """Nemotron-H: what each layer is, of which it is only one."""
    return config.layer_types or _letters(config)
