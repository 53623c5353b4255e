"""The command `kvplan`, also as `python -m kvplan`."""

import sys


def main() -> None:
    """Entry point."""
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
