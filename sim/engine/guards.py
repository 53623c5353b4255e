"""The invariants of a simulation, checked while it runs. On in every test, off for users (`KVPLAN_GUARDS=1` turns them on).

1. Bytes are conserved in every tier and on every link.
2. No tier exceeds its capacity at any time, HBM included; no batch its places, and no step that prefills its tokens.
3. Every turn that arrives ends exactly once.
4. Turns of a session never overlap and keep their order.
5. No transfer is faster than its link; no resource is busy for longer than has elapsed, nor for longer than the measured span.
6. A hit serves exactly what was saved, after truncation; and what was saved is there, unless room was needed or its time was over.
7. Little's law holds on every queue: the integral of its length is the sum of the waits.
8. GPU busy time equals the sum over the steps, and steps do not overlap; they prefill each token that was not loaded once.
9. Shares of a summary are within 0 and 1, and no sum over its span is negative.
10. A client sends a turn when it is ready, in its order and at its pace, with no more outstanding than may be, and none waits for nothing.

The guards keep books of their own, apart from the engine's, and compare.
"""

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from kvplan.sim.config import Clients
from kvplan.sim.engine.link import Link
from kvplan.sim.metrics.steadiness import outstanding

_ENVIRONMENT = "KVPLAN_GUARDS"
_FULL_CHECK_EVERY = 64


class GuardError(AssertionError):
    """An invariant does not hold: a defect of kvplan, never of the input."""


def enabled() -> bool:
    """Whether runs are guarded."""
    return os.environ.get(_ENVIRONMENT, "") not in ("", "0")


class Guards:
    """Books of one run."""

    def __init__(self, deployment, ttl_s: float | None, hbm_tier: int, step_tokens: int | None, clients: Clients | None = None) -> None:
        self._deployment, self._connection = deployment, deployment.connection
        self._hbm_tier = hbm_tier
        self._step_tokens = math.inf if step_tokens is None else step_tokens
        self._ttl_s = math.inf if ttl_s is None else ttl_s
        self._clients = clients
        self._idle_since: dict[tuple[object, int], float] = {}
        """When the last turn of each (store, session) that has none now ended."""
        self._wires: defaultdict[Link, _Wire] = defaultdict(_Wire)
        self._saved_tokens: defaultdict[object, dict[int, int]] = defaultdict(dict)
        """Per store and session."""
        self._waiting: dict[object, _Population] = {}
        self._present: dict[object, _Population] = {}
        self._busy_s: dict[object, float] = {}
        self._step_end: dict[object, float] = {}
        self._queued: set[int] = set()
        self._completed: set[int] = set()
        self._again = 0
        """Tokens that jobs which gave way are to compute beyond those of their turns, or have."""
        self._checks = 0

    def booked(self, link: Link, ready: float, start: float, end: float, size: int) -> None:
        """A link is about to take a demand transfer, that may start at `ready`."""
        slack = 1e-9 * max(1.0, start)
        demand(start >= link.free_at - slack and start >= ready, 5, f"{link.name}: a transfer overtakes the one before")
        self._wires[link].transfer(link, start, end, size)

    def booked_behind(self, link: Link, now: float, start: float, end: float, size: int) -> None:
        """A link is about to take a background transfer, that ends then if no demand comes between."""
        demand(link.background_end <= now, 5, f"{link.name}: two background transfers at once")
        self._wires[link].transfer(link, start, end, size)

    def broken_off(self, link: Link, size: int, sent: int) -> None:
        """A background transfer of `size` bytes has ended with `sent` of them."""
        demand(0 <= sent <= size, 5, f"{link.name}: {sent} of {size} bytes were sent")
        self._wires[link].take_back(link, size - sent)

    def queued(self, replica, turn: int, now: float) -> None:
        """A turn starts to wait."""
        demand(turn not in self._queued, 3, f"turn {turn} arrives twice")
        self._queued.add(turn)
        self._idle_since.pop((replica.kv.store, replica.run.knowledge.session_of[turn]), None)
        self._waiting.setdefault(replica, _Population()).enter(now)
        self._present.setdefault(replica, _Population()).enter(now)

    def admitted(self, replica, turn: int, now: float) -> None:
        """A turn stops waiting."""
        self._waiting[replica].leave(now)

    def preempted(self, replica, job) -> None:
        """A job has given way, with so many tokens left to compute."""
        self._again -= job.left

    def admitted_again(self, replica, job) -> None:
        """A job that gave way starts again."""
        self._again += job.new

    def completed(self, replica, turn: int, now: float) -> None:
        """A turn has ended."""
        demand(turn in self._queued and turn not in self._completed, 3, f"turn {turn} ends twice, or never arrived")
        self._completed.add(turn)
        self._idle_since[replica.kv.store, replica.run.knowledge.session_of[turn]] = now
        self._present[replica].leave(now)

    def found(self, store, session: int, cut: int, embedded: bool, cached: int) -> None:
        """A turn found `cached` tokens in the store, after `cut` tokens were truncated."""
        for saved in self._saved_tokens.values() if cut else ():
            if session in saved:
                saved[session] = 0 if embedded or self._deployment.kv.state else max(0, saved[session] - self._connection.begun(cut))
        known = self._saved_tokens[store].get(session, 0)
        demand(cached == known, 6, f"session {session} finds {cached} tokens, {known} were saved and not lost since")

    def served(self, store, session: int, used: int) -> None:
        """Of the tokens that were found, the turn uses the first `used`, or with Cake as many others."""
        known = self._saved_tokens[store].get(session, 0)
        demand(0 <= used <= known, 6, f"session {session} is served {used} tokens, {known} were found")
        demand(not used % self._connection.block, 6, f"session {session} is served {used} tokens, no whole blocks")

    def kept_only(self, session: int, kept: int) -> None:
        """Only `kept` tokens of the session's history are of use from now on."""
        kept = self._connection.whole(kept)
        for store, saved in self._saved_tokens.items():
            known = saved.get(session, 0)
            saved[session] = self._usable(store, session, kept) if self._deployment.kv.is_checkpoint and known > kept else min(known, kept)

    def _usable(self, store, session: int, kept: int) -> int:
        """Of a session that goes on from its first `kept` tokens: a copy that ends there or before, or one whose windows all lie there."""
        held = [self._deployment.tokens_in(tier.held(session)) for tier in store.tiers]
        demand(all(tokens <= kept for tokens in held), 6, f"session {session} keeps {held} tokens, of which {kept} are of use")
        return max(held, default=0)

    def saved(self, replica, job, tier: int) -> None:
        """What is kept of a turn's KV was offered to the store, of which a tier took it, or none (−1)."""
        session, tokens = job.session, self._connection.saved(job.context, job.output)
        if tier >= 0 or not tokens:
            self._saved_tokens[replica.kv.store][session] = tokens
            return
        size, first = self._deployment.stored(tokens), replica.kv.store.tiers[0]
        too_large = any(size > below.capacity for below in (first, *replica.kv.store.tiers[1:-1]))
        demand(too_large or first.free < size - first.held(session), 6, f"session {session} is not saved, though {first.name} has room")

    def evicted(self, store, index: int, session: int, wanted: int) -> None:
        """A session is about to leave a tier because `wanted` bytes are to be free there; tiers below may hold an older part of it."""
        tier = store.tiers[index]
        demand(tier.free < wanted, 6, f"session {session} leaves {tier.name}, which has {tier.free} of {wanted} bytes free")
        if all(not above.held(session) for above in store.tiers[:index]):
            left = max((below.held(session) for below in store.tiers[index + 1 :]), default=0)
            saved = self._saved_tokens[store]
            saved[session] = min(saved.get(session, 0), self._deployment.tokens_in(left))

    def expired(self, store, session: int, now: float) -> None:
        """A session is dropped because it was idle for too long."""
        since = self._idle_since.get((store, session))
        demand(since is not None and now > since + self._ttl_s, 6, f"session {session} expires at {now}, idle since {since}")
        self._saved_tokens[store][session] = 0

    def stepped(self, replica, start: float, end: float) -> None:
        """The GPU was busy from start to end, with the step that it has still."""
        demand(start >= self._step_end.get(replica, 0.0), 8, "a step starts before the last one ended, at", start)
        self._step_end[replica] = end
        self._busy_s[replica] = self._busy_s.get(replica, 0.0) + end - start
        gpu = replica.gpu
        if gpu.chunks:
            tokens = sum([tokens for _, tokens in gpu.chunks]) + gpu.steps * replica.batch.decoding
            demand(tokens <= self._step_tokens, 2, "a step has", tokens, "of", self._step_tokens, "tokens")

    def check(self, replica, now: float) -> None:
        """After a step: capacities, and now and then every sum."""
        demand(0 <= replica.batch.hbm_used <= self._deployment.hbm_budget, 2, "HBM holds", replica.batch.hbm_used, "bytes")
        demand(replica.batch.running <= replica.batch.most, 2, "more jobs run than there are places:", replica.batch.running)
        self._check_hbm(replica)
        for session in replica.waiting.held():
            demand(bool(replica.kv.store.bytes_to_come(session)), 3, f"session {session} is held for KV that cannot come")
        self._checks += 1
        if self._checks % _FULL_CHECK_EVERY == 0:
            self._conserved(replica)

    def _check_hbm(self, replica) -> None:
        batch = replica.batch
        needed = sum([self._deployment.in_hbm(batch.tokens(job)) for job in batch.jobs]) - self._in_hbm(replica)
        demand(needed <= replica.batch.hbm_used, 2, "running jobs need", needed, "bytes of HBM, counted are", replica.batch.hbm_used)
        for tier in replica.kv.store.tiers:
            demand(tier.used >= 0 and tier.peak <= tier.capacity, 2, tier.name, "holds", tier.peak, "of", tier.capacity, "bytes")
            if tier.spec.on_device:
                taken = tier.spec.taken(tier.peak)
                demand(taken <= self._hbm_tier, 2, f"HBM's tier takes {taken} of {self._hbm_tier} bytes")

    def _in_hbm(self, replica) -> int:
        """Bytes that HBM's own tier takes."""
        tiers = [tier for tier in replica.kv.store.tiers if tier.spec.on_device]
        return sum(tier.spec.taken(tier.used) for tier in tiers)

    def _conserved(self, replica) -> None:
        for tier in replica.kv.store.tiers:
            held = tier.sessions().values()
            demand(sum(held) == tier.used and min(held, default=0) >= 0, 1, f"{tier.name}: sessions do not sum up to what it holds")
            demand(tier.written - tier.moved - tier.dropped == tier.used, 1, f"{tier.name}: written - moved - dropped is not held")

    def finish(self, replicas, recorder, now: float) -> None:
        """After the run: everything that only the whole can show."""
        demand(recorder.completed == recorder.turns, 3, f"{recorder.turns - recorder.completed} turns never ended")
        columns = recorder.columns
        arrival, admitted, first, done = (columns[name] for name in ("arrival_s", "admitted_s", "first_token_s", "done_s"))
        for early, late in ((arrival, admitted), (admitted, first), (first, done)):
            demand(bool((early <= late).all()), 3, "a turn's events are out of order, or one is missing")
        session_of = replicas[0].run.knowledge.session_of
        for turn in range(1, recorder.turns):
            if session_of[turn] == session_of[turn - 1]:
                demand(done[turn - 1] <= admitted[turn], 4, f"turn {turn} starts before turn {turn - 1} of its session has ended")
        for replica in replicas:
            self._conserved(replica)
            demand(replica.batch.hbm_used == 0, 1, f"nobody runs, and jobs have {replica.batch.hbm_used} bytes of HBM")
            recorded = replica.gpu.busy_s
            demand(_close(recorded, self._busy_s.get(replica, 0.0)), 8, f"busy {recorded} s, steps {self._busy_s.get(replica)} s")
            demand(recorded <= now * (1 + 1e-9), 5, f"the GPUs were busy for {recorded} s of {now} s")
        _check_prefills(replicas, columns, self._again)
        mine = [replica for replica in replicas if replica in self._waiting]
        waited = sum(self._waiting[replica].area for replica in mine)
        demand(_close(waited, _queue_wait(replicas, recorder)), 7, "the integral of the queue length is not the sum of the waits")
        present = sum(self._present[replica].area for replica in mine)
        demand(_close(present, waited + float((done - admitted).sum())), 7, "the integral of jobs present is not the sum of stays")
        for link in [link for replica in replicas for link in replica.kv.paths.links]:
            self._wires[link].finish(link, now)
        if self._clients is not None:
            check_client(self._clients, np.array(session_of), columns)


def _check_prefills(replicas, columns: Mapping[str, np.ndarray], again: int) -> None:
    new = int((columns["prompt_tokens"] + columns["history_tokens"] - columns["cached_tokens"]).sum()) + again
    prefilled = sum(replica.gpu.prefilled_tokens for replica in replicas)
    demand(prefilled == new, 8, f"{prefilled} tokens were prefilled, {new} were not loaded")


def check_client(clients: Clients, session: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
    """Of a finished run: what `workload.clients` promises. `session`: whose turn, per turn."""
    ready, sent, done = (columns[name] for name in ("ready_s", "arrival_s", "done_s"))
    first = np.append(True, session[1:] != session[:-1])
    demand((sent >= ready).all(), 10, "a turn is sent before it is ready, or never")
    rested = done[:-1][~first[1:]] + clients.pause_s
    demand((ready[~first] >= rested).all(), 10, "a turn is ready before its session has had the answer, and its pause")
    _check_limit(clients.outstanding, "turns are outstanding", sent, done)
    _check_limit(clients.active, "sessions are open", ready[first], done[np.append(first[1:], True)])
    if clients.order == "fifo":
        demand((np.diff(ready[np.lexsort((ready, sent))]) >= 0).all(), 10, "a turn is sent before one that was ready sooner")
    if clients.barrier:
        _check_rounds(first, ready, done)
    _check_pace(0.0 if clients.rate_per_s is None else 1 / clients.rate_per_s, ready, sent, done)


def _check_limit(limit: int | None, what: str, begin_s: np.ndarray, end_s: np.ndarray) -> None:
    most = int(outstanding(begin_s, end_s)[1].max())
    demand(limit is None or most <= limit, 10, f"{most} {what} at once, of {limit} that may be")


def _check_rounds(first: np.ndarray, ready: np.ndarray, done: np.ndarray) -> None:
    rows = np.arange(len(first))
    place = rows - np.maximum.accumulate(np.where(first, rows, 0))
    for number in range(1, int(place.max()) + 1):
        demand(ready[place == number].min() >= done[place == number - 1].max(), 10, f"round {number} begins before the last has ended")


def _check_pace(interval_s: float, ready: np.ndarray, sent: np.ndarray, done: np.ndarray) -> None:
    """A turn that waited is sent when another has its answer, or when the pace allows it."""
    demand((np.diff(np.sort(sent)) >= interval_s * (1 - 1e-9)).all(), 10, "turns are sent faster than the pace allows")
    allowed = np.append(done, sent + interval_s if interval_s else [])
    demand(np.isin(sent[sent > ready], allowed).all(), 10, "a turn waits in the client when it may be sent")


def check_summary(summary: Mapping[str, Any]) -> None:
    """Of a finished run: what the difference of two running sums can get wrong."""
    gpu = summary["gpu"]
    shares = {**summary["hit_rate"], "utilization": gpu["utilization"]}
    for name, share in shares.items():
        demand(-1e-7 <= share <= 1 + 1e-7, 9, f"{name} is {share}")
    for name, link in summary["links"].items():
        demand(link["busy_share"] <= 1 + 1e-6, 5, f"{name}: busy for {link['busy_share']:.4f} of the measured span")
    sums = {name: gpu[name] for name in ("busy_s", "prefill_s", "decode_s", "load_stall_s", "save_stall_s", "prefilled_tokens")}
    sums |= {f"{name} {key}": value for name, tier in summary["tiers"].items() for key, value in tier.items()}
    sums |= {f"{name} {key}": value for name, link in summary["links"].items() for key, value in link.items()}
    for name, value in {"makespan_s": summary["makespan_s"], **sums}.items():
        demand(value >= -1e-6, 9, f"{name} is {value}")


def _queue_wait(replicas, recorder) -> float:
    """Seconds in the queue; with an open loop a turn joins it only when its predecessor has ended."""
    columns = recorder.columns
    joined = columns["arrival_s"].copy()
    session_of = replicas[0].run.knowledge.session_of
    for turn in range(1, recorder.turns):
        if session_of[turn] == session_of[turn - 1]:
            joined[turn] = max(joined[turn], columns["done_s"][turn - 1])
    return float((columns["admitted_s"] - joined).sum())


class _Population:
    """A number of jobs and its integral over time."""

    def __init__(self) -> None:
        self.number = 0
        self.area = 0.0
        self._since = 0.0

    def enter(self, now: float) -> None:
        self.area += self.number * (now - self._since)
        self._since = now
        self.number += 1

    def leave(self, now: float) -> None:
        self.area += self.number * (now - self._since)
        self._since = now
        self.number -= 1


class _Wire:
    """What was booked on a link."""

    def __init__(self) -> None:
        self._counted = 0
        self._least_s = 0.0
        self._last_end = 0.0

    def transfer(self, link: Link, start: float, end: float, size: int) -> None:
        least = size / link.bandwidth
        slack = 1e-9 * max(1.0, abs(end))
        demand(size >= 0 and end - start >= least - slack, 5, link.name, "takes", size, "bytes in", end - start, "s")
        self._counted += size
        self._least_s += least
        self._last_end = max(self._last_end, end)

    def take_back(self, link: Link, size: int) -> None:
        self._counted -= size
        self._least_s -= size / link.bandwidth

    def finish(self, link: Link, now: float) -> None:
        """The books against each other."""
        demand(self._counted == link.bytes, 1, f"{link.name}: bytes booked and bytes counted differ")
        elapsed = max(now, self._last_end, link.background_end)
        demand(self._least_s <= link.busy_s + 1e-9 * elapsed, 5, f"{link.name}: busy for less than its bytes take")
        demand(link.busy_s <= elapsed * (1 + 1e-9) + 1e-9, 5, f"{link.name}: busy for {link.busy_s} s of {elapsed} s")


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-7, abs_tol=1e-6)


def demand(holds: bool | np.bool_, invariant: int, *message: object) -> None:
    """What stands in the message is put into words only when it is needed: a demand of every step is met a million times."""
    if not holds:
        raise GuardError(f"invariant {invariant}: {' '.join(map(str, message))}")
