"""Pools: tasks that fail, cannot be sent or brought back, or kill their process; policies of a user's own; and clusters on this machine."""

import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError
from kvplan.sim.sweep import pool as pools
from kvplan.sim.sweep.kept_runs import Kept, KeptRuns
from kvplan.sim.sweep.pool import CLUSTERS, Failed, SweepError, pool
from kvplan.sim.sweep.runs import Outcome

PACKAGES = {"dask": "distributed", "ray": "ray"}
SMALL = ["--set", "workload.sessions=40", "--set", "store.dram=8GB"]


def task(what):
    """Does what it is told."""
    if what == "raise":
        raise LookupError("nothing there")
    if what == "exit":
        sys.exit(3)
    if what == "memory":
        raise MemoryError
    if what == "unpicklable":
        return lambda: None
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getcwd() if what == "folder" else 2 * what


def results(found, tasks):
    for place, argument in enumerate(tasks):
        found.submit(place, task, argument)
    return [result for _, result in sorted(found.next() for _ in tasks)]


@pytest.fixture(scope="module")
def processes():
    with pool(2) as found:
        yield found


def test_what_fails_is_a_result_and_the_others_go_on(processes):
    tasks = [1, "raise", 2, "exit", lambda: None, "memory", "unpicklable", *range(3, 9)]
    found = results(processes, tasks)
    assert [each for each in found if isinstance(each, int)] == [2, 4, *range(6, 18, 2)]
    reasons = [each.reason for each in found if isinstance(each, Failed)]
    assert [reason.partition(" (")[0] for reason in reasons[:2]] == ["LookupError: nothing there", "SystemExit: 3"]
    assert "pickle" in reasons[2] and reasons[3].startswith("out of memory") and "pickle" in reasons[4] and len(reasons) == 5
    here = results(pools.Pool(), [1, "raise", "exit"])
    assert here == [2, *(Failed(reason) for reason in reasons[:2])]


def test_a_pool_lives_on(processes):
    assert results(processes, [1, 2, 3]) == results(processes, [1, 2, 3]) == [2, 4, 6]


def test_few_tasks_are_under_way(processes):
    for place in range(50):
        processes.submit(place, task, place)
    assert len(processes._sent) == 4
    assert sorted(processes.next()[0] for _ in range(50)) == list(range(50))


def test_a_task_runs_in_the_folder_of_who_asks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pool(2) as found:
        assert results(found, ["folder", "folder"]) == [str(tmp_path)] * 2


def test_a_process_that_dies_is_one_message():
    with pytest.raises(SweepError, match="a process died"), pool(2) as found:
        results(found, ["die", "die", "die"])


def test_one_task_needs_no_process():
    with pool(8, most=1) as found:
        assert type(found) is pools.Pool


def test_what_is_done_is_not_done_again(tmp_path):
    def done(values):
        kept = Kept(pools.Pool(), KeptRuns(tmp_path, Outcome), lambda value: f"value{value}", lambda value: {"value": value})
        for value in values:
            kept.submit(value, outcome, value)
        return kept.before, sorted(kept.next()[1].values["value"] for _ in values)

    assert done([1, 2]) == (0, [1.0, 2.0]) and done([1, 2, 3]) == (2, [1.0, 2.0, 3.0])


def outcome(value):
    return Outcome(f"value{value}", {"value": float(value)})


def test_a_failure_is_tried_again(tmp_path):
    records = KeptRuns(tmp_path, Outcome)
    for _ in range(2):
        kept = Kept(pools.Pool(), records, lambda value: "name", lambda value: {})
        kept.submit(0, task, "raise")
        assert kept.before == 0 and isinstance(kept.next()[1], Failed)


# --- clusters ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["compare", "--vary", "store.eviction=lru"], ["curve", "--sizes", "8GB"], ["plan"]])
def test_a_cluster_that_is_not_installed_is_wrong_usage(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = CliRunner().invoke(app, [*command, *SMALL, "--cluster", "ray"])
    assert done.exit_code == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert "pip install 'kvplan[ray]'" in done.stderr
    assert CliRunner().invoke(app, [*command, *SMALL, "--cluster", "slurm"]).exit_code == 2


def test_a_cluster_that_is_not_known():
    with pytest.raises(ConfigError, match="none of dask, ray"), pool(2, "slurm"):
        pass


@pytest.fixture(params=CLUSTERS)
def cluster(request):
    """A cluster whose package is installed."""
    if find_spec(PACKAGES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def test_a_cluster_gives_the_same_byte_for_byte(cluster, tmp_path):
    """With policies of a user's own, from a module and a file, one of which fails; and a folder of finished runs."""
    own = "from kvplan.sim.policies.eviction.lru import Lru\n\n\nclass Own(Lru):\n    NAME = 'own'\n"
    (tmp_path / "mine.py").write_text(own)
    (tmp_path / "broken.py").write_text(own + "\n    def victim(self):\n        raise LookupError('no such session')\n")
    command = [sys.executable, "-m", "kvplan", "compare", *SMALL, "--replications", "2", "--jobs", "2", "--json"]
    command += ["--vary", "store.eviction=lru,mine:Own,mine.py:Own,broken:Own"]
    found = [
        subprocess.run([*command, "--out", f"c{place}", *more], cwd=tmp_path, capture_output=True, text=True)
        for place, more in enumerate(([], ["--cluster", cluster]))
    ]
    assert [done.returncode for done in found] == [1, 1], found[1].stderr
    assert found[0].stdout == found[1].stdout and len(json.loads(found[0].stdout)["variants"]) == 3
    assert [done.stderr.replace("c1", "c0") for done in found] == [found[0].stderr] * 2 and "no such session" in found[0].stderr
    runs = [{path.name: path.read_bytes() for path in (tmp_path / name / "runs").iterdir()} for name in ("c0", "c1")]
    assert runs[0] == runs[1] and len(runs[0]) == 6


SHORT_PLAN = """
from kvplan.sim.planner.question import Question
Question.__init__.__defaults__ = (*Question.__init__.__defaults__[:4], 32, 400, 400, 2)
from kvplan.__main__ import main
if __name__ == "__main__":
    main()
"""
ELSEWHERE = {
    "curve": ["curve", *SMALL, "--sizes", "8GB,16GB", "--policies", "lru", "--replications", "2"],
    "plan": [
        "plan", "default", "--set", "model=llama-3.1-8b", "--set", "hardware=h100-80g-x1", "--set", "prices=rent-2026",
        "--set", "workload.think_time.median_s=20", "--ttft-p95", "250ms", "--sessions-per-s", "3",
        "--vary", "store.dram+store.ssd=32GB+0GB,64GB+0GB",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", ELSEWHERE)
def test_curves_and_plans_on_a_cluster_are_the_same_byte_for_byte(cluster, name, tmp_path):
    (tmp_path / "main.py").write_text(SHORT_PLAN)
    command = [sys.executable, "main.py", *ELSEWHERE[name], "--jobs", "2", "--json"]
    found = [
        subprocess.run([*command, "--out", f"c{place}", *more], cwd=tmp_path, capture_output=True, text=True)
        for place, more in enumerate(([], ["--cluster", cluster]))
    ]
    assert [done.returncode for done in found] == [0, 0], found[1].stderr
    assert found[0].stdout == found[1].stdout
    files = [
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "c0", tmp_path / "c1")
    ]
    assert files[0] == files[1] and len(files[0]) > 6


@pytest.mark.skipif(find_spec("distributed") is None, reason="dask is not installed")
def test_no_cluster_at_the_address_is_one_message(tmp_path):
    environment = {**os.environ, "DASK_SCHEDULER_ADDRESS": "tcp://127.0.0.1:9"}
    code = "from kvplan.sim.sweep import pool; pool._PATIENCE_S = 1\nfrom kvplan.__main__ import main; main()"
    command = [sys.executable, "-c", code, "compare", *SMALL, "--vary", "store.eviction=lru", "--cluster", "dask"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == "" and "no Dask cluster at" in done.stderr.splitlines()[-1]
