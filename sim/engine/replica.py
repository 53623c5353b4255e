"""One model replica: a continuous batch on GPUs, its job queue, and the links to its KV store.

A turn's life: arrive, wait, be admitted, (load), prefill, decode, (save), done, think, next turn. The GPU does one thing at a time:

- a *prefill* of one admitted turn, which blocks the running decodes (iteration-level batching);
- a *run* of decode steps, up to the first completion. An arrival that could be admitted ends it at the next step boundary; the
  time of k steps has a closed form, so a run is one event;
- a *stall*, while KV is saved synchronously or the write buffer is too full for the next step.

A job enters the batch when a slot is free and the HBM budget has room for all the KV it will have at its end. KV loading follows the
layer pipeline of `kvplan.hwmodels.steptime.pipeline_s`: the read buffer is filled from DRAM as soon as the job heads the queue and the link
is free, and KV on SSD starts to move when the job starts. Background moves (prefetch, write-back) go on meanwhile, one at a time per
link.

Left out: several prefills in one iteration, chunked prefill, preemption; the KV of the last generated token counts as saved.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from operator import itemgetter

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.clock import ARRIVAL, STEP, Clock, Timer
from kvplan.sim.engine.knowledge import EngineKnowledge
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.loader import Loader
from kvplan.sim.engine.mover import Mover
from kvplan.sim.engine.paths import Paths
from kvplan.sim.engine.waiting import WaitingRoom
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.policies.base import Load, Prefetch, Scheduler
from kvplan.sim.store.sessions import SessionStore
from kvplan.traces import Workload
from kvplan.traces.context import fit

_IDLE, _PREFILL, _DECODE, _STALL, _BOUNDARY = range(5)


class Replica:
    """See the module. `session_of` and the recorder's columns are per turn, `context` per session."""

    def __init__(
        self,
        clock: Clock,
        config: Config,
        deployment: Deployment,
        queue: Scheduler,
        store: SessionStore | None,
        prefetch: Prefetch,
        load: Load,
        knowledge: EngineKnowledge,
        workload: Workload,
        context: list[int],
        recorder: Recorder,
        next_arrival: Callable[[int, float], float],
        after_turn: Callable[[int, float], None],
        make_link: Callable[..., Link] = Link,
        guard=None,
        longest_run: int | None = None,
    ) -> None:
        self.clock = clock
        self.store = store
        self.peers = [self]
        """All replicas of the run."""
        self.prefill_s = self.decode_s = self.load_stall_s = self.save_stall_s = 0.0
        self.prefilled_tokens = 0
        self.hbm_used = 0
        self._hbm_in_step = 0
        """In use since the step began that ended last: what is read ahead meanwhile has the rest."""
        self._session_of = knowledge.session_of
        self._dropped = workload.dropped_tokens
        self._rec = recorder
        self._prompt, self._output = recorder.prompt_tokens, recorder.output_tokens
        self._history, self._cached = recorder.history_tokens, recorder.cached_tokens
        self._admitted_s, self._first_token_s = recorder.admitted_s, recorder.first_token_s
        self._jobs: dict[int, int] = {}
        """Final context of each running turn."""
        self._reserved: dict[int, int] = {}
        """HBM bytes of each, beside what its session has in HBM's own tier."""
        self._after_turn = after_turn
        self._guard = guard
        self._longest_run = longest_run
        self._steps = deployment.steps
        self._kv = deployment.kv_bytes
        self._hbm_kv = deployment.hbm_kv_bytes
        self._hbm_budget = deployment.hbm_budget
        self._window = deployment.window
        self._ratio = config.deployment.truncation_ratio
        self._max_batch = config.deployment.max_batch
        self._write_buffer = deployment.write_buffer
        self._sync = config.store.save == "sync"
        self._embedded = config.store.positions == "embedded"

        self.tier_names = [tier.name for tier in store.tiers] if store else []
        self._paths = paths = Paths(deployment, self.tier_names, make_link)
        self.links = paths.links
        self._save_links = paths.saves
        self._keeps_hbm = self.tier_names[:1] == ["hbm"]
        self._fetches = store is not None and store.fetch_target is not None
        self._mover = None if store is None else Mover(clock, store, paths, self._fetched)
        self._load_policy = load
        self._loader = Loader(deployment, config.store, paths.to_device, paths.ssd_read)
        self._loads_late = prefetch.LOADS_LATE
        self._lead_s = prefetch.LEAD_S
        self._knowledge = knowledge
        self._next_arrival = next_arrival
        self._foresees = store is not None and (self._lead_s > 0 or any("future" in tier.eviction.NEEDS for tier in store.tiers))
        self._learns = queue.LEARNS
        self._store_changed = False

        self.waiting = WaitingRoom(
            clock, queue, store, prefetch if self._fetches else None, self._session_of, recorder.arrival_s, deployment.kv_bytes, self._wake
        )
        self._wakes_at = math.inf
        if store is not None:
            store.spills = self._spills
        if store is not None and (queue.FOLLOWS_KV or self.waiting.holds):
            store.on_kv_moved = self._kv_moved
        self.context = context
        """Kept history tokens per session, of all replicas."""
        self._state = _IDLE
        self._timer: Timer | None = None
        self._began = self._ends = 0.0
        self._turn = -1
        self._stall_until = 0.0
        self._ready: defaultdict[int, float] = defaultdict(float)
        """When each session's KV is complete in its top tier."""
        self._saved_early: dict[int, int] = {}
        self._saving = -1
        """The turn whose KV is being offered to the store."""
        self.running = 0
        """Jobs in the decode batch."""
        self._finish: list[tuple[int, int]] = []
        self._step = 0
        self._context_sum = 0
        self._run_start = 0.0
        self._run_steps = 0

    # --- arrivals -------------------------------------------------------------------------------------------------------------

    def arrive(self, turn: int) -> None:
        """A turn joins the queue."""
        now = self.clock.now
        if self.store is not None:
            self.store.come(self._session_of[turn], now)
        if self._dropped is not None and self._dropped[turn]:
            self._cut_back(turn, int(self._dropped[turn]), now)
        position = self.waiting.push(turn, now)
        if self._guard is not None:
            self._guard.queued(self, turn, now)
        if self.store is not None:
            self.store.expect(self._session_of[turn], position)
        if self._state == _BOUNDARY:
            return  # the step that is ending goes on with what waits
        self._welcome(now)
        if self._fetches:
            self._fetch_next(now)
        self._watch_fetch()

    def _welcome(self, now: float) -> None:
        """Somebody new is ready: an idle GPU takes the head of the queue, and a decode run that the head could join is cut."""
        if self._state == _IDLE:
            self._dispatch(now)
        elif self._state == _DECODE and self.running < self._max_batch:
            head = self.waiting.head(now)
            if head is not None and self.fitted(head)[3] <= self._hbm_budget - self.hbm_used:
                self._cut_run(now)

    def _wake(self, now: float) -> None:
        """A held job has become ready."""
        if self._state != _BOUNDARY:
            self._welcome(now)

    def _watch_fetch(self) -> None:
        """The end of a fetch needs an event of its own while jobs are held: the next may be long after it."""
        mover = self._mover
        if self.waiting.holds_jobs and mover is not None and mover.fetching is not None:
            end = mover.fetches_end_s
            if end != self._wakes_at:
                self._wakes_at = end
                self.clock.at(max(end, self.clock.now), ARRIVAL, self._fetch_may_end)

    def _fetch_may_end(self, timer: Timer) -> None:
        now = self.clock.now
        self._wake(now)
        self._watch_fetch()

    def _kv_moved(self, session: int) -> None:
        """The scheduler follows the KV of waiting turns, and whoever is held for KV that cannot come any more is held no longer."""
        now = self.clock.now
        if self.waiting.kv_moved(session, now):
            self.clock.at(now, ARRIVAL, self._fetch_may_end)

    def _cut_back(self, turn: int, dropped: int, now: float) -> None:
        """The turn goes on from less than its session's whole history: the end of what is kept is of no use to it."""
        session = self._session_of[turn]
        self.context[session] = kept = max(0, self.context[session] - dropped)
        if self.store is not None:
            self.store.cut_back(session, kept * self._kv, now)
        if self._guard is not None:
            self._guard.cut_back(session, kept)

    # --- the GPU --------------------------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """At a step boundary: what the GPU does next."""
        turn = self.waiting.head(now)
        fitted = self.fitted(turn) if turn is not None and self.running < self._max_batch else None
        left = -1 if fitted is None else self._hbm_budget - self.hbm_used - fitted[3]
        if 0 <= left < self._write_buffer and self._save_links:
            self._stall_until = max(self._stall_until, self._saved_but(left))
        if self._stall_until > now and (self.running or turn is not None):
            self._state = _STALL
            self._schedule(now, self._stall_until)
            self.save_stall_s += self._stall_until - now
            return
        if left >= 0 and turn is not None and fitted is not None:
            self._start_prefill(turn, fitted, now)
        elif self.running:
            self._start_run(now)
        else:
            self._state = _IDLE
            self._hbm_in_step = 0
            if self.waiting.holds_jobs:
                self._revive(now)

    def _revive(self, now: float) -> None:
        """The GPU is idle, and every job that waits is held for its KV: something must be on its way, or the first goes as it is."""
        coming = self._fetch_next(now)
        if not coming and self.waiting.release_first():
            self._dispatch(now)
        else:
            self._watch_fetch()

    def _fetch_next(self, now: float) -> bool:
        """Starts a fetch, where none is under way and one is due; whether one is now."""
        mover = self._mover
        if mover is None:
            return False
        if mover.fetching is None:
            mover.start(now)
        return mover.fetching is not None

    def _schedule(self, start: float, end: float) -> None:
        self._began, self._ends = start, end
        self._hbm_in_step = self.hbm_used
        self._timer = self.clock.at(end, STEP, self._on_step)

    def _on_step(self, timer: Timer) -> None:
        if timer is not self._timer:
            return  # a run that was cut
        now = self.clock.now
        if self._guard is not None:
            self._guard.stepped(self, self._began, now)
        state, self._state = self._state, _BOUNDARY
        if state == _PREFILL:
            self._end_prefill(now)
        elif state == _DECODE:
            self._end_run(now)
        self._dispatch(now)
        if self._mover is not None and self._store_changed:
            self._store_changed = False
            self._mover.start(now)
        self._watch_fetch()
        if self._guard is not None:
            self._guard.check(self, now)

    def fitted(self, turn: int) -> tuple[int, int, int, int]:
        """(history, prompt, output, HBM bytes) of a turn after truncation to the window; room is kept for the answer."""
        history = self.context[self._session_of[turn]]
        prompt, output = self._prompt[turn], self._output[turn]
        if history + prompt + output > self._window:
            history, prompt, output = fit(history, prompt, output, self._window, self._ratio)
        return history, prompt, output, (history + prompt + output - self._resident(turn, history)) * self._hbm_kv

    def _resident(self, turn: int, history: int) -> int:
        """Tokens of its history that HBM's own tier holds, and will until the turn has ended."""
        if not self._keeps_hbm or self.store is None:
            return 0
        session = self._session_of[turn]
        held, cut = self.store.tiers[0].held[session] // self._kv, self.context[session] - history
        return 0 if cut and self._embedded else max(0, held - cut)

    def _start_prefill(self, turn: int, fitted: tuple[int, int, int, int], now: float) -> None:
        history, prompt, output, hbm_bytes = fitted
        rec, session = self._rec, self._session_of[turn]
        head_since = self.waiting.head_since
        self.waiting.take(now)
        if self._guard is not None:
            self._guard.admitted(self, turn, now)
        kept = self.context[session]
        if history < kept:
            rec.overflow[turn] = 1
        if prompt + output < self._prompt[turn] + self._output[turn]:
            rec.clipped += 1
            self._prompt[turn], self._output[turn] = prompt, output
        self.hbm_used += hbm_bytes
        self._reserved[turn] = hbm_bytes
        cached = 0
        mover = self._mover
        if mover is not None:
            cached, tier = self._claim(mover, session, kept, history, now)
        if mover is not None and cached:
            cached, compute, duration = self._load(mover, session, tier, cached, prompt + history - cached, head_since, now)
            if cached:
                rec.tier[turn] = tier
        else:
            compute = duration = self._steps.prefill(prompt + history, 0)
        self._admitted_s[turn] = now
        self._history[turn] = history
        self._cached[turn] = cached
        rec.stall_s[turn] = stall = duration - compute
        self.prefill_s += compute
        self.load_stall_s += stall
        self.prefilled_tokens += prompt + history - cached
        self._jobs[turn] = history + prompt + output
        self._turn = turn
        self._state = _PREFILL
        self._schedule(now, now + duration)

    def _claim(self, mover: Mover, session: int, kept: int, history: int, now: float) -> tuple[int, int]:
        """Pins the session in the store; returns the tokens of its history that can be loaded, and the index of their tier."""
        store = mover.store
        self._store_changed = True
        store.claim(session, now)
        if not self._loads_late:
            mover.break_off(session, self._kv, now)
        if history < kept:
            if self._embedded:
                store.void(session, now)
            else:
                store.truncate(session, (kept - history) * self._kv, now)
        tier, size = store.lookup(session)
        if not size:
            mover.forget(session)
        if self._guard is not None:
            self._guard.found(session, kept - history, self._embedded, size // self._kv)
        if not self._loads_late:
            tier, size = store.arrived(session)
        return size // self._kv, tier

    def _load(
        self, mover: Mover, session: int, tier: int, cached: int, new: int, head_since: float, now: float
    ) -> tuple[int, float, float]:
        """(tokens loaded, GPU seconds, seconds from now to the end of the prefill) of a job whose history is cached."""
        store, name = mover.store, self.tier_names[tier]
        if name == "hbm":
            store.load(session, cached * self._kv, now)
            compute = self._steps.prefill(new, cached)
            return cached, compute, compute
        fetched_at = mover.fetches_end_s if mover.fetching == session else math.inf
        loader = self._loader
        loader.begin(name, cached, new, now, self._ready[session], head_since, fetched_at, self._hbm_budget - self._hbm_in_step)
        tokens, compute, duration = self._load_policy.loads(loader)
        if tokens:
            size = tokens * self._kv
            start, end = loader.take(tokens)
            self._paths.loaded[tier].add(now, start, end, size)
            if store.load(session, size, now) and store.fetch_target is not None:
                self._paths.saved[store.fetch_target].add(now, start, end, size)
        if self._guard is not None:
            self._guard.served(session, tokens)
        return tokens, compute, duration

    def _end_prefill(self, now: float) -> None:
        """The first token is out, if there is one; the job joins the batch, or is done."""
        turn = self._turn
        self._first_token_s[turn] = now
        context = self._history[turn] + self._prompt[turn]
        if self._sync and self.store is not None and self._save_links[0]:
            early = (context - self._cached[turn]) * self._kv
            self._saved_early[turn] = early
            self._save_now(self._save_links[0], early, now)
        output = self._output[turn]
        if output <= 1:
            self._complete(turn, now)
            return
        heappush(self._finish, (self._step + output - 1, turn))
        self._context_sum += context + 1
        self.running += 1

    def _start_run(self, now: float) -> None:
        """Decode steps until the first completion."""
        steps = self._finish[0][0] - self._step
        if self._longest_run is not None:
            steps = min(steps, self._longest_run)
        self._run_start = now
        self._run_steps = steps
        self._state = _DECODE
        self._schedule(now, now + self._steps.decode(self.running, self._context_sum, steps))

    def _cut_run(self, now: float) -> None:
        """Ends the run at the next step boundary, at or after `now`."""
        steps = self._steps.steps_until(self.running, self._context_sum, now - self._run_start)
        if steps < self._run_steps:
            self._run_steps = steps
            end = self._run_start + self._steps.decode(self.running, self._context_sum, steps)
            self._schedule(self._run_start, max(end, now))

    def _end_run(self, now: float) -> None:
        self.decode_s += now - self._run_start
        self._step += self._run_steps
        self._context_sum += self._run_steps * self.running
        finish = self._finish
        while finish and finish[0][0] == self._step:
            turn = heappop(finish)[1]
            self.running -= 1
            self._context_sum -= self._jobs[turn]
            self._complete(turn, now)

    def _complete(self, turn: int, now: float) -> None:
        """The answer is complete: save its KV, leave, and let the session go on."""
        session = self._session_of[turn]
        self.context[session] = context = self._jobs.pop(turn)
        self.hbm_used -= self._reserved.pop(turn)
        if self.store is not None:
            self._store_changed = True
            if self._foresees:
                next_s = self._next_arrival(turn, now)
                self._knowledge.next_turn(session, next_s)
            self._saving = turn
            tier, missing = self.store.save(session, context * self._kv, now)
            if self._guard is not None:
                self._guard.saved(self, session, context, tier)
            if missing and self._save_links[tier]:
                if self._sync:
                    self._save_rest(tier, missing, self._saved_early.pop(turn, 0), now)
                else:
                    self._save_behind(tier, session, missing, self._admitted_s[turn], now)
            self.store.release(session, now)
            if self._lead_s and next_s < math.inf:
                self.clock.at(max(now, next_s - self._lead_s), ARRIVAL, self._announced, session)
        if self._learns:
            self.waiting.queue.done(turn, self._output[turn])
        if self._guard is not None:
            self._guard.completed(self, turn, now)
        self._rec.done(turn, now, self)
        self._after_turn(turn, now)

    def _announced(self, timer: Timer) -> None:
        """Word has come that the session's next turn will follow."""
        now = self.clock.now
        if self.store is not None:
            self.store.announce(timer.payload)
        self._fetch_next(now)

    def _fetched(self, session: int, at_s: float) -> None:
        """KV that a fetch brought is complete."""
        self._ready[session] = at_s
        self.waiting.release(session)

    # --- saving ---------------------------------------------------------------------------------------------------------------

    def _spills(self, tier: int, size: int) -> bool:
        """Whether a tier below one that has no room takes a save: unless the GPU would have to wait for longer than to compute it again.

        Synchronous saving waits in any case.
        """
        since, buffer = self._admitted_s[self._saving], self._write_buffer
        until = max(link.preview(since, size)[1] - buffer / link.bandwidth for link in self._save_links[tier])
        return self._sync or until - self.clock.now <= self._steps.prefill(size // self._kv, 0)

    def _save_rest(self, tier: int, size: int, early: int, now: float) -> None:
        """Synchronous: of `size` bytes the links to the first tier have had `early` ones since the prefill."""
        for link in self._save_links[tier]:
            self._save_now([link], max(0, size - early) if link in self._save_links[0] else size, now)
        self._paths.saved[tier].add(now, now, max(link.free_at for link in self._save_links[tier]), size)

    def _save_now(self, links: list[Link], size: int, now: float) -> None:
        """Synchronous: the GPU waits for the copy."""
        for link in links:
            self._stall_until = max(self._stall_until, link.book(now, size)[1])

    def _save_behind(self, tier: int, session: int, size: int, since: float, now: float) -> None:
        """Asynchronous, layer by layer since the job started; what is left at its end waits in the write buffer."""
        links = self._save_links[tier]
        start, end = max([link.book(since, size) for link in links], key=itemgetter(1))
        self._paths.saved[tier].add(since, start, end, size)
        self._ready[session] = max(end, max(now + self._kv / link.bandwidth for link in links))
        self._stall_until = max(self._stall_until, self._saved_but(self._write_buffer))

    def _saved_but(self, size: int) -> float:
        """When no more than so many bytes of ended jobs' KV are left to save."""
        return max([link.free_at - size / link.bandwidth for link in self._save_links[-1]], default=0.0)

    # --- what the metrics read ------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """The measured span begins: peaks count from here."""
        self._paths.begin(now)
        for tier in self.store.tiers if self.store else ():
            tier.begin()

    def spent(self, now: float) -> dict[str, float]:
        """GPU seconds by what they went to, and tokens prefilled, by `now`: the step under way counts as far as it has come."""
        found = {
            "prefill_s": self.prefill_s,
            "decode_s": self.decode_s,
            "load_stall_s": self.load_stall_s,
            "save_stall_s": self.save_stall_s,
            "prefilled_tokens": self.prefilled_tokens,
        }
        if self._state == _DECODE:
            found["decode_s"] += now - self._began
        elif self._state == _STALL:
            found["save_stall_s"] -= self._ends - now
        elif self._state == _PREFILL:
            turn, left = self._turn, (self._ends - now) / (self._ends - self._began)
            stall = self._rec.stall_s[turn]
            found["load_stall_s"] -= left * stall
            found["prefill_s"] -= left * (self._ends - self._began - stall)
            found["prefilled_tokens"] -= left * (self._history[turn] + self._prompt[turn] - self._cached[turn])
        return found

    def traffic(self, now: float) -> list[tuple[float, float]]:
        """(bytes written to it, bytes read from it) of each tier by `now`, as far as they have gone."""
        tiers = self.store.tiers if self.store else []
        written = [tier.written - flow.outside(now)[0] for tier, flow in zip(tiers, self._paths.saved, strict=True)]
        read = [tier.read - flow.outside(now)[0] for tier, flow in zip(tiers, self._paths.loaded, strict=True)]
        for move, left in self._mover.to_come(now) if self._mover is not None else ():
            written[move.target] -= left
            read[move.source] -= left
        return list(zip(written, read, strict=True))

    @property
    def step(self) -> tuple[str, int, float]:
        """Of the step under way: what the GPU does, for which turn (−1: all that run), and for how many seconds of it it waits for KV."""
        if self._state == _PREFILL:
            return "prefill", self._turn, self._rec.stall_s[self._turn]
        return ("wait for save" if self._state == _STALL else "decode"), -1, 0.0

    def served(self, turn: int) -> dict[str, int]:
        """A turn that was admitted: its session, and its tokens by where they come from."""
        history, cached = self._history[turn], self._cached[turn]
        return {"turn": turn, "session": self._session_of[turn], "prompt": self._prompt[turn], "history": history, "cached": cached}

    @property
    def busy_s(self) -> float:
        """Seconds in which the GPUs computed, or waited for KV with a job in hand."""
        return self.prefill_s + self.decode_s + self.load_stall_s + self.save_stall_s

    def sample(self, now: float) -> tuple:
        """A row of the time series: time, waiting, running, HBM bytes of running jobs, bytes per tier."""
        used = [tier.used for tier in self.store.tiers] if self.store else []
        return (now, self.peers.index(self), len(self.waiting), self.running, self.hbm_used, *used)
