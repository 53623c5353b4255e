"""What is said of every setting, and what a run is said not to use."""

import pytest
import yaml
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.settings import settings, unused, used
from kvplan.sim.simulation import simulate

SAID = {each.path: each for each in settings()}


def test_every_setting_has_a_meaning():
    sections = {path for path in config.paths() if any(other.startswith(f"{path}.") for other in config.paths())}
    assert SAID.keys() == set(config.paths()) - sections
    assert [path for path, each in SAID.items() if not each.meaning.endswith(".") and not each.meaning.endswith("`")] == []


def test_choices_come_from_the_schema():
    assert SAID["store.ssd_write"].choices == "delta, whole"
    assert SAID["workload.skip_bad"].choices == "true, false"
    assert SAID["store.eviction"].choices == "kvplan list eviction, module:Class, or file.py:Class"
    assert SAID["workload.arrival"].choices == "process: poisson, gamma, diurnal, curve, replayed"
    assert SAID["workload.first_prompt_tokens"].choices == SAID["workload.prompt_tokens"].choices
    assert SAID["deployment.window_tokens"].default == "null"


@pytest.mark.parametrize(
    ("overrides", "spare", "in_use"),
    [
        (
            [],
            ["workload.turns", "workload.first_prompt_correlation", "workload.format", "tenant_weights"],
            ["workload.arrival", "workload.length_correlation", "store.prefetch"],
        ),
        (["workload.kind=synthetic"], ["workload.length_correlation"], ["workload.turns", "workload.first_prompt_tokens"]),
        (["store.ssd=0GB"], ["store.prefetch", "store.ssd_write"], ["store.eviction"]),
        (["store.ssd=0GB", "store.dram=0GB"], ["store.eviction", "store.piece", "store.read_buffer_layers"], ["store.dram"]),
        (["scheduler=fair-share"], [], ["tenant_weights"]),
        (["store.unit=block"], ["store.retention"], ["store.mode", "store.chunk_blocks", "store.save", "store.eviction"]),
        (["store.unit=block", "store.dram=0GB", "store.ssd=0GB"], ["store.eviction"], ["store.mode"]),
    ],
)
def test_what_a_run_does_not_use(overrides, spare, in_use):
    loaded = config.load(None, ["workload.sessions=20", *overrides])
    found = unused(loaded, build_workload(loaded))
    assert set(spare) <= set(found) and not set(in_use) & set(found)


@pytest.mark.parametrize("times", ["arrival_s,gap_s", ""])
def test_times_of_a_trace_leave_the_laws_of_times_unused(times, tmp_path):
    rows = ["0,10,20" + ",0,0" * bool(times), "0,5,7" + ",0,3" * bool(times)]
    (tmp_path / "t.csv").write_text("\n".join(["session,prompt_tokens,output_tokens" + f",{times}" * bool(times), *rows]) + "\n")
    loaded = config.load(None, [f"workload.trace={tmp_path / 't.csv'}"])
    found = set(unused(loaded, build_workload(loaded)))
    assert {"workload.sessions", "workload.kind"} <= found
    assert ({"workload.arrival", "workload.think_time"} <= found) == bool(times)


CHANGED = {
    "workload.turns": "{distribution: constant, value: 2}",
    "workload.prompt_tokens": "{distribution: constant, value: 9}",
    "workload.output_tokens": "{distribution: constant, value: 9}",
    "workload.length_correlation": "0.9",
    "workload.tokenizer": "/nowhere.json",
    "workload.format": "sharegpt",
    "workload.skip_bad": "true",
    "store.prefetch": "none",
    "store.ssd_write": "whole",
    "store.eviction": "fifo",
    "store.read_buffer_layers": "3",
    "store.write_buffer": "2GB",
    "store.host_buffer": "0.3",
    "store.piece": "1MiB",
    "store.ttl_s": "5",
    "store.save": "sync",
    "store.load_mode": "blocking",
    "store.connector": "vllm-native",
    "store.positions": "embedded",
    "store.load": "cake",
    "store.write": "through",
    "store.retention": "dense",
}


@pytest.mark.parametrize(
    "tiers", [[], ["store.ssd=0GB"], ["store.ssd=0GB", "store.dram=0GB"], ["workload.kind=synthetic"], ["store.unit=block"]]
)
def test_an_unused_setting_changes_nothing(tiers):
    """The claim itself: another value gives the same run."""
    base = ["workload.sessions=30", *tiers]
    loaded = config.load(None, base)
    workload = build_workload(loaded)
    others = [f"{path}={CHANGED[path]}" for path in unused(loaded, workload) if path in CHANGED]
    assert others
    once, again = simulate(loaded).summary, simulate(config.load(None, [*base, *others])).summary
    assert {key: value for key, value in once.items() if key != "provenance"} == {
        key: value for key, value in again.items() if key != "provenance"
    }


def test_a_report_shows_what_was_used_and_the_file_all_of_it(tmp_path):
    out = tmp_path / "run"
    assert CliRunner().invoke(app, ["simulate", "--set", "workload.sessions=20", "--no-baseline", "--out", str(out)]).exit_code == 0
    text = (out / "config.resolved.yaml").read_text()
    assert text.startswith("# Not used by this run: ") and "workload.turns" in text.splitlines()[0]
    assert "skip_bad" in yaml.safe_load(text)["workload"] and "skip_bad" not in (out / "report.html").read_text()
    assert config.load(out / "config.resolved.yaml").workload.sessions == 20
    loaded = config.load()
    assert "turns" not in used(loaded, build_workload(loaded))["workload"]


def test_examples_stand_on_lines_of_their_own_and_completion_is_there():
    shown = CliRunner().invoke(app, ["compare", "--help"]).stdout
    assert len([line for line in shown.splitlines() if line.startswith("    kvplan compare")]) == 3
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).stdout


@pytest.mark.parametrize(("text", "size"), [("128G", 128_000_000_000), ("512Gi", 512 * 2**30), ("1.5T", 1_500_000_000_000)])
def test_sizes_as_kubernetes_writes_them(text, size):
    from kvplan.hwmodels.units import parse_bytes

    assert parse_bytes(config.load(None, [f"store.ssd={text}"]).store.ssd) == size
