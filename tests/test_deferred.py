"""Jobs that others pass until chunks under way have come, as vLLM's own connector has it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from test_blockengine import CHUNK, CHUNKS, overlapping, ran, requests

from kvplan.sim.config import ConfigError
from kvplan.sim.engine.guards import GuardError
from kvplan.sim.engine.waiting import HoldingRoom
from kvplan.sim.policies.prefetch.wait_complete import WaitComplete
from kvplan.sim.policies.scheduling.fcfs import Fcfs
from kvplan.sim.store.blocks.underway import UnderWay

DEFERS, SLOW = "store.defers=true", "deployment.link_efficiency=0.001"
"""A chunk is on its way for 21 ms; a load asks for 3.4 ms before."""
DRAM = [*CHUNKS, f"store.dram={40 * CHUNK}B", "store.ssd=0GB"]
DOCUMENT, FILLER = [1, 2, 3, 4, 5, 6], list(range(7, 20))
"""The filler takes all of a pool of 13 blocks."""


def at(times, *contexts, **how):
    """Requests that come then."""
    made = requests(*contexts, prompts=[8 * len(ids) for ids in contexts], **how)
    return replace(made.with_times(np.array(times, float), np.zeros(len(times))), blocks=made.blocks)


def test_what_another_loads_is_found_in_hbm_when_it_has_come():
    """Two ask for a document that only DRAM has. Its last block is computed by both."""
    made = at([0, 100, 200, 200.0001], DOCUMENT, FILLER, DOCUMENT, DOCUMENT)
    once, twice = (ran(made, 13, *DRAM, SLOW, defers) for defers in (DEFERS, "store.defers=false"))
    assert once.columns["dram_tokens"].tolist() == [0, 0, 40, 0] and once.columns["hbm_tokens"].tolist() == [0, 0, 0, 40]
    assert twice.columns["dram_tokens"].tolist() == [0, 0, 40, 40]
    assert [run.ended[0].sums["dram.read"] for run in (once, twice)] == [5 * CHUNK, 10 * CHUNK]
    assert once.columns["deferrals"].tolist() == [0, 0, 1, 1] == twice.columns["deferrals"].tolist(), "the last waits for that of another"
    assert once.columns["admitted_s"][2:].tolist() == pytest.approx([200, 200 + 0.0034 + 5 * CHUNK / 50e6], rel=1e-6)
    assert once.columns["first_token_s"][2] == once.columns["first_token_s"][3] < twice.columns["first_token_s"][3]


def test_a_job_waits_for_what_is_being_stored_and_others_pass_it():
    """The document goes from HBM before it has come to DRAM."""
    made = at([0, 0.02, 0.05, 0.06], DOCUMENT, FILLER, DOCUMENT, [20, 21])
    waits, computes = (ran(made, 13, *DRAM, SLOW, defers).columns for defers in (DEFERS, "store.defers=false"))
    assert waits["cached_tokens"].tolist() == [0, 0, 40, 0] and computes["cached_tokens"].tolist() == [0, 0, 0, 0]
    assert waits["done_s"][3] < waits["admitted_s"][2] and computes["done_s"][2] < computes["admitted_s"][3]


def test_nobody_waits_for_chunks_that_hbm_has():
    made = at([0, 0.1], DOCUMENT, DOCUMENT)
    found = ran(made, 20, *DRAM, SLOW, DEFERS).columns
    assert found["hbm_tokens"].tolist() == [0, 40] and "deferrals" not in found


@pytest.mark.parametrize("seed", range(3))
def test_runs_equal_single_steps_where_jobs_are_deferred(seed):
    """With TTLs, and a pool so small that jobs give way, and wait for chunks when they come again."""
    workload = overlapping(seed, requested=60)
    settings = [*CHUNKS, f"store.dram={14 * CHUNK}B", f"store.ssd={60 * CHUNK}B", SLOW, DEFERS, f"store.ttl_s={['null', '0.5', '5'][seed]}"]
    fast, slow = (ran(workload, 22, *settings, longest_run=longest).columns for longest in (None, 1))
    assert fast.keys() == slow.keys()
    for name in fast:
        np.testing.assert_allclose(fast[name], slow[name], rtol=1e-9, err_msg=name)
    assert fast["preemptions"].any() and fast["deferrals"].max() > 1


def test_what_is_under_way_is_known_by_its_keys():
    way = UnderWay()
    way.begins([1, 2, 3, 4], 1, 3, 10.0)
    way.begins([1, 2, 9], 2, 3, 20.0)
    asked = [([1, 2, 3], 0, 3), ([1, 2, 9], 0, 3), ([1, 2, 9], 2, 3), ([1, 5, 3], 0, 3), ([1, 2, 3, 4], 3, 4), ([4], 0, 1)]
    assert [way.until(*one, 5.0) for one in asked] == [10, 20, 20, 5, 5, 5]
    assert [way.until(*one, 10.0) for one in asked[:2]] == [10, 20] and way.until(*asked[1], 20.0) == 20


def test_jobs_do_not_wait_for_what_a_prefetch_policy_brings_up():
    with pytest.raises(ConfigError, match=r"store\.defers=false"):
        ran(at([0], DOCUMENT), 20, *CHUNKS, "engine=hicache", "store.unit=block", DEFERS)


@pytest.mark.pure
def test_the_guards_notice_what_two_load(monkeypatch):
    monkeypatch.setattr(UnderWay, "until", lambda self, path, start, stop, now: now)
    with pytest.raises(GuardError, match="on their way to another job"):
        ran(at([0, 100, 200, 200.0001], DOCUMENT, FILLER, DOCUMENT, DOCUMENT), 13, *DRAM, SLOW, DEFERS)


def test_who_is_held_heads_the_queue_since_it_came_back_and_who_passes_it_since_it_was_held():
    """Of three, the first of which waits for its KV, and is the first again while the last comes."""
    store, agenda = SimpleNamespace(bytes_to_come=lambda session: 8 * (session == 0)), SimpleNamespace(now_s=7.0)
    recorder = SimpleNamespace(arrival_s=[1.0, 2.0, 9.0], deferred=lambda turn: None)
    room = HoldingRoom(agenda, Fcfs(None), store, WaitComplete(), recorder, [0, 1, 2], lambda size: size)
    room.push(0, 1.0)
    room.push(1, 2.0)
    assert (room.head(5.0), room.head_since) == (1, 5.0)
    room.release(0)
    assert (room.head(8.0), room.head_since) == (0, 7.0)
    room.push(2, 9.0)
    assert room.take(10.0) == 7.0 and (room.head(11.0), room.take(11.0)) == (1, 10.0)
