"""The wheel of `aisimulate` (NVIDIA), with what others have measured: read where it lies; nothing of it is installed, run or shipped."""

import fnmatch
import re
from pathlib import Path
from zipfile import BadZipFile, ZipFile

FETCH = "pip download --no-deps --pre --only-binary :all: aisimulate"
CORE = "aisimulate_core"
"""The folder in which its data are."""


class NotAWheel(ValueError):
    """What was given is not a wheel of aisimulate with what is looked for in it; the message says how to get one."""


class Wheel:
    """One that the user has fetched."""

    def __init__(self, path: Path, needed: str):
        """`needed`: the name of a file that must be in it, or a pattern for some. Raises NotAWheel."""
        self._path = path
        try:
            self._zip = ZipFile(path)
        except (OSError, BadZipFile) as error:
            raise self._unread(error) from None
        self.names = self._zip.namelist()
        if not self.has(needed):
            raise NotAWheel(f"{path}: has no {needed}; fetch one with: {FETCH}")

    @property
    def version(self) -> str:
        """Without what marks one that comes before its release."""
        found = (re.match(r"aisimulate-(\d+(?:\.\d+)*).*\.dist-info/", name) for name in self.names)
        return next((match[1] for match in found if match), "")

    def has(self, pattern: str) -> bool:
        """Whether any file's name is of the pattern."""
        return bool(fnmatch.filter(self.names, pattern))

    def read(self, name: str) -> bytes:
        """A file's content. Raises KeyError where there is none, and NotAWheel where it is damaged."""
        try:
            return self._zip.read(name)
        except (OSError, BadZipFile) as error:
            raise self._unread(error) from None

    def _unread(self, error: Exception) -> NotAWheel:
        return NotAWheel(f"{self._path}: cannot be read as a wheel ({error}); fetch one with: {FETCH}")
