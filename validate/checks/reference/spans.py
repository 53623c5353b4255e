"""What takes time, and how much of it lies before a moment: all sums of a run are added up from such lists, at its end."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(eq=False)
class Span:
    """A step or a transfer, at an even pace from its start to its end, but while what it waits for goes on."""

    start_s: float
    end_s: float
    amount: float
    """Of whatever is counted: bytes, seconds, tokens."""
    gives_way_to: "Sequence[Span]" = ()
    """Those that go first wherever they meet it."""

    def share(self, now: float) -> float:
        """How much of it is done."""
        if now >= self.end_s:
            return 1.0
        runs = self._runs()
        return sum(max(0.0, min(end, now) - start) for start, end in runs) / sum(end - start for start, end in runs)

    def _runs(self) -> list[tuple[float, float]]:
        """From when to when it goes on: its time, less that of the others."""
        others = sorted((max(one.start_s, self.start_s), min(one.end_s, self.end_s)) for one in self.gives_way_to)
        edges = [(self.start_s, self.start_s), *((start, end) for start, end in others if start < end), (self.end_s, self.end_s)]
        return [(end, start) for (_, end), (start, _) in pairwise(edges)]


def done(spans: Iterable[Span], now: float) -> float:
    """The amount of all of them that is done by then."""
    return sum(span.amount * span.share(now) for span in spans)
