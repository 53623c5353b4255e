"""Checked values of a record's fields. Each raises BadRecord with the field's name, its value and what would be right."""

import json
from array import array
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from kvplan.traces.hashes import ANYWHERE, NAMESPACES, OWNERS, Scope, identity, is_hash
from kvplan.traces.source import BadRecord
from kvplan.traces.workload import MAX_TOKENS

_LONGEST_S = 1e11
"""Timestamps past this are no seconds (the year 5138)."""


def of(record: object, kind: str) -> dict[str, Any]:
    """The record, when it is an object."""
    if not isinstance(record, dict):
        raise BadRecord(f"is not {kind}: {_shown(record)}")
    return record


def required(record: dict[str, Any], name: str) -> object:
    """A field that must be there."""
    if name not in record:
        raise BadRecord(f"has no `{name}`: the fields are {', '.join(map(repr, list(record)[:20]))}")
    return record[name]


def tokens(record: dict[str, Any], name: str, low: int = 1) -> int:
    """A number of tokens, from `low` to MAX_TOKENS; text of a CSV is taken as the number that it spells."""
    value = required(record, name)
    if type(value) is int and low <= value <= MAX_TOKENS:  # nearly all
        return value
    value = number(value, name)
    if value != int(value):
        raise BadRecord(f"`{name}` is {_shown(value)}, not a whole number of tokens")
    if not low <= value <= MAX_TOKENS:
        raise BadRecord(f"`{name}` is {_shown(value)}, which is not within {low} and {MAX_TOKENS:,} tokens")
    return int(value)


def seconds(record: dict[str, Any], name: str, unit_s: float, negative: bool = False) -> float:
    """A time or duration in units of `unit_s`, as seconds."""
    value = number(required(record, name), name) * unit_s
    if value < 0 and not negative:
        raise BadRecord(f"`{name}` is {_shown(record[name])}, which is negative")
    if abs(value) > _LONGEST_S:
        raise BadRecord(f"`{name}` is {_shown(record[name])}, which is no time in {'ms' if unit_s < 1 else 's'}")
    return value


def date(record: dict[str, Any], name: str) -> float:
    """Unix seconds of a date and time as text (ISO 8601), with or without a zone (then UTC); digits past microseconds are dropped."""
    text = required(record, name)
    if not isinstance(text, str):
        raise BadRecord(f"`{name}` is {_shown(text)}, not a date and time")
    day, _, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    try:
        moment = datetime.fromisoformat(f"{day}{'.' + digits[:6].ljust(6, '0') if digits else ''}{rest[len(digits) :]}")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadRecord(f"`{name}` is {_shown(text[:40])}, not a date and time") from None


_UNIX = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3), (1e8, 1.0))
"""Unix times from 1973 to 5138: from which number on in which unit, in seconds."""


def moment(record: dict[str, Any], name: str, unit_s: float) -> float:
    """A point in time, as seconds: a date, a Unix time whose size tells its unit, or a number of units of `unit_s` from some start."""
    value = required(record, name)
    if isinstance(value, str) and not value.replace(".", "", 1).strip().isdigit():
        return date(record, name)
    size = number(value, name)
    return seconds(record, name, next((unit for least, unit in _UNIX if size >= least), unit_s))


def number(value: object, name: str) -> float:
    """A finite number."""
    if isinstance(value, str):
        try:
            value = float(value) if not value.strip().isdigit() else int(value)
        except ValueError:
            raise BadRecord(f"`{name}` is {_shown(value)}, not a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadRecord(f"`{name}` is {_shown(value)}, not a number")
    if not abs(value) <= 1e300:  # which no NaN is
        raise BadRecord(f"`{name}` is {_shown(value)}, not a finite number")
    return value


def text(record: dict[str, Any], name: str) -> str:
    """Text."""
    value = required(record, name)
    if not isinstance(value, str):
        raise BadRecord(f"`{name}` is not text")
    return value


def items(record: dict[str, Any], name: str) -> list:
    """A list."""
    value = required(record, name)
    if not isinstance(value, list):
        raise BadRecord(f"`{name}` is not a list")
    return value


def label(record: dict[str, Any], name: str) -> str | int:
    """An identifier: text or a whole number."""
    value = required(record, name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "" or not _writable(value):
        raise BadRecord(f"`{name}` is {_shown(value)}, not an identifier")
    return value


def tag(record: dict[str, Any], name: str) -> str:
    """An optional name to group by, empty where there is none."""
    return "" if record.get(name) in (None, "") else str(label(record, name))


def _writable(value: object) -> bool:
    """False for text with half of a surrogate pair in it, which no file can hold."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def hashes(found: list, name: str) -> Sequence[int]:
    """Block hashes as numbers of 64 bits, each with its identity: whole numbers of any size, or text."""
    if set(map(type, found)) <= {int}:
        try:
            return array("q", found)  # nearly all: they are their own identities
        except OverflowError:
            pass
    odd = [block for block in found if not is_hash(block)]
    if odd:
        raise BadRecord(f"`{name}` holds {_shown(odd[0])}, which is no block hash")
    return [identity(block) for block in found]


def scope(record: dict[str, Any], *namespace: tuple[str, str]) -> Scope:
    """What the block hashes of a record hold within, besides `namespace`, and its session."""
    if not namespace and _SCOPED.isdisjoint(record):
        return ANYWHERE
    blocks, sessions = (tuple((name, _plain(record, name)) for name in names if record.get(name)) for names in (NAMESPACES, OWNERS))
    return _scope((*namespace, *blocks), sessions) if namespace or blocks or sessions else ANYWHERE


_SCOPED = frozenset((*NAMESPACES, *OWNERS))
_scope = lru_cache(maxsize=1 << 16)(Scope)
"""One object for all records that hold within the same."""


def _plain(record: dict[str, Any], name: str) -> str:
    """A value to tell records apart by."""
    try:
        return json.dumps(record[name], sort_keys=True)
    except RecursionError:
        raise BadRecord(f"`{name}` is nested too deep for a name") from None


class Either:
    """A field that all records have, or none: what the first of them does, the others must do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.given: bool | None = None
        """Whether the first record has it; None before the first."""
        self._first = 0

    def check(self, given: bool, number: int) -> bool:
        """`given` again. Raises BadRecord when the first record did otherwise."""
        if self.given is None:
            self.given, self._first = given, number
        if given != self.given:
            raise BadRecord(f"all records must have `{self._name}` or none; this one {'has' if given else 'lacks'} it, unlike", self._first)
        return given


class Unique:
    """Identifiers that may be seen once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._seen: dict[object, int] = {}

    def check(self, value: object, number: int) -> None:
        """Raises BadRecord when an earlier record had the value."""
        if value in self._seen:
            raise BadRecord(f"`{self._name}` {_shown(value)} is a duplicate of that in", self._seen[value])
        self._seen[value] = number


def _shown(value: object) -> str:
    text = f"{value:,}" if type(value) is int and abs(value) < 10**18 else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
