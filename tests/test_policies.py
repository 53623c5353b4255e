"""What prefetch, load, write and scheduling policies do in the engine: one scene each, worked by hand."""

import json
import random
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_store import check_eviction_contract
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.cli.app import app
from kvplan.sim.deployment import resolve
from kvplan.sim.policies import registry
from kvplan.sim.policies.base import OPTIONAL, LoadView
from kvplan.sim.policies.supervise import calls
from kvplan.sim.simulation import simulate
from kvplan.traces.workload import untimed

ROOT = Path(__file__).resolve().parents[1]
ON_SSD = ("store.dram=3.4GB", "store.host_buffer=0.5", "store.ssd=100GB", "store.eviction=lru", "store.load=always")
"""With these the KV of `scene`'s first session has gone to SSD when its second turn comes."""


@pytest.fixture
def scene(workload):
    """Session 0 has 1,200 tokens of history on SSD when its second turn, of 50 tokens, comes 60 s after its first."""

    def play(*overrides, others=()):
        table = workload([[(1000, 200), (50, 10)], [(1800, 200)], *others], arrivals=[0, 10, *(60 for _ in others)], gap_s=60.0)
        settings = config.load(None, [*ON_SSD, *overrides])
        result = simulate(settings, table)
        return result, {name: column[1].item() for name, column in result.columns.items()}, resolve(settings)

    return play


def _fetch_s(deployment) -> float:
    return 1200 * deployment.kv_bytes / deployment.drive_links.read_bytes_per_s + deployment.drive_links.latency_s


def test_the_scene_is_set(scene):
    result, turn, deployment = scene("store.prefetch=none")
    assert turn["cached_tokens"] == 1200 and result.summary["hit_rate"]["ssd"] == 1.0
    assert turn["admitted_s"] == turn["arrival_s"] and turn["stall_s"] > 0.8 * _fetch_s(deployment)


def test_best_effort_recomputes_what_has_not_come(scene):
    _, turn, _ = scene("store.prefetch=best-effort")
    assert turn["admitted_s"] == turn["arrival_s"]  # the GPU is idle: nothing has come yet
    assert turn["cached_tokens"] == 0 and turn["stall_s"] == 0


def test_best_effort_uses_what_has_come(scene):
    table = untimed([0, 0, 1, 2], [1000, 50, 1800, 2500], [200, 10, 200, 2])
    settings = config.load(None, [*ON_SSD, "store.prefetch=best-effort"])
    alone = simulate(settings, table.select([0, 1]).with_times([0.0, 10.0], [60.0] * 3)).columns
    comes = alone["arrival_s"][1]
    columns = simulate(settings, table.with_times([0.0, 10.0, comes - 0.01], [60.0] * 4)).columns  # the GPU prefills when it comes
    deployment = resolve(settings)
    waited = columns["admitted_s"][1] - columns["arrival_s"][1]
    assert 0 < waited < _fetch_s(deployment)
    assert columns["cached_tokens"][1] == pytest.approx(1200 * waited / _fetch_s(deployment), abs=1)
    assert columns["cached_tokens"][1] < 1200


def test_wait_complete_starts_when_all_has_come(scene):
    result, turn, deployment = scene("store.prefetch=wait-complete")
    assert turn["admitted_s"] - turn["arrival_s"] == pytest.approx(_fetch_s(deployment), rel=1e-9)
    assert turn["cached_tokens"] == 1200 and result.summary["hit_rate"]["dram"] == 1.0


def test_ready_jobs_overtake_the_held(scene):
    result, turn, _ = scene("store.prefetch=wait-complete", others=[[(20, 2)]])
    comes = turn["arrival_s"]
    table_columns = result.columns
    assert table_columns["admitted_s"][3] < turn["admitted_s"] and comes < turn["admitted_s"]


@pytest.mark.parametrize("prefetch", registry.policies("prefetch"))
@pytest.mark.parametrize("scheduler", registry.policies("scheduling"))
def test_nobody_waits_for_ever(scheduler, prefetch):
    """Below saturation, with DRAM for five sessions: a job may wait for its KV, and for DRAM to take it, but is not forgotten."""
    settings = ["workload.sessions=70", "workload.arrival.rate_per_s=0.5", "workload.think_time.median_s=5", "store.load=always"]
    settings += ["store.dram=16GB", "store.ssd=60GB", "store.eviction=lru", "workload.tenants={a: 0.7, b: 0.3}"]
    columns = simulate(config.load(None, [*settings, f"scheduler={scheduler}", f"store.prefetch={prefetch}"])).columns
    assert (columns["admitted_s"] - columns["arrival_s"]).max() < 30


def test_a_held_job_is_ranked_again_when_it_is_ready():
    """Under data-ready it goes by its arrival then, also in an overload, and not behind all that came ready since."""
    settings = ["workload.sessions=120", "workload.arrival.rate_per_s=2", "workload.think_time.median_s=5", "store.load=always"]
    settings += ["store.dram=16GB", "store.ssd=60GB", "store.eviction=lru", "store.prefetch=timeout"]
    waits = []
    for scheduler in ("fcfs", "data-ready"):
        columns = simulate(config.load(None, [*settings, f"scheduler={scheduler}"])).columns
        waits.append((columns["admitted_s"] - columns["arrival_s"]).max())
    assert waits[1] < 1.2 * waits[0]


def test_a_job_that_dram_cannot_take_does_not_wait(scene):
    _, turn, _ = scene("store.prefetch=wait-complete", "store.host_buffer=0.8")
    assert turn["admitted_s"] == turn["arrival_s"] and turn["cached_tokens"] == 0


def test_timeout_gives_up(scene, monkeypatch):
    from kvplan.sim.policies.prefetch import timeout

    monkeypatch.setattr(timeout, "_BASE_S", 0.05)
    monkeypatch.setattr(timeout, "_PER_TOKEN_S", 0.0)
    _, turn, deployment = scene("store.prefetch=timeout")
    assert turn["admitted_s"] - turn["arrival_s"] == pytest.approx(0.05)
    assert turn["cached_tokens"] == pytest.approx(1200 * 0.05 / _fetch_s(deployment), abs=1)
    monkeypatch.setattr(timeout, "_BASE_S", 5.0)
    _, turn, deployment = scene("store.prefetch=timeout")
    assert turn["admitted_s"] - turn["arrival_s"] == pytest.approx(_fetch_s(deployment), rel=1e-9)


def test_a_hint_brings_the_kv_before_the_turn(scene):
    result, turn, _ = scene("store.prefetch=hint")
    assert turn["cached_tokens"] == 1200 and result.summary["hit_rate"]["dram"] == 1.0
    assert turn["admitted_s"] == turn["arrival_s"]


def test_faster_recomputes_when_loading_is_slower(scene):
    _, slow, deployment = scene("store.prefetch=none", "store.load=faster")
    assert slow["cached_tokens"] == 0 and slow["stall_s"] == 0
    assert slow["first_token_s"] - slow["admitted_s"] == pytest.approx(deployment.steps.prefill(1250))
    _, fast, _ = scene("store.load=faster", "store.dram=100GB")
    assert fast["cached_tokens"] == 1200


def test_cake_meets_in_the_middle(scene):
    _, turn, deployment = scene("store.prefetch=none", "store.load=cake")
    loaded = turn["cached_tokens"]
    assert 0 < loaded < 1200
    met = turn["first_token_s"] - turn["admitted_s"]
    recompute = deployment.steps.prefill(1250)
    assert met < recompute and met < scene("store.prefetch=none")[1]["first_token_s"] - turn["admitted_s"]
    assert turn["stall_s"] == pytest.approx(
        0, abs=2 * deployment.kv_bytes / deployment.drive_links.read_bytes_per_s
    )  # the two finish together


class Arithmetic(LoadView):
    """A job whose times are simple: `slow` seconds to load a token, quadratic prefill."""

    def __init__(self, cached, new, slow, fixed):
        self.cached, self.new, self._slow, self._fixed = cached, new, slow, fixed
        self.rest_s = self.prefill_s(new, cached)

    def prefill_s(self, new, history):
        return self._fixed + new + 0.01 * new * (history + new)

    def load_s(self, tokens):
        return 0.5 + self._slow * tokens

    def layerwise_s(self, tokens):
        return max(self.prefill_s(self.new + self.cached - tokens, tokens), self.load_s(tokens) + 1)


@pytest.mark.parametrize("name", registry.policies("load"))
@given(st.integers(1, 40), st.integers(1, 20), st.floats(0.01, 20), st.floats(0, 5))
def test_load_contract(name, cached, new, slow, fixed):
    job = Arithmetic(cached, new, slow, fixed)
    tokens, compute_s, done_s = registry.policies("load")[name]().loads(job)
    assert 0 <= tokens <= cached and 0 < compute_s <= done_s
    assert done_s >= job.prefill_s(new, cached), "the new tokens are always computed"


@given(st.integers(1, 40), st.integers(1, 20), st.floats(0.01, 20), st.floats(0, 5))
def test_cake_is_the_best_of_all_meeting_points(cached, new, slow, fixed):
    job = Arithmetic(cached, new, slow, fixed)
    rest = job.prefill_s(new, cached)
    points = [
        max(job.prefill_s(computed, 0) if computed else 0.0, job.load_s(cached - computed) if computed < cached else 0.0) + rest
        for computed in range(cached + 1)
    ]
    _, _, done_s = registry.policies("load")["cake"]().loads(job)
    grain = fixed + 1 + 0.02 * cached + slow  # one token more or less
    assert done_s <= min(*points, job.layerwise_s(cached)) + grain
    assert done_s >= min(*points, job.layerwise_s(cached)) - 1e-9


def test_write_through_leaves_nothing_to_write_when_room_is_needed(scene):
    back, _, deployment = scene("store.prefetch=none", "store.dram=100GB", "store.host_buffer=0")
    through, _, _ = scene("store.prefetch=none", "store.dram=100GB", "store.host_buffer=0", "store.write=through")
    assert back.summary["tiers"]["ssd"]["written_bytes"] == 0
    kv = deployment.kv_bytes
    assert through.summary["tiers"]["ssd"]["written_bytes"] == kv * (1200 + 2000)  # the last turn is copied when the run is over
    assert through.summary["hit_rate"]["dram"] == 1.0


def test_second_hit_writes_only_what_came_back(scene):
    result, turn, deployment = scene("store.prefetch=none", "store.write=second-hit", others=[[(20, 400)]])
    assert turn["cached_tokens"] == 0, "one turn is no reason to write: making room for session 1 lost it"
    assert result.summary["tiers"]["ssd"]["written_bytes"] == 1260 * deployment.kv_bytes, "the second turn is one"


@pytest.mark.parametrize("name", registry.policies("write"))
def test_write_contract(name):
    policy = registry.policies("write")[name](100.0)
    for uses in range(4):
        for size in (0, 1, 10**12):
            answers = [(policy.copies(3, uses), policy.demotes(3, uses, size, 5.0)) for _ in range(2)]
            assert answers[0] == answers[1] and all(type(each) is bool for each in answers[0]), "asking changes nothing"
        policy.wrote(10, 5.0)


def test_within_rating_writes_a_bucket_and_then_at_the_rated_rate():
    policy = registry.policies("write")["within-rating"](2.0)
    assert policy.demotes(0, 1, 7200, 0.0) and not policy.demotes(0, 1, 7201, 0.0)
    policy.wrote(7200, 0.0)
    assert not policy.demotes(0, 1, 21, 10.0) and policy.demotes(0, 1, 20, 10.0)
    assert policy.demotes(0, 1, 7200, 1e6) and not policy.demotes(0, 1, 7201, 1e6)


@pytest.mark.parametrize("prefetch", registry.policies("prefetch"))
def test_what_expires_while_it_is_fetched_does_no_harm(prefetch):
    setup = [
        "workload.sessions=40",
        "workload.arrival.rate_per_s=2",
        "workload.think_time.median_s=10",
        "store.dram=10GB",
        "store.ttl_s=30",
    ]
    for seed in (1, 2, 59):
        simulate(config.load(None, [*setup, f"store.prefetch={prefetch}", f"seed={seed}"]))


def test_weights_of_tenants_that_do_not_exist_are_refused():
    with pytest.raises(config.ConfigError, match="tenant_weights names proo, but the workload's tenants are free, pro"):
        simulate(config.load(None, ["workload.sessions=20", "workload.tenants={pro: 0.3, free: 0.7}", "tenant_weights={proo: 8}"]))


def test_a_failing_policy_is_one_line():
    settings = ("workload.sessions=60", "store.dram=5GB", "store.eviction=test_store:FailsOnUse")
    done = CliRunner().invoke(app, ["simulate", *(part for each in settings for part in ("--set", each))])
    assert done.exit_code == 1 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "eviction policy 'test_store:FailsOnUse': use(" in done.stderr


# --- a policy of one's own --------------------------------------------------------------------------------------------------------


@pytest.fixture
def example():
    """The policy of tutorial and notebook."""
    return (ROOT / "notebooks" / "largest_first.py").read_text(encoding="utf-8")


def _calls(count=400):
    rng = random.Random(5)
    names = ["insert", "use", "expect", "remove", "set aside", "restore"]
    return [(rng.choice(names), rng.randrange(9)) for _ in range(count)]


def _compared(*eviction):
    small = ["--set", "workload.sessions=40", "--set", "store.dram=8GB", "--set", "store.ssd=20GB", "--replications", "1", "--jobs", "1"]
    vary = ["--vary", f"store.eviction={','.join(eviction)}"] if eviction else []
    done = CliRunner().invoke(app, ["compare", *small, *vary, "--json"])
    assert done.exit_code == 0, done.output
    return {variant["label"]: variant["mean"]["hit_rate.resumed"] for variant in json.loads(done.stdout)["variants"]}


def test_the_tutorials_policy_runs_and_keeps_the_contract(example, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test's
    found = _compared("lru", "mine:LargestFirst")
    assert found.keys() == {"lru", "mine:LargestFirst"} and found["lru"] != found["mine:LargestFirst"]
    check_eviction_contract(registry.find("eviction", "mine:LargestFirst"), _calls())


def test_a_policy_is_one_file(example, tmp_path, monkeypatch):
    """A file beside the packaged ones is in `list`, in `compare` and under the contract: nothing else is touched."""
    import kvplan.sim.policies.eviction as room

    (tmp_path / "largest_first_here.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    registry.policies.cache_clear()
    try:
        assert "largest-first" in CliRunner().invoke(app, ["list", "eviction"]).output
        assert "largest-first" in _compared()
        check_eviction_contract(registry.policies("eviction")["largest-first"], _calls())
    finally:
        registry.policies.cache_clear()


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_kind_is_listed_with_what_it_does(kind):
    shown = CliRunner().invoke(app, ["list", kind]).output
    for name, policy in registry.policies(kind).items():
        assert re.search(rf"^{re.escape(name)} +\S+", shown, re.MULTILINE), policy


@pytest.mark.pure
@pytest.mark.parametrize("kind", registry.KINDS)
def test_what_a_policy_may_leave_out_has_a_default(kind):
    base = registry.KINDS[kind]
    for call in calls(base):
        assert getattr(getattr(base, call), "__isabstractmethod__", False) == (call not in OPTIONAL), call


@pytest.mark.pure
@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_policy_says_where_it_comes_from(kind):
    for policy in registry.policies(kind).values():
        text = sys.modules[policy.__module__].__doc__
        assert len(text.splitlines()[0]) <= 140 and policy.__doc__.startswith("O("), policy
