"""Warnings of several runs that say the same with other figures."""

import re
from collections.abc import Iterable

_FIGURES = re.compile(r"[0-9][0-9.,]*")


def without_figures(text: str) -> str:
    """What two such texts have in common."""
    return _FIGURES.sub("#", text)


def once(texts: Iterable[str]) -> list[str]:
    """Of those that differ in figures alone the first."""
    found: dict[str, str] = {}
    for text in texts:
        found.setdefault(without_figures(text), text)
    return list(found.values())
