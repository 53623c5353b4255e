"""`kvplan explain` of servers of blocks: what a turn finds and when its first token comes, as the engine has it."""

import itertools
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.analytic import inblocks
from kvplan.sim.analytic.explain import explain
from kvplan.sim.analytic.inblocks import serve_blocks
from kvplan.sim.analytic.turns import Served, turns_of
from kvplan.sim.analytic.work import prefills
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.deployment import resolve
from kvplan.sim.simulation import simulate
from kvplan.traces.blockpaths import turn_paths
from kvplan.validate.checks import explained as against

SERVER = [
    "model=llama-3.1-8b",
    "hardware=h100-80g-x8",
    "deployment.gpus=1",
    "prices=rent-2026",
    "store.unit=block",
    "store.eviction=lru",
    "warmup_turns=0",
]
NARROW = "store.hbm=300MB"
"""Of KV, 143 blocks of 16 tokens."""
BELOW = [
    ["engine=vllm", "store.dram=0GB", "store.ssd=0GB"],
    ["engine=vllm", NARROW, "store.dram=64GB", "store.ssd=0GB"],
    ["engine=vllm", NARROW, "store.dram=2GB", "store.ssd=2TB", "store.saved=all"],
    ["engine=vllm", NARROW, "store.dram=0GB", "store.ssd=2TB"],
    ["engine=vllm", NARROW, "store.dram=2GB", "store.ssd=2TB", "store.chunk_blocks=8", "store.load=faster"],
    ["engine=lmcache", NARROW, "store.dram=64GB", "store.ssd=0GB", "store.threshold=2", "store.saved=all"],
    ["engine=lmcache", NARROW, "store.dram=2GB", "store.ssd=2TB", "deployment.step_tokens=512"],
    ["engine=sglang", NARROW, "store.dram=64GB", "store.ssd=0GB"],
    ["engine=hicache", NARROW, "store.dram=2GB", "store.ssd=2TB", "store.prefetch=none", "store.ttl_s=3600"],
    ["engine=sglang", "store.dram=0GB", "store.ssd=0GB"],
    ["engine=vllm", "model=gpt-oss-20b", NARROW, "store.dram=0GB", "store.ssd=0GB"],
    ["engine=vllm", "model=gpt-oss-20b", NARROW, "store.dram=64GB", "store.ssd=0GB", "store.saved=all"],
    ["engine=vllm", "model=gpt-oss-20b", NARROW, "store.dram=1GB", "store.ssd=2TB", "store.chunk_blocks=3", "store.load=faster"],
    ["engine=vllm", "model=qwen3.5-35b-a3b", "deployment.gpus=4", "store.hbm=1GB", "store.dram=0GB", "store.ssd=0GB"],
    ["engine=vllm", "model=qwen3.5-35b-a3b", "deployment.gpus=4", NARROW, "store.dram=64GB", "store.ssd=0GB", "store.saved=all"],
    ["engine=vllm", "model=qwen3.5-35b-a3b", "deployment.gpus=4", NARROW, "store.dram=0GB", "store.ssd=2TB", "store.load=faster"],
    ["engine=vllm", "model=qwen3.5-35b-a3b", "deployment.gpus=4", NARROW, "store.dram=1GB", "store.ssd=2TB", "store.chunk_blocks=2"],
    ["batching=iteration", "store.hbm=600MB", "store.dram=700MB", "store.ssd=2TB", "store.load=always"],
    ["batching=prefill-first", NARROW, "store.dram=0GB", "store.ssd=2TB", "deployment.window_tokens=4096"],
    ["batching=chunked", NARROW, "store.dram=64GB", "store.ssd=0GB", "store.positions=embedded", "deployment.window_tokens=4096"],
]


def predicted(loaded, deployment, workload):
    """Tokens of each turn by tier, and seconds to its first token on idle links and GPUs."""
    turns = turns_of(loaded, deployment, workload)
    served, _ = serve_blocks(loaded, deployment, workload, turns, np.zeros(workload.turns), lambda done, total: None)
    found = prefills(loaded, deployment, turns, served, 0.0)
    return found.served.tokens, found.waits_s + found.compute_s


lengths = st.lists(st.tuples(st.integers(1, 3000), st.integers(1, 900)), min_size=3, max_size=6)


@pytest.mark.parametrize("overrides", BELOW, ids=" ".join)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sessions=st.lists(lengths, min_size=4, max_size=6))
def test_turns_one_at_a_time_find_and_take_what_the_engine_says(workload, overrides, sessions):
    loaded = config.load("default", [*SERVER, *overrides])
    made = workload(sessions, arrivals=[1000.0 * number for number in range(len(sessions))], gap_s=3500.0)
    deployment = resolve(loaded, made)
    tokens, first_s = predicted(loaded, deployment, made)
    columns = simulate(loaded, made).columns
    for tier, found in zip(deployment.sizes, tokens, strict=True):
        assert columns[f"{tier}_tokens"].tolist() == found.tolist(), tier
    assert columns["first_token_s"] - columns["arrival_s"] == pytest.approx(first_s, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("load", ["store.load=always", "store.load=faster", "store.defers=false"])
def test_states_that_only_ssd_has_take_the_time_that_they_take(workload, load):
    """Of 18 chunks in DRAM 10,000 tokens fill nine and three of states, another prompt five and three: two states go, and come up again
    before the next turn loads 9,504 tokens, all of which DRAM has: behind the connector's request where nobody is deferred. Of 12 full
    attention has gone as well."""
    chunk = 1056 * 10 * 2048
    given = ["engine=vllm", "model=qwen3.5-35b-a3b", "deployment.gpus=2", "deployment.window_tokens=30000", "store.hbm=1B", "store.ssd=2TB"]
    waits = {}
    for chunks in (12, 18, 40):
        loaded = config.load("default", [*SERVER, *given, f"store.dram={chunks * chunk}B", load])
        made = workload([[(10_000, 100), (1000, 100)], [(5290, 10)]], arrivals=[0.0, 500.0], gap_s=1000.0)
        deployment = resolve(loaded, made)
        tokens, first_s = predicted(loaded, deployment, made)
        columns = simulate(loaded, made).columns
        assert columns["first_token_s"] - columns["arrival_s"] == pytest.approx(first_s, rel=1e-9)
        assert columns["cached_tokens"].tolist() == [0, 9504, 0] and columns["dram_tokens"].tolist() == tokens[1].tolist()
        waits[chunks] = first_s[1], tokens[1, 1]
    up_s, request_s = deployment.tiers[2].own.seconds(2 * chunk), deployment.connection.request_s
    later_s = up_s if loaded.store.defers else max(0.0, up_s - request_s)
    assert waits[18] == (pytest.approx(waits[40][0] + later_s, rel=1e-9), 9504) and waits[12][1] < 9504


@pytest.mark.parametrize(("ttl_s", "hits"), [(50, [0, 0, 0]), (150, [0, 752, 0])])
def test_what_has_expired_is_not_found(workload, ttl_s, hits):
    """A turn a hundred seconds after the first finds it or not, and one two hundred seconds later does not, in HBM or below."""
    made = replace(workload([[(700, 60)] * 3], arrivals=[0]), gap_s=np.array([0.0, 100.0, 200.0]))
    for tiers in (["store.dram=0GB"], ["store.dram=64GB", "store.saved=all"]):
        loaded = config.load("default", [*SERVER, "engine=vllm", "store.ssd=0GB", *tiers, f"store.ttl_s={ttl_s}"])
        tokens, _ = predicted(loaded, resolve(loaded, made), made)
        assert tokens.sum(axis=0).tolist() == simulate(loaded, made).columns["cached_tokens"].tolist() == hits


def test_a_turn_finds_full_blocks_in_hbm_and_full_chunks_below(workload):
    """760 tokens are 47 blocks of 16, and 11 chunks of 64, of which HBM keeps one block; DRAM has 25 chunks, another prompt 24."""
    below = ["store.hbm=3MB", "store.dram=210MB", "store.ssd=2TB", "store.saved=all", "store.chunk_blocks=4"]
    alone = [(700, 60), (100, 60)]
    other = workload([alone, [(1500, 100)]], arrivals=[0, 50], gap_s=100.0)
    for overrides, made, expected in (
        ([], workload([alone], arrivals=[0], gap_s=100.0), [[0, 752]]),
        (below, workload([alone], arrivals=[0], gap_s=100.0), [[0, 16], [0, 688], [0, 0]]),
        (below, other, [[0, 0, 0], [0, 0, 0], [0, 704, 0]]),
    ):
        loaded = config.load("default", [*SERVER, "engine=vllm", "store.dram=0GB", "store.ssd=0GB", *overrides])
        tokens, _ = predicted(loaded, resolve(loaded, made), made)
        assert tokens.tolist() == expected


def explained(*overrides):
    loaded = config.load("default", [*SERVER, "engine=vllm", "workload.sessions=100", *overrides])
    made = build_workload(loaded)
    return explain(loaded, resolve(loaded, made), made)


def test_sizes_are_those_of_blocks_and_chunks():
    found = explained("store.chunk_blocks=4", "store.hbm=30GB", "store.dram=64GB", "store.ssd=0GB")
    blocks = found["blocks"]
    assert blocks["block_bytes"] == 16 * 131_072 and blocks["chunk_bytes"] == 64 * 131_072 and blocks["chunk_tokens"] == 64
    assert (
        blocks["blocks"] == found["hbm"]["kv_bytes"] // blocks["block_bytes"] - 1 > blocks["kept_blocks"] == 30e9 // blocks["block_bytes"]
    )
    assert blocks["resumed_history_tokens"] - blocks["in_full_chunks"] < 64 and blocks["in_full_blocks"] % 16 == 0
    assert found["served"]["lost"] >= 1 - found["served"]["at_most"] and not found["windows"]


@pytest.mark.parametrize("seed", range(4))
def test_random_settings_agree_with_the_simulator_or_the_reason_is_given(seed):
    one = against.explained_case(against.in_blocks(seed, sessions=60))
    assert not [one.words(name) for name in one.unexplained]


def test_prefixes_of_others_are_served_and_what_there_is_to_find_is_said():
    single = ["workload.kind=synthetic", "workload.turns={distribution: constant, value: 1}", "store.dram=0GB", "store.ssd=0GB"]
    assert explained(*single)["served"] == {"hbm": 0.0, "lost": 1.0, "at_most": 0.0}
    found = explained(*single, "workload.applications={count: 5, tokens: 2000}")["served"]
    assert found["hbm"] == found["at_most"] > 0.8


def test_what_an_endless_pool_finds_is_what_anybody_had_before():
    loaded = config.load("default", [*SERVER, "engine=vllm", "workload.sessions=40", "workload.applications={count: 3, tokens: 500}"])
    made = build_workload(loaded)
    deployment = resolve(loaded, made)
    turns = turns_of(loaded, deployment, made)
    paths, seen, found = turn_paths(made, 16, deployment.window, 0.5), set(), 0
    for turn in np.argsort(turns.time_s, kind="stable").tolist():
        keys, most = list(paths[turn]), (int(turns.history[turn] + turns.prompt[turn]) - 1) // 16
        found += 16 * sum(1 for _ in itertools.takewhile(seen.__contains__, keys[:most]))
        seen.update(keys)
    _, most_share = serve_blocks(loaded, deployment, made, turns, np.zeros(made.turns), lambda done, total: None)
    assert most_share == found / (turns.history + turns.prompt).sum()


@pytest.mark.parametrize(
    "model",
    [
        ["model=gpt-oss-20b"],
        ["model=gpt-oss-20b", "store.dram=1TB"],
        ["model=qwen3.5-35b-a3b", "hardware=h100-80g-x8", "prices=rent-2026", "deployment.gpus=2"],
    ],
)
def test_endless_room_is_that_of_the_server_s_own_groups(model):
    """Windows, and states, are kept where prompts end alone: no room makes more of it, and where nothing leaves, what is found is all."""
    found = explained("workload.sessions=20", "store.dram=0GB", "store.ssd=0GB", *model)["served"]
    assert 0.4 < 1 - found["lost"] == pytest.approx(found["at_most"], abs=1e-12)


def test_of_many_replicas_some_are_enough_and_that_is_said(monkeypatch):
    """Hits of all 24 are as near to those of 10 as these say themselves; the rate is that of all."""
    many = ["deployment.replicas=24", "workload.sessions=600", "workload.arrival.rate_per_s=4", "store.hbm=2GB", "store.dram=0GB"]
    whole = explained(*many)
    monkeypatch.setattr(inblocks, "_ENOUGH_TURNS", 1500)
    found = explained(*many)
    (words,) = [limit["words"] for limit in found["limits"] if "replicas" in limit["words"]]
    within = float(re.search(r"within ([\d.]+) points", words)[1]) / 100
    assert words.startswith("they are those of 10 of 24 replicas") and within < 0.15
    assert found["rate"] == whole["rate"] and 0 < abs(found["served"]["hbm"] - whole["served"]["hbm"]) < within
    assert not any("replicas" in limit["words"] for limit in whole["limits"])


def test_some_replicas_tell_what_is_saved_and_not_how_long_prompts_are(monkeypatch):
    monkeypatch.setattr(inblocks, "_ENOUGH_TURNS", 50)
    found = explained("deployment.replicas=6", "store.hbm=1MB", "store.dram=0GB", "store.ssd=0GB")["demand"]["resources"]
    assert found["GPU"]["seconds_per_turn"] == pytest.approx(found["GPU, recomputing"]["seconds_per_turn"], rel=1e-12)


def test_how_far_all_may_be_from_some():
    """One replica finds all and the other nothing: a half, of which two standard errors are 100 points. Where each has a session that finds
    all and one that finds nothing, they are those of four sessions."""
    one = np.full(4, 100)
    turns = SimpleNamespace(history=one, prompt=0 * one, is_first=one > 0, replica=np.array([0, 0, 1, 1]))
    for found, expected in (([100, 100, 0, 0], 1.0), ([100, 0, 100, 0], 1 / math.sqrt(3))):
        assert inblocks.error_of(turns, Served(np.array([found]), ())) == pytest.approx(expected)


def test_as_text():
    result = CliRunner().invoke(
        app, ["explain", *(part for one in [*SERVER, "engine=vllm", "workload.sessions=100"] for part in ("--set", one))]
    )
    assert result.exit_code == 0 and "blocks of 16 tokens, 2.1 MB each; chunks of 16 below" in " ".join(result.stdout.split())
    assert "of prompts" in result.stdout and "with endless room" in result.stdout and "Look-ahead" not in result.stdout
