"""`kvplan report`."""

from pathlib import Path

from kvplan.foreign.files import is_folder
from kvplan.sim.cli.talk import say
from kvplan.sim.report.page import folder as pages
from kvplan.sim.report.page import names


def run(folder: Path) -> None:
    """Writes the report of a folder, or of the JSON in it that is named."""
    place, name = (folder, None) if is_folder(folder) else (folder.parent, folder.name)
    pages.write_report(place, name)
    say(f"wrote {place / names.HTML} and {place / names.MARKDOWN}")
