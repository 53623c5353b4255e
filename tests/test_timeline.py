"""The timeline: loaded back, its spans are in order and do not overlap, and their sums are the summary's."""

import json
from collections import defaultdict
from itertools import pairwise

import pytest
from typer.testing import CliRunner

from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.engine import guards
from kvplan.sim.observers import Observers
from kvplan.sim.simulation import simulate
from kvplan.sim.timeline import Timeline, window

RUNS = {
    "default": (),
    "tight": ("store.dram=10GB", "store.ssd=100GB", "workload.arrival.rate_per_s=2", "workload.think_time.median_s=5"),
    "sync": ("store.save=sync", "store.dram=20GB", "workload.arrival.rate_per_s=1"),
    "whole": ("store.dram=10GB", "store.ssd_write=whole", "store.write=through", "workload.arrival.rate_per_s=1"),
    "hbm": ("store.hbm=4GB", "store.dram=20GB", "workload.arrival.rate_per_s=1"),
    "replicas": ("deployment.replicas=3", "workload.arrival.rate_per_s=2"),
    "held": ("store.prefetch=best-effort", "store.dram=10GB", "workload.arrival.rate_per_s=1"),
    "recompute": ("store.dram=0GB", "store.ssd=0GB"),
}


def watched(config, **options):
    timeline = Timeline(**options)
    result = simulate(config, observer=timeline)
    return result, json.loads(json.dumps(timeline.trace, allow_nan=False))["traceEvents"], timeline


def tracks(events):
    found = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            found[event["pid"], event["tid"]].append(event)
    return found


@pytest.mark.parametrize("run", RUNS)
def test_a_whole_run(small, run):
    result, events, _ = watched(small(*RUNS[run]))
    gpu = defaultdict(float)
    for (_, track), spans in tracks(events).items():
        assert all(span["ts"] >= 0 and span["dur"] >= 0 for span in spans)
        for one, other in pairwise(spans):
            assert one["ts"] + one["dur"] <= other["ts"] + 0.01
        for span in spans if track == 1 else ():
            gpu[span["name"]] += span["dur"] / 1e6
    summary = result.summary["gpu"]
    names = {"prefill_s": "prefill", "decode_s": "decode", "load_stall_s": "wait for load", "save_stall_s": "wait for save"}
    for key, name in names.items():
        assert gpu[name] == pytest.approx(summary[key], rel=1e-6, abs=1e-4), name
    prefills = [event["args"] for event in events if event["name"] == "prefill"]
    assert sorted(each["turn"] for each in prefills) == list(range(result.summary["turns"]))
    assert sum(each["prompt"] + each["history"] - each["cached"] for each in prefills) == summary["prefilled_tokens"]
    assert len({event["pid"] for event in events}) == result.config.deployment.replicas


@pytest.mark.parametrize("run", ["default", "tight", "sync"])
def test_transfers_and_counters(small, run):
    result, events, _ = watched(small(*RUNS[run]))
    names = {(event["pid"], event["tid"]): event["args"]["name"] for event in events if event["name"] == "thread_name"}
    moved = defaultdict(int)
    for track, spans in tracks(events).items():
        moved[names[track].partition(",")[0]] += sum(span["args"].get("bytes", 0) for span in spans)
    for name, link in result.summary["links"].items():
        assert moved[name] >= 0.99 * link["bytes"] - 1
    last = {event["name"]: event["args"] for event in events if event["ph"] == "C"}
    assert last["turns"] == {"waiting": 0, "running": 0} and set(last["bytes"]) == {"HBM of running turns", "dram", "ssd"}
    assert max(event["args"]["dram"] for event in events if event["name"] == "bytes") <= result.summary["tiers"]["dram"]["peak_bytes"]


@pytest.mark.parametrize("guards", ["0", "1"])
def test_watching_changes_nothing(small, guards, monkeypatch):
    monkeypatch.setenv("KVPLAN_GUARDS", guards)
    config = small(*RUNS["tight"])
    plain = simulate(config)
    result, _, _ = watched(config)
    assert result.summary == plain.summary and result.events == plain.events


def test_a_window_is_kept_and_no_more(small):
    config = small("workload.sessions=200")
    begin, end = window(build_workload(config), 60)
    _, events, timeline = watched(config, begin_s=begin, end_s=end)
    _, every, _ = watched(config)
    times = [(event["ts"], event["ts"] + event.get("dur", 0)) for event in events if event["ph"] != "M"]
    assert times and all(start <= end * 1e6 and last >= begin * 1e6 for start, last in times)
    inside = [each for each in every if each["ph"] == "X" and each["ts"] <= end * 1e6 and each["ts"] + each["dur"] >= begin * 1e6]
    assert len(inside) == sum(event["ph"] == "X" for event in events) and timeline.cut_at_s is None


def test_a_window_of_one_session_is_the_start(workload):
    assert window(workload([[(5, 5)]], [7.0]), 60) == (0.0, 60.0)


def test_no_more_events_than_may_be(small):
    _, events, timeline = watched(small(), most=50)
    assert timeline.events == 50 and timeline.cut_at_s is not None
    assert sum(event["ph"] != "M" for event in events) == 50


def test_each_observer_hears_what_it_has_a_method_for():
    class Ears:
        def __init__(self):
            self.heard = []

        def saved(self, *arguments):
            self.heard.append(arguments)

    one, other = Ears(), object()
    both = Observers(one, other)
    both.saved(1, 2)
    both.saved(3)
    both.evicted(4)
    assert one.heard == [(1, 2), (3,)]
    assert guards.enabled()


def test_the_command(tmp_path):
    few = ["simulate", "--no-baseline", "--set", "workload.sessions=30"]
    file = tmp_path / "t.json"
    done = CliRunner().invoke(app, [*few, "--timeline", str(file), "--timeline-span", "1000h", "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["turns"]
    assert json.loads(file.read_text())["traceEvents"] and "timeline: " in done.stderr
    inside = ["--out", str(tmp_path / "run"), "--timeline", str(tmp_path / "run" / "timeline.json")]
    assert [CliRunner().invoke(app, [*few, *inside]).exit_code for _ in range(2)] == [0, 0]
    assert json.loads((tmp_path / "run" / "timeline.json").read_text())
    config = tmp_path / "c.yaml"
    config.write_text("seed: 1\n")
    assert CliRunner().invoke(app, ["simulate", str(config), "--timeline", str(config)]).exit_code == 2
    for wrong in (
        ["--timeline-span", "60s"],
        ["--timeline", str(file), "--timeline-span", "soon"],
        ["--timeline", str(file), "--timeline-span", "0s"],
    ):
        failed = CliRunner().invoke(app, [*few, *wrong])
        assert failed.exit_code == 2 and "--timeline-span" in failed.stderr
