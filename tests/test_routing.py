"""Routers: where turns go, and what a session's KV is worth on the replicas that it has left."""

from dataclasses import replace

import numpy as np
import pytest

from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.deployment import resolve
from kvplan.sim.planner.question import Question
from kvplan.sim.policies.base import Router
from kvplan.sim.policies.supervise import PolicyError
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.compare import Question as Sweep
from kvplan.sim.sweep.curve import prepare_curves
from kvplan.validate.checks import reference

TWO = ["deployment.replicas=2", "warmup_turns=0", "store.ssd=0GB", "store.load=always", "store.prefetch=none", "store.eviction=lru"]
LEAST_LOADED = [*TWO, "router=least-loaded"]


class TakingTurns(Router):
    NAME = "taking-turns"
    routed = -1

    def route(self, session, turn):
        self.routed += 1
        return self.routed % self.view.replicas


def columns(table, *overrides, router="test_routing:TakingTurns"):
    return simulate(config.load(None, [*TWO, f"router={router}", *overrides]), table).columns


def cached(table, *overrides):
    return columns(table, *overrides)["cached_tokens"].tolist()


# --- where turns go -----------------------------------------------------------------------------------------------------------------


def test_by_session_deals_sessions_out_evenly(workload):
    found = columns(workload([[(100, 10)] * 2] * 5), "deployment.replicas=3", router="session")
    assert found["replica"].tolist() == [0, 0, 1, 1, 2, 2, 0, 0, 1, 1]
    assert found["cached_tokens"].tolist() == [0, 110] * 5


def test_least_loaded_counts_who_waits_and_who_runs(workload):
    """The second runs for longest. The fourth finds one turn on either; when the last comes, the second alone is left."""
    table = workload([[(100, 10)], [(100, 900)], [(100, 10)], [(100, 10)], [(100, 10)]], arrivals=[0, 0, 0.001, 3, 9])
    assert columns(table, router="least-loaded")["replica"].tolist() == [0, 1, 0, 0, 0]
    crowd = workload([[(100, 10)]] * 7)
    assert columns(crowd, "deployment.max_batch=1", router="least-loaded")["replica"].tolist() == [0, 1, 0, 1, 0, 1, 0]


SEEN = []


class SeesAll(Router):
    NAME = "sees-all"

    def route(self, session, turn):
        view = self.view
        each = [(view.waiting(one), view.running(one), view.cached_tokens(one, session)) for one in range(view.replicas)]
        SEEN.append((view.now_s(), view.history_tokens(session), view.new_tokens(turn), each, view.hbm_bytes(0)))
        return 1


def test_what_a_router_sees(workload):
    SEEN.clear()
    columns(workload([[(100, 10), (50, 10)]], gap_s=30.0), router="test_routing:SeesAll")
    first, second = SEEN
    assert first == (0.0, 0, 100, [(0, 0, 0), (0, 0, 0)], 0)
    assert second[0] > 30 and second[1:] == (110, 50, [(0, 0, 0), (0, 0, 110)], 0)


# --- KV that a session has left on other replicas -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("positions", "found"), [("decoupled", [0, 0, 55, 165, 275]), ("embedded", [0, 0, 0, 0, 275])])
def test_what_truncation_cuts_off_leaves_all_replicas(workload, positions, found):
    """The third turn has 220 tokens behind it, of which the oldest 55 must go; the first replica has 110 of them, the second all."""
    table = workload([[(100, 10), (100, 10), (100, 10), (10, 5), (5, 2)]])
    window = ("deployment.window_tokens=300", "deployment.truncation_ratio=0.25", f"store.positions={positions}")
    assert cached(table, *window) == found


def test_what_a_turn_drops_is_dropped_on_all_replicas(workload):
    table = replace(workload([[(100, 10)] * 4]), dropped_tokens=np.array([0, 0, 150, 0]))
    assert cached(table) == [0, 0, 70, 70]


@pytest.mark.parametrize(("ttl_s", "found"), [(100, [0, 0, 110, 220]), (50, [0, 0, 0, 0])])
def test_a_turn_elsewhere_does_not_end_idle_time(workload, ttl_s, found):
    assert cached(workload([[(100, 10)] * 4], gap_s=30.0), f"store.ttl_s={ttl_s}") == found


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("router", ["least-loaded", "test_routing:TakingTurns"])
def test_tight_tiers_hold_under_guards_where_sessions_do_not_stay(small, seed, router):
    tight = ["deployment.replicas=3", "deployment.window_tokens=1500", "workload.arrival.rate_per_s=4", "store.dram=3GB", "store.ssd=9GB"]
    mixed = [f"store.positions={'embedded' if seed % 2 else 'decoupled'}", f"store.load={('always', 'faster', 'cake')[seed % 3]}"]
    more = [f"seed={seed}", f"store.ttl_s={30 if seed > 2 else 'null'}", f"store.hbm={3 * (seed % 2)}GB", "store.write=through"]
    result = simulate(small(*tight, *mixed, *more, f"router={router}"))
    assert (result.columns["order"] >= 0).all() and len(np.unique(result.columns["replica"])) == 3
    assert result.summary["hit_rate"]["tokens"] > 0


# --- who must say no ------------------------------------------------------------------------------------------------------------------


class Wanders(TakingTurns):
    STICKY = True


class Nowhere(TakingTurns):
    def route(self, session, turn):
        return self.view.replicas


class Peeks(Router):
    NAME = "peeks"
    STICKY = FIXED = True

    def route(self, session, turn):
        return self.view.waiting(0)


class FixedAndNotSticky(TakingTurns):
    FIXED = True


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (Wanders, r"route\(0, 1\) answered 1, but the session is on 0, and the policy sets STICKY"),
        (Nowhere, r"route\(0, 0\) answered 2, but replicas are whole numbers from 0 to 1"),
        (Peeks, "may ask for the number of replicas"),
        (FixedAndNotSticky, "sets FIXED and not STICKY"),
    ],
)
def test_a_router_that_is_wrong_is_named(workload, router, message):
    with pytest.raises(PolicyError, match=message):
        columns(workload([[(100, 10)] * 3]), router=f"test_routing:{router.__name__}")


@pytest.mark.parametrize("setting", ["store.eviction=belady", "store.prefetch=hint"])
def test_policies_that_foresee_need_sessions_that_stay(workload, setting):
    with pytest.raises(config.ConfigError, match=f"{setting} .*, and router=least-loaded may send it to another"):
        columns(workload([[(100, 10)]]), setting, "store.ssd=1TB", router="least-loaded")


def test_what_must_know_the_replica_without_a_run_refuses(workload):
    settings, table = config.load(None, LEAST_LOADED), workload([[(100, 10)] * 2] * 3)
    with pytest.raises(config.ConfigError, match="router=least-loaded decides that turn by turn"):
        explain(settings, resolve(settings, table), table)
    with pytest.raises(config.ConfigError, match="the reference does not know routers other than session"):
        simulate(settings, table, engine=reference.run_reference)
    with pytest.raises(config.ConfigError, match="a curve is worked out replica by replica, and router=least-loaded"):
        prepare_curves(Sweep(overrides=tuple(LEAST_LOADED)), "dram", ["8GB"], ["lru"], lambda _: table)
    with pytest.raises(config.ConfigError, match="a plan simulates one replica"):
        Question(overrides=("router=least-loaded",)).config()


def test_one_replica_leaves_nothing_to_choose(workload):
    table = workload([[(100, 10)] * 2] * 3)
    settings = config.load(None, ["deployment.replicas=1", "router=least-loaded"])
    assert explain(settings, resolve(settings, table), table)["served"]
