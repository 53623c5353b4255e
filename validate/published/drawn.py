"""Figures of a case: lines over a numeric axis, else two dots a point; published numbers are hollow."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from kvplan.sim.report.page import charts
from kvplan.sim.report.page.charts import Axis, Mark, Series
from kvplan.sim.report.page.content import Figure, Key
from kvplan.sim.report.page.place import NONE, Cell, in_words
from kvplan.sim.report.page.svg import STYLES
from kvplan.validate.published import measures
from kvplan.validate.published.cases import Case, Quantity

Of = Sequence[measures.Cell]


def figures(case: Case, cells: Of) -> list[Figure]:
    """One for each panel, and for each quantity that is in none."""
    drawn = []
    for panel, members in groupby(cells, key=lambda cell: cell.quantity.panel or cell.quantity.name):
        found = list(members)
        several = len({cell.quantity.name for cell in found}) > 1
        if _is_numeric(case):
            drawn.append(_lines(panel, Axis(case.axis, _bare), found, _by_quantity(found), lambda cell: float(cell.point)))
        elif several:
            drawn.append(_over_quantities(panel, found))
        else:
            drawn.append(_dots(panel, found))
    return drawn


def number(value: float | None, unit: str) -> str:
    """A number with its unit, or that there is none."""
    return NONE if value is None else in_words(value, unit)


def published(cell: measures.Cell) -> str:
    """The number, or the range."""
    if cell.published is None:
        return NONE
    low, high = measures.ends(cell.published)
    return number(low, cell.quantity.unit) if low == high else f"{low:g} to {number(high, cell.quantity.unit)}"


def _bare(value: float) -> str:
    return number(value, "")


def _is_numeric(case: Case) -> bool:
    return all(point.replace(".", "", 1).isdigit() for point in case.points)


def _by_quantity(cells: Of) -> dict[str, Of]:
    return {name: [cell for cell in cells if cell.quantity.name == name] for name in dict.fromkeys(cell.quantity.name for cell in cells)}


def _over_quantities(panel: str, cells: Of) -> Figure:
    """Quantities that follow each other, such as rounds; a line for each point."""
    places = {name: place for place, name in enumerate(_by_quantity(cells), start=1)}
    points = {point: [cell for cell in cells if cell.point == point] for point in dict.fromkeys(cell.point for cell in cells)}
    return _lines(panel, Axis("round", _bare, whole=True), cells, points, lambda cell: float(places[cell.quantity.name]))


def _lines(panel: str, axis: Axis, cells: Of, lines: Mapping[str, Of], place: Callable[[measures.Cell], float]) -> Figure:
    unit = cells[0].quantity.unit
    series = []
    for style, (name, members) in enumerate(lines.items(), start=1):
        style = 1 + (style - 1) % (STYLES - 1)
        ours = [Mark(_x(place(cell)), _y(cell), said=f"{name}: kvplan {number(cell.ours, unit)}") for cell in members]
        theirs = [mark for cell in members for mark in _theirs(cell, place(cell), name)]
        series += [Series(name, ours, style, solid=True), *([Series(name, theirs, style, line=False)] if theirs else [])]
    drawn = charts.plot(series, axis, Axis(unit, _bare), panel)
    keys = [Key(each.name, each.style, False) for each in series if each.line]
    return Figure(panel, drawn, _note(cells), keys if len(keys) > 1 else ())


def _x(value: float) -> Cell:
    return Cell(_bare(value), value)


def _y(cell: measures.Cell) -> Cell:
    return Cell(number(cell.ours, cell.quantity.unit), cell.ours)


def _theirs(cell: measures.Cell, place: float, name: str) -> list[Mark]:
    if cell.published is None:
        return []
    low, high = measures.ends(cell.published)
    ends = None if low == high else (low, high)
    said = f"{name}: published {published(cell)}"
    return [Mark(_x(place), Cell(published(cell), (low + high) / 2), ends, hollow=True, said=said)]


def _note(cells: Of) -> str:
    return "Hollow: published." if any(cell.published is not None for cell in cells) else ""


def _dots(panel: str, cells: Of) -> Figure:
    """A row for each point."""
    quantity: Quantity = cells[0].quantity
    ours = [_y(cell) for cell in cells]
    theirs = [Cell(published(cell), None if cell.published is None else sum(measures.ends(cell.published)) / 2) for cell in cells]
    axis = Axis(quantity.unit, _bare)
    known = any(cell.value is not None for cell in theirs)
    drawn = charts.dots([cell.point for cell in cells], [theirs, ours], [0, 1], axis, panel)
    return Figure(panel, drawn, "", [Key("published", 0, False), Key("kvplan", 1, False)] if known else ())
