"""What of a configuration the mini server does not do. It refuses instead of doing something else."""

from collections.abc import Iterator

from kvplan.hwmodels.schema import DTYPE_BYTES
from kvplan.hwmodels.units import format_bytes, parse_bytes
from kvplan.sim.config import SHORTHANDS, Config, ConfigError
from kvplan.sim.deployment import Deployment
from kvplan.sim.policies.registry import find
from kvplan.traces import Workload


def refuse(config: Config, workload: Workload, deployment: Deployment) -> None:
    """Raises ConfigError that names all that is too much."""
    found = list(_findings(config, workload, deployment))
    if found:
        raise ConfigError("the mini server cannot run this: " + "; ".join(found))


def _findings(config: Config, workload: Workload, deployment: Deployment) -> Iterator[str]:
    service, store = config.deployment, config.store
    if (service.gpus, service.replicas) != (1, 1):
        yield "deployment.gpus and deployment.replicas must be 1"
    if parse_bytes(store.hbm):
        yield "store.hbm must be 0GB"
    if set(deployment.sizes) - set(SHORTHANDS):
        yield "store.tiers must be dram and ssd"
    if parse_bytes(store.ssd) and not parse_bytes(store.dram):
        yield "store.ssd needs store.dram"
    if deployment.hbm_kv.is_checkpoint:
        yield "the model has layers with windows or states: here each keeps the KV of every token"
    if deployment.model.kv_bits != 8 * DTYPE_BYTES[deployment.model.torch_dtype] or any(tier.kv_dtype for tier in deployment.tiers):
        yield "deployment.kv_dtype and store.kv_dtype must be null, and the model's KV as wide as its activations: here it is so everywhere"
    longest = deployment.stored(min(int(workload.session_tokens.max()), deployment.window))
    if 0 < parse_bytes(store.dram) < longest:
        yield f"store.dram must hold the longest session, {format_bytes(longest)}: KV goes to the drive from host memory only"
    prefetch = find("prefetch", store.prefetch)
    if not prefetch.LOADS_LATE or prefetch.LEAD_S or prefetch.HOLDS:
        yield f"store.prefetch {store.prefetch} holds jobs back, leaves KV behind or is told of turns to come: take lookahead or none"
    if store.connector != "cachedattention":
        yield f"store.connector {store.connector} is not what it does: KV goes layer by layer, as cachedattention's"
    if deployment.connection.asynchronous:
        yield "store.load_mode must be layerwise or blocking"
    if deployment.connection.layerwise and store.read_buffer_layers:
        yield "store.read_buffer_layers must be 0: a job's KV is sent for when it starts"
    if store.load != "always":
        yield "store.load must be always"
    if config.batching != "iteration":
        yield "batching must be iteration"
    if workload.dropped_tokens is not None and workload.dropped_tokens.any():
        yield "the trace has turns that go on from less than their history (dropped_tokens)"
