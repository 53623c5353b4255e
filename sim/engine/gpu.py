"""What a replica's GPUs do now, until when, and what their time went to. They do one thing at a time."""

from collections.abc import Callable, Sequence
from typing import Final

from kvplan.sim.engine.agenda import Agenda
from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.clock import STEP, Timer

IDLE: Final = 0
PREFILL: Final = 1
DECODE: Final = 2
STALL: Final = 3
BOUNDARY: Final = 4
"""What they do; `BOUNDARY` is the instant between two steps."""


def _too_late(timer: Timer) -> None:
    """What it was to end has been shortened, and has ended."""


class Gpu:
    """One replica's. `ended(timer)` is called when what was started ends."""

    def __init__(self, agenda: Agenda, ended: Callable[[Timer], None]) -> None:
        self.doing: int = IDLE
        self.began = self.ends = 0.0
        self.chunks: Sequence[tuple[Job, int]] = ()
        """Jobs of the step under way that are prefilled, and tokens of each."""
        self.steps = 0
        """Decode steps of it."""
        self.stall_s = 0.0
        """Seconds of it in which it waits for KV."""
        self.prefill_s = self.decode_s = self.load_stall_s = self.save_stall_s = 0.0
        self.prefilled_tokens = 0
        self._agenda = agenda
        self._ended = ended
        self._timer = Timer(ended)
        self._decode_s = 0.0
        """Of a step that prefills and decodes, what its decodes would take alone."""

    # --- what it starts -------------------------------------------------------------------------------------------------------

    def prefill(
        self,
        now: float,
        chunks: Sequence[tuple[Job, int]],
        new: int,
        compute_s: float,
        duration_s: float,
        steps: int = 0,
        decode_s: float = 0.0,
    ) -> None:
        """A step that prefills `new` tokens in all, and makes a decode step or not. Of `compute_s` its decodes would take `decode_s`
        alone; what the duration is longer is a stall."""
        self.chunks, self.steps = chunks, steps
        self.stall_s = stall_s = duration_s - compute_s
        if steps:
            self._decode_s = decode_s
            self.decode_s += decode_s
            compute_s -= decode_s
        self.prefill_s += compute_s
        self.load_stall_s += stall_s
        self.prefilled_tokens += new
        self.doing, self.began = PREFILL, now
        self.ends = end = now + duration_s
        self._agenda.set(self._timer, end, STEP)

    def decode(self, now: float, steps: int, end: float) -> None:
        """A run of decode steps."""
        self.chunks, self.steps = (), steps
        self.doing, self.began, self.ends = DECODE, now, end
        self._agenda.set(self._timer, end, STEP)

    def shorten(self, steps: int, end: float) -> None:
        """The run of decode steps is to end sooner."""
        self.steps, self.ends = steps, end
        self._timer.callback = _too_late
        self._timer = Timer(self._ended)
        self._agenda.set(self._timer, end, STEP)

    def stall(self, now: float, end: float) -> None:
        """It waits until KV has been saved."""
        self.chunks, self.steps = (), 0
        self.doing, self.began, self.ends = STALL, now, end
        self.save_stall_s += end - now
        self._agenda.set(self._timer, end, STEP)

    def end(self) -> float:
        """What was under way has ended, and nothing follows yet; returns when."""
        end = self.ends
        if self.doing == DECODE:
            self.decode_s += end - self.began
        self.doing = BOUNDARY
        return end

    # --- what it did ----------------------------------------------------------------------------------------------------------

    @property
    def busy_s(self) -> float:
        """Seconds in which it computed, or waited for KV with a job in hand."""
        return self.prefill_s + self.decode_s + self.load_stall_s + self.save_stall_s

    def spent(self, now: float) -> dict[str, float]:
        """Seconds by what they went to, and tokens prefilled, by `now`: the step under way counts as far as it has come."""
        found = {
            "prefill_s": self.prefill_s,
            "decode_s": self.decode_s,
            "load_stall_s": self.load_stall_s,
            "save_stall_s": self.save_stall_s,
            "prefilled_tokens": self.prefilled_tokens,
        }
        if self.doing == DECODE:
            found["decode_s"] += now - self.began
        elif self.doing == STALL:
            found["save_stall_s"] -= self.ends - now
        elif self.doing == PREFILL:
            left, decode_s = (self.ends - now) / (self.ends - self.began), self._decode_s if self.steps else 0.0
            found["load_stall_s"] -= left * self.stall_s
            found["prefill_s"] -= left * (self.ends - self.began - self.stall_s - decode_s)
            found["decode_s"] -= left * decode_s
            found["prefilled_tokens"] -= left * sum([tokens for _, tokens in self.chunks])
        return found
