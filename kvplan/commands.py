"""All commands: the simulator's, and `kvplan validate`, which only the face may know."""

import sys

import typer

from kvplan.sim.cli.app import app

__all__ = ["app"]

_PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command(context_settings=_PASSED_ON)
def validate(context: typer.Context) -> None:
    """Named checks against theory, published figures and real runs; and calibration: `kvplan validate --list`."""
    from kvplan.validate.__main__ import main as run

    sys.exit(run(context.args))
