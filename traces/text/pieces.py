"""Pieces of conversations, as the ShareGPT V3 dump cuts them: ids `c_0`, `c_7`, …: the number is that of the piece's first message.

Evidence that ids mean that: of no conversation does a piece begin before the one before it ends; and pieces with an odd number begin with
an answer and others with a prompt, or pieces touch (one begins where another ends). Pieces that touch are joined. Where some are missing,
as in a sample of pieces, a conversation falls into several sessions, which do not know what came before them.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_MOST = 0.9
"""Of the records: one in 300 of the dump's begins with the wrong side."""


class _Piece(NamedTuple):
    name: str
    start: int
    length: int
    begins_with_answer: bool
    record: int


def joined(records: Sequence[tuple[str, int, bool] | None]) -> tuple[list[list[int]], dict[str, int]]:
    """The records of each conversation, in order, by (label, messages, begins with an answer) of each record, None without a label; and
    counts of pieces, their conversations and what is missing, or nothing when records are no pieces."""
    pieces = [piece for index, record in enumerate(records) if record and (piece := _piece(index, *record))]
    alone = [[index] for index in range(len(records))]
    first: dict[str, int] = {}
    for piece in pieces:
        first.setdefault(piece.name, piece.record)
    pieces.sort(key=lambda piece: (first[piece.name], piece.start))
    between = {later.record: _between(one, later) for one, later in pairwise(pieces) if one.name == later.name}
    if not _are_pieces(pieces, list(between.values()), len(records)):
        return alone, {}
    runs: list[list[int]] = []
    for piece in pieces:
        if between.get(piece.record) == 0:
            runs[-1].append(piece.record)
        else:
            runs.append([piece.record])
    touching = len(pieces) - len(runs)
    missing = sum(piece.start > 0 for piece in pieces) - touching
    taken = {record for run in runs for record in run}
    said = {"records": len(pieces), "conversations": len(first), "joined": touching, "beginnings_missing": missing}
    return sorted([*runs, *(run for run in alone if run[0] not in taken)], key=min), said


def _are_pieces(pieces: list[_Piece], between: list[int], records: int) -> bool:
    """Whether what labels say of pieces can be, and is what the records are."""
    if len(pieces) < _MOST * records or not any(piece.start for piece in pieces) or any(gap < 0 for gap in between):
        return False
    sides = sum(piece.start % 2 == piece.begins_with_answer for piece in pieces)
    return sides >= _MOST * len(pieces) or 2 * between.count(0) > len(between)


def _piece(record: int, label: str, length: int, begins_with_answer: bool) -> _Piece | None:
    name, _, start = label.rpartition("_")
    is_piece = bool(name) and start.isascii() and start.isdigit() and len(start) < 10
    return _Piece(name, int(start), length, begins_with_answer, record) if is_piece else None


def _between(one: _Piece, later: _Piece) -> int:
    """Messages between two pieces of one conversation; negative where they overlap."""
    return later.start - one.start - one.length
