"""Jobs that wait and jobs that run, and the HBM that they take."""

import math

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.histories import Histories
from kvplan.validate.checks.reference.sizes import Sizes
from kvplan.validate.checks.reference.turns import Turn


class Jobs:
    """Those of one replica."""

    def __init__(self, config: Config, deployment: Deployment, sizes: Sizes, histories: Histories) -> None:
        self.ratio, self.deployment, self.sizes = config.deployment.truncation_ratio, deployment, sizes
        self.queue: list[Turn] = []
        self.batch: list[Turn] = []  # the last one may be in its prefill
        self.apart: list[tuple[float, Turn]] = []  # asynchronous loads: when they end, and whose they are
        self.loaded: list[Turn] = []  # those of which the load has ended, and who have no place yet
        self.context = histories.tokens
        self.head_since_s = 0.0
        self.hbm_in_step = 0

    def join(self, turn: Turn, now: float) -> None:
        self.head_since_s = self.head_since_s if self.queue else now
        self.queue.append(turn)

    def start(self, now: float) -> tuple[Turn, float]:
        """The head of the queue joins the batch; it, and since when it was the head."""
        since, self.head_since_s = self.head_since_s, now
        self.batch.append(self.queue.pop(0))
        return self.batch[-1], since

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

    def started(self) -> list[Turn]:
        """All that have started and not ended."""
        return [*self.batch, *(turn for _, turn in self.apart), *self.loaded]

    def hbm_used(self) -> int:
        """Bytes of the KV that those that run will have in the end."""
        return sum(self.sizes.in_hbm[turn.context + turn.left] for turn in self.started())

    def left(self, turn: Turn) -> int:
        """Bytes of HBM that are free beside this turn and those that run; negative when it does not fit."""
        return self.deployment.hbm_budget - self.hbm_used() - self.sizes.in_hbm[sum(self.trimmed(turn))]
