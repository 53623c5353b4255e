"""All that curves say, as plain data with stable keys: the comparison of policies and sizes, by line and point."""

from dataclasses import asdict

import numpy as np

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.deployment import resolve
from kvplan.sim.sweep.curve import RECOMPUTE, Capacity, Curves, lru

KEYS = ("hit_rate.resumed", "hit_rate.tokens", "hit_rate.dram", "hit_rate.ssd", "ttft_s.mean", "ttft_s.p95")
"""What a point of a line has."""
_UNTIMED = (
    "no clockless LRU: in which order a client's turns come (workload.clients) is known from a run alone; shares count all its sessions"
)


def account(asked: Curves, compared: dict) -> dict:
    """Lines over sizes from the comparison of policies and sizes, and the clockless LRU, as strict JSON."""
    sweep, tier, needed, config = asked.sweep, asked.tier, asked.needed, asked.config
    sizes = [size for (size,) in sweep.question.axes[1].points]
    done = [each for each in compared["variants"] if each["label"] != RECOMPUTE]
    bare = next((each for each in compared["variants"] if each["label"] == RECOMPUTE), None)
    by_settings = {(each["settings"]["store.eviction"], each["settings"][f"store.{tier}"]): each for each in done}
    names = [name for name, _ in sweep.question.axes[0].points]
    deployment = resolve(config)
    elsewhere = sum(each.capacity for each in deployment.tiers if each.name != tier)
    copies = deployment.copies.get(tier, 1.0)
    share = config.deployment.replicas / needed.ccput_bytes
    timed = config.workload.clients is None
    tpot_s = float(np.mean([variant["mean"]["tpot_s.mean"] for variant in done])) if done else 0.0
    return {
        "tier": tier,
        "replications": compared["replications"],
        "sizes": [_size_of(size, parse_bytes(size) / copies + elsewhere, config.deployment.replicas, needed) for size in sizes],
        "other_tiers_bytes": elsewhere,
        "rcc_to_ccput_per_byte": share,
        "need": asdict(needed),
        "lines": [
            {"policy": name, "points": [_point(by_settings[name, size], size) for size in sizes if (name, size) in by_settings]}
            for name in names
        ],
        "recompute": bare and _measured(bare),
        "clockless": [{"name": "LRU, clockless", "points": lru(sweep, tier, elsewhere, sizes, tpot_s)}] if done and timed else [],
        "failures": compared["failures"],
        "notes": [*compared["notes"], *([] if timed else [_UNTIMED])],
        "comparison": compared,
    }


def _size_of(size: str, room: float, replicas: int, needed: Capacity) -> dict:
    """Of the tier; `room`: bytes of KV in all tiers of a replica."""
    total = replicas * room
    shares = {"rcc_to_held": total / needed.held_bytes, "rcc_to_ccput": total / needed.ccput_bytes}
    return {"text": size, "bytes": parse_bytes(size), **shares}


def _point(variant: dict, size: str) -> dict:
    return {"size": size, "bytes": parse_bytes(size), "label": variant["label"], **_measured(variant)}


def _measured(variant: dict) -> dict:
    return {key: {"mean": variant["mean"][key], "half_width": variant["half_width"][key]} for key in KEYS}
