"""Whether a server can be made of a configuration: what a run would refuse, whoever does runs hears before any."""

from kvplan.sim.blockpool import block_pool
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.routing import check_router
from kvplan.traces import Workload


def servable(config: Config, workload: Workload) -> Deployment:
    """The deployment, which can run the workload. Raises ConfigError that says what stands in the way."""
    deployment = resolve(config, workload)
    if deployment.pooled:
        block_pool(config, deployment, workload)
    check_router(config)
    return deployment
