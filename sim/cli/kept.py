"""What a Ctrl-C leaves of long work whose finished runs are kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from kvplan.sim.cli.talk import say


@contextmanager
def interruptible(folder: Path | None, done: Callable[[], str], what: str) -> Iterator[None]:
    """Ctrl-C in the block says what is kept in the folder, `done()` of `what`, or that nothing is; exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        kept = f"{done()} are kept in {folder}; the same command goes on from there"
        lost = f"nothing is kept; with --out DIR finished {what} are, and the same command goes on from there"
        say(f"kvplan: interrupted: {lost if folder is None else kept}")
        raise typer.Exit(1) from None
