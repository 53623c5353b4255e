"""Jobs that wait and jobs that run, the HBM that they take, and who gives way when answers have outgrown it."""

import math

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.histories import Histories
from kvplan.validate.checks.reference.sizes import Sizes
from kvplan.validate.checks.reference.turns import Turn

FIRST_SHARE = 0.7
LEAST_SHARE = 0.098
STEPS_OF_FALL = 600
STEPS_AHEAD = 20


class Jobs:
    """Those of one replica. `reserves`: a job starts when there is HBM for its whole `answer`, for its `prompt`, or for its answer beside a
    `share` of what others may still write."""

    def __init__(self, config: Config, deployment: Deployment, sizes: Sizes, histories: Histories, reserves: str) -> None:
        self.ratio, self.deployment, self.sizes = config.deployment.truncation_ratio, deployment, sizes
        self.reserves, self.share = reserves, FIRST_SHARE
        self.queue: list[Turn] = []
        self.aside: dict[Turn, float] = {}  # who waits for KV under way, and is passed by others until then
        self.asked: Turn | None = None  # who asked last for its KV, and has neither started nor stepped aside
        self.preempted: list[Turn] = []  # who gave way, and goes before the queue
        self.batch: list[Turn] = []  # those that are prefilled or decode, in the order in which they got a place
        self.apart: list[tuple[float, Turn]] = []  # asynchronous loads: when they end, and whose they are
        self.loaded: list[Turn] = []  # those of which the load has ended, and who have no place yet
        self.context = histories.tokens
        self.head_since_s = 0.0
        self.hbm_in_step = 0

    def join(self, turn: Turn, now: float) -> None:
        self.head_since_s = self.head_since_s if self.in_turn(self.queue) else now
        self.queue.append(turn)

    def first(self) -> Turn | None:
        """Who starts next."""
        return next(iter(self.in_turn([*self.preempted, *self.queue])), None)

    def in_turn(self, turns: list[Turn]) -> list[Turn]:
        """Those whom others do not pass."""
        return [turn for turn in turns if turn not in self.aside]

    def steps_aside(self, turn: Turn, until_s: float, now: float) -> None:
        self.aside[turn] = until_s
        if turn in self.queue:
            self.head_since_s = now

    def come_back(self, now: float) -> None:
        """Those whose time has come are where they were."""
        for turn in sorted((turn for turn, until_s in self.aside.items() if until_s <= now), key=self.aside.__getitem__):
            until_s = self.aside.pop(turn)
            if self.in_turn(self.queue)[:1] == [turn]:
                self.head_since_s = until_s

    def start(self, turn: Turn, now: float) -> float:
        """The first joins the batch; returns since when it headed the queue."""
        since = now
        if turn in self.preempted:
            self.preempted.remove(turn)
        else:
            self.queue.remove(turn)
            since, self.head_since_s = self.head_since_s, now
        if not self.with_hbm():
            self.share = FIRST_SHARE
        self.batch.append(turn)
        return since

    def trimmed(self, turn: Turn) -> tuple[int, int, int]:
        """(history, prompt, output) that fit into the window: what is too much is cut from the history, its oldest share at a time."""
        history, prompt, output = self.context[turn.session], turn.prompt_tokens, turn.output_tokens
        window = self.deployment.window
        if history + prompt + output > window:
            prompt = min(prompt, window - 1)
            output = min(output, window - prompt)
        while history + prompt + output > window:
            history -= math.ceil(history * self.ratio)
        return history, prompt, output

    # --- who is where ---------------------------------------------------------------------------------------------------------

    def prefilling(self) -> list[Turn]:
        return [turn for turn in self.batch if not turn.decodes]

    def decoding(self) -> list[Turn]:
        return [turn for turn in self.batch if turn.decodes]

    def with_hbm(self) -> list[Turn]:
        return [*self.batch, *(turn for _, turn in self.apart), *self.loaded]

    def started(self) -> list[Turn]:
        """All that have started and not ended."""
        return [*self.with_hbm(), *self.preempted]

    # --- HBM ------------------------------------------------------------------------------------------------------------------

    def tokens(self, turn: Turn) -> int:
        """That a job has HBM for: all to its end, or those that are out, and the first before it is."""
        if self.reserves == "answer":
            return turn.context + turn.left
        return turn.context + (0 if turn.decodes else min(1, turn.left))

    def size(self, tokens: int) -> int:
        """Bytes in HBM."""
        return self.sizes.in_hbm[tokens]

    def hbm_used(self) -> int:
        return sum(self.size(self.tokens(turn)) for turn in self.with_hbm())

    def free(self) -> int:
        return self.deployment.hbm_budget - self.hbm_used()

    def takes(self, turn: Turn, tokens: int) -> int:
        """Bytes of free HBM that a job takes which starts with room for so many tokens."""
        return self.size(tokens)

    def growth(self, steps: int) -> int:
        """Bytes that so many decode steps take."""
        return sum(self.size(turn.context + steps) - self.size(turn.context) for turn in self.decoding())

    def short(self) -> bool:
        """Whether there is less HBM than the next decode step takes."""
        return self.reserves != "answer" and self.growth(1) > self.free()

    def left(self, turn: Turn) -> int:
        """Bytes of HBM that are free beside this turn and those that run; negative when it does not fit."""
        if turn in self.preempted:
            context, output = turn.context, turn.left
        else:
            history, prompt, output = self.trimmed(turn)
            context = history + prompt
        if self.reserves == "prompt":
            return self.free() - self.growth(1) - self.takes(turn, context + min(1, output))
        return self.free() - self.reserved() - self.takes(turn, context + output)

    def reserved(self) -> int:
        """Bytes that others may still take: those that decode a share of that only."""
        if self.reserves == "answer":
            return 0
        to_come = {turn: self.size(turn.context + turn.left) - self.size(self.tokens(turn)) for turn in self.with_hbm()}
        decoding = sum(size for turn, size in to_come.items() if turn.decodes)
        return sum(to_come.values()) - decoding + round(max(LEAST_SHARE, self.share) * decoding)

    def stepped(self) -> None:
        """A decode step has ended."""
        self.share -= (FIRST_SHARE - LEAST_SHARE) / STEPS_OF_FALL

    # --- who gives way --------------------------------------------------------------------------------------------------------

    def next_to_give_way(self, given_way: int) -> Turn | None:
        """After so many others: the last of those that run, until a step fits; where shares are reserved that with the shortest answer so
        far, of such the longest prompt, of such the last, until twenty steps fit or nobody is beside it."""
        decoding = self.decoding()
        if self.reserves == "prompt":
            return self.batch[-1] if self.short() else None
        if not decoding or (given_way and (len(decoding) == 1 or self.growth(STEPS_AHEAD) <= self.free())):
            return None
        return min(reversed(decoding), key=lambda turn: (turn.made, -turn.history_tokens - turn.prompt_tokens))

    def gives_way(self, turn: Turn) -> None:
        """It goes to the front of those that wait, and begins anew, answer so far included."""
        self.batch.remove(turn)
        self.preempted.insert(0, turn)
        turn.decodes, turn.preemptions = False, turn.preemptions + 1

    def cleared(self) -> None:
        """Enough have given way."""
        decoding = self.decoding()
        answers = sum(turn.output_tokens for turn in decoding)
        self.share = min(1.0, sum(turn.made + STEPS_AHEAD for turn in decoding) / (answers + 1))
