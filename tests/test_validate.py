"""The checks of `kvplan validate` that take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

from kvplan.validate.checks import micro

ROOT = Path(__file__).resolve().parents[1]


def test_micro_figures_are_near_the_published_ones():
    for name, published, simulated, _ in micro.comparisons():
        assert simulated == pytest.approx(published, rel=0.2), name


def test_decode_is_near_gpt_fast_for_dense_models_and_a_mixture():
    """With one request, two of a mixture's eight experts are read."""
    figures = [row for row in micro.other_systems() if row[3] == "gpt-fast README"]
    assert any(name.startswith("Mixtral") for name, *_ in figures)
    for name, published, simulated, _ in figures:
        assert simulated == pytest.approx(published, rel=0.18), name


def test_the_command_lists_and_refuses():
    listed = subprocess.run([sys.executable, "-m", "kvplan.validate", "--list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "micro" in listed.stdout and "paper" in listed.stdout
    assert subprocess.run([sys.executable, "-m", "kvplan.validate", "nope"], cwd=ROOT, capture_output=True).returncode == 2


@pytest.mark.parametrize(("answer", "count"), [(9, 8), (34, 14), (None, 21)])
def test_a_search_without_bounds_looks_from_one_replica_on(answer, count):
    """Up by a third until one meets the target, or 512 do not; then halfway between the two."""
    from kvplan.validate.benchmarks.planbench import looks

    assert looks(answer, 512) == count
