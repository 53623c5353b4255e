"""Quantities with units: `64GiB`, `25GB/s`, `80us`, `312TFLOP/s`, `5USD/h`.

Inside kvplan every number is SI (bytes, seconds, FLOP/s, US dollars); this module is the one place where text becomes a
number and where a number becomes text again. Decimal prefixes are powers of 1000, binary ones (Ki, Mi, Gi, Ti) powers of
1024. A bare number is refused: it is never clear whether 128 means GB or GiB.
"""

import math
import re

_DECIMAL = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_TIME = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}

UNITS: dict[str, dict[str, float]] = {
    "bytes": {prefix + unit: scale for unit in ("B", "") for prefix, scale in {**_DECIMAL, **_BINARY}.items() if prefix + unit},
    "bytes_per_s": {prefix + "B/s": scale for prefix, scale in {**_DECIMAL, **_BINARY}.items()},
    "flop_per_s": {prefix + "FLOP/s": scale for prefix, scale in _DECIMAL.items()},
    "seconds": _TIME,
    "usd_per_s": {"USD/h": 1 / 3600, "USD/s": 1.0},
    "usd_per_byte_s": {"USD/GB/h": 1e-9 / 3600, "USD/GiB/h": 1 / 2**30 / 3600},
    "usd": {"USD": 1.0},
    "usd_per_joule": {"USD/kWh": 1 / 3.6e6},
    "usd_per_watt_s": {"USD/kW/month": 1e-3 / (730 * 3600)},
    "watts": {"W": 1.0, "kW": 1e3},
    "usd_per_byte": {"USD/GB": 1e-9, "USD/GiB": 1 / 2**30, "USD/TB": 1e-12},
    "ratio": {"1": 1.0, "%": 0.01},
    "count": {"1": 1.0},
    "per_day": {"1/day": 1.0, "DWPD": 1.0},
    "years": {"years": 1.0},
}
"""Dimension name -> unit -> factor to SI (SSD ratings stay per day and in years, as they are sold)."""

_QUANTITY = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s].*)")
_LONGEST = 100
"""Characters of a quantity; what is longer is none."""


def to_si(value: float, unit: str, dimension: str) -> float:
    """`value` in `unit` as SI; ValueError when the unit does not belong to the dimension."""
    try:
        return value * UNITS[dimension][unit]
    except KeyError:
        raise ValueError(f"unit {unit!r} is not one of {', '.join(UNITS[dimension])}") from None


def from_si(number: float, unit: str) -> float:
    """The inverse of `to_si`; a unit has the same factor in every dimension that knows it. ValueError when none does."""
    for known in UNITS.values():
        if unit in known:
            return number / known[unit]
    raise ValueError(f"unit {unit!r} is unknown")


def parse(text: str, dimension: str) -> float:
    """Parse `"64GiB"` or `"80 us"` into SI. Raises ValueError saying what is wrong and what would be right."""
    example = {"bytes": "128GB", "bytes_per_s": "25GB/s", "seconds": "500ms"}.get(dimension, "a number and a unit")
    if not isinstance(text, str):
        raise ValueError(f"{text!r} has no unit: write it like {example!r}")
    match = _QUANTITY.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise ValueError(f"{text!r} is not a quantity: write it like {example!r}")
    number = to_si(float(match[1]), match[2], dimension)
    if not math.isfinite(number):
        raise ValueError(f"{text!r} is not a finite quantity")
    return number


def parse_bytes(text: str) -> int:
    """`"128GB"` -> 128_000_000_000. Zero is allowed, negative sizes are not."""
    number = parse(text, "bytes")
    if number < 0:
        raise ValueError(f"{text!r} is negative: a size is 0 or more")
    return round(number)


def format_bytes(number: float) -> str:
    """Bytes for reading, in decimal units with three significant digits: `1.29 TB`."""
    return _scaled(number, 1000.0, ["B", "kB", "MB", "GB", "TB", "PB"])


def format_seconds(number: float) -> str:
    """Seconds for reading: `312 ms`, `4.20 s`, `11.3 h`."""
    if not math.isfinite(number):
        return "–"
    size = abs(number)
    if size >= 2 * 86400:
        return f"{number / 86400:.3g} days"
    if size >= 2 * 3600:
        return f"{number / 3600:.3g} h"
    if size >= 1000:
        return f"{number:,.0f} s"
    if size >= 1:
        return f"{number:.3g} s"
    if size >= 1e-3 or size == 0:
        return f"{number * 1e3:.3g} ms"
    return f"{number * 1e6:.3g} us"


def _scaled(number: float, base: float, names: list[str]) -> str:
    for name in names[:-1]:
        if abs(number) < 0.9995 * base:
            return f"{number:.3g} {name}"
        number /= base
    return f"{number:.3g} {names[-1]}"
