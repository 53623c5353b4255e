"""How KV gets to the GPUs as a table: a row for the links alone, and one for the connector."""

from collections.abc import Mapping
from typing import Any

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.report.tiers import name_of

_GB = 1e9
_LOADS = {
    "layerwise": "layer by layer under the prefill",
    "blocking": "all of it before the prefill",
    "asynchronous": "all of it before the prefill, the GPUs go on meanwhile",
}


def heads(found: Mapping[str, Any]) -> list[str]:
    """Of `sim.moving.moving`."""
    return ["KV is moved", *(f"from {name_of(tier)}" for tier in found["links"]["read_bytes_per_s"]), "a load", "1 GB takes", "how"]


def rows(found: Mapping[str, Any]) -> list[list[str]]:
    links, connector = found["links"], found["connector"]
    return [["by the links alone", *_figures(links), "–"], [f"by {connector['name']}", *_figures(connector), _how(connector)]]


def _figures(one: Mapping[str, Any]) -> list[str]:
    rates, request_s = list(one["read_bytes_per_s"].values()), one["request_s"]
    each = format_seconds(request_s) if request_s else "–"
    return [*(f"{format_bytes(rate)}/s" for rate in rates), each, format_seconds(request_s + _GB * one.get("byte_s", 0.0) + _GB / rates[0])]


def _how(connector: Mapping[str, Any]) -> str:
    block = connector["block_tokens"]
    said = [_LOADS[connector["loads"]]]
    said += [f"blocks of {block} tokens"] * (block > 1)
    said += ["each rank its copy"] * connector["replicated"]
    said += ["answers are not saved"] * (not connector["saves_answers"])
    return ", ".join(said)
