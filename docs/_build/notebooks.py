"""Notebooks as pages, with the outputs and pictures that are committed in them."""

import re
from collections.abc import Iterator
from pathlib import Path

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""Of a terminal, in what commands print."""
FOLDER = Path(__file__).resolve().parents[2] / "notebooks"


def found() -> list[Path]:
    """All notebooks, in their order."""
    return sorted(FOLDER.glob("*.ipynb"))


def pages(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """(path in the site, content) of the page and of its pictures."""
    from nbconvert import MarkdownExporter

    body, resources = MarkdownExporter().from_filename(str(path), resources={"output_files_dir": path.stem})
    yield f"notebooks/{path.stem}.md", _COLOURS.sub("", body).replace(".ipynb)", ".md)").replace("](../docs/", "](../")
    for name, content in resources["outputs"].items():
        yield f"notebooks/{name}", content
