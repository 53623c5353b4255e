"""Tiers below servers of blocks for models with windows: chunks of each group."""

import numpy as np
import pytest
from test_blockengine import requests

from kvplan.sim.config import load
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import guards
from kvplan.sim.engine.service import run_service
from kvplan.sim.metrics.output import RunInput
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks import grouped
from kvplan.sim.store.blocks.grouped import GroupedChunks, InChunks, reached_by_groups
from kvplan.sim.store.blocks.windows import Groups, OfGroup, merged

SERVER = [
    "engine=vllm",
    "hardware=h100-80g-x8",
    "prices=rent-2026",
    "store.unit=block",
    "warmup_turns=0",
    "store.ssd=0GB",
    "deployment.window_tokens=8192",
]
NOTHING = "store.hbm=1B"
"""HBM keeps nothing for others."""
PAGE = 16 * 36_864
"""Bytes of 16 tokens in 18 layers of gpt-oss-120b, with windows or without: a window of 128 tokens has 8 of them, 4,718,592 bytes."""


def ran(workload, *overrides, model="gpt-oss-120b"):
    config = load("default", [f"model={model}", "deployment.gpus=1", *SERVER, *overrides])
    return run_service(RunInput(config, resolve(config, workload), workload))


def test_a_conversation_writes_what_is_new_and_loads_the_end_of_windows(workload):
    """Prompts of 1,000, 1,300 and 1,650 tokens fill 62, 81 and 103 chunks; of its window each stores the last 8 that the next can load."""
    told = simulate(
        load("default", ["model=gpt-oss-120b", "deployment.gpus=1", *SERVER, NOTHING, "store.dram=10GB"]), conversation(workload)
    )
    assert told.columns["cached_tokens"].tolist() == [0, 992, 1296]
    dram = told.summary["tiers"]["dram"]
    assert dram["written_bytes"] == (62 + 8 + 19 + 8 + 22 + 8) * PAGE == 74_907_648
    assert dram["read_bytes"] == (62 + 8 + 81 + 8) * PAGE == 93_782_016 == (992 + 1296) * 36_864 + 2 * 4_718_592


def conversation(workload):
    return workload([[(1000, 100), (200, 50), (300, 20)]], gap_s=10.0)


def sessions(seed):
    draw = np.random.default_rng(seed)
    return [[tuple(draw.integers(1, most, 2).tolist()) for most in (900, 300, 300, 300)] for _ in range(12)]


@pytest.mark.parametrize("chunk_blocks", [1, 3])
def test_endless_dram_serves_what_endless_hbm_does(workload, chunk_blocks):
    """To whole chunks, of sessions that have nothing in common."""
    turns = workload(sessions(1), arrivals=[float(each) for each in range(12)], gap_s=30.0)
    below = ran(turns, "deployment.gpus=2", NOTHING, "store.dram=1TB", f"store.chunk_blocks={chunk_blocks}").columns["cached_tokens"]
    above = ran(turns, "deployment.gpus=2", "store.dram=0GB").columns["cached_tokens"]
    size = 16 * chunk_blocks
    assert below.tolist() == (above - above % size).tolist() and np.count_nonzero(below) > 30


def test_below_hbm_nobody_sees_where_prompts_part():
    """Full attention in HBM says where others go on from, and keeps what is before that place; where HBM keeps nothing nobody knows."""
    shared = [*range(40)]
    contexts = [[*shared, *range(100 * each, 100 * each + 10)] for each in (1, 2, 3)]
    turns = requests(*contexts, prompts=[800] * 3, block_tokens=16)
    below, above = (ran(turns, *more).columns["cached_tokens"].tolist() for more in ([NOTHING, "store.dram=1TB"], ["store.dram=0GB"]))
    assert [below, above] == [[0, 0, 0], [0, 0, 640]]


def test_more_dram_serves_no_fewer(workload):
    """From where the longest prompt fits: what does not fit is not stored, and others stay for it."""
    turns = workload(sessions(2), arrivals=[float(each) for each in range(12)], gap_s=30.0)
    found = [ran(turns, NOTHING, f"store.dram={size}MB").columns["cached_tokens"].sum() for size in (100, 200, 400, 600, 800, 1600)]
    assert found == sorted(found) and len(set(found)) > 3


def test_windows_that_dram_has_lost_come_up_from_ssd(workload):
    """DRAM holds one of three conversations at a time, SSD all of them."""
    turns = workload(sessions(3)[:3], arrivals=[0.0, 1.0, 2.0], gap_s=30.0)
    found = ran(turns, NOTHING, "store.dram=130MB", "store.ssd=1TB").columns
    assert found["ssd_tokens"].any() and (found["cached_tokens"] == found["dram_tokens"] + found["ssd_tokens"]).all()
    alone = ran(turns, NOTHING, "store.dram=130MB").columns["cached_tokens"]
    assert found["cached_tokens"].sum() > alone.sum()


class Named:
    """A context."""

    session = 0

    def __len__(self):
        return 20

    def __getitem__(self, block):
        return block


def tier(windows, full=10, usable=100):
    made = GroupedChunks(Groups(1, 2, 33), usable)
    made.arrive(made.store(InChunks(Named(), merged((chunk, chunk + 1) for chunk in windows)), full))
    return made


def test_a_lookup_takes_the_longest_prefix_that_suits_all_groups():
    """Of windows two chunks, or those behind what the pool has."""
    reach = Groups(1, 2, 33).reach(16)
    assert reach == 2

    def stop(tiers, hit=0, most=19):
        return reached_by_groups(tiers, reach, Named(), hit, most).stops[-1]

    assert stop([tier([8, 9])]) == 10 and stop([tier([8, 9])], most=9) == 0
    assert stop([tier([5, 6, 8])]) == 7 and stop([tier([0, 5])]) == 1 and stop([tier([])]) == 0
    assert stop([tier([7])], hit=7) == 8 and stop([tier([7])], hit=6) == 6
    assert stop([tier([8]), tier([9])]) == 10 and stop([tier([8], full=9), tier([9])]) == 10
    assert stop([tier([8], usable=12), tier([9])]) == 0, "there is no room for 9 in both groups beside all else: 12 are 10 and 8 twice"


def test_what_goes_first_is_the_end_of_windows():
    made = tier([8, 9], usable=14)
    made.arrive(made.store(InChunks(Shifted(), []), 3))
    places = [(path, chunk) for path in made.groups(Named())[1] for chunk in (8, 9)]
    assert [bool(made.within(path, chunk, chunk + 1)) for path, chunk in places] == [True, False, False, False] and made.prefix(
        Named(), 20
    ) == 10
    made.arrive(made.store(InChunks(Shifted(), []), 5))
    assert not made.within(places[0][0], 8, 9) and made.prefix(Named(), 20) == 9


def test_chunks_of_two_groups_are_not_one_run():
    """When one group has what is before a place, and the next what is behind it, they go one by one all the same."""
    made = GroupedChunks(Groups(0, 2, 33), 100)
    first, second = (OfGroup(Named(), group) for group in (1, 2))
    pieces = made._runs.name_within(first, 4, 8, 1) + made._runs.name_within(second, 8, 12, 2)
    made.let_go(Named(), pieces)
    assert [[(begin, end) for _, begin, end in made.within(of, 0, 20)] for of in (first, second)] == [[(4, 8)], [(8, 12)]]


class Shifted(Named):
    """Another."""

    def __getitem__(self, block):
        return 100 + block


def one_chunk_less(original, self, end):
    return original(self, end) + 1


def all_that_full_attention_has(original, self):
    return self._stops[-1]


@pytest.mark.pure
@pytest.mark.parametrize(("method", "mutate"), [("_from", one_chunk_less), ("_longest", all_that_full_attention_has)])
def test_guards_hold_windows_below(monkeypatch, workload, method, mutate):
    original = getattr(grouped._Search, method)
    monkeypatch.setattr(grouped._Search, method, lambda self, *arguments: mutate(original, self, *arguments))
    with pytest.raises(guards.GuardError, match=r"invariant 6: chunks .* are loaded"):
        ran(workload(sessions(1), gap_s=5.0), NOTHING, "store.dram=10GB")
