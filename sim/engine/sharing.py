"""Jobs that enter with HBM for their whole answers, beside a share of what the answers of those that decode may still take.

The share falls with each decode step, from 0.7 to 0.1 in 600 of them, and is 0.7 again in an empty batch. So a job that cannot enter may
come to be able to while others only decode: a run of steps ends there. Where HBM is short all the same, jobs give way until 20 steps of the
others fit: those with the shortest answers so far first, of such those with the longest prompts, and of such the last. The share is then
what the others have made, and 20 steps, of their answers.

Left out: a server does not know how long answers become, and counts with their limits, 4,096 tokens at most; and who gave way goes to the
end of the queue, not before it.

Source: SGLang 0.5, python/sglang/srt/managers/schedule_policy.py (PrefillAdder), schedule_batch.py (retract_decode) and scheduler.py.
"""

import bisect

from kvplan.sim.engine.batch import GivesBack, Job, own
from kvplan.sim.engine.growing import GrowingBatch
from kvplan.sim.engine.growth import Growth

_FIRST = 0.7
_LEAST = 0.14 * _FIRST
_FALL = (_FIRST - _LEAST) / 600
_CLEARED_STEPS = 20


class SharingBatch(GrowingBatch):
    """One replica's."""

    def __init__(self, hbm_bytes: int, most: int, growth: Growth) -> None:
        super().__init__(hbm_bytes, most, growth)
        self.opens = True
        self._share, self._since = _FIRST, 0
        """The share, as of a decode step."""
        self._unmade = 0
        """Bytes that the answers take of jobs that do not decode yet."""

    def left_beside(self, job: Job) -> int:
        return self._left(job, 0)

    def _left(self, job: Job, steps: int) -> int:
        """After so many decode steps of the same jobs."""
        grown = self._growth(steps)
        share = max(_LEAST, self._share - _FALL * (self.steps + steps - self._since))
        to_come = self._missing - self._unmade - grown
        return self.hbm_bytes - self.hbm_used - grown - self._unmade - round(share * to_come) - job.hbm_bytes

    def _take(self, job: Job) -> None:
        super()._take(job)
        if self.running + len(self.apart) == 1:
            self._share, self._since = _FIRST, self.steps
        self._unmade += self._to_come(job)

    def prefilled(self, job: Job, tokens: int) -> bool:
        ended = super().prefilled(job, tokens)
        if ended:
            self._unmade -= self._to_come(job)
        return ended

    def at_most(self, steps: int, head: Job | None = None) -> int:
        steps = super().at_most(steps)
        return steps if head is None else self._until(head, steps)

    def _until(self, job: Job, steps: int) -> int:
        """The first of so many decode steps after which a job can enter; the last one if there is none. What is left beside it rises with
        the fall of the share, and sinks with the growth of answers: where that is even, it has one summit."""
        if not self._sizes.each:
            return next((step for step in range(1, steps) if self._left(job, step) >= 0), steps)
        grown, to_come = self.decoding * self._sizes.each, self._missing - self._unmade
        share = self._share - _FALL * (self.steps - self._since)
        summit = (_FALL * to_come - (1 - share) * grown) / (2 * _FALL * grown)
        floor = (share - _LEAST) / _FALL
        top = max(1, min(steps, round(min(summit, floor))))
        best = max(range(max(1, top - 1), min(steps, top + 1) + 1), key=lambda step: self._left(job, step))
        if self._left(job, best) < 0:
            return steps
        return 1 + bisect.bisect_left(range(1, best + 1), True, key=lambda step: self._left(job, step) >= 0)

    def give_way(self, gives_back: GivesBack = own) -> list[Job]:
        found: list[Job] = []
        while self.decoding and (not found or (self.decoding > 1 and self._growth(_CLEARED_STEPS) > self.hbm_bytes - self.hbm_used)):
            decoding = [job for job in reversed(self._order.values()) if job.end_step]
            found.append(self._preempt(min(decoding, key=lambda job: (self._made(job), job.made - job.known)), gives_back))
        made = [(self._made(job), job.output) for job in self._order.values() if job.end_step]
        answers = sum(output for _, output in made)
        self._share = min(1.0, (sum(out for out, _ in made) + _CLEARED_STEPS * len(made)) / (answers + 1))
        self._since = self.steps
        return found

    def _made(self, job: Job) -> int:
        """Tokens of a decoding job's answer that are out."""
        return self.tokens(job) - job.known + job.made
