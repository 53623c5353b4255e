"""What the server's seconds go to."""

from collections.abc import Callable
from dataclasses import dataclass

from kvplan.validate.calibration.clock import Answer, Clock


@dataclass(frozen=True)
class Step:
    """One step that was made, without its stalls."""

    is_prefill: bool
    tokens: int
    """New tokens of a prefill; the batch of a decode step."""
    context: int
    """Tokens of history of a prefill; those of all jobs together of a decode step."""
    seconds: float


class Ledger:
    """A step lasts from the end of the step before, or of the wait for a job, to its own end, less its stalls: the server's own work
    (choosing, keeping books, looking up) is part of it, and is also counted by itself.

    `stalled_s()`: seconds in which computing waited for transfers so far. The first step begins when the first turn comes, at `start_s`.
    """

    def __init__(self, clock: Clock, stalled_s: Callable[[], float], start_s: float) -> None:
        self._clock, self._stalled_s = clock, stalled_s
        self.spent = {"prefill_s": 0.0, "decode_s": 0.0, "load_stall_s": 0.0, "save_stall_s": 0.0, "prefilled_tokens": 0}
        self.steps: list[Step] = []
        self.own_s = self.idle_s = 0.0
        self._attended_s = 0.0
        self._step_ended_s = start_s
        """When the latest step ended, or the wait for a job."""

    def step(self, is_prefill: bool, tokens: int, context: int, work: Callable[[], Answer]) -> tuple[Answer, float]:
        """Makes a step; returns the answer of its work, and its stalls. One that raises is part of the next."""
        began, attended, stalled = self._clock.now, self._attended_s, self._stalled_s()
        answer = work()
        now, stall = self._clock.now, self._stalled_s() - stalled
        seconds = now - self._step_ended_s - stall
        self.own_s += seconds - (now - began - stall - (self._attended_s - attended))
        self._step_ended_s = now
        self.steps.append(Step(is_prefill, tokens, context, seconds))
        self.spent["prefill_s" if is_prefill else "decode_s"] += seconds
        self.spent["load_stall_s" if is_prefill else "save_stall_s"] += stall
        return answer, stall

    def begin(self, now: float) -> None:
        """The measured span begins: what was done since the latest step came before it."""
        self.spent["decode_s"] += now - self._step_ended_s
        self.own_s += now - self._step_ended_s
        self._step_ended_s = now

    def waited(self) -> None:
        """For a job, since the latest step."""
        now = self._clock.now
        self.idle_s += now - self._step_ended_s
        self._step_ended_s = now

    def attended(self, since_s: float) -> None:
        """The server has looked up, within a step or between two."""
        self._attended_s += self._clock.now - since_s
