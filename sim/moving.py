"""How a replica's KV gets to its GPUs: what the links alone would do, and what the connector does."""

from typing import Any

from kvplan.sim.deployment import Deployment
from kvplan.sim.tiers import Wires


def moving(deployment: Deployment) -> dict[str, Any] | None:
    """Plain data of both, None where nothing moves: bytes/s towards the GPUs by tier, and what a load takes beside its bytes."""
    connection = deployment.connection
    links, connector = (_read(deployment, host) for host in (deployment.wires, deployment.host))
    if not links:
        return None
    return {
        "links": {"read_bytes_per_s": links, "request_s": 0.0},
        "connector": {
            "name": connection.name,
            "read_bytes_per_s": connector,
            "request_s": connection.request_s,
            **({"byte_s": connection.byte_s} if connection.byte_s else {}),
            "layerwise": connection.layerwise,
            "loads": connection.loads,
            "block_tokens": connection.block,
            "replicated": connection.replicated,
            "saves_answers": connection.saves_answers,
        },
    }


def _read(deployment: Deployment, host: Wires) -> dict[str, float]:
    """Bytes of all copies, in the dtype that KV has in each tier."""
    return {tier.name: tier.copies * tier.read_bytes_per_s(host.read_bytes_per_s) for tier in deployment.tiers if not tier.on_device}
