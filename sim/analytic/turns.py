"""The turns of a workload as an LRU store of whole sessions meets them, and which tier serves how much of each history.

Distances are those of one LRU list (`kvplan.traces.reuse`), replica by replica: a tier serves a turn when what was used since its session's
last turn, itself included, fits into this tier and those above. The last tier can be filled, the others keep their reserve free. What a
tier holds that tiers above hold too takes its room there without adding to theirs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.policies.registry import find, is_users_own
from kvplan.sim.routing import replica_of
from kvplan.sim.tiers import fetch_target
from kvplan.traces import Workload
from kvplan.traces.context import contexts
from kvplan.traces.reuse import accesses_of, stack_distances, starts


@dataclass(frozen=True)
class Turns:
    """The turns of a workload, in its order."""

    is_first: np.ndarray
    history: np.ndarray
    """Tokens, after truncation; so are the next two."""
    prompt: np.ndarray
    output: np.ndarray
    cut: np.ndarray
    """bool: truncation took some of the history away."""
    void: np.ndarray
    """bool: what is kept of the history is of no use: positions, windows or states are others now."""
    replica: np.ndarray
    time_s: np.ndarray
    idle_s: np.ndarray
    """Since the answer before; NaN for first turns."""
    distance: np.ndarray
    """Bytes that an LRU store of the replica needs to hit; -1 for first turns, and 0 for all until `measured`."""

    @property
    def context(self) -> np.ndarray:
        """Tokens after the turn."""
        return self.history + self.prompt + self.output

    def of(self, chosen: np.ndarray) -> "Turns":
        """Those for which `chosen` (bool per turn) is true, whole sessions."""
        return Turns(**{column.name: getattr(self, column.name)[chosen] for column in fields(self)})

    def timed(self, workload: Workload, token_s: float) -> "Turns":
        """The same, when an answer takes `token_s` per token."""
        answer_s = workload.output_tokens * token_s
        time_s = starts(workload, answer_s)
        since = np.where(self.is_first, np.nan, np.diff(time_s, prepend=0.0))
        return replace(self, time_s=time_s, idle_s=np.maximum(since - np.append(0.0, answer_s[:-1]), 0.0))

    def measured(self, deployment: Deployment, workload: Workload, token_s: float, report: Callable[[int, int], None]) -> "Turns":
        """The same with distances; `report(done, total)` is called meanwhile."""
        seen = accesses_of(workload, self.history, deployment.stored(self.context), workload.output_tokens * token_s)
        rows, distance, before = np.argsort(self.time_s, kind="stable"), np.empty_like(self.distance), 0

        def on(done: int, _: int) -> None:
            report(before + done, len(rows))

        for replica in range(int(self.replica.max()) + 1):
            here = self.replica[rows] == replica
            distance[rows[here]] = stack_distances(seen.those(here), on)
            before += int(here.sum())
        return replace(self, distance=distance)


def cut_spoils(config: Config, deployment: Deployment) -> bool:
    """Whether a history that lost its oldest tokens is of no use: positions are part of what is kept, or a state has seen them."""
    return config.store.positions == "embedded" or deployment.kv.state > 0


def turns_of(config: Config, deployment: Deployment, workload: Workload) -> Turns:
    """All turns, when answers take no time."""
    history, prompt, output = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    dropped = 0 if workload.dropped_tokens is None else workload.dropped_tokens
    before = np.append(0, (history + prompt + output)[:-1]) - dropped
    cut = ~workload.is_first & (history < before)
    edited = np.zeros(workload.turns, bool) if workload.dropped_tokens is None else dropped > 0
    void = cut & cut_spoils(config, deployment) | edited & deployment.kv.is_checkpoint
    replica = replica_of(config, workload.sessions, "hits are worked out replica by replica")[workload.session]
    nothing = np.zeros(workload.turns, np.int64)
    turns = Turns(workload.is_first, history, prompt, output, cut, void, replica, nothing, nothing, nothing)
    return turns.timed(workload, 0.0)


@dataclass(frozen=True)
class Served:
    """What each turn finds, and what that moves."""

    tokens: np.ndarray
    """int64 per tier and turn: those of its context that it has from the tier."""
    written: tuple[int, ...]
    """Per tier but the first: bytes of KV that come from those above it."""
    loaded: Callable[[int], int] | None = None
    """Bytes of so many tokens that are loaded together, stored once, where they are those of blocks; None: as of sessions."""
    rose: np.ndarray | None = None
    """int64 per tier and turn: bytes of chunks of blocks that come up from it to the first below HBM, stored once; None: of sessions."""

    @property
    def cached(self) -> np.ndarray:
        """int64 per turn: tokens of all tiers."""
        return self.tokens.sum(axis=0)


@dataclass(frozen=True)
class Below:
    """What an LRU store writes into a tier below others, and has there."""

    written: int
    """Bytes of KV."""
    held: np.ndarray
    """int64 per turn: tokens of its history that lie below when it starts, if it has left the tiers above or was copied."""
    copied_share: float
    """Of what the tiers above hold, that lies below as well."""


def serve(config: Config, deployment: Deployment, turns: Turns, jobs: float) -> Served:
    """What each turn finds, while `jobs` run: what they load from below DRAM takes its room there when they start, not when they end."""
    target = fetch_target(deployment.tiers)
    rooms: list[float] = [tier.capacity - tier.reserve for tier in deployment.tiers[:-1]]
    rooms += [tier.capacity for tier in deployment.tiers[-1:]]
    found = _serve(config, deployment, turns, rooms)
    if target is None:
        return found
    rooms[target] -= jobs * sum(served_bytes(deployment, turns, found)[target + 1 :])
    return _serve(config, deployment, turns, rooms)


def _serve(config: Config, deployment: Deployment, turns: Turns, rooms: list[float]) -> Served:
    ttl = math.inf if config.store.ttl_s is None else config.store.ttl_s
    found = ~turns.is_first & ~turns.void & (turns.idle_s <= ttl)
    kept = _kept(deployment, turns)
    tokens, above, below = np.zeros((len(rooms), len(found)), np.int64), 0.0, list[Below]()
    for index, room in enumerate(rooms):
        held = kept
        if index:
            below.append(written_below(config, deployment, turns, index, sum(rooms[:index])))
            held, above = below[-1].held, above * (1 - below[-1].copied_share)
        here = found & ~tokens.any(axis=0) & (turns.distance <= above + room) & (held > 0)
        tokens[index, here] = np.minimum(kept, held)[here]
        above += room
    return Served(tokens, tuple(each.written for each in below))


def _kept(deployment: Deployment, turns: Turns) -> np.ndarray:
    """Tokens of each turn's history that were saved after the turn before, without the blocks that truncation cuts into."""
    connection = deployment.connection
    before, answer = (np.append(0, column[:-1]) for column in (turns.context, turns.output))
    lost = np.where(turns.cut, connection.begun(np.maximum(before - turns.history, 0)), 0)
    return np.clip(connection.saved(before, answer) - lost, 0, connection.whole(turns.history))


def served_bytes(deployment: Deployment, turns: Turns, served: Served) -> list[float]:
    """Per tier: what the mean turn is served from it."""
    return [float(deployment.stored(tokens).sum()) / len(turns.history) for tokens in served.tokens]


def _left_at_the_end(deployment: Deployment, turns: Turns, last: np.ndarray) -> np.ndarray:
    """Bytes per session: what sessions of its replica hold at the end of the run that were used after its last turn, itself included."""
    size, replica = deployment.stored(turns.context[last]), turns.replica[last]
    found = np.zeros(len(size), np.int64)
    newest = np.argsort(-turns.time_s[last], kind="stable")
    for one in np.unique(replica):
        rows = newest[replica[newest] == one]
        found[rows] = np.cumsum(size[rows])
    return found


def _leaves_s(turns: Turns, room: float) -> float:
    """How long a session stays unused before tiers of so many bytes give it up: what nine of ten of those that they gave up outlasted."""
    gone = turns.distance > room
    return float(np.quantile(turns.idle_s[gone], 0.1)) if gone.any() else math.inf


def written_below(config: Config, deployment: Deployment, turns: Turns, tier: int, room: float) -> Below:
    """What goes down to a tier from those above, which hold `room` bytes.

    A session goes down when more than these tiers hold comes between two of its turns, or after its last one until the run ends. Then what
    the tier below lacks is written, so what truncation cuts off before that never is.
    """
    write = find("write", "back" if is_users_own(config.store.write) else config.store.write)(math.inf)
    last = np.append(turns.is_first[1:], True)
    leaves = np.append(turns.distance[1:], 0) > room
    leaves[last] = _left_at_the_end(deployment, turns, last) > room
    if config.store.ttl_s is not None and config.store.ttl_s < _leaves_s(turns, room):
        leaves[last | (np.append(turns.idle_s[1:], 0.0) > config.store.ttl_s)] = False  # it expires before it must make room
    moves_back = config.store.ssd_write == "whole"
    connection = deployment.connection
    session, uses, context, kept, below, written, copied, held = -1, 0, 0, 0, 0, 0, 0, []
    columns = (turns.is_first, turns.history, turns.prompt, turns.output, turns.void, leaves)
    for first, history, prompt, output, void, goes in zip(*(column.tolist() for column in columns), strict=True):
        session, uses = session + first, 1 if first else uses + 1
        below = 0 if first or void else max(0, below - connection.begun(context - history))
        held.append(below)
        below = 0 if moves_back else below
        context = history + prompt + output
        kept = connection.saved(context, output)
        copies = tier == 1 and write.copies(session, uses)  # copies of copies are not made
        copied += kept if copies else below
        if copies or (goes and write.demotes(session, uses, deployment.stored(kept - below), 0.0)):
            written += deployment.stored(kept - below)
            below = kept
    return Below(written, np.array(held, np.int64), copied / max(int(turns.context.sum()), 1))
