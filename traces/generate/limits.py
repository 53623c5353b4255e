"""Sessions drawn until enough of them are within the limits."""

from collections.abc import Callable

import numpy as np

from kvplan.traces.workload import TraceError

Drawn = tuple[np.ndarray, np.ndarray, np.ndarray]
"""int64: turns per session; prompt and output tokens per turn."""


def draw_within(draw: Callable[[int], Drawn], sessions: int, max_turns: int, max_tokens: int, kind: str) -> tuple[Drawn, float]:
    """`sessions` sessions of at most `max_turns` turns and `max_tokens` tokens, and the share of others, which were drawn anew.

    Raises TraceError when the limits leave out nearly everything.
    """
    missing, parts, seen, kept = sessions, [], 0, 0
    while missing > 0:
        turns, prompt, output = draw(max(missing, 1000))
        starts = np.cumsum(turns) - turns
        within = (turns <= max_turns) & (np.add.reduceat(prompt + output, starts, dtype=np.int64) <= max_tokens)
        if within.mean() < 0.01:
            raise TraceError(f"fewer than 1 % of {kind} sessions are within {max_turns} turns and {max_tokens} tokens: raise the limits")
        seen, kept = seen + len(within), kept + int(within.sum())
        within &= np.cumsum(within) <= missing
        rows = np.repeat(within, turns)
        parts.append((turns[within], prompt[rows], output[rows]))
        missing -= int(within.sum())
    turns, prompt, output = (np.concatenate(column) for column in zip(*parts, strict=True))
    return (turns, prompt, output), 1 - kept / seen
