"""A folder of results -> its report: what is in it, read as what others wrote."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kvplan.foreign import files
from kvplan.foreign.files import UnreadableError
from kvplan.hwmodels import strictyaml
from kvplan.sim.files import told
from kvplan.sim.files.atomic import write_text
from kvplan.sim.report.page import of_blockcurve, of_compare, of_curve, of_plan, of_run, render
from kvplan.sim.report.page.content import Page
from kvplan.sim.report.page.names import COMPARISON, CONFIG, CURVE, HTML, MARKDOWN, PLAN, RUN, TIERS
from kvplan.sim.report.page.place import Place
from kvplan.sim.settings import without


class NoReportError(UnreadableError):
    """There is nothing to make a report of."""


def write_report(folder: Path, name: str | None = None) -> None:
    """report.html and report.md of a folder, each whole or not at all; `name`: of which JSON in it, where there are several. Raises
    NoReportError and WriteError."""
    for file, text in texts(folder, name).items():
        write_text(folder / file, text)


def texts(folder: Path, name: str | None = None) -> dict[str, str]:
    """The same by the names of the files."""
    page = made(folder, name)
    return {HTML: render.html(page), MARKDOWN: render.markdown(page)}


def made(folder: Path, name: str | None = None) -> Page:
    """The report of what is in a folder. Raises NoReportError."""
    name = name or _only(folder)
    if name not in _READERS:
        raise NoReportError(f"{folder / name} is none of {', '.join(_READERS)}")
    try:
        return _READERS[name](folder, Place(_json(folder / name)))
    except UnreadableError as error:
        raise NoReportError(str(error)) from None
    except OSError as error:
        raise NoReportError(told.line(error)) from None
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise NoReportError(f"{folder / name} is not what kvplan writes: {type(error).__name__}: {error}") from None


def _only(folder: Path) -> str:
    found = [name for name in _READERS if (folder / name).is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise NoReportError(f"{folder} has {' and '.join(found)}: name the one that is meant, for example {folder / found[0]}")
    raise NoReportError(f"{folder} has nothing to report on: none of {', '.join(_READERS)}; name a folder that kvplan wrote with --out")


def _json(path: Path) -> Any:
    return json.loads(files.read_text(path, files.TABLE_BYTES))


def _run(folder: Path, found: Place) -> Page:
    import pandas as pd

    resolved = strictyaml.loads(files.read_text(folder / CONFIG, files.YAML_BYTES))
    series = pd.read_parquet(io.BytesIO(files.read_bytes(folder / TIERS, files.TABLE_BYTES)))  # given a path, it takes UTF-8 only
    settings = without(resolved, found.value.get("unused_settings", ()))
    return of_run.page(found, settings, {str(name): series[name].to_numpy() for name in series})


_READERS: dict[str, Callable[[Path, Place], Page]] = {
    RUN: _run,
    PLAN: lambda _, found: of_plan.page(found),
    COMPARISON: lambda _, found: of_compare.page(found),
    CURVE: lambda _, found: (of_blockcurve if found.value.get("unit") == "block" else of_curve).page(found),
}
