"""The mini server: queue, continuous batching, and a store of real KV. An engine: it serves a `RunInput` and gives a `RunOutput`.

Iteration-level batching as in the simulator: the prefill of an admitted job blocks the running decodes; otherwise one decode step is made
for all running jobs. Between the layers of every step the server looks up: turns that have arrived join the queue, transfers that have
ended are taken note of, and those that are due are started.

Left out: see `kvplan.validate.miniserver.limits`; a read buffer that is filled before a job starts; preemption.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import torch

from kvplan.hwmodels.units import parse_bytes
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.deployment import rated_writes
from kvplan.sim.engine import guards
from kvplan.sim.engine.knowledge import EngineJobs
from kvplan.sim.knowledge import ServerKnowledge
from kvplan.sim.metrics.output import RunInput, RunOutput
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.policies.base import Scheduler
from kvplan.sim.policies.registry import find
from kvplan.sim.simulation import Result, simulate
from kvplan.traces import Workload
from kvplan.validate.calibration.clock import Clock, WallClock
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.miniserver import chunk as kv
from kvplan.validate.miniserver.account import Account
from kvplan.validate.miniserver.arrivals import Arrivals
from kvplan.validate.miniserver.batch import Batch
from kvplan.validate.miniserver.device import NOTHING, Device, Job
from kvplan.validate.miniserver.drive import Drive
from kvplan.validate.miniserver.ledger import Ledger, Step
from kvplan.validate.miniserver.limits import refuse
from kvplan.validate.miniserver.storage import FallibleStore, Faults, NoStore, Storage
from kvplan.validate.miniserver.texts import Fitted, Texts
from kvplan.validate.miniserver.verify import Verifier


@dataclass(frozen=True)
class Facts:
    """What only a real server has to say of a run."""

    steps: list[Step]
    own_s: float
    """Seconds of the server's own work, which `steps` hold as well."""
    idle_s: float
    """Seconds in which nothing could be computed, since the first turn came."""
    faults: Faults
    verifier: Verifier
    direct_io: bool
    clock: str


@dataclass(frozen=True, repr=False)
class Served(Result, Facts):
    """A result, and what only a real server has to say of it."""


@dataclass(frozen=True)
class MiniServer:
    """What every run is served with; `run` is an engine."""

    decoder: Decoder
    folder: Path
    """For KV on SSD: it must exist, and is empty again after a run."""
    clock: Callable[[], Clock] = WallClock
    """Makes one."""
    verify_every: int = 0
    """Every so many-th turn that loads KV is computed a second time from its tokens, outside of the clock, and compared (0: none)."""

    def run(self, given: RunInput) -> RunOutput:
        """Serves a workload in real time. Raises ConfigError for what it does not do, and OSError when `folder` cannot be used."""
        return self.serve(given)[0]

    def serve(self, given: RunInput) -> tuple[RunOutput, Facts]:
        """As `run`, with what no simulator could say."""
        refuse(given.config, given.workload, given.deployment)
        if given.observer is not None:
            raise ConfigError("the mini server cannot run this: it has nothing to tell an observer")
        server = _Server(given, self)
        try:
            server.run()
        finally:
            server.close()
        return server.output, server.facts


def serve(config: Config, workload: Workload, server: MiniServer, progress: Callable[[int, int], None] | None = None) -> Served:
    """`simulate` with the mini server. Raises ConfigError, TraceError and OSError."""
    told: list[Facts] = []

    def engine(given: RunInput) -> RunOutput:
        output, facts = server.serve(given)
        told.append(facts)
        return output

    result = simulate(config, workload, progress, engine=engine)
    return Served(**vars(result), **vars(told[0]))


class _Server:
    """One run."""

    def __init__(self, given: RunInput, machine: MiniServer) -> None:
        config, deployment, workload = given.config, given.deployment, given.workload
        self._turns, self._embedded = workload.turns, config.store.positions == "embedded"
        self._clock: Clock = machine.clock()
        self._posted: SimpleQueue = SimpleQueue()
        self._device = self._make_device(given, machine.decoder)
        self._texts = Texts(given, machine.decoder.shape.vocab_size)
        self._batch = Batch(config.deployment.max_batch, deployment.hbm_budget)
        self._arrivals = Arrivals(workload)
        self._ledger = Ledger(self._clock, lambda: self._device.stall_s, self._arrivals.next_s)
        self._knowledge = ServerKnowledge(self._clock, deployment, workload)
        view = EngineJobs(self._clock, deployment, self._knowledge, config.tenant_weights)
        self._queue: Scheduler = find("scheduling", config.scheduler)(view)
        self._drive = Drive(machine.folder, self._device.layout, self._posted)
        self._storage = Storage(_store(given, self._queue, self._knowledge), self._drive, deployment)
        view.store, view.fitting = self._storage.store, self._texts.fitted
        if self._queue.FOLLOWS_KV:
            self._storage.moved = self._kv_moved
        self._verifier = Verifier(machine.decoder, machine.verify_every)
        self._recorder = self._make_recorder(given)
        self._waiting_turn: dict[int, int] = {}
        self._changed, self._guarded = False, guards.enabled()

    def _make_device(self, given: RunInput, decoder: Decoder) -> Device:
        store, rows, window = given.config.store, given.config.deployment.max_batch, given.deployment.window
        write_buffer = 0 if store.save == "sync" else parse_bytes(store.write_buffer)
        return Device(decoder, rows, window, given.deployment.connection.layerwise, write_buffer, self._clock, self._look_up)

    def _make_recorder(self, given: RunInput) -> Recorder:
        workload, links = given.workload, [self._device.to_device, self._device.to_host, self._drive.reads, self._drive.writes]
        recorder = Recorder(workload.turns, given.config.warmup_turns, given.progress)
        recorder.watch = given.watch
        recorder.replicas = [Account(self._clock, self._ledger, self._batch, self._queue, self._storage.store, links)]
        recorder.columns["prompt_tokens"][:] = workload.prompt_tokens
        recorder.columns["output_tokens"][:] = workload.output_tokens
        recorder.columns["arrival_s"][workload.is_first] = workload.arrival_s[workload.is_first]
        return recorder

    # --- the loop -------------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serves all turns."""
        while self._recorder.completed < self._turns:
            self._look_up()
            turn = self._queue.head()
            if turn is not None and self._batch.has_room(self._texts.fitted(turn)):
                self._prefill(turn)
            elif self._batch.running:
                self._decode()
            else:
                self._idle()

    def _idle(self) -> None:
        """Nothing to compute: waits for an arrival or the end of a transfer."""
        done = self._clock.until(self._arrivals.next_s, self._posted, self._storage.is_moving)
        self._ledger.waited()
        if done is not None:
            self._take(done)

    def _look_up(self) -> None:
        """Takes note of what has happened, and starts what follows."""
        self._clock.tick()
        before = self._clock.now
        while True:
            try:
                self._take(self._posted.get_nowait())
            except Empty:
                break
        while self._arrivals.next_s <= self._clock.now:
            self._arrive(self._arrivals.take())
        if self._changed:
            self._changed = False
            self._storage.start_moves(self._clock.now)
        if self._guarded:
            self._storage.check()
        self._ledger.attended(before)

    def _take(self, done) -> None:
        self._storage.take(done, self._clock.now)
        self._changed = True

    def _arrive(self, turn: int) -> None:
        """A turn joins the queue."""
        session = self._knowledge.session_of[turn]
        self._waiting_turn[session] = turn
        self._storage.come(session, self._clock.now)
        self._storage.store.expect(session, self._queue.push(turn))
        self._changed = True

    def _kv_moved(self, session: int) -> None:
        """The KV of a waiting job has another home, and the scheduler goes by that."""
        if session in self._waiting_turn:
            self._storage.store.expect(session, self._queue.update(self._waiting_turn[session]))

    # --- a prefill ------------------------------------------------------------------------------------------------------------

    def _prefill(self, turn: int) -> None:
        """Admits the head of the queue and makes its first token, if it has one."""
        job, text, tier, tokens = self._admit(turn)
        self._changed = True
        self._look_up()
        logits, cached = self._compute(job, text, tokens if job.source.chunks else 0)
        self._recorder.cached_tokens[turn] = cached
        if cached:
            self._recorder.tier[turn] = tier
            self._clock.stopped(lambda: self._verifier.compare(turn, job.session, text, logits))
        self._ledger.spent["prefilled_tokens"] += len(text) - cached
        if job.left:
            self._speak(job, int(logits.argmax()))
        self._recorder.first_token_s[turn] = self._clock.now
        if not job.left:
            self._complete(job)
        else:
            self._batch.running.append(job)

    def _admit(self, turn: int) -> tuple[Job, list[int], int, int]:
        """A turn leaves the queue; returns its job, its text, and (tier, tokens) of the history that the store has."""
        session, fitted, now = self._knowledge.session_of[turn], self._texts.fitted(turn), self._clock.now
        self._queue.pop()
        del self._waiting_turn[session]
        text, cut = self._texts.ask(turn, fitted)
        self._note(turn, fitted, cut, now)
        if cut:
            self._verifier.truncated(session)
        job = self._batch.enter(turn, session, fitted)
        tier, tokens = self._storage.claim(session, cut, self._embedded, self._clock.now)
        if tokens > 1:
            job.source = self._storage.source(session, tier, tokens, self._clock.now)
        return job, text, tier, tokens

    def _note(self, turn: int, fitted: Fitted, cut: int, now: float) -> None:
        """What is known of a turn when it starts."""
        recorder = self._recorder
        recorder.admitted_s[turn], recorder.history_tokens[turn] = now, fitted.history
        if fitted.prompt + fitted.output < recorder.prompt_tokens[turn] + recorder.output_tokens[turn]:
            recorder.clipped += 1
            recorder.prompt_tokens[turn], recorder.output_tokens[turn] = fitted.prompt, fitted.output
        recorder.overflow[turn] = int(cut > 0)

    def _compute(self, job: Job, text: list[int], cached: int) -> tuple[torch.Tensor, int]:
        """Logits after the job's text, and how many tokens of it were served by the store: none when what it had is damaged."""
        tokens = text[job.source.tokens :]
        if self._storage.store.tiers:
            job.fresh = kv.empty(self._device.layout, len(tokens) + job.left - 1)
        try:
            logits, stall = self._ledger.step(True, len(tokens), job.source.tokens, lambda: self._device.prefill(job, tokens))
        except OSError:
            if job.source is NOTHING:
                raise
            self._storage.give_up(job.session, self._clock.now)
            job.source = NOTHING
            return self._compute(job, text, 0)
        self._recorder.stall_s[job.turn] = stall
        return logits, cached

    # --- decode steps ---------------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """One more token for every running job."""
        jobs = self._batch.running
        context = sum(job.cached for job in jobs)
        tokens, _ = self._ledger.step(False, len(jobs), context, lambda: self._device.decode(jobs).argmax(dim=-1).tolist())
        for job, token in zip(jobs, tokens, strict=True):
            self._speak(job, token)
        for job in self._batch.take_ended():
            self._complete(job)

    def _speak(self, job: Job, token: int) -> None:
        """The job's next token is out."""
        job.token = token
        job.left -= 1
        self._texts.answer(job.session, token)

    def _complete(self, job: Job) -> None:
        """The answer is complete: keep its KV, leave, and let the session go on."""
        turn, session, now = job.turn, job.session, self._clock.now
        self._batch.leave(job)
        arrival = self._arrivals.after(turn, now)
        self._knowledge.next_turn(session, arrival)
        fresh = self._device.finish(job)
        self._look_up()  # a read that the job has waited for is over, and must be known to be before its KV is saved
        missing = self._storage.save(session, [*job.source.chunks, *fresh], self._texts.tokens(session), now)
        self._device.to_host.bytes += missing
        self._changed = True
        if self._queue.LEARNS:
            self._queue.done(turn, self._recorder.output_tokens[turn])
        self._recorder.done(turn, now, self._recorder.replicas[0])
        if arrival < math.inf:
            self._recorder.arrival_s[turn + 1] = arrival
            self._arrivals.expect(turn + 1, arrival)

    # --- what comes of it -----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the threads and empties the folder."""
        self._device.close()
        self._drive.close()

    @property
    def output(self) -> RunOutput:
        """Of the finished run."""
        return self._recorder.output()

    @property
    def facts(self) -> Facts:
        """Likewise."""
        ledger = self._ledger
        faults, direct = self._storage.faults, self._drive.direct
        return Facts(ledger.steps, ledger.own_s, ledger.idle_s, faults, self._verifier, direct, self._clock.NAME)


def _store(given: RunInput, queue: Scheduler, knowledge: ServerKnowledge) -> FallibleStore | NoStore:
    settings, deployment = given.config.store, given.deployment
    if not deployment.tiers:
        return NoStore()
    return FallibleStore(
        list(deployment.tiers),
        find("eviction", settings.eviction),
        find("prefetch", settings.prefetch)(),
        queue,
        find("write", settings.write)(rated_writes(deployment)),
        knowledge,
        settings.ttl_s,
        settings.ssd_write == "whole",
    )
