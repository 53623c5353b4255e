"""Whose server a result is of, in words."""

from collections.abc import Mapping
from typing import Any

from kvplan.hwmodels import strictyaml


def words(found: Mapping[str, Any]) -> list[str]:
    """Of a described engine (`kvplan.sim.enginesets.described`): what it is, what is otherwise, and what is left out of it."""
    but = ", ".join(f"{path}={value if isinstance(value, str) else strictyaml.flow(value)}" for path, value in found["otherwise"].items())
    lines = [f"Engine {found['name']}: {found['description']}" + (f"; but {but}." if but else ".")]
    return lines + ([f"Of {found['name']} is left out: {'; '.join(found['left_out'])}."] if found["left_out"] else [])
