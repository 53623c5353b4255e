"""The command `kvplan`, also as `python -m kvplan`."""

import gc
import sys

_OBJECTS = 100_000
"""New ones after which the collector looks for circles. Modules make hundreds of thousands that stay; a fifth of a start would be spent on
looking at them after every 700."""


def main() -> None:
    """Entry point."""
    gc.set_threshold(_OBJECTS)
    try:
        from kvplan.sim.cli import process

        code: int | str = process.run_command(_command)
    except KeyboardInterrupt:  # before `process` hears signals
        code = "kvplan: interrupted, nothing was written"
    sys.exit(code)


def _command() -> None:
    from kvplan.commands import app

    app()


if __name__ == "__main__":
    main()
