"""The mini server: queue, continuous batching, and a store of real KV.

Iteration-level batching as in the simulator: the prefill of an admitted job blocks the running decodes; otherwise one decode step is made
for all running jobs. Between the layers of every step the server looks up: turns that have arrived join the queue, transfers that have
ended are taken note of, and those that are due are started.

Prompts are random tokens, answers are what the decoder says, for as long as the trace has them. A step lasts from the end of the step
before, or of the wait for a job, to its own end, less its stalls: the server's own work (choosing, keeping books, looking up) is part of
it, and is also counted by itself.

Left out: see `kvplan.validate.miniserver.limits`; a read buffer that is filled before a job starts; preemption.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path
from queue import Empty, SimpleQueue

import numpy as np
import torch

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment, rated_writes, resolve
from kvplan.sim.engine import guards
from kvplan.sim.engine.fitting import Fitted
from kvplan.sim.engine.knowledge import EngineJobs, EngineKnowledge
from kvplan.sim.metrics.output import Books, TierBooks
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.metrics.schema import Summary
from kvplan.sim.metrics.summary import summarize
from kvplan.sim.policies.base import Scheduler
from kvplan.sim.policies.registry import find
from kvplan.sim.store.nothing import Nothing
from kvplan.traces import Workload
from kvplan.traces.context import fit
from kvplan.validate.calibration.clock import Answer, Clock, WallClock
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.miniserver import chunk as kv
from kvplan.validate.miniserver.device import NOTHING, Device, Job
from kvplan.validate.miniserver.drive import Drive
from kvplan.validate.miniserver.limits import refuse
from kvplan.validate.miniserver.storage import FallibleStore, Faults, Storage
from kvplan.validate.miniserver.verify import Verifier


@dataclass(frozen=True)
class Served:
    """What a run gave; as far as it goes, under the names of `kvplan.sim.simulation.Result`."""

    config: Config
    workload: Workload
    summary: Summary
    columns: dict[str, np.ndarray]
    steps: list["Step"]
    own_s: float
    """Seconds of the server's own work, which `steps` hold as well."""
    idle_s: float
    pace: float
    """Seconds of the clock per real second in which the links' transfers are timed."""
    faults: Faults
    verifier: Verifier
    direct_io: bool
    clock: str


@dataclass(frozen=True)
class Step:
    """One step that was made, without its stalls."""

    is_prefill: bool
    tokens: int
    """New tokens of a prefill; the batch of a decode step."""
    context: int
    """Tokens of history of a prefill; those of all jobs together of a decode step."""
    seconds: float


def serve(
    config: Config,
    workload: Workload,
    decoder: Decoder,
    folder: Path,
    clock: Callable[[], Clock] = WallClock,
    verify_every: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Served:
    """Serves a workload in real time. KV on SSD goes to files in `folder`, which must exist and is empty again at the end.

    `clock` makes one. Every `verify_every`-th turn that loads KV is computed a second time from its tokens, outside of the
    clock, and compared (0: none). Raises ConfigError, TraceError, and OSError when `folder` cannot be used.
    """
    deployment = resolve(config, workload)
    refuse(config, workload, deployment)
    server = _Server(config, deployment, workload, decoder, folder, clock, verify_every, progress)
    try:
        server.run()
    finally:
        server.close()
    return server.served()


class _Server:
    """One run. The names that `kvplan.sim.metrics` and the policies' views read are those of the simulator's replica."""

    def __init__(self, config, deployment: Deployment, workload, decoder, folder, clock, verify_every, progress) -> None:
        self._config, self._deployment, self._workload = config, deployment, workload
        self._posted: SimpleQueue = SimpleQueue()
        self.clock: Clock = clock()
        write_buffer = 0 if config.store.save == "sync" else parse_bytes(config.store.write_buffer)
        self._rows = list(range(config.deployment.max_batch))
        self._device = Device(
            decoder, len(self._rows), deployment.window, config.store.preload == "layerwise", write_buffer, self.clock, self._look_up
        )
        self._knowledge = EngineKnowledge(self.clock, deployment, workload)
        self._jobs_view = EngineJobs(self.clock, deployment, self._knowledge, config.tenant_weights)
        self._queue: Scheduler = find("scheduling", config.scheduler)(self._jobs_view)
        self._drive = Drive(folder, self._device.layout, self._posted)
        self._storage = self._make_storage() if deployment.tiers else None
        self.store = self._storage.store if self._storage else None
        self._jobs_view.store, self._jobs_view.fitting = self.store or Nothing(), self.fitted
        self.links = [self._device.to_device, self._device.to_host, self._drive.reads, self._drive.writes]
        self._guarded = guards.enabled() and self._storage is not None
        self._verifier = Verifier(decoder, verify_every)
        self._recorder = recorder = Recorder(workload.turns, config.warmup_turns, progress)
        recorder.replicas = [self]
        recorder.columns["prompt_tokens"][:] = workload.prompt_tokens
        recorder.columns["output_tokens"][:] = workload.output_tokens
        recorder.columns["arrival_s"][workload.is_first] = workload.arrival_s[workload.is_first]
        self._session = workload.session.tolist()
        self._rng = np.random.default_rng(config.seed)
        self._text: list[list[int]] = [[] for _ in range(workload.sessions)]
        """Token numbers of each session's context."""
        self._running: list[Job] = []
        self._hbm_used: dict[int, int] = {}
        self._arrivals = [(float(workload.arrival_s[turn]), turn) for turn in workload.first_turn[:-1].tolist()]
        self._arrivals.sort()
        self._waiting_turn: dict[int, int] = {}
        self._changed = False
        self._steps: list[Step] = []
        self.prefill_s = self.decode_s = self.load_stall_s = self.save_stall_s = 0.0
        self.prefilled_tokens = 0
        self._own_s = self._attended_s = self._idle_s = 0.0
        self._step_ended_s = 0.0
        """When the latest step ended, or the wait for a job."""

    def _make_storage(self) -> Storage:
        settings, deployment = self._config.store, self._deployment
        store = FallibleStore(
            deployment.tiers,
            find("eviction", settings.eviction),
            find("prefetch", settings.prefetch)(),
            self._queue,
            find("write", settings.write)(rated_writes(deployment)),
            self._knowledge,
            settings.ttl_s,
            settings.ssd_write == "whole",
        )
        storage = Storage(store, self._drive, deployment.kv_bytes)
        if self._queue.FOLLOWS_KV:
            storage.moved = self._kv_moved
        return storage

    # --- the loop -------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves all turns."""
        while self._recorder.completed < self._workload.turns:
            self._look_up()
            turn = self._queue.head()
            if turn is not None and self._rows and self.fitted(turn).hbm_bytes <= self._hbm_free:
                self._prefill(turn)
            elif self._running:
                self._decode()
            else:
                self._idle()

    def _idle(self) -> None:
        """Nothing to compute: waits for an arrival or the end of a transfer."""
        until = self._arrivals[0][0] if self._arrivals else math.inf
        moving = self._storage is not None and self._storage.is_moving
        done = self.clock.until(until, self._posted, moving)
        now = self.clock.now
        self._idle_s += now - self._step_ended_s
        self._step_ended_s = now
        if done is not None:
            self._take(done)

    def _look_up(self) -> None:
        """Takes note of what has happened, and starts what follows."""
        self.clock.tick()
        before = self.clock.now
        while True:
            try:
                self._take(self._posted.get_nowait())
            except Empty:
                break
        while self._arrivals and self._arrivals[0][0] <= self.clock.now:
            self._arrive(heappop(self._arrivals)[1])
        if self._changed:
            self._changed = False
            if self._storage is not None:
                self._storage.start_moves(self.clock.now)
        if self._storage is not None and self._guarded:
            self._storage.check()
        self._attended_s += self.clock.now - before

    def _take(self, done) -> None:
        if self._storage is not None:
            self._storage.take(done, self.clock.now)
            self._changed = True

    def _arrive(self, turn: int) -> None:
        """A turn joins the queue."""
        session = self._session[turn]
        self._waiting_turn[session] = turn
        if self._storage is not None:
            self._storage.come(session, self.clock.now)
        position = self._queue.push(turn)
        if self.store is not None:
            self.store.expect(session, position)
            self._changed = True

    def _kv_moved(self, session: int) -> None:
        """The KV of a waiting job has another home, and the scheduler goes by that."""
        if self.store is not None and session in self._waiting_turn:
            self.store.expect(session, self._queue.update(self._waiting_turn[session]))

    # --- a prefill ------------------------------------------------------------------------------------------------------------

    def fitted(self, turn: int) -> Fitted:
        """A turn after truncation to the window."""
        columns, deployment = self._recorder, self._deployment
        kept = len(self._text[self._session[turn]])
        ratio = self._config.deployment.truncation_ratio
        history, prompt, output = fit(kept, columns.prompt_tokens[turn], columns.output_tokens[turn], deployment.window, ratio)
        return Fitted(history, prompt, output, (history + prompt + output) * deployment.hbm_kv_bytes)

    @property
    def _hbm_free(self) -> int:
        return self._deployment.hbm_budget - sum(self._hbm_used.values())

    def _prefill(self, turn: int) -> None:
        """Admits the head of the queue and makes its first token, if it has one."""
        recorder, session = self._recorder, self._session[turn]
        self._queue.pop()
        del self._waiting_turn[session]
        recorder.admitted_s[turn] = self.clock.now
        history, prompt, output, hbm_bytes = self.fitted(turn)
        if prompt + output < recorder.prompt_tokens[turn] + recorder.output_tokens[turn]:
            recorder.clipped += 1
            recorder.prompt_tokens[turn], recorder.output_tokens[turn] = prompt, output
        text = self._text[session]
        cut = len(text) - history
        if cut:
            recorder.overflow[turn] = 1
            self._verifier.truncated(session)
        del text[:cut]
        text += self._rng.integers(self._device.decoder.shape.vocab_size, size=prompt).tolist()
        self._hbm_used[turn] = hbm_bytes
        job = Job(turn, session, self._rows.pop(), cached=0, left=output)
        tier, tokens = self._claim(session, cut)
        if self._storage is not None and tokens > 1:
            job.source = self._storage.source(session, tier, tokens, self.clock.now)
        self._changed = True
        self._look_up()
        logits, cached = self._compute(job, text, tokens if job.source.chunks else 0)
        recorder.history_tokens[turn], recorder.cached_tokens[turn] = history, cached
        if cached:
            recorder.tier[turn] = tier
            self.clock.stopped(lambda: self._verifier.compare(turn, session, text, logits))
        self.prefilled_tokens += history + prompt - cached
        if job.left:
            self._speak(job, int(logits.argmax()))
        recorder.first_token_s[turn] = self.clock.now
        if not job.left:
            self._complete(job)
        else:
            self._running.append(job)

    def _claim(self, session: int, cut: int) -> tuple[int, int]:
        """(tier, tokens) of the history that the store has."""
        if self._storage is None:
            return -1, 0
        return self._storage.claim(session, cut, self._config.store.positions == "embedded", self.clock.now)

    def _compute(self, job: Job, text: list[int], cached: int) -> tuple[torch.Tensor, int]:
        """Logits after the job's text, and how many tokens of it were served by the store: none when what it had is damaged."""
        tokens = text[job.source.tokens :]
        if self._storage is not None:
            job.fresh = kv.empty(self._device.layout, len(tokens) + job.left - 1)
        try:
            logits, seconds, stall = self._step(True, len(tokens), job.source.tokens, lambda: self._device.prefill(job, tokens))
        except OSError:
            if self._storage is None:
                raise
            self._storage.give_up(job.session, self.clock.now)
            job.source = NOTHING
            return self._compute(job, text, 0)
        self._recorder.stall_s[job.turn] = stall
        self.load_stall_s += stall
        self.prefill_s += seconds
        return logits, cached

    # --- decode steps ---------------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """One more token for every running job."""
        context = sum(job.cached for job in self._running)
        jobs = self._running
        tokens, seconds, stall = self._step(False, len(jobs), context, lambda: self._device.decode(jobs).argmax(dim=-1).tolist())
        self.save_stall_s += stall
        self.decode_s += seconds
        for job, token in zip(self._running, tokens, strict=True):
            self._speak(job, token)
        ended = [job for job in self._running if not job.left]
        self._running = [job for job in self._running if job.left]
        for job in ended:
            self._complete(job)

    def _step(self, is_prefill: bool, tokens: int, context: int, work: Callable[[], Answer]) -> tuple[Answer, float, float]:
        """Makes a step; returns the answer of its work, its seconds without stalls, and its stalls."""
        began, attended, stalled = self.clock.now, self._attended_s, self._device.stall_s
        answer = work()
        now, stall = self.clock.now, self._device.stall_s - stalled
        seconds = now - self._step_ended_s - stall
        self._own_s += seconds - (now - began - stall - (self._attended_s - attended))
        self._step_ended_s = now
        self._steps.append(Step(is_prefill, tokens, context, seconds))
        return answer, seconds, stall

    def _speak(self, job: Job, token: int) -> None:
        """The job's next token is out."""
        job.token = token
        job.left -= 1
        self._text[job.session].append(token)

    def _complete(self, job: Job) -> None:
        """The answer is complete: keep its KV, leave, and let the session go on."""
        turn, session = job.turn, job.session
        self._rows.append(job.row)
        del self._hbm_used[turn]
        now = self.clock.now
        arrival = self._next_arrival(turn, now)
        self._knowledge.next_turn(session, arrival)
        if self._storage is not None:
            fresh = self._device.finish(job)
            self._look_up()  # a read that the job has waited for is over, and must be known to be before its KV is saved
            missing = self._storage.save(session, [*job.source.chunks, *fresh], len(self._text[session]), now)
            self._device.to_host.bytes += missing
            self._changed = True
        if self._queue.LEARNS:
            self._queue.done(turn, self._recorder.output_tokens[turn])
        self._recorder.done(turn, now, self)
        if arrival < math.inf:
            self._recorder.arrival_s[turn + 1] = arrival
            heappush(self._arrivals, (arrival, turn + 1))

    def _next_arrival(self, turn: int, now: float) -> float:
        """When the session's next turn comes; infinity when there is none."""
        workload = self._workload
        if turn + 1 == workload.turns or self._session[turn + 1] != self._session[turn]:
            return math.inf
        return float(workload.arrival_s[turn + 1] if workload.open_loop else now + workload.gap_s[turn + 1])

    # --- what comes of it -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the threads and empties the folder."""
        self._device.close()
        self._drive.close()

    def served(self) -> Served:
        """The result of a finished run."""
        workload, recorder = self._workload, self._recorder
        columns = {"session": workload.session, "turn": workload.turn, **recorder.columns}
        return Served(
            self._config,
            workload,
            summarize(self._config, self._deployment, workload, recorder.output()),
            columns,
            self._steps,
            self._own_s,
            self._idle_s,
            self.clock.pace,
            self._storage.faults if self._storage else Faults(),
            self._verifier,
            self._drive.direct,
            self.clock.NAME,
        )

    def begin(self, now: float) -> None:
        """The measured span begins."""
        for tier in self.store.tiers if self.store else ():
            tier.begin()

    def spent(self, now: float) -> dict[str, float]:
        """Seconds by what they went to, and tokens prefilled."""
        names = ("prefill_s", "decode_s", "load_stall_s", "save_stall_s", "prefilled_tokens")
        return {name: getattr(self, name) for name in names}

    def books(self, now: float) -> Books:
        """Every running sum."""
        tiers = self.store.tiers if self.store else ()
        return Books.of(
            self.spent(now) | ({"skipped_saves": self.store.skipped_saves} if self.store else {}),
            {link.name: link.done(now) for link in self.links},
            [TierBooks(tier.name, tier.byte_seconds(now), tier.written, tier.read, tier.peak) for tier in tiers],
        )

    def sample(self, now: float) -> tuple:
        """A row of the time series."""
        used = [tier.used for tier in (self.store.tiers if self.store else ())] if self.store else []
        return (now, 0, len(self._queue), len(self._running), sum(self._hbm_used.values()), *used)
