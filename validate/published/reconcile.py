"""What would bring a cell that misses near the published number: each assumption tried by simulation, one at a time.

A trial changes one assumption for all runs of a case at a point. What it breaks of the other cells of that point, and of the case that the
assumption is held against, is told beside: an assumption that mends one cell and breaks another is none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from kvplan.validate.published.cases import Assumption, Case, Settings
from kvplan.validate.published.measures import Cell, valued, wanted
from kvplan.validate.published.runs import Figures

Known = Mapping[str, Case]
"""Cases by name; those that assumptions are held against are among them."""


@dataclass(frozen=True)
class Trial:
    """A cell under one assumption, at one value of it."""

    assumption: str
    value: str
    cell: Cell
    breaks: tuple[Cell, ...]
    """Cells that hold as they are, and no longer under the assumption."""

    @property
    def off(self) -> float:
        """Size of the error; infinite where there is none."""
        return float("inf") if self.cell.error is None else abs(self.cell.error)


@dataclass(frozen=True)
class Miss:
    """A cell that does not hold, and the best value of each assumption, the best first."""

    cell: Cell
    trials: tuple[Trial, ...]

    @property
    def helpful(self) -> list[Trial]:
        """Trials that bring the cell nearer by a twentieth and more."""
        off = abs(self.cell.error or 0.0)
        return [trial for trial in self.trials if trial.off < 0.95 * off]

    @property
    def reconciled(self) -> Trial | None:
        """By the first one, where it holds then."""
        return self.trials[0] if self.trials and self.trials[0].cell.holds else None

    @property
    def clean(self) -> bool:
        """Whether that breaks nothing."""
        return self.reconciled is not None and not self.reconciled.breaks


def wanted_trials(case: Case, assumptions: Mapping[str, Assumption], known: Known) -> list[Settings]:
    """The runs of all trials, and of what they are held against."""
    runs = []
    for _, held, more in _tried(case, assumptions):
        runs += wanted(case, case.tried_at, more)
        runs += [run for also in ({}, more) if held for run in wanted(known[held], (), also)]
    return runs


def misses(figure: str, case: Case, assumptions: Mapping[str, Assumption], known: Known, figures: Figures) -> list[Miss]:
    """Of the points that are tried."""
    found = []
    for point in case.tried_at:
        here = partial(_cells, figure, case, point, figures)
        trials = [(name, here({}, held, known), here(more, held, known)) for name, held, more in _tried(case, assumptions)]
        for place, cell in enumerate(_of_point(figure, case, point, {}, figures)):
            if cell.error is not None and not cell.holds:
                each = [Trial(*name, after[place], _broken(before, after, place)) for name, before, after in trials]
                found.append(Miss(cell, _best([*each, *_defined_otherwise(case, cell, figures)])))
    return found


def _tried(case: Case, assumptions: Mapping[str, Assumption]) -> Iterator[tuple[tuple[str, str], str | None, Settings]]:
    """((assumption, value), what it is held against, its settings)."""
    for name in case.reconcile:
        for value, settings in assumptions[name].tried.items():
            yield (name, value), assumptions[name].held_against, settings


def _cells(figure: str, case: Case, point: str, figures: Figures, more: Settings, held: str | None, known: Known) -> list[Cell]:
    """Of a point under more settings, then of what the assumption is held against."""
    cells = _of_point(figure, case, point, more, figures)
    return cells + [
        cell for at in (known[held].points if held else ()) for cell in _of_point(str(held), known[str(held)], at, more, figures)
    ]


def _of_point(figure: str, case: Case, point: str, more: Settings, figures: Figures) -> list[Cell]:
    """With a published number, under more settings."""
    return [Cell(figure, quantity, point, valued(case, quantity, point, figures, more)) for quantity, at in case.published if at == point]


def _broken(before: Sequence[Cell], after: Sequence[Cell], but: int) -> tuple[Cell, ...]:
    return tuple(now for place, (was, now) in enumerate(zip(before, after, strict=True)) if place != but and was.holds and not now.holds)


def _defined_otherwise(case: Case, cell: Cell, figures: Figures) -> Iterator[Trial]:
    """The same runs, but what is counted is another thing."""
    for what, take in cell.quantity.also.items():
        ours = valued(case, cell.quantity, cell.point, figures, take=[take])
        yield Trial("definition", what, Cell(cell.figure, cell.quantity, cell.point, ours), ())


def _best(trials: list[Trial]) -> tuple[Trial, ...]:
    """Of each assumption the first value under which the cell holds, else the nearest; what breaks least comes first, then the nearest."""
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial.assumption, []).append(trial)
    best = [next((each for each in found if each.cell.holds), min(found, key=lambda each: each.off)) for found in by_name.values()]
    return tuple(sorted(best, key=lambda each: (not each.cell.holds, len(each.breaks) if each.cell.holds else 0, each.off)))
