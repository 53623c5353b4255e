"""The jobs that a replica runs: who is prefilled, who decodes over how much context, who ends when, and the HBM that they have.

It has no clock: it is told what a step did.
"""

from collections import deque
from heapq import heappop, heappush


class Job:
    """A turn as it runs, or would if it were admitted now. Tokens, after truncation to the window."""

    __slots__ = (
        "cached",
        "compute_s",
        "context",
        "end_step",
        "hbm_bytes",
        "history",
        "left",
        "loaded_s",
        "made",
        "new",
        "output",
        "prefill_s",
        "prompt",
        "session",
        "turn",
        "window_bytes",
    )

    def __init__(self, turn: int, session: int, history: int, prompt: int, output: int, hbm_bytes: int, context: int) -> None:
        self.turn, self.session = turn, session
        self.history, self.prompt, self.output = history, prompt, output
        self.hbm_bytes = hbm_bytes
        """That it has at its end, beside what its session has in HBM's own tier."""
        self.context = context
        """At its end: history, prompt and answer."""
        self.cached = 0
        """Of its history, loaded."""
        self.new = self.left = 0
        """Computed before the first token: prompt and history, but for what is loaded; and of those, still to be computed."""
        self.compute_s = 0.0
        """GPU seconds of its prefill, when it is prefilled alone and whole."""
        self.window_bytes = 0
        """Of KV in windows that each of its decode steps reads, in the mean."""
        self.prefill_s = 0.0
        """Seconds from its start to its first token then: what must be loaded may hold it up."""
        self.loaded_s = 0.0
        """When its KV is in HBM, if the GPUs go on without it until then."""
        self.made = 0
        """Tokens of its answer that were out when it had to give way: computed again, before the next one."""
        self.end_step = 0
        """Of the batch's decode steps, the one after which it ends, once it decodes."""

    def again(self, made: int) -> "Job":
        """The same turn, that had to give way when `made` tokens of its answer were out."""
        job = Job(self.turn, self.session, self.history, self.prompt, self.output, self.hbm_bytes, self.context)
        job.window_bytes, job.made = self.window_bytes, made
        return job

    @property
    def known(self) -> int:
        """Tokens that it has before the next one is computed: history, prompt, and what is out of its answer."""
        return self.history + self.prompt + self.made

    @property
    def in_hbm(self) -> int:
        """Loaded, or prefilled so far."""
        return self.history + self.prompt + self.made - self.left


class Batch:
    """One replica's. `hbm_bytes` are for the KV of all jobs, `most` jobs at once. Each has the HBM of its whole answer from when it
    enters; `kvplan.sim.engine.growing` has one where it has not."""

    def __init__(self, hbm_bytes: int, most: int) -> None:
        self.hbm_bytes = hbm_bytes
        self.hbm_used = 0
        self.hbm_in_step = 0
        """In use since the step began that ended last: what is read ahead meanwhile has the rest."""
        self.jobs: dict[int, Job] = {}
        """By turn."""
        self.prefilling: list[Job] = []
        """Those without a first token, in the order in which they entered."""
        self.decoding = 0
        self.context = 0
        """Tokens, summed over the jobs that decode."""
        self.window_bytes = 0
        """Read by each step, summed over them."""
        self.opens = False
        """Whether a job that cannot enter now may come to be able to within a run of decode steps."""
        self.most = most
        """Places: for jobs that are prefilled or decode."""
        self.running = 0
        """Jobs that have one; the others' KV is on its way to their HBM, or has come."""
        self.loaded: deque[Job] = deque()
        """Those without a place whose KV has come, in that order."""
        self.grows = False
        """Whether jobs take more HBM as their answers grow: then it may be short of it."""
        self.preempted: deque[Job] = deque()
        """Those that had to give way, who enter before the queue does, the one that entered first before others."""
        self.steps = 0
        """Of decoding, so far."""
        self.first_end = 0
        """After which of them the first job ends, of those that decode."""
        self._ends: list[tuple[int, int]] = []
        """A heap of (step, turn)."""

    def left_beside(self, job: Job) -> int:
        """Bytes of HBM that are free when a job has entered; below 0 it cannot."""
        return self.hbm_bytes - self.hbm_used - job.hbm_bytes

    def tokens(self, job: Job) -> int:
        """That a job which has entered has HBM for."""
        return job.context

    @property
    def is_short(self) -> bool:
        """Whether the next decode step needs more HBM than there is."""
        return False

    def at_most(self, steps: int, head: Job | None = None) -> int:
        """So many decode steps, or as many as there is HBM for, or after which `head` can enter."""
        return steps

    def give_way(self) -> list[Job]:
        """Jobs give way, where the batch is short of HBM; returns them as they were."""
        return []

    def enter(self, job: Job) -> None:
        """A job is admitted, and has its HBM; what is to be prefilled is not known yet."""
        self.jobs[job.turn] = job
        self.hbm_used += job.hbm_bytes

    def begin(self, job: Job) -> None:
        """It has a place, and is to be prefilled."""
        self.prefilling.append(job)
        self.running += 1

    def resume(self) -> None:
        """The first of those whose KV has come has a place now."""
        self.begin(self.loaded.popleft())

    def prefilled(self, job: Job, tokens: int) -> bool:
        """A step has prefilled so many tokens of a job; returns whether its next token is out. With more to come it decodes now."""
        job.left -= tokens
        if job.left:
            return False
        self.prefilling.remove(job)
        steps = job.output - job.made - 1
        if steps > 0:
            job.end_step = end = self.steps + steps
            heappush(self._ends, (end, job.turn))
            self.first_end = self._ends[0][0]
            self.context += job.history + job.prompt + job.made + 1
            self.window_bytes += job.window_bytes
            self.decoding += 1
        return True

    def decoded(self, steps: int) -> list[Job]:
        """Every job that decodes has so many more tokens; returns those whose answers are complete, which are to leave."""
        self.steps = step = self.steps + steps
        self.context += steps * self.decoding
        ended: list[Job] = []
        if self.first_end == step:
            ends = self._ends
            while ends and ends[0][0] == step:
                ended.append(self.jobs[heappop(ends)[1]])
            if ends:
                self.first_end = ends[0][0]
        return ended

    def leave(self, job: Job) -> None:
        """It has ended, and gives back its HBM."""
        del self.jobs[job.turn]
        self.hbm_used -= job.hbm_bytes
        self.running -= 1
        if job.end_step:
            self.decoding -= 1
            self.context -= job.context
            self.window_bytes -= job.window_bytes
