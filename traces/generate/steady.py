"""A cut out of an endless stream of sessions: some are under way when it begins, and some break off when it ends.

Sessions that all begin within a run make a load that rises for as long as a session lasts and falls when no more come: with overnight
returns for days. In a stream with rate λ the sessions under way at any moment are, of every kind of session that lasts d, λ·d of them on
average, each at an age that is uniform within 0 and d. (Poisson arrivals; Feller, "An Introduction to Probability Theory", volume 2,
chapter XI.)

What such a session said before is history that no cache has seen: it comes as part of the first prompt that is left of it. How long answers
take is an estimate of the caller's.
"""

from dataclasses import replace

import numpy as np

from kvplan.traces.beginnings import Beginnings
from kvplan.traces.context import contexts
from kvplan.traces.rescale import dropped_within
from kvplan.traces.workload import TraceError, Workload

_UNDER_WAY = "under_way_at_start"
"""Key in a workload's origin: sessions that began before it, and go on within it."""


def cut_from_stream(workload: Workload, window: int, ratio: float, s_per_token: float, rng: np.random.Generator) -> Workload:
    """The sessions of a closed loop with times, those under way when the first arrives, and all of them up to when the last arrives.

    `window` and `ratio` say what is left of a history that was too long (`kvplan.traces.context`), `s_per_token` about how long an answer
    takes. Raises TraceError for an open loop, or
    when all sessions arrive at once.
    """
    if workload.open_loop:
        raise TraceError("workload.steady cuts sessions out of a stream, and an open loop already is one: set workload.loop=closed")
    starts = workload.arrival_s[workload.first_turn[:-1]]
    span = float(np.ptp(starts))
    if span <= 0:
        raise TraceError("workload.steady needs sessions that arrive one after another, and these arrive all at once")
    first, offsets = workload.first_turn, _offsets(workload, s_per_token)
    lasts = offsets[first[1:] - 1]
    copies = rng.poisson(lasts / span)  # λ·d with λ = sessions / span, for each of the sessions
    old = np.repeat(np.arange(workload.sessions), copies)
    ages = rng.random(len(old)) * lasts[old]
    next_turn = _next_turn(offsets, first[old], first[old + 1], ages)
    seen = offsets[next_turn] - ages <= span  # most of a stream with long pauses never is
    chosen = np.append(np.arange(workload.sessions), old[seen])
    begins = np.append(starts - starts.min(), -ages[seen])
    rows, counts = workload.rows_of(chosen)
    at = offsets[rows] + np.repeat(begins, counts)
    inside = (at >= 0) & (at <= span)
    kept = _kept(workload, rows[inside], np.repeat(np.arange(len(chosen)), counts)[inside], at[inside], window, ratio)
    return replace(kept, origin={**workload.origin, _UNDER_WAY: kept.sessions - workload.sessions})


def begun(workload: Workload) -> int:
    """Sessions of a workload that begin within it: all, but for those that were under way where it is a cut."""
    return workload.sessions - workload.origin.get(_UNDER_WAY, 0)


def _offsets(workload: Workload, s_per_token: float) -> np.ndarray:
    """Seconds from a session's start to each of its turns'."""
    answers = np.append(0.0, workload.output_tokens[:-1] * s_per_token)
    offsets = np.cumsum(np.where(workload.is_first, 0.0, workload.gap_s + answers))
    return offsets - offsets[workload.first_turn[workload.session]]


def _next_turn(offsets: np.ndarray, low: np.ndarray, high: np.ndarray, age_s: np.ndarray) -> np.ndarray:
    """Of sessions whose turns are those from `low` up to `high`, the first at this age or after."""
    while np.any(low < high):
        middle = (low + high) // 2
        before = offsets[middle] < age_s
        low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
    return low


def _kept(workload: Workload, rows: np.ndarray, copy: np.ndarray, at: np.ndarray, window: int, ratio: float) -> Workload:
    """These turns, each of a copy of its session, at these times; the first of a copy brings along what it said before."""
    history, prompt, _ = contexts(workload, window, ratio)
    opens = np.diff(copy, prepend=-1) > 0
    brought = opens & ~workload.is_first[rows]
    begins = rows[opens]
    kept = replace(
        workload,
        families=None,
        blocks=None,
        dropped_tokens=None,
        session=(np.cumsum(opens) - 1).astype(np.int32),
        prompt_tokens=np.where(brought, (history + prompt)[rows], workload.prompt_tokens[rows]).astype(np.int32),
        output_tokens=workload.output_tokens[rows],
        arrival_s=np.where(opens, at, np.nan),
        gap_s=workload.gap_s[rows],
        tenant=None if workload.tenant is None else workload.tenant[workload.session[begins]],
        beginnings=None if workload.beginnings is None else _begun(workload.beginnings, workload, begins, (history + prompt)[begins]),
        record=None if workload.record is None else workload.record[rows],
    )
    if workload.dropped_tokens is None:
        return kept
    return replace(kept, dropped_tokens=dropped_within(kept, workload.dropped_tokens[rows]))


def _begun(beginnings: Beginnings, workload: Workload, rows: np.ndarray, left: np.ndarray) -> Beginnings:
    """Of the sessions that these turns open, with what is `left` of their contexts: nothing where the start of it was cut off."""
    whole = (workload.history_tokens + workload.prompt_tokens)[rows]
    picked = workload.session[rows]
    return beginnings.those(picked).cut(np.where(left < whole, 0, workload.session_tokens[picked]))
