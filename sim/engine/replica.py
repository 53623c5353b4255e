"""One model replica: a batch of jobs on GPUs, the queue of those that wait, and what it keeps of the KV of those that have ended.

A turn's life: arrive, wait, enter the batch, (load), prefill, decode, (save), done, think, next turn. What a step holds the batching
policy says; of steps that only decode, all up to the first completion are one event, a *run*, since the time of k steps has a closed form.
An arrival that could enter ends it at the next step boundary. The GPU waits while KV is saved synchronously, or while the write buffer
is too full for the next step.

A job enters the batch when the policy takes one, a place is free and the HBM budget has room for all the KV it will have at its end; or,
where `deployment.admission` says so, for its prompt's, and jobs give way when answers have outgrown HBM (`kvplan.sim.engine.growing`). KV
loading follows the layer pipeline of `kvplan.hwmodels.steptime.pipeline_s`: the read buffer is filled from DRAM as soon as the job heads
the queue and the link is free, and KV on SSD starts to move when the job starts. Background moves (prefetch, write-back) go on meanwhile,
one at a time per link.

Where KV is loaded asynchronously, a job that has entered waits apart with its HBM until its KV has come, and the GPU goes on with others;
then it has the next place that is free, before the queue. Elsewhere its first step waits for its KV: a job that is prefilled with others,
or in several steps, loads its history as if it were prefilled whole and alone, and the step waits for the longest of several jobs.

Where jobs are deferred (`store.defers`), one that heads the queue asks for its KV, once when it comes to the head and again when HBM has
room for it. While something that it would load is under way, others pass it; then it is at its place again.

Left out: the KV of the last generated token counts as saved.
"""

import math
from collections.abc import Sequence
from typing import Any

from kvplan.hwmodels.steptime import StepTime
from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.clock import ARRIVAL, Timer
from kvplan.sim.engine.fitting import Fitting
from kvplan.sim.engine.gpu import BOUNDARY, DECODE, IDLE, Gpu
from kvplan.sim.engine.keeping import Keeping
from kvplan.sim.engine.room import batch_for
from kvplan.sim.engine.run import Run
from kvplan.sim.engine.waiting import WaitingRoom
from kvplan.sim.metrics.output import Books, TierBooks
from kvplan.sim.policies.base import Batching, Prefetch


class Replica:
    """See the module."""

    def __init__(
        self, run: Run, index: int, kv: Keeping, waiting: WaitingRoom, fitting: Fitting, batching: Batching, prefetch: Prefetch
    ) -> None:
        deployment = run.given.deployment
        self.run, self.index = run, index
        self._session_of = run.knowledge.session_of
        self.agenda, self.recorder, self._observer = run.clock.agenda, run.recorder, run.observer
        self.batch = batch_for(run.given.config.deployment, batching, kv)
        self.gpu = Gpu(self.agenda, self._end_step)
        self.kv, self.waiting, self.fitting = kv, waiting, fitting
        self._steps: StepTime = deployment.steps
        self._batching = batching
        self._dropped = run.given.workload.dropped_tokens
        self._lead_s = prefetch.LEAD_S
        self._keeps = bool(kv.tiers)
        self._foresees = self._keeps and (self._lead_s > 0 or kv.foresees)
        self._holds = waiting.holds
        self._cuts_runs = self.batch.grows or kv.lessens > 0 or run.given.longest_run is not None
        """Whether a run of decode steps may end before the first job does, with nobody to enter."""
        self._wakes_at = math.inf
        waiting.wake = self._wake
        kv.listen(waiting.release, self._kv_moved if waiting.watches else None)

    # --- arrivals -------------------------------------------------------------------------------------------------------------

    def arrive(self, turn: int) -> None:
        """A turn joins the queue."""
        now, session = self.agenda.now_s, self._session_of[turn]
        kept = None if self._dropped is None else self._keep_only(turn, int(self._dropped[turn]))
        if self.kv.heeds or kept is not None:
            self.kv.come(session, kept, now)
        position = self.waiting.push(turn, now)
        if self._observer is not None:
            self._observer.queued(self, turn, now)
        if self._keeps:
            self.kv.store.expect(session, position)
        if self.gpu.doing == BOUNDARY:
            return  # the step that is ending goes on with what waits
        self._welcome(now)
        if self.kv.store.fetch_target is not None:
            self.kv.fetch_next(now)
        if self.waiting.watches:
            self._watch_moves()

    def passes(self, turn: int, token_s: float, over_s: float) -> None:
        """A turn takes no time of the server: what is kept of it is there at once, and its session goes on as if each token of the answer
        had taken so long. Turns that come before `over_s` pass, too."""
        now, run = self.agenda.now_s, self.run
        if self._dropped is not None:
            self._keep_only(turn, int(self._dropped[turn]))
        job = self.fitting.passing(turn)
        cut = run.context[job.session] - job.history if job.is_cut else 0
        next_s = run.source.next_arrival(turn, now + token_s * job.output)
        if self._foresees:
            run.knowledge.next_turn(job.session, next_s)
        self.kv.passes(job, now, next_s < over_s)
        self.recorder.passed(job, cut, now)
        run.context[job.session] = job.context
        if self._observer is not None:
            self._observer.queued(self, turn, now)
            self._observer.admitted(self, turn, now)
            self._observer.completed(self, turn, now)
        self.recorder.done(turn, now, self)
        run.source.ended(turn, now + token_s * job.output)

    def _keep_only(self, turn: int, dropped: int) -> int | None:
        """The turn goes on from less than its session's whole history; returns the tokens that are kept, None for all."""
        context, session = self.run.context, self._session_of[turn]
        context[session] = max(0, context[session] - dropped)
        return context[session] if dropped else None

    def _welcome(self, now: float) -> None:
        """Somebody new is ready: an idle GPU takes the head of the queue, and a decode run that the head could join is cut."""
        batch, doing = self.batch, self.gpu.doing
        if self._holds:
            self.waiting.head(now)  # who heads the queue and is to be held is, whether there is a place or not
        if doing == IDLE:
            self._dispatch(now)
        elif doing == DECODE and batch.running < batch.most and self._batching.admits(batch) and self._somebody_enters(now):
            self._cut_run(now)

    def _somebody_enters(self, now: float) -> bool:
        return bool(self.batch.loaded) or self.batch.opens or self._next_to_enter(now) is not None

    def _wake(self, now: float) -> None:
        """A held job has become ready, or one that was apart."""
        if self.gpu.doing != BOUNDARY:
            self._welcome(now)

    def _watch_moves(self) -> None:
        """The end of a fetch needs an event of its own while jobs are held: the next may be long after it. So does the end of a demotion
        that makes room for one; and of every move while jobs wait that the scheduler ranks by where their KV is."""
        waiting = self.waiting
        if waiting.follows_any or waiting.holds_jobs:
            end = self.kv.moves_end_s(held_only=not waiting.follows_any)
            if self._wakes_at != end < math.inf:
                self._wakes_at = end
                self.agenda.set(Timer(self._move_may_end), max(end, self.agenda.now_s), ARRIVAL)

    def _move_may_end(self, timer: Timer) -> None:
        self._wake(self.agenda.now_s)
        self._watch_moves()

    def _kv_moved(self, session: int, at_s: float) -> None:
        """The scheduler follows the KV of waiting turns, and whoever is held for KV that cannot come any more is held no longer."""
        if self.waiting.kv_moved(session, at_s):
            self.agenda.set(Timer(self._move_may_end), self.agenda.now_s, ARRIVAL)

    # --- steps ----------------------------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """At a step boundary: what the GPU does next."""
        batch, saver = self.batch, self.kv.saver
        head = None
        if batch.loaded and not batch.is_short:
            self._resume()
        while batch.running < batch.most and self._batching.admits(batch) and (head := self._head(now)) is not None:
            left = batch.left_beside(head)
            if self.waiting.defers and self._defer(head, left, now):
                continue
            if left < 0:
                head = None
                break
            if left < saver.write_buffer:
                saver.make_room(left)
            if saver.stall_until > now:
                break
            self._enter(head, now)
        if self._holds:
            self.waiting.head(now)
        if saver.stall_until > now and (batch.running or head is not None):
            batch.hbm_in_step = batch.hbm_used
            self.gpu.stall(now, saver.stall_until)
        elif batch.running:
            self._step(now)
        else:
            self._rest(now)

    def _defer(self, job: Job, left: int, now: float) -> bool:
        """Whether others pass the head, which HBM has room for where `left` is not below 0, since KV that it would load is under way."""
        if left < 0 and job.turn == self.waiting.asked:
            return False
        self.waiting.asked = job.turn
        comes_s = self.kv.comes_s(job, now)
        if comes_s <= now:
            return False
        self.waiting.asked = -1
        self.recorder.deferred(job.turn)
        if job in self.batch.preempted:
            job.deferred_s = comes_s
        else:
            self.waiting.defer(comes_s, now)
        self.agenda.set(Timer(self._deferred), comes_s, ARRIVAL)
        return True

    def _deferred(self, timer: Timer) -> None:
        """What a job has waited for has come."""
        self._wake(self.agenda.now_s)

    def _next_to_enter(self, now: float) -> Job | None:
        """Who would enter next, if there is room in HBM, or is to ask for its KV."""
        job = self._head(now)
        if job is None or self.batch.left_beside(job) + self.kv.less(job) >= 0:
            return job
        return job if self.waiting.defers and job.turn != self.waiting.asked else None

    def _head(self, now: float) -> Job | None:
        """Who had to give way, else the head of the queue, if there is a place in the batch."""
        batch = self.batch
        if batch.running >= batch.most:
            return None
        if batch.preempted and (again := batch.next_again(now)) is not None:
            return self.fitting.again(again)
        turn = self.waiting.head(now)
        return None if turn is None else self.fitting.job(turn)

    def _enter(self, job: Job, now: float) -> None:
        """A job enters the batch, and what is kept of its history is loaded."""
        batch = self.batch
        self.waiting.asked = -1
        if job in batch.preempted:
            batch.preempted.remove(job)
            self._start_again(job, now)
        else:
            cut = self.run.context[job.session] - job.history if job.is_cut else 0
            head_since = self.waiting.take(now)
            if self._observer is not None:
                self._observer.admitted(self, job.turn, now)
            job.since_s = now
            tier = self.kv.start(job, cut, head_since, batch.hbm_bytes - batch.hbm_in_step, now)
            self.recorder.entered(job, tier, cut, now)
        if job.since_s > now:
            self.recorder.deferred(job.turn)
            batch.enter_apart(job)
            self.agenda.set(Timer(self._loaded, job), job.since_s, ARRIVAL)
        else:
            batch.enter(job)
        if self.kv.follows:
            self.kv.grew(batch.hbm_used, now, now, 0)

    def _start_again(self, job: Job, now: float) -> None:
        """Who had to give way is computed again."""
        batch = self.batch
        job.since_s = self.recorder.admitted_s[job.turn]
        self.kv.again(job, batch.hbm_bytes - batch.hbm_in_step, now)
        if self._observer is not None:
            self._observer.admitted_again(self, job)

    def _loaded(self, timer: Timer) -> None:
        """The KV of a job that the GPUs do without has come."""
        job: Job = timer.payload
        self.batch.loaded.append(job)
        if self.kv.follows:
            self.batch.hbm_used -= self.kv.loaded(job, self.agenda.now_s)
        self._wake(self.agenda.now_s)

    def _resume(self) -> None:
        """Jobs whose KV has come take places before the queue does."""
        batch = self.batch
        while batch.loaded and batch.running < batch.most and self._batching.admits(batch):
            batch.resume()

    def _step(self, now: float) -> None:
        """One step that prefills, or a run of steps that only decode, up to the first completion."""
        batch = self.batch
        chunks: Any  # of this batch's jobs
        chunks, decodes = self._batching.step(batch) if batch.prefilling else ((), True)
        if decodes and batch.grows and batch.is_short:
            self._preempt(now)
            self._dispatch(now)
            return
        batch.hbm_in_step = batch.hbm_used
        if chunks:
            job, tokens = chunks[0]
            if tokens == job.new and len(chunks) == 1 and not (decodes and batch.decoding):
                self.gpu.prefill(now, chunks, tokens, job.compute_s, job.prefill_s)
            else:
                self._mixed(chunks, decodes and batch.decoding > 0, now)
            return
        steps = batch.ends[0][0] - batch.steps
        if self._cuts_runs:
            steps = self._at_most(steps, now)
        self.gpu.decode(now, steps, now + self._steps.decode(batch.decoding, batch.context, steps, batch.window_bytes))

    def _at_most(self, steps: int, now: float) -> int:
        """So many decode steps, or fewer where HBM is short, somebody could enter, or runs are asked to be short."""
        batch, kv, longest = self.batch, self.kv, self.run.given.longest_run
        head = self._head(now) if batch.opens or kv.lessens else None
        steps = batch.at_most(steps, head if batch.opens else None)
        if head is not None and (less := kv.less(head)) and (batch.opens or batch.left_beside(head) + less >= 0):
            steps = min(steps, batch.until_block(kv.lessens))
        return steps if longest is None else min(steps, longest)

    def _preempt(self, now: float) -> None:
        """HBM is too full for a step more of all that decode: jobs give way."""
        for job in self.batch.give_way(lambda job, tokens, held: self.kv.gives_back(job, tokens, held, now)):
            self.recorder.preempted(job.turn)
            if self._observer is not None:
                self._observer.preempted(self, job)

    def _mixed(self, chunks: Sequence[tuple[Job, int]], decodes: bool, now: float) -> None:
        """A step that prefills several jobs or parts of jobs, or decodes besides. What is prefilled whole and alone takes what its load
        policy has worked out."""
        batch, asked, new, stall_s = self.batch, [], 0, 0.0
        for job, tokens in chunks:
            new += tokens
            asked.append((tokens, job.in_hbm))
            if job.left == job.new:
                stall_s = max(stall_s, job.prefill_s - job.compute_s)
        decoding, context, window_bytes = (batch.decoding, batch.context, batch.window_bytes) if decodes else (0, 0, 0)
        compute_s = self._steps.step(asked, decoding, context, window_bytes)
        decode_s = self._steps.decode(decoding, context, 1, window_bytes) if decodes else 0.0
        self.gpu.prefill(now, chunks, new, compute_s, compute_s + stall_s, int(decodes), decode_s)

    def _rest(self, now: float) -> None:
        """Nobody can enter, and nobody runs. Where jobs are held for their KV, something must be on its way, or the first goes as it is."""
        batch = self.batch
        self.gpu.doing = IDLE
        batch.hbm_in_step = batch.hbm_used
        if not self.waiting.holds_jobs:
            return
        held = len(self.waiting.held())
        fetches = self.kv.fetch_next(now)
        if len(self.waiting.held()) < held or (not fetches and not batch.apart and self.waiting.release_first()):
            self._dispatch(now)
        else:
            self._watch_moves()

    def _cut_run(self, now: float) -> None:
        """Ends the run at the next step boundary, at or after `now`."""
        batch, gpu = self.batch, self.gpu
        steps = self._steps.steps_until(batch.decoding, batch.context, now - gpu.began, batch.window_bytes)
        if steps < gpu.steps:
            batch.hbm_in_step = batch.hbm_used
            gpu.shorten(steps, max(gpu.began + self._steps.decode(batch.decoding, batch.context, steps, batch.window_bytes), now))

    def _end_step(self, timer: Timer) -> None:
        gpu, batch, kv = self.gpu, self.batch, self.kv
        now = gpu.end()
        if gpu.steps:
            ended = batch.decoded(gpu.steps)
            if kv.follows:
                kv.grew(batch.hbm_used, now, gpu.began, gpu.steps)
            for job in ended:
                self._complete(job, now)
        for job, tokens in gpu.chunks:
            if batch.prefilled(job, tokens):
                self._end_prefill(job, now)
        self._dispatch(now)
        if kv.changed:
            kv.settle(now)
        if self.waiting.watches:
            self._watch_moves()

    def _end_prefill(self, job: Job, now: float) -> None:
        """The first token is out, or the next one of a job that gave way; it decodes from now on, or is done."""
        if not job.made:
            self.recorder.first_token_s[job.turn] = now
        if self.kv.follows:
            self.batch.hbm_used -= self.kv.prefilled(job, now)
        if job.context - job.known <= 1:
            self._complete(job, now)

    def _complete(self, job: Job, now: float) -> None:
        """The answer is complete: save its KV, leave, and let the session go on."""
        run, turn = self.run, job.turn
        run.context[job.session] = job.context
        if self._keeps:
            self._keep(job, now)
        self.batch.leave(job)
        if self.waiting.learns:
            self.waiting.queue.done(turn, job.output)
        if self._observer is not None:
            self._observer.completed(self, turn, now)
        self.recorder.done(turn, now, self)
        run.source.ended(turn, now)

    def _keep(self, job: Job, now: float) -> None:
        run, session = self.run, job.session
        if self._foresees:
            next_s = run.source.next_arrival(job.turn, now)
            run.knowledge.next_turn(session, next_s)
        tier = self.kv.save(job, job.since_s, now)
        if self._observer is not None:
            self._observer.saved(self, job, tier)
        self.kv.store.release(session, now)
        if self._lead_s and next_s < math.inf:
            self.agenda.set(Timer(self._announced, session), max(now, next_s - self._lead_s), ARRIVAL)

    def _announced(self, timer: Timer) -> None:
        """Word has come that the session's next turn will follow."""
        self.kv.store.announce(timer.payload)
        self.kv.fetch_next(self.agenda.now_s)

    # --- what the metrics and observers read ----------------------------------------------------------------------------------

    @property
    def queued(self) -> int:
        """Turns that wait, with those that had to give way."""
        return len(self.waiting) + len(self.batch.preempted)

    def begin(self, now: float) -> None:
        """The measured span begins."""
        self.kv.begin(now)

    def books(self, now: float) -> Books:
        """Every running sum: what has been done by `now`."""
        tiers = self.kv.tiers
        spent = self.gpu.spent(now) | ({"skipped_saves": self.kv.skipped_saves} if tiers else {})
        moved = zip(tiers, self.kv.traffic(now), strict=True)
        return Books.of(
            spent,
            {link.name: link.done(now) for link in self.kv.paths.links},
            [TierBooks(tier.name, tier.byte_seconds(now), written, read, tier.peak) for tier, (written, read) in moved],
        )

    def sample(self, now: float) -> tuple:
        """A row of the time series: time, replica, waiting, running, HBM bytes of running jobs, bytes per tier."""
        used = [tier.spec.taken(tier.used) for tier in self.kv.tiers]
        return (now, self.index, self.queued, self.batch.decoding, self.batch.hbm_used, *used)

    def served(self, turn: int) -> dict[str, int]:
        """A turn that was admitted: its session, and its tokens by where they come from."""
        rec = self.recorder
        tokens = {"prompt": rec.prompt_tokens[turn], "history": rec.history_tokens[turn], "cached": rec.cached_tokens[turn]}
        return {"turn": turn, "session": self.run.knowledge.session_of[turn], **tokens}


class Watched(Replica):
    """One whose observer hears of every step."""

    def _end_step(self, timer: Timer) -> None:
        began, now = self.gpu.began, self.gpu.ends
        self._observer.stepped(self, began, now)
        super()._end_step(timer)
        self._observer.check(self, now)
