"""What a run has beyond what comes with its node, and with its rent, and what of its model it does not follow, in words."""

from kvplan.hwmodels.cost import included_bytes
from kvplan.hwmodels.simplified import every_token, simplified
from kvplan.hwmodels.units import format_bytes
from kvplan.sim.config import ON_DRIVES, ON_HOST
from kvplan.sim.deployment import Deployment


def extras(deployment: Deployment) -> list[str]:
    """One sentence each: more drives than the node's, or than the GPUs' share of them; more DRAM or SSD than the rented GPUs bring; KV that
    is kept in a narrower dtype, or of tokens that no layer attends to any more; layers that are simplified."""
    of = _drives, _of_neighbours, _beyond_rent, _narrower, _every_token, _of_model
    return [said for each in of for said in each(deployment)]


def _drives(deployment: Deployment) -> list[str]:
    has = int(deployment.node.ssd_drives.value)
    if deployment.drives <= has:
        return []
    return [
        f"{deployment.node.name} comes with {has} x {deployment.ssd.name} of {deployment.ssd.capacity.text};"
        f" this run gives it {deployment.drives}, with their bandwidth and endurance"
    ]


def _of_neighbours(deployment: Deployment) -> list[str]:
    """Drives of the node that replicas beside this one would use, and wear, as well."""
    node, size = deployment.node, deployment.sizes.get(ON_DRIVES, 0)
    has, gpus = int(node.ssd_drives.value), int(node.max_gpus.value)
    share = max(deployment.share_of_drives, -(-size // round(deployment.ssd.capacity.value)))
    if not deployment.keeps_on_drives or has * deployment.gpus < gpus or deployment.drives <= share:
        return []
    return [
        f"{deployment.gpus} of {node.name}'s {gpus} GPUs have the bandwidth and endurance of all its {deployment.drives} drives here; with"
        f" replicas beside this one on the node, store.ssd_drives={share} is its share"
    ]


def _beyond_rent(deployment: Deployment) -> list[str]:
    gpu, sizes = deployment.gpu.name, deployment.sizes
    return [
        f"store.{tier} ({format_bytes(sizes[tier])}) is more than the {format_bytes(given)} that come with {deployment.gpus} rented {gpu}:"
        f" the rest, {format_bytes(sizes[tier] - given)}, is charged at the list's price of {tier.upper()}, as if it could be rented apart;"
        " a larger shape may be what there is"
        for tier, given in zip((ON_HOST, ON_DRIVES), included_bytes(deployment.prices, gpu, deployment.gpus), strict=True)
        if 0 < given < sizes.get(tier, 0)
    ]


def _narrower(deployment: Deployment) -> list[str]:
    token = deployment.kv.per_token
    said = [f"{tier.name.upper()} {tier.kv_dtype} ({tier.taken(token):,} B)" for tier in deployment.tiers if tier.kv_dtype]
    if not said:
        return []
    return [
        f"KV takes {token:,} B a token in HBM, stored once, and is kept in a narrower dtype below: {', '.join(said)}; what converting it"
        " costs GPUs, and what it does to answers, is left out"
    ]


def _every_token(deployment: Deployment) -> list[str]:
    if deployment.kv.windows or not deployment.tiers:
        return []
    holder = "blocks hold and tiers move" if deployment.pooled else "the store keeps and moves"
    return list(every_token(deployment.model, f"{holder} every token of them (store.windows)"))


def _of_model(deployment: Deployment) -> list[str]:
    """Nothing where step times are measured: the model was run as it is."""
    return [] if deployment.steps.measured else simplified(deployment.model)
