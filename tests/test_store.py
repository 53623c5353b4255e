"""Policies by contract, the store as a state machine, and links."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from plant import tier as spec

from kvplan.sim import config
from kvplan.sim.engine.link import Link
from kvplan.sim.policies import registry
from kvplan.sim.policies.base import Eviction, JobView, Load, View
from kvplan.sim.policies.eviction.fifo import Fifo
from kvplan.sim.policies.eviction.lookahead import LookAhead
from kvplan.sim.policies.eviction.lru import Lru
from kvplan.sim.policies.lazyheap import LazyHeap
from kvplan.sim.policies.load.always import Always
from kvplan.sim.policies.prefetch.lookahead import LookAhead as LookAheadFetch
from kvplan.sim.policies.scheduling.fcfs import Fcfs
from kvplan.sim.policies.write.back import Back
from kvplan.sim.simulation import simulate
from kvplan.sim.store.protocol import Useful
from kvplan.sim.store.sessions import SessionStore
from kvplan.sim.store.tier import ASIDE
from kvplan.sim.store.view import Knowledge

EVICTION = registry.policies("eviction")
PREFETCH = registry.policies("prefetch")
WRITE = registry.policies("write")
SCHEDULING = registry.policies("scheduling")


# --- the contract of every eviction policy ----------------------------------------------------------------------------------------


class StillView(View):
    """A tier without a store: sizes, places and times are arithmetic of the session and of what was said. Knows only who is in it."""

    def __init__(self, inside=None):
        self.capacity, self.is_last = 1000, True
        self.positions, self.time, self.inside = {}, 0, inside

    def size(self, session):
        assert self.inside is None or session in self.inside, "a policy asks about sessions in its tier only"
        return 10 + 7 * session

    def now_s(self):
        return float(self.time)

    def position(self, session):
        return self.positions.get(session)

    def recompute_s(self, session):
        return 1e-3 * self.size(session) ** 1.5

    def load_s(self, session):
        return 1e-4 * self.size(session)

    def next_use_s(self, session):
        return self.time + 13 * session % 7

    def tenant(self, session):
        return session % 2


def check_eviction_contract(make, calls):
    """Drives a policy with (operation, session) pairs that keep the protocol; its victim is always one of the order."""
    order, aside = set(), set()
    view = StillView(inside=set())
    policy = make(view)
    for operation, session in calls:
        view.time += 1
        if operation == "insert" and session not in order | aside:
            view.inside.add(session)
            policy.insert(session)
            order.add(session)
        elif operation == "use" and session in order:
            view.positions.pop(session, None)
            policy.use(session)
        elif operation == "expect" and session in order:
            view.positions[session] = view.time
            if "queue" in policy.NEEDS:
                policy.expect(session)
        elif operation == "remove" and session in order:
            policy.remove(session)
            view.inside.remove(session)
            order.remove(session)
        elif operation == "set aside" and policy.victim() is not None:
            victim = policy.victim()
            policy.set_aside(victim)
            order.remove(victim)
            aside.add(victim)
        elif operation == "restore" and session in aside:
            policy.restore(session)
            aside.remove(session)
            order.add(session)
        victim = policy.victim()
        assert victim is None or victim in order, "the victim is in the order"
        assert victim is not None or not order or policy.MAY_REFUSE, "a victim while there are sessions"
        assert policy.victim() == victim, "asking changes nothing"
    for session in sorted(aside):
        policy.restore(session)
    order |= aside
    while order:
        victim = policy.victim()
        assert victim in order or (victim is None and policy.MAY_REFUSE)
        view.time += 1_000_000
        if victim is None:
            continue
        policy.remove(victim)
        order.remove(victim)
    assert policy.victim() is None


operations = st.lists(
    st.tuples(st.sampled_from(["insert", "use", "expect", "remove", "set aside", "restore"]), st.integers(0, 8)), max_size=80
)


@pytest.mark.parametrize("name", EVICTION)
@given(calls=operations)
def test_eviction_contract(name, calls):
    check_eviction_contract(EVICTION[name], calls)


class _ReturnsAStranger(Lru):
    def victim(self):
        return 999


class _ForgetsAKey(Lru):
    def use(self, session):
        del self._order[session]


class _KeepsTheRemoved(Fifo):
    def remove(self, session):
        pass


class _IgnoresPins(Lru):
    def set_aside(self, session):
        pass


class _AsksForAnothersSize(Lru):
    def use(self, session):
        self.view.size(session + 1)
        super().use(session)


class _GoesOnWhenAskedForAVictim(Lru):
    def victim(self):
        victim = super().victim()
        if victim is not None:
            self._order.move_to_end(victim)
        return victim


@pytest.mark.parametrize(
    "mutant", [_ReturnsAStranger, _ForgetsAKey, _KeepsTheRemoved, _IgnoresPins, _AsksForAnothersSize, _GoesOnWhenAskedForAVictim]
)
def test_the_contract_kills_mutants(mutant):
    calls = [("insert", 1), ("insert", 2), ("set aside", 0), ("use", 2), ("restore", 1), ("remove", 2), ("use", 1), ("remove", 1)]
    with pytest.raises((AssertionError, KeyError)):
        check_eviction_contract(mutant, calls)


def _drain(policy: Eviction) -> list[int]:
    found = []
    while (victim := policy.victim()) is not None:
        policy.remove(victim)
        found.append(victim)
    return found


def test_orders_of_the_first_three():
    for policy, expected in ((Lru(StillView()), [2, 3, 1]), (Fifo(StillView()), [1, 2, 3]), (LookAhead(StillView()), [2, 3, 1])):
        for session in (1, 2, 3):
            policy.insert(session)
        policy.use(1)
        if "queue" in policy.NEEDS:
            policy.expect(1)
        assert _drain(policy) == expected


def test_look_ahead_evicts_idle_sessions_then_the_tail_of_the_queue():
    view = StillView()
    policy = LookAhead(view)
    view.positions = {1: 10, 3: 30, 4: 20}
    for session in (1, 2, 3, 4, 5):
        policy.insert(session)
    view.positions[5] = 40
    policy.expect(5)
    assert _drain(policy) == [2, 5, 3, 4, 1]


def test_fifo_remembers_when_a_session_came_while_it_is_set_aside():
    policy = Fifo(StillView())
    policy.insert(1)
    policy.insert(2)
    policy.set_aside(1)
    policy.restore(1)
    assert policy.victim() == 1
    policy.remove(1)
    policy.insert(1)
    assert policy.victim() == 2


@given(st.lists(st.tuples(st.sampled_from(["push", "discard", "peek"]), st.integers(0, 6), st.integers(0, 20)), max_size=400))
def test_lazy_heap_is_a_heap(calls):
    heap, model = LazyHeap(), {}
    for operation, item, key in calls:
        if operation == "push":
            heap.push(item, key)
            model[item] = key
        elif operation == "discard":
            assert heap.discard(item) == (model.pop(item, None) is not None)
        assert heap.peek() == (min(model, key=lambda i: (model[i], i)) if model else None)
        assert len(heap) == len(model) and len(heap._heap) <= 2 * len(model) + 65


# --- prefetch and scheduling ------------------------------------------------------------------------------------------------------


def check_prefetch_contract(make, calls):
    """Drives a prefetcher; whom it names is always wanted, asking changes nothing, and a session that was dropped is forgotten."""
    policy, queue, wanted = make(), Fcfs(StillJobs()), set()
    positions = [queue.push(turn) for turn in range(6)]
    for call, session in calls:
        if call == "want":
            policy.want(session, positions[session])
            wanted.add(session)
        elif call == "announce" and policy.LEAD_S:
            policy.want(session, None)
            wanted.add(session)
        elif call == "drop":
            policy.drop(session)
            wanted.discard(session)
        named = policy.next(queue, 100.0)
        assert named is None or named in wanted, "whom it names is wanted"
        assert policy.next(queue, 100.0) == named, "asking changes nothing"
    for session in range(6):
        policy.drop(session)
    assert policy.next(queue, 100.0) is None
    assert 0 <= policy.patience_s(10) <= policy.patience_s(1000)


@pytest.mark.parametrize("name", PREFETCH)
@given(st.lists(st.tuples(st.sampled_from(["want", "announce", "drop"]), st.integers(0, 5)), max_size=40))
def test_prefetch_contract(name, calls):
    check_prefetch_contract(PREFETCH[name], calls)


class _FetchesAStranger(LookAheadFetch):
    def next(self, queue, room):
        return 5


class _NeverForgets(LookAheadFetch):
    def drop(self, session):
        pass


class _GoesOnWhenAsked(LookAheadFetch):
    def next(self, queue, room):
        session = super().next(queue, room)
        if session is not None:
            self.drop(session)
        return session


@pytest.mark.parametrize("mutant", [_FetchesAStranger, _NeverForgets, _GoesOnWhenAsked])
def test_the_prefetch_contract_kills_mutants(mutant):
    with pytest.raises(AssertionError):
        check_prefetch_contract(mutant, [("want", 1), ("want", 2), ("drop", 1), ("drop", 2)])


def test_look_ahead_fetches_the_soonest_within_its_window():
    policy, queue = LookAheadFetch(), Fcfs(StillJobs())
    positions = [queue.push(turn) for turn in range(10)]
    policy.want(7, positions[4])
    assert policy.next(queue, 4.9) is None
    assert policy.next(queue, 5.0) == 7
    policy.want(8, positions[2])
    assert policy.next(queue, 5.0) == 8
    queue.pop()
    policy.drop(8)
    assert policy.next(queue, 4.0) == 7
    assert policy.next(queue, 0.9) is None


class StillJobs(JobView):
    """Jobs without a server: everything is arithmetic of the turn, and of how often the KV has moved."""

    def __init__(self):
        self.time, self.moves = 0.0, 0

    def now_s(self):
        return self.time

    def new_tokens(self, turn):
        return 5 + 7 * turn % 11

    def history_tokens(self, turn):
        return 13 * turn % 17

    def cached_tokens(self, turn):
        return self.history_tokens(turn) if (turn + self.moves) % 3 else 0

    def is_ready(self, turn):
        return (turn + self.moves) % 2 == 0

    def prefill_s(self, turn):
        return float(self.new_tokens(turn) + self.history_tokens(turn) - self.cached_tokens(turn))

    def tenant(self, turn):
        return turn % 3

    def weight(self, turn):
        return 1.0 + self.tenant(turn)

    def tenant_rank(self, turn):
        return 2 - self.tenant(turn)


def check_scheduling_contract(make, calls):
    """Drives a scheduler; the head is always one who waits, places ascend, and a place is the one that `push` or `update` gave."""
    view = StillJobs()
    queue, waiting, turn = make(view), {}, 0
    for call in calls:
        view.time += 1.0
        if call == "push":
            waiting[turn] = queue.push(turn)
            turn += 1
        elif call == "pop" and waiting:
            head = queue.head()
            assert head in waiting and waiting[head] == min(waiting.values()), "the head has the first place"
            assert queue.pop() == head
            del waiting[head]
            queue.done(head, 10)
        elif call == "update" and waiting and queue.FOLLOWS_KV:
            view.moves += 1
            for each in waiting:
                waiting[each] = queue.update(each)
        assert len(queue) == len(waiting) and (queue.head() is None) == (not waiting)
        assert [queue.position_at(index) for index in range(len(waiting))] == sorted(waiting.values())
        assert queue.position_at(len(waiting)) is None


@pytest.mark.parametrize("name", SCHEDULING)
@given(st.lists(st.sampled_from(["push", "push", "pop", "update"]), max_size=60))
def test_scheduling_contract(name, calls):
    check_scheduling_contract(SCHEDULING[name], calls)


class _LosesTheHead(Fcfs):
    def pop(self):
        turn = super().pop()
        if self._turns:
            self._turns.popleft()
        return turn


class _SaysAnotherPlace(Fcfs):
    def push(self, turn):
        return super().push(turn) + 0.5


class _ServesTheLast(Fcfs):
    def head(self):
        return self._turns[-1] if self._turns else None

    def pop(self):
        return self._turns.pop()


@pytest.mark.parametrize("mutant", [_LosesTheHead, _SaysAnotherPlace, _ServesTheLast])
def test_the_scheduling_contract_kills_mutants(mutant):
    with pytest.raises(AssertionError):
        check_scheduling_contract(mutant, ["push", "push", "push", "pop", "pop"])


def _served(name, turns, view=None):
    view = view or StillJobs()
    queue = SCHEDULING[name](view)
    for turn in turns:
        view.time += 1.0
        queue.push(turn)
    return [queue.pop() for _ in range(len(queue))]


def test_orders_of_the_schedulers():
    turns = [0, 1, 2, 3, 4, 5]
    assert _served("fcfs", turns) == turns
    assert _served("data-ready", turns) == [0, 2, 4, 1, 3, 5]
    assert _served("hit-first", turns) == [1, 2, 4, 5, 0, 3]
    assert _served("priority", turns) == [2, 5, 1, 4, 0, 3]
    assert _served("shortest-prefill", turns) == sorted(turns, key=StillJobs().prefill_s)


def test_hit_first_ages():
    view = StillJobs()
    queue = SCHEDULING["hit-first"](view)
    queue.push(0)  # nothing cached
    view.time = 31.0
    queue.push(1)  # cached, but more than the head start later
    assert queue.pop() == 0


def test_fair_share_gives_tokens_by_weight():
    class TwoTenants(StillJobs):
        def new_tokens(self, turn):
            return 100

        def history_tokens(self, turn):
            return 0

        def cached_tokens(self, turn):
            return 0

        def tenant(self, turn):
            return int(turn >= 30)

    served = _served("fair-share", range(60), TwoTenants())  # tenant 0 came first, with 30 turns; tenant 1 has twice its weight
    assert sum(turn >= 30 for turn in served[:30]) == 20


BROKEN = {
    "lruu": ("eviction", "did you mean 'lru'"),
    "no_such_module:Thing": ("eviction", "cannot load"),
    "collections:OrderedDict": ("eviction", "not a subclass"),
    "kvplan.sim.policies.base:Eviction": ("eviction", "does not define"),
    "test_store:NeedsNonsense": ("eviction", r"NEEDS is frozenset\({'ques'}\)"),
    "test_store:FollowsWithoutUpdate": ("scheduling", "does not define update"),
    "test_store:LearnsUndeclared": ("scheduling", "defines done, which is called only for those that set LEARNS"),
    "test_store:HoldsUndeclared": ("prefetch", "defines patience_s, which is called only for those that set HOLDS"),
    "test_store:HoldsWithoutPatience": ("prefetch", "sets HOLDS and does not define patience_s"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_unknown_and_broken_policies_are_named(name):
    kind, message = BROKEN[name]
    with pytest.raises(registry.PolicyError, match=message):
        registry.find(kind, name)


class FailsOnUse(Lru):
    def use(self, session):
        raise KeyError(session)


class NamesAStranger(Lru):
    def victim(self):
        return 7


class LosesAJob(Fcfs):
    def pop(self):
        self._turns.popleft()
        return self._turns.popleft()


class LoadsTooMuch(Load):
    NAME = "too-much"

    def loads(self, job):
        return job.cached + 1, 1.0, 2.0


class FetchesNobody(LookAheadFetch):
    def next(self, queue, room):
        return 99


class Leaves(Lru):
    def victim(self):
        raise SystemExit(0)


class NeverNames(Lru):
    def victim(self):
        return None


class ReadsTheFuture(Lru):
    def use(self, session):
        self.view.next_use_s(session)


class NeedsNonsense(Lru):
    NEEDS = frozenset({"ques"})


class FollowsWithoutUpdate(Fcfs):
    FOLLOWS_KV = True


class LearnsUndeclared(Fcfs):
    def done(self, turn, output_tokens):
        pass


class HoldsUndeclared(LookAheadFetch):
    def patience_s(self, tokens):
        return 1.0


class HoldsWithoutPatience(LookAheadFetch):
    HOLDS = True


class LosesOnArrival(Fcfs):
    def push(self, turn):
        return super().push(turn) if turn % 10 else float(turn)


class PopsAnother(Fcfs):
    def pop(self):
        return self._turns.pop()


class WantsPatience(LookAheadFetch):
    HOLDS = True

    def patience_s(self, tokens):
        return math.nan


class ForgetsToAnswer(Back):
    def demotes(self, session, uses, size, now_s):
        pass


class LoadsForNothing(Load):
    NAME = "free"

    def loads(self, job):
        return job.cached, 0.0, 0.0


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("store.eviction=test_store:Leaves", r"victim\(\) raised SystemExit"),
        ("store.eviction=test_store:NeverNames", r"victim\(\) answered None, with \d+ to choose from"),
        ("store.eviction=test_store:ReadsTheFuture", r"calls next_use_s and does not declare 'future'"),
        ("scheduler=test_store:LosesOnArrival", r"(head|pop|__len__|position_at)\(.*\) (answered|left)"),
        ("scheduler=test_store:PopsAnother", r"pop\(\) answered \d+, but head\(\) had answered"),
        ("store.prefetch=test_store:WantsPatience", r"patience_s\(\d+\) answered nan"),
        ("store.write=test_store:ForgetsToAnswer", r"demotes\(.*\) answered None, which is neither"),
        ("store.load=test_store:LoadsForNothing", r"loads\(Loader\) answered \(\d+, 0.0, 0.0\)"),
        ("store.eviction=test_store:FailsOnUse", r"eviction policy 'test_store:FailsOnUse': use\(\d+\) raised KeyError: \d+"),
        ("store.eviction=test_store:NamesAStranger", r"victim\(\) answered 7, which is not among"),
        ("scheduler=test_store:LosesAJob", r"scheduling policy 'test_store:LosesAJob': pop\(\) (answered|raised)"),
        ("store.load=test_store:LoadsTooMuch", r"loads\(Loader\) answered \(\d+, 1.0, 2.0\)"),
        ("store.prefetch=test_store:FetchesNobody", r"next\(\w+, [\d.]+\) answered 99"),
    ],
)
def test_a_user_policy_that_fails_is_named_with_its_call_and_key(setting, message):
    with pytest.raises(registry.PolicyError, match=message):
        simulate(config.load(None, ["workload.sessions=60", "store.dram=5GB", "workload.arrival.rate_per_s=5", setting]))


class LruOfNumpy(Lru):
    def victim(self):
        return None if (victim := super().victim()) is None else np.int64(victim)


class FcfsOfNumpy(Fcfs):
    def push(self, turn):
        return np.float32(super().push(turn))

    def head(self):
        return None if (head := super().head()) is None else np.int32(head)

    def pop(self):
        return np.int32(super().pop())


class AlwaysOfNumpy(Always):
    def loads(self, job):
        tokens, compute_s, done_s = super().loads(job)
        return np.int64(tokens), np.float64(compute_s), np.float64(done_s)


class BackOfNumpy(Back):
    def demotes(self, session, uses, size, now_s):
        return np.bool_(super().demotes(session, uses, size, now_s))


def test_numpy_numbers_of_a_user_policy_are_numbers():
    setup = ["workload.sessions=60", "store.dram=5GB", "workload.arrival.rate_per_s=2"]
    names = {"store.eviction": "lru", "scheduler": "fcfs", "store.load": "always", "store.write": "back"}
    own = {"store.eviction": "LruOfNumpy", "scheduler": "FcfsOfNumpy", "store.load": "AlwaysOfNumpy", "store.write": "BackOfNumpy"}
    plain = simulate(config.load(None, [*setup, *(f"{path}={name}" for path, name in names.items())]))
    numpy = simulate(config.load(None, [*setup, *(f"{path}=test_store:{name}" for path, name in own.items())]))
    assert plain.to_frame().equals(numpy.to_frame())


@pytest.mark.parametrize(
    ("kind", "path"), [("scheduling", "scheduler"), *((kind, f"store.{kind}") for kind in ("eviction", "prefetch", "write", "load"))]
)
def test_supervision_changes_no_result(kind, path):
    """Nor does a packaged policy fail it."""
    for name, policy in registry.policies(kind).items():
        setup = ["workload.sessions=60", "store.dram=5GB", "workload.arrival.rate_per_s=2"]
        plain, own = (
            simulate(config.load(None, [*setup, f"{path}={value}"])).summary for value in (name, f"{policy.__module__}:{policy.__name__}")
        )
        assert plain | {"provenance": 0} == own | {"provenance": 0}


# --- the store as a state machine -------------------------------------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Random turns, moves and truncations, as the engine makes them; the books must agree at every moment."""

    SESSIONS = 6

    @initialize(
        sizes=st.sampled_from([(40,), (40, 100), (20, 40, 100), (100, 40), (15, 100), (40, 25, 100)]),
        eviction=st.sampled_from(sorted(EVICTION)),
        prefetch=st.sampled_from(sorted(PREFETCH)),
        write=st.sampled_from(sorted(WRITE)),
        whole=st.booleans(),
        ttl=st.sampled_from([None, 5.0]),
    )
    def build(self, sizes, eviction, prefetch, write, whole, ttl):
        names = {1: ["dram"], 2: ["dram", "ssd"], 3: ["hbm", "dram", "ssd"]}[len(sizes)]
        self.queue = Fcfs(StillJobs())
        tiers = [spec(name, size, size // 10) for name, size in zip(names, sizes, strict=True)]
        self.store = SessionStore(tiers, EVICTION[eviction], PREFETCH[prefetch](), self.queue, WRITE[write](1.0), Knowledge(), ttl, whole)
        self.known = dict.fromkeys(range(self.SESSIONS), 0)
        self.store.watch = self
        self.waiting, self.running = set(), set()
        self.demoting, self.fetching = {}, None
        self.in_use = {}
        self.now = 0.0

    def evicted(self, store, index, session, wanted):
        if not any(above.held(session) for above in store.tiers[:index]):
            self.known[session] = max((below.held(session) for below in store.tiers[index + 1 :]), default=0)

    def expired(self, store, session, now):
        self.known[session] = 0

    def later(self):
        self.now += 1.0
        return self.now

    @rule(session=st.integers(0, SESSIONS - 1))
    def arrive(self, session):
        if session not in self.waiting | self.running:
            self.store.come(session, self.later())
            self.store.expect(session, self.queue.push(session))
            self.waiting.add(session)

    @precondition(lambda self: self.waiting and len(self.running) < 3)
    @rule(cut=st.integers(0, 12), void=st.booleans())
    def start(self, cut, void):
        session = self.queue.pop()
        self.waiting.remove(session)
        self.running.add(session)
        now = self.later()
        self.store.claim(session, now)
        if cut and void:
            self.store.keep_only(session, now, Useful(stop=0))
            self.known[session] = 0
        elif cut:
            self.store.keep_only(session, now, Useful(start=cut))
            self.known[session] = max(0, self.known[session] - cut)
        _, size = self.store.lookup(session)
        assert size == self.known[session], "a hit is exactly what was saved and not lost since"
        self.in_use[session] = size
        if size:
            self.store.load(session, size, now)

    @precondition(lambda self: self.running)
    @rule(new=st.integers(1, 12))
    def end(self, new):
        session = min(self.running)
        self.running.remove(session)
        now = self.later()
        _, held = self.store.lookup(session)
        total = min(max(held, self.known[session]) + new, 35)
        if total > held and self.store.save(session, total, now)[1]:
            self.known[session] = total
        self.store.release(session, now)
        del self.in_use[session]

    @rule()
    def start_moves(self):
        now = self.later()
        for source in range(len(self.store.tiers) - 1):
            if source not in self.demoting:
                move = self.store.next_demotion(source, now)
                if move:
                    assert move.size > 0
                    self.demoting[source] = move
        if self.store.fetch_target is not None and self.fetching is None:
            self.fetching = self.store.next_fetch(now)

    @rule()
    def finish_demotions(self):
        for _, move in sorted(self.demoting.items()):
            self.store.end_move(move, self.later())
        self.demoting.clear()

    @precondition(lambda self: self.fetching is not None)
    @rule()
    def finish_fetch(self):
        self.store.end_move(self.fetching, self.later())
        self.fetching = None

    @invariant()
    def books_agree(self):
        if not hasattr(self, "store"):
            return
        for tier in self.store.tiers:
            assert 0 <= tier.used <= tier.capacity
            assert sum(tier.sessions().values()) == tier.used == tier.written - tier.moved - tier.dropped
            assert min(tier.sessions().values(), default=0) >= 0
        for session in range(self.SESSIONS):
            home, _ = self.store.lookup(session)
            if home < 0:
                assert not any(tier.held(session) for tier in self.store.tiers if tier.index != self.store.fetch_target)
                continue
            held = self.store.tiers[home].held(session)
            assert held > 0
            for below in self.store.tiers[home + 1 :]:
                assert below.held(session) <= held, "a copy below is a prefix"
        for session, size in self.in_use.items():
            assert self.store.lookup(session)[1] >= size, "nobody evicts what a running turn uses"
        for session in range(self.SESSIONS):
            self.a_record_is_one_of_its_states(session, self.store._records[session])
        staging = self.store._staging
        if staging is not None:
            records, held = self.store._records.values(), staging.tier.held
            assert staging.claimed == sum(held(record.session) for record in records if record.claimed)
            assert staging.fetched == sum(held(record.session) for record in records if record.fetched)

    def a_record_is_one_of_its_states(self, session, record):
        """The table of `kvplan.sim.store.record`, and of `NEW` and `ASIDE`."""
        moves = [*self.demoting.values(), *([self.fetching] if self.fetching else [])]
        own = sum(move.session == session and move.target > move.source for move in moves)
        runs, stages = session in self.running, self.store._staging is not None
        assert (record.position is not None) == (session in self.waiting)
        assert record.claimed == (runs and stages)
        assert not record.fetched or not runs
        assert record.pins == own + runs + record.fetched
        assert (record in self.store._pinned) == (record.pins > 0)
        for tier in self.store.tiers:
            assert not (session in tier.out and not tier.held(session))
            assert tier.out.get(session) != ASIDE or record.pins


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def _two_tiers(dram=100, ssd=1000, **options):
    queue = Fcfs(StillJobs())
    tiers = [spec("dram", dram, dram // 10), spec("ssd", ssd)]
    return SessionStore(tiers, LookAhead, LookAheadFetch(), queue, Back(math.inf), Knowledge(), **options), queue


def _turn(store, queue, session, size, now):
    store.expect(session, queue.push(session))
    store.claim(queue.pop(), now)
    store.save(session, size, now)
    store.release(session, now)


def test_only_the_delta_is_written_again():
    store, queue = _two_tiers()
    _turn(store, queue, 0, 60, 0.0)
    _turn(store, queue, 1, 40, 1.0)
    move = store.next_demotion(0, 2.0)
    assert (move.session, move.size) == (0, 60)
    store.end_move(move, 3.0)
    assert store.lookup(0) == (1, 60)
    store.expect(0, queue.push(0))
    fetch = store.next_fetch(4.0)
    assert (fetch.session, fetch.source, fetch.target, fetch.size) == (0, 1, 0, 60)
    assert store.lookup(0) == (1, 60)
    store.end_move(fetch, 5.0)
    assert store.lookup(0) == (0, 60)
    assert store.next_demotion(0, 5.0).session == 1  # the fetched session is pinned for its job
    store.claim(queue.pop(), 6.0)
    store.keep_only(1, 6.0, Useful(stop=0))
    assert store.save(0, 95, 6.0) == (0, 35)
    store.release(0, 6.0)
    delta = store.next_demotion(0, 7.0)
    assert (delta.session, delta.size) == (0, 35)


def test_truncation_cuts_every_copy():
    store, queue = _two_tiers()
    _turn(store, queue, 0, 95, 0.0)
    move = store.next_demotion(0, 1.0)
    store.claim(0, 2.0)
    store.end_move(move, 3.0)
    assert store.lookup(0) == (0, 95)  # in use: it stays
    store.keep_only(0, 4.0, Useful(start=20))
    assert [tier.held(0) for tier in store.tiers] == [75, 75]


def test_a_save_without_room_keeps_the_prefix():
    store, queue = _two_tiers(dram=100)
    _turn(store, queue, 0, 50, 0.0)
    store.claim(0, 1.0)
    store.claim(1, 1.0)
    assert store.save(1, 60, 1.0, lambda tier, size: False) == (-1, 0)
    assert store.skipped_saves == 1 and store.lookup(1) == (-1, 0)
    assert store.save(0, 100, 1.0) == (0, 50)


def test_a_save_without_room_goes_to_the_next_tier():
    store, _ = _two_tiers(dram=100)
    for session, size in ((0, 50), (1, 60), (2, 150)):
        store.claim(session, 0.0)
        assert store.save(session, size, 0.0) == (int(session > 0), size)
    assert store.skipped_saves == 0
    assert [store.lookup(session) for session in range(3)] == [(0, 50), (1, 60), (1, 150)]
    assert store.save(0, 101, 1.0) == (1, 101)  # it has outgrown the first tier, which keeps nothing of it
    assert store.tiers[0].held(0) == 0


def test_what_a_middle_tier_cannot_hold_is_kept_below_it():
    """In the first tier it could never make room again."""
    store = SessionStore(
        [spec("hbm", 100, 10), spec("dram", 40, 4), spec("ssd", 1000)],
        Lru,
        LookAheadFetch(),
        Fcfs(StillJobs()),
        Back(math.inf),
        Knowledge(),
    )
    for session, size in ((0, 50), (1, 40)):
        store.claim(session, 0.0)
        store.save(session, size, 0.0)
    assert store.lookup(0) == (2, 50) and store.lookup(1) == (0, 40)


def test_room_is_made_whole_or_not_at_all():
    """A save that has no room although all leave that can: nobody leaves."""
    store = SessionStore([spec("dram", 100)], Lru, LookAheadFetch(), Fcfs(StillJobs()), Back(math.inf), Knowledge())
    for session in range(3):
        _turn(store, Fcfs(StillJobs()), session, 30, float(session))
    store.claim(0, 4.0)
    store.claim(5, 4.0)
    assert store.save(5, 80, 5.0) == (-1, 0)
    assert [store.lookup(session)[1] for session in range(3)] == [30, 30, 30]


def test_a_demotion_without_room_below_leaves_what_is_there():
    store, queue = _two_tiers(dram=100, ssd=60)
    _turn(store, queue, 0, 60, 0.0)
    _turn(store, queue, 1, 35, 1.0)
    store.end_move(store.next_demotion(0, 2.0), 3.0)
    assert store.lookup(0) == (1, 60)
    store.claim(0, 4.0)
    store.load(0, 60, 4.0)
    store.keep_only(1, 4.0, Useful(stop=0))
    store.save(0, 95, 5.0)
    store.release(0, 5.0)
    assert store.next_demotion(0, 6.0) is None
    assert store.lookup(0) == (1, 60)  # 35 of its 95 bytes are lost


def test_what_was_cut_back_while_it_was_fetched_ends_with_what_is_left():
    queue = Fcfs(StillJobs())
    tiers = [spec("dram", 100, 10), spec("ssd", 1000)]
    store = SessionStore(tiers, Lru, PREFETCH["hint"](), queue, Back(math.inf), Knowledge())
    _turn(store, queue, 0, 60, 0.0)
    _turn(store, queue, 1, 40, 1.0)
    store.end_move(store.next_demotion(0, 2.0), 3.0)
    store.announce(0)
    move = store.next_fetch(4.0)
    store.keep_only(0, 5.0, Useful(stop=25))
    store.claim(0, 6.0)
    store.end_move(move, 6.0, sent=10)
    assert store.arrived(0) == (0, 10) and store.lookup(0) == (1, 25)
    dram = store.tiers[0]
    assert dram.written - dram.moved - dram.dropped == dram.used == 40 + 10


def test_a_demotion_without_room_below_makes_demotion_there_due():
    queue = Fcfs(StillJobs())
    store = SessionStore(
        [spec("hbm", 40, 20), spec("dram", 60), spec("ssd", 1000)], Lru, LookAheadFetch(), queue, Back(math.inf), Knowledge()
    )
    for session in range(3):
        _turn(store, queue, session, 35, float(session))
        while (move := store.next_demotion(0, session + 0.2)) is not None:
            store.end_move(move, session + 0.3)
    assert store.tiers[1].free < 35  # session 1 has to wait for room in DRAM …
    below = store.next_demotion(1, 4.0)
    assert (below.session, below.target) == (0, 2)  # … which therefore writes session 0 to SSD
    store.end_move(below, 5.0)
    assert store.next_demotion(0, 6.0).session == 1


@pytest.mark.parametrize("moving", [False, True])
def test_ttl_ends_also_what_is_on_the_move(moving):
    store, queue = _two_tiers(ttl_s=10.0)
    _turn(store, queue, 0, 95, 0.0)
    move = store.next_demotion(0, 1.0) if moving else None
    store.come(1, 20.0)  # lets time pass
    if moving:
        assert store.lookup(0) == (0, 95)
        store.end_move(move, 21.0)
    store.come(0, 22.0)
    assert store.lookup(0) == (-1, 0)


def test_ttl_does_not_count_the_time_in_the_queue():
    store, queue = _two_tiers(ttl_s=10.0)
    _turn(store, queue, 0, 60, 0.0)
    store.come(0, 10.0)
    store.expect(0, queue.push(0))
    store.come(1, 50.0)  # lets time pass
    store.claim(queue.pop(), 60.0)
    assert store.lookup(0) == (0, 60)


def test_ttl_forgets_the_turn_before():
    """A turn that is running when its predecessor's time is over is not idle."""
    store, queue = _two_tiers(ttl_s=10.0)
    _turn(store, queue, 0, 60, 0.0)
    store.come(0, 5.0)
    store.claim(0, 5.0)
    store.come(1, 20.0)
    store.save(0, 90, 21.0)
    store.release(0, 21.0)
    store.come(0, 25.0)
    assert store.lookup(0) == (0, 90)


def test_ttl_ends_what_was_fetched_for_a_turn_that_comes_too_late():
    queue = Fcfs(StillJobs())
    tiers = [spec("dram", 100, 10), spec("ssd", 1000)]
    store = SessionStore(tiers, Lru, PREFETCH["hint"](), queue, Back(math.inf), Knowledge(), ttl_s=10.0)
    _turn(store, queue, 0, 60, 0.0)
    _turn(store, queue, 1, 40, 1.0)
    store.end_move(store.next_demotion(0, 2.0), 3.0)
    store.announce(0)
    store.end_move(store.next_fetch(4.0), 5.0)
    store.come(0, 30.0)
    assert store.lookup(0) == (-1, 0)


# --- links ------------------------------------------------------------------------------------------------------------------------


def test_transfers_queue_in_order():
    link = Link("l", 10.0, 0.5, 100)
    assert link.book(0.0, 10) == (0.0, 1.5)
    assert link.book(0.0, 10) == (1.5, 3.0)
    assert link.book(9.0, 20) == (9.0, 11.5)
    assert (link.bytes, link.busy_s) == (40, 5.5)


def test_demand_waits_for_one_piece_of_background_traffic():
    link = Link("l", 10.0, 0.0, 10)  # a piece takes a second
    assert link.book_background(0.0, 100) == 10.0
    assert link.book(2.5, 20) == (3.0, 5.0)
    assert link.background_end == 12.0
    assert link.book(4.0, 10) == (5.0, 6.0)
    assert link.background_end == 13.0
    assert link.book(12.5, 10) == (13.0, 14.0)  # the last piece
    assert link.background_end == 13.0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 500)), min_size=1, max_size=30))
def test_demand_transfers_never_overlap_and_never_wait_for_more_than_a_piece(requests):
    link, ready, last_end = Link("l", 100.0, 0.01, 50), 0.0, 0.0
    link.book_background(0.0, 100_000)
    for gap, size in requests:
        ready += gap
        start, end = link.book(ready, size)
        assert start >= max(ready, last_end)
        assert start - max(ready, last_end) <= 50 / 100 + 1e-9
        assert math.isclose(end - start, 0.01 + size / 100)
        last_end = end
    assert math.isclose(link.background_end, 0.01 + 1000 + sum(0.01 + size / 100 for _, size in requests))
