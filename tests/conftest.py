"""Tests run with the guards on, with warnings as errors, and with the same examples however busy the machine is."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ["KVPLAN_GUARDS"] = "1"
settings.register_profile(
    "kvplan", deadline=None, derandomize="KVPLAN_FUZZ" not in os.environ, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kvplan")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Tests marked `pure` change or look into classes, which compiled ones do not allow."""
    from kvplan.sim import provenance

    if provenance.form() == "compiled":
        for item in items:
            if item.get_closest_marker("pure"):
                item.add_marker(pytest.mark.skip(reason="compiled classes cannot be changed, and have no docstrings"))


@pytest.fixture(scope="session")
def sharegpt_sample() -> Path:
    """A real sample of ShareGPT V3, where the machine has one."""
    path = SHARED / "sharegpt_v3_sample_300.json"
    if not path.exists():
        pytest.skip("the ShareGPT sample is not on this machine")
    return path


@pytest.fixture
def small():
    """A function from overrides to a configuration that runs in a fraction of a second."""
    from kvplan.sim import config

    def make(*overrides: str, preset: str = "default"):
        return config.load(preset, ["workload.sessions=60", "warmup_turns=0", *overrides])

    return make


@pytest.fixture
def as_users_run(monkeypatch):
    """Guards off, as at a user's: for long runs of which the README prints what comes out."""
    monkeypatch.setenv("KVPLAN_GUARDS", "0")


@pytest.fixture
def workload():
    """A function that builds a closed-loop workload from sessions of (prompt, output) turns."""
    from kvplan.traces.workload import untimed

    def make(sessions, arrivals=None, gap_s=0.0):
        rows = [(index, *turn) for index, turns in enumerate(sessions) for turn in turns]
        session, prompt, output = zip(*rows, strict=True)
        times = np.zeros(len(sessions)) if arrivals is None else np.asarray(arrivals, float)
        return untimed(session, prompt, output).with_times(times, np.full(len(rows), float(gap_s)))

    return make


@pytest.fixture
def one_thread():
    """PyTorch on one thread meanwhile."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
