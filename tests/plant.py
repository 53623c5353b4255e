"""Tiers and links that tests make by hand."""

from dataclasses import replace

from kvplan.sim.deployment import Deployment
from kvplan.sim.tiers import TierSpec, Wires


def tier(name: str, capacity: int, reserve: int = 0) -> TierSpec:
    """As a configuration's `hbm`, `dram` and `ssd` are, over links that nobody asks for their speed."""
    return TierSpec(name, capacity, reserve, Wires(1.0, 1.0, 0.0) if name == "ssd" else None, on_device=name == "hbm")


def slower_drives(deployment: Deployment, write_bytes_per_s: float) -> Deployment:
    """The same with drives that write so slowly."""
    drives = replace(deployment.drive_links, write_bytes_per_s=write_bytes_per_s)
    tiers = tuple(tier if tier.own is None else replace(tier, own=drives) for tier in deployment.tiers)
    return replace(deployment, drive_links=drives, tiers=tiers)
