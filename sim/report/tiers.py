"""How tiers, and what else bars are made of, are called and drawn, everywhere alike."""

from collections.abc import Iterable

_ORDER = ("hbm", "dram", "", "ssd")
"""Fastest first; tiers of the user's own stand where the empty name is."""
_NAMES = {"gpu": "GPUs", "power": "power"}
_STYLES = {"gpu": 3, "hbm": 4, "dram": 1, "ssd": 2, "power": 5}
_OTHER_STYLE = 6
_NO_TIERS = ("turns", "resumed", "tokens")


def name_of(kind: str) -> str:
    """`DRAM`."""
    return _NAMES.get(kind, kind.upper())


def style_of(kind: str) -> int:
    return _STYLES.get(kind, _OTHER_STYLE)


def among(keys: Iterable[str]) -> list[str]:
    """The tiers that hit rates are given for, fastest first. `keys`: of the hit rates, the rates of all tiers together with them."""
    return sorted(set(keys) - set(_NO_TIERS), key=lambda name: (_ORDER.index(name if name in _ORDER else ""), name))
