"""A small writer of SVG: elements, scales with round ticks, and the marks that charts are made of.

Colours are classes (`c0` to `c7`), which the page gives for light and dark. They are never the only sign: lines differ by dashes and
markers as well, areas by patterns, so that a page in grey says the same.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from kvplan.foreign.text import visible

STYLES = 8
"""Looks of lines and areas; the first is for what others are held against."""
_DASHES = ("7 3", "", "2 3", "9 3 2 3", "5 2", "1 3", "12 4", "6 2 1 2 1 2")
_NO_END = 1 << 30
_SIZE = 4.0
"""Half of a marker, in units of the drawing."""


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element; attributes that are None are left out, `class_` is `class`, `stroke_width` `stroke-width`."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{_said(value)}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{told}>{''.join(inside)}</{name}>" if inside else f"<{name}{told}/>"


def escaped(text: str, longest: int = 60) -> str:
    """Text of an element: one line, cut in the middle where it is too long."""
    import markupsafe

    return str(markupsafe.escape(visible(text, longest)))


def title(text: str) -> str:
    """What a mouse that rests on an element is told."""
    return tag("title", escaped(text, 200))


def _said(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escaped(str(value), _NO_END)


def place(value: float) -> str:
    """A coordinate."""
    return f"{value:.1f}".removesuffix(".0")


def label(text: str, x: float, y: float, anchor: str = "start", class_: str | None = None) -> str:
    """Text at a point."""
    return tag("text", escaped(text), x=place(x), y=place(y), text_anchor=None if anchor == "start" else anchor, class_=class_)


def line(x: float, y: float, to_x: float, to_y: float, class_: str, dashes: str | None = None) -> str:
    """A straight line."""
    return tag("line", x1=place(x), y1=place(y), x2=place(to_x), y2=place(to_y), class_=class_, stroke_dasharray=dashes or None)


def polyline(points: list[tuple[float, float]], style: int, solid: bool = False) -> str:
    """A line through points, in a style's colour and dashes; `solid`, where points are so many that dashes would not be seen."""
    joined = " ".join(f"{place(x)},{place(y)}" for x, y in points)
    return tag(
        "polyline", points=joined, class_=f"line s{style % STYLES}", stroke_dasharray=None if solid else _DASHES[style % STYLES] or None
    )


def marker(x: float, y: float, style: int, hollow: bool = False, said: str = "", **data: object) -> str:
    """A style's sign at a point; `said` is shown by a mouse that rests there."""
    shape = _SHAPES[style % len(_SHAPES)]
    points = " ".join(f"{place(x + _SIZE * dx)},{place(y + _SIZE * dy)}" for dx, dy in shape)
    look = f"mark {'hollow s' if hollow else 'c'}{style % STYLES}"
    return tag("polygon", title(said), points=points, class_=look, **data)


def area(x: float, y: float, width: float, height: float, style: int, said: str = "", **data: object) -> str:
    """A rectangle in a style's colour, with its pattern above."""
    box = {"x": place(x), "y": place(y), "width": place(max(width, 0)), "height": place(height)}
    parts = title(said) + tag("rect", **box, class_=f"c{style % STYLES}")
    return tag("g", parts, tag("rect", **box, fill=f"url(#p{style % STYLES})"), class_="area", **data)


def drawing(width: float, height: float, said: str, *inside: str) -> str:
    """The whole picture; `said` for those who cannot see it."""
    return tag("svg", *inside, viewBox=f"0 0 {place(width)} {place(height)}", role="img", aria_label=said)


def _circle(corners: int) -> tuple[tuple[float, float], ...]:
    turns = [2 * math.pi * (each + 0.5) / corners for each in range(corners)]
    return tuple((math.cos(turn), math.sin(turn)) for turn in turns)


_PLUS = ((-0.35, -1.1), (0.35, -1.1), (0.35, -0.35), (1.1, -0.35), (1.1, 0.35), (0.35, 0.35), (0.35, 1.1), (-0.35, 1.1), (-0.35, 0.35),
         (-1.1, 0.35), (-1.1, -0.35), (-0.35, -0.35))  # fmt: skip
_SHAPES = (
    _circle(16),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0, -1.15), (1.1, 0.85), (-1.1, 0.85)),
    ((0, -1.25), (1.25, 0), (0, 1.25), (-1.25, 0)),
    ((0, 1.15), (1.1, -0.85), (-1.1, -0.85)),
    _PLUS,
    _circle(6),
    tuple((0.7 * (x - y), 0.7 * (x + y)) for x, y in _PLUS),
)


@dataclass(frozen=True)
class Scale:
    """Values along an axis to places in the drawing; outside of its ends nothing is drawn."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(each) if self.log else each for each in (self.low, self.high, self._within(value)))
        return self.start + (self.end - self.start) * (value - low) / (high - low)

    def _within(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def ticks(self, most: int = 5) -> list[float]:
        """Round values."""
        return _decades(self.low, self.high, most) if self.log else _steps(self.low, self.high, most)


def fitted(values: list[float], start: float, end: float, log: bool = False, low: float | None = None, high: float | None = None) -> Scale:
    """A scale that holds all values, with some room; from 0 on unless it is logarithmic. `low` and `high` are kept."""
    values = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
    if log:
        least, most = min(values) / 1.25, max(values) * 1.25
    else:
        least, most = min(0.0, min(values)), max(values) * 1.06
    least, most = least if low is None else low, most if high is None else high
    return Scale(least, most if most > least else least + 1, start, end, log)


def _steps(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / most
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [each * step for each in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [10.0**power * factor for power in powers for factor in factors if low <= 10.0**power * factor <= high]
        if len(found) <= most + 2:
            return found if len(found) > 1 else _steps(low, high, most)
    return found[:: math.ceil(len(found) / most)]


Show = Callable[[float], str]
"""A number as text."""
