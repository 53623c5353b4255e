"""The command `kvplan`, also as `python -m kvplan`."""

import gc
import os
import sys


def main() -> None:
    """Entry point."""
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # to look for any, it reads the metadata of all that is installed
    try:
        from kvplan.sim.cli import process

        code: int | str = process.run_command(_command)
    except KeyboardInterrupt:  # before `process` hears signals
        code = "kvplan: interrupted, nothing was written"
    gc.freeze()  # Python looks through all that there is, before it ends: a fifth of the time of a short command
    sys.exit(code)


def _command() -> None:
    from kvplan.commands import app

    app()


if __name__ == "__main__":
    main()
