"""Columns of a run as its summary looks at them: each is made when it is asked for, so that a long run does not hold all of them twice."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np


class Measured(Mapping[str, np.ndarray]):
    """Those of the turns that count: without the warm-up."""

    def __init__(self, columns: Mapping[str, np.ndarray], measured: np.ndarray) -> None:
        self._columns = columns
        self._measured: np.ndarray | slice = slice(None) if measured.all() else measured

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name][self._measured]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


class Latencies(Mapping[str, np.ndarray]):
    """Seconds per turn by the name of the latency; time per output token of the turns that have several."""

    _PARTS: ClassVar = {
        "ttft_s": ("arrival_s", "first_token_s"),
        "prefill_s": ("admitted_s", "first_token_s"),
        "queue_s": ("arrival_s", "admitted_s"),
        "tpot_s": ("arrival_s", "done_s"),
        "e2e_s": ("arrival_s", "done_s"),
        "client_wait_s": ("ready_s", "arrival_s"),
    }
    """Begin and end."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> np.ndarray:
        if name == "tpot_s":
            output_tokens = self._columns["output_tokens"]
            several = output_tokens > 1
            return (self["e2e_s"][several] - self["ttft_s"][several]) / (output_tokens[several] - 1)
        begin, end = self._PARTS[name]
        return self._columns[end] - self._columns[begin]

    def __iter__(self) -> Iterator[str]:
        return (name for name, parts in self._PARTS.items() if parts[0] in self._columns)

    def __len__(self) -> int:
        return sum(1 for _ in self)
