"""Every invariant has a mutant that it kills: a defect put into the engine makes exactly that guard speak."""

from dataclasses import replace

import numpy as np
import pytest
from plant import slower_drives

from kvplan.sim import config
from kvplan.sim import simulation as run_module
from kvplan.sim.build_workload import build_workload
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import guards
from kvplan.sim.engine.arrivals import Arrivals
from kvplan.sim.engine.batch import Batch
from kvplan.sim.engine.blockkv import BlockKv
from kvplan.sim.engine.clients import Client, _Fifo, _Rounds
from kvplan.sim.engine.fitting import Fitting
from kvplan.sim.engine.gpu import Gpu
from kvplan.sim.engine.growing import GrowingBatch
from kvplan.sim.engine.link import Link
from kvplan.sim.engine.replica import Replica
from kvplan.sim.metrics.output import Books
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.policies.batching.chunked import Chunked
from kvplan.sim.policies.batching.prefill_first import PrefillFirst
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks.chunks import Chunks
from kvplan.sim.store.blocks.level import Level
from kvplan.sim.store.blocks.pool import Pool
from kvplan.sim.store.sessions import SessionStore
from kvplan.sim.store.tier import Tier
from kvplan.traces.workload import untimed

RUN = config.load(
    None,
    ["workload.sessions=60", "workload.arrival.rate_per_s=2.0", "workload.think_time.median_s=3", "store.dram=16GB", "store.ssd=40GB"],
)


def run():
    return simulate(RUN)


def expect(number: int):
    return pytest.raises(guards.GuardError, match=f"invariant {number}:")


def wrap(monkeypatch, owner, name, mutate):
    """Replaces a method by `mutate(original, self, *arguments)`."""
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, *a, **k: mutate(original, self, *a, **k))


def test_the_guards_are_on_and_the_engine_passes():
    assert guards.enabled()
    assert run().summary["turns"] > 200


@pytest.mark.pure
def test_1_a_tier_that_loses_bytes(monkeypatch):
    def lose(original, self, session, size, now, moved=False):
        original(self, session, size, now, moved)
        self.dropped -= 1

    wrap(monkeypatch, Tier, "cut", lose)
    with expect(1):
        run()


@pytest.mark.pure
def test_1_a_link_that_forgets_bytes(monkeypatch):
    def forget(original, self, ready, size):
        booked = original(self, ready, size)
        self.bytes -= 1
        return booked

    wrap(monkeypatch, Link, "book", forget)
    with expect(1):
        run()


@pytest.mark.pure
def test_2_a_store_that_takes_more_than_fits(monkeypatch):
    monkeypatch.setattr(SessionStore, "_make_room", lambda self, *arguments, **options: True)
    with expect(2):
        run()


@pytest.mark.pure
def test_2_an_hbm_tier_that_forgets_its_copies(monkeypatch):
    settings = config.load(None, ["model=deepseek-v3", "hardware=h200-x8", "prices=rent-2026", "store.hbm=40GB", "workload.sessions=150"])
    deployment = resolve(settings, build_workload(settings))
    hbm = replace(deployment.tiers[0], capacity=40 * 10**9, reserve=4 * 10**9)
    monkeypatch.setattr(run_module, "servable", lambda *_: replace(deployment, tiers=(hbm, *deployment.tiers[1:])))
    with expect(2):
        simulate(settings)


@pytest.mark.pure
def test_2_an_hbm_that_is_never_full(monkeypatch):
    def ignore(original, self, turn):
        job = original(self, turn)
        job.hbm_bytes = 0
        return job

    wrap(monkeypatch, Fitting, "job", ignore)
    with expect(2):
        run()


@pytest.mark.pure
def test_3_a_turn_that_is_lost(monkeypatch):
    def lose(original, self, turn, now):
        if turn != 17:
            original(self, turn, now)

    wrap(monkeypatch, Arrivals, "ended", lose)
    with expect(3):
        run()


@pytest.mark.pure
def test_3_a_turn_that_arrives_twice(monkeypatch):
    def twice(original, self, turn):
        original(self, turn)
        if turn == 5:
            original(self, turn)

    wrap(monkeypatch, Replica, "arrive", twice)
    with expect(3):
        run()


@pytest.mark.pure
def test_3_a_job_that_is_held_for_kv_that_is_lost(monkeypatch):
    settings = ["workload.sessions=80", "workload.arrival.rate_per_s=2.0", "store.dram=12GB", "store.ssd=30GB", "store.eviction=lru"]
    settings += ["workload.think_time.median_s=3", "store.prefetch=wait-complete"]
    simulate(config.load(None, settings))
    monkeypatch.setattr(Replica, "_kv_moved", lambda self, session, at_s: None)
    with expect(3):
        simulate(config.load(None, settings))


@pytest.mark.pure
def test_4_turns_that_overlap(monkeypatch):
    def early(original, self, turn, now, replica):
        original(self, turn, now, replica)
        self.done_s[turn] = now + 60.0

    wrap(monkeypatch, Recorder, "done", early)
    with expect(4):
        run()


@pytest.mark.pure
def test_5_a_link_faster_than_itself(monkeypatch):
    def halve(original, self, ready, size):
        start, end = original(self, ready, size)
        return start, start + (end - start) / 2

    wrap(monkeypatch, Link, "preview", halve)
    with expect(5):
        run()


@pytest.mark.pure
def test_5_a_transfer_that_overtakes(monkeypatch):
    def overtake(original, self, ready, size):
        start, end = original(self, ready, size)
        return start - 1.0, end

    wrap(monkeypatch, Link, "preview", overtake)
    with expect(5):
        run()


@pytest.mark.pure
def test_9_steps_that_the_warm_up_cuts_count_whole(monkeypatch):
    settings = config.load(None, ["deployment.replicas=2", "warmup_turns=1"])
    table = untimed([0, 1, 2], [100, 500, 100], [400, 3000, 3000]).with_times(np.array([0.0, 0.0, 0.1]), np.zeros(3))
    simulate(settings, table)

    def whole(original, self, now):
        return {name: getattr(self, name) for name in original(self, now)}

    wrap(monkeypatch, Gpu, "spent", whole)
    with expect(9):
        simulate(settings, table)


@pytest.mark.pure
def test_5_transfers_that_count_when_they_are_booked(monkeypatch):
    settings = config.load(None, ["workload.sessions=40", "store.dram=0GB", "store.ssd=200GB", "store.write_buffer=100GB"])
    slow = slower_drives(resolve(settings, build_workload(settings)), 5e6)
    monkeypatch.setattr(run_module, "servable", lambda *_: slow)
    simulate(settings)
    monkeypatch.setattr(Link, "done", lambda self, now: (self.bytes, self.busy_s))
    with expect(5):
        simulate(settings)


@pytest.mark.pure
@pytest.mark.parametrize("tokens", [-1, 1])
def test_6_a_hit_of_another_size(monkeypatch, tokens):
    def other(original, self, session, *asked):
        home, size = original(self, session, *asked)
        return home, size + tokens * 819_200 if size else 0

    wrap(monkeypatch, SessionStore, "claim", other)
    with expect(6):
        run()


@pytest.mark.pure
def test_6_a_cache_that_survives_truncation_whole(monkeypatch):
    monkeypatch.setattr(SessionStore, "keep_only", lambda self, session, now, useful: None)
    with expect(6):
        run()


@pytest.mark.pure
def test_6_a_store_that_throws_sessions_away(monkeypatch):
    def forget(original, self, session, *asked):
        found = original(self, session, *asked)
        return (-1, 0) if session % 3 == 0 else found

    wrap(monkeypatch, SessionStore, "claim", forget)
    with expect(6):
        run()


@pytest.mark.pure
def test_6_a_store_that_evicts_though_there_is_room(monkeypatch):
    def evict(original, self, session, now):
        original(self, session, now)
        home, _ = self.lookup(session)
        if session % 3 == 0 and home >= 0:
            self._evict(self.tiers[home], self._records[session], 1, now)

    wrap(monkeypatch, SessionStore, "release", evict)
    with expect(6):
        run()


@pytest.mark.pure
def test_6_a_store_that_skips_saves_though_there_is_room(monkeypatch):
    def skip(original, self, session, size, now, spills):
        return (-1, 0) if session % 3 == 0 else original(self, session, size, now, spills)

    wrap(monkeypatch, SessionStore, "save", skip)
    with expect(6):
        run()


@pytest.mark.pure
def test_6_a_ttl_that_counts_from_the_turn_before(monkeypatch):
    def come(original, self, session, now, *useful):
        before = self._records[session].released_s
        original(self, session, now, *useful)
        self._records[session].released_s = before

    wrap(monkeypatch, SessionStore, "come", come)
    with expect(6):
        simulate(config.load(None, ["workload.sessions=60", "workload.think_time.median_s=3", "store.ttl_s=10"]))


@pytest.mark.pure
def test_7_a_queue_that_forgets_its_times(monkeypatch):
    def backdate(original, self, job, tier, overflow, now):
        original(self, job, tier, overflow, now)
        self.admitted_s[job.turn] = max(self.arrival_s[job.turn], now - 0.5)

    wrap(monkeypatch, Recorder, "entered", backdate)
    with expect(7):
        run()


@pytest.mark.pure
def test_8_busy_time_that_is_not_counted(monkeypatch):
    def forget(original, self, now, steps, end):
        self.decode_s *= 0.99
        original(self, now, steps, end)

    wrap(monkeypatch, Gpu, "decode", forget)
    with expect(8):
        run()


@pytest.mark.pure
def test_8_a_token_that_is_prefilled_twice(monkeypatch):
    wrap(monkeypatch, Batch, "prefilled", lambda original, self, job, tokens: original(self, job, max(1, tokens - 1)))
    with expect(8):
        run()


@pytest.mark.pure
def test_2_more_jobs_than_places(monkeypatch):
    def crowd(original, self, now):
        self.batch.most += 1
        original(self, now)
        self.batch.most -= 1

    wrap(monkeypatch, Replica, "_dispatch", crowd)
    with expect(2):
        simulate(config.load(RUN, ["deployment.max_batch=2"]))


PRESSED = ("workload.sessions=20", "deployment.window_tokens=1600", "deployment.hbm_utilization=0.164", "deployment.step_tokens=200")
KEPT = {
    "sessions": ("store.load_mode=asynchronous", "store.load=always", "deployment.max_batch=3"),
    "blocks": ("store.unit=block", "store.dram=2GB", "store.ssd=0GB"),
}


def pressed(kept: str, *overrides: str):
    """Jobs outgrow HBM, and some give way."""
    return simulate(config.load(RUN, ["batching=chunked", *PRESSED, *KEPT[kept], *overrides]))


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("batching", ["chunked", "prefill-first"])
def test_the_guards_pass_where_jobs_give_way(kept, batching):
    found = pressed(kept, f"batching={batching}").summary
    assert found["preemptions"] and found["turns"] > 50


@pytest.mark.pure
@pytest.mark.parametrize("policy", [Chunked, PrefillFirst])
def test_2_a_step_of_more_tokens_than_its_budget(monkeypatch, policy):
    def stuff(original, self, batch):
        self.tokens += 1
        found = original(self, batch)
        self.tokens -= 1
        return found

    wrap(monkeypatch, policy, "step", stuff)
    with expect(2):
        pressed("sessions", f"batching={policy.NAME}")


@pytest.mark.pure
def test_2_loaded_jobs_that_take_places_of_others(monkeypatch):
    def push(original, self):
        while self.batch.loaded:
            self.batch.resume()

    wrap(monkeypatch, Replica, "_resume", push)
    with expect(2):
        pressed("sessions")


@pytest.mark.pure
def test_2_jobs_that_never_give_way(monkeypatch):
    monkeypatch.setattr(GrowingBatch, "is_short", False)
    with expect(2):
        pressed("sessions")


@pytest.mark.pure
@pytest.mark.parametrize("kept", KEPT)
def test_8_a_job_that_gave_way_and_is_not_computed_again(monkeypatch, kept):
    def remember(original, self, job, now):
        original(self, job, now)
        job.new = job.left = 1

    wrap(monkeypatch, Replica, "_start_again", remember)
    with expect(8):
        pressed(kept)


@pytest.mark.pure
def test_1_a_pool_that_is_given_all_blocks_of_who_gives_way(monkeypatch):
    """Those that others have, too."""
    wrap(
        monkeypatch,
        BlockKv,
        "gives_back",
        lambda original, self, job, tokens, held, now: original(self, job, tokens, held, now) + self.block_bytes,
    )
    with expect(1):
        pressed("blocks")


@pytest.mark.pure
def test_1_a_pool_that_loses_the_blocks_that_answers_grow_into(monkeypatch):
    wrap(monkeypatch, Pool, "grow", lambda original, self, blocks: original(self, max(0, blocks - 1)))
    with expect(1):
        pressed("blocks")


@pytest.mark.pure
def test_1_a_job_that_gives_back_what_it_never_had(monkeypatch):
    wrap(monkeypatch, BlockKv, "_leaves", lambda original, self, *job: original(self, *job) + self.hbm_bytes)
    with expect(1):
        pressed("blocks")


@pytest.mark.pure
def test_2_a_pool_above_its_hbm(monkeypatch):
    wrap(monkeypatch, Level, "hold", lambda original, self, size, now: original(self, size + self.capacity * self.spec.on_device, now))
    with expect(2):
        pressed("blocks")


@pytest.mark.pure
def test_2_chunks_above_their_tier(monkeypatch):
    wrap(monkeypatch, Chunks, "__init__", lambda original, self, usable, threshold: original(self, 9 * usable, threshold))
    with expect(2):
        pressed("blocks")


@pytest.mark.pure
def test_6_a_block_that_nobody_has_computed(monkeypatch):
    def find_more(original, self, *request):
        use = original(self, *request)
        use.hit += 1
        return use

    wrap(monkeypatch, Pool, "begin", find_more)
    with expect(6):
        pressed("blocks")


@pytest.mark.pure
def test_off_for_users(monkeypatch):
    monkeypatch.setenv("KVPLAN_GUARDS", "0")
    monkeypatch.setattr(SessionStore, "keep_only", lambda self, session, now, useful: None)
    run()


@pytest.mark.pure
def test_9_a_share_above_one(monkeypatch):
    def twice(original, self, turn, now, replica):
        original(self, turn, now, replica)
        if self.completed == self.turns - 5:
            self._warm_s, self._warm = now, tuple(Books({}, {}) for _ in self.replicas)

    wrap(monkeypatch, Recorder, "done", twice)
    with expect(9):
        run()


def test_a_warm_up_that_leaves_less_than_a_turn_is_warned_of(workload):
    together = workload([[(200, 50)], [(200, 400)]])
    last = simulate(RUN.model_copy(update={"warmup_turns": 1}), together).summary
    assert any("less than a turn" in warning for warning in last["warnings"]) and 0 <= last["gpu"]["utilization"] <= 1
    assert not any("less than a turn" in warning for warning in run().summary["warnings"])


@pytest.mark.parametrize("start_s", [1e7, 9e7])
def test_late_times_keep_their_precision(workload, start_s):
    sessions = [[(200, 50), (100, 40)]] * 20
    early, late = (simulate(RUN, workload(sessions, np.arange(20) * 0.7 + start)).summary for start in (0.0, start_s))
    for key in ("ttft_s", "tpot_s", "e2e_s"):
        assert late[key]["mean"] == pytest.approx(early[key]["mean"], rel=1e-4)
    assert late["makespan_s"] == pytest.approx(early["makespan_s"], rel=1e-6)


def test_times_past_3_years_are_refused(workload):
    with pytest.raises(config.ConfigError, match="precision of times"):
        simulate(RUN, workload([[(200, 50)]], [1.7e9]))


CLIENTS = config.load(RUN, ["workload.clients.outstanding=3", "workload.sessions=30"])


def clients(*overrides: str):
    return simulate(config.load(CLIENTS, [f"workload.clients.{setting}" for setting in overrides]))


def test_10_the_client_passes():
    assert clients("barrier=true", "rate_per_s=20", "pause_s=2").summary["client_wait_s"]["mean"] > 0


@pytest.mark.pure
def test_10_a_client_that_sends_too_many(monkeypatch):
    def greedy(original, self, *arguments):
        original(self, *arguments)
        self._free += 1

    wrap(monkeypatch, Client, "__init__", greedy)
    with expect(10):
        clients()


@pytest.mark.pure
def test_10_a_client_that_opens_too_many_sessions(monkeypatch):
    def twice(original, self, now):
        original(self, now)
        original(self, now)

    wrap(monkeypatch, Client, "_open_next", twice)
    with expect(10):
        clients("active=2")


@pytest.mark.pure
@pytest.mark.parametrize("setting", ["pause_s=5", "rate_per_s=2"])
def test_10_a_client_in_a_hurry(monkeypatch, setting):
    def hurry(original, self, *arguments):
        original(self, *arguments)
        self._pause_s, self._interval_s = self._pause_s / 2, self._interval_s / 2

    wrap(monkeypatch, Client, "__init__", hurry)
    with expect(10):
        clients(setting)


@pytest.mark.pure
def test_10_a_client_that_sends_the_last_first(monkeypatch):
    def last_first(original, self):
        original(self)
        self.pop = self._turns.pop

    wrap(monkeypatch, _Fifo, "__init__", last_first)
    with expect(10):
        clients()


@pytest.mark.pure
def test_10_rounds_that_do_not_wait(monkeypatch):
    monkeypatch.setattr(_Rounds, "ended", lambda self, following: following)
    with expect(10):
        clients("barrier=true")


@pytest.mark.pure
def test_10_a_client_that_holds_turns_back(monkeypatch):
    def lazy(original, self, now):
        if now > 0 and self._free == 1 and not self._waits_for_pace:
            self._earliest_s = now + 0.5
        original(self, now)

    wrap(monkeypatch, Client, "_send", lazy)
    with expect(10):
        clients()
