"""What the seams promise: a new part is one file outside the project, and touches none of it."""

from kvplan.sim import config
from kvplan.sim.simulation import simulate

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
