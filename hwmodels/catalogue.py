"""The catalogue: one YAML file per GPU, link, SSD class, node, connector, calibration, model and price list, found by file name.

`load("node", "a100-80g-pcie4")` gives a validated, frozen entry; a path loads a file of the user's own, and `folder` adds a whole
catalogue of the user's own: subfolders `gpu`, `link`, `ssd`, `node`, `connector`, `calibration`, `models`, `prices` of YAML files, whose
names must be new.
Errors name the file and the row, and an unknown name comes with the nearest known one.
"""

import difflib
import time
from collections.abc import Callable, Iterable
from functools import cache
from os.path import exists, getmtime, isdir
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kvplan.foreign import files
from kvplan.hwmodels import hfconfig, hfstates, quantization, strictyaml
from kvplan.hwmodels.calibration import Calibration
from kvplan.hwmodels.schema import Connector, Gpu, Link, Node, Prices, Ssd

_ROOT = Path(__file__).parent

KINDS: dict[str, tuple[Callable[[dict], Any], Path]] = {
    "gpu": (Gpu.model_validate, _ROOT / "hardware" / "gpu"),
    "link": (Link.model_validate, _ROOT / "hardware" / "link"),
    "ssd": (Ssd.model_validate, _ROOT / "hardware" / "ssd"),
    "node": (Node.model_validate, _ROOT / "hardware" / "node"),
    "connector": (Connector.model_validate, _ROOT / "hardware" / "connector"),
    "calibration": (Calibration.model_validate, _ROOT / "hardware" / "calibration"),
    "model": (hfconfig.read_model, _ROOT / "models"),
    "prices": (Prices.model_validate, _ROOT / "prices"),
}
"""Kind of entry -> what reads it, and its folder, whose last part is also the subfolder of a user's catalogue."""


_PART, _NAMED = 3, 3
"""Letters that a part of a name has at least, and names that are offered at most."""


class CatalogueError(ValueError):
    """No such entry, or a file that is not what the schema asks for."""


def names(kind: str, folder: str | None = None) -> list[str]:
    """Names of all entries of a kind, sorted; with those of the user's `folder`. Raises CatalogueError when that is none."""
    return sorted(_files(kind, folder))


def load(kind: str, name: str, folder: str | None = None):
    """The entry of that name, also from the user's `folder`, or of the file at that path. Raises CatalogueError."""
    if is_path(name):
        return _read_at(kind, Path(name))
    known = _files(kind, folder)
    if name not in known:
        raise CatalogueError(f"unknown {kind} {name!r}: {nearest(name, known)}known are {', '.join(sorted(known))}")
    entry = _packaged(kind, name) if known[name].parent == KINDS[kind][1] else _read(kind, known[name])
    if entry.name != name:
        raise CatalogueError(f"{known[name]}: name is {entry.name!r}, but the file is {name!r}")
    return entry


def _read_at(kind: str, path: Path):
    if not exists(path) and (hint := nearest(path.name.lower(), names(kind))):  # what HuggingFace calls it, for one
        raise CatalogueError(f"cannot read {path}: no such file, and nothing is fetched by its name: {hint}that is in the catalogue")
    return _read(kind, path)


def is_path(name: str) -> bool:
    """Whether a name means a file, and no entry of a catalogue."""
    return name.endswith((".yaml", ".yml", ".json")) or "/" in name


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`"did you mean 'x'? "`, or nothing when no known word is near: those that begin with the word (`h100`), then
    those of which it is a part, else the most alike."""
    known = sorted(known)
    parts = [name for name in known if len(word) >= _PART and word.lower() in name.lower()]
    near = sorted(parts, key=lambda name: not name.lower().startswith(word.lower()))[:_NAMED]
    near = near or difflib.get_close_matches(word, known, n=1, cutoff=cutoff)
    return f"did you mean {' or '.join(map(repr, near))}? " if near else ""


def _files(kind: str, folder: str | None) -> dict[str, Path]:
    """Name -> file of every entry of a kind. Raises CatalogueError for a folder that is none, or that redefines an entry."""
    packaged = _yaml_files(KINDS[kind][1])
    if folder is None:
        return packaged
    _check_folder(folder)
    subfolder = Path(folder) / KINDS[kind][1].name
    own = {path.stem: path for path in _listed(subfolder) if path.suffix == ".yaml"} if isdir(subfolder) else {}
    for name in own.keys() & packaged.keys():
        raise CatalogueError(f"{own[name]}: kvplan's own catalogue has a {kind} {name!r}: give yours another name")
    return packaged | own


def _check_folder(folder: str) -> None:
    """That a user's catalogue is a folder, and its subfolders are those that are looked into."""
    if not isdir(folder):
        raise CatalogueError(f"there is no catalogue folder {folder}")
    known = [path.name for _, path in KINDS.values()]
    for path in _listed(folder):
        if isdir(path) and not path.name.startswith(".") and path.name not in known:
            hint = nearest(path.name, known)
            raise CatalogueError(f"{path} is no part of a catalogue: {hint}its subfolders are {', '.join(known)}")


def _listed(folder: str | Path) -> list[Path]:
    """What is in a folder. Raises CatalogueError."""
    try:
        return files.inside(folder)
    except files.UnreadableError as error:
        raise CatalogueError(str(error)) from None


@cache
def _yaml_files(folder: Path) -> dict[str, Path]:
    """Of a packaged folder, which nobody changes while kvplan runs."""
    return {path.stem: path for path in folder.glob("*.yaml")}


@cache
def _packaged(kind: str, name: str):
    return _read(kind, KINDS[kind][1] / f"{name}.yaml")


def _read(kind: str, path: Path):
    try:
        data = strictyaml.load(path)
    except strictyaml.YamlError as error:
        raise CatalogueError(str(error)) from None
    if not isinstance(data, dict):
        raise CatalogueError(f"{path}: a {kind} file is a mapping of fields, this is not")
    if kind == "model" and path.suffix == ".json":
        data |= _provenance(path) | _quantised(path, data)
    elif kind == "model" and (unknown := set(data) - hfconfig.KEYS - hfstates.KEYS):
        raise CatalogueError(f"{path}: unknown key {min(unknown)!r}")
    try:
        return KINDS[kind][0](data)
    except ValidationError as error:
        raise CatalogueError(f"{path}: {explain(error)}") from None


def _provenance(path: Path) -> dict[str, str]:
    """What a config.json does not say of itself: its name is its folder's, its date that of the file."""
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return {"name": name, "source": str(path), "date": time.strftime("%Y-%m", time.gmtime(getmtime(path)))}


def _quantised(path: Path, data: dict) -> dict[str, Any]:
    """What ModelOpt says in a file beside a config.json that says nothing of quantisation."""
    said = path.parent / "hf_quant_config.json"
    if "quantization_config" in data or path.name != "config.json" or not said.is_file():
        return {}
    try:
        return {"quantization_config": quantization.beside(strictyaml.load(said))}
    except strictyaml.YamlError as error:
        raise CatalogueError(str(error)) from None


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
