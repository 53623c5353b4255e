"""How a command that cannot go on ends: with one line of why, and an exit code."""

import sys

USAGE = 2
"""What was asked for cannot be done so."""
FAILED = 1


def ended(command: str, why: object, code: int = USAGE) -> int:
    """Says why, an error or words, and gives the exit code. `command` is empty for `kvplan validate` itself."""
    print(f"validate {command}".rstrip() + f": {why}", file=sys.stderr)
    return code
