"""Caches with known answers: stack distances and the optimum, access by access, and hit rates under independent references.

The workload of the hit rates is the textbook's, not a server's: every access is to session i with probability p_i, whatever came before
(independent reference model), and all sessions are of one size. So a session's KV is there or not, and the store is a cache of C sessions.
It is replayed without a clock (`kvplan.sim.replay`), and through the simulator's `SessionStore`. Time to live is tried in whole
simulations.

Sources: King, IFIP Congress 1971 (LRU); Gelenbe, IEEE Trans. Computers C-22, 1973 (FIFO hits as often as random replacement, whose states
have the probability of the product of their p_i); Che, Tung and Wang, IEEE JSAC 20(7), 2002 (LRU, approximation), and its FIFO form and how
good both are: Fricker, Robert and Roberts, ITC 2012, Martina, Garetto and Leonardi, INFOCOM 2014; Mattson et al., IBM Systems Journal 9(2),
1970; Belady, IBM Systems Journal 5(2), 1966.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

from kvplan.sim import config
from kvplan.sim.policies.base import Eviction
from kvplan.sim.policies.registry import find
from kvplan.sim.replay.clockless import replay
from kvplan.sim.rng import stream
from kvplan.sim.simulation import simulate
from kvplan.sim.store.sessions import SessionStore
from kvplan.sim.store.view import Knowledge
from kvplan.sim.tiers import TierSpec
from kvplan.traces.reuse import Accesses, stack_distances
from kvplan.traces.workload import untimed
from kvplan.validate.verdict import Finding, averaged

LRU, FIFO, BELADY = (find("eviction", name) for name in ("lru", "fifo", "belady"))
SEQUENCES = 150
ACCESSES, WARM, REPLICATIONS = 40_000, 10_000, 8
CHE_ERROR = 0.002
"""How far off Che's approximation may be for some hundred sessions; the sources' figures show less."""
FEW, FEW_FIT = np.array([0.3, 0.25, 0.2, 0.12, 0.08, 0.05]), 3


def zipf(sessions: int, exponent: float) -> np.ndarray:
    """Probabilities that fall with rank to the power of −exponent."""
    weight = np.arange(1, sessions + 1) ** -exponent
    return weight / weight.sum()


def equal_sizes(session: np.ndarray) -> Accesses:
    """Accesses in this order, a second apart, to sessions that hold one unit each from their first on."""
    again = np.ones(len(session), np.int64)
    again[np.unique(session, return_index=True)[1]] = 0
    time = np.arange(len(session), dtype=float)
    return Accesses(session, time, np.where(again, 1.0, np.nan), again, np.ones_like(again))


def through_store(policy: type[Eviction], seen: Accesses, capacity: int) -> np.ndarray:
    """bool per access: whether the simulator's store, with one tier, had the session's KV. No turn overlaps another."""
    queue, prefetch, write = find("scheduling", "fcfs")(None), find("prefetch", "none")(), find("write", "back")(math.inf)
    store = SessionStore([TierSpec("dram", capacity, 0)], policy, prefetch, queue, write, Knowledge())
    hits = []
    for session, now in zip(seen.session.tolist(), seen.time_s.tolist(), strict=True):
        store.claim(session, now)
        hits.append(store.lookup(session)[1] > 0)
        store.save(session, 1, now)
        store.release(session, now)
    return np.array(hits)


# --- every access -----------------------------------------------------------------------------------------------------------------


def lru_distance(session: np.ndarray) -> list[int]:
    """Mattson's stack, kept as a list: the place of each session in it when it is used, from 1; −1 when it is not there."""
    stack: list[int] = []
    found = []
    for one in session.tolist():
        found.append(stack.index(one) + 1 if one in stack else -1)
        stack = [one, *(other for other in stack if other != one)]
    return found


def most_hits(session: np.ndarray, capacity: int) -> int:
    """The most hits that any choice of victims gives, all of them tried; what is missed must be stored."""
    best: dict[frozenset[int], int] = {frozenset(): 0}
    for one in session.tolist():
        following: dict[frozenset[int], int] = {}
        for held, hits in best.items():
            if one in held:
                choices = [(held, hits + 1)]
            elif len(held) < capacity:
                choices = [(held | {one}, hits)]
            else:
                choices = [(held - {victim} | {one}, hits) for victim in held]
            for state, value in choices:
                following[state] = max(value, following.get(state, 0))
        best = following
    return max(best.values())


def orders() -> list[Finding]:
    """Stack distances, LRU at every capacity and Belady's order, on random sequences: accesses, or sequences, that differ."""
    distances = at_capacities = stored = optima = 0
    for seed in range(SEQUENCES):
        session = stream(seed, "orders").choice(7, 60, p=zipf(7, 0.7))
        session = np.unique(session, return_inverse=True)[1]
        seen, exact = equal_sizes(session), np.array(lru_distance(session))
        distances += int(np.sum(stack_distances(seen) != exact))
        for capacity in range(1, 8):
            hits = (exact > 0) & (exact <= capacity)
            at_capacities += int(np.sum(replay(LRU, seen, capacity).hit != hits))
            stored += int(np.sum(through_store(LRU, seen, capacity) != hits))
        optima += int(replay(BELADY, seen, FEW_FIT).hit.sum()) != most_hits(session, FEW_FIT)
    return [
        Finding(f"stack distances of {SEQUENCES} sequences, wrong", 0, "Mattson, by a list", distances, 0),
        Finding("LRU at 7 capacities, replay, wrong accesses", 0, "Mattson, by a list", at_capacities, 0),
        Finding("LRU at 7 capacities, SessionStore, wrong accesses", 0, "Mattson, by a list", stored, 0),
        Finding(f"most hits of {SEQUENCES} sequences, wrong", 0, "Belady, all choices tried", optima, 0),
    ]


# --- hit rates --------------------------------------------------------------------------------------------------------------------


def king(popularity: np.ndarray, capacity: int) -> float:
    """LRU's hit rate, exactly: over all orders of last use of the `capacity` sessions that are there."""
    rate = 0.0
    for order in itertools.permutations(range(len(popularity)), capacity):
        chance, left = 1.0, 1.0
        for session in order:
            chance *= popularity[session] / left
            left -= popularity[session]
        rate += chance * (1 - left)
    return rate


def gelenbe(popularity: np.ndarray, capacity: int) -> float:
    """FIFO's hit rate, exactly."""
    sets = [list(held) for held in itertools.combinations(range(len(popularity)), capacity)]
    weight = np.array([popularity[held].prod() for held in sets])
    return float(weight @ [popularity[held].sum() for held in sets] / weight.sum())


def che(popularity: np.ndarray, capacity: int, present: Callable[[np.ndarray], np.ndarray]) -> float:
    """Che's approximation: session i is there with the chance present(p_i·T), T being such that `capacity` are there in the mean.

    LRU: present(x) = 1 − exp(−x), used within T. FIFO: x / (1 + x), T from when it came.
    """
    from scipy import optimize  # takes a moment to import

    most = 1e3 * len(popularity) / popularity.min()
    span = optimize.brentq(lambda span: present(popularity * span).sum() - capacity, 0.0, most)
    return float(popularity @ present(popularity * span))


def rates() -> list[Finding]:
    """Hit rates of the replay and of the store against exact formulas, Che's approximation and time to live."""
    many = zipf(1000, 0.8)
    cases = [
        ("LRU, 6 sessions, 3 fit, replay", LRU, FEW, FEW_FIT, king(FEW, FEW_FIT), "King", 0.0, _replayed),
        ("LRU, 6 sessions, 3 fit, SessionStore", LRU, FEW, FEW_FIT, king(FEW, FEW_FIT), "King", 0.0, through_store),
        ("FIFO, 6 sessions, 3 fit, replay", FIFO, FEW, FEW_FIT, gelenbe(FEW, FEW_FIT), "Gelenbe", 0.0, _replayed),
    ]
    cases += [
        (f"LRU, Zipf 0.8 of 1,000, {fit} fit, replay", LRU, many, fit, che(many, fit, _used), "Che", CHE_ERROR, _replayed)
        for fit in (30, 100, 400)
    ]
    cases += [
        ("LRU, Zipf 0.8 of 1,000, 100 fit, SessionStore", LRU, many, 100, che(many, 100, _used), "Che", CHE_ERROR, through_store),
        ("FIFO, Zipf 0.8 of 1,000, 100 fit, replay", FIFO, many, 100, che(many, 100, _came), "Che; Fricker et al.", CHE_ERROR, _replayed),
    ]
    spans = (5.0, 20.0, 60.0)
    figures, found = len(cases) + len(spans), []
    for name, policy, popularity, capacity, expected, source, bias, through in cases:
        sampled = [_hit_rate(policy, popularity, capacity, replication, through) for replication in range(REPLICATIONS)]
        found.append(averaged(name, expected, source, sampled, figures, bias))
    for ttl_s in spans:
        expected = 1 - math.exp(-ttl_s / THINK_S)
        sampled = [_kept(ttl_s, replication) for replication in range(REPLICATIONS)]
        found.append(averaged(f"ttl {ttl_s:g} s, turns every {THINK_S:g} s, simulate", expected, "1 - exp(-ttl/mean)", sampled, figures))
    return found


THINK_S = 20.0


def _used(x: np.ndarray) -> np.ndarray:
    return -np.expm1(-x)


def _came(x: np.ndarray) -> np.ndarray:
    return x / (1 + x)


def _replayed(policy: type[Eviction], seen: Accesses, capacity: int) -> np.ndarray:
    return replay(policy, seen, capacity).hit


def _hit_rate(policy: type[Eviction], popularity: np.ndarray, capacity: int, replication: int, through) -> float:
    """Of independent accesses after the warm-up."""
    drawn = stream(replication, f"references {len(popularity)}").choice(len(popularity), ACCESSES, p=popularity)
    return float(through(policy, equal_sizes(np.unique(drawn, return_inverse=True)[1]), capacity)[WARM:].mean())


def _kept(ttl_s: float, replication: int) -> float:
    """Share of the turns of one session, with exponential think times and nobody else there, that find their KV."""
    turns = 2_000
    table = untimed(np.zeros(turns, int), np.ones(turns, int), np.ones(turns, int))
    table = table.with_times(np.zeros(1), stream(replication, "time to live").exponential(THINK_S, turns))
    columns = simulate(config.load(None, [f"store.ttl_s={ttl_s}", "store.load=always"]), table).columns
    return float((columns["cached_tokens"][1:] > 0).mean())
