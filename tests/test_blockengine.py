"""Servers whose KV is in blocks: one request at a time they hit what a replay without a clock hits; several share what is there."""

import os
from dataclasses import replace

import numpy as np
import pytest
from conftest import SHARED

from kvplan.sim.build_workload import token_s
from kvplan.sim.config import ConfigError, load
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import guards
from kvplan.sim.engine.blockkv import BlockKv
from kvplan.sim.engine.service import run_service
from kvplan.sim.metrics.output import RunInput
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks.modes import MODES
from kvplan.sim.store.blocks.offload import FilteredOffload, LruOrder
from kvplan.sim.store.blocks.runs import Runs
from kvplan.sim.store.blocks.sglang import RadixCache
from kvplan.sim.store.blocks.tiered import Tiered
from kvplan.sim.store.blocks.vllm import VllmPool
from kvplan.traces import read_trace
from kvplan.traces.blockpaths import block_contexts
from kvplan.traces.reuse import in_order
from kvplan.traces.workload import Blocks, untimed

MOONCAKE = SHARED / "mooncake_conversation.jsonl"
SERVER = [
    "model=llama-3.1-8b",
    "hardware=h100-80g-x8",
    "deployment.gpus=1",
    "prices=rent-2026",
    "batching=chunked",
    "store.unit=block",
    "store.eviction=lru",
]
ALONE = ["store.dram=0GB", "store.ssd=0GB"]
CHUNKS = ["store.block_tokens=8", "store.connector=vllm-native", "store.load=always", "store.saved=all"]
CHUNK = 8 * 131_072
"""Bytes of 8 tokens."""


def served(workload, usable, *overrides, **given):
    """The columns of a run with a pool of so many blocks."""
    return ran(workload, usable, *overrides, **given).columns


def ran(workload, usable, *overrides, **given):
    """The same, all that it has to say."""
    config = load("default", [*SERVER, *overrides])
    deployment = resolve(config, workload)
    tokens = config.store.block_tokens or (16 if workload.blocks is None else workload.blocks.block_tokens)
    budget = (usable + 1) * tokens * deployment.in_hbm(1)
    hbm, *below = deployment.tiers
    deployment = replace(deployment, hbm_budget=budget, tiers=(replace(hbm, capacity=budget), *below))
    return run_service(RunInput(config, deployment, workload, **given))


def requests(*contexts, block_tokens=8, prompts, answers=None, apart_s=1000.0):
    """Requests of one turn each, with hashes of their blocks, and answers of no tokens where nothing is said."""
    first = np.append(0, np.cumsum([len(ids) for ids in contexts]))
    blocks = Blocks(block_tokens, first, np.concatenate(contexts).astype(np.int64))
    made = untimed(range(len(contexts)), prompts, answers or [0] * len(contexts))
    return replace(made.with_times(apart_s * np.arange(len(contexts)), np.zeros(len(contexts))), blocks=blocks)


def one_at_a_time(workload):
    """The requests of a trace with hashes, each when the one before has long ended."""
    order, blocks = in_order(workload), workload.blocks
    tokens = (workload.history_tokens + workload.prompt_tokens)[order]
    contexts = [blocks.ids[blocks.first[turn] : blocks.first[turn + 1]] for turn in order.tolist()]
    return requests(*contexts, block_tokens=blocks.block_tokens, prompts=tokens.tolist())


POOLS = {"vllm": VllmPool, "sglang": RadixCache}


def replayed(workload, usable, mode):
    contexts = block_contexts(workload, workload.blocks.block_tokens)
    pool = POOLS[mode](usable, contexts.block_tokens)
    return [pool.request(*each) for each in zip(contexts.paths, contexts.tokens, strict=True)]


@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("seed", range(4))
def test_requests_one_at_a_time_hit_what_a_replay_hits(seed, mode):
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 9, 80)
    contexts = [np.where(np.arange(length) < draw.integers(1, 9), 7, draw.integers(0, 3)) for length in lengths]
    workload = requests(*contexts, prompts=(8 * lengths - draw.integers(0, 8, 80)).tolist())
    reserved = MODES[mode].reserved
    assert served(workload, 23 + reserved, *ALONE, f"store.mode={mode}")["cached_tokens"].tolist() == replayed(workload, 24, mode)


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the Mooncake trace is not on this machine")
def test_a_server_hits_what_vllm_hits_on_a_public_trace():
    assert served(one_at_a_time(read_trace(MOONCAKE)), 8192, *ALONE)["cached_tokens"].sum() == 27_843_072


@pytest.mark.skipif(not MOONCAKE.exists() or "KVPLAN_ORACLES" not in os.environ, reason="KVPLAN_ORACLES=1 tries all figures")
@pytest.mark.parametrize(("chunks", "below", "rate"), [(2048, 0, 0.056616), (4096, 5_352_960, 0.093585), (16384, 31_803_392, 0.276262)])
def test_a_server_hits_below_what_vllm_hits_there_on_a_public_trace(chunks, below, rate):
    workload = one_at_a_time(read_trace(MOONCAKE))
    settings = ["store.connector=vllm-native", "store.load=always", "store.ssd=0GB", f"store.dram={chunks * 512 * 131_072}B"]
    found = served(workload, 2048, *settings, "hardware=b300-x8", "prices=aws-2026", "store.block_tokens=512")
    assert found["dram_tokens"].sum() == below
    assert found["cached_tokens"].sum() / workload.prompt_tokens.sum() == pytest.approx(rate, abs=1e-6)


@pytest.mark.parametrize("chunk_blocks", [1, 2])
def test_requests_one_at_a_time_hit_below_what_a_replay_hits_there(chunk_blocks):
    draw = np.random.default_rng(5)
    lengths = draw.integers(1, 9, 150)
    contexts = [np.where(np.arange(length) < draw.integers(1, 9), 7, draw.integers(0, 4)) for length in lengths]
    workload = requests(*contexts, prompts=(8 * lengths - draw.integers(0, 8, 150)).tolist())
    found = served(workload, 12, "store.ssd=0GB", f"store.chunk_blocks={chunk_blocks}", *CHUNKS, f"store.dram={chunk_blocks * 12 * CHUNK}B")
    contexts = block_contexts(workload, 8)
    cache = Tiered(VllmPool(12, 8), MODES["vllm"].offload["lru"](12, 8 * chunk_blocks, 1), chunk_blocks)
    assert found["cached_tokens"].tolist() == [cache.request(*each) for each in zip(contexts.paths, contexts.tokens, strict=True)]
    assert found["dram_tokens"].sum() == cache.below > 0
    assert (found["hbm_tokens"] + found["dram_tokens"] == found["cached_tokens"]).all()


@pytest.mark.parametrize("saved", ["all", "prompt"])
@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("seed", range(3))
def test_after_turns_that_took_no_time_the_others_find_what_they_would_have_found(seed, mode, saved):
    """One at a time, so that no time matters: the same hits by tier, loads and prefills, to the last bit."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 9, 120)
    contexts = [np.where(np.arange(length) < draw.integers(1, 9), 7, draw.integers(0, 4)) for length in lengths]
    answers = draw.integers(1, 20, 120).tolist()
    workload = requests(*contexts, prompts=(8 * lengths - draw.integers(0, 8, 120)).tolist(), answers=answers)
    settings = [*CHUNKS, f"store.saved={saved}", f"store.mode={mode}", f"store.dram={14 * CHUNK}B", f"store.ssd={30 * CHUNK}B"]
    whole, rest = (served(workload, 13, *settings, passing=passing) for passing in (0, 70))
    assert rest["order"].tolist() == list(range(120)) and np.isfinite(rest["done_s"]).all()
    assert (rest["first_token_s"] == rest["arrival_s"])[:70].all() and (rest["first_token_s"] > rest["arrival_s"])[70:].all()
    for name in ("cached_tokens", "hbm_tokens", "dram_tokens", "ssd_tokens", "admitted_s", "first_token_s", "done_s"):
        assert rest[name][70:].tolist() == whole[name][70:].tolist(), name
    assert whole["cached_tokens"][70:].sum() > whole["hbm_tokens"][70:].sum() > 0, "tiers below are of use"


def test_sessions_go_on_from_turns_that_took_no_time(workload):
    turns = workload([[(16, 8)] * 4, [(16, 8)] * 4], arrivals=[0.0, 1.0], gap_s=5.0)
    whole, rest = (served(turns, 100, *ALONE, "store.block_tokens=8", passing=passing) for passing in (0, 4))
    later = rest["order"] >= 4
    config = load("default", SERVER)
    answer_s = 8 * token_s(config, resolve(config, turns), turns)
    assert later.sum() == 4 and rest["arrival_s"][:3].tolist() == pytest.approx([0, answer_s + 5, 2 * (answer_s + 5)], rel=0.01)
    assert rest["history_tokens"].tolist() == whole["history_tokens"].tolist()
    assert rest["cached_tokens"][later].tolist() == whole["cached_tokens"][later].tolist()


def test_turns_that_pass_without_think_times_take_as_long_as_their_answers(workload):
    """However many a session has: none comes before its predecessor's answer, and those that do not pass are served when they come."""
    turns = workload([[(16, 8)] * 600, [(16, 8)] * 4], arrivals=[0.0, 1000.0], gap_s=0.0)
    found = served(turns, 5000, *ALONE, "store.block_tokens=8", passing=590)
    answer_s = found["arrival_s"][1]
    assert answer_s > 0 and found["arrival_s"][:591].tolist() == pytest.approx((answer_s * np.arange(591)).tolist())
    assert (found["first_token_s"] > found["arrival_s"])[590:].all()


def test_chunks_are_stored_when_they_have_been_offered_often_enough():
    """As a replay with the same threshold stores and hits them."""
    draw = np.random.default_rng(5)
    lengths = draw.integers(1, 9, 150)
    contexts = [np.where(np.arange(length) < draw.integers(1, 9), 7, draw.integers(0, 4)) for length in lengths]
    workload = requests(*contexts, prompts=(8 * lengths - draw.integers(0, 8, 150)).tolist())
    found = ran(workload, 12, "store.ssd=0GB", *CHUNKS, f"store.dram={14 * CHUNK}B", "store.threshold=2")
    contexts = block_contexts(workload, 8)
    cache = Tiered(VllmPool(12, 8), FilteredOffload(14, 8, LruOrder(), 2), 1)
    assert found.columns["cached_tokens"].tolist() == [cache.request(*each) for each in zip(contexts.paths, contexts.tokens, strict=True)]
    assert found.columns["dram_tokens"].sum() == cache.below > 0
    assert found.ended[0].sums["dram.written"] == cache.tier.stored * CHUNK


def test_who_offers_a_prompt_again_with_its_answer_counts_once():
    """As of vLLM's requests, which go on offering where they were: the second is the second to offer the prompt."""
    workload = requests([1, 2, 3], [1, 2, 4], [1, 2, 5], prompts=[24] * 3, answers=[16] * 3)
    settings = ["store.ssd=0GB", *CHUNKS, f"store.dram={64 * CHUNK}B", "store.hbm=1MB", "store.threshold=2"]
    assert served(workload, 20, *settings)["dram_tokens"].tolist() == [0, 0, 16]


def test_what_dram_has_lost_comes_up_from_ssd():
    contexts = [[*range(10 * number, 10 * number + 4)] for number in (1, 2, 3, 1)]
    workload = requests(*contexts, prompts=[32] * 4)
    settings = ["store.ssd=1TB", *CHUNKS, f"store.dram={6 * CHUNK}B"]
    found = served(workload, 4, *settings)
    assert found["ssd_tokens"].tolist() == [0, 0, 0, 24] and found["dram_tokens"].sum() == found["hbm_tokens"].sum() == 0
    summary = simulate(load("default", [*SERVER, *settings]), workload).summary
    assert summary["tiers"]["ssd"]["written_bytes"] == 12 * CHUNK, "every chunk goes on to SSD, once"


def test_a_chunk_on_its_way_is_not_found():
    one, other = [*range(200)], [*range(1000, 1200)]
    workload = requests(one, other, one, other, one, prompts=[1600] * 5)
    workload = replace(workload, arrival_s=np.array([0.0, 0.1, 0.2, 400.0, 500.0]))
    slow = ["store.ssd=0GB", *CHUNKS, "store.dram=64GB", "deployment.link_efficiency=0.01"]
    found = served(workload, 200, *slow)["dram_tokens"].tolist()
    assert found == [0, 0, 0, 1592, 1592], "210 MB take 0.5 s"


def test_two_requests_at_once_compute_one_prefix_twice_and_a_third_finds_it():
    workload = requests([9] * 99, [1, 2, 3], [1, 2, 4], [1, 2, 5], prompts=[792, 24, 24, 24], apart_s=1e-4)
    workload = replace(workload, arrival_s=np.array([0.0, 1e-4, 2e-4, 50.0]))
    found = served(workload, 120, *ALONE)
    assert found["admitted_s"][1] == found["admitted_s"][2], "both wait for the first step to end"
    assert found["cached_tokens"].tolist() == [0, 0, 0, 16]


def test_blocks_of_running_requests_are_found_and_stay():
    """The second shares what the first has computed and still uses; a third has no room before one of them has ended."""
    workload = requests([1, 2, 3], [1, 2, 4], [7, 8, 9], prompts=[24, 24, 24], answers=[900, 900, 8], apart_s=0.5)
    found = served(workload, 230, *ALONE, "deployment.admission=answer")
    assert found["cached_tokens"].tolist() == [0, 16, 0]
    assert found["admitted_s"][1] < found["done_s"][0] <= found["admitted_s"][2], "116 + 114 blocks are all of them"


@pytest.mark.parametrize(("unit", "said"), [("block", False), ("session", True)])
def test_what_sessions_share_is_left_out_by_stores_of_sessions_alone(unit, said):
    workload = replace(requests([1, 2], [1, 3], prompts=[16, 16]), origin={"shared_by_sessions": 0.25})
    warnings = simulate(load("default", [*SERVER, f"store.unit={unit}"]), workload).summary["warnings"]
    assert any("a store of sessions cannot reuse them" in each for each in warnings) == said


@pytest.mark.parametrize("said", ["null", "16"])
def test_lmcaches_chunks_lie_below_a_pool_of_blocks(workload, said):
    """Two chunks and a rest, pushed out of HBM by another prompt: its chunks are loaded while the GPUs wait, its rest is computed. They are
    LMCache's, whatever blocks the pool has."""
    turns = workload([[(600, 1), (20, 1)], [(620, 1)]], arrivals=[0, 50], gap_s=100)
    blocks = ["store.unit=block", "store.dram=64GB", "store.ssd=0GB", f"store.block_tokens={said}"]
    found = served(turns, 39, "engine=lmcache", *blocks)
    assert found["dram_tokens"].tolist() == [0, 512, 0] and found["hbm_tokens"].sum() == 0 and found["stall_s"][1] > 0


def test_chunks_of_blocks_that_divide_no_chunk_of_the_connectors_are_stored_when_full():
    """11 blocks of 24 tokens are LMCache's chunk then, of 264 tokens for 256."""
    workload = requests([*range(11)], [99], block_tokens=24, prompts=[264, 9])
    settings = ["store.mode=vllm", "store.connector=lmcache", "store.dram=64GB", "store.ssd=0GB"]
    assert ran(workload, 20, *settings).ended[0].sums["dram.written"] == 264 * 131_072


@pytest.mark.parametrize(("answer", "offers"), [(8, 1), (16, 2)])
def test_an_answer_that_fills_no_chunk_is_not_offered(answer, offers):
    workload = requests([1, 2], prompts=[16], answers=[answer])
    settings = ["store.chunk_blocks=2", *CHUNKS, f"store.dram={CHUNK}B", "store.ssd=0GB"]
    assert ran(workload, 20, *settings).ended[0].sums["skipped_saves"] == offers, "no chunk of two blocks has room"


@pytest.mark.parametrize("reached", [0.02, 0.002])
def test_what_meets_in_the_middle_behind_half_a_chunk(reached):
    """HBM has lost all but 20 blocks of a prompt; of its two chunks of 32 below 352 tokens can be loaded, in whole blocks."""
    workload = requests([*range(65)], [*range(100, 150)], [*range(65)], prompts=[520, 400, 520])
    cake = ["store.connector=lmcache", "store.load=cake", "store.ssd=0GB", "store.dram=64GB", f"deployment.link_efficiency={reached}"]
    found = served(workload, 70, *cake)
    assert found["hbm_tokens"].tolist() == [0, 0, 160]
    assert 0 <= found["dram_tokens"][2] < 352 and found["dram_tokens"][2] % 8 == 0


def test_an_answer_is_found_by_the_next_turn(workload):
    found = served(workload([[(20, 41), (10, 3)]]), 99, *ALONE, "store.block_tokens=8")
    assert found["cached_tokens"].tolist() == [0, 56]


def test_a_context_that_was_cut_shares_nothing_with_what_was_there(workload):
    turns = workload([[(40, 40), (40, 40), (8, 1)]])
    found = served(turns, 99, *ALONE, "store.block_tokens=8", "deployment.window_tokens=128")
    assert found["history_tokens"].tolist() == [0, 40, 120 // 2]
    assert found["cached_tokens"].tolist() == [0, 0, 0], "both are cut to half, and begin elsewhere"


BELOW = {
    "none": ALONE,
    "DRAM": [*CHUNKS, f"store.dram={20 * CHUNK}B", "store.ssd=0GB"],
    "DRAM and SSD": [*CHUNKS, f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B"],
    "look-ahead": [*CHUNKS, f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B", "store.eviction=lookahead"],
    "belady": [*CHUNKS, f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B", "store.eviction=belady"],
    "slow links": [*CHUNKS, f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B", "deployment.link_efficiency=0.01"],
    "deferred": [*CHUNKS, f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B", "deployment.link_efficiency=0.01", "store.defers=true"],
    "prefill-first": [*CHUNKS, f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B", "batching=prefill-first"],
    "sglang": ["engine=sglang", "store.unit=block", "batching=prefill-first", *ALONE, "store.block_tokens=8"],
    "hicache": [
        "engine=hicache",
        "store.unit=block",
        "batching=prefill-first",
        "store.block_tokens=8",
        f"store.dram={12 * CHUNK}B",
        f"store.ssd={60 * CHUNK}B",
    ],
    "layer-wise": [
        "store.block_tokens=8",
        "store.load=cake",
        f"store.dram={12 * CHUNK}B",
        f"store.ssd={60 * CHUNK}B",
        "batching=iteration",
    ],
}


@pytest.mark.parametrize("below", BELOW)
def test_blocks_are_conserved_whoever_overlaps(monkeypatch, below):
    """Under guards, which count every block after every step."""
    monkeypatch.setattr(guards, "_FULL_CHECK_EVERY", 1)
    for seed in range(4):
        found = served(overlapping(seed), 22 + 19 * seed, *BELOW[below])
        assert found["hbm_tokens"].any() and (found["cached_tokens"] < found["prompt_tokens"]).all()


def test_applications_share_their_prompts():
    alone = ["workload.kind=synthetic", "workload.sessions=200", "workload.turns={distribution: constant, value: 1}", "warmup_turns=0"]
    long = ["workload.prompt_tokens={distribution: constant, value: 800}", "workload.applications.count=4"]
    summary = simulate(load("default", [*SERVER, *ALONE, *alone, *long])).summary
    assert summary["token_hits"]["hbm"] == pytest.approx(3000 / 3800, abs=0.02)


def overlapping(seed, requested=120):
    """Requests that share what they begin with, with answers, and come while others run."""
    draw = np.random.default_rng(seed)
    lengths, answers = draw.integers(1, 14, requested), draw.integers(0, 60, requested).tolist()
    contexts = [np.where(np.arange(length) < draw.integers(1, 14), 7, draw.integers(0, 3)) for length in lengths]
    prompts = (8 * lengths - draw.integers(0, 8, requested)).tolist()
    return requests(*contexts, prompts=prompts, answers=answers, apart_s=float(draw.choice([1e-4, 1e-3, 1e-2])))


@pytest.mark.parametrize("admission", ["prompt", "share"])
@pytest.mark.parametrize("below", BELOW)
def test_runs_equal_single_steps(below, admission):
    """With a pool so small that jobs give way."""
    workload, settings = overlapping(3, requested=40), [*BELOW[below], f"deployment.admission={admission}"]
    fast, slow = (served(workload, 22, *settings, longest_run=longest) for longest in (None, 1))
    assert fast.keys() == slow.keys()
    for name in fast:
        np.testing.assert_allclose(fast[name], slow[name], rtol=1e-9, err_msg=name)
    assert fast["preemptions"].any()


@pytest.mark.parametrize("usable", [22, 60, 2500])
def test_blocks_of_answers_grow_as_they_are_written(usable):
    """What HBM holds in the mean is that of single steps, however many are one event."""
    workload = overlapping(3, requested=40)
    fast, slow = (ran(workload, usable, *ALONE, longest_run=longest).ended[0] for longest in (None, 1))
    assert fast.sums["hbm.byte_seconds"] == pytest.approx(slow.sums["hbm.byte_seconds"], rel=2e-3)


@pytest.mark.parametrize("below", BELOW)
def test_with_room_for_all_answers_admission_says_nothing(below):
    whole, prompt, share = (
        served(overlapping(1, requested=40), 2500, *BELOW[below], f"deployment.admission={each}") for each in ("answer", "prompt", "share")
    )
    for name in whole:
        assert whole[name].tolist() == prompt[name].tolist() == share[name].tolist()


def test_who_gives_way_finds_its_full_blocks_again():
    """Two of 16 tokens grow to 48 in a pool of 9 blocks: the first has taken a fifth when the later, a token behind, needs one, and gives
    way. The first takes one of its four until its end, the last: of the 32 tokens that were out 8 are computed again."""
    workload = requests([1, 2], [3, 4], prompts=[16, 16], answers=[32, 32], apart_s=1e-6)
    steps, found = resolve(load("default", SERVER), workload).steps, served(workload, 9, *ALONE)
    assert found["preemptions"].tolist() == [0, 1] and found["cached_tokens"].tolist() == [0, 0], "of the first time"
    assert np.diff(found["done_s"])[0] == pytest.approx(steps.prefill(8, 24) + steps.decode(1, 33, 15), rel=1e-9)


def test_what_was_loaded_for_who_gives_way_may_go():
    """The fourth, whose first two blocks are loaded, gives way in its prefill to the answer of the third. All of DRAM is free for the fifth
    then, which is found there when HBM has lost it."""
    first, full, fifth = [1, 2, 3, 4], [*range(10, 18)], [*range(30, 36)]
    contexts, answers = [first, full, [5], [1, 2, 6, 7, 8], fifth, full, fifth], [0, 0, 40, 0, 0, 0, 0]
    workload = requests(*contexts, prompts=[8 * len(each) for each in contexts], answers=answers)
    workload = replace(workload, arrival_s=np.array([0.0, 10, 20, 20.001, 30, 40, 50]))
    settings = [*CHUNKS, "store.load_mode=blocking", "store.ssd=0GB", f"store.dram={6 * CHUNK}B", "deployment.step_tokens=2"]
    found = served(workload, 8, *settings)
    assert found["preemptions"].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert found["dram_tokens"].tolist() == [0, 0, 0, 16, 0, 0, 40]


def test_a_context_larger_than_the_pool_is_refused():
    with pytest.raises(ConfigError, match="needs 4 blocks of 8 tokens, and beside weights HBM has 3"):
        served(requests([1, 2, 3, 4], prompts=[32]), 3, *ALONE)


def test_hbm_keeps_no_more_than_it_may():
    workload = requests([1, 2, 3, 4], [1, 2, 3, 4], prompts=[32, 32])
    assert served(workload, 9, *ALONE, "store.hbm=2KB")["cached_tokens"].tolist() == [0, 0]
    assert served(workload, 9, *ALONE, f"store.hbm={2 * CHUNK}B")["cached_tokens"].tolist() == [0, 16]


FETCHED = ["engine=hicache", "store.block_tokens=64", "store.hbm=1MB", "batching=prefill-first"]
PAGE = 8 * CHUNK


def fetched(policy, *more, prompt=1280, apart_s=(0.0, 100.0, 200.0), others=0):
    """Contexts of a prompt, of which DRAM has room for one: the first comes again, and `others` with it, when SSD alone has it."""
    pages = prompt // 64
    contexts = [np.full(pages, 1), np.full(pages, 2), *[np.append(np.full(pages, 1), 3)] * (1 + others)]
    workload = requests(*contexts, block_tokens=64, prompts=[prompt, prompt, *[prompt + 64] * (1 + others)])
    workload = replace(workload, arrival_s=np.append(apart_s, 200.0 + 1e-3 * np.arange(1, others + 1)))
    sizes = [f"store.dram={pages * PAGE}B", "store.ssd=1TB", f"store.prefetch={policy}"]
    config = load("default", [*SERVER, *FETCHED, *sizes, *more])
    return resolve(config, workload), served(workload, (2 + others) * (pages + 1), *FETCHED, *sizes, *more)


@pytest.mark.parametrize("policy", ["wait-complete", "timeout"])
def test_a_job_waits_for_what_storage_brings_up_ahead_of_it(policy):
    """Alone: the fetch over SSD's link, then the load over the host's, then the last block's prefill. Others that come pass it."""
    deployment, found = fetched(policy, "store.load_mode=blocking")
    read, host = deployment.links["ssd"], deployment.host
    fetch_s = 20 * PAGE / read.read_bytes_per_s + read.latency_s
    assert found["admitted_s"][2] - 200 == pytest.approx(fetch_s, rel=1e-9) and found["deferrals"].tolist() == [0, 0, 1]
    assert found["cached_tokens"].tolist() == [0, 0, 1280] == found["ssd_tokens"].tolist(), "where they lay when it came"
    load_s = 20 * PAGE / host.read_bytes_per_s
    assert found["first_token_s"][2] - found["admitted_s"][2] == pytest.approx(load_s + deployment.steps.prefill(64, 1280), rel=0.02)


def test_what_has_not_come_when_a_job_starts_is_computed():
    """With best effort nothing has, but it comes for others: of two that come together, and of which the second waits for the first."""
    found = fetched("best-effort", "deployment.max_batch=1", others=1)[1]
    assert found["cached_tokens"].tolist() == [0, 0, 0, 1280] and "deferrals" not in found


def test_a_timeout_ends_a_fetch_between_two_batches():
    """After 1 s and 0.25 s per 1,024 tokens, of which a batch of 128 pages has come, and its next is under way."""
    read = "[hbm, dram, {name: pool, size: 1TB, read: 0.4GB/s, write: 9GB/s, latency: 0s, price: 0USD/GB/h}]"
    more = [f"store.tiers={read}", "store.ssd=0GB", "deployment.window_tokens=32768"]
    _, found = fetched("timeout", *more, prompt=256 * 64)
    batch_s = 128 * PAGE / 0.4e9
    assert batch_s < (patience_s := 1 + 0.25 * 16) < 2 * batch_s
    assert found["admitted_s"][2] == pytest.approx(200 + patience_s) and found["cached_tokens"].tolist() == [0, 0, 128 * 64]


def test_less_than_256_tokens_are_not_fetched():
    found = [fetched("wait-complete", prompt=prompt)[1]["cached_tokens"].tolist() for prompt in (192, 256)]
    assert found == [[0, 0, 0], [0, 0, 256]]


@pytest.mark.parametrize("policy", ["best-effort", "timeout"])
def test_fetches_are_the_same_whether_steps_come_in_runs_or_one_by_one(policy):
    """Under guards, with replicas, a TTL, shared beginnings, and links that are too slow for what is fetched."""
    small = [
        "workload.sessions=25",
        "workload.arrival.rate_per_s=3",
        "workload.system_prompt_tokens=2000",
        "workload.think_time.median_s=4",
    ]
    server = ["engine=hicache", f"store.prefetch={policy}", "store.hbm=300MB", "store.dram=2GB", "store.ssd=20GB", "store.ttl_s=30"]
    config = load("default", [*SERVER, *server, *small, "deployment.link_efficiency=0.05", "deployment.replicas=2", "router=least-loaded"])
    fast, slow = (simulate(config, longest_run=longest) for longest in (None, 1))
    for name in ("admitted_s", "first_token_s", "done_s"):
        np.testing.assert_allclose(fast.columns[name], slow.columns[name], rtol=1e-9)
    assert fast.columns["cached_tokens"].tolist() == slow.columns["cached_tokens"].tolist()
    assert fast.summary["token_hits"]["dram"] > 0 < fast.summary["token_hits"]["ssd"]
    assert ("deferred_turns" in fast.summary) == (policy == "timeout")


BELOW_HBM = [f"store.dram={8 * CHUNK}B", "store.ssd=0GB", *CHUNKS]


@pytest.mark.parametrize(
    "tiers", [ALONE, BELOW_HBM, [*BELOW_HBM, "store.hbm=1MB", "store.load_mode=blocking"]], ids=["HBM", "both", "DRAM"]
)
def test_blocks_are_found_until_their_time_is_over_and_at_that_instant(tiers):
    """It counts from the end of their last use, in DRAM from when they have come there, which takes less than a second."""
    workload = requests([1, 2, 3], [1, 2, 4], prompts=[24, 24])
    ended = served(workload, 20, *tiers)["done_s"][0]
    found = served(workload, 20, *tiers, f"store.ttl_s={1000.0 - ended}")["cached_tokens"].tolist()
    late = served(workload, 20, *tiers, f"store.ttl_s={999.0 - ended}")["cached_tokens"].tolist()
    assert (found, late) == ([0, 16], [0, 0])


def test_blocks_of_a_job_that_runs_do_not_expire():
    """Another that comes long after its prefill finds its prompt's, and one that comes as long after its end does not."""
    workload = requests([1, 2, 3], [1, 2, 4], [1, 2, 5], prompts=[24, 24, 24], answers=[4000, 0, 0], apart_s=10.0)
    found = served(workload, 600, *ALONE, "store.ttl_s=5")
    assert found["done_s"][0] > 20 and found["cached_tokens"].tolist() == [0, 16, 16]
    alone = requests([1, 2, 3], [1, 2, 4], prompts=[24, 24], apart_s=10.0)
    assert served(alone, 600, *ALONE, "store.ttl_s=5")["cached_tokens"].tolist() == [0, 0]


@pytest.mark.pure
@pytest.mark.parametrize(("expires", "ttl_s", "what"), [(lambda *_: [], 10, "found at"), (None, 1e6, "expire at")], ids=["late", "early"])
def test_guards_hold_blocks_to_their_time(monkeypatch, expires, ttl_s, what):
    """Blocks that stay when it is over, and such as go before."""
    monkeypatch.setenv("KVPLAN_GUARDS", "1")
    expire = Runs.expire
    monkeypatch.setattr(Runs, "expire", expires or (lambda runs, _, now: expire(runs, 0.1, now)))
    with pytest.raises(guards.GuardError, match=what):
        served(requests([1, 2, 3], [1, 2, 4], prompts=[24, 24]), 20, *ALONE, f"store.ttl_s={ttl_s}")


def test_what_a_use_has_not_renewed_expires_alone():
    """The head of a context that others used since is found, and its tail is not; what expired leaves its room."""
    workload = requests([1, 2, 3, 4], [1, 2, 5], [1, 2, 3, 4], prompts=[32, 24, 32])
    run = ran(workload, 20, *ALONE, "store.ttl_s=1500")
    assert run.columns["cached_tokens"].tolist() == [0, 16, 16]
    assert served(workload, 20, *ALONE)["cached_tokens"].tolist() == [0, 16, 24]
    kept = ran(workload, 20, *ALONE)
    assert kept.series["hbm_bytes"][-1] - run.series["hbm_bytes"][-1] == CHUNK, "the tail is written anew, and its old copy gone"


def test_a_system_prompt_is_in_hbm_once():
    shared = ["workload.kind=synthetic", "workload.system_prompt_tokens=3000", "workload.sessions=40", "warmup_turns=0"]
    summary = simulate(load("default", [*SERVER, *ALONE, *shared])).summary
    alone = simulate(load("default", [*SERVER, *ALONE, *shared[:1], *shared[2:]])).summary
    token = 131_072
    more = (summary["tiers"]["hbm"]["written_bytes"] - alone["tiers"]["hbm"]["written_bytes"]) / token
    assert 2992 <= more < 2992 + 16 * summary["turns"], "187 blocks, and the prompts behind them begin in other places of a block"
    assert summary["token_hits"]["hbm"] == summary["hit_rate"]["tokens"] > alone["hit_rate"]["tokens"]


def test_blocks_of_every_token_take_the_time_of_windows():
    """One job alone is as fast as in a server of sessions, whose HBM keeps windows."""
    few = ["model=gemma-3-27b", "hardware=h100-80g-x8", "deployment.gpus=2", "prices=rent-2026", "batching=chunked", *ALONE]
    alone = untimed([0], [3000], [400]).with_times(np.zeros(1), np.zeros(1))
    blocks, sessions = (simulate(load("default", [*few, *more]), alone) for more in (["store.unit=block", "store.windows=every-token"], []))
    assert blocks.columns["done_s"] == pytest.approx(sessions.columns["done_s"], rel=1e-12)
    assert any("blocks hold and tiers move every token" in each for each in blocks.summary["warnings"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["store.mode=kvcache-simulator"], "store.mode=kvcache-simulator"),
        (["store.threshold=2", "store.dram=1GB", "store.ssd=1GB"], "store.threshold=2"),
        (["store.save=sync"], "store.save=sync"),
        (
            ["model=gemma-3-27b", "store.eviction=lookahead"],
            "attend to windows, whose chunks below HBM are .* with store.eviction=lru; .*store.windows=every-token",
        ),
        (["model=gpt-oss-20b", *ALONE, "store.mode=sglang"], "simulated by vLLM's rules alone"),
        (["model=gpt-oss-20b", *ALONE, "store.retention=dense"], "store.retention=boundary"),
        (["model=gpt-oss-20b", *ALONE, "store.ttl_s=60"], "without store.ttl_s"),
        (["model=mistral-7b", *ALONE], "and not one and the same beside full attention"),
        (["model=qwen3-next-80b-a3b", "deployment.gpus=4"], "keep states, .* ranks hold copies .*store.unit=session"),
        (["store.tiers=[dram, ssd]"], "leaves out hbm"),
    ],
)
def test_what_servers_of_blocks_refuse(small, settings, message):
    with pytest.raises(ConfigError, match=message):
        simulate(small(*SERVER, *settings))


def many_sessions(seed):
    """Sessions of up to eight turns that overlap."""
    draw = np.random.default_rng(seed)
    session = np.repeat(np.arange(40), draw.integers(1, 9, 40))
    made = untimed(session, draw.integers(1, 30, len(session)), draw.integers(1, 40, len(session)))
    return made.with_times(np.sort(draw.uniform(0, 900, 40)), np.where(made.is_first, 0.0, draw.exponential(40, len(session))))


@pytest.fixture
def asked(monkeypatch):
    """Whether turns that pass were found to leave no trace, one after the other."""
    found, leaves_no_trace = [], BlockKv._leaves_no_trace
    monkeypatch.setattr(BlockKv, "_leaves_no_trace", lambda *given: found.append(leaves_no_trace(*given)) or found[-1])
    return found


@pytest.mark.pure
@pytest.mark.parametrize("window", [90, 2000])
@pytest.mark.parametrize(("saved", "ttl"), [("all", "null"), ("prompt", "null"), ("all", "150")])
@pytest.mark.parametrize("seed", range(3))
def test_turns_whose_blocks_their_sessions_use_again_need_not_pass(seed, saved, ttl, window, asked, monkeypatch):
    """What others find is the same to the last bit, where tiers give up the least recently used, and contexts are cut or not."""
    settings = [*CHUNKS, f"store.saved={saved}", f"store.dram={90 * CHUNK}B", f"store.ssd={250 * CHUNK}B"]
    settings += [f"deployment.window_tokens={window}", f"store.ttl_s={ttl}"]
    last = served(many_sessions(seed), 70, *settings, passing=110)
    monkeypatch.setattr(BlockKv, "_leaves_no_trace", lambda *given: False)
    every = served(many_sessions(seed), 70, *settings, passing=110)
    others = every["order"] >= 110
    assert all(last[name][others].tolist() == every[name][others].tolist() for name in every)
    assert sum(asked) > 20 and all(asked) == (window == 2000)
    assert every["dram_tokens"][others].sum() > 0 and (window == 90 or every["ssd_tokens"][others].sum() > 0)


@pytest.mark.pure
@pytest.mark.parametrize("setting", ["store.eviction=lfu", "store.threshold=2", "store.mode=sglang", "model=gpt-oss-20b"])
def test_every_turn_passes_where_more_than_its_last_use_counts(setting, asked):
    served(many_sessions(0), 400, *CHUNKS, "store.block_tokens=16", "store.dram=1GB", "store.ssd=0GB", setting, passing=110)
    assert asked and not any(asked)


@pytest.mark.pure
def test_every_turn_passes_whose_session_outgrows_a_tier(asked):
    served(many_sessions(0), 400, *CHUNKS, f"store.dram={9 * CHUNK}B", "store.ssd=0GB", passing=110)
    assert any(asked) and not all(asked)


@pytest.mark.pure
def test_every_turn_passes_where_sessions_choose_among_replicas(asked):
    served(many_sessions(0), 400, *CHUNKS, "store.dram=1GB", "store.ssd=0GB", "deployment.replicas=2", passing=110)
    assert not asked
