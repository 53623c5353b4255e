"""How a result leaves a command: it is printed, then written, and neither is lost when the other fails."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kvplan.sim.cli.talk import say


def deliver(show: Callable[[], object], *writes: tuple[Path | None, Callable[[Path], object]]) -> None:
    """Calls `show`, then the function of each path that is given with it, whatever fails before it. Raises the last failure."""
    failures = []
    for act in (partial(_shown, show), *(partial(_written, path, write) for path, write in writes if path is not None)):
        try:
            act()
        except Exception as error:
            failures.append(error)
    if failures:
        raise failures[-1]


def _shown(show: Callable[[], object]) -> None:
    show()
    sys.stdout.flush()


def _written(path: Path, write: Callable[[Path], object]) -> None:
    write(path)
    say(f"wrote {path}")
