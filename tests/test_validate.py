"""The checks of `kvplan validate` that take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from kvplan.validate.checks import micro

ROOT = Path(__file__).resolve().parents[1]


def test_micro_figures_are_near_the_published_ones():
    for name, published, generated in micro.population():
        assert generated == pytest.approx(published, rel=0.2), name
    of_paper = micro.small_cases("paper").judged
    assert len(of_paper) == 5
    for cell in of_paper:
        assert cell.ours == pytest.approx(cell.published, rel=0.2), cell.quantity.name


def test_decode_is_near_gpt_fast_for_dense_models_and_a_mixture():
    """With one request, two of a mixture's eight experts are read."""
    figures = [cell for cell in micro.small_cases("published").judged if cell.figure == "gpt-fast"]
    assert any(cell.point.startswith("Mixtral") for cell in figures)
    for cell in figures:
        assert cell.ours == pytest.approx(cell.published, rel=0.18), cell.point


def test_the_command_lists_and_refuses():
    listed = subprocess.run([sys.executable, "-m", "kvplan.validate", "--list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "micro" in listed.stdout and "paper" in listed.stdout
    assert subprocess.run([sys.executable, "-m", "kvplan.validate", "nope"], cwd=ROOT, capture_output=True).returncode == 2


@pytest.mark.parametrize(("answer", "count"), [(9, 8), (34, 14), (None, 21)])
def test_a_search_without_bounds_looks_from_one_replica_on(answer, count):
    """Up by a third until one meets the target, or 512 do not; then halfway between the two."""
    from kvplan.validate.benchmarks.planbench import looks

    assert looks(answer, 512) == count
