"""Room for more sessions at the same service."""

import json
import math
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError
from kvplan.sim.report import table
from kvplan.sim.sweep import equalservice


def searched(monkeypatch, p95_at_once: float, overrides=(), overloaded: bool = False) -> dict:
    """With a server whose TTFT p95 is the load times `p95_at_once`, and 1 s without a store; a run of load 1 takes 1 h at 12 $."""
    loaded = config.load(None, ["workload.sessions=50", *overrides])
    workload = build_workload(loaded)
    runs = []

    def simulate(settings, turns):
        load = float(turns_of[0].max() / turns.arrival_s[turns.first_turn[:-1]].max())
        runs.append(load)
        stored = settings.store.dram != "0GB"
        warnings = ["overloaded: …"] if overloaded and not stored else []
        summary = {
            "ttft_s": {"p95": load * p95_at_once if stored else 1.0},
            "cost_usd": {"per_million_output_tokens": 12 / load},
            "warnings": warnings,
        }
        return SimpleNamespace(summary=summary)

    turns_of = [workload.arrival_s[workload.first_turn[:-1]]]
    original = equalservice.build_workload

    def deployment(settings, **how):
        turns = original(settings, **how)
        turns_of[0] = turns.arrival_s[turns.first_turn[:-1]]
        return turns

    monkeypatch.setattr(equalservice, "build_workload", deployment)
    monkeypatch.setattr(equalservice, "simulate", simulate)
    found = equalservice.equal_service(loaded, workload)
    assert found["simulations"] == len(runs) == 5 * (2 + equalservice.STEPS)
    return found


@pytest.mark.parametrize("p95_at_once", [0.4, 0.65, 0.99, 1.5, 3.0])
def test_the_load_is_that_which_has_recomputations_p95(monkeypatch, p95_at_once):
    found = searched(monkeypatch, p95_at_once)
    open_part = math.log(equalservice.REACH) / 2**equalservice.STEPS
    assert 0 <= -math.log(found["load"]["factor"] * p95_at_once) <= open_part
    assert found["at_the_reach"] == 0 and found["ttft_p95_s"] == 1 and len(set(found["seeds"])) == 5
    assert found["cost"]["factor"] == pytest.approx(1 / found["load"]["factor"])
    assert found["recompute_usd_per_million_output_tokens"] == 12


def test_no_more_sessions_is_said_in_words(monkeypatch):
    found = searched(monkeypatch, 1.0)
    assert found["load"]["factor"] == 1 and table._equal(found)[0].startswith("It bears no more sessions at the same TTFT p95")
    assert len(table._equal(found)) == 1


@pytest.mark.parametrize(("p95_at_once", "load"), [(0.01, 7.744), (100.0, 1 / equalservice.REACH)])
def test_an_answer_beyond_what_was_tried_is_said_to_be_so(monkeypatch, p95_at_once, load):
    found = searched(monkeypatch, p95_at_once)
    assert found["load"]["factor"] == pytest.approx(load, rel=1e-3) and found["at_the_reach"] == 5
    assert any("beyond the loads that were tried" in line for line in table._equal(found))


def test_words(monkeypatch):
    found = searched(monkeypatch, 0.65, overloaded=True)
    found["load"] |= {"factor": 1.5, "low": 1.4, "high": 1.6, "p": 0.001}
    found["cost"] |= {"factor": 0.8, "low": 0.75, "high": 0.85, "p": 0.001}
    first, doubt = table._equal(found)
    assert first.startswith("It bears 50% ± 10 more sessions at the same TTFT p95 (1 s, recomputation's at the present load): $")
    assert first.endswith(" instead of $12.00 per million output tokens (-20% ± 5).")
    assert "no level of service" in doubt
    found["load"] |= {"factor": 0.9, "low": 0.7, "high": 1.1, "p": 0.4}
    assert "10% ± 20 fewer sessions" in table._equal(found)[0] and "cannot be told from" in table._equal(found)[1]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["store.dram=0GB", "store.ssd=0GB"], "no tier is switched on"),
        (["workload.arrival={process: batch}"], "all sessions arrive at one instant"),
    ],
)
def test_where_there_is_nothing_to_ask_it_is_an_error(overrides, reason, workload):
    table_ = workload([[(10, 10)], [(20, 10)]]) if "batch" in overrides[0] else None
    loaded = config.load(None, ["workload.sessions=10", *(overrides if table_ is None else [])])
    with pytest.raises(ConfigError, match=reason):
        equalservice.equal_service(loaded, build_workload(loaded) if table_ is None else table_)


def test_the_command_prints_it(monkeypatch):
    monkeypatch.setattr(equalservice, "STEPS", 3)
    command = ["simulate", "--equal-service", "--no-baseline", "--set", "workload.sessions=40", "--set", "workload.arrival.rate_per_s=1"]
    given = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)["equal_service"]
    assert given["simulations"] == 25 and given["load"]["low"] < given["load"]["factor"] < given["load"]["high"]
    assert "sessions at the same TTFT p95" in CliRunner().invoke(app, command).stdout
