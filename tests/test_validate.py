"""The checks of `kvplan validate` that take seconds."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kvplan.validate.benchmarks.against import command, pairs
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


def test_runs_beside_an_earlier_commit_are_paired_and_who_begins_alternates():
    order = []

    def side(name, seconds):
        return lambda settings: order.append(name) or pairs.Side(turns=100, events=250, seconds=seconds, peak_bytes=2**20)

    found = pairs.pairs((side("then", 3.0), side("now", 2.0)), ["warmup_turns=0"], 3)
    assert order == ["then", "now", "now", "then", "then", "now"]
    assert command.row("RE", found) == ["RE", "100", "30000.0", "20000.0", "1.50", "1.50 to 1.50", "1", "1", "250", "250"]


def test_the_interval_of_a_speedup_holds_its_median_and_bears_an_outlier():
    faster, low, high = pairs.speedup(np.array([1.2, 1.3, 1.25, 1.22, 9.0, 1.28, 1.24, 1.26]))
    assert low < faster < high < 2


@pytest.mark.parametrize(("events", "code"), [(250, 0), (251, 1)])
def test_a_commit_that_does_other_work_is_told(events, code, monkeypatch, capsys):
    monkeypatch.setattr(command, "install", lambda *_: None)
    monkeypatch.setattr(command, "run", lambda settings, folder=None: pairs.Side(100, events if folder else 250, 1.0, 2**20))
    assert command.main(["HEAD", "--pairs", "1"]) == code
    printed = capsys.readouterr()
    assert "times as fast" in printed.out and ("look-ahead" in printed.err) == bool(code)


def test_a_commit_that_is_not_there_is_refused(capsys):
    assert command.main(["no-such-commit"]) == 2
    assert capsys.readouterr().err.startswith("validate against: git failed: ")
