"""The package in either form, as it is installed: pure Python, or with what runs for every turn compiled. Tests marked `pure` are
skipped in the compiled one; `tests/unchanged` says that both give the same bytes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from kvplan.hwmodels.footprint import Checkpoint, Footprint
from kvplan.hwmodels.steptime import StepTime, Window
from kvplan.sim import provenance
from kvplan.sim.engine import replica
from kvplan.sim.policies import base
from kvplan.sim.policies.registry import policies
from kvplan.sim.store import sessions
from kvplan.sim.store.blocks import runs
from kvplan.traces.blockkeys import Answered, Parts, Written

OWN = """from collections import OrderedDict

from kvplan.sim.policies.base import Eviction, Scheduler, View
from kvplan.sim.policies.eviction.lru import Lru


class Oldest(Eviction):
    NAME = "oldest"

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self.order = OrderedDict()

    def insert(self, session):
        self.order[session] = self.view.size(session)

    def remove(self, session):
        del self.order[session]

    def restore(self, session):
        self.order[session] = None
        self.order.move_to_end(session, last=False)

    def victim(self):
        return next(iter(self.order), None)

    def use(self, session):
        self.order.move_to_end(session)


class Same(Lru):
    NAME = "same"

    def use(self, session):
        super().use(session)


class Queue(Scheduler):
    def __init__(self, view):
        super().__init__(view)
        self.turns, self.pushed = [], 0

    def push(self, turn):
        self.turns.append(turn)
        self.pushed += 1
        return self.pushed

    def head(self):
        return self.turns[0] if self.turns else None

    def pop(self):
        return self.turns.pop(0)

    def position_at(self, index):
        return self.pushed - len(self.turns) + 1 + index if index < len(self.turns) else None

    def __len__(self):
        return len(self.turns)
"""


def test_a_users_own_policies_are_interpreted_and_do_as_those_of_kvplan(small, tmp_path):
    from kvplan.sim.simulation import simulate

    file = tmp_path / "own.py"
    file.write_text(OWN)
    pressed = ("store.dram=8GB", "store.ssd=20GB", "workload.arrival.rate_per_s=2.0")
    done_s = simulate(small(*pressed, "store.eviction=lru")).columns["done_s"].tolist()
    for own in (f"store.eviction={file}:Oldest", f"store.eviction={file}:Same"):
        assert simulate(small(*pressed, own)).columns["done_s"].tolist() == done_s
    assert simulate(small(*pressed, "store.eviction=lru", f"scheduler={file}:Queue")).columns["done_s"].tolist() == done_s


def test_all_of_it_is_compiled_or_nothing():
    lru = sys.modules[policies("eviction")["lru"].__module__]
    is_source = {Path(str(module.__file__)).suffix == ".py" for module in (base, lru, replica, runs, sessions)}
    assert is_source == {provenance.form() == "pure Python"}


@pytest.mark.parametrize("kept", [Footprint(10), Checkpoint(10, ((128, 5),), 7)])
def test_bytes_of_an_array_are_those_of_its_numbers(kept):
    """Plans ask with columns and with means, which a compiler would have be whole numbers."""
    tokens = [1, 200, 3000]
    assert kept.of(np.array(tokens)).tolist() == [kept.of(each) for each in tokens]
    assert kept.window_reads(np.array(tokens), np.array(tokens)).tolist() == [kept.window_reads(each, each) for each in tokens]
    assert kept.window_reads(2.5, 0.5) >= 0 and kept.of(2.5) >= 25


def test_steps_are_asked_with_means_too():
    """`explain` does, which a compiler would have be whole numbers."""
    steps = StepTime(2, 1e-3, 1e-5, 1e-9, 1e-8, 1e-7, windows=(Window(8, 1e-9, 1e-8),), experts=1e-3, spared=0.9)
    assert steps.prefill(10, 3) < steps.prefill(10.5, 3.5) < steps.prefill(11, 4)
    assert steps.decode(4, 9) < steps.decode(4, 9.5) < steps.decode(4.5, 10)


def test_keys_of_blocks_are_asked_one_by_one_or_gone_through():
    written = Written(0, [8, 14], [3, 5], 3, 4)
    answered = Answered([7, 8], 2, written)
    assert [answered[block] for block in range(3)] == list(answered) == [7, 8, written[2]]
    assert list(Parts([5, 6], 2)) == [10, 11, 12, 13]
    with pytest.raises(IndexError):
        written[3]


def test_a_step_of_several_prompts_knows_windows():
    steps = StepTime(2, 1e-3, 1e-5, 1e-9, 1e-9, 1e-9, windows=(Window(128, 1e-9, 1e-9),))
    assert steps.step([(100, 20)]) == pytest.approx(steps.prefill(100, 20))
    assert steps.step([(100, 20)]) < steps.step([(100, 20), (30, 0)], 3, 400, 50)
