"""Digests of what files hold, whatever they are called."""

import hashlib
import os
from collections.abc import Collection, Iterator
from functools import cache
from operator import attrgetter
from pathlib import Path

import numpy as np

from kvplan.foreign import files

_COMPILED = (".pyc", ".so")
_PART_BYTES = 1 << 16


def content(*paths: Path, but: Collection[Path] = ()) -> str:
    """Of files, and of folders: everything in them but compiled code, and what is in or under `but`, by its place there. Raises
    UnreadableError."""
    total = hashlib.sha256()
    left_out = {str(other) for other in but}
    for path in paths:
        for place, file in _inside(str(path), left_out) if path.is_dir() else [(".", str(path))]:
            total.update(os.fsencode(place) + f"\0{_file(file)}\n".encode())
    return total.hexdigest()[:16]


def _inside(folder: str, left_out: Collection[str], under: str = "") -> Iterator[tuple[str, str]]:
    """Place in the folder and path of each file, in order; links to folders are not followed."""
    for entry in sorted(os.scandir(folder), key=attrgetter("name")):
        if entry.path in left_out or entry.name.endswith(_COMPILED):
            continue
        if not entry.is_dir():
            yield under + entry.name, entry.path
        elif not entry.is_symlink():
            yield from _inside(entry.path, left_out, f"{under}{entry.name}/")


def _file(path: str) -> str:
    """Remembered for as long as the file looks the same."""
    try:
        looks = os.stat(path)
    except OSError:
        return _read(path, 0, 0)  # says why
    return _read(os.path.abspath(path), looks.st_size, looks.st_mtime_ns)


@cache
def _read(path: str, _size: int, _changed_ns: int) -> str:
    """A part at a time: traces can be larger than memory."""
    digest = hashlib.sha256()
    with files.opened(path) as file:
        while part := file.read(_PART_BYTES):
            digest.update(part)
    return digest.hexdigest()


def array(column: np.ndarray) -> str:
    """Of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(column).data).hexdigest()[:16]


def text(data: str) -> str:
    """Of text."""
    return hashlib.sha256(data.encode()).hexdigest()[:16]
