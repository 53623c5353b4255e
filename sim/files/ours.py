"""What may be written where, asked before long work: nothing is replaced that is not ours, nor anything that the command reads.

A folder is ours when every name in it is one that we write, and when what is in it says that kvplan wrote it.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from kvplan.sim.files import told
from kvplan.sim.files.workshop import NEW, PREFIX, is_workshop

_LARGEST_SUMMARY = 1 << 28
_MOUNTS = Path("/proc/self/mountinfo")


class OutputError(ValueError):
    """The output cannot be written there; known before anything is done."""


@dataclass(frozen=True)
class Kind:
    """Folders of one kind that we write."""

    name: str
    """In messages."""
    proof: Callable[[Path], bool]
    """Whether what is in a folder says that kvplan wrote it."""
    files: tuple[str, ...] = ()
    """Patterns of the paths of all its files, if it is replaced as a whole; none if files are written into it, beside whatever is there."""

    @property
    def whole(self) -> bool:
        """It is replaced as a whole."""
        return bool(self.files)

    def foreign(self, folder: Path) -> str:
        """Why a folder is not of this kind; "" when it is, when it has no files and when there is none. Raises OSError."""
        if not folder.is_dir():
            return f"it is not a {self.name}" if folder.exists() else ""
        stranger = next(self._strangers(folder), None) if self.whole else None
        if stranger is not None:
            return f"{stranger} in it is not of a {self.name}"
        empty = all(path.endswith("/") for path in _inside(folder))
        return "" if empty or self.proof(folder) else f"it is not a {self.name} that kvplan wrote"

    def _strangers(self, folder: Path) -> Iterator[str]:
        folders = (f"{parent}/" for file in self.files for parent in PurePosixPath(file).parents)
        patterns = {*self.files, *folders}
        return (path for path in _inside(folder) if not any(fnmatchcase(path, pattern) for pattern in patterns))


def says(path: Path, what: Callable[[Any], object]) -> bool:
    """Whether a file is JSON of which `what` is true; a key that it lacks, or finds elsewhere, is no."""
    try:
        return path.is_file() and path.stat().st_size <= _LARGEST_SUMMARY and bool(what(json.loads(path.read_bytes())))
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False


def check_folder(out: Path, kind: Kind, inputs: Iterable[Path] = ()) -> None:
    """Before long work: that a folder is new, empty or of its kind, holds nothing that is read, and can be written. Raises OutputError."""
    target = _resolved(out)
    if problem := _folder_problem(target, kind, inputs):
        raise OutputError(f"will not {'replace' if kind.whole else 'write into'} {out}: {problem}; name another --out")
    _rehearse(out, target / NEW)
    if kind.whole:
        _rehearse(out, target)


def begins(*heads: bytes) -> Callable[[Path], bool]:
    """Whether a file begins with one of these."""

    def proof(path: Path) -> bool:
        with path.open("rb") as file:
            return file.read(max(map(len, heads))).startswith(heads)

    return proof


def check_file(path: Path, proof: Callable[[Path], bool], inputs: Iterable[Path] = ()) -> None:
    """Before long work: that a file is new, empty or, by its `proof`, such as we write there; that it is nothing that is read, nor in a
    folder that is, and can be written. Raises OutputError."""
    target = _resolved(path)
    if problem := _file_problem(target, proof, inputs):
        raise OutputError(f"will not write {path}: {problem}; name another file")
    _rehearse(path, target)


def _folder_problem(target: Path, kind: Kind, inputs: Iterable[Path]) -> str:
    for source in inputs:
        if _real(source).is_relative_to(target):
            return f"it holds {source}, which is read"
    if kind.whole and _is_mounted(target):
        return "it is a mount point, which cannot be replaced whole (a folder in it can)"
    try:
        return "it is the working directory, or holds it" if Path.cwd().is_relative_to(target) else kind.foreign(target)
    except OSError as error:
        return told.line(error)


def _file_problem(target: Path, proof: Callable[[Path], bool], inputs: Iterable[Path]) -> str:
    for source in inputs:
        if target.is_relative_to(_real(source)):
            return f"it is {'' if target == _real(source) else 'in '}{source}, which is read"
    if target.is_dir():
        return "it is a folder"
    if target.exists() and not target.is_file():
        return "it is not a plain file"
    try:
        if target.exists() and target.stat().st_size and not proof(target):
            return "what is there is not what kvplan writes, and would be lost"
    except OSError as error:
        return told.line(error)
    return "it is a mount point" if _is_mounted(target) else ""


def _inside(folder: Path, prefix: str = "") -> Iterator[str]:
    """The paths of all that is in a folder but our working folders, by name; a folder, which ends in /, before what is in it."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if not entry.is_dir(follow_symlinks=False):
            yield prefix + entry.name
        elif not is_workshop(Path(entry)):
            yield f"{prefix}{entry.name}/"
            yield from _inside(Path(entry), f"{prefix}{entry.name}/")


def _resolved(out: Path) -> Path:
    """Without symbolic links. Raises OutputError for what can be no path."""
    try:
        target = _real(out)
        if target.exists() or not target.is_symlink():
            return target
        problem = "its symbolic links lead round in a circle"
    except OSError as error:
        problem = told.reason(error)
    raise OutputError(f"cannot write {out}: {problem}")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _rehearse(out: Path, target: Path) -> None:
    """Makes what `target` lacks in a folder of its own, and removes it. Raises OutputError."""
    missing, folder = [target.name], target.parent
    while not folder.exists():
        missing, folder = [*missing, folder.name], folder.parent
    if not folder.is_dir():
        raise OutputError(f"cannot write {out}: {folder} is not a folder")
    try:
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder) as trial:
            for name in missing:
                Path(trial, NEW, name).mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {told.reason(error)} (in {folder})") from None


def _is_mounted(path: Path) -> bool:
    """Whether a file system, or a part of one (of a container, say), is mounted there."""
    try:
        mounts = _MOUNTS.read_bytes().splitlines()
    except OSError:
        return os.path.ismount(path)
    octal = re.compile(rb"\\([0-7]{3})")
    places = (octal.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[4]) for line in mounts)
    return os.fsencode(path) in places
