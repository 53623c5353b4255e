"""A workload made denser, larger, longer, or with longer contexts, for what-if questions about a recorded trace.

Left out: anything that would change with the load in the real world (people who give up, answers that get shorter).
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kvplan.traces.workload import MAX_TOKENS, TraceError, Workload


def scaled_rate(workload: Workload, factor: float) -> Workload:
    """Sessions arrive `factor` times as fast; what happens within a session keeps its pace. Needs arrivals."""
    return _moved(workload, _starts(workload) / factor)


def scaled_context(workload: Workload, factor: float) -> Workload:
    """Prompts, answers and dropped history times `factor`, rounded; block hashes no longer fit and are left out. Raises TraceError when a
    message passes the largest size."""

    columns: dict[str, Any] = {name: _scaled(getattr(workload, name), factor, "context") for name in ("prompt_tokens", "output_tokens")}
    begun = None if workload.beginnings is None else workload.beginnings.scaled(factor)
    changed = replace(workload, **columns, dropped_tokens=None, blocks=None, beginnings=begun)
    if workload.dropped_tokens is None:
        return changed
    kept = np.floor(workload.history_tokens * factor).astype(np.int64)
    return replace(changed, dropped_tokens=dropped_to_leave(changed, kept))


def scaled_output(workload: Workload, factor: float) -> Workload:
    """Answers times `factor`, rounded; history grows with them. Of an answer that a turn does not go on from, or not all, the same share is
    dropped. Block hashes are left out, and what sessions have in common beyond a first prompt. Raises TraceError."""
    longer = _scaled(workload.output_tokens, factor, "output")
    first_prompts = workload.prompt_tokens[workload.first_turn[:-1]]
    begun = None if workload.beginnings is None else workload.beginnings.cut(first_prompts)
    changed = replace(workload, output_tokens=longer, blocks=None, dropped_tokens=None, beginnings=begun)
    if workload.dropped_tokens is None:
        return changed
    dropped, answer = workload.dropped_tokens, np.append(1, workload.output_tokens[:-1])
    of_answer = np.minimum(dropped, answer)
    of_longer = of_answer * np.append(1, longer[:-1]) // np.maximum(1, answer)
    return replace(changed, dropped_tokens=dropped_within(changed, dropped - of_answer + of_longer))


def scaled_think_times(workload: Workload, factor: float) -> Workload:
    """Think times times `factor`. Raises TraceError for an open loop, whose turns come when they are recorded."""
    if workload.open_loop:
        raise TraceError("workload.rescale.think needs think times, and an open loop has none: set workload.loop=closed")
    return workload.with_gaps(workload.gap_s * factor)


def _scaled(column: np.ndarray, factor: float, what: str) -> np.ndarray:
    """Tokens of messages. Raises TraceError when one passes the largest size."""
    tokens = np.maximum(np.rint(column * factor), 1)
    if tokens.max() > MAX_TOKENS:
        raise TraceError(f"{what} x {factor:g} makes a message of {tokens.max():,.0f} tokens")
    return tokens.astype(column.dtype)


def scaled_sessions(workload: Workload, factor: float, rng: np.random.Generator) -> Workload:
    """`factor` times as many sessions in the same time. Copies start near the recorded start of a session drawn at random, so the course of
    the day stays; below 1, a random part of the sessions is kept."""
    whole = len(workload.roots)
    count = round(whole * factor)
    if not count:
        raise TraceError(f"sessions x {factor:g} leaves none of {whole}")
    if count <= whole:
        return _families(workload, np.sort(rng.permutation(whole)[:count]))
    extra = rng.integers(0, whole, count - whole)
    larger = _families(workload, np.concatenate([np.arange(whole), extra]))
    if not workload.arrivals_known:
        return larger
    starts = _starts(workload)
    jitter = rng.random(len(extra)) * (np.ptp(starts) / whole)
    return _moved(larger, np.concatenate([starts, starts[rng.integers(0, whole, len(extra))] + jitter]))


def resampled(workload: Workload, sessions: int, rng: np.random.Generator) -> Workload:
    """A run of `sessions` sessions drawn with replacement (bootstrap), each with those that it starts. Recorded starts are repeated, one
    recorded span after the other."""
    picked = _families(workload, rng.integers(0, len(workload.roots), sessions))
    if not workload.arrivals_known:
        return picked
    return _moved(picked, repeated(_starts(workload), sessions))


def _families(workload: Workload, which: np.ndarray) -> Workload:
    """Sessions that come by themselves, by their place among `roots`, each followed by those that come with it."""
    if workload.families is None:
        return workload.select(which)
    members = [np.flatnonzero(workload.families.root == root) for root in workload.roots]
    return workload.select(np.concatenate([members[place] for place in which.tolist()]))


def _starts(workload: Workload) -> np.ndarray:
    """Seconds at which sessions begin that come by themselves."""
    return workload.arrival_s[workload.first_turn[workload.roots]]


def repeated(starts_s: np.ndarray, count: int) -> np.ndarray:
    """Ascending: `count` start times from recorded ones in any order, one recorded span after the other, the first at 0.

    A span is the time from the first start to the last, and one mean spacing.
    """
    starts = np.sort(starts_s) - np.min(starts_s)
    span = starts[-1] * len(starts) / max(len(starts) - 1, 1)
    passes, place = np.divmod(np.arange(count), len(starts))
    return passes * span + starts[place]


def _moved(workload: Workload, starts_s: np.ndarray) -> Workload:
    """Sessions that begin at `starts_s`, one of each of `roots`, all their turns and what they start moved along."""
    shift = np.empty(workload.sessions)
    shift[workload.roots] = starts_s - _starts(workload)
    if workload.families is not None:
        shift = shift[workload.families.root]
    return replace(workload, arrival_s=workload.arrival_s + shift[workload.session])


def dropped_to_leave(workload: Workload, kept: np.ndarray) -> np.ndarray:
    """The `dropped_tokens` that leave each turn `kept` tokens of history, or all of it where that is less."""
    return _dropped(workload, kept, lambda history, wanted: max(0, history - wanted))


def dropped_within(workload: Workload, wanted: np.ndarray) -> np.ndarray:
    """The `dropped_tokens` that are `wanted`, or all of the history where that is less."""
    return _dropped(workload, wanted, min)


def _dropped(workload: Workload, each: np.ndarray, of: Callable[[int, int], int]) -> np.ndarray:
    """What `of` makes of the history and the number of each turn."""
    added = (workload.prompt_tokens.astype(np.int64) + workload.output_tokens).tolist()
    dropped, context = np.zeros(workload.turns, np.int64), 0
    for turn, (first, number) in enumerate(zip(workload.is_first.tolist(), each.tolist(), strict=True)):
        history = 0 if first else context
        dropped[turn] = of(history, number)
        context = history - dropped[turn] + added[turn]
    return dropped
