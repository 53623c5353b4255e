"""Copies between host and device against their size: from pinned and pageable memory, one way and both ways at once.

Without a GPU both ends are host memory: what is timed then is the memory's own bandwidth, and nothing is pinned.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kvplan.validate.calibration.datapath.buffers import host_buffer
from kvplan.validate.calibration.datapath.streams import Streams
from kvplan.validate.calibration.measure import machine
from kvplan.validate.calibration.measure.task import Task, grid
from kvplan.validate.calibration.measure.timing import Timing, once, repeated

SIZES = (256 * 2**10, 64 * 2**20)
DIRECTIONS = ("to_device", "to_host", "both")


class CopyBench:
    """Times the host link of a device with the streams that load and save KV. `both`: as many bytes each way."""

    def __init__(self, device: str, streams: Streams):
        self._device, self._streams = device, streams
        self._pools: dict[str, tuple[Tensor, Tensor]] = {}

    def tasks(self, level: int) -> Iterator[Task]:
        """The points at a level."""
        for memory in ("pinned", "pageable") if self._device == "cuda" else ("pageable",):
            for direction in DIRECTIONS:
                for size in grid(*SIZES, level + 1):
                    yield self._task(direction, memory, size)

    def _task(self, direction: str, memory: str, size: int) -> Task:
        def measure(may_take_s: float) -> Timing:
            host, device = self._pool(memory)
            return repeated(lambda turn: once(lambda: self._copy(direction, host, device, size, turn), self._device), may_take_s)

        return Task("copy", {"direction": direction, "memory": memory, "bytes": size}, size, "copy", measure)

    def _pool(self, memory: str) -> tuple[Tensor, Tensor]:
        """Host and device bytes, in two halves for the two directions, several times what a cache holds."""
        if memory not in self._pools:
            size = 2 * max(2 * SIZES[1], 2 * machine.cache_bytes("cpu"))
            host = host_buffer(size, pinned=memory == "pinned").fill_(1)
            self._pools[memory] = host, torch.ones(len(host), dtype=torch.uint8, device=self._device)
        return self._pools[memory]

    def _copy(self, direction: str, host: Tensor, device: Tensor, size: int, turn: int) -> None:
        half = len(host) // 2
        start = turn % (half // size) * size
        up, down = slice(start, start + size), slice(half + start, half + start + size)
        three, ends = self._streams, []
        begin = three.compute.run(lambda: None)
        if direction != "to_host":
            ends.append(_after(begin, three.load, lambda: device[up].copy_(host[up], non_blocking=True)))
        if direction != "to_device":
            ends.append(_after(begin, three.save, lambda: host[down].copy_(device[down], non_blocking=True)))
        for end in ends:
            three.compute.wait(end)


def _after(begin, stream, work: Callable[[], object]):
    stream.wait(begin)
    return stream.run(work)
