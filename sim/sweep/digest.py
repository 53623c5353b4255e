"""A name for a run that changes whenever its numbers could: configuration, seed, kvplan's version and code, catalogue
entries, content of the workload's files and of users' own policies."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path

from kvplan import foreign, hwmodels, sim, traces
from kvplan.foreign import files
from kvplan.sim.config import Config
from kvplan.sim.engine.plant import plant
from kvplan.sim.inputs import policy_files, workload_files
from kvplan.sim.provenance import version
from kvplan.sim.settings import POLICY_PATHS


def digest(config: Config) -> str:
    """Of the run of a configuration: 16 hexadecimal digits. Raises PolicyError, and UnreadableError when a file cannot be read."""
    resolved = config.resolved()
    parts = {
        "kvplan": version(),
        "code": _content(*(Path(package.__file__).parent for package in (foreign, hwmodels, sim, traces))),
        "config": resolved,
        "plant": repr(plant(config)),
        "files": [_content(path.absolute()) for path in workload_files(config)],
        "policies": [_content(*policy_files(config, path)) for path in POLICY_PATHS],
    }
    return _sha(json.dumps(parts, sort_keys=True).encode())


@cache
def _content(*paths: Path) -> str:
    """Of files, and of folders: everything in them but compiled code."""
    total = hashlib.sha256()
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if file.is_file() and file.suffix != ".pyc":
                total.update(os.fsencode(file.relative_to(path)) + f"\0{_file_sha(file)}\n".encode())
    return total.hexdigest()


def _file_sha(path: Path) -> str:
    """A part at a time: traces can be larger than memory."""
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
