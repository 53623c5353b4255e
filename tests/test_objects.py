"""A storage of objects below DRAM: who goes, what is found, and a server with one."""

import random

import pytest

from kvplan.sim import config
from kvplan.sim.config import ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks.objects import Objects

CONTEXTS, LONG = 20, 50


def context(number):
    return [(number, chunk) for chunk in range(LONG)]


def filled(room, contexts=CONTEXTS):
    """A storage to which contexts came one after the other, a minute each."""
    storage = Objects(room)
    for number in range(contexts):
        put = storage.store(context(number), LONG, 60.0 * number, 0)
        storage.arrive(put, 60.0 * number)
    return storage


def found(storage, number, start=0):
    return storage.reach(context(number), LONG, start)


def test_what_has_come_is_found_from_where_it_is_asked_for():
    storage = Objects(1000)
    put = storage.store(context(0), LONG, 0.0, 10)
    assert put.chunks == 40 and found(storage, 0, 10) == 10
    storage.arrive(put, 1.0)
    assert (found(storage, 0), found(storage, 0, 10), storage.reach(context(0), 30, 10)) == (0, LONG, 30)
    assert storage.store(context(0), LONG, 2.0, 10) is None
    again = storage.store(context(0), LONG, 2.0, 0)
    assert (again.start, again.chunks, storage.held, storage.dropped) == (0, 10, LONG, 0)


def test_nothing_goes_below_the_watermark_and_a_twentieth_above_it():
    assert filled(1100).held == 1000
    storage = filled(1050)
    assert 0.90 * 1050 <= storage.held <= 0.95 * 1050 and storage.dropped == 0


def test_of_many_contexts_some_chunk_goes():
    """A cache of contexts would give up one of the twenty."""
    storage = filled(1050)
    broken = [number for number in range(CONTEXTS) if found(storage, number) < LONG]
    assert len(broken) >= 5 and sum(broken) / len(broken) < CONTEXTS / 2


def test_what_was_asked_for_stays():
    asked, now = filled(1050, 19), 60.0 * 19
    for number in range(5):
        asked.ask(context(number), 0, LONG, now - 1)
    before = [found(asked, number) for number in range(5)]
    asked.store(context(19), LONG, now, 0)
    assert [found(asked, number) for number in range(5)] == before
    assert any(found(asked, number) < LONG for number in range(5, 19))


def test_what_has_no_room_is_dropped_and_not_waited_for():
    storage = Objects(30)
    put = storage.store(context(0), LONG, 0.0, 0)
    assert put.chunks == 30 and storage.dropped == 1 and storage.counted() == (30, 30)
    assert storage.store(context(1), LONG, 0.0, 0) is None and storage.dropped == 2


def test_it_never_holds_more_than_its_room():
    chance = random.Random(3)
    storage, ways = Objects(200), []
    for step in range(300):
        number, start = chance.randrange(40), chance.randrange(LONG)
        if (put := storage.store(context(number), LONG, float(step), start)) is not None:
            ways.append(put)
        while len(ways) > 3:
            storage.arrive(ways.pop(0), float(step))
        storage.ask(context(chance.randrange(40)), 0, LONG, float(step))
        if step % 50 == 49:
            storage.expire(20.0, float(step))
        held, room = storage.counted()
        assert held == storage.held <= room


# --- a server with one --------------------------------------------------------------------------------------------------------------

POOL = {"name": "pool", "size": "6GB", "read": "50GB/s", "write": "50GB/s", "latency": "0s", "price": "0USD/GB/h"}
SERVER = {
    "workload.sessions": 8,
    "workload.max_tokens": 4096,
    "workload.prompt_tokens": {"distribution": "constant", "value": 512},
    "workload.turns": {"distribution": "constant", "value": 7},
    "engine": "hicache",
    "store.unit": "block",
    "store.prefetch": "none",
    "store.hbm": "1MB",
    "store.dram": "2GB",
    "store.ssd": "0GB",
    "deployment.gpus": 1,
}


def served(**pool):
    return simulate(config.load("bench-mooncake-ssd", {**SERVER, "store.tiers": ["hbm", "dram", POOL | pool, "ssd"]})).summary


def test_a_storage_that_is_never_full_serves_what_a_cache_of_contexts_does():
    plain, objects = served(), served(objects=True)
    assert objects["hit_rate"] == plain["hit_rate"] and objects["token_hits"]["pool"] > 0
    assert objects["tiers"]["pool"]["peak_bytes"] == plain["tiers"]["pool"]["peak_bytes"]


def test_one_that_is_too_small_serves_less():
    plain, objects = served(size="3GB"), served(size="3GB", objects=True)
    assert 0 < objects["token_hits"]["pool"] < plain["token_hits"]["pool"]


@pytest.mark.parametrize(("size", "seed"), [("3GB", 2), ("2GB", 1)])
def test_nobody_waits_for_what_has_gone_since_the_turn_came(size, seed):
    """HiCache fetches ahead: a turn waits, and when its turn is there the storage has given up the rest."""
    tiers = ["hbm", "dram", POOL | {"objects": True, "size": size}, "ssd"]
    run = simulate(config.load("bench-mooncake-ssd", {**SERVER, "store.tiers": tiers, "store.prefetch": "wait-complete", "seed": seed}))
    assert run.summary["turns"] == 56


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"store.unit": "session"}, "pool is a storage of objects, which blocks in DRAM go on to"),
        (
            {"store.unit": "auto", "model": "gpt-oss-20b"},
            "only blocks go to .* has layers that attend to windows",
        ),
        ({"store.dram": "0GB"}, "pool is a storage of objects, which blocks in DRAM go on to"),
        ({"store.tiers": ["hbm", {"name": "dram", "objects": True}, "ssd"]}, "dram is no storage of objects"),
    ],
)
def test_where_nobody_would_put_any_it_is_refused(more, message):
    tiers = {"store.tiers": ["hbm", "dram", POOL | {"objects": True}, "ssd"]}
    with pytest.raises(ConfigError, match=message):
        resolve(config.load("bench-mooncake-ssd", {**SERVER, **tiers, **more}))


@pytest.mark.pure
def test_what_a_turn_wants_is_fetched_from_when_it_comes(monkeypatch):
    """Also of a turn that is sent as a step ends, and while others run."""
    from kvplan.sim.engine.blockfetch import Fetches
    from kvplan.sim.engine.offloading import Offloading

    wanted, brought = [], []
    want, bring = Fetches.want, Offloading.bring

    def wants(self, session, path, prompt, hit, now):
        want(self, session, path, prompt, hit, now)
        if self.to_come(session) and self.ends_s == float("inf"):
            wanted.append(now)

    def brings(self, path, tokens, most, now):
        brought.append(now)
        return bring(self, path, tokens, most, now)

    monkeypatch.setattr(Fetches, "want", wants)
    monkeypatch.setattr(Offloading, "bring", brings)
    tiers = ["hbm", "dram", POOL, "ssd"]
    simulate(config.load("bench-mooncake-ssd", {**SERVER, "store.dram": "1GB", "store.tiers": tiers, "store.prefetch": "wait-complete"}))
    assert len(wanted) > 10 and set(wanted) <= set(brought)
