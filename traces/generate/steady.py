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
    gap_s = _gap_s(workload, s_per_token)
    lasts = _offsets(gap_s, np.diff(workload.first_turn))[workload.first_turn[1:] - 1]
    copies = rng.poisson(lasts / span)  # λ·d with λ = sessions / span, for each of the sessions
    old = np.repeat(np.arange(workload.sessions), copies)
    ages = rng.random(len(old)) * lasts[old]
    chosen = np.concatenate([np.arange(workload.sessions), old])
    begins = np.concatenate([starts - starts.min(), -ages])
    rows, counts = workload.rows_of(chosen)
    at = _offsets(gap_s[rows], counts)
    at += np.repeat(begins, counts)  # in place: there may be millions
    inside = (at >= 0) & (at <= span)
    here = np.logical_or.reduceat(inside, np.cumsum(counts) - counts)  # most of a stream with long pauses is never seen
    turns = np.repeat(here, counts)
    kept = _kept(replace(workload, families=None, blocks=None).select(chosen[here]), at[turns], inside[turns], window, ratio)
    return replace(kept, origin={**workload.origin, _UNDER_WAY: kept.sessions - workload.sessions})


def begun(workload: Workload) -> int:
    """Sessions of a workload that begin within it: all, but for those that were under way where it is a cut."""
    return workload.sessions - workload.origin.get(_UNDER_WAY, 0)


def _gap_s(workload: Workload, s_per_token: float) -> np.ndarray:
    """Seconds from the start of the turn before to each turn's; 0 where a session begins."""
    answers = np.append(0.0, workload.output_tokens[:-1] * s_per_token)
    return np.where(workload.is_first, 0.0, workload.gap_s + answers)


def _offsets(gap_s: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Seconds from a session's start to each of its turns, for sessions of so many turns, one after the other."""
    offsets = np.cumsum(gap_s)
    offsets -= np.repeat(offsets[np.cumsum(counts) - counts], counts)
    return offsets


def _kept(stream: Workload, at: np.ndarray, inside: np.ndarray, window: int, ratio: float) -> Workload:
    """Turns within the span, at these times; a session's first of them brings along what it said before."""
    rows = np.flatnonzero(inside)
    history, prompt, _ = contexts(stream, window, ratio)
    opens = np.ones(len(rows), bool)
    opens[1:] = stream.session[rows][1:] != stream.session[rows][:-1]
    brought = opens & ~stream.is_first[rows]
    session = np.cumsum(opens) - 1
    pick = {name: getattr(stream, name)[rows] for name in ("output_tokens", "gap_s")}
    kept = replace(
        stream,
        dropped_tokens=None,
        session=session.astype(np.int32),
        prompt_tokens=np.where(brought, (history + prompt)[rows], stream.prompt_tokens[rows]).astype(np.int32),
        arrival_s=np.where(opens, at[rows], np.nan),
        tenant=None if stream.tenant is None else stream.tenant[stream.session[rows][opens]],
        beginnings=None if stream.beginnings is None else _begun(stream.beginnings, stream, rows[opens], (history + prompt)[rows[opens]]),
        record=None if stream.record is None else stream.record[rows],
        **pick,
    )
    if stream.dropped_tokens is None:
        return kept
    return replace(kept, dropped_tokens=dropped_within(kept, stream.dropped_tokens[rows]))


def _begun(beginnings: Beginnings, stream: Workload, rows: np.ndarray, left: np.ndarray) -> Beginnings:
    """Of the sessions that these turns open, with what is `left` of their contexts: nothing where the start of it was cut off."""
    whole = (stream.history_tokens + stream.prompt_tokens)[rows]
    picked = stream.session[rows]
    return beginnings.those(picked).cut(np.where(left < whole, 0, stream.session_tokens[picked]))
