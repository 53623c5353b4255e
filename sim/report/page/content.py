"""What a report consists of, whatever command it is of."""

from collections.abc import Sequence
from dataclasses import dataclass

from kvplan.sim.report.page.place import BLANK, Cell


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first of each names it."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    marked: int | None = None
    """The row that is the finding."""
    sorts: bool = True
    """Whether a column is of one kind, so that it can be sorted by."""

    @property
    def texts(self) -> set[int]:
        """Columns of words: the first, and those in which no cell is a number."""
        return {0, *(place for place in range(len(self.heads)) if all(row[place].value is None for row in self.rows))}


@dataclass(frozen=True)
class Key:
    """An entry of a legend."""

    label: str
    style: int
    filled: bool
    """An area; else a line with a marker."""


@dataclass(frozen=True)
class Figure:
    """A picture, and the numbers in it."""

    title: str
    svg: str
    note: str = ""
    legend: Sequence[Key] = ()
    numbers: Table | None = None


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    title: str
    lines: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[Figure] = ()
    text: str = ""
    """As it is, lines and all: settings."""
    folded: bool = False

    @property
    def empty(self) -> bool:
        """Nothing to show."""
        return not (self.lines or self.figures or self.text or (self.table and self.table.rows))


@dataclass(frozen=True)
class Tile:
    """A number that is read first."""

    label: str
    cell: Cell
    note: Cell = BLANK
    """Below it: what it is of, or a number to hold it against."""


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    question: str
    """What was run or asked, in a line."""
    finding: Sequence[str]
    """What came out, in sentences."""
    tiles: Sequence[Tile] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()

    @property
    def shown(self) -> list[Section]:
        """Sections that have something."""
        return [section for section in self.sections if not section.empty]
