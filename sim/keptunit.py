"""What `store.unit: auto` is: blocks, as engines have them, where servers of blocks are simulated with model and settings; else whole
sessions, and why."""

from collections.abc import Iterable
from typing import Any

from kvplan.hwmodels import Model, catalogue, kvsize
from kvplan.hwmodels.connector import connect
from kvplan.hwmodels.footprint import Footprint
from kvplan.sim.config import ON_DEVICE, ON_HOST, Config, Store
from kvplan.sim.layergroups import layout

SERVED = {"vllm": "vllm", "lmcache": "vllm", "sglang": "sglang"}
"""By mode, whose pool is in HBM, where servers are simulated by it: LMCache's chunks lie below vLLM's."""
FETCHES = "best-effort", "timeout", "wait-complete"
"""Prefetch policies, HiCache's, that chunks come up by ahead of jobs."""
OWN_ORDER = "lru"
"""Eviction policy that servers of blocks have as the engines do, chunk by chunk; others order sessions."""
_BELOW_IN_GROUPS: dict[str, tuple[Any, ...]] = {
    "mode": ("vllm",),
    "eviction": (OWN_ORDER,),
    "load": ("always", "faster"),
}
"""Settings of tiers below HBM, and with which windows and states are simulated there."""
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
    return unit_with(config, model, kvsize.hbm_footprint(model, gpus))


def unit_with(config: Config, model: Model, hbm_kv: Footprint) -> str:
    """The same where jobs of a model take so much HBM."""
    if config.store.unit != "auto":
        return config.store.unit
    return "block" if why_sessions(config, model, hbm_kv) is None else "session"


def why_sessions(config: Config, model: Model, hbm_kv: Footprint) -> str | None:
    """What keeps `auto` from blocks."""
    return _not_simulated(config, model, hbm_kv) or _of_sessions(config.store, _OF_BLOCKS)


def refused(config: Config, model: Model, hbm_kv: Footprint) -> str | None:
    """What `store.unit: block` refuses, of what keeps `auto` from blocks."""
    return _not_simulated(config, model, hbm_kv) or _of_sessions(config.store, _REFUSED)


def _not_simulated(config: Config, model: Model, hbm_kv: Footprint) -> str | None:
    store = config.store
    if store.mode not in SERVED:
        return f"store.mode={store.mode} is simulated with whole sessions"
    if not store.listed or store.listed[0].name != ON_DEVICE:
        return f"store.tiers leaves out {ON_DEVICE}, which blocks are in"
    if (why := unlike(config, model, hbm_kv)) is not None:
        return why
    if store.threshold > 1 and sum(store.size_of(tier) > 0 for tier in store.listed) > 1 + (store.size_of(store.listed[0]) > 0):
        return f"store.threshold={store.threshold} is simulated with one tier below HBM"
    return None


def unlike(config: Config, model: Model, hbm_kv: Footprint) -> str | None:
    """What of the model's layers servers of blocks are not simulated with, where jobs take so much HBM."""
    if not hbm_kv.state and (not hbm_kv.windows or config.store.windows == "every-token"):
        return None
    if (why := _of_groups(config, model, hbm_kv)) is None:
        return None
    if hbm_kv.state:
        return f"{model.name} has layers that keep states, {why}"
    return f"{model.name} has layers that attend to windows, {why}; with store.windows=every-token blocks hold all tokens of them"


def _of_groups(config: Config, model: Model, hbm_kv: Footprint) -> str | None:
    """What keeps blocks of windows, or of states, from being simulated."""
    store = config.store
    if layout(model, hbm_kv, dense=False) is None:
        return "and not one and the same beside full attention with as many bytes a layer, as groups of blocks are simulated"
    if SERVED[store.mode] != "vllm":
        return "which are simulated by vLLM's rules alone (store.mode=vllm)"
    if store.ttl_s is not None:
        return "whose blocks are simulated without store.ttl_s"
    if store.retention == "dense":
        return "of which servers are simulated that keep what is before the ends of prompts (store.retention=boundary)"
    if not (below := [tier for tier in store.listed[1:] if store.size_of(tier)]):
        return None
    if any(tier.objects for tier in below):
        return "whose chunks are not simulated as objects"
    if fetches_ahead(store):
        return "whose chunks do not come up ahead of jobs (store.prefetch=none)"
    if store.threshold > 1 and not hbm_kv.state:
        return "whose chunks below HBM are simulated with store.threshold=1"
    for name, known in _BELOW_IN_GROUPS.items():
        if getattr(store, name) not in known:
            return f"whose chunks below HBM are simulated with store.{name}={' or '.join(map(str, known))}"
    return _of_states(config, model, hbm_kv) if hbm_kv.state else None


def _of_states(config: Config, model: Model, hbm_kv: Footprint) -> str | None:
    """What keeps chunks of states below HBM from being simulated."""
    store = config.store
    connection = connect(catalogue.load("connector", store.connector, config.catalogue), gpus=1)
    if hbm_kv.per_token > kvsize.kv_bytes_per_token(model) and not connection.replicated:
        return f"beside KV that ranks hold copies of, and store.connector={store.connector} keeps once (vllm-native keeps what ranks hold)"
    return None


def _of_sessions(store: Store, names: Iterable[str]) -> str | None:
    """The first of these settings that is otherwise than servers of blocks have it."""
    other = next((name for name in names if getattr(store, name) not in _OF_BLOCKS[name]), None)
    return None if other is None else f"store.{other}={getattr(store, other)} is of whole sessions"


def fetches_ahead(store: Store) -> bool:
    """Whether chunks come up ahead of jobs: to DRAM, where it is the first tier below HBM and others are below it."""
    below = [tier.name for tier in store.listed[1:] if store.size_of(tier)]
    return store.prefetch in FETCHES and len(below) > 1 and below[0] == ON_HOST
