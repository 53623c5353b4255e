"""Numbers that know where they come from: a place in a JSON tree, and what is shown of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from kvplan.hwmodels.units import format_bytes, format_seconds

NONE = "–"
_LONG = 28
"""Characters of a cell that may take several lines."""


@dataclass(frozen=True)
class Cell:
    """What a table or a mark shows."""

    text: str
    value: float | None = None
    """The number behind it, by which tables sort."""
    source: str = ""
    """JSON pointers, with spaces between, of the number; of several, it is their sum."""

    @property
    def number(self) -> float:
        """The value of a cell that has one. Raises ValueError for another."""
        if self.value is None:
            raise ValueError(f"the cell {self.text!r} has no number")
        return self.value

    @property
    def long(self) -> bool:
        """Whether its text takes several lines."""
        return len(self.text) > _LONG


BLANK = Cell("")


@dataclass(frozen=True)
class Place:
    """A value in a JSON tree and its pointer, as in a URI (RFC 6901, section 6)."""

    value: Any
    pointer: str = ""

    def at(self, *keys: str | int) -> "Place":
        """Further down; where there is nothing the value is None."""
        found = self
        for key in keys:
            found = found._child(key)
        return found

    def each(self) -> list["Place"]:
        """The members of a list or an object; none of nothing."""
        keys = self.value or () if isinstance(self.value, dict) else range(len(self.value or ()))
        return [self._child(key) for key in keys]

    def cell(self, show: Callable[[Any], str]) -> Cell:
        """What is shown of it."""
        return Cell(NONE) if self.value is None else Cell(show(self.value), self.value, self.pointer)

    def _child(self, key: str | int) -> "Place":
        try:
            value = self.value[key]
        except (LookupError, TypeError):
            value = None
        return Place(value, f"{self.pointer}/{quote(str(key).replace('~', '~0').replace('/', '~1'), safe='~.')}")


def total(places: list[Place], show: Callable[[Any], str]) -> Cell:
    """Of several places together."""
    known = [place for place in places if place.value is not None]
    value = sum(place.value for place in known)
    return Cell(show(value), value, " ".join(place.pointer for place in known)) if known else Cell(NONE)


def usd(value: float) -> str:
    """`$212,576`, `$8.05`."""
    return f"${value:,.0f}" if abs(value) >= 1000 or not value else f"${value:,.2f}"


def fine_usd(value: float) -> str:
    """Dollars of something small, in three digits."""
    return f"${value:.3g}"


def percent(value: float) -> str:
    """Of a share."""
    return f"{100 * value:.1f}%"


def count(value: float) -> str:
    """A whole number."""
    return f"{value:,.0f}"


def plain(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def in_words(value: float, unit: str) -> str:
    """Three significant digits, or all of a large number, with its unit."""
    text = count(value) if abs(value) >= 1000 else plain(value)
    return f"{text}{unit}" if unit in ("%", "x") else f"{text} {unit}".rstrip()


seconds, size = format_seconds, format_bytes
