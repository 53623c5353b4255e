"""What has gone over a link, and for how long."""

import time
from collections.abc import Callable

from kvplan.validate.calibration.datapath.streams import Event, ThreadStream


class Meter:
    """Bytes and real seconds of one direction of one link, each counted by one thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes = 0
        self.busy_s = 0.0

    def timed(self, work: Callable[[], object]) -> None:
        """Does the work of a transfer."""
        started = time.perf_counter()
        work()
        self.busy_s += time.perf_counter() - started


class MeteredStream(ThreadStream):
    """A thread whose work is transfers over one link; their bytes are counted by whoever sends them."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def run(self, work: Callable[[], object]) -> Event:
        return super().run(lambda: self._meter.timed(work))

    def wait(self, event: Event) -> None:
        super().run(event.synchronize)
