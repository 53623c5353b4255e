"""Jobs that enter with HBM for their prompts alone, and take more as their answers grow: until there is none, and some must give way.

Between two steps a job has HBM for every token that is out; so it enters with room for its prompt and its first token, and each decode
step takes a token more of each that decodes. Where that does not fit, the last of those that run gives all of its HBM back, goes to the
front of the queue, and is computed again, answer so far included, when it fits.

Left out: HBM that is taken chunk by chunk as a prompt is computed; KV of ended jobs that waits in HBM to be saved, which answers may
grow into.

Source: vLLM 0.33, vllm/v1/core/sched/scheduler.py.
"""

import heapq

from kvplan.hwmodels.footprint import Footprint
from kvplan.sim.engine.batch import Batch, Job


class GrowingBatch(Batch):
    """One replica's. O(1) a step where bytes are in proportion to tokens, else O(jobs) where not all of them could end as they are."""

    def __init__(self, hbm_bytes: int, most: int, footprint: Footprint) -> None:
        super().__init__(hbm_bytes, most)
        self.grows = True
        self._size = footprint.of
        self._each = 0 if footprint.is_checkpoint else footprint.per_token
        """Bytes of each token of a job; 0 where tokens differ."""
        self._most_each = footprint.per_token + sum(each for _, each in footprint.windows)
        self._whole = 0
        """Bytes that all of its jobs have at their ends."""
        self._order: dict[int, Job] = {}
        """Those that have a place, by turn, in the order in which they got it."""

    # --- who enters and leaves ------------------------------------------------------------------------------------------------

    def left_beside(self, job: Job) -> int:
        return super().left_beside(job) - self._growth(1) + self._to_come(job)

    def enter(self, job: Job) -> None:
        super().enter(job)
        self._order[job.turn] = job
        self._take(job)

    def enter_apart(self, job: Job) -> None:
        super().enter_apart(job)
        self._take(job)

    def resume(self) -> Job:
        job = super().resume()
        self._order[job.turn] = job
        return job

    def _take(self, job: Job) -> None:
        """It has entered, without the HBM of what is to come of its answer."""
        self.hbm_used -= self._to_come(job)
        self._whole += job.hbm_bytes

    def leave(self, job: Job) -> None:
        super().leave(job)
        self._whole -= job.hbm_bytes
        del self._order[job.turn]

    # --- what grows -----------------------------------------------------------------------------------------------------------

    def decoded(self, steps: int) -> list[Job]:
        self.hbm_in_step = self.hbm_used + self._growth(steps - 1)
        self.hbm_used += self._growth(steps)
        return super().decoded(steps)

    def tokens(self, job: Job) -> int:
        if job.end_step:
            return job.context - (job.end_step - self.steps)
        return min(job.context, job.known + 1)

    @property
    def is_short(self) -> bool:
        return self._whole > self.hbm_bytes and self._growth(1) > self.hbm_bytes - self.hbm_used

    def at_most(self, steps: int, head: Job | None = None) -> int:
        if self._whole <= self.hbm_bytes:
            return steps
        return min(steps, max(1, (self.hbm_bytes - self.hbm_used) // (self.decoding * (self._each or self._most_each))))

    def _growth(self, steps: int) -> int:
        """Bytes that so many decode steps take."""
        if self._each or not self.decoding:
            return self.decoding * steps * self._each
        size, now = self._size, [self.tokens(job) for _, _, job in self.ends]
        return sum([size(tokens + steps) - size(tokens) for tokens in now])

    def _to_come(self, job: Job) -> int:
        """Bytes that it has at its end and does not take yet."""
        return self._size(job.context) - self._size(self.tokens(job))

    # --- who gives way --------------------------------------------------------------------------------------------------------

    def give_way(self) -> list[Job]:
        found: list[Job] = []
        while self.is_short:
            found.append(self._preempt(next(reversed(self._order.values()))))
        return found

    def _preempt(self, job: Job) -> Job:
        """A job that runs gives way, and leaves before its end; returns it as it was."""
        made, missing = job.made, self._to_come(job)
        if job.end_step:
            tokens = self.tokens(job)
            made += tokens - job.known
            self.ends.remove((job.end_step, job.turn, job))
            heapq.heapify(self.ends)
            self.context += job.context - tokens
        else:
            self.prefilling.remove(job)
        self.leave(job)
        self.hbm_used += missing
        self.preempted.appendleft(job.again(made))
        return job
