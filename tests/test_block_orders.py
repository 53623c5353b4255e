"""Chunks that leave a tier in the order of a policy of sessions (`sim/store/blocks/ordered.py`), held against chunks one by one."""

import gc
from collections import defaultdict
from functools import partial
from random import Random

import pytest
from test_blockengine import CHUNK, CHUNKS, SERVER, requests, served

from kvplan.sim.config import load
from kvplan.sim.engine import guards
from kvplan.sim.keptunit import unit_of
from kvplan.sim.policies.eviction.lru import Lru
from kvplan.sim.policies.registry import find, policies
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks.chunks import Chunks
from kvplan.sim.store.blocks.level import Level
from kvplan.sim.store.blocks.ordered import ChunkView, OrderedChunks, Orders
from kvplan.sim.store.blocks.runs import Run
from kvplan.sim.store.view import Knowledge
from kvplan.sim.tiers import TierSpec

ROOM = 40
TTL_S = 11.0
CLOCKED = [name for name, policy in policies("eviction").items() if not policy.NEEDS and not policy.MAY_REFUSE]
"""Those that go by no more than a tier and the time."""


class Path(list):
    """A context of a session."""

    def __init__(self, session, keys):
        super().__init__(keys)
        self.session = session


class Time(Knowledge):
    now = 0.0

    def now_s(self):
        return self.now


class Literal:
    """The same chunk by chunk: whose each is, since when, and what it goes on from."""

    def __init__(self, eviction, view):
        self.there, self.goes_on_from, self.next, self.of_nobody, self.known, self.aside = {}, {}, [], set(), set(), False
        self.held, self.before = [], {}
        view.size_of = lambda session: self.before.get(session, len(self.of(session)))
        self.eviction = eviction(view)

    def of(self, session):
        others = {*self.next, *self.of_nobody, *self.held}
        return [key for key, (owner, _) in self.there.items() if owner == session and key not in others]

    def in_order(self, keys):
        return sorted(keys, key=lambda key: (self.there[key][1], -key[-1]))

    def is_gone_on_from(self, key):
        return any(self.goes_on_from[each] == key for each in self.there)

    def reach(self, path):
        return next((place for place, key in enumerate(path) if key not in self.there), len(path))

    def expire(self, now):
        for key in self.in_order(self.there):
            owner, since = self.there[key]
            if since + TTL_S < now:
                is_last = self.of(owner) == [key]
                self.leaves(key)
                if is_last:
                    self.known.remove(owner)
                    self.eviction.remove(owner)

    def passes(self, path, now):
        """A turn takes no time."""
        me = path.session
        self.before = {me: len(self.of(me))}
        self.held = path[: self.reach(path)]
        self.next = [key for key in self.next if key not in self.held]
        self.of_nobody -= set(self.held)
        while len(self.there) + len(path) - len(self.held) > ROOM:
            self.evict(me)
        self.held, self.before = [], {}
        for before, key in zip([None, *path], path, strict=False):
            self.there[key], self.goes_on_from[key] = (me, now), before
        self.next += self.in_order(key for key in self.of(me) if self.there[key][1] < now)
        if self.aside:
            self.eviction.restore(me)
        if me in self.known:
            self.eviction.use(me)
        else:
            self.eviction.insert(me)
        self.known.add(me)
        self.aside = False

    def evict(self, me):
        """One chunk goes, or one is found to be of nobody."""
        if self.next:
            self.goes(self.next.pop(0))
        else:
            while (victim := self.eviction.victim()) == me:
                self.eviction.set_aside(me)
                self.aside = True
            victim = me if victim is None else victim
            keys = self.in_order(self.of(victim))
            if keys:
                self.goes(keys[0])
            if len(keys) < 2:
                self.known.remove(victim)
                self.eviction.remove(victim)

    def goes(self, key):
        if self.is_gone_on_from(key):
            self.of_nobody.add(key)
        else:
            self.leaves(key)

    def leaves(self, key):
        del self.there[key]
        self.of_nobody.discard(key)
        self.next = [each for each in self.next if each != key]
        before = self.goes_on_from.pop(key)
        if before in self.of_nobody and not self.is_gone_on_from(before):
            self.of_nobody.remove(before)
            self.next.insert(0, before)


def view(knowledge=None):
    return ChunkView("dram", ROOM, True, 1, knowledge or Knowledge(), {})


def passes(tier, path, now):
    tier.passes(path, len(path), now)


def turns(seed, cuts):
    """Contexts of 12 sessions that begin alike and grow, and are cut now and then."""
    draw = Random(seed)
    sessions, begun, lengths, parts = list(range(12)), 12, defaultdict(int), defaultdict(int)
    for _ in range(1500):
        place = draw.randrange(12)
        session = sessions[place]
        if lengths[session] > 18:
            session = sessions[place] = begun
            begun += 1
        if cuts and draw.random() < 0.1:
            parts[session], lengths[session] = parts[session] + 1, 0
        lengths[session] += draw.randrange(1, 4)
        begins = () if parts[session] else tuple(("all", each) for each in range(2))
        keys = [*begins, *((session, parts[session], each) for each in range(len(begins), lengths[session]))]
        yield Path(session, keys[: lengths[session]])


def forks(seed):
    """Contexts that go on from any place of another's, and of their own."""
    draw, contexts = Random(seed), {}
    for turn in range(800):
        session = draw.randrange(12) + 12 * (turn // 200)
        keys = contexts.get(session, [])
        if not keys or len(keys) > 18:
            keys = draw.choice(list(contexts.values())) if contexts and draw.random() < 0.6 else []
            keys = keys[: draw.randrange(len(keys) + 1)]
        elif draw.random() < 0.15:
            keys = keys[: draw.randrange(len(keys))]
        contexts[session] = keys = keys + [(turn, len(keys) + each) for each in range(draw.randrange(1, 4))]
        yield Path(session, keys)


@pytest.mark.parametrize("seed", range(4))
def test_lru_of_sessions_that_only_grow_is_the_engines_order(seed):
    own, ordered = Chunks(ROOM), OrderedChunks(ROOM, 1, Lru, view())
    for now, path in enumerate(turns(seed, cuts=False)):
        assert own.reach(path, len(path)) == ordered.reach(path, len(path))
        passes(own, path, float(now))
        passes(ordered, path, float(now))
        assert own.held == ordered.held == sum(own._runs.counted())


@pytest.mark.parametrize("ages", [False, True])
@pytest.mark.parametrize("contexts", [partial(turns, cuts=False), partial(turns, cuts=True), forks])
@pytest.mark.parametrize("name", CLOCKED)
def test_chunks_leave_as_if_each_were_looked_at(name, contexts, ages):
    for seed in range(2):
        tier, literal = OrderedChunks(ROOM, 1, find("eviction", name), view(), ages), Literal(find("eviction", name), view())
        hits = 0
        for now, path in enumerate(contexts(seed)):
            if ages:
                tier.expire(TTL_S, float(now))
                literal.expire(now)
            found = tier.reach(path, len(path))
            assert found == literal.reach(path), now
            hits += found
            passes(tier, path, float(now))
            literal.passes(path, float(now))
        assert hits


def test_what_was_cut_and_joined_is_not_kept():
    class Begun(Path):
        """Of this test alone."""

    tier = Chunks(ROOM)
    for turn in range(200):
        session = turn % 5
        passes(tier, Begun(session, [*(("all", each) for each in range(4)), *((session, each) for each in range(4, 8))]), float(turn))
    gc.collect()
    assert sum(type(each) is Run and isinstance(each.path, Begun) for each in gc.get_objects()) < 20


def stored(tier, session, chunks, now):
    path = Path(session, [(session, each) for each in range(chunks)])
    passes(tier, path, now)
    return path


def test_who_waits_stays_where_the_policy_looks_at_the_queue():
    orders = Orders(find("eviction", "lookahead"), Knowledge())
    tier = orders.chunks(Level(TierSpec("dram", 6, 0)), True, 1, 1)
    oldest, newer = stored(tier, 1, 3, 1.0), stored(tier, 2, 3, 2.0)
    orders.waits(1, 7.0)
    tier.expect(1)
    stored(tier, 3, 2, 3.0)
    assert (tier.reach(oldest, 3), tier.reach(newer, 3)) == (3, 1), "tail before head"


def test_chunks_of_who_runs_go_when_nobody_else_has_any():
    tier = OrderedChunks(6, 1, Lru, view())
    runs, idle = stored(tier, 1, 3, 1.0), stored(tier, 2, 3, 2.0)
    tier.claim(1)
    stored(tier, 3, 3, 3.0)
    assert (tier.reach(runs, 3), tier.reach(idle, 3)) == (3, 0)
    stored(tier, 3, 5, 4.0)
    assert tier.reach(runs, 3) == 1


def test_what_a_policy_will_not_give_up_stays_and_what_is_offered_is_dropped():
    time = Time()
    tier = OrderedChunks(6, 1, find("eviction", "ttl"), view(time))
    kept = stored(tier, 1, 5, 1.0)
    other = stored(tier, 2, 3, 2.0)
    assert (tier.reach(kept, 5), tier.reach(other, 3), tier.dropped) == (5, 0, 1)
    time.now = 400.0
    stored(tier, 2, 3, 400.0)
    assert (tier.reach(kept, 5), tier.reach(other, 3), tier.dropped) == (3, 3, 1)


TIGHT = [f"store.dram={12 * CHUNK}B", f"store.ssd={60 * CHUNK}B"]


@pytest.mark.parametrize("name", policies("eviction"))
def test_every_policy_orders_blocks(monkeypatch, small, name):
    """Under guards, in a server whose tiers are short of room."""
    monkeypatch.setattr(guards, "_FULL_CHECK_EVERY", 1)
    tiers = ["store.hbm=1GB", "store.dram=4GB", "store.ssd=8GB", "workload.sessions=40", "workload.applications.count=2"]
    run = simulate(small(*SERVER, *tiers, "store.load=always", f"store.eviction={name}"))
    assert run.summary["token_hits"]["dram"] > 0.02 and run.summary["tiers"]["ssd"]["peak_bytes"] > 7.9e9
    assert not [each for each in run.summary["warnings"] if "reads it" in each]


def test_what_a_tier_will_not_take_passes_through_it(monkeypatch, tmp_path):
    """A policy that gives nothing up in DRAM: what only SSD has is loaded all the same."""
    monkeypatch.setattr(guards, "_FULL_CHECK_EVERY", 1)
    (tmp_path / "mine.py").write_text(
        "from kvplan.sim.policies.eviction.fifo import Fifo\n"
        "class Keeps(Fifo):\n    NAME = 'keeps'\n    MAY_REFUSE = True\n"
        "    def victim(self):\n        return super().victim() if self.view.is_last else None\n"
    )
    workload = requests(*([each] * 2 for each in (1, 2, 3, 2)), prompts=[17] * 4)
    settings = [*CHUNKS, f"store.dram={3 * CHUNK}B", f"store.ssd={9 * CHUNK}B", f"store.eviction={tmp_path}/mine.py:Keeps"]
    found = served(workload, 3, *settings)
    assert found["cached_tokens"].tolist() == [0, 0, 0, 0], "what DRAM does not take never comes to SSD"


def test_who_runs_stays_known_when_all_its_chunks_are_over():
    tier = OrderedChunks(6, 1, Lru, view(), ages=True)
    runs, idle = stored(tier, 1, 3, 1.0), stored(tier, 2, 3, 2.0)
    tier.claim(1)
    assert [len(tier.expire(5.0, now)) for now in (6.0, 6.5, 7.0, 8.0)] == [0, 1, 0, 1]
    assert (tier.reach(runs, 3), tier.reach(idle, 3), tier.held) == (0, 0, 0)
    tier.release(1, 9.0)
    assert stored(tier, 1, 6, 10.0) and tier.held == 6


@pytest.mark.parametrize("eviction", ["fifo", "lookahead"])
def test_what_nobody_has_used_for_longer_goes_whatever_the_order(monkeypatch, small, eviction):
    """Under guards; with a time that nobody comes back within, nothing is hit below the pool."""
    monkeypatch.setattr(guards, "_FULL_CHECK_EVERY", 1)
    tiers = ["store.hbm=1MB", "store.dram=4GB", "store.ssd=8GB", "workload.sessions=40", "store.load=always", f"store.eviction={eviction}"]
    hits = [simulate(small(*SERVER, *tiers, f"store.ttl_s={ttl_s}")).summary["hit_rate"]["tokens"] for ttl_s in (0.001, 60, 1e9)]
    assert hits[0] == 0 < hits[1] < hits[2]
    assert unit_of(load("chat-2026", [f"store.eviction={eviction}", "store.ttl_s=60"])) == "block"
