"""What a run did, moment by moment, for chrome://tracing and Perfetto: `{"traceEvents": […]}`, times in microseconds.

One process per replica. Its tracks: the GPU (a span per prefill, run of decode steps, and wait for KV), and for each link its demand and
its background transfers; its counters: turns that wait and that run, and bytes per tier. Between two steps the GPU is idle.

A load overlaps the prefill that it is for, layer by layer; the part of it that the prefill waited for is shown first, in one piece. A
background transfer's span runs from its first piece to its last, the demand transfers that went in between included.

Only a window of the run is kept, and of that no more than `MOST` events: the window before the last session comes, when tiers are as full
as they get and the load is still what it is. Later the run drains.

Source: "Trace Event Format", Google, 2016 (complete events X, counters C, metadata M).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from kvplan.sim.engine.link import Link
from kvplan.traces import Workload

HEAD = b'{"displayTimeUnit":'
"""How a file of it begins."""
MOST = 500_000
"""Events; 60 MB of JSON."""
_GPU = 1
_BACKGROUND = {"ssd_read": "prefetch"}
_DEMAND = {"host_to_device": "load", "ssd_read": "load"}
"""What transfers of a link are for; on the others it is saving, and writing back."""


def window(workload: Workload, span_s: float) -> tuple[float, float]:
    """Begin and end of so many seconds before the last session comes, or of the run's first where it comes sooner."""
    last = float(workload.arrival_s[workload.first_turn[:-1]].max())
    begin = max(0.0, last - span_s)
    return begin, begin + span_s


class Timeline:
    """Watches a run (`kvplan.sim.observers`); `trace` has the events when it is over."""

    def __init__(self, begin_s: float = 0.0, end_s: float = math.inf, most: int = MOST) -> None:
        self.begin_s, self.end_s = begin_s, end_s
        self.events = 0
        """Kept so far."""
        self.cut_at_s: float | None = None
        """When there were as many as may be; None if all of the window was kept."""
        self._most = most
        self._spans: dict[object, list[dict]] = {}
        self._counts: dict[object, list[dict]] = {}
        self._last: dict[tuple[object, str], dict] = {}
        self._tracks: dict[Link, _Track] = {}
        self.trace: dict[str, Any] = {"displayTimeUnit": "ms", "traceEvents": []}

    def keeps(self, start: float, end: float) -> bool:
        """Whether a span belongs to the window, and there is room; counts it if so."""
        if end < self.begin_s or start > self.end_s:
            return False
        if self.events >= self._most:
            self.cut_at_s = start if self.cut_at_s is None else self.cut_at_s
            return False
        self.events += 1
        return True

    # --- hooks ----------------------------------------------------------------------------------------------------------------

    def booked(self, link: Link, ready: float, start: float, end: float, size: int) -> None:
        """A link takes a demand transfer."""
        self._track(link).book(start, end, size)

    def booked_behind(self, link: Link, now: float, start: float, end: float, size: int) -> None:
        """A link takes a background transfer."""
        self._track(link).open(start, size)

    def broken_off(self, link: Link, size: int, sent: int) -> None:
        """A background transfer has ended before all of it was sent."""
        self._track(link).close(sent)

    def stepped(self, replica, start: float, end: float) -> None:
        """The GPU was busy from start to end."""
        gpu = replica.gpu
        if not gpu.chunks:
            kind, arguments = ("decode", {"jobs": replica.batch.decoding}) if gpu.steps else ("wait for save", {})
            self._span(replica, kind, start, end, arguments)
            return
        turns = [job.turn for job, _ in gpu.chunks]
        loaded = start + gpu.stall_s
        self._span(replica, "wait for load", start, loaded, {"turn": turns[0]} if len(turns) == 1 else {"turns": turns})
        served = replica.served(turns[0]) if len(turns) == 1 else {"chunks": {job.turn: tokens for job, tokens in gpu.chunks}}
        decoding = {"decoding": replica.batch.decoding} if gpu.steps else {}
        self._span(replica, "prefill and decode" if gpu.steps else "prefill", loaded, end, served | decoding)

    def queued(self, replica, turn: int, now: float) -> None:
        """A turn starts to wait."""
        self._count(replica, now)

    def check(self, replica, now: float) -> None:
        """After a step."""
        self._count(replica, now)

    def finish(self, replicas, recorder, now: float) -> None:
        """The run is over: puts the trace together."""
        self.end_s = min(self.end_s, now)
        for number, replica in enumerate(replicas, 1):
            self.trace["traceEvents"] += _named(number, 0, "process_name", f"replica {number - 1}")
            self.trace["traceEvents"] += _named(number, _GPU, "thread_name", "GPU")
            self.trace["traceEvents"] += _placed(self._spans.get(replica, []), number, _GPU)
            self.trace["traceEvents"] += _placed(self._counts.get(replica, []), number, 0)
            for place, (name, spans) in enumerate(self._of_links(replica.kv.paths.links), _GPU + 1):
                self.trace["traceEvents"] += _named(number, place, "thread_name", name)
                self.trace["traceEvents"] += _placed(spans, number, place)

    # --------------------------------------------------------------------------------------------------------------------------

    def _track(self, link: Link) -> "_Track":
        return self._tracks.setdefault(link, _Track(link, self))

    def _of_links(self, links: Iterable[Link]) -> Iterator[tuple[str, list[dict]]]:
        for link in links:
            track = self._track(link)
            track.close()
            yield f"{link.name}, demand", track.demand
            yield f"{link.name}, background", track.background

    def _span(self, replica, name: str, start: float, end: float, arguments: dict) -> None:
        if end > start and self.keeps(start, end):
            self._spans.setdefault(replica, []).append(_complete(name, start, end, arguments))

    def _count(self, replica, now: float) -> None:
        """Counters that have changed."""
        _, _, waiting, running, hbm, *held = replica.sample(now)
        tiers = dict(zip([tier.name for tier in replica.kv.tiers], held, strict=True))
        for name, values in (("turns", {"waiting": waiting, "running": running}), ("bytes", {"HBM of running turns": hbm, **tiers})):
            if self._last.get((replica, name)) != values and self.keeps(now, now):
                self._last[replica, name] = values
                self._counts.setdefault(replica, []).append({"ph": "C", "name": name, "ts": _us(now), "args": values})


class _Track:
    """A link's transfers, of which a timeline keeps those that belong to its window."""

    def __init__(self, link: Link, timeline: "Timeline") -> None:
        self._link, self._timeline = link, timeline
        self.demand: list[dict] = []
        self.background: list[dict] = []
        self._demand_end = 0.0
        self._open: tuple[float, int] | None = None
        """Start and bytes of the background transfer that has not been kept yet."""

    def book(self, start: float, end: float, size: int) -> None:
        start, self._demand_end = max(start, self._demand_end), end
        self._add(self.demand, _DEMAND.get(self._link.name, "save"), start, end, size)

    def open(self, start: float, size: int) -> None:
        """A background transfer starts; the one before has ended."""
        self.close()
        self._open = start, size

    def close(self, sent: int | None = None) -> None:
        """The background transfer has ended, with `sent` of its bytes or all: now it is known when."""
        if self._open is not None:
            (start, size), self._open = self._open, None
            size = size if sent is None else sent
            self._add(self.background, _BACKGROUND.get(self._link.name, "write back"), start, self._link.background_end, size)

    def _add(self, spans: list[dict], name: str, start: float, end: float, size: int) -> None:
        if end > start and self._timeline.keeps(start, end):
            spans.append(_complete(name, start, end, {"bytes": size}))


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _complete(name: str, start: float, end: float, arguments: dict) -> dict:
    begin = _us(start)
    return {"ph": "X", "name": name, "ts": begin, "dur": round(_us(end) - begin, 3), "args": arguments}


def _placed(events: list[dict], process: int, track: int) -> list[dict]:
    return [{**event, "pid": process, "tid": track} for event in events]


def _named(process: int, track: int, what: str, name: str) -> list[dict]:
    return [{"ph": "M", "name": what, "pid": process, "tid": track, "args": {"name": name}}]
