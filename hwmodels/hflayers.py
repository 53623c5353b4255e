"""Which layer of a `config.json` is of which kind, and which have experts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvplan.hwmodels.families import Family
    from kvplan.hwmodels.hfconfig import HfConfig

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
TITLES = {FULL: "full attention", "indexed_attention": "full attention", SLIDING: "sliding window", CHUNKED: "chunks"}
"""What `layer_types` may call a layer -> what kvplan calls it."""
_EXPERT_LAYERS = {"sparse": True, "moe": True, "dense": False}


def names(config: HfConfig, family: Family) -> list[str]:
    """What `layer_types` says of each layer, or would say. Raises ValueError."""
    found = config.layer_types or _derived(config, family)
    if len(found) != config.num_hidden_layers:
        raise ValueError(f"layer_types names {len(found)} layers, but num_hidden_layers is {config.num_hidden_layers}")
    if unknown := sorted(set(found) - set(TITLES)):
        raise ValueError(f"layer_types: what layers of {', '.join(unknown)} keep is not modelled")
    return found


def _derived(config: HfConfig, family: Family) -> list[str]:
    """For a file without `layer_types`, as its family's class does it."""
    layers = range(config.num_hidden_layers)
    if family.windowed == "chunks":
        positions = config.no_rope_layers or [int((layer + 1) % config.no_rope_layer_interval != 0) for layer in layers]
        return [CHUNKED if rotary and config.attention_chunk_size else FULL for rotary in positions]
    if config.attention_chunk_size is not None:
        raise ValueError(
            f"attention_chunk_size, but which layers of model_type {config.model_type} have chunks is not said: give layer_types"
        )
    if config.sliding_window is None or not config.use_sliding_window:
        return [FULL for _ in layers]
    return [SLIDING if _has_window(config, family, layer) else FULL for layer in layers]


def _has_window(config: HfConfig, family: Family, layer: int) -> bool:
    if family.windowed == "all":
        return True
    if family.windowed == "upper" and config.max_window_layers is not None:
        return layer >= config.max_window_layers
    if family.windowed == "pattern":
        return (layer + 1) % _pattern(config, family) != 0
    raise ValueError(f"sliding_window, but which layers of model_type {config.model_type} have it is not said: give layer_types")


def _pattern(config: HfConfig, family: Family) -> int:
    """Each how-manieth layer has no window. `LLLG` is another writing of 4."""
    said = config.sliding_window_pattern or family.pattern
    if isinstance(said, str):
        if said != "L" * (len(said) - 1) + "G":
            raise ValueError(f"sliding_window_pattern {said!r} is no number and not of the form LLLG")
        return len(said)
    return said


def window(config: HfConfig, name: str) -> int | None:
    """Tokens that such a layer attends to at most. Raises ValueError."""
    if name not in (SLIDING, CHUNKED):
        return None
    key = "sliding_window" if name == SLIDING else "attention_chunk_size"
    found = getattr(config, key)
    if found is None:
        raise ValueError(f"layers of {name}, but {key} is missing")
    return found


def with_experts(config: HfConfig) -> list[int]:
    """Decoder layers with experts: those that are named, or all but the first `first_k_dense_replace`, those skipped by a step, and
    `mlp_only_layers`. Raises ValueError."""
    layers = range(config.num_hidden_layers)
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
    first = max(config.first_k_dense_replace, config.moe_layer_start_index)
    last = config.num_hidden_layers - 1 if config.moe_layer_end_index < 0 else config.moe_layer_end_index
    dense, step, freq = set(config.mlp_only_layers), config.decoder_sparse_step, config.moe_layer_freq
    return [layer for layer in layers[first : last + 1] if layer % freq == 0 and (layer + 1) % step == 0 and layer not in dense]
