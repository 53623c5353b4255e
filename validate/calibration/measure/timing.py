"""Seconds of a piece of work: medians of repetitions after a warm-up, by CUDA events or the host's clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kvplan.validate.calibration.clock import Clock, WallClock

WALL = WallClock()
WARM_UP_S = 0.05
"""Least time of warming up: clocks rise, kernels are chosen, pages are touched."""
REPETITIONS = (3, 30)
"""At least and at most; between them until the time that a point may take is over."""


@dataclass(frozen=True)
class Timing:
    """Of one point. Seconds; the quartiles show the spread."""

    median_s: float
    q25_s: float
    q75_s: float
    repetitions: int


def once(work: Callable[[], object], device: str, clock: Clock = WALL) -> float:
    """Seconds of `work` on the current stream, from an idle device to its end there; on the CPU by `clock`."""
    if device == "cuda":
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3
    clock.tick()
    started = clock.now
    work()
    return clock.now - started


def repeated(one: Callable[[int], float], may_take_s: float) -> Timing:
    """Timing of `one(turn)`, which gives the seconds of one repetition; `turn` counts up, so that buffers can rotate."""
    turn, until = 0, time.perf_counter() + WARM_UP_S
    while turn == 0 or time.perf_counter() < until:
        one(turn)
        turn += 1
    least, most = REPETITIONS
    samples: list[float] = []
    until = time.perf_counter() + may_take_s
    while len(samples) < least or (len(samples) < most and time.perf_counter() < until):
        samples.append(one(turn))
        turn += 1
    q25, median, q75 = np.quantile(samples, [0.25, 0.5, 0.75])
    return Timing(float(median), float(q25), float(q75), len(samples))
