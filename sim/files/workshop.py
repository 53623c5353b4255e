"""Working folders: what is written is made in one, beside its target, and is moved to its place when it is whole.

`.kvplan-XXXXXXXX` holds `new/`, and `old/` for what has to make room. A process holds a lock on its working folder, which ends with the
process, however that ends. So a later command can tell what is left of a dead one: it gives back what lost its place, and removes the
rest. Where folders cannot be locked (NFS, Windows) leftovers stay.
"""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".kvplan-"
NEW, OLD, _GONE = "new", "old", "gone"
_NAME = re.compile(re.escape(PREFIX) + "[a-z0-9_]{8}")


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A working folder of this process's own, in `folder`; cleared at the end. Leftovers of others are cleared before. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    shop, lock = _opened(folder)
    try:
        (shop / NEW).mkdir()
        (shop / OLD).mkdir()
        yield shop
    finally:
        try:
            _clear(shop)
        finally:
            _unlock(lock)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder` for as long as the block lasts. Raises OSError."""
    with workshop(folder) as shop:
        yield shop / NEW


def is_workshop(path: Path) -> bool:
    """By its name and by what is in it."""
    try:
        return bool(_NAME.fullmatch(path.name)) and stat.S_ISDIR(path.lstat().st_mode) and set(os.listdir(path)) <= {NEW, OLD, _GONE}
    except OSError:
        return False


def clear_leftovers(folder: Path) -> None:
    """Clears the working folders in `folder` whose processes are gone."""
    for path in filter(is_workshop, map(Path, os.scandir(folder))):
        if (lock := _lock(path, wait=False)) is not None:
            with suppress(OSError):  # it cannot be cleared: no reason not to write
                _clear(path)
            _unlock(lock)


def _opened(folder: Path) -> tuple[Path, int | None]:
    """A new working folder, and the descriptor that holds its lock."""
    while True:
        shop = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        lock = _lock(shop, wait=True)
        if shop.exists():  # else another command took it for a leftover before it was locked
            return shop, lock
        _unlock(lock)


def _lock(shop: Path, wait: bool) -> int | None:
    """A descriptor that holds a folder's lock until it is closed or the process ends; None when another has it, or there are no locks."""
    try:
        import fcntl

        descriptor = os.open(shop, os.O_RDONLY)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _clear(shop: Path) -> None:
    """Gives back what was moved aside and has no successor in its place; removes the working folder."""
    with suppress(FileNotFoundError):
        for name in os.listdir(shop / OLD):
            if not os.path.lexists(shop.parent / name):
                _give_back(shop / OLD / name, shop.parent / name)
        os.rename(shop / OLD, shop / _GONE)  # half removed, it shall not be given back
    shutil.rmtree(shop, ignore_errors=True)


def _give_back(old: Path, place: Path) -> None:
    try:
        os.rename(old, place)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another command has just put a successor there
            raise
