"""The commands as a group that helps with an option which is none: most are settings, and `--set` takes these by path."""

from typing import Any

import typer
from typer.core import TyperGroup

UsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Of typer's own copy of click, or of click itself, as typer's version has it."""


class Commands(TyperGroup):
    """See above."""

    def invoke(self, ctx: Any) -> Any:
        """Raises UsageError as the base class does, with more words where an unknown option has a setting's name."""
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _say_more(error)
            raise


def _say_more(error: Any) -> None:
    """See the class."""
    if "--help" in (getattr(error, "possibilities", None) or ()):
        error.possibilities.remove("--help")  # whatever was meant, not this
    if (option := _unknown(error)) and (paths := _settings(option)):
        error.message = f"No such option: {option}. It is a setting: {' or '.join(f'--set {path}=…' for path in paths)}"
        error.possibilities = []


def _unknown(error: Any) -> str:
    """The option that a command with `--set` does not have; empty for any other error."""
    if not hasattr(error, "possibilities") or error.ctx is None:
        return ""
    takes_settings = any("--set" in parameter.opts for parameter in error.ctx.command.params)
    return error.option_name if takes_settings else ""


def _settings(option: str) -> list[str]:
    from kvplan.sim.settings import settings

    name = option.lstrip("-").replace("-", "_")
    return [setting.path for setting in settings() if name in (setting.path, setting.path.rpartition(".")[2])]
