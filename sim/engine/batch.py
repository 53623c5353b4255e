"""The jobs that a replica runs: who is prefilled, who decodes over how much context, who ends when, and the HBM that they have.

It has no clock: it is told what a step did.
"""

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush


class Job:
    """A turn as it runs, or would if it were admitted now. Tokens, after truncation to the window: `history`, with the prompt those that it
    knows, and with the answer its whole `context`."""

    __slots__ = (
        "cached",
        "compute_s",
        "context",
        "deferred_s",
        "end_step",
        "hbm_bytes",
        "history",
        "is_cut",
        "known",
        "left",
        "made",
        "new",
        "prefill_s",
        "session",
        "since_s",
        "turn",
        "window_bytes",
    )

    new: int
    """Computed before the first token: what it knows, but for what is loaded. This and all of no value below is set when it starts."""
    left: int
    """Of those, still to be computed."""
    compute_s: float
    """GPU seconds of its prefill, when it is prefilled alone and whole."""
    prefill_s: float
    """Seconds from its start to its first token then: what must be loaded may hold it up."""
    since_s: float
    """Since when it is computed: later than it entered where the GPUs go on without it until its KV is in HBM."""

    def __init__(self, turn: int, session: int, history: int, known: int, context: int, hbm_bytes: int, is_cut: bool = False) -> None:
        self.turn, self.session = turn, session
        self.history, self.known, self.context = history, known, context
        """`known`: tokens that it has before the next one is computed; `context`: at its end."""
        self.hbm_bytes = hbm_bytes
        """That it has at its end, beside what its session has in HBM's own tier."""
        self.is_cut = is_cut
        """Whether its turn passes the window, and is cut to it."""
        self.cached = 0
        """Of its history, loaded."""
        self.window_bytes = 0
        """Of KV in windows that each of its decode steps reads, in the mean."""
        self.made = 0
        """Tokens of its answer that were out when it had to give way: computed again, before the next one."""
        self.deferred_s = 0.0
        """Until when others pass it, once it had to give way."""
        self.end_step = 0
        """Of the batch's decode steps, the one after which it ends, once it decodes."""

    def again(self, made: int) -> "Job":
        """The same turn, that had to give way when `made` tokens of its answer were out."""
        job = Job(self.turn, self.session, self.history, self.known - self.made + made, self.context, self.hbm_bytes, self.is_cut)
        job.window_bytes, job.made = self.window_bytes, made
        return job

    @property
    def prompt(self) -> int:
        """Tokens of its turn."""
        return self.known - self.made - self.history

    @property
    def output(self) -> int:
        """Tokens of its answer."""
        return self.context - self.known + self.made

    @property
    def in_hbm(self) -> int:
        """Loaded, or prefilled so far."""
        return self.known - self.left


GivesBack = Callable[[Job, int, int], int]
"""(a job that gives way, its tokens, the bytes of HBM that it has) -> those of them that nobody else has."""


def own(job: Job, tokens: int, held: int) -> int:
    """Where jobs share no HBM."""
    return held


class Batch:
    """One replica's. `hbm_bytes` are for the KV of all jobs, `most` jobs at once. Each has the HBM of its whole answer from when it
    enters; `kvplan.sim.engine.growing` has one where it has not."""

    def __init__(self, hbm_bytes: int, most: int) -> None:
        self.hbm_bytes = hbm_bytes
        self.hbm_used = 0
        self.hbm_in_step = 0
        """In use since the step began that ended last: what is read ahead meanwhile has the rest."""
        self.prefilling: list[Job] = []
        """Those without a first token, in the order in which they entered."""
        self.ends: list[tuple[int, int, Job]] = []
        """Those that decode: a heap of (the decode step after which it ends, turn, job)."""
        self.apart: list[Job] = []
        """Those without a place: their KV is on its way to their HBM, or has come."""
        self.loaded: deque[Job] = deque()
        """Of these, whose KV has come, in that order."""
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
        """Jobs that have one."""
        self.grows = False
        """Whether jobs take more HBM as their answers grow: then it may be short of it."""
        self.preempted: deque[Job] = deque()
        """Those that had to give way, who enter before the queue does, the one that entered first before others."""
        self.steps = 0
        """Of decoding, so far."""

    @property
    def jobs(self) -> list[Job]:
        """All that have HBM."""
        return [*self.apart, *self.prefilling, *[job for _, _, job in self.ends]]

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

    def until_block(self, tokens: int) -> int:
        """Decode steps after which the first answer has begun a block of so many tokens; of those whose first token has, the next."""
        there = [(job.context - (end - self.steps), job.known + 1) for end, _, job in self.ends]
        return 1 + min([0 if now == first and now % tokens == 1 else -now % tokens for now, first in there])

    def give_way(self, gives_back: GivesBack = own) -> list[Job]:
        """Jobs give way, where the batch is short of HBM; returns them as they were."""
        return []

    def next_again(self, now: float) -> Job | None:
        """The first of those that had to give way that others need not pass."""
        return next((job for job in self.preempted if job.deferred_s <= now), None)

    def enter(self, job: Job) -> None:
        """A job has HBM and a place, and is to be prefilled."""
        self.hbm_used += job.hbm_bytes
        self.prefilling.append(job)
        self.running += 1

    def enter_apart(self, job: Job) -> None:
        """A job has HBM, for KV that is on its way."""
        self.hbm_used += job.hbm_bytes
        self.apart.append(job)

    def resume(self) -> Job:
        """The first of those whose KV has come has a place now."""
        job = self.loaded.popleft()
        self.apart.remove(job)
        self.prefilling.append(job)
        self.running += 1
        return job

    def prefilled(self, job: Job, tokens: int) -> bool:
        """A step has prefilled so many tokens of a job; returns whether its next token is out. With more to come it decodes now."""
        job.left -= tokens
        if job.left:
            return False
        self.prefilling.remove(job)
        steps = job.context - job.known - 1
        if steps > 0:
            job.end_step = end = self.steps + steps
            heappush(self.ends, (end, job.turn, job))
            self.context += job.known + 1
            self.window_bytes += job.window_bytes
            self.decoding += 1
        return True

    def decoded(self, steps: int) -> list[Job]:
        """Every job that decodes has so many more tokens; returns those whose answers are complete, which are to leave."""
        self.steps = step = self.steps + steps
        self.context += steps * self.decoding
        ended: list[Job] = []
        ends = self.ends
        while ends and ends[0][0] == step:
            ended.append(heappop(ends)[2])
        return ended

    def leave(self, job: Job) -> None:
        """It has ended, and gives back its HBM."""
        self.hbm_used -= job.hbm_bytes
        self.running -= 1
        if job.end_step:
            self.decoding -= 1
            self.context -= job.context
            self.window_bytes -= job.window_bytes
