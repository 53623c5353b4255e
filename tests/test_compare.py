"""Many runs side by side: axes and labels, replications and digests, statistics, words, resuming, failures, and the two commands."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan.hwmodels.units import format_seconds
from kvplan.sim import config as configuration
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError
from kvplan.sim.contents import content
from kvplan.sim.deployment import resolve
from kvplan.sim.files.ours import OutputError
from kvplan.sim.inputs import workload_files
from kvplan.sim.policies.registry import PolicyError, policies
from kvplan.sim.report import compare_words
from kvplan.sim.report.compare import sentences
from kvplan.sim.report.compare_account import account
from kvplan.sim.report.metric_names import metric
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep import curve as curves
from kvplan.sim.sweep import runs, stats
from kvplan.sim.sweep.axes import Axis, points
from kvplan.sim.sweep.compare import Question, compare, prepare
from kvplan.sim.sweep.digest import digest
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.measures import measure
from kvplan.sim.sweep.pool import Failed, attempt, pool
from kvplan.sim.sweep.runs import Outcome, in_order, replicated
from kvplan.traces.context import contexts

ROOT = Path(__file__).resolve().parents[1]
SMALL = ("workload.sessions=40", "store.dram=8GB", "store.ssd=30GB", "warmup_turns=0")
OPTIONS = [part for override in SMALL for part in ("--set", override)]
BROKEN = (
    "from kvplan.sim.policies.eviction.lru import Lru\n\n\nclass Broken(Lru):\n    NAME = 'broken'\n\n"
    "    def victim(self):\n        raise LookupError('no such session')\n"
)


def kvplan(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def question(*axes: str, replications: int = 2, overrides=SMALL, **more) -> Question:
    return Question(None, tuple(overrides), tuple(map(Axis.parse, axes)), replications, **more)


def compared(folder: Path, *axes: str, jobs: int = 1, **more) -> dict:
    with pool(jobs) as workers:
        return account(compare(prepare(question(*axes, **more)), KeptRuns(folder, Outcome), workers))


def labels(*axes: str) -> list[str]:
    return [point.label for point in points(list(map(Axis.parse, axes)))]


# --- axes -------------------------------------------------------------------------------------------------------------------------


def test_an_axis_of_one_path():
    assert Axis.parse("store.eviction=lru, fifo") == Axis(("store.eviction",), (("lru",), ("fifo",)))


def test_zipped_paths():
    axis = Axis.parse("store.eviction+store.prefetch=lru+none,lookahead+lookahead")
    assert axis.paths == ("store.eviction", "store.prefetch")
    assert axis.points == (("lru", "none"), ("lookahead", "lookahead"))
    assert Axis.parse(str(axis)) == axis


def test_brackets_braces_and_quotes_do_not_split():
    axis = Axis.parse("workload.arrival={process: poisson, rate_per_s: 0.1},{process: poisson, rate_per_s: 1e+1}")
    assert len(axis.points) == 2
    assert Axis.parse("model+seed='a,b+c'+1").points == (("'a,b+c'", "1"),)
    assert Axis.parse("seed=1e+1,2").points == (("1e+1",), ("2",)), "a plus sign splits zipped axes only"


def test_the_product_takes_the_last_axis_fastest():
    found = points([Axis.parse("store.eviction=lru,fifo"), Axis.parse("store.dram=64GB,128GB")])
    assert [point.texts for point in found] == [
        ["store.eviction=lru", "store.dram=64GB"],
        ["store.eviction=lru", "store.dram=128GB"],
        ["store.eviction=fifo", "store.dram=64GB"],
        ["store.eviction=fifo", "store.dram=128GB"],
    ]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (["store.eviction=lru,fifo"], ["lru", "fifo"]),
        (
            ["store.dram=64GB,256GB", "store.eviction=lru,fifo"],
            ["dram 64GB · lru", "dram 64GB · fifo", "dram 256GB · lru", "dram 256GB · fifo"],
        ),
        (["store.dram=64GB", "store.eviction=lru,fifo"], ["lru", "fifo"]),
        (["store.dram=64GB"], ["dram 64GB"]),
        (["store.dram=1GB,2GB", "store.ssd=1TB"], ["dram 1GB", "dram 2GB"]),
        (["deployment.max_batch=8,16"], ["max_batch 8", "max_batch 16"]),
        (["store.ttl_s=null,60"], ["ttl_s null", "ttl_s 60"]),
        (["store.eviction+store.prefetch=lru+none,fifo+none"], ["lru", "fifo"]),
        (["store.eviction+store.prefetch=lru+none,lru+lookahead"], ["lru+none", "lru+lookahead"]),
        (["store.dram+store.ssd=0GB+0GB,8GB+1TB"], ["dram 0GB+ssd 0GB", "dram 8GB+ssd 1TB"]),
        (["store.eviction=lookahead", "store.prefetch=none,lookahead"], ["prefetch none", "prefetch lookahead"]),
    ],
)
def test_labels_say_what_differs(axes, expected):
    assert labels(*axes) == expected


@given(
    st.lists(st.lists(st.sampled_from(["a", "b", "1", "2", "8GB", "null"]), min_size=1, max_size=4, unique=True), min_size=1, max_size=3)
)
@settings(max_examples=60, deadline=None)
def test_labels_are_unique(values):
    found = labels(*(f"p{place}.x{place}={','.join(items)}" for place, items in enumerate(values)))
    assert len(set(found)) == len(found) == np.prod([len(items) for items in values])


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        (["store.dram"], "path=value"),
        (["=1"], "path=value"),
        (["store.dram=1GB,,2GB"], "empty value"),
        (["store.dram=1GB,1GB"], "given twice"),
        (["store.dram=8GB,8.0GB"], "8GB is given twice, again as 8.0GB"),
        (["store.dram=8GB,8000MB"], "given twice"),
        (["seed=10,1e+1"], "given twice"),
        (["store.eviction=lru,'lru'"], "given twice"),
        (["store.dram+store.ssd=1GB+1TB,1.0GB+1TB"], "given twice"),
        (["workload.arrival={process: poisson, rate_per_s: 1},{rate_per_s: 1.0, process: poisson}"], "given twice"),
        (["seed+seed=1+2"], "given twice"),
        (["a+b=1,2"], "1 values for 2 paths"),
        (["workload.arrival={process: poisson"], "do not pair"),
        (["workload.arrival=process]"], "do not pair"),
        (["seed=1", "seed=2"], "two axes"),
    ],
)
def test_bad_axes_are_named(axes, message):
    with pytest.raises(ConfigError, match="--vary") as error:
        points(list(map(Axis.parse, axes)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("stoer.dram=1GB", "did you mean 'store.dram'"),
        ("store.eviction=lru,lrru", "did you mean 'lru'"),
        ("store.dram=8GB,9", "store.dram"),
        ("deployment.gpus=2,8", "has 4"),
        ("store.hbm=0GB,200GB", "does not fit"),
        ("model=llama-2-13b,nothing", "unknown model"),
    ],
)
def test_every_variant_is_checked_before_anything_runs(axis, message, monkeypatch):
    monkeypatch.setattr(runs, "simulate", lambda *_: pytest.fail("ran"))
    with pytest.raises(ConfigError, match="--vary") as error:
        prepare(question(axis))
    assert message in str(error.value) and axis.partition("=")[0] in str(error.value)


@pytest.mark.parametrize(
    ("axis", "overrides", "message"),
    [
        ("store.save=async,sync", ("store.unit=block",), "store.save=sync: blocks are saved"),
        ("model=llama-2-13b,mistral-7b", ("store.unit=block", "store.windows=windowed"), "every layer of mistral-7b has a window"),
        ("deployment.hbm_utilization=0.9,0.165", ("store.unit=block",), "a context of"),
        ("router=session,least-loaded", ("store.eviction=belady",), "store.eviction=belady goes by"),
    ],
)
def test_what_no_server_is_simulated_with_is_refused_before_anything_runs(axis, overrides, message, monkeypatch):
    monkeypatch.setattr(runs, "simulate", lambda *_: pytest.fail("ran"))
    options = [part for override in ("engine=vllm", *overrides) for part in ("--set", override)]
    result = kvplan("compare", *OPTIONS, *options, "--jobs", "1", "--vary", axis)
    path, _, values = axis.partition("=")
    said = " ".join(result.stderr.split())
    assert result.exit_code == 2 and f"--vary {path}={values.split(',')[-1]}: " in said and message in said and not result.stdout


# --- statistics -------------------------------------------------------------------------------------------------------------------


def test_an_interval_by_hand():
    found = stats.estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half_width == pytest.approx(4.302652729911275 / np.sqrt(3), rel=1e-9), "t(2, 97.5 %) · s / √n with s = 1"


@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=12))
@settings(max_examples=15, deadline=None)
def test_paired_t_agrees_with_scipy(rows):
    from scipy.stats import ttest_rel

    ours, theirs = map(np.array, zip(*rows, strict=True))
    if np.std(ours - theirs) < 1e-6:
        return
    found, expected = stats.paired(ours, theirs), ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    ends = found.mean - found.half_width, found.mean + found.half_width
    assert ends == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-9)


def test_differences_without_variance():
    assert stats.paired([1.0, 2.0], [1.0, 2.0]) == stats.Estimate(0.0, 0.0, 1.0)
    assert stats.paired([2.0, 3.0], [1.0, 2.0]) == stats.Estimate(1.0, 0.0, 0.0)
    assert stats.paired([2.0], [1.0]) == stats.Estimate(1.0, None, None)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (stats.Ratio(0.7, 0.65, 0.75, 0.01), "-30% ± 5"),
        (stats.Ratio(1.2, 0.9, 1.5, 0.2), "+20% ± 30"),
        (stats.Ratio(4.1, 3.0, 5.6, 0.01), "4.1x (3 to 5.6)"),
        (stats.Ratio(0.0853, 3e-6, 2e3, 0.5), "0.0853x (3e-06 to 2e+03)"),
    ],
)
def test_a_ratio_is_told_in_percent_where_its_interval_is_no_wider_than_what_is_compared(found, text):
    assert compare_words.change(found) == text


def test_ratios_by_hand_and_what_a_heavy_tail_hides():
    assert stats.ratio([2.0, 4.0], [1.0, 1.0]).factor == pytest.approx(np.sqrt(8))
    assert stats.ratio([1.0], [2.0]) == stats.Ratio(0.5, None, None, None)
    assert stats.ratio([1.0, 0.0], [2.0, 1.0]) is None, "nothing is a multiple of nothing"
    slow, fast = [0.9, 1.3, 16.0, 2.0, 2.8], [0.035, 0.034, 0.036, 0.035, 0.037]
    found = stats.ratio(slow, fast)
    assert stats.paired(slow, fast).p > 0.05 > found.p and 1 < found.low < found.factor < found.high
    assert stats.ratio(fast, slow).factor == pytest.approx(found.inverse().factor)
    values = {"slow": slow, "fast": fast}
    assert stats.pairs(values, relative=True)[0].apart and not stats.pairs(values)[0].apart


def test_holm_by_hand():
    """Four tests: 4 · 0.005, 3 · 0.01, then 2 · 0.03 and 1 · 0.04, which must not fall below the one before."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.6, 0.7]) == [1.0, 1.0]
    assert stats.holm([]) == []


def test_pairs_are_looked_up_both_ways():
    table = stats.Table(stats.pairs({"a": [1.0, 2.0], "b": [0.0, 0.5]}))
    assert table.pair("a", "b").difference.mean == 1.25 == -table.pair("b", "a").difference.mean


# --- words ------------------------------------------------------------------------------------------------------------------------


def said(values: dict, key: str = "hit_rate.resumed") -> list[str]:
    pairs = stats.pairs(values, metric(key).relative)
    return compare_words.verdict(key, {label: float(np.mean(items)) for label, items in values.items()}, pairs)


def test_a_winner_and_two_that_cannot_be_told_apart():
    noise = np.array([0.001, -0.002, 0.0015, -0.001, 0.0005])
    values = {"lru": 0.6 + noise, "lookahead": 0.87 + 8 * noise, "s3fifo": 0.599 - noise}
    assert said({label: items.tolist() for label, items in values.items()}) == [
        "lookahead: 27.0 ± 1.3 points more hit rate (resumed turns) than lru.",
        "lru and s3fifo cannot be told apart here in hit rate (resumed turns) (0.1 ± 0.4 points).",
    ]


def test_less_is_better_for_latencies():
    assert said({"slow": [2.0, 2.1, 2.2], "fast": [1.0, 1.11, 1.2]}, "ttft_s.mean") == ["fast: TTFT (mean) 48% ± 6 less than slow."]


def test_a_factor_is_said_as_one_and_not_as_percent():
    values = {"slow": [4.0, 4.4, 4.2], "fast": [1.0, 1.11, 1.2]}
    assert said(values, "prefill_tokens_per_s") == ["slow: prefill throughput 3.81x (3.2 to 4.6) that of fast."]


def test_a_gain_in_hits_that_is_a_loss_in_service_or_money_is_called_that(tmp_path):
    """More SSD hits more; here it also makes jobs wait for it and costs more, which no buyer wants."""
    crowded = ("workload.sessions=60", "store.load=always", "workload.arrival.rate_per_s=2", "cost.gpu_hours=busy")
    found = compared(tmp_path, "store.ssd=0GB,2TB", overrides=(*SMALL, *crowded), metric="hit_rate.resumed")
    assert len(found["words"]) == 1
    assert found["words"][0].startswith("ssd 2TB: ")
    assert (
        " points more hit rate (resumed turns) than ssd 0GB, but its " in found["words"][0]
        and "cost per million output tokens is" in found["words"][0]
    )


def test_the_verdict_goes_by_ttft_and_money_unless_there_is_an_objective(tmp_path):
    found = compared(tmp_path / "a", "store.eviction=lru,fifo")
    assert found["metric"] == "ttft_s.p95" and any("cost per million output tokens" in line for line in found["words"])
    assert compared(tmp_path / "b", "slo.ttft_p95_s=1.0,2.0")["metric"] == "goodput_per_s"


def test_warnings_of_the_runs_are_shown_once_with_their_variants(tmp_path):
    found = compared(tmp_path, "deployment.window_tokens=512,4096")
    (warning,) = [item for item in found["warnings"] if "longer than the window" in item["text"] and "512" in item["text"]]
    assert "window_tokens 512" in warning["variants"]
    assert any(warning["text"] in line for line in sentences(found))


def test_identical_is_said_and_one_stands_for_both():
    assert said({"a": [0.5, 0.6], "b": [0.5, 0.6]}) == ["a and b are identical here in hit rate (resumed turns)."]


def test_one_replication_has_no_intervals():
    assert said({"a": [0.5], "b": [0.7]}) == [
        "b: 20 points more hit rate (resumed turns) than a in the one replication: no intervals, it may be chance."
    ]


def test_twenty_variants_need_few_words():
    rng = np.random.default_rng(1)
    values = {f"v{number}": (number // 10 / 2 + 0.01 * rng.random(5)).tolist() for number in range(20)}
    found = said(values)
    assert len(found) == 3, found
    assert sum("cannot be told apart" in line for line in found) == 2


def test_a_large_difference_that_many_pairs_drown_says_so():
    rng = np.random.default_rng(3)
    values = {f"v{number}": (0.004 * number + 0.01 * rng.random(3)).tolist() for number in range(12)}
    assert any("not enough among 66 pairs" in line for line in said(values))


# --- runs -------------------------------------------------------------------------------------------------------------------------


def test_replication_0_is_what_simulate_gives(tmp_path):
    found = compared(tmp_path, "store.eviction=lru,fifo")
    alone = measure(simulate(configuration.load(None, [*SMALL, "store.eviction=fifo"])))
    assert {key: numbers[0] for key, numbers in found["variants"][1]["values"].items()} == alone
    assert found["variants"][1]["mean"]["hit_rate.resumed"] == pytest.approx(np.mean(found["variants"][1]["values"]["hit_rate.resumed"]))


def test_common_random_numbers():
    sweep = prepare(question("store.eviction=lru,fifo", replications=3))
    seeds = [[run.config.seed for run in sweep.runs if run.variant == label] for label in ("lru", "fifo")]
    assert seeds[0] == seeds[1] and len(set(seeds[0])) == 3 and seeds[0][0] == 1


def test_a_workload_is_built_once_per_replication(monkeypatch):
    deployment = []
    monkeypatch.setattr(runs, "build_workload", lambda config: deployment.append(config.seed) or build_workload(config))
    runs._workload.cache_clear()
    sweep = prepare(question("store.eviction=lru,fifo", replications=3))
    assert all(runs.outcome_of(run).values for run in in_order(sweep.runs))
    assert len(deployment) == 3


def test_any_number_of_processes_gives_the_same(tmp_path):
    one = compared(tmp_path / "1", "store.eviction=lookahead,lru,fifo", jobs=1)
    assert one == compared(tmp_path / "2", "store.eviction=lookahead,lru,fifo", jobs=2)
    names = [{path.name: path.read_bytes() for path in (tmp_path / name / "runs").iterdir()} for name in "12"]
    assert names[0] == names[1] and len(names[0]) == 6


def test_what_was_done_is_not_done_again(tmp_path, monkeypatch):
    """Cut off after two of four runs, then gone on with: the same result, from two more runs."""
    sweep = prepare(question("store.eviction=lru,fifo"))
    whole = account(compare(sweep, KeptRuns(tmp_path / "whole", Outcome)))

    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    records = KeptRuns(tmp_path / "cut", Outcome)
    with pytest.raises(KeyboardInterrupt):
        compare(sweep, records, progress=interrupt)
    assert records.count(run.digest for run in sweep.runs) == 2
    simulated = []
    monkeypatch.setattr(runs, "simulate", lambda *given: simulated.append(given) or simulate(*given))
    assert account(compare(sweep, records)) == whole
    assert len(simulated) == 2


def test_ctrl_c_says_what_is_kept(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "simulate", interrupt)
    with_out = kvplan("compare", *OPTIONS, "--jobs", "1", "--out", str(tmp_path / "c"))
    assert with_out.exit_code == 1 and "0 of" in with_out.stderr and "goes on from there" in with_out.stderr
    without = kvplan("compare", *OPTIONS, "--jobs", "1")
    assert without.exit_code == 1 and "nothing is kept" in without.stderr


def test_a_broken_record_is_named(tmp_path):
    compared(tmp_path, "store.eviction=lru")
    path = next((tmp_path / "runs").iterdir())
    path.write_text("{")
    with pytest.raises(OutputError, match=path.name):
        compared(tmp_path, "store.eviction=lru")


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [],
        lambda record: {key: value for key, value in record.items() if key != "result"},
        lambda record: {key: value for key, value in record.items() if key != "result_sha256"},
        lambda record: record | {"result": None},
        lambda record: record | {"result": [1]},
        *(
            lambda record, wrong=wrong: record | {"result": record["result"] | {"values": wrong}}
            for wrong in (None, [1], {}, {"hit_rate.resumed": 0.5})
        ),
        *(
            lambda record, wrong=wrong: record | {"result": record["result"] | {"values": {"hit_rate.resumed": wrong, "turns": 3.0}}}
            for wrong in ("x", None, True, float("nan"), float("inf"), 0.123)
        ),
    ],
)
def test_a_record_that_is_not_what_was_written_is_not_believed(change, tmp_path):
    (run,) = prepare(question("store.eviction=lru", replications=1)).runs
    records = KeptRuns(tmp_path, Outcome)
    whole = Outcome(run.digest, {"hit_rate.resumed": 0.25, "turns": 3.0})
    records.keep(run.digest, runs.about(run), whole)
    assert records.load(run.digest) == whole
    (path,) = (tmp_path / "runs").iterdir()
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(OutputError, match=f"cannot read .*{path.name}: .*; remove it to do this run again"):
        records.load(run.digest)


def test_a_digest_reads_only_what_the_run_reads(tmp_path, monkeypatch):
    """A folder of the model's name, as one with its weights, is nothing to a run."""
    monkeypatch.chdir(tmp_path)
    before = digest(configuration.load(None, SMALL))
    (tmp_path / "llama-2-13b").mkdir()
    (tmp_path / "llama-2-13b" / "weights.bin").write_bytes(b"many")
    (tmp_path / "lookahead").write_bytes(b"a file of a policy's name")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"read {path} at once"))
    assert digest(configuration.load(None, SMALL)) == before


def test_a_digest_covers_a_models_file_and_replayed_arrivals(tmp_path):
    model = tmp_path / "m" / "config.json"
    model.parent.mkdir()
    fields = {"num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "vocab_size": 32000,
              "max_position_embeddings": 4096, "torch_dtype": "float16", "model_type": "llama"}  # fmt: skip
    seen = set()
    for layers in (4, 8):
        model.write_text(json.dumps(fields | {"num_hidden_layers": layers}))
        seen.add(digest(configuration.load(None, [*SMALL, f"model={model}"])))
    assert len(seen) == 2
    seen = set()
    for name in "ab":
        path = tmp_path / name
        path.write_text(f"arrivals {name}")
        arrivals = f"workload.arrival={{process: replayed, trace: {path}}}"
        (named,) = workload_files(configuration.load(None, [*SMALL, arrivals]))
        seen.add(content(named))
    assert len(seen) == 2


def test_a_digest_covers_seed_settings_andworkload_files(tmp_path, monkeypatch):
    config = configuration.load(None, SMALL)
    assert digest(config) == digest(configuration.load(None, SMALL))
    assert digest(config) != digest(replicated(config, 1, None)) != digest(configuration.load(None, [*SMALL, "store.eviction=lru"]))
    kvplan("trace", "generate", str(tmp_path / "t.csv"), "--set", "workload.sessions=5")
    seen = set()
    for text in ((tmp_path / "t.csv").read_text(), (tmp_path / "t.csv").read_text() + "\n"):
        (tmp_path / "t.csv").write_text(text)
        seen.add(digest(configuration.load(None, [f"workload.trace={tmp_path / 't.csv'}"])))
    assert len(seen) == 2


# --- replications of a trace ------------------------------------------------------------------------------------------------------


@pytest.fixture
def trace(tmp_path) -> Path:
    """A canonical trace of 30 sessions with all its times, on which an answer never passes the window."""
    path = tmp_path / "t.csv"
    rng = np.random.default_rng(0)
    rows = [f"{session},{rng.integers(20, 400)},{rng.integers(20, 400)},{session * 3.0 if turn == 0 else ''},{0 if turn == 0 else 20.0}"
            for session in range(30) for turn in range(1 + session % 4)]  # fmt: skip
    path.write_text("session,prompt_tokens,output_tokens,arrival_s,gap_s\n" + "\n".join(rows) + "\n")
    return path


def test_sessions_of_a_trace_are_drawn_anew(trace, tmp_path):
    sweep = prepare(question("store.eviction=lru,fifo", overrides=(f"workload.trace={trace}", "store.dram=8GB", "store.ssd=30GB")))
    resampled = [run.config.workload.rescale.resample for run in sweep.runs]
    assert resampled[:2] == [None, 30] and set(resampled) == {None, 30}, "the first replication is the trace itself"
    turns = [build_workload(run.config).turns for run in sweep.runs]
    assert turns[0] == turns[2] and turns[1] == turns[3], "the same draw for both policies"
    assert len({tuple(build_workload(run.config).prompt_tokens) for run in sweep.runs}) == 2
    assert account(compare(sweep, KeptRuns(tmp_path, Outcome)))["provenance"]["resampled"]


def test_a_trace_of_one_session_has_one_replication(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("session,prompt_tokens,output_tokens,arrival_s,gap_s\n0,30,40,0.0,0\n0,20,10,,5.0\n")
    sweep = prepare(question("store.eviction=lru,fifo", overrides=(f"workload.trace={path}",), replications=5))
    assert sweep.replications == 1 and "nothing is drawn" in sweep.notes[0]


def test_without_resampling_a_whole_trace_is_the_same_every_time(trace):
    overrides = (f"workload.trace={trace}",)
    sweep = prepare(question("store.eviction=lru,fifo", overrides=overrides, resample=False, replications=5))
    assert sweep.replications == 1 and "nothing is drawn" in sweep.notes[0]
    trace.write_text("\n".join(",".join(line.split(",")[:3]) for line in trace.read_text().splitlines()) + "\n")
    assert prepare(question("store.eviction=lru,fifo", overrides=overrides, resample=False)).replications == 2, "times are drawn"


# --- failures ---------------------------------------------------------------------------------------------------------------------


def test_a_policy_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    (tmp_path / "broken_policy.py").write_text(BROKEN)
    (tmp_path / "unreadable_policy.py").write_text("def f(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    vary = "store.eviction=lru,broken_policy:Broken,unreadable_policy:X,fifo"
    result = kvplan("compare", *OPTIONS, "--vary", vary, "--replications", "2", "--jobs", "1", "--out", str(out))
    assert result.exit_code == 1
    assert "store.eviction=broken_policy:Broken failed in 2 replications" in result.stderr and "no such session" in result.stderr
    assert "store.eviction=unreadable_policy:X cannot run" in result.stderr
    assert "beats" in result.stdout or "apart" in result.stdout or "identical" in result.stdout
    saved = json.loads((out / "compare.json").read_text())
    assert [variant["label"] for variant in saved["variants"]] == ["lru", "fifo"]
    assert [failure["variant"] for failure in saved["failures"]] == ["broken_policy:Broken", "unreadable_policy:X"]
    assert len(list((out / "runs").iterdir())) == 4, "a failed run is tried again next time"


def test_what_a_policy_error_says_is_all_that_is_said(monkeypatch):
    def fail(*_):
        raise PolicyError("store.eviction: mine:Order.victim() gave 7")

    monkeypatch.setattr(runs, "simulate", fail)
    (run,) = prepare(question("store.eviction=lru", replications=1)).runs
    assert attempt(runs.outcome_of, run) == Failed("store.eviction: mine:Order.victim() gave 7")


def test_measures_that_are_not_finite_are_the_variants_failure(tmp_path, monkeypatch):
    def measured(result):
        found = measure(result)
        return found | {"hit_rate.resumed": float("nan")} if result.config.store.eviction == "lru" else found

    monkeypatch.setattr(runs, "measure", measured)
    found = compared(tmp_path, "store.eviction=lru,fifo")
    assert [variant["label"] for variant in found["variants"]] == ["fifo"]
    assert [failure["reason"] for failure in found["failures"]] == ["hit_rate.resumed is nan, which is no finite number"]


@pytest.mark.parametrize("place", ["import", "victim"])
def test_a_policy_that_exits_does_not_end_the_others(place, tmp_path, monkeypatch):
    leave = "raise SystemExit(3)"
    source = leave if place == "import" else BROKEN.replace("raise LookupError('no such session')", leave)
    (tmp_path / f"leaving_{place}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    vary = f"store.eviction=lru,leaving_{place}:Broken"
    result = kvplan("compare", *OPTIONS, "--vary", vary, "--replications", "1", "--jobs", "1", "--json")
    assert result.exit_code == 1 and "SystemExit: 3" in result.stderr
    assert [variant["label"] for variant in json.loads(result.stdout)["variants"]] == ["lru"]


def test_whatever_exits_in_a_run_is_its_failure(monkeypatch):
    def leave(*_):
        raise SystemExit(3)

    monkeypatch.setattr(runs, "simulate", leave)
    (run,) = prepare(question("store.eviction=lru", replications=1)).runs
    assert attempt(runs.outcome_of, run).reason.startswith("SystemExit: 3 ")


def test_a_quoted_policy_is_found_without_its_quotes(tmp_path, monkeypatch):
    (tmp_path / "quoted_policy.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    sweep = prepare(question('store.eviction=lru,"quoted_policy:Broken"', replications=1))
    assert [variant.failure for variant in sweep.variants] == [None, None]
    assert sweep.variants[1].config.store.eviction == "quoted_policy:Broken"


def test_a_baseline_that_fails_is_replaced_and_this_is_said(tmp_path, monkeypatch):
    (tmp_path / "broken_policy.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    axis = "store.eviction=lru,broken_policy:Broken"
    found = compared(tmp_path / "c", axis, baseline="broken_policy:Broken")
    assert found["baseline"] == "lru"
    assert found["notes"] == ["the baseline broken_policy:Broken has nothing to compare with, so differences are to lru"]
    assert compared(tmp_path / "c", axis)["notes"] == []


def test_when_all_fail_nothing_is_written(tmp_path, monkeypatch):
    (tmp_path / "broken_policy.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "out"
    result = kvplan("compare", *OPTIONS, "--vary", "store.eviction=broken_policy:Broken", "--jobs", "1", "--out", str(out))
    assert result.exit_code == 1 and result.stdout == "" and not out.exists()


# --- the command ------------------------------------------------------------------------------------------------------------------


def test_compare_writes_a_folder_and_prints_json(tmp_path):
    out = tmp_path / "deep" / "c"
    vary = ["--vary", "store.eviction=lru,fifo", "--vary", "deployment.max_batch=4,8"]
    vary += ["--replications", "2", "--jobs", "1", "--baseline", "lru · max_batch 8"]
    result = kvplan("compare", *OPTIONS, *vary, "--out", str(out), "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert result.stdout == (out / "compare.json").read_text()
    assert {path.name for path in out.iterdir()} == {"compare.json", "compare.csv", "compare.png", "report.html", "report.md", "runs"}
    assert found["baseline"] == "lru · max_batch 8" and len(found["variants"]) == 4 and len(found["pairs"]) == 6 and found["words"]
    assert found["variants"][1]["difference"]["hit_rate.resumed"]["mean"] == 0
    with (out / "compare.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and rows[0]["store.eviction"] == "lru" and rows[0]["deployment.max_batch"] == "4"
    assert float(rows[1]["ttft_s.mean"]) == found["variants"][0]["values"]["ttft_s.mean"][1]
    assert "fifo · max_batch 4" in (out / "report.html").read_text()


def test_compare_takes_all_eviction_policies_by_default():
    result = kvplan("compare", *OPTIONS, "--replications", "1", "--jobs", "1", "--json")
    found = json.loads(result.stdout)
    assert [variant["label"] for variant in found["variants"]] == list(policies("eviction"))
    assert found["variants"][0]["half_width"]["hit_rate.resumed"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "hit_rate.resummed"], "did you mean 'hit_rate.resumed'"),
        (["--baseline", "fifi"], "for example 'fifo'"),
        (["--set", "stoer.dram=1GB"], "did you mean 'store.dram'"),
        (["--out", "/proc/nothing/here"], "cannot write"),
        (["--trace", "/no/such/file.json"], "cannot read"),
        (["--format", "sharegpt"], "go with --trace"),
    ],
)
def test_bad_input_gets_one_clear_message(arguments, message):
    result = kvplan("compare", *OPTIONS, "--vary", "store.eviction=lru,fifo", "--replications", "1", "--jobs", "1", *arguments)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in result.stderr and len(result.stderr) < 600


def test_a_folder_of_the_users_is_left_alone(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    result = kvplan("compare", *OPTIONS, "--jobs", "1", "--out", str(tmp_path))
    assert result.exit_code == 2 and "will not write into" in result.stderr
    assert os.listdir(tmp_path) == ["precious.txt"]


def test_any_number_of_the_summary_can_rank(tmp_path):
    found = compared(tmp_path, "deployment.max_batch=2,8", metric="ttft_s.p95")
    assert found["words"][0].startswith(("max_batch 8: TTFT (p95)", "max_batch 8 and"))
    assert compared(tmp_path, "deployment.max_batch=2,8", metric="tiers.dram.peak_bytes")["metric"] == "tiers.dram.peak_bytes"


@pytest.mark.parametrize(
    ("axis", "metric", "without"),
    [
        ("store.dram=0GB,8GB,9GB", "tiers.dram.written_bytes", "dram 0GB"),
        ("store.ssd=0GB,20GB,30GB", "ssd_wear.lifetime_years", "ssd 0GB"),
    ],
)
def test_variants_without_the_metric_are_named_and_the_others_ranked(axis, metric, without, tmp_path):
    out = tmp_path / "c"
    options = ["--vary", axis, "--metric", metric, "--replications", "2", "--jobs", "1", "--out", str(out)]
    result = kvplan("compare", *OPTIONS, *options)
    assert result.exit_code == 0, result.stderr
    found = json.loads((out / "compare.json").read_text())
    assert len(found["variants"]) == 3 and len(found["pairs"]) == 1 and found["words"]
    assert found["baseline"] != without
    assert f"not ranked, for want of {metric} in some or all replications: {without}" in found["notes"]
    assert "not ranked" in result.stdout and (out / "report.html").exists()


def test_a_metric_that_none_has_is_found_before_the_second_replication(tmp_path, monkeypatch):
    simulated = []
    monkeypatch.setattr(runs, "simulate", lambda *given: simulated.append(given) or simulate(*given))
    with pytest.raises(ConfigError, match=r"did you mean 'hit_rate\.resumed'"):
        compared(tmp_path, "store.eviction=lru,fifo", metric="hit_rate.resummed", replications=5)
    assert len(simulated) == 2


# --- curves -----------------------------------------------------------------------------------------------------------------------


def test_a_curve_is_a_comparison_of_policies_and_sizes(tmp_path):
    figure = tmp_path / "f.png"
    result = kvplan("curve", *OPTIONS, "--tier", "ssd", "--sizes", "10GB,40GB", "--policies", "lookahead,lru", "--replications", "2",
                    "--jobs", "1", "--out", str(tmp_path / "c"), "--figure", str(figure))  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "LRU, clockless" in result.stdout and "40GB" in result.stdout and "tokens %" in result.stdout
    found = json.loads((tmp_path / "c" / "curve.json").read_text())
    assert [line["policy"] for line in found["lines"]] == ["lookahead", "lru"]
    variant = found["comparison"]["variants"][1]
    assert variant["settings"] == {"store.eviction": "lookahead", "store.prefetch": "lookahead", "store.ssd": "40GB"}
    for key in ("hit_rate.resumed", "hit_rate.tokens"):
        assert found["lines"][0]["points"][1][key]["mean"] == variant["mean"][key]
    assert found["sizes"][1]["rcc_to_ccput"] == pytest.approx(48e9 / found["need"]["ccput_bytes"])
    assert found["sizes"][1]["rcc_to_held"] == pytest.approx(48e9 / found["need"]["held_bytes"])
    assert figure.read_bytes()[:4] == (tmp_path / "c" / "curve.png").read_bytes()[:4] == b"\x89PNG"
    with (tmp_path / "c" / "curve.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4


def test_the_clockless_line_is_an_lru_list(tmp_path):
    """Against a list that is walked access by access, per replica; and a larger store never hits less."""
    config = configuration.load(None, [*SMALL, "deployment.replicas=2", "store.dram=0GB"])
    axes = curves.axes(config, "ssd", ["lru"], ["10GB", "40GB"])
    sweep = prepare(Question(None, (*SMALL, "deployment.replicas=2", "store.dram=0GB"), axes, 1))
    found = curves.lru(sweep, "ssd", 0, ["10GB", "40GB"], 0.0)
    line = [point["hit_rate.resumed"] for point in found]
    assert line == sorted(line) and line[0] < line[-1]
    deployment, workload = resolve(config), build_workload(config)
    for at, capacity in ((0, 10 * 10**9), (-1, 40 * 10**9)):
        assert found[at]["bytes"] == capacity
        assert found[at]["hit_rate.resumed"] == pytest.approx(_walked(deployment, workload, capacity, 2))
    history, prompt, _ = contexts(workload, deployment.window)
    everything = curves.lru(sweep, "ssd", 10**15, ["40GB"], 0.0)[-1]["hit_rate.tokens"]
    assert 0 < found[0]["hit_rate.tokens"] < found[-1]["hit_rate.tokens"] <= everything
    assert everything == pytest.approx(history.sum() / (history + prompt).sum())


def test_the_clockless_line_finds_histories_that_were_cut_where_servers_do():
    """With room for all: what a server hits that has it, less where positions are part of what is kept."""
    assert _roomy("embedded") < _roomy("decoupled")


def _roomy(positions):
    """Share of the resumed turns that hit, by a server and by the line; the bound on all policies is no more."""
    chosen = (*SMALL, "store.dram=0GB", "deployment.window_tokens=1024", f"store.positions={positions}", "store.load=always")
    axes = curves.axes(configuration.load(None, chosen), "ssd", ["lru"], ["4TB"])
    sweep = prepare(Question(None, chosen, axes, 1))
    found = curves.lru(sweep, "ssd", 0, ["4TB"], 0.0)[-1]
    result = simulate(sweep.runs[0].config)
    hits, bound = result.summary["hit_rate"], measure(result)
    assert bound["bound.resumed"] == pytest.approx(hits["resumed"]) and bound["bound.tokens"] == pytest.approx(hits["tokens"])
    assert found["hit_rate.resumed"] == pytest.approx(hits["resumed"]) and found["hit_rate.tokens"] == pytest.approx(hits["tokens"])
    return hits["resumed"]


def test_the_clockless_line_of_a_tier_begins_below_all_that_are_above_it():
    """A tier of the user's own between DRAM and SSD serves what it holds, whatever the size of SSD."""
    own = "{name: cxl, size: 10GB, read: 50GB/s, write: 50GB/s, latency: 2us, price: 0USD/GB/h}"
    chosen = (*SMALL, f"store.tiers=[dram, {own}, ssd]", "store.dram=10GB")
    sweep = prepare(Question(None, chosen, curves.axes(configuration.load(None, chosen), "ssd", ["lru"], ["0GB", "40GB"]), 1))
    without, *_, largest = curves.lru(sweep, "ssd", 20 * 10**9, ["0GB", "40GB"], 0.0)
    assert without["hit_rate.ssd"] == 0 < without["hit_rate.resumed"]
    assert largest["hit_rate.ssd"] == pytest.approx(largest["hit_rate.resumed"] - without["hit_rate.resumed"])


def _walked(deployment, workload, capacity: int, replicas: int) -> float:
    """An LRU list as a list: a session hits when the sizes of those used since, and its own, fit."""
    from kvplan.traces.reuse import accesses

    seen = accesses(workload, deployment.kv_bytes, deployment.window)
    lists, hits = [[] for _ in range(replicas)], []
    for session, size, history in zip(seen.session.tolist(), seen.size.tolist(), seen.history.tolist(), strict=True):
        order = lists[session % replicas]
        place = next((place for place, (other, _) in enumerate(order) if other == session), None)
        if place is not None:
            hits.append(history > 0 and sum(held for _, held in order[: place + 1]) <= capacity)
            order.pop(place)
        order.insert(0, (session, size))
    return float(np.mean(hits))


def test_default_sizes_are_powers_of_two_around_what_active_sessions_hold():
    config = configuration.load(None, SMALL)
    deployment, workload = resolve(config), build_workload(config)
    need = curves.capacity(config, deployment, workload)
    sizes = curves.default_sizes("ssd", deployment, need)
    assert 2 <= len(sizes) <= 8 and all(size.endswith("GB") for size in sizes)
    assert int(sizes[-1][:-2]) * 1e9 >= 0.95 * need.held_bytes > int(sizes[-1][:-2]) / 2 * 0.95e9
    assert int(sizes[0][:-2]) * 1e9 >= need.longest_bytes
    assert need.ccput_bytes == need.dsput * 4096 * 819200


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "10"], "write it like '128GB'"),
        (["--sizes", "8GB,8GB"], "given twice"),
        (["--policies", "lrru"], "did you mean 'lru'"),
        (["--tier", "tape"], "tape"),
    ],
)
def test_bad_curves(arguments, message):
    result = kvplan("curve", *OPTIONS, "--jobs", "1", *arguments)
    assert result.exit_code == 2 and message in result.stderr


# --- pictures ---------------------------------------------------------------------------------------------------------------------

_BEGINNINGS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


@pytest.mark.parametrize("suffix", _BEGINNINGS)
def test_a_picture_is_what_its_name_says(suffix, tmp_path):
    figure = tmp_path / f"a{suffix}"
    options = ["--vary", "store.eviction=lru,fifo", "--replications", "1", "--jobs", "1", "--figure", str(figure)]
    assert kvplan("compare", *OPTIONS, *options).exit_code == 0
    assert figure.read_bytes().startswith(_BEGINNINGS[suffix])


def test_a_picture_is_the_same_in_every_process(tmp_path):
    code = (
        "import sys; from pathlib import Path; from kvplan.sim.report.picture import picture\n"
        "for path in sys.argv[1:]:\n"
        "    with picture(Path(path), 1, 1, (2, 2)) as (_, axes): axes.scatter([1, 2], [3, 4])"
    )
    once, again = ([tmp_path / f"{name}{suffix}" for suffix in _BEGINNINGS] for name in ("once", "again"))
    for paths in (once, again):
        subprocess.run([sys.executable, "-c", code, *map(str, paths)], cwd=tmp_path, check=True)
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


@pytest.mark.parametrize("command", [["compare"], ["curve"], ["trace", "describe"]])
def test_a_picture_of_another_kind_is_refused_before_the_run(command, tmp_path):
    result = kvplan(*command, *OPTIONS, "--figure", str(tmp_path / "x.jpeg"))
    assert result.exit_code == 2 and ".png, .svg, .pdf" in result.stderr and not list(tmp_path.iterdir())


def test_drawing_leaves_the_users_backend_alone(tmp_path):
    import matplotlib

    from kvplan.sim.report.picture import picture

    before = dict(matplotlib.rcParams)
    with picture(tmp_path / "x.png", 1, 1, (2, 2)):
        pass
    assert dict(matplotlib.rcParams) == before


def test_recomputation_is_in_what_a_curve_says_and_draws(tmp_path):
    """A run without any store with the same seeds: a figure, a sentence, and a line in the pictures of TTFT."""
    out = tmp_path / "c"
    options = ["--sizes", "8GB,16GB", "--policies", "lru", "--replications", "2", "--jobs", "1"]
    result = kvplan("curve", *OPTIONS, *options, "--out", str(out), "--figure", str(tmp_path / "c.svg"))
    assert result.exit_code == 0, result.stderr
    found = json.loads((out / "curve.json").read_text())
    runs = [run.summary for run in map(simulate, _without_a_store(2))]
    assert found["recompute"]["ttft_s.mean"]["mean"] == pytest.approx(np.mean([run["ttft_s"]["mean"] for run in runs]))
    assert f"Recomputing everything takes {format_seconds(found['recompute']['ttft_s.mean']['mean'])}" in result.stdout
    assert [line["policy"] for line in found["lines"]] == ["lru"]
    assert (out / "report.html").read_text().count(">recompute<") >= 2, "one in each figure of TTFT"
    assert "recompute" in (tmp_path / "c.svg").read_text()


def _without_a_store(replications: int):
    """Configurations of a curve's replications."""
    config = configuration.load(None, SMALL).recompute()
    return [replicated(config, replication, None) for replication in range(replications)]


def test_a_curve_begins_at_no_tier_at_all(tmp_path):
    figure = tmp_path / "c.svg"
    options = ["--tier", "dram", "--sizes", "0GB,8GB", "--policies", "lru", "--replications", "2", "--jobs", "1", "--figure", str(figure)]
    result = kvplan("curve", *OPTIONS, "--set", "store.ssd=0GB", "--json", *options)
    points = json.loads(result.stdout)["lines"][0]["points"]
    assert points[0]["bytes"] == points[0]["hit_rate.resumed"]["mean"] == 0 < points[1]["hit_rate.resumed"]["mean"]
    assert figure.exists()
