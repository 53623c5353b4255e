"""Digests of what files hold, whatever they are called."""

import hashlib
import os
from collections.abc import Collection
from functools import cache
from pathlib import Path

import numpy as np

from kvplan.foreign import files


def content(*paths: Path, but: Collection[Path] = ()) -> str:
    """Of files, and of folders: everything in them but compiled code, and what is in or under `but`, by its place there. Raises
    UnreadableError."""
    total = hashlib.sha256()
    for path in paths:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if not file.is_dir() and file.suffix not in (".pyc", ".so") and not any(file.is_relative_to(other) for other in but):
                total.update(os.fsencode(file.relative_to(path)) + f"\0{_file(file)}\n".encode())
    return total.hexdigest()[:16]


def _file(path: Path) -> str:
    """Remembered for as long as the file looks the same."""
    try:
        looks = path.stat()
    except OSError:
        return _read(path, 0, 0)  # says why
    return _read(path.absolute(), looks.st_size, looks.st_mtime_ns)


@cache
def _read(path: Path, _size: int, _changed_ns: int) -> str:
    """A part at a time: traces can be larger than memory."""
    with files.opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def array(column: np.ndarray) -> str:
    """Of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(column).data).hexdigest()[:16]


def text(data: str) -> str:
    """Of text."""
    return hashlib.sha256(data.encode()).hexdigest()[:16]
