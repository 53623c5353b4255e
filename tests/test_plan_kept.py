"""Plans that are killed go on, options that fail do not take the others along, and `kvplan.plan` is what the command gives."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import kvplan
from kvplan.sim.cli.app import app
from kvplan.sim.planner import confirmed
from kvplan.sim.planner.question import Question

STUCK = """
import os, pathlib, threading
from kvplan.sim.policies.eviction.lru import Lru

class Stuck(Lru):
    def __init__(self, view):
        super().__init__(view)
        if not pathlib.Path("go").exists():
            os.write(2, b"reached\\n")
            threading.Event().wait()

class Broken(Lru):
    def insert(self, session):
        raise LookupError("no such session")

class Hungry(Lru):
    def __init__(self, view):
        raise MemoryError
"""
SETTINGS = {
    "model": "llama-3.1-8b",
    "hardware": "h100-80g-x1",
    "prices": "rent-2026",
    "deployment.max_batch": 64,
    "workload.steady": True,
    "workload.think_time.median_s": 20,
}
SMALL = [part for path, value in SETTINGS.items() for part in ("--set", f"{path}={json.dumps(value)}")]
ASKED = ["--ttft-p95", "250ms", "--sessions-per-s", "1.5"]
SHORT = (32, 200, 200, 2)
"""Most replicas, measured turns, sessions and replications."""
CONFIRMED = 2
"""Runs."""
MAIN = f"""
from kvplan.sim.planner import confirmed
from kvplan.sim.planner.question import Question
confirmed.RUNS = {CONFIRMED}
Question.__init__.__defaults__ = (*Question.__init__.__defaults__[:4], *{SHORT})
from kvplan.__main__ import main
if __name__ == "__main__":
    main()
"""


@pytest.fixture
def short(monkeypatch):
    _shorten(monkeypatch)


def _shorten(patch):
    """What plans keep is asked here: others look at their simulations with guards."""
    patch.setattr(Question.__init__, "__defaults__", (*Question.__init__.__defaults__[:4], *SHORT))
    patch.setattr(confirmed, "RUNS", CONFIRMED)
    patch.setenv("KVPLAN_GUARDS", "0")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A plan, and the folder of its simulations."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as patch:
        _shorten(patch)
        return planned(keep=folder), folder


@pytest.fixture
def start(tmp_path):
    """A function that starts `kvplan plan` with short simulations, in a folder with the policies above."""
    (tmp_path / "mine.py").write_text(STUCK)
    (tmp_path / "main.py").write_text(MAIN)
    started = []

    def begin(*more):
        vary = ["--vary", "store.dram+store.ssd+store.eviction=32GB+0GB+lru,64GB+0GB+mine:Stuck"]
        command = [sys.executable, "main.py", "plan", "default", *SMALL, *ASKED, *vary, "--jobs", "1", "--json", *more]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "KVPLAN_GUARDS": "0"}, **pipes))
        return started[-1]

    yield begin
    for process in started:
        with process:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_plan_goes_on_where_it_was(number, start, tmp_path):
    process = start("--out", "p")
    while "reached" not in (line := process.stderr.readline()):
        assert line
    process.send_signal(number)
    stdout, stderr = process.communicate()
    kept = {path.name: path.read_bytes() for path in (tmp_path / "p" / "runs").glob("[!.]*.json")}
    assert stdout == "" and kept and not (tmp_path / "p" / "plan.json").exists()
    if number == signal.SIGTERM:
        assert process.returncode == 1 and f"{len(kept)} simulations are kept in" in stderr
    (tmp_path / "go").touch()
    again = start("--out", "p")
    stdout, stderr = again.communicate()
    assert again.returncode == 0 and f"{len(kept)} simulations are kept in" in stderr, stderr
    found = {path.name: path.read_bytes() for path in (tmp_path / "p" / "runs").glob("*.json")}
    assert len(found) > len(kept) and all(found[name] == text for name, text in kept.items())
    assert stdout == (tmp_path / "p" / "plan.json").read_text()
    if number == signal.SIGKILL:
        assert stdout == start("--out", "q").communicate()[0], "what was never interrupted"
        assert {path.name for path in (tmp_path / "p").iterdir()} == {path.name for path in (tmp_path / "q").iterdir()}


def test_what_is_done_is_not_simulated_again(first, short, monkeypatch):
    found, folder = first
    monkeypatch.setattr("kvplan.sim.planner.plan.look", lambda probe: pytest.fail("simulated again"))
    assert planned(keep=folder).to_frame().equals(found.to_frame())


def planned(vary=None, **more):
    vary = vary or {"store.dram+store.ssd": [("32GB", "0GB"), ("64GB", "0GB")]}
    return kvplan.plan("default", vary, overrides=SETTINGS, sessions_per_s=1.5, ttft_p95_s=0.25, jobs=1, **more)


def test_a_plan_is_what_the_command_gives(first, short):
    given, _ = first
    command = ["plan", "default", *SMALL, *ASKED, "--vary", "store.dram+store.ssd=32GB+0GB,64GB+0GB", "--jobs", "1", "--json"]
    printed = json.loads(CliRunner().invoke(app, command).stdout)
    assert printed["cheapest"] == given.cheapest.option.label
    table = given.to_frame()
    assert [each["option"] for each in printed["options"]] == list(table["option"])
    assert [each["usd_per_month"] for each in printed["options"]] == [each.cost_usd_per_month for each in given.answers]
    assert repr(given).startswith("<Plan: llama-3.1-8b") and len(repr(given)) < 200
    assert given._repr_html_().startswith("<pre ") and given.cheapest.option.label in given._repr_html_()


def test_objectives_are_named_as_settings():
    with pytest.raises(kvplan.ConfigError, match=r"did you mean 'slo\.ttft_p95_s'"):
        kvplan.plan("default", overrides=SETTINGS, ttft_p95=0.25)
    with pytest.raises(kvplan.ConfigError, match="nothing to aim at"):
        kvplan.plan("default", overrides=SETTINGS)


def test_options_that_fail_do_not_take_the_others_along(short, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(STUCK)
    monkeypatch.chdir(tmp_path)
    stores = "64GB+lru,64GB+mine.py:Broken,64GB+mine.py:Hungry,64GB+mine.py:Nowhere,99TB+lru"
    options = ["--set", "store.ssd=0GB", "--vary", f"store.dram+store.eviction={stores}", "--jobs", "1"]
    done = CliRunner().invoke(app, ["plan", "default", *SMALL, *ASKED, *options, "--json"])
    assert done.exit_code == 1, done.output
    found = json.loads(done.stdout)
    reasons = {each["option"]: each["reason"] for each in found["options"]}
    assert found["cheapest"] is not None and reasons["dram 64GB+eviction lru"] is None
    assert "no such session" in reasons["dram 64GB+eviction mine.py:Broken"]
    assert "MemoryError" in reasons["dram 64GB+eviction mine.py:Hungry"]
    assert "Nowhere" in reasons["dram 64GB+eviction mine.py:Nowhere"]
    assert any("99TB" in line and "was not tried" in line for line in found["meaning"])
    assert [line.partition(" failed: ")[0] for line in done.stderr.splitlines()] == [
        f"kvplan: dram 64GB+eviction mine.py:{name}" for name in ("Broken", "Hungry", "Nowhere")
    ]


def test_what_is_no_setting_is_refused_at_once(short):
    done = CliRunner().invoke(app, ["plan", "default", *SMALL, *ASKED, "--vary", "store.drum=1GB,2GB"])
    assert done.exit_code == 2 and "did you mean 'store.dram'" in done.stderr


VARIED = ["--vary", "store.dram=32GB,64GB", "--vary", "store.eviction+store.prefetch='lru'+none,lookahead+lookahead"]


@pytest.mark.parametrize("more", [VARIED, ["--horizon", "18mo", "--set", "slo.tpot_p95_s=1"]])
def test_the_folder_of_a_plan_says_how_to_ask_again(short, tmp_path, monkeypatch, more):
    """Load, target, horizon and stores: the same plan, of the same simulations and no others, so that those that are kept do."""
    out = tmp_path / "out"
    first = CliRunner().invoke(app, ["plan", "default", *SMALL, *ASKED, *more, "--jobs", "1", "--out", str(out)])
    assert first.exit_code == 0, first.output
    monkeypatch.chdir(out)
    comment = (out / "config.resolved.yaml").read_text().partition("\n")[0]
    command = shlex.split(comment.partition(": ")[2])
    assert command[:2] == ["kvplan", "plan"]
    shutil.copytree(out / "runs", tmp_path / "again" / "runs")
    second = CliRunner().invoke(app, [*command[1:], "--jobs", "1", "--out", "../again"])
    assert second.exit_code == 0, second.output
    assert second.stdout == first.stdout
    assert {path.name for path in (out / "runs").iterdir()} == {path.name for path in (tmp_path / "again" / "runs").iterdir()}
    assert (out / "config.resolved.yaml").read_text() == (tmp_path / "again" / "config.resolved.yaml").read_text()
