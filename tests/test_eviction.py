"""Eviction policies against textbooks written anew, against libcachesim, against brute force, and by hand.

Driven here as plain caches without a clock: a hit is a use; a miss asks for victims until there is room, and stores.
"""

import json
import math
import random
import sys
from collections import OrderedDict
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan.sim.policies import registry
from kvplan.sim.policies.base import View
from kvplan.sim.policies.eviction.pensieve import STEP
from kvplan.sim.policies.eviction.ttl import TTL_S
from kvplan.sim.policies.segments import Segment
from kvplan.sim.policies.sketch import Sketch

EVICTION = registry.policies("eviction")


class PlainCache(View):
    """A cache of one tier around one policy; time is the number of the access. Sessions have one byte if `sizes` does not say more."""

    def __init__(self, name, capacity, sizes=None, costs=None):
        self.is_last = False
        self.capacity, self.used, self.time = capacity, 0, 0
        self.sizes, self.costs = sizes or {}, costs or {}
        self.held, self.coming = {}, {}
        self.policy = EVICTION[name](self)

    def size(self, session):
        return self.held[session]

    def now_s(self):
        return float(self.time)

    def position(self, session):
        return None

    def recompute_s(self, session):
        return float(self.costs.get(session, 1.0))

    def load_s(self, session):
        return 0.0

    def next_use_s(self, session):
        return self.coming.get(session, math.inf)

    def tenant(self, session):
        return 0

    def access(self, session):
        """Who leaves; None for a hit."""
        self.time += 1
        if session in self.held:
            self.policy.use(session)
            return None
        victims = []
        size = self.sizes.get(session, 1)
        while self.used + size > self.capacity:
            victim = self.policy.victim()
            self.policy.remove(victim)
            self.used -= self.held.pop(victim)
            victims.append(victim)
        self.held[session] = size
        self.used += size
        self.policy.insert(session)
        return victims


def replay(name, trace, capacity, **options):
    """Who leaves at each access; None for hits."""
    cached, next_uses = PlainCache(name, capacity, **options), upcoming(trace)
    found = []
    for session, next_use in zip(trace, next_uses, strict=True):
        cached.coming[session] = next_use
        found.append(cached.access(session))
    return found


def upcoming(trace):
    """For each access, the number (from 1) of the next access to the same session."""
    last, found = {}, []
    for time in range(len(trace), 0, -1):
        session = trace[time - 1]
        found.append(last.get(session, math.inf))
        last[session] = time
    return found[::-1]


def drain(policy):
    """All sessions of the order, as they leave."""
    found = []
    while (victim := policy.victim()) is not None:
        policy.remove(victim)
        found.append(victim)
    return found


def zipf_trace(length, sessions, seed=1):
    rng = random.Random(seed)
    weights = [1 / (rank + 1) for rank in range(sessions)]
    return rng.choices(range(sessions), weights, k=length)


# --- by hand --------------------------------------------------------------------------------------------------------------------

BY_HAND = [
    ("fifo", 3, "abcadb", "a", {}),
    ("lru", 3, "abcadb", "bc", {}),
    ("lfu", 3, "aabbcdc", "cd", {}),
    ("lfu", 2, "abbacd", "bc", {}),  # a and b twice each: b was used before a; then c, used once
    ("sieve", 3, "abcadefagh", "bcdef", {}),  # a is spared by the hand, which goes on to b, c, … though a is the oldest
    ("sieve", 2, "abbacd", "ab", {}),  # both used: a lap clears them
    ("s3-fifo", 10, "abcdefghijkablllm", "akcd", {}),  # k and a pass the queue of one; a comes back; b is spared; l is promoted
    ("2q", 4, "abcdeafagb", "abcde", {}),  # a comes back in time, b does not
    ("arc", 2, "abacbdc", "bcab", {}),  # b comes back: the border moves to 1, and d is spared
    ("w-tinylfu", 10, "abcdefghijkklbm", "jal", {}),  # j and l lose their contests, k wins its
    ("gdsf", 4, "abcdef", "ba", {"sizes": {"b": 2}}),
    ("gdsf", 3, "abcabde", "cb", {"costs": {"a": 5}}),  # d, used once after c left, is worth what b is, used twice before
    ("marconi", 3, "abcbadef", "cbd", {"costs": {"a": 3}}),  # a, three times dearer, outlives d, used after it
    ("pensieve", 2, "abc", "b", {"costs": {"a": 4}}),  # 4 / 2 s against 1 / 1 s
    ("pensieve", 2, "abbbbbc", "a", {"costs": {"a": 4}}),  # 4 / 6 s against 1 / 1 s
    ("belady", 2, "abcaba", "bc", {}),
    ("belady", 4, "abcde", "b", {"sizes": {"b": 2}}),  # none comes again: the largest leaves
]


@pytest.mark.parametrize(("name", "capacity", "trace", "expected", "options"), BY_HAND)
def test_by_hand(name, capacity, trace, expected, options):
    numbers = {kind: {ord(key): value for key, value in table.items()} for kind, table in options.items()}
    found = replay(name, [ord(letter) for letter in trace], capacity, **numbers)
    assert "".join(chr(victim) for victims in found for victim in victims or []) == expected


def test_every_policy_is_worked_by_hand():
    elsewhere = {"lookahead", "ttl", "continuum"}
    assert set(EVICTION) == {name for name, *_ in BY_HAND} | elsewhere


def test_ttl_keeps_its_promise_in_the_last_tier_only():
    view = PlainCache("ttl", 10)
    view.is_last = True
    view.policy.insert(1)
    view.time = 100
    view.policy.insert(2)
    view.policy.use(1)
    view.time = 99 + TTL_S
    assert view.policy.victim() is None
    view.time = 100 + TTL_S
    assert view.policy.victim() == 2
    view.time, view.is_last = 101, False
    assert view.policy.victim() == 2


def test_continuum_ttl_is_the_best_one_for_exponential_gaps():
    view = PlainCache("continuum", 100, costs={1: 2.0, 2: 2.0, 3: 0.1})
    view.held = {1: 4, 2: 4, 3: 4}
    for session in (1, 2, 3):
        view.policy.insert(session)
    view.time = 10
    view.policy.use(2)  # 10 s cost 0.4 s and save 2 s: kept for 10 ln 5 s, until 26
    view.time = 20
    view.policy.use(3)  # 20 s cost 0.8 s and save 0.1 s: not kept
    view.policy.use(1)  # 20 s cost 0.8 s and save 2 s: kept for 20 ln 2.5 s, until 38

    def profit(ttl_s):
        return 2.0 * (1 - math.exp(-ttl_s / 20)) - ttl_s * 0.04

    best = view.policy.rank(1) - 20
    assert best == pytest.approx(20 * math.log(2.5))
    assert profit(best) > max(profit(best - 0.1), profit(best + 0.1))
    assert drain(view.policy) == [3, 2, 1]


# --- textbooks, slow and plain --------------------------------------------------------------------------------------------------


class Textbook:
    """A cache of equal sessions. `touch` says whether one is cached, and learns; `evict` names who leaves for it (None: asks again);
    `store` takes it in."""

    def __init__(self, capacity):
        self.capacity = capacity
        self.residents = []

    def access(self, session):
        if self.touch(session):
            return None
        victims = []
        while len(self.residents) >= self.capacity:
            victim = self.evict(session)
            if victim is not None:
                self.residents.remove(victim)
                victims.append(victim)
        self.residents.append(session)
        self.store(session)
        return victims


class TextbookLru(Textbook):
    def touch(self, session):
        if session in self.residents:
            self.residents.remove(session)
            self.residents.append(session)
            return True
        return False

    def evict(self, _):
        return self.residents[0]

    def store(self, session):
        pass


class TextbookLfu(TextbookLru):
    def __init__(self, capacity):
        super().__init__(capacity)
        self.uses = {}

    def touch(self, session):
        self.uses[session] = self.uses.get(session, 0) + 1 if session in self.residents else 1
        return super().touch(session)

    def evict(self, _):
        return min(self.residents, key=self.uses.__getitem__)  # the first of the least: residents are by recency


class TextbookSieve(Textbook):
    """The paper's Algorithm 1. Residents are from the tail (oldest) to the head."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.visited, self.hand = {}, None

    def touch(self, session):
        if session in self.residents:
            self.visited[session] = True
            return True
        return False

    def evict(self, _):
        queue = self.residents
        at = 0 if self.hand is None else queue.index(self.hand)
        while self.visited[queue[at]]:
            self.visited[queue[at]] = False
            at = (at + 1) % len(queue)
        self.hand = queue[at + 1] if at + 1 < len(queue) else None
        return queue[at]

    def store(self, session):
        self.visited[session] = False


class TextbookS3Fifo(Textbook):
    """libCacheSim's S3FIFO.c with its defaults."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.small, self.main, self.ghost = [], [], []
        self.small_size = int(0.1 * capacity)
        self.ghost_size = int(0.9 * capacity)
        self.uses, self.was_full, self.knew = {}, False, False

    def touch(self, session):
        if session in self.residents:
            self.uses[session] += 1
            return True
        self.knew = session in self.ghost
        if self.knew:
            self.ghost.remove(session)
        return False

    def evict(self, _):
        self.was_full = True
        if len(self.main) > self.capacity - self.small_size or not self.small:
            while True:
                session = self.main.pop(0)
                if not self.uses[session]:
                    return session
                self.uses[session] = min(self.uses[session], 3) - 1
                self.main.append(session)
        while self.small:
            session = self.small.pop(0)
            if self.uses[session] < 2:
                self.ghost.append(session)
                if len(self.ghost) > self.ghost_size:
                    self.ghost.pop(0)
                return session
            self.uses[session] = 0
            self.main.append(session)
        return None

    def store(self, session):
        self.uses[session] = 0
        joins_main = self.knew or (not self.was_full and len(self.small) >= self.small_size)
        (self.main if joins_main else self.small).append(session)


class TextbookTwoQ(Textbook):
    """2Q, full version, of the paper."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.a1_in, self.a1_out, self.a_m = [], [], []

    def touch(self, session):
        if session in self.a_m:
            self.a_m.remove(session)
            self.a_m.append(session)
        return session in self.residents

    def evict(self, _):
        if self.a_m and len(self.a1_in) <= int(0.25 * self.capacity):
            return self.a_m.pop(0)
        self.a1_out.append(self.a1_in.pop(0))
        return self.a1_out[-1]

    def store(self, session):
        if session in self.a1_out:
            self.a1_out.remove(session)
            self.a_m.append(session)
        else:
            self.a1_in.append(session)
        del self.a1_out[: max(0, len(self.a1_out) - int(0.5 * self.capacity))]


class TextbookArc(Textbook):
    """ARC(c) of the paper, figure 4."""

    def __init__(self, capacity):
        super().__init__(capacity)
        self.t1, self.t2, self.b1, self.b2, self.p = [], [], [], [], 0.0

    def touch(self, session):
        for part in (self.t1, self.t2):
            if session in part:  # case I
                part.remove(session)
                self.t2.append(session)
                return True
        self.adapt(session)
        return False

    def adapt(self, session):
        if session in self.b1:  # case II
            self.p = min(self.p + max(len(self.b2) / len(self.b1), 1), self.capacity)
        elif session in self.b2:  # case III
            self.p = max(self.p - max(len(self.b1) / len(self.b2), 1), 0)

    def evict(self, session):
        if session in self.b1 + self.b2:
            return self.replace(session in self.b2)
        if len(self.t1) + len(self.b1) == self.capacity:  # case IV A
            if not self.b1:
                return self.t1.pop(0)
            self.b1.pop(0)
        elif len(self.t1 + self.t2 + self.b1 + self.b2) == 2 * self.capacity:  # case IV B
            self.b2.pop(0)
        return self.replace(False)

    def replace(self, in_b2):
        first = self.t1 and (len(self.t1) > self.p or (in_b2 and len(self.t1) == self.p) or not self.t2)
        part, ghosts = (self.t1, self.b1) if first else (self.t2, self.b2)
        ghosts.append(part.pop(0))
        return ghosts[-1]

    def store(self, session):
        part = self.t1
        for ghosts in (self.b1, self.b2):
            if session in ghosts:
                ghosts.remove(session)
                part = self.t2
        part.append(session)


class LateArc(TextbookArc):
    """REPLACE does not know what is missed and comes first; then the adaptation, and what case IV does to the ghosts."""

    def touch(self, session):
        return session in self.residents and super().touch(session)

    def evict(self, _):
        return self.replace(False)

    def store(self, session):
        self.adapt(session)
        super().store(session)
        while len(self.t1 + self.b1) > self.capacity:
            self.b1.pop(0)
        while len(self.t1 + self.t2 + self.b1 + self.b2) > 2 * self.capacity:
            self.b2.pop(0)


TEXTBOOKS = {
    "lru": TextbookLru,
    "lfu": TextbookLfu,
    "sieve": TextbookSieve,
    "s3-fifo": TextbookS3Fifo,
    "2q": TextbookTwoQ,
    "arc": LateArc,
}

traces = st.one_of(
    st.lists(st.integers(0, 12), max_size=150),
    st.lists(st.integers(0, 40), max_size=300),
    st.builds(zipf_trace, st.integers(200, 400), st.integers(10, 120), st.integers(0, 10_000)),
)


@pytest.mark.parametrize("name", TEXTBOOKS)
@given(trace=traces, capacity=st.integers(1, 30))
def test_decisions_are_the_textbooks(name, trace, capacity):
    textbook = TEXTBOOKS[name](capacity)
    assert replay(name, trace, capacity) == [textbook.access(session) for session in trace]


@given(trace=traces, capacity=st.integers(1, 30))
def test_arc_is_the_textbooks_until_a_ghost_returns(trace, capacity):
    """What is missed decides nothing as long as no ghost knows it: then all is exact, to the first ghost's return."""
    textbook, cached = TextbookArc(capacity), PlainCache("arc", capacity)
    for session in trace:
        if session in textbook.b1 + textbook.b2:
            break
        assert cached.access(session) == textbook.access(session)


def test_arc_that_adapts_late_hits_as_often():
    trace = zipf_trace(20_000, 2000)
    for capacity in (50, 200, 800):
        arcs = (TextbookArc(capacity), LateArc(capacity))
        hits = [sum(arc.access(session) is None for session in trace) / len(trace) for arc in arcs]
        assert hits[0] == pytest.approx(hits[1], abs=0.002)


# --- libcachesim ----------------------------------------------------------------------------------------------------------------

ORACLES = {"fifo": "FIFO", "lru": "LRU", "lfu": "LFU", "sieve": "Sieve", "s3-fifo": "S3FIFO", "2q": "TwoQ", "arc": "ARC"}


def oracle_hits(name, trace, capacity):
    oracle = pytest.importorskip("libcachesim")
    cached = getattr(oracle, ORACLES[name])(capacity)
    return [cached.get(oracle.Request(obj_id=session, obj_size=1)) for session in trace]


def our_hits(name, trace, capacity):
    return [victims is None for victims in replay(name, trace, capacity)]


@pytest.fixture(scope="module")
def mooncake():
    """(block, its tokens) of one hour of a chat service, where the machine has it."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data" / "mooncake_conversation.jsonl"
    if not path.exists():
        pytest.skip("the Mooncake trace is not on this machine")
    blocks = []
    for line in path.read_text(encoding="utf-8").splitlines():
        request = json.loads(line)
        for index, block in enumerate(request["hash_ids"]):
            blocks.append((block, min(512, request["input_length"] - 512 * index)))
    return blocks


@pytest.mark.parametrize("name", sorted(set(ORACLES) - {"arc"}))
def test_hits_are_libcachesims(name, mooncake):
    blocks = [block for block, _ in mooncake[:100_000]]
    for trace, capacity in ((zipf_trace(30_000, 5000), 300), (random.Random(2).choices(range(900), k=30_000), 300), (blocks, 2000)):
        assert our_hits(name, trace, capacity) == oracle_hits(name, trace, capacity)


def test_libcachesims_arc_is_the_textbooks_and_hits_as_often_as_ours(mooncake):
    trace = zipf_trace(10_000, 2000)
    textbook = TextbookArc(100)
    assert [textbook.access(session) is None for session in trace] == oracle_hits("arc", trace, 100)
    blocks = [block for block, _ in mooncake[:100_000]]
    assert sum(our_hits("arc", blocks, 2000)) == pytest.approx(sum(oracle_hits("arc", blocks, 2000)), rel=0.005)


MOONCAKE_HIT_RATES = {"lru": 0.181, "arc": 0.194, "s3-fifo": 0.181, "sieve": 0.120, "belady": 0.373}


@pytest.mark.parametrize("name", MOONCAKE_HIT_RATES)
def test_token_hit_rates_of_the_mooncake_trace(name, mooncake):
    hits = our_hits(name, [block for block, _ in mooncake], 8000)
    tokens = [tokens for _, tokens in mooncake]
    hit_tokens = sum(held for held, hit in zip(tokens, hits, strict=True) if hit)
    assert hit_tokens / sum(tokens) == pytest.approx(MOONCAKE_HIT_RATES[name], abs=0.0011)


# --- Belady against all choices ---------------------------------------------------------------------------------------------------


def fewest_misses(trace, capacity):
    """Tries every victim of every miss."""

    @cache
    def misses(time, held):
        if time == len(trace):
            return 0
        session = trace[time]
        if session in held:
            return misses(time + 1, held)
        choices = [held] if len(held) < capacity else [held - {victim} for victim in held]
        return 1 + min(misses(time + 1, choice | {session}) for choice in choices)

    return misses(0, frozenset())


@given(trace=st.lists(st.integers(0, 5), max_size=16), capacity=st.integers(1, 4))
def test_belady_misses_least_and_nobody_less(trace, capacity):
    misses = {name: sum(victims is not None for victims in replay(name, trace, capacity)) for name in EVICTION}
    assert misses["belady"] == fewest_misses(trace, capacity) == min(misses.values())


# --- what all have in common --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVICTION)
@given(trace=traces, seed=st.integers(0, 10_000))
def test_sizes_that_differ_and_grow(name, trace, seed):
    """The cache stays within its capacity, and every victim is in it."""
    rng = random.Random(seed)
    cached = PlainCache(name, 100, {session: rng.randint(1, 30) for session in set(trace)})
    for session in trace:
        if session in cached.held and cached.used < cached.capacity:
            cached.held[session] += 1
            cached.used += 1
        cached.access(session)
    assert sorted(drain(cached.policy)) == sorted(cached.held)


calls = st.lists(
    st.tuples(st.sampled_from(["insert", "insert", "use", "use", "evict", "set aside", "restore", "wait"]), st.integers(0, 9)),
    max_size=120,
)


def decisions(name, calls, asked_often):
    """The victims of a policy that is driven with calls, and asked between them as well, or not."""
    view = PlainCache(name, 12)
    policy, order, aside, found = view.policy, set(), set(), []
    for call, session in calls:
        if call == "insert" and session not in view.held:
            view.held[session] = 1
            policy.insert(session)
            order.add(session)
        elif call == "use" and session in order:
            policy.use(session)
        elif call in ("evict", "set aside") and order:
            victim = policy.victim()
            found.append(victim)
            order.remove(victim)
            if call == "evict":
                policy.remove(victim)
                del view.held[victim]
            else:
                policy.set_aside(victim)
                aside.add(victim)
        elif call == "restore" and session in aside:
            policy.restore(session)
            aside.remove(session)
            order.add(session)
        elif call == "wait":
            view.time += 1
        if asked_often:
            policy.victim()
    return found


@pytest.mark.parametrize("name", EVICTION)
@given(calls=calls)
def test_asking_changes_nothing(name, calls):
    assert decisions(name, calls, asked_often=True) == decisions(name, calls, asked_often=False)


def filled(name, trace, capacity):
    """A cache after a trace of letters."""
    cached = PlainCache(name, capacity)
    for letter in trace:
        cached.access(ord(letter))
    return cached


def set_aside_and_restored(name, trace, capacity):
    """A cache after a trace, whose victim was set aside and restored; and that victim."""
    cached = filled(name, trace, capacity)
    victim = cached.policy.victim()
    cached.policy.set_aside(victim)
    assert cached.policy.victim() != victim
    cached.time += 1
    cached.policy.restore(victim)
    return cached, victim


@pytest.mark.parametrize("name", sorted(set(EVICTION) - {"lru", "lookahead"}))
def test_who_is_set_aside_keeps_its_place(name):
    cached, victim = set_aside_and_restored(name, "abcdefghijklcd", 10)
    assert cached.policy.victim() == victim


def test_what_was_learnt_survives_being_set_aside():
    a, b, c = map(ord, "abc")
    cached, victim = set_aside_and_restored("lfu", "aabbbc", 3)
    assert victim == c and drain(cached.policy) == [c, a, b]
    policy = filled("arc", "abcab", 3).policy
    policy.set_aside(c)
    policy.set_aside(a)
    policy.restore(c)
    policy.restore(a)
    assert drain(policy) == [c, a, b]  # a is still one of those used twice


@pytest.mark.pure
def test_ghosts_are_bounded():
    for name in ("arc", "2q", "s3-fifo"):
        cached = PlainCache(name, 20)
        for session in range(2000):
            cached.access(session)
        ghosts = [part.bytes for key, part in vars(cached.policy).items() if "ghosts" in key]
        assert ghosts and sum(ghosts) <= 40


@pytest.mark.parametrize("name", EVICTION)
def test_operations_do_not_grow_with_the_number_of_sessions(name):
    few, many = (calls_per_access(name, sessions) for sessions in (1000, 30_000))
    assert many < 1.3 * few + 1


def calls_per_access(name, sessions):
    """Calls of functions, Python's and C's, per access to a full cache."""
    cached = PlainCache(name, sessions)
    for session in range(sessions):
        cached.access(session)
    trace = [session * 2 * sessions // 2000 for session in zipf_trace(3000, 2000)]
    made = 0

    def count(_frame, event, _argument):
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    for session in trace:
        cached.access(session)
    sys.setprofile(None)
    return made / len(trace)


# --- parts --------------------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_pensieve_is_near_the_lowest_value(seed):
    rng = random.Random(seed)
    view = PlainCache("pensieve", 100, costs={session: rng.lognormvariate(0, 2) for session in range(40)})
    for session in range(40):
        view.time += rng.randint(0, 5)
        view.held[session] = 1
        view.policy.insert(session)
    view.time += 1
    used_s = {session: used_s for members in view.policy._classes.values() for session, (_, used_s) in members.items()}
    values = {session: view.recompute_s(session) / (view.now_s() - used_s[session]) for session in range(40)}
    assert values[view.policy.victim()] <= STEP * min(values.values()) * (1 + 1e-9)


def test_sketch_counts_high_and_forgets():
    sketch, rng, truth = Sketch(), random.Random(3), dict.fromkeys(range(300), 0)
    for item in truth:
        sketch.fit(item)
        for _ in range(rng.randint(0, 4)):
            sketch.add(item)
            truth[item] += 1
    assert all(sketch.count(item) >= truth[item] for item in truth)
    assert sum(sketch.count(item) > truth[item] for item in truth) < 15
    before = sketch.count(1)
    for _ in range(12_000):
        sketch.add(0)
    assert sketch.count(0) <= 15 and sketch.count(1) <= before // 2


segment_calls = st.sampled_from(["append", "remove", "resize", "trim", "aside", "restore"])


@given(st.lists(st.tuples(segment_calls, st.integers(0, 6), st.integers(1, 9))))
def test_segment_is_an_order_and_a_sum(calls):
    segment, order, aside = Segment(), OrderedDict(), {}
    for call, session, size in calls:
        if call == "append" and session not in order and session not in aside:
            segment.append(session, size)
            order[session] = size
        elif call == "remove" and session in order:
            assert segment.remove(session) == order.pop(session)
        elif call == "resize" and session in order:
            segment.resize(session, size)
            order[session] = size
        elif call == "trim" and not aside:
            segment.trim(size)
            while sum(order.values()) > size:
                order.popitem(last=False)
        elif call == "aside" and session in order:
            segment.set_aside(session)
            aside[session] = order.pop(session)
        elif call == "restore" and session in aside:
            segment.restore(session)
            order[session] = aside.pop(session)
            order.move_to_end(session, last=False)
        assert segment.bytes == sum(order.values()) + sum(aside.values())
        assert segment.first() == next(iter(order), None)
