"""The guards of a run whose KV is in blocks: what `kvplan.sim.engine.guards` says, for a pool and the tiers below it.

Blocks are conserved: those in use and those free are all of the pool, and jobs that run have room for their contexts. A hit serves only
blocks that were computed on this replica, and in HBM only such as somebody uses, or used within the TTL; what expires is none of these.
Where jobs are deferred, nobody loads what another is loading.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable

from kvplan.sim.engine.guards import Guards, demand
from kvplan.sim.store.blocks.runs import runs_of


class BlockGuards(Guards):
    """Books of one run."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._computed: defaultdict[object, set[Hashable]] = defaultdict(set)
        """Keys, per replica's KV."""
        self._users: Counter[tuple[object, Hashable]] = Counter()
        """Jobs with that key, by replica's KV and key."""
        self._left_s: defaultdict[tuple[object, Hashable], list[float]] = defaultdict(list)
        """When they left: several may have had blocks of one key each."""
        self._loaded_s: defaultdict[tuple[object, Hashable], float] = defaultdict(float)
        """When the last load of a chunk has come, by replica's KV and key."""

    def blocks_computed(self, kv, use, count: int) -> None:
        """The first blocks of a context are in HBM since, and may be found."""
        for path in use.contexts:
            self._computed[kv].update(path[block] for block in range(count))

    def blocks_found(self, kv, use, count: int, now: float) -> None:
        """A job uses the first blocks of its context, those of the hit from HBM, and does not compute them; of windows what is before its
        end."""
        for path in use.contexts:
            self._found(kv, path, range(count), use.hit, now)
            self._users.update((kv, key) for key in path)
        reached = range(max(0, use.hit - self._reach(kv.block_tokens)), use.hit)
        for path, blocks in use.windows.items():
            demand([*blocks] == [*reached], 6, f"of a window blocks {blocks} are used, and a hit of {use.hit} reaches {reached}")
            self._found(kv, path, blocks, use.hit, now)
            self._users.update((kv, path[block]) for block in blocks)

    def _reach(self, tokens: int) -> int:
        """Blocks of so many tokens before a token that a window reaches into; of a state the one that ends there."""
        windows = self._deployment.hbm_kv.windows
        return -(-(windows[0][0] - 1) // tokens) if windows else 1

    def _found(self, kv, path, blocks, hit: int, now: float) -> None:
        strange = [block for block in blocks if path[block] not in self._computed[kv]]
        demand(not strange, 6, f"blocks {strange[:3]} of a context are found, and nobody has computed them")
        keys = {block: (kv, path[block]) for block in blocks if block < hit}
        late = [block for block, key in keys.items() if not self._users[key] and self._is_over(self._left_s[key][-1], now)]
        demand(not late, 6, f"blocks {late[:3]} of a context are found at {now}, when their time is over")

    def windows_held(self, kv, found, pieces) -> None:
        """A job loads what was found of its context, and the first tier keeps these pieces for it: of windows all that the end reaches."""
        held = {run.path[chunk] for run in runs_of(pieces) for chunk in range(run.start, run.stop)}
        first, stop = found.hit // found.chunk_tokens, found.there.stops[-1]
        for part in found.there.beside:
            loaded, reached = range(part.start, part.stop), range(max(first, stop - self._reach(found.chunk_tokens)), stop)
            demand(loaded in (reached, range(first, stop)), 6, f"chunks {loaded} are loaded, and it takes {reached}")
            lost = [chunk for chunk in loaded if part.path[chunk] not in held]
            demand(not lost, 6, f"chunks {lost[:3]} of a context are loaded, and the tier has not got them")

    def chunks_loaded(self, kv, parts, now: float, end: float) -> None:
        """A job loads these chunks until then, and the GPUs go on."""
        keys = [(kv, part.path[chunk]) for part in parts for chunk in range(part.start, part.stop)]
        twice = [key for key in keys if kv.loads_once and self._loaded_s[key] > now]
        demand(not twice, 6, f"{len(twice)} chunks are loaded at {now} that are on their way to another job")
        self._loaded_s.update(dict.fromkeys(keys, end))

    def blocks_left(self, kv, use, now: float) -> None:
        """A job that used a context has ended, or given way."""
        for path in use.contexts:
            self._left(kv, path, range(len(path)), now)

    def windows_changed(self, kv, before, after, now: float) -> None:
        """A job uses other blocks of windows with names than before: it has computed some, or left some."""
        for path, blocks in before.items():
            new = set(after[path]) - set(blocks)
            self._computed[kv].update(path[block] for block in new)
            self._users.update((kv, path[block]) for block in new)
            self._left(kv, path, set(blocks) - set(after[path]), now)

    def _left(self, kv, path, blocks, now: float) -> None:
        for key in [(kv, path[block]) for block in blocks]:
            self._users[key] -= 1
            self._left_s[key].append(now)

    def blocks_expired(self, kv, path, start: int, stop: int, now: float) -> None:
        """Blocks of a context lose their names because nobody used them for too long."""
        early = [block for block in range(start, stop) if not self._is_over(self._left_s[kv, path[block]][0], now)]
        demand(not early, 6, f"blocks {early[:3]} of a context expire at {now}, and their time is not over")

    def _is_over(self, left_s: float, now: float) -> bool:
        return left_s + self._ttl_s < now

    def saved(self, replica, job, tier: int) -> None:
        """A job has ended, and what it gives back was in use."""
        demand(
            0 <= job.hbm_bytes <= replica.batch.hbm_used, 1, f"turn {job.turn} gives back {job.hbm_bytes} bytes of {replica.batch.hbm_used}"
        )

    def _check_hbm(self, replica) -> None:
        pool = replica.kv.tiers[0]
        demand(0 <= pool.used <= pool.capacity, 2, "the pool holds", pool.used, "of", pool.capacity, "bytes")
        demand(replica.batch.hbm_used <= replica.batch.hbm_bytes, 2, "jobs have", replica.batch.hbm_used, "of", replica.batch.hbm_bytes)
        for tier in replica.kv.tiers[1:]:
            demand(0 <= tier.used <= tier.peak <= tier.capacity, 2, tier.name, "holds", tier.peak, "of", tier.capacity, "bytes")

    def _conserved(self, replica) -> None:
        kv, each = replica.kv, replica.kv.block_bytes
        used, free, below = kv.counted({job.turn: replica.batch.tokens(job) for job in replica.batch.jobs})
        demand((used + free) * each == kv.hbm_bytes, 1, f"{used} blocks are in use and {free} free: not all of the pool")
        demand(used * each == replica.batch.hbm_used, 1, f"{used} blocks are in use, counted are {replica.batch.hbm_used / each}")
        for held, room in below:
            demand(held <= room, 2, f"{held} chunks are in a tier of {room}")
