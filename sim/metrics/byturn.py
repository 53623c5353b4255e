"""Figures by turn within the session, the rounds of a load test: TTFT and hits grow with the history."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from kvplan.sim.metrics.schema import ByTurn

ROWS = 32
"""Turns that have a row of their own; those later share the last row."""
_PERCENTILES = (50, 95)


def by_turn(
    turn: np.ndarray, ttft_s: np.ndarray, cached: np.ndarray, context: np.ndarray, by_tier: Mapping[str, np.ndarray] = MappingProxyType({})
) -> list[ByTurn]:
    """Rows in order of the turns that there are. Per turn measured: its number within the session, from 0; seconds; tokens served from
    cache, and of the prompt with history; and what of the former each tier served, where a turn can have several."""
    row = np.minimum(turn, ROWS).astype(np.int8)
    found = []
    for number in np.flatnonzero(np.bincount(row)).tolist():
        here = row == number  # one row at a time: all at once would be the columns a second time
        found.append(_row(number, ttft_s[here], cached[here], context[here], {name: tokens[here] for name, tokens in by_tier.items()}))
    return found


def _row(number: int, ttft_s: np.ndarray, cached: np.ndarray, context: np.ndarray, by_tier: Mapping[str, np.ndarray]) -> ByTurn:
    p50, p95 = np.percentile(ttft_s, _PERCENTILES).tolist()
    found: ByTurn = {
        "turn": number,
        "and_later": number == ROWS,
        "turns": len(ttft_s),
        "ttft_s": {"mean": float(ttft_s.mean()), "p50": p50, "p95": p95},
        "hit_rate": {"turns": float((cached > 0).mean()), "tokens": float(cached.sum() / context.sum())},
    }
    if by_tier:
        found["token_hits"] = {name: float(tokens.sum() / context.sum()) for name, tokens in by_tier.items()}
    return found
