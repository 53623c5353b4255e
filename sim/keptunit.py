"""What `store.unit: auto` is: blocks, as engines have them, where servers of blocks are simulated with model and settings; else whole
sessions, and why."""

from collections.abc import Iterable
from typing import Any

from kvplan.hwmodels import catalogue, kvsize
from kvplan.hwmodels.footprint import Footprint
from kvplan.sim.config import ON_DEVICE, ON_HOST, Config, Store

SERVED = {"vllm": "vllm", "lmcache": "vllm", "sglang": "sglang"}
"""By mode, whose pool is in HBM, where servers are simulated by it: LMCache's chunks lie below vLLM's."""
FETCHES = "best-effort", "timeout", "wait-complete"
"""Prefetch policies, HiCache's, that chunks come up by ahead of jobs."""
OWN_ORDER = "lru"
"""Eviction policy that servers of blocks have as the engines do, chunk by chunk; others order sessions."""
_OF_BLOCKS: dict[str, tuple[Any, ...]] = {
    "prefetch": ("none", *FETCHES),
    "write": ("through",),
    "save": ("async",),
    "positions": ("embedded",),
    "host_buffer": (0.0,),
}
"""Settings of stores of whole sessions, and what servers of blocks do."""
_REFUSED = ("save",)
"""Of these, that servers of blocks refuse; they do not read the others."""


def unit_of(config: Config) -> str:
    """`session` or `block`. Raises CatalogueError for a model or a node that there is not."""
    if config.store.unit != "auto":
        return config.store.unit
    model = kvsize.in_dtype(catalogue.load("model", config.model, config.catalogue), config.deployment.kv_dtype)
    gpus = config.deployment.gpus or int(catalogue.load("node", config.hardware, config.catalogue).max_gpus.value)
    return unit_with(config, kvsize.hbm_footprint(model, gpus))


def unit_with(config: Config, hbm_kv: Footprint) -> str:
    """The same for a model whose jobs take so much HBM."""
    if config.store.unit != "auto":
        return config.store.unit
    return "block" if why_sessions(config, hbm_kv) is None else "session"


def why_sessions(config: Config, hbm_kv: Footprint) -> str | None:
    """What keeps `auto` from blocks."""
    return _not_simulated(config, hbm_kv) or _of_sessions(config.store, _OF_BLOCKS)


def refused(config: Config, hbm_kv: Footprint) -> str | None:
    """What `store.unit: block` refuses, of what keeps `auto` from blocks."""
    return _not_simulated(config, hbm_kv) or _of_sessions(config.store, _REFUSED)


def _not_simulated(config: Config, hbm_kv: Footprint) -> str | None:
    store = config.store
    if store.mode not in SERVED:
        return f"store.mode={store.mode} is simulated with whole sessions"
    if not store.listed or store.listed[0].name != ON_DEVICE:
        return f"store.tiers leaves out {ON_DEVICE}, which blocks are in"
    if (why := _in_parts(config, hbm_kv)) is not None:
        return why
    if store.threshold > 1 and sum(store.size_of(tier) > 0 for tier in store.listed) > 1 + (store.size_of(store.listed[0]) > 0):
        return f"store.threshold={store.threshold} is simulated with one tier below HBM"
    if store.ttl_s is not None and store.eviction != OWN_ORDER:
        return f"store.ttl_s is simulated with store.eviction={OWN_ORDER}, and with other orders in stores of whole sessions"
    return None


def _in_parts(config: Config, hbm_kv: Footprint) -> str | None:
    """Which layers of the model make a block of KV larger in one place than in another, if any do."""
    if in_blocks(hbm_kv) or (config.store.windows == "every-token" and not hbm_kv.state):
        return None
    if hbm_kv.state:
        return f"{config.model} has layers that keep states"
    return f"{config.model} has layers that attend to windows; with store.windows=every-token blocks hold all tokens of them"


def _of_sessions(store: Store, names: Iterable[str]) -> str | None:
    """The first of these settings that is otherwise than servers of blocks have it."""
    other = next((name for name in names if getattr(store, name) not in _OF_BLOCKS[name]), None)
    return None if other is None else f"store.{other}={getattr(store, other)} is of whole sessions"


def fetches_ahead(store: Store) -> bool:
    """Whether chunks come up ahead of jobs: to DRAM, where it is the first tier below HBM and others are below it."""
    below = [tier.name for tier in store.listed[1:] if store.size_of(tier)]
    return store.prefetch in FETCHES and len(below) > 1 and below[0] == ON_HOST


def in_blocks(hbm_kv: Footprint) -> bool:
    """Whether a block of KV is as large wherever it is: servers of blocks are not simulated with windows and states."""
    return not hbm_kv.is_checkpoint and hbm_kv.of(1 << 20) == hbm_kv.of(1) << 20
