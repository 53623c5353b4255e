"""Pictures: one style for all, and a format by the suffix of the file. Drawn without pyplot, so that a notebook's own settings stay.

The same data give the same bytes: neither dates nor random names of parts go into a file.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvplan.foreign.text import CELL, visible
from kvplan.sim.files.ours import OutputError, begins, check_file

FORMATS = {".png": {}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Suffix -> metadata that would change from day to day, left out."""
_HEADS = {".png": (b"\x89PNG",), ".svg": (b"<?xml", b"<svg"), ".pdf": (b"%PDF",)}
"""How pictures begin, of which another one may take the place."""
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "kvplan",
}


def label(text: str) -> str:
    """Text for a picture, whose dollar signs are no formulas."""
    return visible(text, CELL // 2).replace("$", r"\$")


def check_picture(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Before long work: that a picture can be written there, and takes the place of no input. Raises OutputError."""
    if path.suffix.lower() not in FORMATS:
        raise OutputError(f"cannot draw {path}: the name of a picture ends in {', '.join(FORMATS)}")
    check_file(path, begins(*_HEADS[path.suffix.lower()]), inputs)


@contextmanager
def picture(path: Path | None, rows: int, columns: int, size: tuple[float, float], **how) -> Iterator[tuple]:
    """A new figure of `size` inches and its axes, as `Figure.subplots` gives them; saved there when the block ends well. Raises OSError."""
    import matplotlib

    from kvplan.sim.report.drawing import Drawing

    with matplotlib.rc_context(_STYLE):
        figure = Drawing(figsize=size, layout="constrained")
        yield figure, figure.subplots(rows, columns, **how)
        if path is not None:
            figure.savefig(path, dpi=130, metadata=FORMATS[path.suffix.lower()])
