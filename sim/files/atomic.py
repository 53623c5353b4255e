"""Writing whole or not at all: a kill at any moment leaves the old or the new, and nothing old goes before the new is in its place."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from kvplan.sim.files import told, written
from kvplan.sim.files.ours import Kind
from kvplan.sim.files.workshop import NEW, OLD, workshop


class WriteError(RuntimeError):
    """What was done could not be written."""


@contextmanager
def replacing(out: Path, kind: Kind) -> Iterator[Path]:
    """A new folder that takes the place of `out` when the block ends well, and is gone when not. Raises WriteError.

    What is there is replaced if it is empty or of the kind; long before, `ours.check_folder` said whether it is.
    """
    target = Path(os.path.realpath(out))
    with _telling(out), workshop(target.parent) as shop:
        made = shop / NEW / target.name
        made.mkdir()
        yield made
        for path in (*made.rglob("*"), made):
            _sync(path)
        written.note(target)
        while not _placed(made, target):
            _move_aside(target, shop / OLD / target.name, kind)
        _sync(target.parent)


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """A single file: `write` gets a path of the same name elsewhere. Raises WriteError."""
    target = Path(os.path.realpath(path))
    with _telling(path), workshop(target.parent) as shop:
        made = shop / NEW / target.name
        write(made)
        _sync(made)
        written.note(target)
        os.replace(made, target)
        _sync(target.parent)


def write_text(path: Path, text: str) -> None:
    """A file of text, in UTF-8. Raises WriteError."""
    write_file(path, lambda made: made.write_text(text, encoding="utf-8"))


@contextmanager
def _telling(out: Path) -> Iterator[None]:
    """An OSError becomes a WriteError, with the path that it is about where that is another one than `out`."""
    try:
        yield
    except OSError as error:
        about = "" if error.filename is None or out.name in str(error.filename) else f" ({error.filename})"
        raise WriteError(f"cannot write {out}: {told.reason(error)}{about}") from error


def _placed(made: Path, target: Path) -> bool:
    """Moves what is new to its place; False when something is there."""
    try:
        os.rename(made, target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _move_aside(target: Path, old: Path, kind: Kind) -> None:
    """Raises WriteError when what is there has ceased to be of the kind. Does nothing when another command moves it meanwhile."""
    with suppress(FileNotFoundError):
        seen = os.stat(target)
        if foreign := kind.foreign(target):
            if os.path.samestat(seen, os.stat(target)):
                raise WriteError(f"will not replace {target}: {foreign}")
            return
        shutil.rmtree(old, ignore_errors=True)  # moved aside before; since then another command has put its own there
        os.rename(target, old)


def _sync(path: Path) -> None:
    """To the disk. Folders where the file system can."""
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
