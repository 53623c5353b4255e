"""Jobs that enter with HBM for their prompts alone, and take more as their answers grow: until there is none, and some must give way.

Between two steps a job has HBM for every token that is out; so it enters with room for its prompt and its first token, and each decode
step takes a token more of each that decodes. Where that does not fit, the last of those that run gives all of its HBM back, goes to the
front of the queue, and is computed again, answer so far included, when it fits.

Left out: HBM that is taken chunk by chunk as a prompt is computed; KV of ended jobs that waits in HBM to be saved, which answers may
grow into.

Source: vLLM 0.33, vllm/v1/core/sched/scheduler.py.
"""

import heapq

from kvplan.sim.engine.batch import Batch, GivesBack, Job, own
from kvplan.sim.engine.growth import Growth


class GrowingBatch(Batch):
    """One replica's."""

    def __init__(self, hbm_bytes: int, most: int, growth: Growth) -> None:
        super().__init__(hbm_bytes, most)
        self.grows = True
        self._sizes = growth
        self._missing = 0
        """Bytes that all of its jobs take until their ends."""
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
        to_come = self._to_come(job)
        self.hbm_used -= to_come
        self._missing += to_come

    def leave(self, job: Job) -> None:
        super().leave(job)
        del self._order[job.turn]
        if job.end_step:
            self._sizes.leaves(job.context - job.end_step)

    # --- what grows -----------------------------------------------------------------------------------------------------------

    def prefilled(self, job: Job, tokens: int) -> bool:
        ended = super().prefilled(job, tokens)
        if job.end_step:
            self._sizes.joins(job.context - job.end_step)
        return ended

    def decoded(self, steps: int) -> list[Job]:
        before = self._growth(steps - 1)
        grown = before + self._growth(1, steps - 1)
        self.hbm_in_step = self.hbm_used + before
        self.hbm_used += grown
        self._missing -= grown
        return super().decoded(steps)

    def tokens(self, job: Job) -> int:
        if job.end_step:
            return job.context - (job.end_step - self.steps)
        return min(job.context, job.known + 1)

    @property
    def is_short(self) -> bool:
        free = self.hbm_bytes - self.hbm_used
        return self._missing > free and self._growth(1) > free

    def at_most(self, steps: int, head: Job | None = None) -> int:
        free = self.hbm_bytes - self.hbm_used
        if self._missing <= free:
            return steps
        return min(steps, max(1, self._sizes.most(self.steps, self.decoding, free)))

    def _growth(self, steps: int, after: int = 0) -> int:
        """Bytes that so many decode steps take, after as many others."""
        return self._sizes.of(self.steps + after, self.decoding, steps) if self.decoding and steps else 0

    def _to_come(self, job: Job) -> int:
        """Bytes that it has at its end and does not take yet."""
        return self._sizes.size(job.context) - self._sizes.size(self.tokens(job))

    # --- who gives way --------------------------------------------------------------------------------------------------------

    def give_way(self, gives_back: GivesBack = own) -> list[Job]:
        found: list[Job] = []
        while self.is_short:
            found.append(self._preempt(next(reversed(self._order.values())), gives_back))
        return found

    def _preempt(self, job: Job, gives_back: GivesBack) -> Job:
        """A job that runs gives way, and leaves before its end; returns it as it was."""
        made, missing, tokens = job.made, self._to_come(job), self.tokens(job)
        free = gives_back(job, tokens, job.hbm_bytes - missing)
        if job.end_step:
            made += tokens - job.known
            self.ends.remove((job.end_step, job.turn, job))
            heapq.heapify(self.ends)
            self.context += job.context - tokens
        else:
            self.prefilling.remove(job)
        self.leave(job)
        self.hbm_used += job.hbm_bytes - free
        self._missing -= missing
        self.preempted.appendleft(job.again(made))
        return job
