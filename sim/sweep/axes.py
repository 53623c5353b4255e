"""What varies between runs: axes of settings, and the variants that their product gives.

An axis is `path=v1,v2` or, for settings that go together, `a+b=x+y,z+w`. Several axes make a cartesian product. Values are YAML, as in
`--set`; commas and plus signs inside brackets, braces and quotes do not split.
"""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from kvplan.hwmodels import strictyaml, units
from kvplan.sim.config import ConfigError, plain

_OPEN, _CLOSE = "[{", "]}"
_PIECE = re.compile(
    r"""
    (?<![^\s\[{,:+]) (?: "(?:\\.|[^"\\])*" | '(?:[^']|'')*' )   # quoted text, which begins where a value can
    | (?<![^\s\[{,:+]) (?P<unpaired>["'])
    | (?<=[0-9.]) [eE]\+ (?=[0-9])                               # the exponent of a number
    | .
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class Axis:
    """Settings that vary together."""

    paths: tuple[str, ...]
    points: tuple[tuple[str, ...], ...]
    """Per point one value for each path, as text."""
    given: tuple[tuple[Any, ...], ...] | None = None
    """The values themselves, where they are more than the text says."""

    def __str__(self) -> str:
        return "+".join(self.paths) + "=" + ",".join("+".join(point) for point in self.points)

    @classmethod
    def parse(cls, text: str) -> "Axis":
        """The axis of `a=x,y` or `a+b=x+y,z+w`. Raises ConfigError that names it."""
        where = f"--vary {text}"
        left, equals, right = text.partition("=")
        paths = tuple(path.strip() for path in left.split("+"))
        if not equals or not all(paths):
            raise ConfigError(f"{where}: write it as path=value,value, for example store.eviction=lru,lookahead")
        points = []
        for value in _split(right, ",", where):
            point = tuple(_split(value, "+", where)) if len(paths) > 1 else (value,)
            if len(point) != len(paths):
                raise ConfigError(f"{where}: {value!r} has {len(point)} values for {len(paths)} paths, {' and '.join(paths)}")
            points.append(point)
        return cls(paths, tuple(points))

    @classmethod
    def of(cls, paths: str, values: Iterable[Any]) -> "Axis":
        """The axis of a path and its values, or of `a+b` and pairs of values, as Python has them. Raises ConfigError."""
        names = tuple(path.strip() for path in paths.split("+"))
        points = [tuple(value) if len(names) > 1 else (value,) for value in values]
        wrong = next((point for point in points if len(point) != len(names)), None)
        if wrong is not None or not points:
            what = "no values" if wrong is None else f"{wrong!r} has {len(wrong)} values for {len(names)} paths"
            raise ConfigError(f"--vary {paths}: {what}")
        given = tuple(tuple(map(plain, point)) for point in points)
        return cls(names, tuple(tuple(map(_text, point)) for point in given), given)

    def __post_init__(self) -> None:
        if not all(all(point) for point in self.points):
            raise ConfigError(f"--vary {self}: an empty value; write null for none")
        same = _first_twice(self.paths, self.paths)
        if same:
            raise ConfigError(f"--vary {self}: the path {same[0]} is given twice")
        meanings = [tuple(map(_meaning, point)) for point in self.points] if self.given is None else list(map(_same, self.given))
        same = _first_twice(meanings, ["+".join(point) for point in self.points])
        if same:
            raise ConfigError(f"--vary {self}: the value {same[0]} is given twice, again as {same[1]}")


@dataclass(frozen=True)
class Point:
    """One combination of the axes' values."""

    label: str
    """Short: only what differs from the other points."""
    settings: tuple[tuple[str, str], ...]
    """(path, value as text) of everything that varies."""
    given: tuple[tuple[str, Any], ...] = ()
    """(path, value) where the value is more than its text."""

    @property
    def texts(self) -> list[str]:
        """`path=value` of everything that varies."""
        return [f"{path}={value}" for path, value in self.settings]

    def overrides(self, but: Collection[str] = ()) -> list[str | tuple[str, Any]]:
        """As `kvplan.sim.config.load` takes them, but for some paths."""
        given = dict(self.given)
        return [(path, given[path]) if path in given else f"{path}={value}" for path, value in self.settings if path not in but]


def points(axes: Sequence[Axis]) -> list[Point]:
    """The cartesian product, the last axis fastest. Raises ConfigError when two axes share a path."""
    paths = [path for axis in axes for path in axis.paths]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise ConfigError(f"--vary: {twice[0]} is in two axes; write settings that go together as one axis, a+b=x+y,z+w")
    texts = _texts(axes)
    found = []
    for places in product(*(range(len(axis.points)) for axis in axes)):
        parts = [text[place] for axis, text, place in zip(axes, texts, places, strict=True) if len(axis.points) > 1]
        chosen = list(zip(axes, places, strict=True))
        settings = [pair for axis, place in chosen for pair in zip(axis.paths, axis.points[place], strict=True)]
        given = [pair for axis, place in chosen if axis.given for pair in zip(axis.paths, axis.given[place], strict=True)]
        found.append(Point(" · ".join(parts) or " · ".join(text[0] for text in texts), tuple(settings), tuple(given)))
    return found


def _texts(axes: Sequence[Axis]) -> list[list[str]]:
    """Per axis the text of each value in a label; with the setting's name where the value alone would not say what it is."""
    short = [_shortest(axis) for axis in axes]
    texts = []
    for axis, mine in zip(axes, short, strict=True):
        others = [theirs for theirs in short if theirs is not mine]
        taken = {value for theirs in others for point in theirs for value in point}
        unclear = any(not _is_word(value) or value in taken or _is_size(value) for point in mine for value in point)
        names = [f"{path.rpartition('.')[2]} " if unclear else "" for path in axis.paths]
        texts.append(["+".join(f"{name}{value}" for name, value in zip(names, point, strict=False)) for point in mine])
    return texts


def _shortest(axis: Axis) -> list[tuple[str, ...]]:
    """The points, cut to the first values that tell all of them apart; only names are left out."""
    for count in range(1, len(axis.paths)):
        cut = [point[:count] for point in axis.points]
        rest = [value for point in axis.points for value in point[count:]]
        if len(set(cut)) == len(cut) and all(_is_word(value) and not _is_size(value) for value in rest):
            return cut
    return list(axis.points)


def _first_twice(items: Sequence, texts: Sequence[str]) -> list[str]:
    """The texts of the first item that is there more than once; nothing when each is there once."""
    twice = next((item for item in items if items.count(item) > 1), None)
    return [text for item, text in zip(items, texts, strict=True) if item == twice]


def _meaning(value: str) -> str:
    """The same for values that say the same: `8GB` and `8.0GB`, `10` and `1e+1`, `lru` and `'lru'`."""
    try:
        return _same(strictyaml.loads(value))
    except strictyaml.YamlError:
        return value


def _same(value: object) -> str:
    return json.dumps(_normal(value), sort_keys=True)


def _normal(tree: object) -> object:
    """Plain data with whole numbers as integers and sizes in bytes."""
    if isinstance(tree, dict):
        return {key: _normal(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_normal(value) for value in tree]
    if isinstance(tree, str) and _is_size(tree):
        return [units.parse_bytes(tree), "bytes"]
    return int(tree) if isinstance(tree, float) and tree.is_integer() else tree


def _text(value: Any) -> str:
    """A value as it would be written after `--vary`."""
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _means(value) == value else "'" + value.replace("'", "''") + "'"


def _means(text: str) -> object:
    """What a text says as YAML; None where it is none."""
    try:
        return strictyaml.loads(text)
    except strictyaml.YamlError:
        return None


def _is_word(value: str) -> bool:
    """Whether it is a name or a size rather than a number, a truth value, null or a mapping."""
    try:
        return isinstance(strictyaml.loads(value), str)
    except strictyaml.YamlError:
        return True


def _is_size(value: str) -> bool:
    try:
        return units.parse_bytes(value) >= 0
    except ValueError:
        return False


def _split(text: str, separator: str, where: str) -> list[str]:
    """Parts between separators that are not inside brackets, braces or quotes. Raises ConfigError when these do not pair."""
    parts, start, depth, unpaired = [], 0, 0, False
    for piece in _PIECE.finditer(text):
        unpaired = unpaired or piece["unpaired"] is not None
        depth += (piece[0] in _OPEN) - (piece[0] in _CLOSE)
        if piece[0] == separator and depth == 0:
            parts.append(text[start : piece.start()].strip())
            start = piece.end()
    if unpaired or depth:
        raise ConfigError(f"{where}: brackets or quotes do not pair")
    return [*parts, text[start:].strip()]
