"""Reads and writes of one file on SSD against size and queue depth, past the page cache where the file system allows it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from kvplan.validate.calibration.datapath.buffers import host_buffer
from kvplan.validate.calibration.datapath.ssdfile import SsdFile
from kvplan.validate.calibration.measure.task import Task, grid
from kvplan.validate.calibration.measure.timing import Timing, once, repeated

SIZES = (2**20, 64 * 2**20)
QUEUE_DEPTHS = (1, 4, 16)
FILE_BYTES = 8 * SIZES[1]
"""Places rotate over this much."""


class DriveBench:
    """Times a file in `folder`, which must exist; the caller removes it. `direct`: whether the folder has direct I/O."""

    def __init__(self, folder: Path, direct: bool):
        self._path, self._direct = folder / "kv", direct
        self._buffer: Tensor | None = None

    def tasks(self, level: int) -> Iterator[Task]:
        """The points at a level: one queue depth at first, then the others."""
        depths = QUEUE_DEPTHS[1:2] if level == 0 else QUEUE_DEPTHS
        for direction in ("write", "read"):
            for depth in depths:
                for size in grid(*SIZES, level + 1):
                    yield self._task(direction, size - size % 4096, depth)

    def _task(self, direction: str, size: int, depth: int) -> Task:
        def measure(may_take_s: float) -> Timing:
            buffer = self._filled()[:size]
            with ThreadPoolExecutor(depth) as io, SsdFile(self._path, io, self._direct) as file:
                call = file.write if direction == "write" else file.read
                places = FILE_BYTES // size
                return repeated(lambda turn: once(lambda: call(buffer, turn % places * size), "cpu"), may_take_s)

        return Task("ssd", {"direction": direction, "bytes": size, "queue_depth": depth}, size, f"ssd {direction}", measure)

    def _filled(self) -> Tensor:
        """A buffer of random bytes, after writing all of the file once, so that reads find data and writes find blocks."""
        if self._buffer is None:
            self._buffer = host_buffer(SIZES[1]).random_(256)
            with ThreadPoolExecutor(QUEUE_DEPTHS[1]) as io, SsdFile(self._path, io, self._direct) as file:
                for start in range(0, FILE_BYTES, SIZES[1]):
                    file.write(self._buffer, start)
        return self._buffer
