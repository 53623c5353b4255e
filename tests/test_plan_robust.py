"""Planning again with what may be otherwise: scenarios, the search near a known answer, and the settings that they change."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.deployment import resolve
from kvplan.sim.planner import sensitivity
from kvplan.sim.planner.objective import Objective, Sample
from kvplan.sim.planner.plan import plan
from kvplan.sim.planner.probe import Seen
from kvplan.sim.planner.question import Question
from kvplan.sim.planner.scenario import Scenario, inputs, near, what_ifs
from kvplan.sim.planner.sensitivity import robustness, swing
from kvplan.sim.report import plan as report
from kvplan.sim.report import rundir
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.pool import pool
from kvplan.traces import TraceError, rescale

P95 = Objective("ttft", "p95", 0.5)
GOOD, BAD = (Seen((Sample(np.full((20, 2), [100 * share, 100]), np.zeros((2, 2)), 9, 0.1),), {}) for share in (0.99, 0.5))
SMALL = (
    "model=llama-3.1-8b",
    "hardware=h100-80g-x1",
    "prices=rent-2026",
    "deployment.max_batch=64",
    "workload.steady=true",
    "workload.think_time.median_s=20",
    "slo.ttft_p95_s=0.25",
)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_the_search_near_an_answer_finds_it(truth, start, least):
    search, looks = near((P95,), start, least, 64), []
    try:
        wanted = next(search)
        while True:
            looks += wanted
            wanted = search.send([GOOD if replicas >= truth else BAD for replicas, _ in wanted])
    except StopIteration as end:
        found = end.value
    assert found.replicas == max(truth, least) and len(set(looks)) == len(looks) <= 16
    assert abs(truth - start) > 1 or least > truth or len(looks) <= 6, "few probes where the answer is near"


def test_no_number_is_enough_near_the_limit_either():
    search = near((P95,), 60, 1, 64)
    assert next(search) == [(60, 0)] and search.send([BAD]) == [(64, 0)]
    with pytest.raises(StopIteration) as end:
        search.send([BAD])
    assert end.value.value.replicas is None and "64 replicas" in end.value.value.reason


def test_eleven_inputs_and_the_what_ifs_are_configurations():
    loaded = config.load("chat-2026")
    pairs = inputs(loaded)
    assert len(pairs) == 11 and len({next(each for each in pair if each).name for pair in pairs}) == 11
    more = what_ifs(loaded)
    assert [each.name for each in more[:3]] == ["think time", "load", "context"] and {each.change for each in more[3:]} == {
        "h200-x8",
        "b200-x8",
    }
    shape = config.load("chat-2026", ["hardware=aws-p5-48xlarge", "prices=aws-2026", "store.dram=1TB"])
    assert [each.change for each in what_ifs(shape)[3:]] == ["rtx-pro-6000-x8", "b300-x8"]  # one node a GPU
    for scenario in [each for pair in pairs for each in pair if each is not None] + more:
        config.load("chat-2026", list(scenario.overrides))
    halved = config.load("chat-2026", ["deployment.step_time_factor=0.5"])
    low, high = inputs(halved)[-1]
    assert low.overrides == ("deployment.step_time_factor=0.4",) and high.overrides == ("deployment.step_time_factor=0.6",)


def test_the_connector_is_an_input_between_the_links_alone_and_the_slowest_known():
    ends = {
        name: [None if end is None else end.change for end in inputs(config.load("chat-2026", [f"store.connector={name}"]))[7]]
        for name in ("cachedattention", "vllm-native", "lmcache-mooncake")
    }
    assert ends["cachedattention"] == [None, "lmcache-mooncake"]
    assert ends["vllm-native"] == ["links alone", "lmcache-mooncake"] and ends["lmcache-mooncake"] == ["links alone", None]
    one = config.load("chat-2026", ["hardware=h100-80g-x1", "deployment.gpus=1", "model=llama-3.1-8b", "store.dram=64GB"])
    slow = inputs(one)[7][1]
    assert slow.change == "sglang-hicache" and resolve(config.load(one, slow.overrides)).host.read_bytes_per_s == 4.8e9


def test_the_factors_of_a_plant():
    plain, changed = (
        resolve(config.load("default", [*SMALL, *more]))
        for more in ([], ["deployment.step_time_factor=2", "deployment.link_efficiency=0.5", "deployment.kv_dtype=fp8"])
    )
    assert changed.steps.prefill(1000) == pytest.approx(2 * plain.steps.prefill(1000))
    assert changed.steps.per_context == pytest.approx(plain.steps.per_context) and changed.kv_bytes == plain.kv_bytes // 2
    assert changed.host.read_bytes_per_s == plain.host.read_bytes_per_s / 2
    assert changed.drive_links.write_bytes_per_s == plain.drive_links.write_bytes_per_s / 2
    assert changed.in_hbm(1) == plain.in_hbm(1) // 2


def test_longer_answers_and_think_times():
    plain, longer = (
        build_workload(config.load("default", ["workload.sessions=100", *more]))
        for more in ([], ["workload.rescale.output=2", "workload.rescale.think=3"])
    )
    assert (longer.output_tokens == 2 * plain.output_tokens).all() and (longer.prompt_tokens == plain.prompt_tokens).all()
    assert longer.gap_s[~longer.is_first] == pytest.approx(3 * plain.gap_s[~plain.is_first])
    assert longer.origin["rescaled"] == {"output": 2.0, "think": 3.0}
    recorded = replace(plain, arrival_s=np.arange(plain.turns, dtype=float), open_loop=True)
    with pytest.raises(TraceError, match="open loop"):
        rescale.scaled_think_times(recorded, 2.0)


# --- a small plan, again ----------------------------------------------------------------------------------------------------------

LOAD = tuple(Scenario("load", f"× {factor:g}", load=factor, start=factor) for factor in (0.5, 2.0))
PRICE = tuple(Scenario("price of GPU", f"× {factor:g}", prices=(("gpu", factor),)) for factor in (0.8, 1.2))
LARGE = Scenario("model", "too large", ("model=llama-3.1-405b",))


@pytest.fixture(scope="module")
def found():
    return plan(Question("default", SMALL, 4.0, (Axis.parse("store.dram+store.ssd=64GB+0GB"),), 48, 400, 300, 2))


@pytest.fixture
def few(monkeypatch):
    _ask_little(monkeypatch)


def _ask_little(patch):
    patch.setattr(sensitivity, "inputs", lambda _: [PRICE, LOAD])
    patch.setattr(sensitivity, "what_ifs", lambda _: [LARGE])


@pytest.fixture(scope="module")
def robust(found):
    with pytest.MonkeyPatch.context() as patch:
        _ask_little(patch)
        return robustness(found)


def test_each_scenario_is_planned_again(found, robust):
    by_name = {pair[0].scenario.name: pair for pair in robust.inputs}
    low, high = by_name["price of GPU"]
    assert low.best.replicas == found.cheapest.replicas
    assert high.best.cost_usd_per_month == pytest.approx(1.2 * found.cheapest.cost_usd_per_month)
    less, more = by_name["load"]
    assert less.best.replicas < robust.unchanged.best.replicas < more.best.replicas
    assert robust.inputs[0] == by_name["load"], "which moves the cost most"
    assert swing(robust.unchanged, (less, more)) == more.best.cost_usd_per_month - less.best.cost_usd_per_month
    assert swing(robust.unchanged, (less, None)) == robust.unchanged.best.cost_usd_per_month - less.best.cost_usd_per_month
    (large,) = robust.what_ifs
    assert large.best is None and "does not fit" in large.reason, "reported with its cause, and the rest goes on"


def test_what_else_may_be_true_is_data_and_text_and_no_pool_matters(found, robust, few, capsys):
    with pool(2) as workers:
        again = robustness(found, workers)
    one, two = (json.loads(rundir.dumps(report.data(replace(found, robust=each)))) for each in (robust, again))
    assert one == two and [each["input"] for each in one["robust"]["sensitivity"]] == ["load", "price of GPU"]
    report.print_plan(replace(found, robust=robust))
    printed = capsys.readouterr().out
    assert "What else may be true" in printed and "does not fit" in printed
