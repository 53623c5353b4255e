"""What a run has beyond what comes with its node, and with its rent, in words."""

from kvplan.hwmodels.cost import included_bytes
from kvplan.hwmodels.units import format_bytes
from kvplan.sim.engine.plant import Plant


def extras(built: Plant) -> list[str]:
    """One sentence each: more drives than the node's, more DRAM or SSD than the rented GPUs bring."""
    return _drives(built) + _beyond_rent(built)


def _drives(built: Plant) -> list[str]:
    has = int(built.node.ssd_drives.value)
    if built.drives <= has:
        return []
    return [
        f"{built.node.name} comes with {has} x {built.ssd.name} of {built.ssd.capacity.text}; this run gives it {built.drives}, with their"
        " bandwidth and endurance"
    ]


def _beyond_rent(built: Plant) -> list[str]:
    gpu, sizes = built.gpu.name, {name: size for name, size, _ in built.tiers}
    return [
        f"store.{tier} ({format_bytes(sizes[tier])}) is more than the {format_bytes(given)} that come with {built.gpus} rented {gpu}: the"
        f" rest is charged at the list's price of {tier.upper()}, as if it could be rented apart; a larger shape may be what there is"
        for tier, given in zip(("dram", "ssd"), included_bytes(built.prices, gpu, built.gpus), strict=True)
        if 0 < given < sizes.get(tier, 0)
    ]
