"""What each eviction policy costs: seconds per simulated turn beside LRU, and per decision against the number of resident sessions.

A decision is what an eviction makes of a policy: one session is used, one leaves, one comes. Processor time, guards off; ratios are what
counts, machines are noisy.
"""

import math
import time

import numpy as np

from kvplan.sim import config
from kvplan.sim.policies.base import View
from kvplan.sim.policies.registry import policies
from kvplan.sim.simulation import simulate
from kvplan.validate.show import show

RESIDENT = (1_000, 10_000, 100_000, 1_000_000)
ROUNDS = 5_000
REPEATS = 3
RUN = ("store.ssd=1TB", "workload.sessions=2000", "warmup_turns=0")
"""Of paper-13b: about 11K turns, with evictions from both tiers."""
OWN_PREFETCH = {"lookahead": "lookahead"}
"""Prefetching that comes with a policy; none for the others."""


class Bench(View):
    """A tier of `sessions` sessions whose every fact is a look-up."""

    def __init__(self, sessions: int) -> None:
        self.is_last = True
        rng = np.random.default_rng(7)
        self._size = rng.integers(10**8, 3 * 10**9, 2 * sessions).tolist()
        self.capacity = sum(self._size[:sessions])
        self._next = rng.exponential(600, 2 * sessions).tolist()
        self.time = 0.0

    def size(self, session: int) -> int:
        return self._size[session]

    def now_s(self) -> float:
        return self.time

    def position(self, session: int) -> float | None:
        return None

    def recompute_s(self, session: int) -> float:
        return 1e-10 * self._size[session]

    def load_s(self, session: int) -> float:
        return 4e-11 * self._size[session]

    def next_use_s(self, session: int) -> float:
        return self.time + self._next[session]

    def tenant(self, session: int) -> int:
        return 0


def per_decision_s(policy: type, resident: int) -> float:
    """Processor seconds of a decision among so many sessions."""
    view = Bench(resident)
    order = policy(view)
    for session in range(resident):
        view.time += 1.0
        order.insert(session)
    inside = list(range(resident))
    places = np.random.default_rng(8).integers(0, resident, ROUNDS).tolist()
    place_of = {session: place for place, session in enumerate(inside)}
    view.time += 1e6  # what was protected for a time no longer is
    newcomer = resident
    best = math.inf
    for _ in range(REPEATS):
        started = time.process_time()
        for place in places:
            view.time += 1.0
            order.use(inside[place])
            victim = order.victim()
            if victim is None:
                continue
            order.remove(victim)
            order.insert(newcomer)
            free = place_of.pop(victim)
            inside[free], place_of[newcomer] = newcomer, free
            newcomer = victim
        best = min(best, time.process_time() - started)
    return best / ROUNDS


def per_turn_s(name: str) -> float:
    """Processor seconds of `simulate` per turn."""
    loaded = config.load("paper-13b", [*RUN, f"store.eviction={name}", f"store.prefetch={OWN_PREFETCH.get(name, 'none')}"])
    best = math.inf
    for _ in range(REPEATS):
        started = time.process_time()
        result = simulate(loaded)
        best = min(best, time.process_time() - started)
    return best / result.workload.turns


def run() -> None:
    """Prints the table."""
    turns = {name: per_turn_s(name) for name in policies("eviction")}
    rows = []
    for name, policy in policies("eviction").items():
        decisions = [per_decision_s(policy, resident) for resident in RESIDENT]
        row = [name, f"{turns[name] * 1e6:.1f}", f"{turns[name] / turns['lru']:.2f}", *(f"{each * 1e6:.2f}" for each in decisions)]
        rows.append([*row, f"{decisions[-1] / decisions[0]:.1f}"])
    title = "simulate(paper-13b, 1 TB of SSD), and one decision among so many resident sessions"
    show(title, ["policy", "us/turn", "x LRU", *(f"{each:,}: us" for each in RESIDENT), "last / first"], rows)
