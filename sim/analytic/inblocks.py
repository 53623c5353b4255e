"""What turns find in a server of blocks (`store.unit: block`), and what a block and a chunk are there.

Turns go through a pool and tiers as the server has them, in order of their starts and as long as their answers take; requests that share
a beginning find each other's. An endless pool says what there is to be found at all.
"""

from collections.abc import Callable, Iterator

import numpy as np

from kvplan.sim.analytic.turns import Served, Turns, by_replica
from kvplan.sim.blockpool import BlockPool, block_pool
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.replay.blockserver import BlockServer, BlockTurn, endless_hits
from kvplan.traces import Workload
from kvplan.traces.blockpaths import turn_paths

_REPORT_EVERY = 1000
_ENOUGH_TURNS = 12_000
"""To go through, where that is two replicas at least: hits of chats are known to one or two points then."""


def some_replicas(turns: Turns) -> Turns:
    """Turns of as many replicas as are enough, out of all: sessions come to each at random."""
    all_of_them = np.unique(turns.replica)
    count = max(2, _ENOUGH_TURNS * len(all_of_them) // len(turns.replica))
    if count >= len(all_of_them):
        return turns
    return turns.of(all_of_them[np.linspace(0, len(all_of_them) - 1, count).astype(int)])


def error_of(turns: Turns, served: Served) -> float:
    """Two standard errors of the shares of prompt tokens that turns of these replicas find in a tier, or in all: the largest of them.

    What each finds beyond the share, or short of it, adds up at random: session by session, and replica by replica, as sessions of one have
    its room in common. The larger counts, as replicas are few.
    """
    tokens, session = turns.history + turns.prompt, np.cumsum(turns.is_first) - 1
    groups = session, np.unique(turns.replica, return_inverse=True)[1]
    shares = [(found, found.sum() / tokens.sum()) for found in (*served.tokens, served.cached)]
    return 2 * max(_at_random(found - share * tokens, group) for found, share in shares for group in groups) / float(tokens.sum())


def _at_random(each: np.ndarray, group: np.ndarray) -> float:
    """Standard deviation of a sum, of what groups add to it."""
    sums = np.bincount(group, each)
    return float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)))


def serve_blocks(
    config: Config, deployment: Deployment, workload: Workload, turns: Turns, answer_s: np.ndarray, report: Callable[[int, int], None]
) -> Served:
    """What each turn finds, when its answer takes so long; `report(done, total)` is called meanwhile."""
    pool = block_pool(config, deployment, workload)
    room = [tier.capacity // deployment.stored(pool.chunk_tokens) for tier in deployment.tiers[1:]]
    tokens, written = np.zeros((len(deployment.tiers), len(turns.history)), np.int64), np.zeros(len(room), np.int64)
    done = 0
    for rows, part in _replicas(config, deployment, workload, turns, pool):
        server = BlockServer(pool, room, config.store.threshold, config.store.ttl_s)
        for row, found in _found(server, rows, part, turns.time_s, answer_s):
            tokens[:, row] = found
            done += 1
            if done % _REPORT_EVERY == 0:
                report(done, len(turns.history))
        written += np.array(server.written, np.int64)
    each = deployment.stored(pool.chunk_tokens)
    return Served(tokens, tuple(int(chunks) * each for chunks in written))


def most_share(config: Config, deployment: Deployment, workload: Workload, turns: Turns) -> float:
    """Share of all prompt tokens that a pool finds which never gives anything up."""
    pool, hits = block_pool(config, deployment, workload), 0
    for rows, part in _replicas(config, deployment, workload, turns, pool):
        hits += endless_hits(pool, (part[place] for place in _in_order(turns.time_s[rows])))
    return hits / max(int((turns.history + turns.prompt).sum()), 1)


def _replicas(
    config: Config, deployment: Deployment, workload: Workload, turns: Turns, pool: BlockPool
) -> Iterator[tuple[np.ndarray, list[BlockTurn]]]:
    """Of each replica the places of its turns in `turns`, and the turns."""
    for replica, part in by_replica(config, workload, np.unique(turns.replica)):
        rows = np.flatnonzero(turns.replica == replica)
        paths = turn_paths(part, pool.block_tokens, deployment.window, config.deployment.truncation_ratio)
        prompt, context = (turns.history + turns.prompt)[rows], turns.context[rows]
        columns = (prompt, context, context if deployment.connection.saves_answers else prompt)
        yield rows, [BlockTurn(*each) for each in zip(paths, *(column.tolist() for column in columns), strict=True)]


def _found(
    server: BlockServer, rows: np.ndarray, turns: list[BlockTurn], time_s: np.ndarray, answer_s: np.ndarray
) -> Iterator[tuple[int, list[int]]]:
    """Per turn of a replica, in order of their starts: its place, and what it finds in each tier."""
    places, starts, ends = rows.tolist(), time_s[rows].tolist(), (time_s + answer_s)[rows].tolist()
    for turn in _in_order(time_s[rows]):
        yield places[turn], server.start(turns[turn], starts[turn], ends[turn])


def _in_order(starts: np.ndarray) -> list[int]:
    """Turns in order of their starts."""
    return np.argsort(starts, kind="stable").tolist()


def blocks_of(config: Config, deployment: Deployment, workload: Workload, turn: dict) -> dict:
    """What a block is, and what the mean resumed turn can find in full ones."""
    pool = block_pool(config, deployment, workload)
    history = int(turn["resumed_history_tokens"])
    return {
        "block_tokens": pool.block_tokens,
        "block_bytes": pool.block_bytes,
        "blocks": pool.usable,
        "kept_blocks": pool.most_kept,
        "chunk_tokens": pool.chunk_tokens,
        "chunk_bytes": deployment.stored(pool.chunk_tokens),
        "resumed_history_tokens": history,
        "in_full_blocks": history - history % pool.block_tokens,
        "in_full_chunks": history - history % pool.chunk_tokens,
    }
