"""The command `kvplan`, also as `python -m kvplan`."""

import sys

from kvplan.sim.cli import process


def main() -> None:
    """Entry point."""
    sys.exit(process.run(_command))


def _command() -> None:
    from kvplan.commands import app  # where a Ctrl-C meanwhile is heard

    app()


if __name__ == "__main__":
    main()
