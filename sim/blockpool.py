"""What `store.unit: block` means in one replica: blocks in its HBM, and chunks of them below. Tokens, bytes, numbers.

HBM is one pool: what weights leave, in blocks that running requests use and that hold prefixes when these have ended. `store.hbm` bounds
what is kept so, and 0GB bounds nothing.
"""

from dataclasses import dataclass

from kvplan.hwmodels.units import format_bytes, parse_bytes
from kvplan.sim.config import ON_DEVICE, Config, ConfigError, Store
from kvplan.sim.deployment import Deployment
from kvplan.sim.keptunit import SERVED, fetches_ahead, unlike
from kvplan.sim.layergroups import Layout, layout
from kvplan.sim.stepbudget import step_budget
from kvplan.sim.store.blocks.chunking import Chunking
from kvplan.sim.store.blocks.modes import MODES, MakePool, Mode
from kvplan.sim.store.blocks.pool import Pool
from kvplan.sim.store.blocks.windows import Groups
from kvplan.traces import Workload


@dataclass(frozen=True)
class BlockPool:
    """One replica's."""

    block_tokens: int
    block_bytes: int
    """In the HBM of all ranks together."""
    usable: int
    """Blocks, without those that the engine keeps for itself."""
    most_kept: int
    """Of these, that may be kept when nobody uses them."""
    chunk_tokens: int
    """That the tiers below store together."""
    together: int | None
    """Tokens of a request that one step computes at most; None: any."""
    make: MakePool
    """An empty one."""
    stored_bytes: int
    """Of a block, stored once."""
    groups: Groups | None
    """Of layers, where each has blocks of its own."""

    def empty(self) -> Pool:
        """A new one."""
        return self.make(self.usable, self.block_tokens, self.most_kept, self.together)

    @property
    def chunking(self) -> Chunking:
        """What tiers below make of contexts."""
        return Chunking(self.chunk_tokens // self.block_tokens, self.chunk_tokens, self.groups)

    @property
    def chunk_bytes(self) -> int:
        """Of a chunk, stored once."""
        return self.chunking.blocks * self.stored_bytes

    def loaded(self, tokens: int) -> int:
        """Bytes, stored once, of so many tokens that are loaded: of layers with windows, those that they reach at the end."""
        groups, size = self.groups, self.stored_bytes
        kept = (
            tokens
            if groups is None
            else groups.full * tokens + groups.windowed * min(tokens, groups.reach(self.block_tokens) * self.block_tokens)
        )
        return kept * size // self.block_tokens

    @property
    def bytes(self) -> int:
        """HBM of all blocks."""
        return self.usable * self.block_bytes


def block_tokens(store: Store, workload: Workload, mode: Mode, found: Layout | None) -> int:
    """Tokens of a block: those that are asked for, those of the trace's hashes, or the mode's own; where a layout needs more, so many, or
    of hashes as many together."""
    hashed = mode.block_tokens if workload.blocks is None else workload.blocks.block_tokens
    asked, whole = store.block_tokens or hashed, 1 if workload.blocks is None else hashed
    return asked if found is None or asked >= found.least_tokens else -(-found.least_tokens // whole) * whole


def block_pool(config: Config, deployment: Deployment, workload: Workload) -> BlockPool:
    """Raises ConfigError for what servers of blocks are not simulated with, and for contexts that the pool cannot hold."""
    store = config.store
    _check(config, deployment)
    mode = MODES[SERVED[store.mode]]
    found = layout(deployment.model, deployment.hbm_kv, store.retention == "dense")
    tokens, groups, make = block_tokens(store, workload, mode, found), None, mode.pool
    each, stored = tokens * deployment.in_hbm(1), deployment.stored(tokens)
    if found is not None:
        groups, make, each = found.groups, found.make, tokens * found.token_bytes
        stored = round(each / deployment.copies[ON_DEVICE])
    usable = deployment.hbm_budget // each - mode.reserved
    kept = parse_bytes(store.hbm) // each if parse_bytes(store.hbm) else usable
    kept_together = max(deployment.connection.block, MODES[store.mode].block_tokens if store.mode not in SERVED.values() else 1)
    chunk = tokens * max(store.chunk_blocks, -(-kept_together // tokens))
    assert make is not None
    pool = BlockPool(tokens, each, usable, min(kept, usable), chunk, step_budget(config, deployment), make, stored, groups)
    longest = min(int(workload.session_tokens.max()), deployment.window)
    needed = pool.empty().alone(longest, longest)
    if needed > usable:
        raise ConfigError(
            f"a context of {longest} tokens needs {needed} blocks of {tokens} tokens, and beside weights HBM has {usable}"
            f" ({format_bytes(pool.bytes)}): use more GPUs or a smaller deployment.window_tokens"
        )
    return pool


def _check(config: Config, deployment: Deployment) -> None:
    store = config.store
    if store.mode not in SERVED:
        raise ConfigError(
            f"store.mode={store.mode}: servers with store.unit=block are simulated by the rules of {', '.join(SERVED)}: set one of these;"
            " `kvplan curve` replays the others without a server"
        )
    if store.threshold > 1 and len(deployment.tiers) > 2:
        raise ConfigError(
            f"store.threshold={store.threshold}: where a tier lies below DRAM, servers store all that is offered;"
            " set store.ssd=0GB, or store.threshold=1"
        )
    if store.defers and fetches_ahead(store):
        raise ConfigError(
            f"store.defers: what jobs would wait for comes up ahead of them by store.prefetch={store.prefetch}; set store.defers=false, or"
            " store.prefetch=none"
        )
    if store.save == "sync":
        raise ConfigError("store.save=sync: blocks are saved while the GPUs go on; set store.save=async")
    if (why := unlike(config, deployment.model, deployment.hbm_kv)) is not None:
        raise ConfigError(f"store.unit=block: {why}; store.unit=session keeps whole sessions")
