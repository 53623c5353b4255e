"""Which batch a replica has: what of a job must have room in HBM when it enters."""

from kvplan.sim.config import DeploymentConfig
from kvplan.sim.engine.batch import Batch
from kvplan.sim.engine.growing import GrowingBatch
from kvplan.sim.engine.keeping import Keeping
from kvplan.sim.engine.sharing import SharingBatch
from kvplan.sim.policies.base import Batching


def batch_for(settings: DeploymentConfig, batching: Batching, kv: Keeping) -> Batch:
    """As the settings say, or else the batching policy."""
    reserved, most = settings.admission or batching.RESERVES, settings.max_batch
    if reserved == "answer":
        return Batch(kv.hbm_bytes, most)
    return (GrowingBatch if reserved == "prompt" else SharingBatch)(kv.hbm_bytes, most, kv.growth)
