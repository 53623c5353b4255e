"""What would bring a cell that misses near the published number: each assumption tried by simulation, one at a time.

A trial changes one assumption for all runs of a case at a point. What it does to the other cells of that point is told beside: an
assumption that mends one cell and breaks another is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from kvplan.validate.published.cases import Assumption, Case, Settings
from kvplan.validate.published.measures import Cell, valued, wanted
from kvplan.validate.published.runs import Figures


@dataclass(frozen=True)
class Trial:
    """A cell under one assumption, at one value of it."""

    assumption: str
    value: str
    cell: Cell
    beside: tuple[Cell, ...]
    """The other cells of the point that have a published number, under the same."""

    @property
    def others(self) -> str:
        """How many of them hold."""
        return f"{sum(cell.holds for cell in self.beside)} of {len(self.beside)}"

    @property
    def off(self) -> float:
        """Size of the error; infinite where there is none."""
        return float("inf") if self.cell.error is None else abs(self.cell.error)


@dataclass(frozen=True)
class Miss:
    """A cell that does not hold, and the best of each assumption, nearest first."""

    cell: Cell
    others: str
    """How many of the other cells hold as it is."""
    trials: tuple[Trial, ...]

    @property
    def reconciled(self) -> Trial | None:
        """By the nearest one, where it holds then."""
        return self.trials[0] if self.trials and self.trials[0].cell.holds else None


def tried(case: Case, assumptions: dict[str, Assumption]) -> Iterator[tuple[str, str, Settings]]:
    """(assumption, value, its settings) of all that a case tries."""
    for name in case.reconcile:
        for value, settings in assumptions[name].tried.items():
            yield name, value, settings


def wanted_trials(case: Case, assumptions: dict[str, Assumption]) -> list[Settings]:
    """The runs of all trials."""
    return [run for _, _, more in tried(case, assumptions) for run in wanted(case, case.tried_at, more)]


def misses(figure: str, case: Case, assumptions: dict[str, Assumption], figures: Figures) -> list[Miss]:
    """Of the points that are tried."""
    found = []
    for point in case.tried_at:
        as_is = _cells(figure, case, point, {}, figures)
        trials = [(name, value, _cells(figure, case, point, more, figures)) for name, value, more in tried(case, assumptions)]
        for place, cell in enumerate(as_is):
            if cell.error is not None and not cell.holds:
                each = [Trial(name, value, cells[place], _but(cells, place)) for name, value, cells in trials]
                each += _defined_otherwise(figure, case, cell, figures)
                found.append(Miss(cell, Trial("", "", cell, _but(as_is, place)).others, _best(each)))
    return found


def _cells(figure: str, case: Case, point: str, more: Settings, figures: Figures) -> list[Cell]:
    """With a published number, under more settings."""
    return [Cell(figure, quantity, point, valued(case, quantity, point, figures, more)) for quantity, at in case.published if at == point]


def _but(cells: list[Cell], place: int) -> tuple[Cell, ...]:
    return (*cells[:place], *cells[place + 1 :])


def _defined_otherwise(figure: str, case: Case, cell: Cell, figures: Figures) -> Iterator[Trial]:
    """The same runs, but what is counted is another thing."""
    for what, take in cell.quantity.also.items():
        ours = valued(case, cell.quantity, cell.point, figures, take=[take])
        yield Trial("definition", what, Cell(figure, cell.quantity, cell.point, ours), ())


def _best(trials: list[Trial]) -> tuple[Trial, ...]:
    """The nearest of each assumption, nearest first."""
    best: dict[str, Trial] = {}
    for trial in sorted(trials, key=lambda each: each.off):
        best.setdefault(trial.assumption, trial)
    return tuple(best.values())
