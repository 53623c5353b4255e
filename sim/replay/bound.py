"""The most that any eviction policy can hit, over a given order of accesses and with a given capacity, when sessions differ in size.

To be reused, KV must be held from the end of one turn to the start of its session's next: a *reuse*. It takes its bytes in every *slot*
(what the store holds after the end of some turn) that it spans, and no slot has more than the capacity. To find the best choice of reuses
is NP-hard; a bound lets them be held in part, and puts prices on what is scarce. Weak duality: for any prices p_t >= 0 of a byte in slot t,

    worth of any feasible choice <= capacity · sum of p_t + sum over reuses of max(0, worth − size · sum of p_t over its slots)

since a choice that fits pays no more than capacity · sum of p_t in all. So all prices give a bound, and poor ones only a loose one. The
first are those of PFOO-L: one price for all slots, the best one, which is what pooling them comes to ("all reuses together take no more
than capacity x slots", greedy by worth per byte and slot). Slots in which all reuses fit together are free and lend nothing. From there a
slot's price goes up where more is asked than there is, and down where less is. On kvplan's default preset that ends within a point of
hit rate above the linear program's optimum; PFOO-L is 4 to 9 above it.

What the bound knows: all sizes and the whole order. What it assumes of a policy: nothing. It may refuse to store, keep a part of a session
(which then counts by that part), and keep only what the next turn will use.

Over which order: the one given. In a closed loop a turn comes after the answer to the one before, so another policy makes another order,
in which the most that can be hit is another. The bound of a simulated run is that of the starts and ends that this run had.

Sources: Berger, Beckmann and Harchol-Balter, Practical Bounds on Optimal Caching with Variable Object Sizes, SIGMETRICS 2018 (intervals,
FOO's linear program, PFOO-L); the prices per slot are that program's dual, lowered by an exponentiated subgradient.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from kvplan.sim.replay.clockless import Saved, realised
from kvplan.traces.reuse import Accesses, previous

_ROUNDS = 200
_FIRST_STEP = 2.0
_HALVED_AFTER = 10


@dataclass(frozen=True)
class Reuses:
    """KV that turns could find, and when it must be held for that; columns of equal length."""

    start: np.ndarray
    """int: the first slot in which it is held."""
    stop: np.ndarray
    """int: the first slot in which it need not be held any more, `start` or later."""
    size: np.ndarray
    """float64: units held, more than 0."""
    slots: int
    """Slots in all, numbered from 0."""


def most(reuses: Reuses, worth: np.ndarray, capacity: int) -> float:
    """At least as much as the worth of any choice of reuses, or parts of them, that fits. `worth` > 0, one per reuse, is that of all of
    it; `capacity` > 0.

    O(n log n), and O(n) for each of 200 rounds of prices.
    """
    size = reuses.size / capacity
    scarce = np.append(0, np.cumsum(_asked(reuses.start, reuses.stop, size, reuses.slots) > 1))
    start, stop = scarce[reuses.start], scarce[reuses.stop]
    slots = int(scarce[-1])
    if not slots:
        return float(worth.sum())
    pooled, price = _pooled(size * (stop - start), worth, slots)
    return min(pooled, _priced(start, stop, size, worth, np.full(slots, price)))


def _asked(start: np.ndarray, stop: np.ndarray, size: np.ndarray, slots: int) -> np.ndarray:
    """What reuses take together, per slot."""
    change = np.bincount(start, size, slots + 1) - np.bincount(stop, size, slots + 1)
    return np.cumsum(change[:-1])


def _pooled(cost: np.ndarray, worth: np.ndarray, budget: float) -> tuple[float, float]:
    """PFOO-L, a fractional knapsack: (most worth within the budget, worth per cost of the first item that it has not all of, or of the
    last)."""
    order = np.argsort(cost / worth, kind="stable")
    cost, worth = cost[order], worth[order]
    spent = np.append(0.0, np.cumsum(cost))
    whole = min(int(np.searchsorted(spent, budget, side="right")), len(cost)) - 1
    price = float(worth[whole] / cost[whole])
    return float(worth[:whole].sum()) + min(budget - spent[whole], cost[whole]) * price, price


def _priced(start: np.ndarray, stop: np.ndarray, size: np.ndarray, worth: np.ndarray, price: np.ndarray) -> float:
    """The least bound on the way from these prices, one per slot, to better ones; sizes as shares of the capacity."""
    least = np.inf
    for done in range(_ROUNDS):
        paid = np.append(0.0, np.cumsum(price))
        gain = worth - size * (paid[stop] - paid[start])
        taken = gain > 0
        least = min(least, float(paid[-1] + gain[taken].sum()))
        excess = _asked(start[taken], stop[taken], size[taken], len(price)) - 1
        price = price * np.exp(_FIRST_STEP / (1 + done / _HALVED_AFTER) * np.clip(excess, -1, 1))
    return least


def bound(seen: Accesses, capacity: int, counted: np.ndarray | None = None) -> dict[str, float]:
    """Upper bounds on `Replayed.rates(counted)` of any policy over these accesses: `resumed` and `history`.

    A partial hit counts by its part, in both. A slot follows the end of each turn. KV is held from the end of a turn to the start of
    its session's next; that of running turns is taken to need no room in the tier.
    """
    if counted is None:
        counted = np.ones(len(seen.session), bool)
    turns, units = _gained(seen, capacity, counted, seen.history)
    again = counted & (previous(seen.session) >= 0)
    return {"resumed": turns / max(1, int(again.sum())), "history": units / max(1, int(seen.history[counted].sum()))}


def best_possible(
    columns: Mapping[str, np.ndarray],
    capacity_bytes: int,
    stored: Callable[[np.ndarray], np.ndarray],
    warmup_turns: int = 0,
    saved: Saved = lambda context, _: context,
    spoilt: np.ndarray | None = None,
) -> dict[str, float]:
    """Upper bounds on a simulated run's hit rates, over its own order of starts and ends: `resumed` and `tokens`, as in `hit_rate` of
    summary.json (shares of resumed turns and of context tokens, turns of the warm-up left out).

    `columns` are `Result.columns`; `capacity_bytes` is that of all tiers of one replica together, since KV in any of them can be reused;
    `stored`: bytes of sessions of so many tokens; `saved`: what is kept of a context; `spoilt`: whether a turn can use
    nothing of its history, whoever keeps it. A turn that found only a part of its history counts by that part in `resumed`; summary.json
    counts it whole. Copies of a session in several tiers, moves, reserves and pins are taken to need no room: they can only lower what a
    run hits.
    """
    measured = columns["order"] >= warmup_turns
    turns = tokens = 0.0
    for replica in np.unique(columns["replica"]):
        here = columns["replica"] == replica
        seen, order = realised({name: values[here] for name, values in columns.items()}, saved)
        if spoilt is not None:
            seen = replace(seen, history=np.where(spoilt[here][order], 0, seen.history))
        kept = np.minimum(seen.history, seen.size[previous(seen.session)])
        found = _gained(seen.sized(stored), capacity_bytes, measured[here][order], kept)
        turns, tokens = turns + found[0], tokens + found[1]
    resumed = measured & (columns["turn"] > 0)
    context = (columns["prompt_tokens"] + columns["history_tokens"])[measured].sum()
    return {"resumed": turns / max(1, int(resumed.sum())), "tokens": tokens / max(1, int(context))}


def _gained(seen: Accesses, capacity: int, counted: np.ndarray, history: np.ndarray) -> tuple[float, float]:
    """Bounds on (turns, sum of `history`) that find their KV, of the accesses that are counted."""
    reuses, turn = _reuses(seen, counted)
    return most(reuses, np.ones(len(turn)), capacity), most(reuses, history[turn].astype(float), capacity)


def _reuses(seen: Accesses, counted: np.ndarray) -> tuple[Reuses, np.ndarray]:
    """(reuses, the access that each is for)."""
    events = seen.events()
    is_end = events < 0
    ended = np.cumsum(is_end)
    start_slot, end_slot = np.empty((2, len(seen.session)), np.int64)
    start_slot[events[~is_end]] = ended[~is_end]
    end_slot[~events[is_end]] = ended[is_end] - 1
    before = previous(seen.session)
    size = np.minimum(seen.history, seen.size[before])
    turn = np.flatnonzero(counted & (before >= 0) & (size > 0))
    return Reuses(end_slot[before[turn]], start_slot[turn], size[turn].astype(float), len(before)), turn
