"""Chunks that come up from SSD to DRAM ahead of the jobs that wait for them, a batch at a time, as HiCache's come from its storage; and who
waits for them.
"""

import math
from dataclasses import dataclass

from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.offloading import Found, Offloading
from kvplan.validate.checks.reference.shelf import Names
from kvplan.validate.checks.reference.turns import Turn

LEAST_TOKENS = 256
BATCH = 128
PATIENCE_S = {
    "best-effort": lambda tokens: 0.0,
    "timeout": lambda tokens: 1.0 + 0.25 * tokens / 1024,
    "wait-complete": lambda tokens: math.inf,
}
"""How long a job waits for so many tokens, from when it came."""


@dataclass
class Wanted:
    """What a turn that waits wants."""

    turn: Turn
    names: Names
    known: int
    """Tokens of its prompt, with its history."""
    tokens: int
    """That only SSD had when it came."""


class Fetching:
    """That of one replica; nothing comes so by policies of whole sessions, nor with less than two shelves."""

    def __init__(self, policy: str, below: Offloading, jobs: Jobs) -> None:
        self.policy, self.below, self.jobs, self.seen = policy, below, jobs, below.seen
        below.ahead = len(below.shelves) > 1 and policy in PATIENCE_S
        self.wanted: list[Wanted] = []  # in the order in which they came
        self.ends_s = math.inf  # when the batch under way has come
        self.waited: set[Turn] = set()  # who has been held back

    def comes(self, turn: Turn, names: Names, known: int, hit: int) -> Found | None:
        """A turn has come; what tiers have of its prompt, if it wants some of that to come up."""
        found = self.below.found(names, known, hit, coming=False, up=True)
        tokens = len(found.names) * self.below.tokens - max(hit, found.on_first * self.below.tokens)
        if tokens < max(LEAST_TOKENS, self.below.tokens):
            return None
        self.wanted.append(Wanted(turn, names, known, tokens))
        self.seen["turns that chunks come up ahead of"] += 1
        return found

    def starts(self, turn: Turn) -> None:
        """Nothing more comes for it."""
        self.seen["jobs that start before all has come"] += any(wanted.turn is turn for wanted in self.wanted)
        self.wanted = [wanted for wanted in self.wanted if wanted.turn is not turn]

    def begin(self, now: float) -> None:
        """The next batch comes, where none is under way; who has nothing to come any more waits no longer."""
        while self.wanted and self.ends_s == math.inf:
            first = self.wanted[0]
            end_s = self.below.bring(first.names, first.known, BATCH, first.turn.session, now)
            if end_s is not None:
                self.ends_s = end_s
                return
            self.wanted.pop(0)
            if first.turn in self.jobs.aside:
                self.jobs.aside[first.turn] = now
                self.jobs.come_back(now)

    def end(self, now: float) -> None:
        """What is due by now, each at its own time."""
        while self.ends_s <= now:
            end_s, self.ends_s = self.ends_s, math.inf
            self.below.settle(end_s)
            self.begin(end_s)

    def hold_back(self, now: float) -> None:
        """The first of those that wait do so for what comes up for them, and others pass them."""
        while (turns := self.jobs.in_turn(self.jobs.queue)) and self.holds(turns[0], now):
            pass

    def holds(self, turn: Turn, now: float) -> bool:
        """Whether the first is held back from now on."""
        tokens = [wanted.tokens for wanted in self.wanted if wanted.turn is turn and turn not in self.waited]
        if not tokens or (until_s := turn.arrival_s + PATIENCE_S[self.policy](tokens[0])) <= now:
            return False
        self.waited.add(turn)
        turn.deferrals += 1
        self.jobs.steps_aside(turn, until_s, now)
        self.seen["jobs held back for what comes up"] += 1
        return True
