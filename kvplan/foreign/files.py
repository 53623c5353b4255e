"""Reading files that others wrote: regular files only, bounded, and every error told as what it is.

A pipe or a device is never opened for reading: it could hang, or give bytes without end. Files that are read whole have a bound;
traces are streamed, and have none.
"""

import errno
import io
import os
import stat
from pathlib import Path

YAML_BYTES = 1 << 18
"""Largest configuration or catalogue entry; parsing this much takes 3 s at worst."""
JSON_BYTES = 1 << 20
"""Largest config.json."""
TABLE_BYTES = 1 << 28
"""Largest tokenizer.json, and largest record of a finished run."""

_REASONS = {
    errno.ENOENT: "no such file",
    errno.ENOTDIR: "a part of the path is no folder",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its symbolic links go round in a circle",
    errno.EMFILE: "too many open files (`ulimit -n`)",
    errno.ENFILE: "the machine has too many open files",
    errno.EIO: "the disk fails to read it",
}


class UnreadableError(ValueError):
    """A file cannot be read; the message has its path and the reason."""


def reason(error: Exception) -> str:
    """Why opening or reading failed, in words."""
    if isinstance(error, OSError):
        return _REASONS.get(error.errno or 0) or error.strerror or str(error)
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8 text"
    return "there can be no such name" if isinstance(error, ValueError) else str(error)


def opened(path: str | os.PathLike) -> io.BufferedReader:
    """The bytes of a regular file. Raises UnreadableError."""
    try:
        return open(path, "rb", opener=_open_regular)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UnreadableError(f"cannot read {os.fspath(path)}: {reason(error)}") from None


def _open_regular(path: str, flags: int) -> int:
    """As `os.open`, but without waiting for a pipe's other end. Raises OSError for all but regular files."""
    number = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return number
    os.close(number)
    raise OSError(errno.EISDIR, "") if stat.S_ISDIR(mode) else OSError("it is a pipe or device: save it to a file first")


def read_bytes(path: str | os.PathLike, most: int) -> bytes:
    """All bytes of a regular file of at most `most` bytes. Raises UnreadableError."""
    try:
        with opened(path) as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UnreadableError(f"cannot read {os.fspath(path)}: {reason(error)}") from None
    if len(data) > most:
        raise UnreadableError(f"cannot read {os.fspath(path)}: it is larger than {most >> 10:,} KiB")
    return data


def read_text(path: str | os.PathLike, most: int) -> str:
    """The same as UTF-8 text, without a byte order mark. Raises UnreadableError."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"cannot read {os.fspath(path)}: {reason(error)}") from None


def inside(folder: str | os.PathLike) -> list[Path]:
    """What is in a folder, by name. Raises UnreadableError."""
    try:
        return sorted(Path(folder).iterdir())
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot read {os.fspath(folder)}: {reason(error)}") from None


def is_folder(path: str | os.PathLike) -> bool:
    """Whether it is a folder. Raises UnreadableError when there is nothing, or nothing may be known of it."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError) as error:
        raise UnreadableError(f"cannot read {os.fspath(path)}: {reason(error)}") from None
