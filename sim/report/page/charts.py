"""The kinds of figures: bars of parts, lines and points over two axes, and dots in rows. Plain data in, SVG out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvplan.sim.report.page.place import Cell
from kvplan.sim.report.page.svg import Scale, Show, area, drawing, fitted, label, line, marker, place, polyline, tag, title

WIDTH = 400.0
"""Of every drawing: about what a phone shows, so that text keeps its size there."""
_LETTER = 7.4
"""Width of a character, about, in bold."""


_CLOSEST = 0.04
"""Share of a value that an axis shows beside it at least: nearer, only chance would be seen."""


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

    title: str
    show: Show
    log: bool = False
    low: float | None = None
    high: float | None = None
    near: bool = False
    """Whether it begins near the least value, and not at 0."""
    whole: bool = False
    """Whether there is nothing between whole numbers."""

    def ticks(self, scale: Scale, most: int) -> list[float]:
        """Round values, about so many."""
        return [tick for tick in scale.ticks(most) if not self.whole or tick == round(tick)]

    def scale(self, values: Sequence[float], start: float, end: float) -> Scale:
        """That holds all values, and these ends where they are given."""
        if self.near and len(values):
            room = max(0.15 * (max(values) - min(values)), _CLOSEST * max(values))
            return fitted([*values], start, end, low=max(0.0, min(values) - room), high=max(values) + room)
        return fitted([*values], start, end, self.log, self.low, self.high)


@dataclass(frozen=True)
class Level:
    """A value to hold others against: a target, a capacity."""

    value: float
    name: str


# --- bars -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A piece of a bar."""

    name: str
    cell: Cell
    style: int


@dataclass(frozen=True)
class Row:
    """A bar: what it is, its parts, and what is written after it."""

    name: str
    parts: Sequence[Part]
    after: str
    ends: tuple[float, float] | None = None
    """Of an interval."""
    bound: Cell | None = None
    """What it cannot exceed, drawn as a stroke."""


_STEP, _BAR = 36.0, 14.0


def bars(rows: Sequence[Row], axis: Axis, said: str) -> str:
    """Bars of parts, one under another, each below its name."""
    sums = [sum(part.cell.value or 0 for part in row.parts) for row in rows]
    ends = [row.ends[1] for row in rows if row.ends]
    right = WIDTH - max([30.0, *(_LETTER * len(row.after) + 16 for row in rows if row.parts)])
    x = axis.scale([*sums, *ends], 2, right)
    height = _STEP * len(rows) + 34
    drawn = [_grid_x(x, axis, 4, height - 30)]
    drawn += [_bar(row, x, 6 + _STEP * number) for number, row in enumerate(rows)]
    return drawing(WIDTH, height, said, *drawn)


def _bar(row: Row, x: Scale, top: float) -> str:
    drawn, at = [label(row.name, 2, top + 10)], 0.0
    for part in row.parts:
        begin, at = at, at + (part.cell.value or 0)
        if part.cell.value:
            said = f"{row.name}: {part.name} {part.cell.text}"
            drawn.append(area(x(begin), top + 15, x(at) - x(begin), _BAR, part.style, said, **origin(part.cell)))
    if row.ends:
        drawn += [line(x(row.ends[0]), top + 22, x(row.ends[1]), top + 22, "whisker")]
        drawn += [line(x(end), top + 18, x(end), top + 26, "whisker") for end in row.ends]
    if row.bound is not None and row.bound.value is not None:
        drawn.append(tag("g", line(x(row.bound.number), top + 13, x(row.bound.number), top + 31, "bound"), **origin(row.bound)))
    right = max(x(at), x(row.ends[1]) if row.ends else 0)
    drawn.append(label(row.after, right + 5 if row.parts else 2, top + 26, class_="value" if row.parts else "soft"))
    return "".join(drawn)


# --- dots in rows -----------------------------------------------------------------------------------------------------------------


def dots(names: Sequence[str], series: Sequence[Sequence[Cell]], styles: Sequence[int], axis: Axis, said: str) -> str:
    """One row for each name, with a marker for each series, and its number beside it."""
    left, step = 12 + _LETTER * max(map(len, names)), 27.0
    values = [cell.value for cells in series for cell in cells if cell.value is not None]
    room = 6 + _LETTER * max(len(cell.text) for cells in series for cell in cells)
    x = axis.scale(values, left + room, WIDTH - room - 6)
    height = step * len(names) + 34
    drawn = [_grid_x(x, axis, 4, height - 30)]
    for number, name in enumerate(names):
        y = 16 + step * number
        row = sorted(((cells[number], style) for cells, style in zip(series, styles, strict=True)), key=lambda each: each[0].value or 0)
        known = [(cell, style) for cell, style in row if cell.value is not None]
        drawn.append(label(name, 2, y + 4))
        if known:
            drawn.append(line(x(known[0][0].number), y, x(known[-1][0].number), y, "span"))
        for each, (cell, style) in enumerate(known):
            before = each == 0 and len(known) > 1
            drawn.append(marker(x(cell.number), y, style, said=f"{name}: {cell.text}", **origin(cell)))
            if each in (0, len(known) - 1):
                drawn.append(label(cell.text, x(cell.number) + (-8 if before else 8), y + 4, "end" if before else "start", "value"))
    return drawing(WIDTH, height, said, *drawn)


# --- swings -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swing:
    """What an input does at its lower and its upper end: a value, and the change in words; None where it has no such end."""

    name: str
    low: tuple[Cell, str] | None
    high: tuple[Cell, str] | None


def swings(found: Sequence[Swing], base: Cell, axis: Axis, said: str) -> str:
    """A tornado: bars from the value as it is to those at the ends; a cross where there is none."""
    ends = [end[0].number for each in found for end in (each.low, each.high) if end and end[0].value is not None]
    room = 12 + _LETTER * max(len(end[1]) for each in found for end in (each.low, each.high) if end)
    least, most = min([*ends, base.number]), max([*ends, base.number])
    space = 0.04 * (most - least) or 0.05 * most
    x = fitted([], room, WIDTH - room, low=max(0.0, least - space), high=most + space)
    height = _STEP * len(found) + 34
    drawn = [_grid_x(x, axis, 4, height - 30)]
    drawn += [_swing(each, x, base, 6 + _STEP * number) for number, each in enumerate(found)]
    return drawing(WIDTH, height, said, *drawn, line(x(base.number), 4, x(base.number), height - 30, "level"))


def _swing(swing: Swing, x: Scale, base: Cell, top: float) -> str:
    ends = [(*end, style) for end, style in ((swing.low, 1), (swing.high, 2)) if end is not None]
    known = sorted((end for end in ends if end[0].value is not None), key=lambda end: end[0].number)
    drawn = [label(swing.name, 2, top + 10)]
    for cell, change, style in known:
        begin, end = sorted((x(cell.number), x(base.number)))
        drawn.append(area(begin, top + 15, end - begin, _BAR, style, f"{swing.name} {change}: {cell.text}", **origin(cell)))
        if change == known[0][1] and (len(known) > 1 or cell.number < base.number):
            drawn.append(label(change, begin - 5, top + 26, "end", "value"))
        else:
            drawn.append(label(change, end + 5, top + 26, class_="value"))
    for cell, change, style in ends:
        if cell.value is None:
            cross = _cross(x.end + 8 if style == 2 else x.start - 8, top + 22)
            drawn.append(tag("g", title(f"{swing.name} {change}: no plan"), cross, class_=f"lost s{style}"))
    return "".join(drawn)


# --- lines and points -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A point of a line."""

    x: Cell
    y: Cell
    ends: tuple[float, float] | None = None
    """Of an interval of y."""
    hollow: bool = False
    said: str = ""


@dataclass(frozen=True)
class Series:
    """Points of one kind, in order of x."""

    name: str
    marks: Sequence[Mark]
    style: int
    short: str = ""
    """Written at its last point."""
    line: bool = True
    signs: bool = True
    """Whether points have markers."""
    solid: bool = False
    """Without dashes, which a jagged line would hide."""


_TOP, _BOTTOM, _LEFT = 26.0, 34.0, 50.0


def plot(series: Sequence[Series], x: Axis, y: Axis, said: str, levels: Sequence[Level] = (), height: float = 236.0) -> str:
    """Lines or points over two axes; levels are dashed lines across. A mark without y is a cross at the upper edge."""
    marks = [mark for each in series for mark in each.marks]
    known = [mark for mark in marks if mark.y.value is not None]
    highs = [end for mark in known for end in mark.ends or ()]
    room = max([4.0, *(_LETTER * len(each.short) for each in series)])
    across = x.scale([mark.x.number for mark in marks], _LEFT, WIDTH - 10 - room)
    up = y.scale([*(mark.y.number for mark in known), *highs, *(each.value for each in levels)], height - _BOTTOM, _TOP)
    drawn = [_grid_x(across, x, _TOP, height - _BOTTOM), _grid_y(up, y, WIDTH - 8)]
    taken = [(across(mark.x.number), up(mark.y.number)) for mark in known]
    drawn += [_level(each, up, taken) for each in levels]
    drawn += [_drawn(each, across, up) for each in series]
    return drawing(WIDTH, height, said, *drawn, _shorts(series, across, up))


def _drawn(series: Series, x: Scale, y: Scale) -> str:
    known = [mark for mark in series.marks if mark.y.value is not None]
    parts = [polyline([(x(mark.x.number), y(mark.y.number)) for mark in known], series.style, series.solid)] * (
        series.line and len(known) > 1
    )
    for mark in series.marks:
        parts += [_mark(mark, series, x, y)] * (series.signs or mark.y.value is None)
    return "".join(parts)


def _mark(mark: Mark, series: Series, x: Scale, y: Scale) -> str:
    at = x(mark.x.number)
    if mark.y.value is None:
        return tag("g", title(mark.said), _cross(at, y.end + 4), class_=f"lost s{series.style}")
    whisker = line(at, y(mark.ends[0]), at, y(mark.ends[1]), f"whisker s{series.style}") if mark.ends else ""
    said = mark.said or f"{series.name}: {mark.x.text}, {mark.y.text}"
    return whisker + marker(at, y(mark.y.number), series.style, mark.hollow, said, **origin(mark.y))


def _cross(x: float, y: float) -> str:
    return line(x - 4, y - 4, x + 4, y + 4, "stroke") + line(x - 4, y + 4, x + 4, y - 4, "stroke")


def _shorts(series: Sequence[Series], x: Scale, y: Scale) -> str:
    """Short names at the last points, pushed apart where they would lie on one another."""
    wanted = []
    for each in series:
        known = [mark for mark in each.marks if mark.y.value is not None] or each.marks
        if each.short and known:
            last = known[-1]
            wanted.append((x(last.x.number) + 8, y.end + 4 if last.y.value is None else y(last.y.number), each))
    drawn: list[str] = []
    placed: list[tuple[float, float]] = []
    for at, height, each in sorted(wanted, key=lambda found: found[1]):
        free = height
        while any(abs(free - other) < 12 and abs(at - there) < 8 + _LETTER * len(each.short) for there, other in placed):
            free += 2
        placed.append((at, free))
        drawn.append(label(each.short, at, free + 4, class_=f"short t{each.style}"))
    return "".join(drawn)


def _level(level: Level, y: Scale, taken: Sequence[tuple[float, float]]) -> str:
    """A line across, with its name where the fewest points are."""
    at, width = y(level.value), _LETTER * len(level.name)
    spots = [(left, below) for below in (False, True) for left in (_LEFT + 4, WIDTH - 8 - width)]

    def crowd(spot: tuple[float, bool]) -> int:
        left, below = spot
        top = at if below else at - 18
        return sum(left - 6 < x < left + width + 6 and top - 4 < height < top + 22 for x, height in taken)

    left, below = min(spots, key=crowd)
    return line(_LEFT, at, WIDTH - 8, at, "level", "6 4") + label(level.name, left, at + (13 if below else -4), class_="target")


def _grid_x(x: Scale, axis: Axis, top: float, bottom: float) -> str:
    ticks = axis.ticks(x, 4)
    drawn = [line(x(tick), top, x(tick), bottom, "grid") for tick in ticks]
    drawn += [_tick(axis.show(tick), x(tick), bottom + 13) for tick in _apart(ticks, x, axis.show)]
    return "".join(drawn) + label(axis.title, WIDTH - 2, bottom + 27, "end", "axis")


def _tick(text: str, at: float, y: float) -> str:
    """Below its place, or beside it where it would stick out."""
    half = _LETTER * len(text) / 2
    return label(text, at, y, "start" if at < half else "end" if at + half > WIDTH else "middle", "tick")


def _apart(ticks: Sequence[float], x: Scale, show: Show) -> list[float]:
    """Those whose texts do not touch."""
    found: list[float] = []
    for tick in ticks:
        if not found or x(tick) - x(found[-1]) > 3 + _LETTER / 2 * (len(show(tick)) + len(show(found[-1]))):
            found.append(tick)
    return found


def _grid_y(y: Scale, axis: Axis, right: float) -> str:
    ticks = axis.ticks(y, 5)
    drawn = [line(_LEFT, y(tick), right, y(tick), "grid") for tick in ticks]
    drawn += [label(axis.show(tick), _LEFT - 5, y(tick) + 4, "end", "tick") for tick in ticks]
    return "".join(drawn) + label(axis.title, 2, 12, class_="axis")


def origin(cell: Cell) -> dict[str, Any]:
    """Attributes that say where a mark's number comes from."""
    return {"data_from": cell.source, "data_value": repr(cell.value)} if cell.source else {}


def swatch(style: int, filled: bool) -> str:
    """Of a legend."""
    inside = area(1, 1, 20, 10, style) if filled else polyline([(0, 6), (22, 6)], style) + marker(11, 6, style)
    return tag("svg", inside, viewBox="0 0 22 12", class_="swatch", aria_hidden="true", width=place(22), height=place(12))
