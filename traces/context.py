"""What of a session's history stays in the context window, by the rule of CachedAttention's runs: when history, prompt and answer do not
fit, the oldest share (`ratio`) of the history is cut off, again until they do.

A prompt or an answer that alone passes the window is cut to it. Source: CachedAttention (USENIX ATC 2024) section 3.4.
"""

import numpy as np

from kvplan.traces.workload import Workload


def fit(history: int, prompt: int, output: int, window: int, ratio: float) -> tuple[int, int, int]:
    """(history, prompt, output) tokens that are kept; room is kept for the answer."""
    if history + prompt + output > window:
        prompt = min(prompt, window - 1)
        output = min(output, window - prompt)
        while history + prompt + output > window:
            history -= -int(-history * ratio // 1)
    return history, prompt, output


def contexts(workload: Workload, window: int, ratio: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int64 per turn: history, prompt and output tokens after truncation. A context after a turn is their sum."""
    history, prompt, output = workload.history_tokens, workload.prompt_tokens.astype(np.int64), workload.output_tokens.astype(np.int64)
    dropped = np.broadcast_to(0, workload.turns) if workload.dropped_tokens is None else workload.dropped_tokens
    first = workload.first_turn
    for session in np.flatnonzero(workload.session_tokens > window).tolist():
        kept = 0
        for turn in range(first[session], first[session + 1]):
            row = fit(max(0, kept - int(dropped[turn])), int(prompt[turn]), int(output[turn]), window, ratio)
            history[turn], prompt[turn], output[turn] = row
            kept = sum(row)
    return history, prompt, output
