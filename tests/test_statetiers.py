"""Tiers below servers of blocks for models with layers that keep a state: chunks of each group of layers."""

import numpy as np
import pytest
from test_blockengine import requests
from test_windowtiers import NOTHING, Named, all_that_full_attention_has, ran, sessions, tier

from kvplan.sim.config import ConfigError, load
from kvplan.sim.engine import guards
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks import grouped
from kvplan.sim.store.blocks.grouped import GroupedChunks, InChunks, reached_by_groups
from kvplan.sim.store.blocks.windows import Groups

MODEL = "qwen3.5-35b-a3b"
"""On two GPUs a block has 1,056 tokens, and 21,626,880 bytes: KV in ten layers, or a state in each of ten. On four it has 528."""
CHUNK = 1056 * 10 * 2048
LONG = "deployment.window_tokens=60000"
ALONE = "store.dram=0GB"


def served(workload, *overrides):
    return ran(workload, LONG, "deployment.gpus=2", *overrides, model=MODEL)


def longer(seed, times=8):
    """Conversations of some blocks each."""
    return [[(times * prompt, times * answer) for prompt, answer in turns] for turns in sessions(seed)]


def test_a_conversation_writes_what_is_new_and_loads_the_state_at_its_end(workload):
    """Prompts of 10,000, 13,000 and 16,500 tokens fill 9, 12 and 15 chunks, and each stores the state at the end of that in three groups
    beside those of full attention; the next loads them all."""
    turns = workload([[(10_000, 1000), (2000, 500), (3000, 20)]], gap_s=100.0)
    given = [f"model={MODEL}", "deployment.gpus=2", "engine=vllm", "hardware=h100-80g-x8", "prices=rent-2026", "store.unit=block"]
    told = simulate(load("default", [*given, LONG, "warmup_turns=0", "store.ssd=0GB", NOTHING, "store.dram=10GB"]), turns)
    assert told.columns["cached_tokens"].tolist() == told.columns["dram_tokens"].tolist() == [0, 9504, 12_672]
    dram = told.summary["tiers"]["dram"]
    assert dram["written_bytes"] == (9 + 3 + 3 + 3 + 3 + 3) * CHUNK == 519_045_120
    assert dram["read_bytes"] == (9 + 3 + 12 + 3) * CHUNK == (9504 + 12_672) * 20_480 + 6 * CHUNK == 583_925_760


def test_of_chunks_of_two_blocks_a_state_is_kept_where_one_ends(workload):
    """Of the same prompts the states before their ends are those of 9, 12 and 15 blocks, so only the second is stored: each chunk has room
    for two blocks, of which a state writes one. The third finds it, and the second nothing; full chunks are 4, 6 and 7."""
    turns = workload([[(10_000, 1000), (2000, 500), (3000, 20)]], gap_s=100.0)
    given = [f"model={MODEL}", "deployment.gpus=2", "engine=vllm", "hardware=h100-80g-x8", "prices=rent-2026", "store.unit=block"]
    more = ["warmup_turns=0", "store.ssd=10TB", NOTHING, "store.dram=10GB", "store.chunk_blocks=2"]
    told = simulate(load("default", [*given, LONG, *more]), turns)
    assert told.columns["cached_tokens"].tolist() == told.columns["dram_tokens"].tolist() == [0, 0, 12_672]
    dram, ssd = told.summary["tiers"]["dram"], told.summary["tiers"]["ssd"]
    assert dram["written_bytes"] == (2 * 4 + 2 * 2 + 3 + 2 * 1) * CHUNK and dram["peak_bytes"] == 2 * (7 + 3) * CHUNK
    assert ssd["written_bytes"] == 2 * (7 + 3) * CHUNK
    assert dram["read_bytes"] - ssd["written_bytes"] == (12 + 3) * CHUNK


@pytest.mark.parametrize(("threshold", "found"), [(1, [0, 3168, 3168, 3168]), (2, [0, 0, 3168, 3168]), (3, [0, 0, 0, 3168])])
def test_a_state_is_stored_when_it_has_been_offered_so_often(workload, threshold, found):
    """Each of four requests with one prompt offers the state before its end, until DRAM has it; another prompt offers its own once."""
    again = requests(*[[*range(3)]] * 4, prompts=[3500] * 4, block_tokens=1056)
    told = served(again, NOTHING, "store.dram=10GB", f"store.threshold={threshold}")
    assert told.columns["cached_tokens"].tolist() == found and told.ended[0].sums["dram.written"] == 6 * CHUNK


def test_turns_that_go_on_offer_each_state_once(workload):
    """So with a threshold of two none is stored, and full attention alone: the second turn's first nine chunks are offered again."""
    turns = workload([[(10_000, 1000), (2000, 500), (3000, 20)]], gap_s=100.0)
    told = served(turns, NOTHING, "store.dram=10GB", "store.threshold=2")
    assert not told.columns["cached_tokens"].any() and told.ended[0].sums["dram.written"] == 12 * CHUNK


def test_a_state_that_hbm_had_is_not_offered_again(workload):
    """Of three requests with one prompt each finds it in HBM, so with a threshold of two DRAM has full attention alone."""
    again = requests(*[[*range(3)]] * 3, prompts=[3500] * 3, block_tokens=1056)
    told = served(again, "store.dram=10GB", "store.threshold=2")
    assert told.columns["hbm_tokens"].tolist() == [0, 3168, 3168] and told.ended[0].sums["dram.written"] == 3 * CHUNK


@pytest.mark.parametrize("prompt", [2112, 2113])
def test_a_lookup_ends_where_a_state_is(workload, prompt):
    """Of two full chunks the state before the second is kept, and of one token more the one before the third; a lookup of the same prompt,
    or of a longer one, ends there, though of the first prompt full attention has another chunk."""
    again = requests([*range(3)], [*range(3)], [*range(4)], prompts=[prompt, prompt, 3500], block_tokens=1056)
    ends = 1056 * ((prompt - 1) // 1056)
    assert served(again, NOTHING, "store.dram=10GB").columns["cached_tokens"].tolist() == [0, ends, ends]


def test_endless_dram_serves_what_endless_hbm_does(workload):
    """Of sessions that have nothing in common, in whose prompts' ends alone states are kept."""
    turns = workload(longer(1), arrivals=[float(each) for each in range(12)], gap_s=300.0)
    below, above = (served(turns, *more).columns["cached_tokens"] for more in ([NOTHING, "store.dram=1TB"], [ALONE]))
    assert below.tolist() == above.tolist() and np.count_nonzero(below) > 20


def test_more_dram_serves_no_fewer(workload):
    turns = workload(longer(2), arrivals=[float(each) for each in range(12)], gap_s=300.0)
    found = [served(turns, NOTHING, f"store.dram={size}MB").columns["cached_tokens"].sum() for size in (500, 1000, 2000, 3000, 9000)]
    assert found == sorted(found) and len(set(found)) > 3


def test_states_that_dram_has_lost_come_up_from_ssd(workload):
    """DRAM holds one of three conversations at a time, SSD all of them."""
    turns = workload(longer(3)[:3], arrivals=[0.0, 1.0, 2.0], gap_s=300.0)
    found = served(turns, NOTHING, "store.dram=500MB", "store.ssd=1TB").columns
    assert found["ssd_tokens"].any() and (found["cached_tokens"] == found["dram_tokens"] + found["ssd_tokens"]).all()
    assert found["cached_tokens"].sum() > served(turns, NOTHING, "store.dram=500MB").columns["cached_tokens"].sum()


def test_states_come_up_alone_where_dram_has_all_else():
    """And a lookup takes no other than the one at its end."""
    reach = Groups(1, 3, 2, states=True).reach(1056)
    assert reach == 1

    def found(*tiers, hit=0):
        return reached_by_groups(tiers, reach, Named(), hit, 19)

    both = found(tier([3]), tier([3, 9]))
    assert both.stops == [0, 10, 10] and [(rise.start, rise.stop, rise.chunks) for rise in both.rises] == [(10, 10, 2)]
    assert found(tier([3])).stops[-1] == 4 and found(tier([3]), hit=4).stops[-1] == 4 and found(tier([])).stops[-1] == 0
    assert [(part.start, part.stop) for part in both.beside] == [(9, 10), (9, 10)]


class Other(Named):
    def __getitem__(self, block):
        return -1 - block


def test_states_go_by_their_places_in_the_context():
    """Of ten chunks with states after the fourth and the last, and another context that comes chunk by chunk: the last state goes first, of
    each group, then full attention as far as the other, and that before what is before it."""
    made = GroupedChunks(Groups(1, 3, 2, states=True), 16)
    made.arrive(made.store(InChunks(Named(), [(3, 4), (9, 10)]), 10))

    def there():
        states = [[len(made.within(of, chunk, chunk + 1)) for of in made.groups(Named())[1]] for chunk in (3, 9)]
        return made.prefix(Named(), 10), *map(sum, states)

    other, left = Other(), [there()]
    for chunks in range(1, 11):
        made.arrive(made.store(InChunks(other, []), chunks))
        left.append(there())
    assert left == [*[(10, 3, gone) for gone in (3, 2, 1, 0)], *[(full, 3, 0) for full in range(9, 3, -1)], (4, 2, 0)]


@pytest.mark.pure
def test_guards_hold_states_below(monkeypatch):
    """A lookup that ends where full attention does, of a prompt of full blocks, is without the state there."""
    monkeypatch.setattr(grouped._Search, "_longest", lambda self: all_that_full_attention_has(None, self))
    again = requests([*range(2)], [*range(4)], prompts=[2112, 3500], block_tokens=1056)
    with pytest.raises(guards.GuardError, match=r"invariant 6: chunks .* are loaded"):
        served(again, NOTHING, "store.dram=10GB")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["store.mode=lmcache", "store.eviction=lru"], "with store.mode=vllm"),
        (["store.eviction=lookahead"], "with store.eviction=lru"),
        (["store.connector=ucm-3fs", "deployment.gpus=4"], "ranks hold copies of, and store.connector=ucm-3fs keeps once"),
    ],
)
def test_what_states_are_not_simulated_with_below(workload, settings, message):
    with pytest.raises(ConfigError, match=f"keep states, .*{message}.*store.unit=session"):
        served(workload([[(9, 1)]]), "store.dram=10GB", *settings)
