"""How fast a shared processor is at the moment.

A virtual machine's core changes its speed by a third from one second to the next, as neighbours use what it shares with them, and no
counter shows it. What shows it is work that is always the same: the probe, a product of a few rows with weights that come from memory,
as layers make them. On the machine of `validate/cases/cascade-lake-2c` prefills and decode steps of all sizes follow it: where the probe
takes a tenth longer, they take 9 % (one decode) to 12 % (200 tokens) longer. A product that fits into the cache would show twice
the change that decode steps, which wait for memory, have.
"""

import time
from collections import deque
from itertools import cycle

import torch

from kvplan.validate.calibration.kernels.linear import Linear

_ROWS, _INPUTS, _OUTPUTS = 24, 512, 2816
_WEIGHTS = 16
"""Used in turn: 92 MB, more than caches hold."""
_RECENT = 4
"""Probes whose mean is the speed at the moment."""
_USUAL = 400
"""Probes whose median is the usual speed."""


class Speed:
    """Of the thread that uses it, with PyTorch on one thread. `usual_s` is what a probe takes at the speed that times are given for;
    None takes what it usually takes now."""

    def __init__(self, usual_s: float | None = None) -> None:
        self._rows = torch.rand(_ROWS, _INPUTS)
        self._weights = cycle([Linear(torch.rand(_INPUTS, _OUTPUTS)) for _ in range(_WEIGHTS)])
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self.usual_s = usual_s or float(torch.tensor([self._probed_s() for _ in range(_USUAL)]).median())
        self.look()

    @property
    def slowness(self) -> float:
        """How many times as long as usual work takes, by the latest probes."""
        return sum(self._recent) / len(self._recent) / self.usual_s

    def probe(self) -> None:
        """Makes one probe."""
        self._recent.append(self._probed_s())

    def look(self) -> None:
        """Makes so many probes that what was before them does not count."""
        for _ in range(_RECENT):
            self.probe()

    def _probed_s(self) -> float:
        weights = next(self._weights)
        started = time.thread_time()
        weights(self._rows)
        return time.thread_time() - started
