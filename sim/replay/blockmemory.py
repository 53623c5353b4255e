"""What the size of a curve of blocks is of, and in whose order blocks leave: the memory of a mode, or DRAM below an engine's pool of blocks
in HBM. In servers (`store.unit: auto`) that is all that weights leave, of which `store.hbm` bounds what is kept, contexts are cut to the
window, and answers are there when they have ended; by a mode's rules alone it is as large as `store.hbm`, or where that is 0 as all that
weights leave.

A mode's own policies are its engine's, which look at chunks or blocks. All others of `store.eviction` order sessions, as in servers
(`kvplan.sim.store.blocks.ordered`), in tiers of chunks: below a pool, and LMCache's own. HBM goes by its engine's own queue alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.blockpool import BlockPool
from kvplan.sim.config import ON_DEVICE, ON_HOST, Config, ConfigError
from kvplan.sim.deployment import Deployment
from kvplan.sim.keptunit import OWN_ORDER
from kvplan.sim.knowledge import ServerKnowledge
from kvplan.sim.layergroups import Layout, layout
from kvplan.sim.policies.registry import PolicyError, find
from kvplan.sim.replay.blockbound import Asked, most_hit, stretches
from kvplan.sim.replay.blocks import ENDLESS, BlockReplay, Served
from kvplan.sim.store.blocks.base import BlockCache, Context
from kvplan.sim.store.blocks.chunks import Chunks
from kvplan.sim.store.blocks.level import Level
from kvplan.sim.store.blocks.modes import MODES, MakeOffload, Mode
from kvplan.sim.store.blocks.ordered import Orders
from kvplan.sim.store.blocks.passing import PassingMemory, PassingOffload
from kvplan.sim.store.blocks.pool import Pool
from kvplan.sim.store.blocks.tiered import Tiered, together
from kvplan.sim.store.blocks.windows import Groups
from kvplan.sim.tiers import TierSpec

OPTIMAL = "optimal"
"""No policy, but what none can do more than; of kvcache-simulator its own."""


@dataclass(frozen=True)
class Below:
    """What a tier below the pool did."""

    hit_tokens: int
    """Of what was served, those that the pool had not."""
    stored_chunks: int | None
    dropped_chunks: int | None
    """Offered, and without room. None of the bound, which stores as it likes."""


@dataclass(frozen=True)
class Found:
    """Of one policy and size."""

    served: Served
    below: Below | None
    """None where the mode's own memory varies."""


class _Known:
    """What is above, of which it is known what each request hits that fits."""

    def __init__(self, fits: Callable[[int], bool], hits: Sequence[int]) -> None:
        self.fits, self._hits = fits, iter(hits)

    def request(self, path: Context, tokens: int) -> int:
        """See `Above`."""
        return next(self._hits)


class _Answering:
    """A server's pool, in which answers have room, and are found when they have ended. `ends`: tokens of each context then."""

    def __init__(self, pool: Pool, block_tokens: int, ends: Sequence[int]) -> None:
        self._pool, self._block_tokens, self._ends = pool, block_tokens, iter(ends)

    @property
    def held(self) -> int:
        """See `BlockCache`."""
        return self._pool.held

    def request(self, path: Context, tokens: int) -> int:
        """See `BlockCache`; of a context that does not fit nothing is served."""
        pool, end = self._pool, next(self._ends)
        if pool.taken(path, tokens, end) > pool.free:
            return 0
        use = pool.begin(path, tokens)
        pool.computed(use, tokens)
        pool.decoded(use, tokens, end, 0.0)
        pool.computed(use, end)
        pool.end(use, end)
        return use.hit * self._block_tokens


class Memory:
    """`found`: of a model's layers, where each has blocks of its own; `pool`: that of servers, above what varies."""

    def __init__(
        self,
        config: Config,
        deployment: Deployment,
        tier: str,
        block_tokens: int,
        knowledge: ServerKnowledge,
        found: Layout | None,
        pool: BlockPool | None,
    ) -> None:
        self.mode: Mode = MODES[config.store.mode]
        self.is_below = tier not in self.mode.tiers
        self.groups: Groups | None = None if found is None else found.groups
        self._config, self._deployment, self._tier, self._knowledge, self._layout = config, deployment, tier, knowledge, found
        self._block_tokens, self._servers_pool = block_tokens, pool
        chunk_blocks = config.store.chunk_blocks if pool is None else pool.chunking.blocks
        self._chunk_blocks = chunk_blocks if self.is_below else 1
        self._chunk_tokens = block_tokens * self._chunk_blocks
        self._of_servers = of_servers(config)
        self.answers = self._of_servers and (tier == ON_DEVICE or deployment.connection.saves_answers)
        """Whether what varies has answers when they have ended."""
        self._above = self._pool() if self.is_below else None
        self._hit: dict[BlockReplay, Sequence[int | None]] = {}
        """Of requests that have been through the pool above."""

    # --- sizes ----------------------------------------------------------------------------------------------------------------

    @property
    def block_bytes(self) -> int:
        """Of one block of what varies, a chunk below a pool."""
        return self._layout.token_bytes * self._block_tokens if self._layout else self._bytes_in(self._tier, self._chunk_tokens)

    @property
    def pool_bytes(self) -> int:
        """Of the pool above, where there is one."""
        budget = self._deployment.hbm_budget
        return budget if self._servers_pool is not None else parse_bytes(self._config.store.hbm) or budget

    def _bytes_in(self, tier: str, tokens: int) -> int:
        deployment = self._deployment
        if tier == ON_DEVICE:
            return tokens * deployment.in_hbm(1)
        return round(tokens * deployment.stored(1) * deployment.copies.get(tier, 1.0))

    def fits(self, tokens: int) -> bool:
        """Whether a prompt has room in the pool above; without one all have."""
        above = self._above
        return above is None or above.fits(tokens)

    # --- policies -------------------------------------------------------------------------------------------------------------

    @property
    def own(self) -> Sequence[str]:
        """Policies that are the engine's own."""
        return list(self.mode.offload if self.is_below else self.mode.policies)

    @property
    def default(self) -> Sequence[str]:
        """Those that are drawn when none is named: of a mode all; of servers theirs, where it is replayed; and the bound."""
        names = [self._servers()] if self._of_servers else [*self.own]
        return [*names, OPTIMAL] if self.is_bounded and OPTIMAL not in names else names

    def _servers(self) -> str:
        """What `store.eviction` is here."""
        name = self._config.store.eviction
        is_others = name not in self.own and (self.is_below or self.mode.in_chunks)
        return name if name in self.own or (is_others and "queue" not in find("eviction", name).NEEDS) else self.own[0]

    @property
    def is_bounded(self) -> bool:
        """Whether the most that any policy could hit is worked out: where all blocks have one order, and are full."""
        return self.groups is None and not self.mode.warmup_share

    def check(self, name: str) -> None:
        """Raises ConfigError where a policy does not apply."""
        has = [*self.own, *[OPTIMAL] * (self.is_bounded and OPTIMAL not in self.own)]
        if name in has:
            return
        known = f"--policies {name}: store.mode={self._config.store.mode} has {', '.join(has)}"
        if name == OPTIMAL:
            raise ConfigError(f"{known}; of blocks in groups, of layers with windows or states, no bound is worked out")
        if not (self.is_below or self.mode.in_chunks):
            below = f"; others order what is below it (--tier {ON_HOST})" if self.mode.offload else ""
            raise ConfigError(f"{known} in {self._tier.upper()}, which goes by the rules of the mode alone{below}")
        try:
            needs = find("eviction", name).NEEDS
        except PolicyError as error:
            raise ConfigError(f"--policies: {error}; or the mode's own {', '.join(has)}") from None
        if "queue" in needs:
            raise ConfigError(
                f"--policies {name} goes by the job queue, and a replay without a server has none: `kvplan compare --vary"
                f" store.eviction=lru,{name}` simulates it"
            )
        if "costs" in needs and self._tier not in [each.name for each in self._deployment.tiers]:
            raise ConfigError(f"--policies {name} weighs what loads take, and store.tiers has no {self._tier}: name it there")

    # --- what is replayed -----------------------------------------------------------------------------------------------------

    def most_judged(self, replay: BlockReplay) -> float:
        """Blocks of the largest memory that the rules judge."""
        return replay.most_judged() if not self.is_below and self.groups is None else math.inf

    def endless(self, replay: BlockReplay) -> tuple[Served, int]:
        """With memory for everything; and the blocks that are held in the end."""
        cache = self._cache(replay, self.own[0], ENDLESS)
        return replay.served(cache), cache.held

    def finder(self, replay: BlockReplay, policy: str) -> Callable[[int], Found]:
        """What so many bytes of memory find, with a policy."""
        if policy == OPTIMAL and policy not in self.own:
            return self._bound(replay)
        return lambda size: self._found(replay, self._cache(replay, policy, size // self.block_bytes, size))

    def _found(self, replay: BlockReplay, cache: BlockCache) -> Found:
        served = replay.served(cache)
        return Found(served, Below(cache.below, cache.tier.stored, cache.tier.dropped) if isinstance(cache, Tiered) else None)

    def _cache(self, replay: BlockReplay, policy: str, blocks: int, size: int = 0) -> BlockCache:
        """Of so many blocks. `size`: bytes of them, with what is left over, which policies count as well."""
        if self.is_below:
            make = self.mode.offload[policy] if policy in self.own and not self._in_servers(policy) else self._passing(policy, size)
            above = None if self._above is None else _Known(self.fits, [hit for hit in self._hits(replay) if hit is not None])
            return Tiered(above, make(blocks, self._chunk_tokens, self._config.store.threshold), self._chunk_blocks)
        usable, make_pool = max(0, blocks - self.mode.reserved), self.mode.pool if self._layout is None else self._layout.make
        if self._of_servers and make_pool is not None:
            return _Answering(make_pool(usable, self._block_tokens, usable, None), self._block_tokens, replay.contexts.ends)
        if self._layout is not None:
            return self._layout.make(usable, self._block_tokens, usable, None)
        if policy in self.own and not self._in_servers(policy):
            return replay.cache(policy, blocks)
        return PassingMemory(self._chunks(policy, blocks, 1, size), self._block_tokens, self._knowledge.now_s, self.answers)

    def _in_servers(self, policy: str) -> bool:
        """Whether an engine's own policy is that of servers, whose chunks have its order."""
        return self._of_servers and policy == OWN_ORDER

    def _passing(self, policy: str, size: int) -> MakeOffload:
        return lambda chunks, tokens, threshold: PassingOffload(
            self._chunks(policy, chunks, threshold, size), tokens, self._knowledge.now_s, self.answers
        )

    def _chunks(self, policy: str, chunks: int, threshold: int, size: int) -> Chunks:
        """As in servers, the last of their tiers."""
        if policy == OWN_ORDER:
            return Chunks(chunks, threshold)
        each = max(1, self._deployment.stored(self._chunk_tokens))
        kv = math.floor(size / self._deployment.copies.get(self._tier, 1.0))
        level = Level(TierSpec(self._tier, max(kv, chunks * each), 0))
        return Orders(find("eviction", policy), self._knowledge).chunks(level, True, threshold, each)

    def _hits(self, replay: BlockReplay) -> Sequence[int | None]:
        """Tokens that the pool above has of each request; None of those that do not fit."""
        if replay not in self._hit:
            above = self._requested(replay) if self.is_below else None
            hits = [0] * len(replay.contexts.tokens) if above is None else replay.hits(above)
            self._hit[replay] = [hit if self.fits(tokens) else None for hit, tokens in zip(hits, replay.contexts.tokens, strict=True)]
        return self._hit[replay]

    def _requested(self, replay: BlockReplay) -> BlockCache | None:
        """The pool above, for requests one at a time."""
        pool = self._pool()
        return pool if pool is None or not self._of_servers else _Answering(pool, self._block_tokens, replay.contexts.ends)

    def _pool(self) -> Pool | None:
        """The one above; None where it has no room for a block."""
        if self._servers_pool is not None:
            return self._servers_pool.empty()
        usable = self.pool_bytes // self._bytes_in(ON_DEVICE, self._block_tokens) - self.mode.reserved
        assert self.mode.pool is not None
        return self.mode.pool(usable, self._block_tokens, usable, None) if usable > 0 else None

    # --- the bound ------------------------------------------------------------------------------------------------------------

    def _bound(self, replay: BlockReplay) -> Callable[[int], Found]:
        """No more than an endless memory hits."""
        contexts, each = replay.contexts, self._chunk_tokens
        asked, hits = [], self._hits(replay)
        for path, tokens, hit in zip(contexts.paths, contexts.tokens, hits, strict=True):
            if hit is not None:
                most = tokens if self.mode.in_chunks and not self.is_below else tokens - 1
                chunks = self._in_chunks(path)
                asked.append(Asked(chunks, len(chunks) if self.answers else tokens // each, hit // each, most // each))
        known, (endless, _), served = stretches(asked), self.endless(replay), sum(hit or 0 for hit in hits)

        def found(size: int) -> Found:
            blocks = size // self.block_bytes
            usable = blocks if self.is_below else max(0, blocks - self.mode.reserved)
            tokens = min(served + each * most_hit(known, usable), endless.hit_tokens)
            below = Below(tokens - served, None, None) if self.is_below else None
            return Found(Served(tokens, endless.prompt_tokens), below)

        return found

    def _in_chunks(self, path: Context) -> Context:
        return together(path, self._chunk_blocks)


def of_servers(config: Config) -> bool:
    """Whether it is of servers, and not of a mode's rules alone."""
    return config.store.unit == "auto"


def of_layers(config: Config, deployment: Deployment, tier: str) -> Layout | None:
    """Of vLLM's pool, where windows are kept as windows, or layers keep states. Raises ConfigError where they keep states elsewhere."""
    store, dense = config.store, config.store.retention == "dense"
    grouped, found = store.mode == "vllm" and tier == ON_DEVICE, layout(deployment.model, deployment.hbm_kv, dense)
    if deployment.hbm_kv.state:
        if found is None or not grouped or dense:
            raise ConfigError(
                f"{deployment.model.name} has layers that keep states: blocks of them are replayed in vLLM's pool, of one kind of state"
                " beside one of full attention, where prompts' ends are kept: set store.mode=vllm, store.retention=boundary, --tier hbm"
            )
        return found
    return None if not grouped or store.windows == "every-token" else found
