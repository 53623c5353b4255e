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
        return self.hbm_bytes - self.hbm_used - self._growth(1) - self._held(job, self.tokens(job))

    def enter(self, job: Job) -> None:
        self.jobs[job.turn] = job
        self.hbm_used += self._held(job, self.tokens(job))
        self._whole += job.hbm_bytes

    def begin(self, job: Job) -> None:
        super().begin(job)
        self._order[job.turn] = job

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
        return min(job.context, job.history + job.prompt + job.made + 1)

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
        size, now = self._size, [self.tokens(self.jobs[turn]) for _, turn in self._ends]
        return sum([size(tokens + steps) - size(tokens) for tokens in now])

    def _held(self, job: Job, tokens: int) -> int:
        """Bytes of a job of which so many tokens are out, beside what its session has in HBM's own tier."""
        return job.hbm_bytes - self._size(job.context) + self._size(tokens)

    # --- who gives way --------------------------------------------------------------------------------------------------------

    def give_way(self) -> list[Job]:
        found: list[Job] = []
        while self.is_short:
            found.append(self._preempt(next(reversed(self._order.values()))))
        return found

    def _preempt(self, job: Job) -> Job:
        """A job that runs gives way; returns it as it was."""
        tokens = self.tokens(job)
        made = tokens - job.history - job.prompt if job.end_step else job.made
        if job.end_step:
            self._ends.remove((job.end_step, job.turn))
            heapq.heapify(self._ends)
            self.first_end = self._ends[0][0] if self._ends else 0
            self.context -= tokens
            self.window_bytes -= job.window_bytes
            self.decoding -= 1
        else:
            self.prefilling.remove(job)
        del self.jobs[job.turn], self._order[job.turn]
        self.hbm_used -= self._held(job, tokens)
        self._whole -= job.hbm_bytes
        self.running -= 1
        self.preempted.appendleft(job.again(made))
        return job
