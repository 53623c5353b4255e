"""Finds timestamps in the wrong unit, which would pass silently and make every answer wrong by a factor of a thousand."""

import numpy as np

from traces.workload import TraceError, Workload

_TOKENS_PER_S = 1000.0
"""No server streams one answer faster than this."""
_LATE_S = 2 * 86400.0
_RATE_PER_S = 10_000.0
_FEW = 3


def check_unit(workload: Workload, unit: str) -> None:
    """Raises TraceError when a trace whose times are taken as `unit` (`ms` or `s`) must be in the other one.

    Too fast: most turns arrive before the answer that they reply to can have been generated, at 1,000 tokens/s; or, without resumed turns,
    over 10,000 requests come per second. Too slow: most turns come two days or more after the one before them.
    """
    gap = np.diff(workload.arrival_s)
    resumed = ~workload.is_first[1:] & np.isfinite(gap)
    spacing, answers = gap[resumed], workload.output_tokens[:-1][resumed]
    starts = workload.arrival_s[np.isfinite(workload.arrival_s)]
    span = float(starts.max() - starts.min()) if len(starts) > 1 else 0.0
    if len(spacing) >= _FEW:
        too_fast = np.mean(spacing < answers / _TOKENS_PER_S) > 0.5
        too_slow = np.median(spacing) > _LATE_S
        seen = f"half of the turns follow within {np.median(spacing):.3g} s on answers of {np.median(answers):.0f} tokens"
    else:
        too_fast = len(starts) > 100 and len(starts) > _RATE_PER_S * span > 0
        too_slow = len(starts) > _FEW and span / len(starts) > _LATE_S
        seen = f"{len(starts):,} requests come in {span:.3g} s"
    if unit == "ms" and too_fast:
        raise TraceError(f"taken as milliseconds, as this format has them, {seen}: are the times in seconds?")
    if too_fast or too_slow:
        raise TraceError(f"taken as {unit}, as this format has them, {seen}: which unit are the times in?")
