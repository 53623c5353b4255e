"""What this process has written, for the line that says so when it is interrupted."""

from collections import Counter
from pathlib import Path

_FEW = 5
_paths: list[Path] = []


def note(path: Path) -> None:
    """A file or folder is about to be in its place."""
    _paths.append(path)


def sentence() -> str:
    """`nothing was written`, or what was: names, and numbers of files where many are in one folder."""
    there = [path for path in _paths if path.exists()]
    together = Counter(path.parent for path in there)
    many = [f"{count} files in {folder}" for folder, count in together.items() if count > _FEW]
    few = [str(path) for path in there if together[path.parent] <= _FEW]
    return f"written: {', '.join(many + few)}" if there else "nothing was written"
