"""What the seams promise: a new part is one file outside the project, and touches none of it."""

from functools import partial

import numpy as np
import pytest

from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import service
from kvplan.sim.simulation import simulate
from kvplan.traces.workload import untimed

TAKING_TURNS = '''
from kvplan import Router

class TakingTurns(Router):
    """The first turn to come to replica 0, the next to 1, and so on."""

    NAME = "taking-turns"

    def __init__(self, view):
        super().__init__(view)
        self.routed = 0

    def route(self, session, turn):
        self.routed += 1
        return (self.routed - 1) % self.view.replicas
'''


def test_a_new_router(tmp_path, workload):
    """Each replica serves the KV that it has: of two in strict alternation, a turn finds what the turn before the last one left."""
    (tmp_path / "routers.py").write_text(TAKING_TURNS)
    settings = [f"router={tmp_path}/routers.py:TakingTurns", "deployment.replicas=2", "store.ssd=0GB", "store.load=always"]
    columns = simulate(config.load(None, settings), workload([[(100, 10), (200, 20), (300, 30), (400, 40), (500, 50)]])).columns
    assert columns["replica"].tolist() == [0, 1, 0, 1, 0]
    assert columns["history_tokens"].tolist() == [0, 110, 330, 660, 1100]
    assert columns["cached_tokens"].tolist() == [0, 0, 110, 330, 660]
    assert sorted(columns["order"]) == [0, 1, 2, 3, 4] and (columns["done_s"] > columns["arrival_s"]).all()


CHUNKED = '''
from kvplan import Batching, Step

class Chunked(Batching):
    """Steps of 256 tokens: every decode has one, prefills share the rest in the order in which they came."""

    NAME = "chunked"

    def admits(self, batch):
        return sum(job.left for job in batch.prefilling) < 256 - batch.decoding

    def step(self, batch):
        room, chunks = 256 - batch.decoding, []
        for job in batch.prefilling:
            tokens = min(job.left, room)
            if tokens:
                chunks.append((job, tokens))
                room -= tokens
        return Step(tuple(chunks), batch.decoding > 0)
'''


def chunked_run(tmp_path, sessions, arrival_s):
    (tmp_path / "chunks.py").write_text(CHUNKED)
    settings = [f"batching={tmp_path}/chunks.py:Chunked", "store.dram=0GB", "store.ssd=0GB"]
    loaded = config.load(None, settings)
    table = untimed([turn for turn, _ in enumerate(sessions)], *map(list, zip(*sessions, strict=True)))
    workload = table.with_times(np.array(arrival_s), np.zeros(len(sessions)))
    return resolve(loaded, workload).steps, simulate(loaded, workload)


def test_a_new_batching_policy(tmp_path):
    """A prompt goes in steps of 256 tokens, in which the job that decodes gets one more each time: its step times add up."""
    steps, result = chunked_run(tmp_path, [(100, 400), (600, 10)], [0.0, 1.0])
    columns = result.columns
    assert columns["first_token_s"][0] == pytest.approx(steps.prefill(100, 0), rel=1e-12)
    decoded = steps.steps_until(1, 101, 1.0 - steps.prefill(100))
    assert 1.0 <= columns["admitted_s"][1] == pytest.approx(steps.prefill(100) + steps.decode(1, 101, decoded), rel=1e-9)
    context = 101 + decoded
    three = [steps.step([(tokens, 255 * place)], 1, context + place) for place, tokens in enumerate((255, 255, 90))]
    assert columns["first_token_s"][1] - columns["admitted_s"][1] == pytest.approx(sum(three), rel=1e-9)
    both = steps.decode(2, context + 3 + 601, 9)
    assert columns["done_s"][1] - columns["first_token_s"][1] == pytest.approx(both, rel=1e-9)
    rest = steps.decode(1, context + 12, 399 - decoded - 12)
    assert columns["done_s"][0] - columns["done_s"][1] == pytest.approx(rest, rel=1e-9)


def test_several_prefills_share_a_step(tmp_path):
    """What comes while the first prompt is prefilled goes in one step, whose weights are read once; what has no room in it goes on."""
    steps, result = chunked_run(tmp_path, [(100, 1)] * 4, [0.0, 1e-6, 1e-6, 1e-6])
    alone, shared = steps.prefill(100), steps.step([(100, 0), (100, 0), (56, 0)])
    first = [alone, alone + shared, alone + shared, alone + shared + steps.step([(44, 56)])]
    assert result.columns["first_token_s"].tolist() == pytest.approx(first, rel=1e-12)
    assert shared < steps.prefill(100) + steps.prefill(100) + steps.prefill(56) - 1.9 * steps.fixed


class KeepsNothing:
    """A store that forgets at once: three answers, and silence."""

    tiers, fetch_target, skipped_saves = (), None, 0

    def __init__(self, run, queue, prefetch):
        self.moved = []

    def lookup(self, session):
        return -1, 0

    arrived = lookup

    def save(self, session, size, now, spills):
        return -1, 0

    def __getattr__(self, call):
        return lambda *arguments: None


@pytest.mark.pure
def test_a_store_that_keeps_nothing():
    """A class of the test in the store's place: the run is the one without tiers, turn by turn."""
    settings = ["workload.sessions=60", "workload.arrival.rate_per_s=2", "store.ssd=0GB"]
    forgetful = simulate(config.load(None, settings), engine=partial(service.run_service, make_store=KeepsNothing))
    without = simulate(config.load(None, [*settings, "store.dram=0GB"]))
    assert forgetful.columns["cached_tokens"].sum() == 0 < simulate(config.load(None, settings)).columns["cached_tokens"].sum()
    for name in ("admitted_s", "first_token_s", "done_s"):
        assert forgetful.columns[name].tolist() == without.columns[name].tolist()
