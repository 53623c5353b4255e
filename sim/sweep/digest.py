"""A name for a run that changes whenever its numbers could: configuration, seed, kvplan's version and code, content of the files named."""

import hashlib
import inspect
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import hwmodels
import sim
import traces
from sim.config import Config
from sim.policies.registry import find
from sim.provenance import version
from sim.sweep.variants import POLICY_PATHS


def digest(config: Config) -> str:
    """Of the run of a configuration: 16 hexadecimal digits. Raises PolicyError, and OSError when a file cannot be read."""
    resolved = config.resolved()
    files = [path for text in _leaves(resolved) if len(text) < 1000 and (path := Path(text)).exists()]
    parts = {
        "kvplan": version(),
        "code": _content(*(Path(package.__file__).parent for package in (hwmodels, sim, traces))),
        "config": resolved,
        "files": [_content(path.absolute()) for path in files],
        "policies": [_content(*_sources(kind, path, resolved)) for path, kind in POLICY_PATHS.items()],
    }
    return _sha(json.dumps(parts, sort_keys=True).encode())


def _leaves(tree: object) -> Iterator[str]:
    """Every text in plain data that could name a file."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _leaves(value)
    elif isinstance(tree, str) and tree and "\0" not in tree:
        yield tree


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
                total.update(f"{file.relative_to(path)}\0{_sha(file.read_bytes())}\n".encode())
    return total.hexdigest()


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
