"""The page of a group of cases: errors by kind, every published number beside ours, each figure, and what would reconcile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kvplan.sim.report.page.content import Page, Section, Table
from kvplan.sim.report.page.place import BLANK, NONE, Cell
from kvplan.validate.published import drawn, measures
from kvplan.validate.published.cases import Case
from kvplan.validate.published.implied import Claim
from kvplan.validate.published.reconcile import Miss, Trial


@dataclass(frozen=True)
class Group:
    """What a page is of."""

    title: str
    settings: str
    """What was fixed before a run was looked at."""
    command: str


@dataclass(frozen=True)
class Results:
    """What came of it."""

    cases: dict[str, Case]
    cells: list[measures.Cell]
    misses: Sequence[Miss] = ()
    claims: Sequence[Claim] = ()
    failures: Sequence[str] = ()
    tried: Sequence[str] = ()
    """What each assumption is."""

    @property
    def judged(self) -> list[measures.Cell]:
        """Those with a published number."""
        return [cell for cell in self.cells if cell.published is not None]


def page(group: Group, results: Results) -> Page:
    """For HTML and Markdown."""
    return Page(
        title=group.title,
        question=group.settings,
        finding=finding(results),
        warnings=list(results.failures),
        sections=[
            Section("Errors by kind", table=Table(ERRORS, error_rows(results))),
            Section(
                "What would bring a miss near, one assumption at a time",
                _TRIED if results.misses else (),
                Table(MISSES, miss_rows(results, lambda miss: miss.helpful[:2]), sorts=False),
            ),
            Section("What the published numbers say of each other", table=Table(CLAIMS, claim_rows(results))),
            *(_figure(results, name, case) for name, case in results.cases.items()),
            Section(
                "All assumptions, each at its nearest value",
                results.tried,
                Table(MISSES, miss_rows(results, lambda miss: miss.trials), sorts=False),
                folded=True,
            ),
            Section("Every published number", table=Table(NUMBERS, number_rows(results))),
            Section("Made by", text=group.command),
        ],
    )


def finding(results: Results) -> list[str]:
    """How many hold."""
    judged = results.judged
    hold = sum(cell.holds for cell in judged)
    lines = [f"{hold} of {len(judged)} published numbers hold: within 5 points where they are percentages, within 10% elsewhere."]
    mended = [miss for miss in results.misses if miss.reconciled]
    if chance := sum(cell.is_chance for cell in judged):
        lines.append(f"{chance} of the {len(judged) - hold} others lie where single runs do, whose clients come in another random order.")
    if results.misses:
        clean = sum(miss.clean for miss in mended)
        lines.append(
            f"Of {len(results.misses)} misses one assumption alone mends {len(mended)}, and {clean} of these without breaking another."
        )
    return lines


_TRIED = [
    "The mildest value that mends it, else the nearest, each of one assumption alone, and what held before and holds no more: of the other"
    " numbers of that figure and point, and, in the paper, of one prompt of LLaMA-65B. A definition is the same run counted otherwise."
]
ERRORS = ("kind", "numbers", "hold", "mean", "median", "worst", "which is the worst")
NUMBERS = ("figure", "quantity", "at", "published", "kvplan", "error", "")
MISSES = ("quantity", "at", "published", "kvplan", "assumption", "then", "and breaks")
CLAIMS = ("of", "follows from", "published", "computed", "so")


def error_rows(results: Results) -> list[list[Cell]]:
    """One for each kind."""
    return [
        [
            Cell(errors.kind),
            *(Cell(str(count), count) for count in (errors.count, errors.hold)),
            *(Cell(f"{size:.1f}", size) for size in (errors.mean, errors.median, errors.worst)),
            Cell(f"{errors.worst_cell.quantity.name}, {place(results, errors.worst_cell)}"),
        ]
        for errors in measures.by_kind(results.cells)
    ]


def number_rows(results: Results, figure: str | None = None) -> list[list[Cell]]:
    """One for each published number, of one figure or of all."""
    return [
        [
            *map(Cell, (short(cell.figure), cell.quantity.name, cell.point)),
            Cell(drawn.published(cell), measures.ends(cell.published or 0.0)[0]),
            Cell(drawn.number(cell.ours, cell.quantity.unit), cell.ours),
            Cell(error(cell), cell.error),
            Cell(verdict(cell)),
        ]
        for cell in results.judged
        if figure in (None, cell.figure)
    ]


def verdict(cell: measures.Cell) -> str:
    """In a word or two; nothing where it holds."""
    if cell.holds or not cell.is_chance:
        return "" if cell.holds else "miss"
    low, high = (drawn.number(end(cell.values), cell.quantity.unit) for end in (min, max))
    return f"miss; {low} to {high} by seed"


def place(results: Results, cell: measures.Cell) -> str:
    """Its point, with what it is of where that is a bare number."""
    return f"{cell.point} {results.cases[cell.figure].axis}" if cell.point[0].isdigit() and cell.point[-1].isdigit() else cell.point


def short(figure: str) -> str:
    """A case's name without the number that orders it."""
    return figure.lstrip("0123456789-")


def error(cell: measures.Cell) -> str:
    """`+1.2 points`, `-15%`."""
    if cell.error is None:
        return NONE
    return f"{cell.error:+.1f} points" if cell.quantity.in_points else f"{cell.error:+.1%}"


def _figure(results: Results, name: str, case: Case) -> Section:
    cells = [cell for cell in results.cells if cell.figure == name]
    return Section(case.title, [*filter(None, [case.about]), f"Source: {case.source}."], _values(case, cells), drawn.figures(case, cells))


def _values(case: Case, cells: Sequence[measures.Cell]) -> Table:
    """Ours, published numbers in brackets: of quantities and points whichever are more go down, so that a page is wide enough."""
    names = list(dict.fromkeys(cell.quantity.name for cell in cells))
    shown = {(cell.quantity.name, cell.point): _beside(cell) for cell in cells}
    told = "published" if any(cell.published is not None for cell in cells) else "no published number"
    if len(case.points) > len(names):
        heads, rows = names, [[Cell(point), *(shown[name, point] for name in names)] for point in case.points]
    else:
        heads, rows = list(case.points), [[Cell(name), *(shown[name, point] for point in case.points)] for name in names]
    return Table([f"{case.axis} ({told})", *heads], rows, sorts=False)


def _beside(cell: measures.Cell) -> Cell:
    told = "" if cell.published is None else f" ({drawn.published(cell)})"
    return Cell(drawn.number(cell.ours, cell.quantity.unit) + told, cell.ours)


def miss_rows(results: Results, of: Callable[[Miss], Sequence[Trial]]) -> list[list[Cell]]:
    """Of each miss those of its trials that `of` names."""
    return [row for miss in results.misses for row in _miss(miss, of(miss))]


def _miss(miss: Miss, trials: Sequence[Trial]) -> list[list[Cell]]:
    """A row for each of its assumptions; the first names it."""
    unit = miss.cell.quantity.unit
    first = [miss.cell.quantity.name, miss.cell.point, drawn.published(miss.cell), drawn.number(miss.cell.ours, unit)]
    rows: list[list[Cell]] = []
    for trial in trials:
        mark = "" if trial.cell.holds else " (a miss)"
        told = f"{trial.assumption}: {trial.value}", drawn.number(trial.cell.ours, unit) + mark, _breaks(trial)
        rows.append([Cell(text) for text in (*(first if not rows else [""] * len(first)), *told)])
    return rows or [[*map(Cell, first), Cell("none of those tried"), Cell(NONE), BLANK]]


def _breaks(trial: Trial) -> str:
    return ", ".join(f"{cell.quantity.name} {drawn.number(cell.ours, cell.quantity.unit)}" for cell in trial.breaks)


def claim_rows(results: Results) -> list[list[Cell]]:
    """As they are."""
    return [[Cell(text) for text in (claim.of, claim.follows, claim.published, claim.computed, claim.verdict)] for claim in results.claims]
