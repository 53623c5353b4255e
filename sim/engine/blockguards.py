"""The guards of a run whose KV is in blocks: what `kvplan.sim.engine.guards` says, for a pool and the tiers below it.

Blocks are conserved: those in use and those free are all of the pool, and jobs that run have room for their contexts. A hit serves only
blocks that were computed on this replica.
"""

from collections import defaultdict
from collections.abc import Hashable

from kvplan.sim.engine.guards import Guards, demand


class BlockGuards(Guards):
    """Books of one run."""

    def __init__(self, *arguments) -> None:
        super().__init__(*arguments)
        self._computed: defaultdict[object, set[Hashable]] = defaultdict(set)
        """Keys, per replica's KV."""

    def blocks_computed(self, kv, path, start: int, count: int) -> None:
        """So many blocks of a context are in HBM since, and may be found."""
        self._computed[kv].update(path[block] for block in range(start, start + count))

    def blocks_found(self, kv, path, count: int) -> None:
        """A job uses the first blocks of its context, and does not compute them."""
        strange = [block for block in range(count) if path[block] not in self._computed[kv]]
        demand(not strange, 6, f"blocks {strange[:3]} of a context are found, and nobody has computed them")

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
