"""Points in time of a log's records: dates, Unix times of any unit, or numbers of the format's unit from some start.

The first record tells which. A number is a Unix time where it is one of 2001 to 2286 in some unit: in milliseconds from a start it would be
over eleven days. A unit that the user names goes first.
"""

import re
from typing import Any

from kvplan.traces import fields
from kvplan.traces.reading import Reading

_UNITS_S = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_UNIX_S = 1e9, 1e10
_DATE = re.compile(r"\s*\d{4}-\d")


class Stamps:
    """Reads the times in one field."""

    def __init__(self, name: str, reading: Reading, own: str) -> None:
        self._name, self._own, self._unit, self._told = name, own, reading.unit(own), reading.times is not None
        self._unit_s = reading.unit_s(own)
        self._dated: bool | None = None
        self._said = ""

    def seconds(self, record: dict[str, Any]) -> float:
        """The time of a record in seconds. Raises BadRecord."""
        if self._dated is None:
            self._begin(fields.required(record, self._name))
        return fields.date(record, self._name) if self._dated else fields.seconds(record, self._name, self._unit_s)

    def _begin(self, value: object) -> None:
        """The first time says what all are."""
        dated = isinstance(value, str) and bool(_DATE.match(value))
        if dated:
            fields.date({self._name: value}, self._name)
            self._said = f"`{self._name}` holds dates"
        elif not self._told and (unit := _unix(fields.number(value, self._name))) not in (None, self._own):
            self._unit_s = _UNITS_S[unit]
            self._said = f"`{self._name}` counts {unit} since 1970, by its size"
        self._dated = dated

    def origin(self) -> dict[str, Any]:
        """For an origin: how times are taken, where they are not as the format has them."""
        return {"times": self._said} if self._said else {}


def _unix(value: float) -> str | None:
    """The unit in which a number is a Unix time."""
    return next((unit for unit, unit_s in _UNITS_S.items() if _UNIX_S[0] <= value * unit_s < _UNIX_S[1]), None)
