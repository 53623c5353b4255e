"""The command line: contracts, exit codes, errors, and what is left behind."""

import json
import os
import re

import pytest
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.cli.app import app

SMALL = ["--set", "workload.sessions=20"]
SUMMARY_KEYS = [
    "turns",
    "sessions",
    "resumed_turns",
    "makespan_s",
    "hit_rate",
    "ttft_s",
    "prefill_s",
    "queue_s",
    "tpot_s",
    "e2e_s",
    "prefill_tokens_per_s",
    "output_tokens_per_s",
    "gpu",
    "tiers",
    "links",
    "overflow_turns",
    "cost_usd",
    "ssd_wear",
    "provenance",
    "warnings",
]


def kvplan(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def failure(*arguments: str) -> str:
    """The one message of a call that must fail with exit code 2."""
    result = kvplan(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and "Traceback" not in result.stderr
    return result.stderr


# --- what it prints ---------------------------------------------------------------------------------------------------------------


def test_a_curve_says_what_its_runs_warn_of_and_which_policies_it_cannot_tell_apart(tmp_path):
    sizes = ["--tier", "dram", "--sizes", "1GB,64GB", "--policies", "lru,fifo", "--replications", "2"]
    printed = kvplan("curve", *SMALL, *sizes, "--out", str(tmp_path / "c")).stdout
    assert "! dram (1 GB) is smaller than the longest session" in printed
    page = (tmp_path / "c/report.md").read_text(encoding="utf-8")
    assert " ± " in page and "By these runs fifo may hit as many." in page and page.count("is smaller than the longest session") == 1


def test_replicas_that_never_have_a_turn_are_said():
    many = kvplan("simulate", *SMALL, "--no-baseline", "--set", "deployment.replicas=50").stdout
    assert "! 30 of 50 replicas never had a turn" in many
    assert "never had a turn" not in kvplan("simulate", *SMALL, "--no-baseline", "--set", "deployment.replicas=4").stdout


@pytest.mark.parametrize(
    "command", [["simulate", "--no-baseline"], ["explain"], ["compare", "--vary", "store.dram=1GB", "--replications", "1"]]
)
def test_a_setting_that_nothing_reads_is_said(tmp_path, command):
    trace = tmp_path / "t.csv"
    trace.write_text("session,arrival,prompt,output\na,0,100,20\na,30,200,20\n")
    by = ["--trace", str(trace), "--columns", "session=session,arrival=arrival,prompt=prompt,output=output"]
    vain = ["--set", "workload.sessions=5", "--set", "workload.arrival.rate_per_s=3"]
    assert "set, but nothing here reads it: workload.sessions, workload.arrival.rate_per_s" in kvplan(*command, *by, *vain).stdout
    assert "nothing here reads" not in kvplan(*command, *by, "--set", "store.ssd=0GB").stdout


def test_simulate_prints_both_runs():
    result = kvplan("simulate", *SMALL)
    assert result.exit_code == 0
    for words in ("this run", "recompute", "hit rate", "TTFT", "prefill throughput", "GPU hours", "total cost", "Against recomputation"):
        assert words in result.stdout


def test_json_is_the_contract_and_nothing_else():
    result = kvplan("simulate", *SMALL, "--json")
    summary = json.loads(result.stdout)
    assert result.exit_code == 0 and set(SUMMARY_KEYS) <= set(summary)
    assert set(summary["hit_rate"]) >= {"turns", "resumed", "tokens", "dram", "ssd"}
    for name in ("ttft_s", "prefill_s", "queue_s", "tpot_s", "e2e_s"):
        assert list(summary[name]) == ["mean", "p50", "p90", "p95", "p99", "max"]
    assert set(summary["tiers"]["ssd"]) == {"capacity_bytes", "peak_bytes", "mean_bytes", "written_bytes", "read_bytes"}
    assert {"gpu", "dram", "ssd", "total", "per_million_output_tokens"} <= set(summary["cost_usd"])
    assert set(summary["ssd_wear"]) == {"bytes_per_day", "dwpd", "lifetime_years", "drives", "drive_bytes"}
    assert summary["recompute"]["hit_rate"]["turns"] == 0


def test_no_baseline():
    assert "recompute" not in json.loads(kvplan("simulate", *SMALL, "--json", "--no-baseline").stdout)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("simulate --model llama-3.1-8b", r"No such option: --model\. It is a setting: --set model=…"),
        ("plan --max-batch 3", r"No such option: --max-batch\. It is a setting: --set deployment\.max_batch=…"),
        (
            "simulate --trac t.json",
            r"No such option: --trac \(Possible options: --trace\)|No such option '--trac'\. Did you mean '--trace'\?",
        ),
        ("list --model", r"No such option: --model|No such option '--model'\."),
    ],
)
def test_an_option_that_is_none_is_told_what_it_may_be(command, told):
    """The last two in click's words, or in those of its version before."""
    result = kvplan(*command.split())
    assert result.exit_code == 2 and re.search(rf"Error: ({told})$", result.stderr.rstrip())


def test_help_and_version():
    assert "Examples" in kvplan("simulate", "--help").stdout
    assert kvplan("--version").stdout.startswith("kvplan ")


@pytest.mark.parametrize(
    "kind", ["models", "hardware", "gpus", "ssds", "prices", "presets", "settings", "formats", "eviction", "prefetch", "scheduling"]
)
def test_list(kind):
    result = kvplan("list", kind)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) >= 2


def test_a_users_policy_is_taken_by_name(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from kvplan.sim.policies.eviction.lru import Lru\n\n\nclass MostRecent(Lru):\n"
        "    NAME = 'mru'\n\n    def victim(self):\n        return next(reversed(self._order), None)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert kvplan("simulate", *SMALL, "--set", "store.eviction=mine:MostRecent").exit_code == 0


# --- bad input --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["defualt"], "did you mean 'default'"),
        (["--set", "store.dram=5"], "and --set: store.dram"),
        (["--set", "stoer.dram=1GB"], "did you mean 'store.dram'"),
        (["--set", "store.dram"], "path=value"),
        (["--set", "store.dram=128"], "128 has no unit: write 128GB, or 128GiB"),
        (["--set", "gpus=8"], "did you mean 'deployment.gpus'"),
        (["--set", "hardware=h100"], "did you mean 'h100-80g-x1' or 'h100-80g-x8'"),
        (["--set", "model=nothing"], "unknown model"),
        (["--set", "store.dram=-1GB"], "negative"),
        (["--set", "store.eviction=lrru"], "did you mean 'lru'"),
        (["--set", "scheduler=fifo"], "unknown scheduling policy"),
        (["--set", "model=llama-3"], "unknown model"),
        (["--set", "hardware=h900"], "unknown node"),
        (["--set", "prices=free"], "unknown prices"),
        (["--set", "deployment.gpus=0"], "deployment.gpus"),
        (["--set", "deployment.gpus=8"], "has 4"),
        (["--set", "deployment.max_batch=-3"], "deployment.max_batch"),
        (["--set", "model=llama-1-65b", "--set", "deployment.gpus=1"], "does not fit"),
        (["--set", "store.hbm=200GB"], "does not fit"),
        (["--set", "warmup_turns=100000000"], "nothing is left"),
        (["--set", "workload.sessions=0"], "workload.sessions"),
        (["--set", "workload.arrival.rate_per_s=0"], "rate_per_s"),
        (["--set", "workload.arrival.rate_per_s=nan"], "rate_per_s"),
        (["--set", "workload.arrival.rate_per_s=1e-300"], "rate_per_s"),
        (["--set", "store.dram=1e30GB"], "more than"),
        (["--set", "workload.think_time.distribution=weird"], "think_time"),
        (["--set", "seed=-1"], "seed"),
        (["--trace", "/no/such/file.json"], "cannot read"),
        (["--trace", "/proc/self/task"], "no trace files"),
        (["--format", "sharegpt"], "go with --trace"),
        (["--out", "/proc/nothing/here"], "cannot write"),
    ],
)
def test_bad_input_gets_one_clear_message(arguments, words):
    message = failure("simulate", *arguments)
    assert words in message and len(message) < 1500


def test_what_is_neither_a_file_nor_a_folder_is_not_replaced(tmp_path):
    """A pipe of our own: what a fault did to /dev/null, it would do to the machine."""
    os.mkfifo(pipe := tmp_path / "pipe")
    assert "will not replace" in failure("simulate", "--out", str(pipe))
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("store: {dram: 1GB, dram: 2GB}", "given twice"),
        ("store: {drm: 1GB}", "did you mean 'store.dram'"),
        ("stoer: {}", "did you mean 'store'"),
        ("- a list", "mapping"),
        ("a: [", "line"),
        ("store: 7", "store"),
        ("model: {a: b}", "model"),
        ("seed: 1.5", "seed"),
        ("\x00", "not valid YAML"),
    ],
)
def test_bad_configuration_files(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    message = failure("simulate", str(path))
    assert words in message and str(path) in message


def test_all_findings_are_shown_together(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("store: {dram: 7, eviction: nope}\nseed: -1\n")
    message = failure("simulate", str(path))
    assert all(name in message for name in ("store.dram", "store.eviction", "seed"))


@pytest.mark.parametrize("text", ['[{"conversations": [{"from": "human", "value": "x"', "{", "[]", '{"a": 1}'])
def test_bad_traces(tmp_path, text):
    path = tmp_path / "t.json"
    path.write_text(text)
    assert str(path) in failure("simulate", "--trace", str(path), "--format", "sharegpt")


def test_a_preset_survives_a_round_trip(tmp_path):
    import yaml

    for name in config.presets():
        loaded = config.load(name)
        path = tmp_path / "again.yaml"
        path.write_text(yaml.safe_dump(loaded.resolved()))
        assert config.load(path) == loaded


# --- the run directory ------------------------------------------------------------------------------------------------------------


def test_a_run_directory_is_whole(tmp_path):
    import pandas as pd

    out = tmp_path / "deep" / "run"
    result = kvplan("simulate", *SMALL, "--out", str(out), "--json")
    assert result.exit_code == 0
    names = {"config.resolved.yaml", "summary.json", "turns.parquet", "tiers.parquet", "report.html", "report.md"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "summary.json").read_text() == result.stdout
    turns = pd.read_parquet(out / "turns.parquet")
    assert len(turns) == json.loads(result.stdout)["turns"]
    page = (out / "report.html").read_text()
    assert page.count("<figure>") == page.count("<figcaption>") > 5
    again = kvplan("simulate", str(out / "config.resolved.yaml"), "--json")
    assert again.stdout == result.stdout
    assert kvplan("simulate", *SMALL, "--out", str(out)).exit_code == 0, "a run directory may be replaced"
    assert [path.name for path in out.parent.iterdir()] == ["run"]


def test_a_folder_of_the_users_is_never_replaced(tmp_path):
    (tmp_path / "precious.txt").write_text("x")
    assert "will not replace" in failure("simulate", *SMALL, "--out", str(tmp_path))
    assert (tmp_path / "precious.txt").read_text() == "x"


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    from kvplan.sim.report.page import folder as pages

    def fail(folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pages, "texts", fail)
    result = kvplan("simulate", *SMALL, "--out", str(tmp_path / "run"))
    assert result.exit_code == 1 and result.stderr == f"kvplan: cannot write {tmp_path / 'run'}: No space left on device\n"
    assert "total cost" in result.stdout, "what was simulated is shown all the same"
    assert list(tmp_path.iterdir()) == []


def test_another_node_brings_all_of_its_gpus_and_an_explicit_count_stays(tmp_path):
    from kvplan.sim.deployment import resolve

    other = ["hardware=h100-80g-x8", "prices=rent-2026"]
    assert resolve(config.load()).gpus == 2, "the preset's own"
    assert resolve(config.load(None, other)).gpus == 8
    assert resolve(config.load(None, [*other, "deployment.gpus=4"])).gpus == 4
    mine = tmp_path / "mine.yaml"
    mine.write_text("deployment: {gpus: 4}\n")
    assert resolve(config.load(mine, other)).gpus == 4, "a user's file means what it says"
    mine.write_text("hardware: h100-80g-x8\nprices: rent-2026\n")
    assert resolve(config.load(mine)).gpus == 8


def test_explain_takes_a_node_whole():
    assert kvplan("explain", "--set", "hardware=h100-80g-x8", "--set", "prices=rent-2026").exit_code == 0


def test_a_part_of_a_setting_changes_the_default():
    assert config.load(None, ["workload.turns.mean=3"]).workload.turns.mean == 3
    other = config.load(None, ["workload.turns.value=2", "workload.turns.distribution=constant"]).workload.turns
    assert other.value == 2 and other.distribution == "constant"
