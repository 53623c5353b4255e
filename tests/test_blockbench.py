"""The benchmark of servers of blocks: what it draws, and that a changed model is told."""

import numpy as np
import pytest

from kvplan.traces.prefixes import prefixes
from kvplan.validate.benchmarks.blockbench import command


def test_requests_are_drawn_like_those_of_the_trace():
    drawn = command.drawn(4000)
    blocks = drawn.blocks
    tree = prefixes(blocks.ids, blocks.first[:-1], np.diff(blocks.first))
    assert drawn.prompt_tokens.mean() == pytest.approx(12_000, rel=0.1) and drawn.output_tokens.mean() == pytest.approx(343, rel=0.1)
    assert 0.2 < tree.matched.sum() / tree.counts.sum() < 0.4
    assert drawn.arrival_s.max() == pytest.approx(4000 / 12_031 * 3_600, rel=0.1)


@pytest.mark.parametrize(("expected", "code"), [(0, 1), (None, 0)])
def test_a_changed_model_is_told(expected, code, monkeypatch, capsys):
    monkeypatch.setattr(command, "EVENTS", {} if expected is None else {(30, 512): expected})
    assert command.main(["--requests", "30"]) == code
    printed = capsys.readouterr()
    assert "30 requests, blocks of 512" in printed.out and ("the model has changed" in printed.err) == bool(code)


def test_a_trace_that_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_text("{}\n")
    assert command.main(["--trace", str(tmp_path / "log.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("validate blockbench: ")
