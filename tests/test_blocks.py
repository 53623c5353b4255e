"""Caches of blocks: equal to literal ones, to what the engines and tools themselves hit, and to what is known of small cases by hand."""

import json
import os
from random import Random
from typing import get_args

import literal_blocks as literal
import numpy as np
import pandas as pd
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import kvplan
from kvplan.sim import provenance
from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError, Store, load
from kvplan.sim.replay.blockcurve import block_curve
from kvplan.sim.replay.blocks import ENDLESS, BlockReplay
from kvplan.sim.report import curves
from kvplan.sim.report.blockcurve_account import account
from kvplan.sim.report.page import folder
from kvplan.sim.store.blocks.lmcache import FifoChunks, LfuChunks, LruChunks
from kvplan.sim.store.blocks.modes import MODES
from kvplan.sim.store.blocks.offload import FilteredOffload, LruOrder
from kvplan.sim.store.blocks.optimal import OptimalTrie
from kvplan.sim.store.blocks.sglang import RadixCache
from kvplan.sim.store.blocks.tiered import Tiered
from kvplan.sim.store.blocks.trie import FifoTrie, LruTrie
from kvplan.sim.store.blocks.vllm import VllmPool
from kvplan.sim.store.blocks.windows import Groups, WindowsPool
from kvplan.traces import TraceError, read_trace
from kvplan.traces.blockpaths import block_contexts
from kvplan.traces.workload import Blocks, untimed
from kvplan.validate.checks.blocks import command
from kvplan.validate.checks.blocks.figures import ORACLES, Offload, Pool, Tool, Windows
from kvplan.validate.checks.blocks.ours import ours

MOONCAKE = SHARED / "mooncake_conversation.jsonl"
needs_mooncake = pytest.mark.skipif(not MOONCAKE.exists(), reason="the Mooncake trace is not on this machine")


class Keys(list):
    """Of a context; it is no matter who asks."""

    session = 0


def full(text, size):
    """Keys of the full blocks of a text, a token a character."""
    return Keys(text[: end + size] for end in range(0, len(text) - size + 1, size))


def unfull_too(text, size):
    return full(text, size) + [text] * (len(text) % size > 0)


texts = st.lists(st.text("ab", min_size=1, max_size=14), max_size=24)
sizes, blocks_of = st.integers(0, 12), st.integers(1, 3)


@pytest.mark.parametrize(
    ("cache", "plain", "path"),
    [
        (VllmPool, literal.Vllm, full),
        (RadixCache, literal.Sglang, full),
        (LruChunks, literal.Lmcache, full),
        (FifoChunks, lambda *size: _capped(literal.Fifo(*size)), full),
        (LfuChunks, literal.LfuChunks, full),
        (LruTrie, literal.Trie, unfull_too),
        (FifoTrie, literal.Fifo, unfull_too),
    ],
)
def test_hits_are_those_of_a_literal_cache(cache, plain, path):
    @settings(max_examples=150)
    @given(sizes, blocks_of, texts)
    def compare(usable, size, requests):
        fast, slow = cache(usable, size), plain(usable, size)
        for text in requests:
            assert fast.request(path(text, size), len(text)) == slow.request(path(text, size), len(text))
            assert 0 <= fast.held <= usable

    compare()


class _Both:
    """A pool and a literal one, told the same: requests are (what both have of it, what is computed next)."""

    def __init__(self, usable, size):
        self.usable, self.size = usable, size
        self.fast, self.slow, self.running = VllmPool(usable, size), literal.Shared(usable, size), []

    def begin(self, text, answer):
        tokens, path = len(text), full(text + answer, self.size)
        context = tokens + len(answer)
        taken = self.slow.taken(path, tokens, context)
        assert self.fast.taken(path, tokens, context) == taken
        if taken <= self.fast.free:
            use, mine = self.fast.begin(path, tokens), self.slow.begin(path, tokens, context)
            self.fast.grow(self.fast.needed(context) - self.fast.needed(tokens))
            assert use.hit == len(self.slow.hit(path, tokens))
            self.running.append((use, mine, [tokens, context], context))

    def go_on(self, number):
        """One that runs has computed its prompt, then its answer; then it has ended."""
        use, mine, due, context = self.running[number % len(self.running)]
        if due:
            tokens = due.pop(0)
            self.fast.computed(use, tokens)
            self.slow.computed(use.path, mine, use.hit, tokens)
        else:
            self.running.pop(number % len(self.running))
            self.fast.end(use, context)
            self.slow.end(mine)

    def check(self):
        in_use = {block for _, mine, _, _ in self.running for block in mine}
        assert self.fast.free == len(self.slow.free) == self.usable - len(in_use)
        assert self.fast.held == len(self.slow.name) and self.fast.filled == len(in_use | set(self.slow.name))


@pytest.mark.parametrize("seed", range(12))
def test_requests_that_overlap_have_the_blocks_of_a_literal_pool(seed):
    draw = Random(seed)
    both = _Both(draw.randint(4, 24), draw.randint(1, 3))
    for _ in range(500):
        if both.running and draw.random() < 0.7:
            both.go_on(draw.randrange(9))
        else:
            both.begin("".join(draw.choices("ab", (8, 1), k=draw.randint(1, 14))), draw.choice(["", "c", "cdcd"]))
        both.check()


def test_what_goes_on_behind_a_copy_is_found():
    """The first has six blocks at once, the second the same block by block, and one more."""
    pool, path = VllmPool(20, 1), full("abcdefg", 1)
    one, other = pool.begin(path, 6), pool.begin(path, 3)
    pool.grow(4)
    for use, tokens in ((one, 6), (other, 3), (other, 5), (other, 7)):
        pool.computed(use, tokens)
    pool.end(other, 7)
    assert pool.reach(path, 8)[0] == 7


def test_a_copy_that_came_in_two_parts_is_found_where_the_first_has_gone():
    """Two compute the same, the second what it loads before the rest; another takes two blocks more than are free, of the first's tail."""
    pool, path = VllmPool(14, 1), full("abcdef", 1)
    one, other = pool.begin(path, 6), pool.begin(path, 6)
    for use, tokens in ((one, 6), (other, 3), (other, 6)):
        pool.computed(use, tokens)
    pool.end(one, 6)
    pool.end(other, 6)
    pool.begin(full("xxxx", 1), 4)
    assert pool.reach(path, 7)[0] == 6


def test_sglang_has_no_page_twice():
    """Two compute one context at once: when the second has, its pages are free, and the tree's are in use by both."""
    pool = RadixCache(9, 4)
    path = full("abcdefghijkl", 4)
    one, other = pool.begin(path, 12), pool.begin(path, 12)
    assert pool.in_use == 6 and pool.computed(one, 12) == 3
    assert pool.computed(other, 12) == 0 and pool.in_use == 3
    pool.end(one, 12)
    assert pool.in_use == 3 and pool.held == 3
    pool.end(other, 12)
    assert (pool.in_use, pool.held, pool.free) == (0, 3, 9)


@pytest.mark.parametrize(("together", "left"), [(None, 0), (8, 4), (4, 5), (100, 0)])
def test_sglang_gives_up_whole_nodes_which_are_what_a_step_computes_at_most(together, left):
    """Six pages of four tokens are kept, and a context of three needs one of them."""
    pool, path = RadixCache(8, 4, None, together), full("abcdefghijklmnopqrstuvwx", 4)
    pool.request(path, 24)
    pool.request(full("ABCDEFGHIJKL", 4), 12)
    assert pool.reach(path, 25)[0] == left


def test_sglang_cuts_one_node_where_a_context_parts_and_no_other():
    """Nodes of two pages of four tokens. A context that shares three of six pages cuts the second node; the third stays one, and goes whole
    where one page is needed."""
    pool, path = RadixCache(8, 4, None, 8), full("abcdefghijklmnopqrstuvwx", 4)
    pool.request(path, 24)
    pool.request(full("abcdefghijklMNOP", 4), 16)
    pool.request(full("ABCDEFGH", 4), 8)
    assert pool.reach(path, 25)[0] == 4


def _capped(fifo):
    """Chunks: the last token of a prompt is always computed."""
    plain = fifo.request
    fifo.request = lambda path, tokens: min(plain(path, tokens), tokens - 1)
    return fifo


@settings(max_examples=150)
@given(sizes, blocks_of, texts)
def test_the_bound_is_that_of_a_literal_trie(usable, size, requests):
    paths, tokens = [unfull_too(text, size) for text in requests], list(map(len, requests))
    fast, slow = OptimalTrie(usable, size, paths, tokens), literal.Trie(usable, size, paths)
    assert [fast.request(*each) for each in zip(paths, tokens, strict=True)] == [
        slow.request(*each) for each in zip(paths, tokens, strict=True)
    ]


ENGINES = {"vllm": VllmPool, "sglang": RadixCache, "lmcache": LruChunks, "kvcache-simulator": LruTrie}


def hits(mode, usable, *requests, size=4):
    """Tokens that each request hits in turn."""
    cache, path = ENGINES[mode](usable, size), unfull_too if mode == "kvcache-simulator" else full
    return [cache.request(path(text, size), len(text)) for text in requests]


@pytest.mark.parametrize("mode", ENGINES)
def test_small_cases_by_hand(mode):
    whole = {"vllm": 8, "sglang": 8, "lmcache": 11, "kvcache-simulator": 12}[mode]
    assert hits(mode, 9, "abcdefghijkl", "abcdefghijkl") == [0, whole], "exactly three blocks, repeated"
    short = {"kvcache-simulator": 3}.get(mode, 0)
    assert hits(mode, 9, "abc", "abc") == [0, short], "a prompt shorter than a block"
    tail = {"kvcache-simulator": 6}.get(mode, 4)
    assert hits(mode, 9, "abcdef", "abcdef") == [0, tail], "an unfull last block"
    assert hits(mode, 9, "abcdefghijklm", "abcdXfghijklm") == [0, 4], "an edited history"
    assert hits(mode, 0, "abcdefgh", "abcdefgh") == [0, 0], "no memory"
    assert hits(mode, 9, "1abcdefg", "2abcdefg") == [0, 0], "another salt, tenant or LoRA, which is in the keys"


def test_a_request_larger_than_the_memory():
    request, same = "abcdefghijklm", "abcdefgh_"
    assert hits("vllm", 3, same, request, same) == [0, 0, 8], "is not served, and takes nothing"
    assert hits("sglang", 3, same, request, same) == [0, 0, 8]
    assert hits("lmcache", 2, same, request, same) == [0, 8, 8], "keeps its head"
    assert hits("kvcache-simulator", 3, request, same) == [0, 8], "keeps its head, less the last block that it had placed"


def test_vllm_computes_a_wholly_cached_prompts_last_block_into_another_block():
    assert hits("vllm", 4, "abcdefgh", "abcdefgh", "ijklmnop", "abcdefgh_") == [0, 4, 0, 8], "the older copy has gone first"


def test_vllm_reuses_unnamed_blocks_first():
    assert hits("vllm", 4, "abcdef", "ghijkl", "mnopqr", "abcd_") == [0, 0, 0, 4], "three unfull blocks were one and the same"


def test_sglang_gives_up_whole_nodes():
    long, other = "abcdefghijkl_", "mnop_"
    assert hits("vllm", 4, long, other, "abcdefghi") == [0, 0, 8]
    assert hits("sglang", 4, long, other, "abcdefghi") == [0, 0, 0]


OF_A_MODEL = ["workload.sessions=5", "hardware=h100-80g-x8", "prices=rent-2026", "store.unit=block"]


@pytest.mark.parametrize("dense", [True, False])
def test_a_pool_of_groups_is_that_of_a_literal_one(dense):
    @settings(max_examples=150)
    @given(st.integers(0, 24), blocks_of, st.integers(2, 6), st.integers(1, 2), texts)
    def compare(usable, size, window, windowed, requests):
        fast = WindowsPool(Groups(1, windowed, window, dense, junctions=False), usable, size)
        slow = literal.Windowed(usable, size, window, windowed, dense)
        for text in requests:
            assert fast.request(full(text, size), len(text)) == slow.request(full(text, size), len(text))
            assert fast.held <= usable

    compare()


def test_of_windows_only_the_end_of_a_prompt_is_kept():
    for dense, hit in ((False, 0), (True, 8)):
        pool = WindowsPool(Groups(1, 1, 5, dense), 99, 4)
        assert [pool.request(full(text, 4), len(text)) for text in ("abcdefghijkl_", "abcdefgh_")] == [0, hit]


@pytest.mark.parametrize(
    ("model", "groups"),
    [("gpt-oss-20b", Groups(1, 1, 128)), ("gemma-3-27b", Groups(1, 6, 1024)), ("llama-3.1-8b", None), ("mistral-7b", None)],
)
def test_groups_of_a_models_layers(model, groups):
    curve = block_curve(load(None, [*OF_A_MODEL, f"model={model}"]), None, ["64GB"], [])
    assert curve.groups == groups and bool(curve.windows) == (model == "mistral-7b")
    every = block_curve(load(None, [*OF_A_MODEL, f"model={model}", "store.windows=every-token"]), None, ["64GB"], [])
    assert every.groups is None and bool(every.windows) == (model != "llama-3.1-8b")


def lru_offload(chunks, chunk_tokens):
    return MODES["vllm"].offload["lru"](chunks, chunk_tokens, 1)


OFFLOADS = {"by run": (lru_offload, True), "by chunk": (lambda *size: FilteredOffload(*size, LruOrder(), 1), False)}


@pytest.mark.parametrize(("offload", "heads_stay"), OFFLOADS.values(), ids=OFFLOADS)
def test_a_tier_below_is_that_of_a_literal_one(offload, heads_stay):
    @settings(max_examples=150)
    @given(sizes, sizes, st.integers(1, 3), texts)
    def compare(usable, chunks, chunk_blocks, requests):
        fast = Tiered(VllmPool(usable, 2), offload(chunks, 2 * chunk_blocks), chunk_blocks)
        slow = literal.Offloading(literal.Vllm(usable, 2), chunks, 2 * chunk_blocks, heads_stay)
        for text in requests:
            assert fast.request(full(text, 2), len(text)) == slow.request(full(text, 2), full(text, 2 * chunk_blocks), len(text))
            assert (fast.below, fast.tier.stored, fast.tier.dropped) == (slow.below, slow.stored, slow.dropped)
            assert fast.held <= chunks

    compare()


@settings(max_examples=100)
@given(st.integers(7, 12), sizes, texts)
def test_tiers_that_are_written_through_hit_what_the_better_of_them_would_alone(hbm, dram, requests):
    together = Tiered(VllmPool(hbm, 2), lru_offload(dram, 2), 1)
    alone = VllmPool(hbm, 2), Tiered(None, lru_offload(dram, 2), 1)
    for text in requests:
        assert together.request(full(text, 2), len(text)) == max(each.request(full(text, 2), len(text)) for each in alone)


def test_a_tier_is_written_what_it_lacks_and_drops_what_has_no_room():
    cache = Tiered(VllmPool(9, 4), lru_offload(2, 4), 1)
    for text in ("abcdefgh", "abcdefghijkl", "abcdefgh_"):
        cache.request(full(text, 4), len(text))
    assert (cache.tier.stored, cache.tier.dropped, cache.tier.held) == (2, 1, 2)


def test_what_the_pool_had_is_not_renewed_by_a_request_that_loads():
    """The fourth has its first chunk in the pool and loads the second; the fifth needs room, and the first chunk goes for it."""
    cache = Tiered(VllmPool(3, 4), FilteredOffload(4, 4, LruOrder(), 1), 1)
    for text in ("abcdefgh_", "ijkl", "mnop", "abcdefgh_", "qrst"):
        cache.request(full(text, 4), len(text))
    tier = cache.tier
    assert cache.below == 4
    assert [tier.request(full(text, 4), len(text), 0) for text in ("ijkl_", "abcd_")] == [4, 0]


def test_a_chunk_is_stored_when_it_is_offered_for_the_second_time():
    cache = Tiered(VllmPool(2, 4), FilteredOffload(9, 4, LruOrder(), 2), 1)
    texts = ["abcd_", "efgh_", "abcd_", "efgh_", "abcd_"]
    assert [cache.request(full(text, 4), len(text)) for text in texts] == [0, 0, 0, 0, 4]
    assert cache.below == 4 and cache.tier.stored == 2


@settings(max_examples=60)
@given(sizes, texts)
def test_arc_holds_no_more_than_there_is_room_for(chunks, requests):
    cache = Tiered(None, MODES["vllm"].offload["arc"](chunks, 2, 1), 1)
    for text in requests:
        cache.request(full(text, 2), len(text))
        assert cache.held <= chunks


def test_arc_keeps_what_was_used_again_through_a_scan():
    hit = {}
    for policy in ("lru", "arc"):
        cache = Tiered(None, MODES["vllm"].offload[policy](4, 4, 1), 1)
        texts = ["abcdefgh_", "abcdefgh_", *(f"scan{number:04}_" for number in range(5)), "abcdefgh_"]
        hit[policy] = [cache.request(full(text, 4), len(text)) for text in texts][-1]
    assert hit == {"lru": 0, "arc": 8}


def test_a_chunk_of_blocks_rounds_what_the_tier_hits_down():
    for chunk_blocks, hit in ((1, 12), (2, 8), (4, 0)):
        cache = Tiered(None, lru_offload(9, 4 * chunk_blocks), chunk_blocks)
        texts = ["abcdefghijkl_", "abcdefghijkl_"]
        assert [cache.request(full(text, 4), len(text)) for text in texts] == [0, hit]


def test_a_request_larger_than_the_pool_is_not_served_from_below():
    cache = Tiered(VllmPool(1, 4), lru_offload(9, 4), 1)
    assert [cache.request(full(text, 4), len(text)) for text in ("abcdefgh", "abcdefgh")] == [0, 0]
    assert cache.tier.stored == 0


def test_a_chunk_of_several_blocks_rounds_hits_down(workload):
    requests = workload([[(100, 0), (60, 0)]])
    for size, hit in ((10, 100), (30, 90), (120, 0)):
        contexts = block_contexts(requests, size)
        cache = LruChunks(99, size)
        assert [cache.request(*each) for each in zip(contexts.paths, contexts.tokens, strict=True)] == [0, hit]


def hashed(*contexts, block_tokens=8, prompts):
    """A workload of requests of one turn each, with these hashes."""
    first = np.append(0, np.cumsum([len(ids) for ids in contexts]))
    blocks = Blocks(block_tokens, first, np.concatenate(contexts).astype(np.int64))
    made = untimed(range(len(contexts)), prompts, [1] * len(contexts)).with_times(np.arange(len(contexts)), np.zeros(len(contexts)))
    return type(made)(**{**vars(made), "blocks": blocks})


def test_blocks_of_other_sizes_are_parts_of_those_that_are_hashed_or_several_together():
    requests = hashed([1, 2, 3], [1, 2, 4], prompts=[24, 20])
    same = {size: block_contexts(requests, size).paths for size in (2, 4, 8, 16)}
    shared = {size: sum(one == other for one, other in zip(*paths, strict=False)) for size, paths in same.items()}
    assert shared == {2: 8, 4: 4, 8: 2, 16: 1}
    with pytest.raises(TraceError, match="blocks of 3 are no part"):
        block_contexts(requests, 3)


def test_without_hashes_a_session_shares_its_own_history_up_to_an_edit(workload):
    requests = workload([[(6, 2), (6, 2), (3, 1)], [(6, 2)]], arrivals=[0, 100], gap_s=1.0)
    edited = type(requests)(**{**vars(requests), "dropped_tokens": np.array([0, 0, 6, 0])})
    paths = [list(path) for path in block_contexts(edited, 4).paths]
    assert [len(path) for path in paths] == [1, 3, 3, 1]
    assert paths[1][:1] == paths[0] and paths[2][:2] == paths[1][:2] and paths[2][2] != paths[1][2] and paths[3] != paths[0]


def test_a_curve_has_hit_rates_over_all_prompt_tokens(small):
    config = small("store.unit=block", "store.block_tokens=16")
    curve = block_curve(config, None, ["0GB", "1TB"], [])
    assert block_curve(config, None, ["21blocks"], []).points[0].blocks == 21
    none, most = (point.found["lru"].served for point in curve.points)
    assert none.hit_tokens == 0 and none.prompt_tokens == most.prompt_tokens == sum(curve.contexts.tokens)
    assert most == curve.endless and most.hit_tokens % 16 == 0
    said, late = (account(found)["warnings"] for found in (curve, block_curve(small("store.ttl_s=60"), None, ["0GB"], [])))
    assert [line for line in late if line not in said and line.startswith("store.ttl_s=60: nothing expires here")]


def test_a_curve_of_dram_below_hbm(small):
    config = small("store.unit=block", "store.hbm=20GB")
    above = block_curve(config, "hbm", ["20GB"], []).points[0].found["lru"]
    none, most = (point.found["lru"] for point in block_curve(config, "dram", ["0GB", "1TB"], []).points)
    assert none.served == above.served and none.below.hit_tokens == none.below.stored_chunks == 0 and none.below.dropped_chunks > 0
    assert most.served.hit_tokens == above.served.hit_tokens + most.below.hit_tokens and above.below is None


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        (["store.mode=vllm"], {"tier": "ssd"}, "--tier ssd: store.mode=vllm has hbm"),
        (["store.mode=vllm"], {"policies": ["fifo"]}, "--policies fifo: store.mode=vllm has lru"),
        (["workload.clients.outstanding=2"], {}, "order of arrivals"),
        ([], {"sizes": ["5"]}, "--sizes"),
    ],
)
def test_what_a_curve_of_blocks_refuses(small, settings, options, message):
    with pytest.raises(ConfigError, match=message):
        block_curve(small("store.unit=block", *settings), **{"tier": None, "sizes": [], "policies": [], **options})


def test_the_command_prints_a_curve(tmp_path):
    options = ["--mode", "kvcache-simulator", "--set", "workload.sessions=30", "--sizes", "1GB,1TB"]
    shown = CliRunner().invoke(app, ["curve", *options])
    assert shown.exit_code == 0 and "token hit rate, of all prompt tokens, by size of DRAM" in shown.stdout and "–" in shown.stdout
    found = json.loads(CliRunner().invoke(app, ["curve", *options, "--json"]).stdout)
    assert found["unit"] == "block" and [line["policy"] for line in found["lines"]] == ["lru", "fifo", "optimal"]
    below = ["--mode", "vllm", "--tier", "dram", "--set", "store.hbm=20GB"]
    assert "below 20GB of HBM" in CliRunner().invoke(app, ["curve", *options, *below]).stdout
    drawn = tmp_path / "blocks.svg"
    assert CliRunner().invoke(app, ["curve", *options, "--figure", str(drawn)]).exit_code == 0 and "<svg" in drawn.read_text()
    for extra in (["--replications", "2"], ["--jobs", "2"]):
        refused = CliRunner().invoke(app, ["curve", *options, *extra])
        assert refused.exit_code == 2 and f"{extra[0]} goes with --unit session" in refused.stderr
    assert CliRunner().invoke(app, ["curve", "--tier", "hbm"]).exit_code == 2


def test_a_curve_of_blocks_is_written_as_one_of_sessions(small, tmp_path):
    curve = kvplan.curve(small("store.unit=block", "store.hbm=20GB"), "dram", ["0GB", "1TB"])
    rows = curve.to_frame()
    assert (
        list(rows["bytes"]) == [0, 10**12] * 3 and set(rows["policy"]) == {"lru", "arc", "optimal"} and rows["hit_rate.below"].iloc[0] == 0
    )
    assert rows["hit_rate.tokens"].iloc[1] == curve.data["lines"][0]["points"][1]["hit_rate.tokens"] > rows["hit_rate.tokens"].iloc[0]
    made = curve.data["provenance"]
    assert made["config_sha256"] == provenance.text(json.dumps(curve.data["config"], sort_keys=True))
    assert made["engine"]["otherwise"]["store.unit"] == "block"
    assert "below 20GB of HBM" in repr(curve) and "arc in DRAM, %" in curve._repr_html_()
    curves.write_curve(curve.data, tmp_path)
    assert curve.figure()._repr_png_().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.csv", "curve.json", "curve.png", "report.html", "report.md"]
    assert pd.read_csv(tmp_path / "curve.csv").equals(rows)
    text = (tmp_path / "report.md").read_text()
    assert (
        "of all prompt tokens" in text
        and "lru, tokens hit" in text
        and "An endless cache hits" in text
        and "is known by construction" in text
    )
    assert folder.texts(tmp_path)["report.md"] == text, "`kvplan report` makes the same"


def test_what_a_mode_does_not_judge_has_no_figures(small):
    curve = kvplan.curve(small("store.unit=block", "store.mode=kvcache-simulator"), sizes=["1TB"])
    assert curve.to_frame()["hit_rate.tokens"].isna().all() and "not full before" in curve._repr_html_()


def test_where_nothing_is_known_to_be_shared_a_curve_is_refused(workload):
    with pytest.raises(TraceError, match="neither block hashes, nor sessions"):
        block_contexts(workload([[(10, 2)], [(9, 1)]]), 4)


def test_settings_name_the_modes():
    assert set(get_args(Store.model_fields["mode"].annotation)) == set(MODES)


# --- what engines and tools hit themselves


@pytest.fixture(scope="module")
def mooncake():
    workload = read_trace(MOONCAKE)
    return block_contexts(workload, 512)


CASES = [case for cases in ORACLES.values() for case in cases]
FEW = (Pool(8_192), Offload(2_048, 16_384), Tool("lru", 8_192), Windows(4_096, dense=False))
"""Without KVPLAN_ORACLES=1; the figures and their sources are those of `kvplan validate blocks`."""
TRIED = [case for case in CASES if case.cache in FEW or "KVPLAN_ORACLES" in os.environ]


@needs_mooncake
@pytest.mark.parametrize("case", TRIED, ids=lambda case: str(case.cache))
def test_what_engines_and_tools_hit_themselves(mooncake, case):
    found = ours(case.cache, mooncake)
    assert [name for name, published, within in case.figures if not abs(found[name] - published) <= within] == []


@needs_mooncake
@pytest.mark.skipif("KVPLAN_ORACLES" not in os.environ, reason="KVPLAN_ORACLES=1 tries all figures")
def test_chunk_by_chunk_lru_is_exact_where_runs_are_nine_blocks_off(mooncake):
    cache = Tiered(VllmPool(8_192, 512), FilteredOffload(16_384, 512, LruOrder(), 1), 1)
    for path, tokens in zip(mooncake.paths, mooncake.tokens, strict=True):
        cache.request(path, tokens)
    assert (cache.below, cache.tier.stored) == (12_162_560, 198_355)


@needs_mooncake
def test_the_ceiling_of_the_tool(mooncake):
    replay = BlockReplay(MODES["kvcache-simulator"], mooncake)
    assert round(replay.served(replay.cache("lru", ENDLESS)).hit_rate, 6) == 0.398113


def test_figures_are_each_of_a_cache_of_its_own():
    assert len({case.cache for case in CASES}) == len(CASES) == 33 and {case.cache for case in CASES} >= set(FEW)


@needs_mooncake
def test_the_command_validates_blocks(mooncake, capsys, monkeypatch):
    monkeypatch.setattr(command, "_contexts", lambda path: mooncake)
    assert command.main(["--trace", "t", "--only", "8,192 blocks, lru"]) == 0
    shown = capsys.readouterr().out
    assert "B: kvcache-simulator 0.1.3" in shown and "0.188201" in shown and "A:" not in shown
    assert "skipped" in shown or "driven here" in shown
    monkeypatch.setattr(command, "ours", lambda cache, contexts: {"hit rate of all prompt tokens": 0.2})
    assert command.main(["--trace", "t", "--only", "8,192 blocks, lru"]) == 1
    assert "1 figures differ: B: 8,192 blocks, lru" in capsys.readouterr().err


def test_another_trace_is_refused(tmp_path, capsys):
    (path := tmp_path / "log.jsonl").write_text('{"timestamp": 0, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2]}\n')
    assert command.main(["--trace", str(path)]) == 2 and "has 1 requests of 1,024 tokens" in capsys.readouterr().err
