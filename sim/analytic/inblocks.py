"""What turns find in a server of blocks (`store.unit: block`), and what a block and a chunk are there.

Turns go through a pool and tiers as the server has them, in order of their starts and as long as their answers take; requests that share
a beginning find each other's. Endless room says what there is to be found at all.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from kvplan.sim.analytic.turns import Served, Turns
from kvplan.sim.blockpool import BlockPool, block_pool
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.replay.blockserver import BlockServer, BlockTurn, endless_hits
from kvplan.sim.routing import replica_of
from kvplan.traces import Workload
from kvplan.traces.blockpaths import turn_paths

_REPORT_EVERY = 1000
_ENOUGH_TURNS = 12_000
"""To go through, where that is two replicas at least: hits of chats are known to one or two points then."""
_ENDLESS = 2**62
"""Blocks, or chunks, of a tier that never gives one up for room."""


def some_replicas(turns: Turns) -> np.ndarray:
    """bool per turn: it is one of as many replicas as are enough, out of all: sessions come to each at random."""
    all_of_them = np.unique(turns.replica)
    count = min(max(2, _ENOUGH_TURNS * len(all_of_them) // len(turns.replica)), len(all_of_them))
    return np.isin(turns.replica, all_of_them[np.linspace(0, len(all_of_them) - 1, count).astype(int)])


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
) -> tuple[Served, float]:
    """What each turn of some replicas finds, when its answer takes so long; and the share of all prompt tokens that they would find if
    nothing were ever given up for room. `report(done, total)` is called meanwhile."""
    pool = block_pool(config, deployment, workload)
    room = [tier.capacity // pool.chunk_bytes for tier in deployment.tiers[1:]]
    tokens, written = np.zeros((len(deployment.tiers), len(turns.history)), np.int64), np.zeros(len(room), np.int64)
    rose = np.zeros_like(tokens)
    done = hits = 0
    for rows, part in _replicas(config, deployment, workload, turns, pool):
        server = BlockServer(pool, room, config.store.threshold, config.store.ttl_s)
        order = np.argsort(turns.time_s[rows], kind="stable")
        starts, ends = turns.time_s[rows][order], (turns.time_s + answer_s)[rows][order]
        in_order, found, up = [part[place] for place in order.tolist()], list[list[int]](), list[list[int]]()
        for turn in zip(in_order, starts.tolist(), ends.tolist(), strict=True):
            found.append(server.start(*turn))
            up.append(server.rose)
            done += 1
            if done % _REPORT_EVERY == 0:
                report(done, len(turns.history))
        tokens[:, rows[order]], rose[1:, rows[order]] = np.array(found).T, np.array(up).T
        written += np.array(server.written, np.int64)
        hits += endless_hits(in_order, pool.block_tokens) if pool.groups is None else _at_best(pool, len(room), in_order, starts, ends)
    each, prompts = pool.stored_bytes, int((turns.history + turns.prompt).sum())
    served = Served(tokens, tuple(int(blocks) * each for blocks in written), pool.loaded, rose * pool.chunk_bytes)
    return served, hits / max(prompts, 1)


def _at_best(pool: BlockPool, tiers: int, turns: Sequence[BlockTurn], starts: Sequence[float], ends: Sequence[float]) -> int:
    """Tokens that turns find where the pool and all tiers below have room for everything: windows and states are left behind at the ends of
    prompts alone, whatever the room."""
    server = BlockServer(replace(pool, usable=_ENDLESS, most_kept=_ENDLESS), [_ENDLESS] * tiers)
    return sum(sum(server.start(*turn)) for turn in zip(turns, starts, ends, strict=True))


def _replicas(
    config: Config, deployment: Deployment, workload: Workload, turns: Turns, pool: BlockPool
) -> Iterator[tuple[np.ndarray, list[BlockTurn]]]:
    """Of each replica the places of its turns in `turns`, and the turns."""
    place = replica_of(config, workload.sessions, "hits are worked out replica by replica")
    for replica in np.unique(turns.replica):
        rows, part = np.flatnonzero(turns.replica == replica), workload.select(np.flatnonzero(place == replica))
        paths = turn_paths(part, pool.block_tokens, deployment.window, config.deployment.truncation_ratio)
        prompt, context = (turns.history + turns.prompt)[rows], turns.context[rows]
        columns = (prompt, context, context if deployment.connection.saves_answers else prompt)
        yield rows, [BlockTurn(*each) for each in zip(paths, *(column.tolist() for column in columns), strict=True)]


def blocks_of(config: Config, deployment: Deployment, workload: Workload, turn: dict) -> dict:
    """What a block is, and what the mean resumed turn can find in full ones."""
    pool = block_pool(config, deployment, workload)
    history = int(turn["resumed_history_tokens"])
    return {
        "block_tokens": pool.block_tokens,
        "block_bytes": pool.block_bytes,
        "groups": None if (of := pool.groups) is None else {"full": of.full, "windowed": of.windowed, "states": of.states},
        "blocks": pool.usable,
        "kept_blocks": pool.most_kept,
        "chunk_tokens": pool.chunk_tokens,
        "chunk_bytes": pool.chunk_bytes,
        "resumed_history_tokens": history,
        "in_full_blocks": history - history % pool.block_tokens,
        "in_full_chunks": history - history % pool.chunk_tokens,
    }
