"""What the command says beside its results."""

import sys

from kvplan.foreign.text import visible


def say(text: str) -> None:
    """One line to stderr, names of others in it."""
    print(visible(text), file=sys.stderr)
