"""The notebooks: committed as they ran, from top to bottom. `make notebooks` runs them, and CI the short ones."""

import ast
import base64
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
PAGES = sorted(FOLDER.glob("*.ipynb"))
PUBLIC = ("kvplan", "kvplan.sim.policies.base", "kvplan.sim.policies.lazyheap")
"""What a notebook may import of kvplan."""
LONG = dict.fromkeys(["02_plan", "03_policies", "05_savings"], pytest.mark.minutes)
"""Half a minute and more: run by `make readme` and `make notebooks`; the others in CI as well."""
each_notebook = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@each_notebook
def test_it_was_run_from_top_to_bottom_without_errors(path):
    cells = code(nbformat.read(path, as_version=4))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error" or output.get("name") == "stderr"]


@each_notebook
def test_it_has_pictures_of_some_size(path):
    outputs = [output for cell in code(nbformat.read(path, as_version=4)) for output in cell.outputs]
    pictures = [base64.b64decode(output.data["image/png"]) for output in outputs if "image/png" in output.get("data", {})]
    widths = [int.from_bytes(picture[16:20], "big") for picture in pictures]
    assert widths and min(widths) > 800


@each_notebook
def test_it_uses_public_names_only(path):
    for cell in code(nbformat.read(path, as_version=4)):
        lines = [line for line in cell.source.splitlines() if not line.startswith(("%", "!"))]
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert all(name in PUBLIC for name in names if name.startswith("kvplan")), names


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", [pytest.param(path, marks=LONG.get(path.stem, pytest.mark.slow), id=path.stem) for path in PAGES])
def test_it_runs(path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("KVPLAN_GUARDS", "0")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
