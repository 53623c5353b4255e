"""What the lengths of a log of requests count: all of a context, or only what is new in it. Two kinds of evidence tell:

- *hashes*: those of a whole context begin with the hashes of the request before; those of new text share nothing with them;
- *lengths*: a whole context is longer than the prompt before it in its session, and the longer the longer that one is. Of sessions that are
  all alike nothing follows: they grow either way.

Then the user's word counts, else the evidence, else the format's own meaning; where the evidence is thin, or against what a format
says of itself, there is a doubt. Raw lengths of whole contexts become new prompts here:

    whole = prompt and answer of the request before
    history = whole           when the prompt is longer than that (and its block hashes, if there are any, begin with the prompt before)
            = what the block hashes share, or the prompt before, whichever is less, otherwise: the context was edited or compacted
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kvplan.traces.reading import Reading
from kvplan.traces.workload import TraceError, Workload

REQUESTS, INCREMENTS = "requests", "increments"
_HOLD = {REQUESTS: "requests with all of their history", INCREMENTS: "what a request adds to its session"}
_OTHER = {REQUESTS: INCREMENTS, INCREMENTS: REQUESTS}
_SHRUNK_SHARE = 0.25
"""Whole contexts are edited or compacted less often than this; of lengths that mean nothing for each other half shrink."""
_STANDARD_ERRORS = 3.3
"""One in a thousand by chance."""
_NOTHING = 1e-9
"""Rounding of logarithms that are all alike."""
_CLEAR = 9
"""Times as many for as against."""


@dataclass(frozen=True)
class _Shared:
    """What turns have in common with the turn before them."""

    blocks: np.ndarray
    """int64 per turn: leading blocks."""
    block_tokens: int


@dataclass(frozen=True)
class Evidence:
    """What the lengths seem to count, and why; None where nothing tells."""

    hashes: str | None
    lengths: str | None
    sure: bool
    """Whether what the lengths say is more than chance."""
    why: str

    @property
    def says(self) -> str | None:
        """None also where lengths contradict hashes that share nothing, as those of whole contexts may."""
        if self.hashes is None:
            return self.lengths
        return None if self.hashes == INCREMENTS and self.lengths == REQUESTS and self.sure else self.hashes

    @property
    def proven(self) -> str | None:
        """What is said for sure."""
        return self.says if self.hashes is not None or self.sure else None


def told(raw: Workload, reading: Reading, own: str, defined: bool = True) -> Workload:
    """The workload of a table whose prompts are lengths as a log has them. `own` is what they count by the format's custom, or by its
    definition. Raises TraceError for a setting that cannot be."""
    if reading.records == "conversations":
        raise TraceError("its records are no conversations: workload.records=requests or increments says what their lengths count")
    shared = _shared(raw)
    found = _evidence(raw, shared)
    kind = reading.records or (own if defined else found.proven or own)
    origin = {**raw.origin, **_said(kind, found, reading, own, defined, raw.sessions < raw.turns)}
    if kind == INCREMENTS:  # hashes of new text alone are no prefixes
        partial = shared is not None and found.hashes == INCREMENTS
        return replace(raw, blocks=None if partial else raw.blocks, origin=origin)
    return _of_whole(replace(raw, origin=origin), shared)


def _said(kind: str, found: Evidence, reading: Reading, own: str, defined: bool, resumes: bool) -> Mapping[str, object]:
    """What an origin tells of the decision: nothing where there was none."""
    if reading.records is not None:
        return {"records": f"{_HOLD[kind]}, as workload.records says"}
    if not resumes:
        return {}
    if found.proven == kind or found.says == kind:
        return {} if defined else {"records": f"{_HOLD[kind]}: {found.why}"}
    if defined and found.proven is None:
        return {}
    return {
        "records": f"{_HOLD[kind]}, as this format has it",
        "doubtful_records": f"they may be {_HOLD[_OTHER[kind]]}: {found.why}",
    }


def _of_whole(raw: Workload, shared: _Shared | None) -> Workload:
    """Lengths of whole contexts as new prompts and what was dropped of the history."""
    if raw.dropped_tokens is not None:
        raise TraceError("workload.records=requests cannot be: the table says what each turn drops of its history, so it counts new tokens")
    length, later = raw.prompt_tokens.astype(np.int64), ~raw.is_first
    before = np.append(0, length[:-1])
    whole = before + np.append(0, raw.output_tokens[:-1])
    kept = np.where(length > whole, whole, np.minimum(before, length - 1))
    if shared is not None:
        parted = shared.blocks < before // shared.block_tokens
        kept[parted] = np.minimum(shared.blocks * shared.block_tokens, length - 1)[parted]
    kept[~later] = 0
    dropped = np.where(later, whole - kept, 0)
    edited = int((dropped > 0).sum())
    return replace(
        raw,
        prompt_tokens=(length - kept).astype(np.int32),
        dropped_tokens=dropped if edited else None,
        origin={**raw.origin, **({"edited_contexts": edited} if edited else {})},
    )


def _shared(raw: Workload) -> _Shared | None:
    """None without hashes."""
    if raw.blocks is None:
        return None
    ids, first = raw.blocks.ids, raw.blocks.first
    counts = np.diff(first)
    shared = np.where(raw.is_first, 0, np.minimum(counts, np.append(0, counts[:-1])))
    turn = np.repeat(np.arange(raw.turns), shared)
    place = np.arange(len(turn)) - np.repeat(np.cumsum(shared) - shared, shared)
    apart = ids[first[turn - 1] + place] != ids[first[turn] + place]
    np.minimum.at(shared, turn[apart], place[apart])
    return _Shared(shared, raw.blocks.block_tokens)


def _evidence(raw: Workload, shared: _Shared | None) -> Evidence:
    lengths, sure, why = _by_lengths(raw)
    if shared is None:
        return Evidence(None, lengths, sure, why)
    full = np.append(0, raw.prompt_tokens[:-1] // shared.block_tokens)
    comparable = ~raw.is_first & (full > 0)
    alike, apart = int((shared.blocks[comparable] > 0).sum()), int((shared.blocks[comparable] == 0).sum())
    if not alike + apart:
        return Evidence(None, lengths, sure, why)
    hashes = REQUESTS if alike >= _CLEAR * apart else INCREMENTS if apart >= _CLEAR * alike else None
    return Evidence(
        hashes, lengths, sure, f"the hashes of {alike:,} of {alike + apart:,} later records begin like those before them, and {why}"
    )


def _by_lengths(raw: Workload) -> tuple[str | None, bool, str]:
    """What the lengths of later turns say against those before them, whether that is more than chance, and in words."""
    later = np.flatnonzero(~raw.is_first)
    if not len(later):
        return None, False, "no session goes on"
    length, before = raw.prompt_tokens[later], raw.prompt_tokens[later - 1]
    shrunk, rare = int((length <= before).sum()), _SHRUNK_SHARE * len(later)
    why = f"{len(later) - shrunk:,} of {len(later):,} later records are longer than the one before in their session"
    if shrunk > rare:
        return INCREMENTS, shrunk - rare > _STANDARD_ERRORS * math.sqrt(rare * (1 - _SHRUNK_SHARE)), why
    errors = _together(raw.turn[later], np.log(length), np.log(before))
    if errors <= 1:
        return None, False, f"{why}, but not the longer the longer that one is"
    return REQUESTS, errors > _STANDARD_ERRORS, f"{why}, and the longer the longer that one is"


def _together(turn: np.ndarray, length: np.ndarray, before: np.ndarray) -> float:
    """By how many standard errors later lengths follow those before them, from session to session at the same turn; 0 of sessions that
    are alike. Source: the permutation test of a covariance (Pitman 1937)."""
    order = np.argsort(turn, kind="stable")
    _, starts, counts = np.unique(turn[order], return_index=True, return_counts=True)

    def apart(values: np.ndarray) -> np.ndarray:
        return values[order] - np.repeat(np.add.reduceat(values[order], starts) / counts, counts)

    one, other = apart(length), apart(before)
    found, spread = np.add.reduceat(one * other, starts), np.add.reduceat(one**2, starts) * np.add.reduceat(other**2, starts)
    variance = float((spread / np.maximum(counts - 1, 1)).sum())
    return float(found.sum()) / math.sqrt(variance) if variance > _NOTHING else 0.0
