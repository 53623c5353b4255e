"""Any function from RunInput to RunOutput is an engine: here is one that answers from a table, and knows no clock."""

import numpy as np
import pytest

from kvplan.sim import config
from kvplan.sim.engine import service
from kvplan.sim.metrics.output import Books, RunInput, RunOutput
from kvplan.sim.simulation import simulate

TTFT_S, ANSWER_S = 0.25, 2.0
COUNTS = ("prompt_tokens", "history_tokens", "cached_tokens", "output_tokens", "tier", "overflow")
SPENT = ("prefill_s", "decode_s", "load_stall_s", "save_stall_s", "prefilled_tokens")
SERIES = ("time_s", "replica", "waiting", "running", "hbm_running_bytes")


def table_engine(given: RunInput) -> RunOutput:
    """Every first token comes a quarter of a second after its turn, and the answer two seconds after that; nothing is kept."""
    workload = given.workload
    columns = {name: np.zeros(workload.turns, np.int64) for name in COUNTS}
    columns |= {"prompt_tokens": workload.prompt_tokens, "output_tokens": workload.output_tokens, "tier": columns["tier"] - 1}
    arrival_s = workload.arrival_s[workload.first_turn[workload.session]] + 10.0 * workload.turn
    times = {"arrival_s": 0.0, "admitted_s": 0.0, "first_token_s": TTFT_S, "done_s": TTFT_S + ANSWER_S}
    columns |= {name: arrival_s + after for name, after in times.items()}
    columns |= {"stall_s": np.zeros(workload.turns), "order": np.argsort(np.argsort(columns["done_s"], kind="stable"))}
    spent = dict.fromkeys(SPENT, workload.turns / 8)
    return RunOutput(columns, {name: np.zeros(1) for name in SERIES}, links=(), ended=(Books(spent, {}),))


def test_an_engine_may_answer_from_a_table():
    loaded = config.load("default", ["workload.sessions=40", "store.dram=0GB", "store.ssd=0GB", "warmup_turns=0"])
    summary = simulate(loaded, engine=table_engine).summary
    assert summary["ttft_s"]["mean"] == pytest.approx(TTFT_S)
    assert summary["e2e_s"]["p99"] == pytest.approx(TTFT_S + ANSWER_S)
    assert summary["hit_rate"]["turns"] == 0
    assert summary["gpu"]["busy_s"] == summary["turns"] / 2


def test_the_engine_is_given_what_the_caller_has_said():
    seen = []

    def spy(given: RunInput) -> RunOutput:
        seen.append(given)
        return service.run_service(given)

    loaded = config.load("default", ["workload.sessions=10", "seed=3"])
    plain, spied = simulate(loaded), simulate(loaded, longest_run=5, engine=spy)
    assert (seen[0].config.seed, seen[0].longest_run, seen[0].workload.sessions) == (3, 5, 10)
    np.testing.assert_allclose(plain.columns["done_s"], spied.columns["done_s"])
