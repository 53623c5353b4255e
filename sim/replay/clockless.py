"""Any eviction policy over a list of accesses, without a server: which turns would find their KV, in one pass, for screening.

One tier, whose capacity is all there is. When a turn starts, what of its session's KV it cannot use is cut off, and the rest is pinned.
When its answer is complete the session grows; whoever the policy names leaves until it fits. A turn that cannot be stored leaves what was
held before, as a skipped save does, and evicts nobody. The policy is told what the simulator's store tells it, in the same order: over
the starts and ends that a simulated run had (`realised`), with one tier, the two agree turn by turn.

Left out is what moves starts and ends: queueing, which reorders turns and lengthens the time between them; and what one tier has not: lower
tiers, links, writes under way. So the answer is near the simulator's while little waits, and far from it in an overloaded closed loop.
What a turn cannot use is taken to be the end of the history, which
matters only where a skipped save left a prefix of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.sim.policies.base import Eviction, View
from kvplan.sim.policies.registry import PolicyError
from kvplan.traces.reuse import Accesses, previous


@dataclass(frozen=True)
class Costs:
    """Seconds for so many units of KV, for policies that weigh them."""

    recompute_s: Callable[[int], float] = float
    """To prefill its tokens; by default proportional to it."""
    load_s: Callable[[int], float] = lambda size: 0.0
    """To bring it to the GPU; by default nothing."""


@dataclass(frozen=True)
class Replayed:
    """What one policy served, per access."""

    seen: Accesses
    served: np.ndarray
    """int64: units of the history that were in the tier."""

    @property
    def hit(self) -> np.ndarray:
        """bool: all of a history that was not empty was in the tier."""
        return (self.served > 0) & (self.served == self.seen.history)

    def rates(self, counted: np.ndarray | None = None) -> dict[str, float]:
        """Shares over the accesses that are counted (bool each; all by default): `resumed`, of the turns that are not their session's
        first, by hits; `history`, of all history, by units. 0 of nothing."""
        if counted is None:
            counted = np.ones(len(self.served), bool)
        again = counted & (previous(self.seen.session) >= 0)
        return {
            "resumed": float(self.hit[counted].sum() / max(1, again.sum())),
            "history": float(self.served[counted].sum() / max(1, self.seen.history[counted].sum())),
        }


def replay(
    policy: type[Eviction],
    seen: Accesses,
    capacity: int,
    costs: Costs | None = None,
    tenants: Sequence[int] | None = None,
) -> Replayed:
    """Replays accesses through one tier of `capacity` units (those of `seen`). `tenants`: one number per session, 0 when left out.

    As fast as the policy: O(accesses · its cost per call). The time is the accesses' own, and `next_use_s` is when the session's next turn
    starts. Raises PolicyError when the policy needs the job queue, which does not exist here, or names a session that is not in its order.
    """
    if "queue" in policy.NEEDS:
        raise PolicyError(f"eviction policy {policy.NAME!r} needs the job queue, which a replay without a clock does not have: simulate it")
    sessions = int(seen.session.max()) + 1 if len(seen.session) else 0
    view = _View(capacity, sessions, costs or Costs(), [0] * sessions if tenants is None else tenants)
    return Replayed(seen, _Tier(policy, view).run(seen))


Saved = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(tokens of contexts, of the answers at their ends) -> tokens that are kept."""


def realised(columns: Mapping[str, np.ndarray], saved: Saved = lambda context, _: context) -> tuple[Accesses, np.ndarray]:
    """(accesses, row of each in the workload) of a simulated run: its turns from admission to the end of the answer, in tokens.

    `columns` are `Result.columns`; rows of one replica, if there are several.
    """
    start, history = columns["admitted_s"], columns["history_tokens"]
    size = saved(history + columns["prompt_tokens"] + columns["output_tokens"], columns["output_tokens"])
    gap = np.where(columns["turn"] > 0, np.diff(start, prepend=np.nan), np.nan)
    order = np.argsort(start, kind="stable")
    rows = (columns["session"], start, gap, history, size, columns["done_s"])
    return Accesses(*(row[order] for row in rows)), order


class _View(View):
    """The tier as its policy sees it."""

    def __init__(self, capacity: int, sessions: int, costs: Costs, tenants: Sequence[int]) -> None:
        self.capacity, self.is_last = capacity, True
        self.held = [0] * sessions
        self.next_s = [np.inf] * sessions
        self.time_s = 0.0
        self._costs = costs
        self._tenants = tenants

    def size(self, session: int) -> int:
        return self.held[session]

    def now_s(self) -> float:
        return self.time_s

    def position(self, session: int) -> None:
        return None

    def recompute_s(self, session: int) -> float:
        return self._costs.recompute_s(self.held[session])

    def load_s(self, session: int) -> float:
        return self._costs.load_s(self.held[session])

    def next_use_s(self, session: int) -> float:
        return self.next_s[session]

    def tenant(self, session: int) -> int:
        return self._tenants[session]


class _Tier:
    """Bytes, pins and the evict loop."""

    def __init__(self, policy: type[Eviction], view: _View) -> None:
        self._policy = policy(view)
        self._view = view
        self._held = view.held
        self._free = view.capacity
        self._running: set[int] = set()
        self._aside: set[int] = set()

    def run(self, seen: Accesses) -> np.ndarray:
        """int64 per access: units served."""
        view = self._view
        sessions, history, size = seen.session.tolist(), seen.history.tolist(), seen.size.tolist()
        starts, later = seen.time_s.tolist(), _next_times(seen)
        ends = starts if seen.end_s is None else seen.end_s.tolist()
        served = np.zeros(len(sessions), np.int64)
        for event in seen.events().tolist():
            if event >= 0:
                view.time_s = starts[event]
                served[event] = self._start(sessions[event], history[event])
            else:
                turn = ~event
                view.time_s = ends[turn]
                view.next_s[sessions[turn]] = later[turn]
                self._end(sessions[turn], size[turn])
        return served

    def _start(self, session: int, history: int) -> int:
        """A turn starts: returns the units that it finds."""
        self._running.add(session)
        held = self._held[session]
        if held <= history:
            return held
        if not history:
            self._policy.remove(session)
        self._held[session] = history
        self._free += held - history
        return history

    def _end(self, session: int, size: int) -> None:
        """Its answer is complete: the session holds `size` units now, if room can be made, and may leave again."""
        was_held = self._held[session] > 0
        if size <= self._view.capacity:
            self._grow(session, size - self._held[session])
        self._running.remove(session)
        if session in self._aside:
            self._aside.remove(session)
            self._policy.restore(session)
        if was_held:
            self._policy.use(session)

    def _grow(self, session: int, missing: int) -> None:
        while self._free < missing:
            victim = self._named()
            if victim is None:
                return
            if victim not in self._running and self._free + self._held[victim] < missing and not self._can_make(missing):
                return
            self._evict(victim)
        is_new = not self._held[session]
        self._free -= missing
        self._held[session] += missing
        if is_new:
            self._policy.insert(session)

    def _can_make(self, missing: int) -> bool:
        """Whether so much would be free if all left that can."""
        return missing <= self._view.capacity - sum(self._held[session] for session in self._running)

    def _named(self) -> int | None:
        """The policy's victim, which must be in its order."""
        victim = self._policy.victim()
        if victim is None:
            return None
        if not (0 <= victim < len(self._held) and self._held[victim]) or victim in self._aside:
            raise PolicyError(f"eviction policy {self._policy.NAME!r}: victim() named session {victim!r}, which is not in its order")
        return victim

    def _evict(self, victim: int) -> None:
        """The victim leaves, or is set aside while its turn runs."""
        if victim in self._running:
            self._policy.set_aside(victim)
            self._aside.add(victim)
            return
        self._policy.remove(victim)
        self._free += self._held[victim]
        self._held[victim] = 0


def _next_times(seen: Accesses) -> list[float]:
    """Per access: when the session's next turn starts; infinity when there is none."""
    before = previous(seen.session)
    again = before >= 0
    found = np.full(len(before), np.inf)
    found[before[again]] = seen.time_s[again]
    return found.tolist()
