"""The command `kvplan`, also as `python -m kvplan`."""

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
    sys.exit(code)


def _command() -> None:
    from kvplan.commands import app

    app()


if __name__ == "__main__":
    main()
