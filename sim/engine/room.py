"""Which batch a replica has: what of a job must have room in HBM when it enters."""

from kvplan.sim.config import DeploymentConfig
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.batch import Batch
from kvplan.sim.engine.growing import GrowingBatch
from kvplan.sim.engine.sharing import SharingBatch
from kvplan.sim.policies.base import Batching


def batch_for(settings: DeploymentConfig, deployment: Deployment, batching: Batching, hbm_bytes: int) -> Batch:
    """As the settings say, or else the batching policy; whole answers in a pool of blocks, where none grows."""
    reserved, most = settings.admission or batching.RESERVES, settings.max_batch
    if reserved == "answer" or deployment.pooled:
        return Batch(hbm_bytes, most)
    return (GrowingBatch if reserved == "prompt" else SharingBatch)(hbm_bytes, most, deployment.hbm_kv)
