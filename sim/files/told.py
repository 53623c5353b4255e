"""Errors of the operating system as one line, and whose they are."""

import errno

_USERS = {
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EROFS,
}
"""What is wrong with a path that was named; everything else (no space, too many open files, a failing disk) is the machine's."""


_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF}


def reason(error: OSError) -> str:
    """What happened, without the path."""
    return error.strerror or str(error) or type(error).__name__


def line(error: OSError) -> str:
    """What happened, with the path where there is one: stdout has none."""
    if error.filename is not None:
        return f"{error.filename}: {reason(error)}"
    return f"cannot write the output: {reason(error)}" if error.errno in _OF_WRITING else reason(error)


def exit_code(error: OSError) -> int:
    """2 for a path that cannot be used as it was named, else 1."""
    return 2 if error.filename is not None and error.errno in _USERS else 1
