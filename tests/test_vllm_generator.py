"""vLLM's multi-turn generator file: its laws, its lengths, its seed, and what it refuses."""

import json

import numpy as np
import pytest

from kvplan import traces
from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.traces import TraceError, origin

FILE = {
    "filetype": "generate_conversations",
    "num_conversations": 400,
    "text_files": ["book.txt"],
    "prompt_input": {
        "num_turns": {"distribution": "uniform", "min": 12, "max": 18},
        "common_prefix_num_tokens": {"distribution": "constant", "value": 500},
        "prefix_num_tokens": {"distribution": "lognormal", "average": 1000, "max": 5000},
        "num_tokens": {"distribution": "uniform", "min": 120, "max": 160},
    },
    "prompt_output": {"num_tokens": {"distribution": "uniform", "min": 80, "max": 120}},
}


@pytest.fixture
def read(tmp_path):
    """A function that reads the file above with one law replaced."""

    def reading(**laws):
        changed = json.loads(json.dumps(FILE))
        for name, law in laws.items():
            changed["prompt_output" if name == "answer" else "prompt_input"]["num_tokens" if name == "answer" else name] = law
        (tmp_path / "t.json").write_text(json.dumps(changed))
        return traces.read_trace(tmp_path / "t.json")

    return reading


def test_the_example_of_vllm_has_the_lengths_that_its_benchmark_reports(read):
    """`input_num_tokens` 2,006 in the mean of 166 requests, from 522, which leaves no room for a common prefix of 500; answers of 100.

    Source: vLLM's benchmarks/multi_turn/README.md."""
    alone = read(common_prefix_num_tokens={"distribution": "constant", "value": 0})
    assert (alone.history_tokens + alone.prompt_tokens).mean() == pytest.approx(2006, rel=0.07)
    table = read()
    assert table.sessions == 400 and set(np.diff(table.first_turn)) == {6, 7, 8, 9}
    sent = table.history_tokens + table.prompt_tokens
    assert sent.min() > 519
    assert table.output_tokens.mean() == pytest.approx(100, abs=1) and (table.output_tokens.min(), table.output_tokens.max()) == (80, 120)
    later = table.prompt_tokens[~table.is_first]
    assert (later.min(), later.max()) == (120, 160) and later.mean() == pytest.approx(140, abs=1)
    firsts = table.prompt_tokens[table.is_first] - 519
    assert firsts.mean() == pytest.approx(1000, rel=0.1) and firsts.max() <= 5000
    assert not table.arrivals_known and "drawn by the laws" in " ".join(origin.notes(table.origin))
    assert table.origin["shared_by_sessions"] == pytest.approx(500 * 399 / sent.sum())


@pytest.mark.parametrize(
    ("law", "mean", "most"),
    [
        ({"distribution": "constant", "value": 70}, 70, 70),
        ({"distribution": "uniform", "min": 1, "max": 3}, 2, 3),
        ({"distribution": "uniform", "min": 1.5, "max": 9.5}, 5.5, 10),
        ({"distribution": "zipf", "alpha": 2.5, "max": 40}, 1.79, 40),
        ({"distribution": "poisson", "alpha": 30}, 30, 80),
        ({"distribution": "poisson", "alpha": 30, "max": 20}, 20, 20),
        ({"distribution": "lognormal", "average": 200, "median_ratio": 0.6}, 200, 1e5),
        ({"distribution": "lognormal", "mean": 4.0, "sigma": 0.1}, 54.9, 120),
    ],
)
def test_every_law_is_one_of_ours(read, law, mean, most):
    answers = read(answer=law).output_tokens
    assert answers.mean() == pytest.approx(mean, rel=0.06) and answers.max() <= most and answers.min() >= 1


def test_prompts_have_what_the_generator_writes_around_them(read):
    short = read(num_tokens={"distribution": "constant", "value": 1}, prefix_num_tokens={"distribution": "constant", "value": 0})
    assert set(short.prompt_tokens[short.is_first]) == {519} and set(short.prompt_tokens[~short.is_first]) == {19}
    single = read(num_turns={"distribution": "constant", "value": 1})
    assert single.turns == single.sessions == 400


def test_the_seed_of_the_run_draws_it(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps(FILE))
    loaded = [config.load(None, {"workload.trace": str(tmp_path / "t.json"), "seed": seed}) for seed in (1, 1, 2)]
    same, again, other = (build_workload(each).prompt_tokens.tolist() for each in loaded)
    assert same == again != other
    assert traces.read_trace(tmp_path / "t.json").prompt_tokens.tolist() == traces.read_trace(tmp_path / "t.json").prompt_tokens.tolist()


@pytest.mark.parametrize(
    ("laws", "words"),
    [
        ({"num_turns": {"distribution": "normal", "value": 1}}, "`num_turns` has the distribution 'normal'; known are constant, uniform"),
        ({"num_turns": {"distribution": "uniform", "min": 9, "max": 2}}, "`num_turns` is no uniform law: .*max 2.5 is below min 8.5"),
        ({"num_tokens": {"distribution": "zipf", "alpha": 1.0}}, "`num_tokens` is no zipf law: alpha: .*greater than or equal to 1.01"),
        ({"num_tokens": {"distribution": "constant"}}, "`num_tokens`: has no `value`"),
        ({"answer": {"distribution": "lognormal", "average": 9, "median_ratio": 2}}, "`num_tokens`: `median_ratio` is 2, not between 0"),
        ({"answer": {"distribution": "lognormal", "mean": 1e9, "sigma": 1}}, "`num_tokens` is no lognormal law: math range error"),
        ({"num_turns": {"distribution": "constant", "value": 1e8}}, "`num_turns` gives .* turns; at most 10,000,000 are drawn"),
        ({"prefix_num_tokens": 7}, "is not a law in `prefix_num_tokens`: 7"),
    ],
)
def test_laws_that_cannot_be_are_refused_by_name(read, laws, words):
    with pytest.raises(TraceError, match=f"record 1: {words}"):
        read(**laws)
