"""Widths of feed-forward parts, and a window, that a `config.json` does not write as such, but by a rule of its family's class."""

from collections.abc import Callable, Mapping
from typing import Any


def widths(family: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """`intermediate_size` or `sliding_window` of a family with such a rule; nothing of others, or where its keys are missing.
    Raises ValueError."""
    return _RULES[family](data) if family in _RULES else {}


def _falcon(data: Mapping[str, Any]) -> dict[str, Any]:
    """Four times the hidden state."""
    known = {"ffn_hidden_size", "intermediate_size"} & set(data)
    return {} if known or not isinstance(data.get("hidden_size"), int) else {"intermediate_size": 4 * data["hidden_size"]}


def _granite(data: Mapping[str, Any]) -> dict[str, Any]:
    """Without experts the shared one is the feed-forward part."""
    if data.get("num_local_experts") != 0 or "shared_intermediate_size" not in data:
        return {}
    return {"intermediate_size": data["shared_intermediate_size"], "shared_intermediate_size": 0}


def _lfm2(data: Mapping[str, Any]) -> dict[str, Any]:
    """Two thirds of what is written, by a factor, up to a multiple."""
    written = data.get("block_ff_dim", data.get("intermediate_size"))
    multiple, factor = data.get("block_multiple_of", 256), data.get("block_ffn_dim_multiplier", 1.0)
    if not data.get("block_auto_adjust_ff_dim", True) or type(written) is not int:
        return {"intermediate_size": written} if type(written) is int else {}
    if type(multiple) is not int or multiple < 1 or type(factor) not in (int, float) or not 0 < factor < 100:
        raise ValueError("block_multiple_of or block_ffn_dim_multiplier is no number that a width can come from")
    return {"intermediate_size": multiple * -(-int(factor * int(2 * written / 3)) // multiple)}


def _mimo(data: Mapping[str, Any]) -> dict[str, Any]:
    """So many tokens before the one that attends."""
    before = data.get("sliding_window_size")
    return {"sliding_window": before + 1} if type(before) is int else {}


_RULES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "falcon": _falcon,
    "granitemoehybrid": _granite,
    "lfm2": _lfm2,
    "mimo_v2_flash": _mimo,
}
