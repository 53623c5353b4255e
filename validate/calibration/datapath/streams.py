"""Streams and events, on CUDA and on the CPU.

A stream runs what it is given in order and beside the other streams; an event says that all of a stream up to there is done. The
compute stream is the caller's own (CUDA's current stream; on the CPU the calling thread), so that plain PyTorch code runs on it.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from kvplan.validate.calibration.clock import Clock, WallClock


class Event(Protocol):
    """A point in a stream."""

    def synchronize(self) -> None:
        """Blocks the caller until the stream has come to it; raises what the work before it raised."""

    def query(self) -> bool:
        """Whether it has."""


class Stream(Protocol):
    """A queue of work."""

    def run(self, work: Callable[[], object]) -> Event:
        """Queues `work`, and gives the event of its end."""

    def wait(self, event: Event) -> None:
        """Whatever is queued from now on starts after `event`, of whichever stream."""

    def close(self) -> None:
        """Ends the stream when its work is done."""


@dataclass(frozen=True)
class Streams:
    """What a job uses: one stream to compute, one to load its history, one to save its KV."""

    compute: Stream
    load: Stream
    save: Stream

    def close(self) -> None:
        """Ends all three when their work is done."""
        for stream in (self.compute, self.load, self.save):
            stream.close()

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def streams(device: str, clock: Clock | None = None) -> Streams:
    """The streams of a device, cpu or cuda. On a CPU `clock` is told of waits."""
    if device == "cuda":
        return Streams(CudaStream(torch.cuda.current_stream()), CudaStream(torch.cuda.Stream()), CudaStream(torch.cuda.Stream()))
    return Streams(CallerStream(clock), ThreadStream(), ThreadStream())


class CudaStream:
    """A CUDA stream; its events are torch.cuda.Event."""

    def __init__(self, stream: torch.cuda.Stream):
        self._stream = stream

    def run(self, work: Callable[[], object]) -> Event:
        with torch.cuda.stream(self._stream):
            work()
        return self._stream.record_event()

    def wait(self, event: Any) -> None:  # of a CUDA stream
        self._stream.wait_event(event)

    def close(self) -> None:
        self._stream.synchronize()


class HostEvent:
    """The end of work in a thread."""

    def __init__(self, future: Future):
        self._future = future

    def synchronize(self) -> None:
        self._future.result()

    def query(self) -> bool:
        return self._future.done()


class ThreadStream:
    """A thread with a queue. After a failure everything that is queued behind it fails likewise, instead of using what is not there."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._failure: BaseException | None = None

    def run(self, work: Callable[[], object]) -> Event:
        return HostEvent(self._thread.submit(self._unless_failed, work))

    def wait(self, event: Event) -> None:
        self.run(event.synchronize)

    def close(self) -> None:
        self._thread.shutdown()

    def _unless_failed(self, work: Callable[[], object]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            work()
        except BaseException as error:
            self._failure = error
            raise


class CallerStream:
    """The calling thread itself: work is done when `run` returns. Its clock is told when it waits for others."""

    def __init__(self, clock: Clock | None = None):
        self._clock = clock or WallClock()

    def run(self, work: Callable[[], object]) -> Event:
        work()
        done: Future = Future()
        done.set_result(None)
        return HostEvent(done)

    def wait(self, event: Event) -> None:
        self._clock.tick()
        self._clock.blocked(event.synchronize)

    def close(self) -> None:
        """Nothing is queued."""
