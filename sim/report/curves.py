"""A curve, of whole sessions or of blocks: printed, shown in a notebook, and written into a folder."""

import csv
from pathlib import Path
from types import ModuleType

from kvplan.foreign.text import cell
from kvplan.sim.files.atomic import write_file, write_text
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.report import blockcurve, curve
from kvplan.sim.report.console import html_table, print_table
from kvplan.sim.report.page import names

SUMMARY, ROWS, PICTURE = names.CURVE, "curve.csv", "curve.png"


def words(found: dict) -> ModuleType:
    """What says it: title, table, sentences, warnings, rows and picture."""
    return blockcurve if found.get("unit") == "block" else curve


def print_curve(found: dict) -> None:
    """To stdout."""
    print_table(*_shown(found))


def html(found: dict) -> str:
    """The same for a notebook."""
    return html_table(*_shown(found))


def _shown(found: dict) -> tuple:
    by = words(found)
    return by.title(found), by.table(found), [*by.sentences(found), *by.warnings(found)]


def write_curve(found: dict, folder: Path) -> None:
    """curve.json, curve.csv, curve.png and the report, each whole or not at all. Raises WriteError."""
    from kvplan.sim.report.page import folder as pages

    write_text(folder / SUMMARY, dumps(found))
    write_file(folder / ROWS, lambda path: _write_rows(found, path))
    write_file(folder / PICTURE, lambda path: words(found).draw(found, path))
    pages.write_report(folder, SUMMARY)


def _write_rows(found: dict, path: Path) -> None:
    by = words(found)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, by.columns(found))
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in by.point_rows(found))
