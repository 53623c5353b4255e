"""Times in cells of tables, as seconds: dates, durations, or numbers in the unit that the user or the column's name says, else seconds."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from kvplan.traces import fields
from kvplan.traces.reading import Reading

_UNITS_S = {"m": 1e-3, "u": 1e-6, "n": 1e-9}
_NAMED = re.compile(r"(?:_|(?<=[a-z])(?=[A-Z]))([MmUuNn])(?:s|illis|icros|anos?)$")
_LAST_S = 1e11
"""Seconds from 1970 to the year 5138: larger numbers count milliseconds, or still less."""


class Moments:
    """Reads times, and remembers which columns have them in another unit than seconds."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.units: dict[str, str] = {}
        """Column -> its unit and what says so."""

    def seconds(self, cells: Mapping[str, object], name: str, dated: bool = False) -> float:
        """A time as seconds; `dated`: it may be a date, in words or counted from 1970. Raises BadRecord."""
        value = cells[name]
        if isinstance(value, timedelta):
            return fields.seconds({name: value.total_seconds()}, name, 1.0)
        if dated and isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        if dated and isinstance(value, str) and not value.strip().lstrip("-").replace(".", "", 1).isdigit():
            return fields.date(dict(cells), name)
        unit_s = self._unit_s(name)
        if dated and unit_s == 1.0 and self._reading.times is None:
            unit_s = self._of_date(fields.number(value, name), name)
        return fields.seconds(dict(cells), name, unit_s)

    def _unit_s(self, name: str) -> float:
        """The unit of a column that is named or set."""
        named = _NAMED.search(name)
        if self._reading.times in ("s", "ms") or named is None:
            return self._reading.unit_s("s")
        self.units[name] = f"{named[1].lower()}s, by its name"
        return _UNITS_S[named[1].lower()]

    def _of_date(self, value: float, name: str) -> float:
        """The unit in which a number is a date, if in seconds it can be none."""
        for unit, unit_s in _UNITS_S.items():
            if abs(value) > _LAST_S / unit_s / 1e3 and abs(value) <= _LAST_S / unit_s:
                self.units[name] = f"{unit}s since 1970"
                return unit_s
        return 1.0
