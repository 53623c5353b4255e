"""Loads that do not hold the GPUs: a job waits apart for its KV, with its HBM, and others go on."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.report import table
from kvplan.sim.simulation import simulate
from kvplan.traces.workload import untimed

PLAIN = (
    "store.ssd=0GB",
    "store.load=always",
    "store.eviction=lru",
    "store.prefetch=none",
    "batching=chunked",
    "deployment.step_tokens=8192",
)
CAME = 100.0
"""When second turns come; the first ones are long done."""


def served(sessions, *overrides, mode="asynchronous"):
    """Sessions of turns (arrival in seconds, prompt, answer), in an open loop: the deployment and the run."""
    rows = [(index, *turn) for index, turns in enumerate(sessions) for turn in turns]
    session, arrival_s, prompt, output = zip(*rows, strict=True)
    table = replace(untimed(session, prompt, output), arrival_s=np.array(arrival_s), open_loop=True)
    loaded = config.load(None, [*PLAIN, f"store.load_mode={mode}", *overrides])
    return resolve(loaded, table), simulate(loaded, table)


def load_s(deployment, tokens):
    host = deployment.host
    return deployment.stored(tokens) / host.read_bytes_per_s + host.latency_s


def test_a_job_alone_starts_when_its_kv_is_there():
    """The first token comes after the load and the prefill, as if the GPUs had waited, and they have not."""
    deployment, run = served([[(0, 3000, 10), (CAME, 200, 5)]])
    waited = run.columns["first_token_s"][1] - CAME
    assert waited == pytest.approx(load_s(deployment, 3010) + deployment.steps.prefill(200, 3010), rel=1e-9)
    blocking = served([[(0, 3000, 10), (CAME, 200, 5)]], mode="blocking")[1]
    pieces = (deployment.steps.layers - 1) * deployment.host.latency_s  # layer by layer each has its own latency
    assert blocking.columns["first_token_s"][1] - pieces == pytest.approx(run.columns["first_token_s"][1], rel=1e-12)
    assert run.summary["gpu"]["load_stall_s"] == 0 < blocking.summary["gpu"]["load_stall_s"]


def test_the_summary_says_who_was_deferred_for_its_kv():
    """A load that the GPUs do without defers its turn; one that they wait for does not, and the table names it only then."""
    run = served([[(0, 3000, 10), (CAME, 200, 5)], [(0, 50, 1)]])[1]
    assert run.columns["deferrals"].tolist() == [0, 1, 0]
    assert (run.summary["deferred_turns"], run.summary["deferrals"]) == (1, 1)
    assert [row[1] for row in table.rows(run.summary) if row[0].startswith("turns deferred")] == ["1"]
    blocking = served([[(0, 3000, 10), (CAME, 200, 5)]], mode="blocking")[1]
    assert "deferrals" not in blocking.columns and "deferred_turns" not in blocking.summary
    assert not any(row[0].startswith("turns deferred") for row in table.rows(blocking.summary))


def test_who_is_held_for_a_fetch_is_deferred():
    small = [
        "workload.sessions=12",
        "workload.think_time.median_s=1",
        "warmup_turns=0",
        "store.dram=1GB",
        "store.ssd=1TB",
        "store.load=always",
    ]
    held = simulate(config.load(None, [*small, "store.prefetch=wait-complete", "deployment.max_batch=4"]))
    assert held.summary["deferred_turns"] > 0
    assert "deferred_turns" not in simulate(config.load(None, [*small, "store.prefetch=none", "deployment.max_batch=4"])).summary


def test_who_decodes_goes_on_during_a_load():
    """Another job's decodes take their own time until the KV has come; at the end of that step the prefill shares one with them."""
    deployment, run = served([[(0, 3000, 10), (CAME, 200, 1)], [(CAME - 1, 50, 400)]])
    steps, columns = deployment.steps, run.columns
    first, admitted, ends = columns["first_token_s"][2], columns["admitted_s"][1], load_s(deployment, 3010)
    until = steps.steps_until(1, 51, admitted + ends - first)
    mixed = steps.step([(200, 3010)], 1, 51 + until)
    assert CAME <= admitted <= CAME + steps.decode(1, 400)
    assert columns["first_token_s"][1] == pytest.approx(first + steps.decode(1, 51, until) + mixed, rel=1e-9)
    assert columns["done_s"][2] == pytest.approx(columns["first_token_s"][1] + steps.decode(1, 52 + until, 398 - until), rel=1e-9)


def test_others_pass_a_job_that_loads_and_loads_queue_on_the_link():
    """What came later and is in HBM goes first; of two loads the second begins when the first has ended."""
    sessions = [[(0, 3000, 1), (CAME, 20, 1)], [(5, 2000, 1), (CAME + 1e-3, 20, 1)], [(CAME + 2e-3, 10, 1)]]
    deployment, run = served(sessions)
    first, steps = run.columns["first_token_s"], deployment.steps
    assert first[4] == pytest.approx(CAME + 2e-3 + steps.prefill(10), rel=1e-12)
    one, both = load_s(deployment, 3001), load_s(deployment, 3001) + load_s(deployment, 2001)
    assert first[1] == pytest.approx(CAME + one + steps.prefill(20, 3001), rel=1e-9)
    assert first[3] == pytest.approx(CAME + both + steps.prefill(20, 2001), rel=1e-9)


def test_a_load_takes_no_place_and_comes_before_the_queue():
    """One place: a job that loads leaves it to another, and when both want it, it goes before what waits."""
    sessions = [[(0, 3000, 1), (CAME, 20, 1)], [(CAME - 0.5, 10, 60)], [(CAME + 1e-3, 10, 1)]]
    deployment, run = served(sessions, "deployment.max_batch=1")
    admitted, first, done = (run.columns[name] for name in ("admitted_s", "first_token_s", "done_s"))
    assert done[2] > CAME + 2e-3, "the place is taken until then"
    assert admitted[1] == pytest.approx(done[2]), "a load begins when a place is free"
    assert first[3] == pytest.approx(admitted[1] + deployment.steps.prefill(10), rel=1e-9), "which others take meanwhile"
    assert first[1] == pytest.approx(admitted[1] + load_s(deployment, 3001) + deployment.steps.prefill(20, 3001), rel=1e-9)
    sessions[2:] = [[(CAME + 1e-3, 10, 40)], [(CAME + 2e-3, 10, 1)]]
    _, run = served(sessions, "deployment.max_batch=1")
    admitted, first, done = (run.columns[name] for name in ("admitted_s", "first_token_s", "done_s"))
    assert done[3] < first[1] < first[4] and admitted[4] >= done[1]


def test_what_loads_has_its_hbm():
    """HBM for one of the two at once: the second waits until the first has ended, though the GPUs have nothing to do."""
    sessions = [[(0, 3000, 1), (CAME, 20, 1)], [(CAME + 1e-3, 3000, 1)]]
    full = "deployment.hbm_utilization=0.171"
    deployment, run = served(sessions, full)
    assert deployment.in_hbm(3021) <= deployment.hbm_budget < deployment.in_hbm(6022)
    assert run.columns["admitted_s"][2] == pytest.approx(run.columns["done_s"][1], rel=1e-12)


@pytest.mark.pure
def test_what_is_saved_was_computed_first(monkeypatch):
    """The KV of a job that waited for its load is sent from when that had come."""
    from kvplan.sim.engine.saver import Saver

    begins = []
    begin = Saver.begin

    def seen(self, since, now):
        begins.append(since)
        return begin(self, since, now)

    monkeypatch.setattr(Saver, "begin", seen)
    deployment, _ = served([[(0, 3000, 10), (CAME, 200, 5)]])
    assert begins == pytest.approx([0.0, CAME + load_s(deployment, 3010)])


@pytest.mark.parametrize("seed", [21, 28])
def test_loads_apart_with_a_ttl_and_held_jobs_where_sessions_do_not_stay(seed):
    """Under guards. DRAM's reserve grows here while jobs are held: whose KV has no room any more is held no longer."""
    few = [f"seed={seed}", "workload.sessions=30", "workload.arrival.rate_per_s=5", "workload.think_time.median_s=1", "warmup_turns=0"]
    tight = ["store.dram=2GB", "store.ssd=1TB", "store.ttl_s=30", "deployment.max_batch=4", "deployment.window_tokens=2048"]
    both = ["store.load_mode=asynchronous", "store.prefetch=wait-complete", "deployment.replicas=2", "router=least-loaded"]
    run = simulate(config.load(None, [*few, *tight, *both, "batching=chunked", "store.eviction=fifo"]))
    assert len(np.unique(run.columns["replica"])) == 2 and run.summary["hit_rate"]["dram"] > 0
    assert run.summary["gpu"]["load_stall_s"] == 0


def test_throughput_of_hits_is_that_of_the_link_and_of_misses_that_of_full_steps():
    """Requests of 512 tokens, all at once: loaded ones come as fast as the link, computed ones a budget at a time. vLLM's own figures for
    10,000 of them (vLLM blog, January 2026): 389 and 43 thousand tokens a second."""
    h100 = ("model=llama-3.1-8b", "hardware=h100-80g-x1", "prices=rent-2026", "deployment.max_batch=1024", "store.connector=vllm-native")
    hits = [[(place * 0.1, 511, 1), (CAME, 1, 1)] for place in range(200)]
    deployment, run = served(hits, *h100, mode="null")
    took = run.columns["done_s"].max() - CAME
    assert took == pytest.approx(deployment.connection.request_s + 200 * load_s(deployment, 496), rel=0.06)
    assert 200 * 512 / took == pytest.approx(389e3, rel=0.2)
    deployment, run = served([[(0, 512, 1)]] * 321, *h100, mode="null")
    steps = deployment.steps
    full = 20 * steps.step([(512, 0)] * 16)
    assert run.columns["done_s"].max() == pytest.approx(steps.prefill(512) + full, rel=1e-9)
    assert 320 * 512 / full == pytest.approx(43e3, rel=0.2)


def test_the_connector_says_how_it_loads():
    modes = {
        name: resolve(config.load(None, [f"store.connector={name}"])).connection.loads
        for name in ("cachedattention", "lmcache", "vllm-native")
    }
    assert modes == {"cachedattention": "layerwise", "lmcache": "blocking", "vllm-native": "asynchronous"}


def test_the_older_name_of_the_setting_is_taken(tmp_path):
    (tmp_path / "old.yaml").write_text("store: {preload: none}")
    assert config.load(tmp_path / "old.yaml").store.load_mode == "blocking"
    assert config.load(tmp_path / "old.yaml", ["store.preload=layerwise"]).store.load_mode == "layerwise"
    assert config.load(tmp_path / "old.yaml", ["store.load_mode=null"]).store.load_mode is None
    with pytest.raises(config.ConfigError, match="load_mode"):
        config.load(None, ["store.preload=[1]"])
