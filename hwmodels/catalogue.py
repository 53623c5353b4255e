"""The catalogue: one YAML file per GPU, node, SSD class, model and price list, found by file name.

`load("node", "a100-80g-pcie4")` gives a validated, frozen entry; a path loads a file of the user's own. Errors name the file
and the row, and an unknown name comes with the nearest known one.
"""

import difflib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ValidationError

from hwmodels import strictyaml
from hwmodels.schema import Gpu, Model, Node, Prices, Ssd

_ROOT = Path(__file__).parent

KINDS: dict[str, tuple[type[BaseModel], Path]] = {
    "gpu": (Gpu, _ROOT / "hardware" / "gpu"),
    "node": (Node, _ROOT / "hardware" / "node"),
    "ssd": (Ssd, _ROOT / "hardware" / "ssd"),
    "model": (Model, _ROOT / "models"),
    "prices": (Prices, _ROOT / "prices"),
}
"""Kind of entry -> its schema and its folder."""


class CatalogueError(ValueError):
    """No such entry, or a file that is not what the schema asks for."""


def names(kind: str) -> list[str]:
    """Names of all entries of a kind, sorted."""
    return sorted(path.stem for path in KINDS[kind][1].glob("*.yaml"))


def load(kind: str, name: str):
    """The entry of that name, or of the file at that path. Raises CatalogueError."""
    if name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        return _read(kind, Path(name))
    if name not in names(kind):
        near = difflib.get_close_matches(name, names(kind), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise CatalogueError(f"unknown {kind} {name!r}: {hint}known are {', '.join(names(kind))}")
    return _packaged(kind, name)


@cache
def _packaged(kind: str, name: str):
    return _read(kind, KINDS[kind][1] / f"{name}.yaml")


def _read(kind: str, path: Path):
    schema = KINDS[kind][0]
    try:
        data = strictyaml.load(path)
    except strictyaml.YamlError as error:
        raise CatalogueError(str(error)) from None
    if not isinstance(data, dict):
        raise CatalogueError(f"{path}: a {kind} file is a mapping of fields, this is not")
    if path.suffix == ".json":
        data = {"name": path.parent.name if path.name == "config.json" else path.stem, "source": str(path), **data}
    elif schema is Model and (unknown := set(data) - set(Model.model_fields)):
        raise CatalogueError(f"{path}: unknown key {sorted(unknown)[0]!r}")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise CatalogueError(f"{path}: {explain(error)}") from None


def explain(error: ValidationError) -> str:
    """All findings of a pydantic ValidationError on one line each: `path: reason`."""
    lines = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"])
        reason = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            reason = "unknown key"
        lines.append(f"{place}: {reason}" if place else reason)
    return "; ".join(lines)
