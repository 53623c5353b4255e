"""Engines: which settings make a server one that people run, and where each value is from. One file each in `sim/presets/engines/`.

A set is what a configuration starts from; its preset or file says the rest on top, and `--set` on top of that. All sets name the same
settings, so that one engine can take the place of another.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from kvplan.hwmodels import strictyaml
from kvplan.hwmodels.catalogue import nearest

_FOLDER = Path(__file__).parent / "presets" / "engines"
DEFAULT = "cachedattention"


class _Said(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)


class Choice(_Said):
    """The value of a setting, and who says so."""

    value: Any
    source: Annotated[str, Field(min_length=1)]


class EngineSet(_Said):
    """One engine."""

    name: str
    description: str
    date: str
    """When its sources were read."""
    settings: dict[str, Choice]
    """By path."""
    left_out: list[str]
    """What of the engine is not modelled, each in words that follow `left out:`."""
    left_out_of_sessions: list[str] = []
    """What more is not where whole sessions are kept."""

    def not_modelled(self, unit: str) -> list[str]:
        """With this `store.unit`, session or block."""
        return self.left_out + (self.left_out_of_sessions if unit == "session" else [])


def names() -> list[str]:
    """Of all engines."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def check_name(name: str) -> str:
    """The name. Raises ValueError for one that no engine has."""
    if name not in names():
        raise ValueError(f"no engine {name!r}: {nearest(name, names())}one of {', '.join(names())} (kvplan list engines)")
    return name


@cache
def engine(name: str) -> EngineSet:
    """A packaged one."""
    return EngineSet.model_validate(strictyaml.load(_FOLDER / f"{name}.yaml"))


def apply(data: dict[str, Any], given: Any, asked: Any) -> None:
    """Fills a configuration in with what engine `asked` has. Where it was written for another, `given`, what it has as that one does
    follows the new one. Names that are none are left to the check of all settings."""
    if any(name not in names() for name in (given, asked)):
        return
    before = engine(given).settings if asked != given else {}
    for path, choice in engine(asked).settings.items():
        section, leaf = _place(data, path)
        if isinstance(section, dict) and (leaf not in section or (path in before and section[leaf] == before[path].value)):
            section[leaf] = choice.value


def described(resolved: Mapping[str, Any], unit: str) -> dict[str, Any]:
    """Of a resolved configuration that keeps sessions or blocks, as plain data: its engine, the settings that it has otherwise, and what
    is left out of the engine."""
    found = engine(resolved["engine"])
    return {"name": found.name, "description": found.description, "otherwise": _otherwise(resolved), "left_out": found.not_modelled(unit)}


def _otherwise(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Path -> value."""
    found = {}
    for path, choice in engine(resolved["engine"]).settings.items():
        section, leaf = _place(resolved, path)
        if section[leaf] != choice.value:
            found[path] = section[leaf]
    return found


def _place(data: Any, path: str) -> tuple[Any, str]:
    """The section of a setting, made where there is none, and the setting's name in it."""
    *sections, leaf = path.split(".")
    for section in sections:
        data = data.setdefault(section, {}) if isinstance(data, dict) else None
    return data, leaf
