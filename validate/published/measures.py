"""Cells: a quantity at a point, published and ours, and how far they are apart. Errors are summed up by kind."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from kvplan.sim.sweep.pool import Failed
from kvplan.validate.published.cases import Case, Number, Quantity, Settings
from kvplan.validate.published.runs import Figures, Found, key

HOLDS_POINTS, HOLDS_SHARE = 5.0, 0.10
"""A cell holds within 5 points, where it is a percentage, and within 10 % elsewhere."""


@dataclass(frozen=True)
class Cell:
    """One number beside the published one."""

    figure: str
    quantity: Quantity
    point: str
    values: tuple[float, ...]
    """Ours, by seed; none where a run failed."""

    @property
    def ours(self) -> float | None:
        """Their mean."""
        return fmean(self.values) if self.values else None

    @property
    def published(self) -> Number | None:
        """None where nothing was."""
        return self.quantity.published.get(self.point)

    @property
    def error(self) -> float | None:
        """Ours less theirs, in points for a percentage, else as a share of theirs; from the nearer end of a range, 0 within it."""
        if self.ours is None or self.published is None:
            return None
        low, high = ends(self.published)
        nearest = min(max(self.ours, low), high)
        off = self.ours - nearest
        return off if self.quantity.in_points else off / abs(nearest)

    @property
    def holds(self) -> bool:
        """Whether it is near enough."""
        return self.error is not None and abs(self.error) <= (HOLDS_POINTS if self.quantity.in_points else HOLDS_SHARE)

    @property
    def is_chance(self) -> bool:
        """Whether it does not hold, but lies where single runs do that differ by their seed alone."""
        if self.holds or len(self.values) < 2 or self.published is None:
            return False
        low, high = ends(self.published)
        return min(self.values) <= high and low <= max(self.values)

    @property
    def kind(self) -> str:
        """Its class, with the unit of its errors; what was fitted to it says nothing of the rest."""
        fitted = " (fitted to these)" if self.point in self.quantity.fitted else ""
        return f"{self.quantity.kind}{fitted}, {'points' if self.quantity.in_points else '%'}"


def ends(published: Number) -> tuple[float, float]:
    """Of a range; a number is both."""
    low, high = published if isinstance(published, list) else (published, published)
    return low, high


def cells(figure: str, case: Case, figures: Figures) -> list[Cell]:
    """All of a case, by quantity, then by point."""
    return [Cell(figure, quantity, point, valued(case, quantity, point, figures)) for quantity in case.quantities for point in case.points]


def valued(
    case: Case, quantity: Quantity, point: str, figures: Figures, more: Settings | None = None, take: Sequence[str] | None = None
) -> tuple[float, ...]:
    """A quantity at a point, under more settings, by seed; none where a run failed. `take`: other keys than its own."""
    runs = (case.setup(point, run, more) for run in (quantity.run, quantity.against or quantity.run))
    values = [
        _shown(quantity, *(_taken(figures[key(each)], take or quantity.take, quantity.per) for each in both))
        for both in zip(*runs, strict=True)
    ]
    found = tuple(value for value in values if value is not None)
    return found if len(found) == len(values) else ()


def _shown(quantity: Quantity, ours: float | None, other: float | None) -> float | None:
    return None if ours is None or other is None else quantity.scale * _SHOWN[quantity.shown](ours, other)


_SHOWN: dict[str, Callable[[float, float], float]] = {
    "value": lambda a, b: a,
    "percent": lambda a, b: 100 * a,
    "change": lambda a, b: 100 * (a / b - 1),
    "saved": lambda a, b: 100 * (1 - a / b),
    "points": lambda a, b: 100 * (a - b),
    "times": lambda a, b: a / b,
}


def _taken(found: Found | Failed, take: Sequence[str], per: str | None) -> float | None:
    if not isinstance(found, Mapping):
        return None
    return sum(_at(found, path) for path in take) / (_at(found, per) if per else 1.0)


def _at(found: Any, path: str) -> float:
    """`by_turn.1.ttft_s.mean`: keys, and places in lists."""
    for name in path.split("."):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return float(found)


@dataclass(frozen=True)
class Errors:
    """Of one kind of cells, in its unit."""

    kind: str
    count: int
    hold: int
    mean: float
    """Of their sizes, like the next two."""
    median: float
    worst: float
    worst_cell: Cell


def by_kind(found: Iterable[Cell]) -> list[Errors]:
    """Over the cells that have a published number, in the order in which kinds come."""
    kinds: dict[str, list[Cell]] = {}
    for cell in found:
        if cell.error is not None:
            kinds.setdefault(cell.kind, []).append(cell)
    return [_errors(kind, of_kind) for kind, of_kind in kinds.items()]


def _errors(kind: str, found: list[Cell]) -> Errors:
    scale = 1.0 if found[0].quantity.in_points else 100.0
    sizes = [scale * abs(cell.error or 0.0) for cell in found]
    worst = found[sizes.index(max(sizes))]
    return Errors(kind, len(found), sum(cell.holds for cell in found), fmean(sizes), median(sizes), max(sizes), worst)


def wanted(case: Case, points: Iterable[str] = (), more: Settings | None = None) -> list[Settings]:
    """The settings of all runs of a case, point by point, so that runs that share a workload follow each other."""
    return [settings for point in points or case.points for run in case.runs for settings in case.setup(point, run, more)]
