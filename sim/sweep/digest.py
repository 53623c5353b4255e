"""A name for a run that changes whenever its numbers could: configuration, seed, kvplan's version and code, catalogue
entries, content of the workload's files and of users' own policies."""

import hashlib
import inspect
import json
from functools import cache
from pathlib import Path

from kvplan import foreign, hwmodels, sim, traces
from kvplan.foreign import files
from kvplan.sim.config import Config
from kvplan.sim.engine.plant import plant
from kvplan.sim.policies.registry import find
from kvplan.sim.provenance import version
from kvplan.sim.sweep.variants import POLICY_PATHS


def digest(config: Config) -> str:
    """Of the run of a configuration: 16 hexadecimal digits. Raises PolicyError, and UnreadableError when a file cannot be read."""
    resolved = config.resolved()
    parts = {
        "kvplan": version(),
        "code": _content(*(Path(package.__file__).parent for package in (foreign, hwmodels, sim, traces))),
        "config": resolved,
        "plant": repr(plant(config)),
        "files": [_content(path.absolute()) for path in _files(config)],
        "policies": [_content(*_sources(kind, path, resolved)) for path, kind in POLICY_PATHS.items()],
    }
    return _sha(json.dumps(parts, sort_keys=True).encode())


def _files(config: Config) -> list[Path]:
    """The files and folders that the workload is read from. Those of the catalogue, and a model's config.json, are in the plant."""
    workload = config.workload
    named = workload.trace, workload.tokenizer, getattr(workload.arrival, "trace", None)
    return [Path(name) for name in named if name]


def _sources(kind: str, path: str, resolved: dict) -> list[Path]:
    """The files of a user's own policy: of its class and of what that inherits from."""
    name = resolved
    for key in path.split("."):
        name = name[key]
    if ":" not in name:
        return []
    modules = [inspect.getmodule(parent) for parent in find(kind, name).SUPERVISED.__mro__]
    return [Path(file) for module in modules if (file := getattr(module, "__file__", None))]


@cache
def _content(*paths: Path) -> str:
    """Of files, and of folders: everything in them but compiled code."""
    total = hashlib.sha256()
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if file.is_file() and file.suffix != ".pyc":
                total.update(f"{file.relative_to(path)}\0{_file_sha(file)}\n".encode())
    return total.hexdigest()


def _file_sha(path: Path) -> str:
    """A part at a time: traces can be larger than memory."""
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
