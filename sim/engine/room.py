"""Which batch a replica has: what of a job must have room in HBM when it enters."""

from kvplan.sim.config import DeploymentConfig
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.batch import Batch
from kvplan.sim.engine.growing import GrowingBatch
from kvplan.sim.engine.sharing import SharingBatch
from kvplan.sim.policies.base import Batching


def batch_for(settings: DeploymentConfig, deployment: Deployment, batching: Batching) -> Batch:
    """As the settings say, or else the batching policy."""
    reserved, budget, most = settings.admission or batching.RESERVES, deployment.hbm_budget, settings.max_batch
    if reserved == "answer":
        return Batch(budget, most)
    return (GrowingBatch if reserved == "prompt" else SharingBatch)(budget, most, deployment.hbm_kv)
