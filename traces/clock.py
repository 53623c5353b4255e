"""Finds times in the wrong unit, which would pass silently and make every answer wrong by a factor of a thousand, by what they imply.

What cannot be is refused. What can hardly be, but may, is a doubt that goes into the workload's origin. Each sign stands between what was
recorded and what a factor of a thousand makes of it:

    sign                                      recorded           doubted            refused
    answers before the turn that replies      few                                   half, at over 1,000 tokens/s
    a recorded answer, tokens/s               2 to 500                              under 0.1, over 1,000
    from a turn to the next, median           10 s to 10 min     over 3 h           over 1 day
    think time, median                        1 s to 10 min      under 0.1 s, 3 h   over 1 day
    requests: one every                       0.1 s to 10 min    over 1 h           over 2 days
    tokens asked for or answered per second   1 to 1e5           over 1e6           over 1e7

Left out: units that are wrong for some turns only; factors that no sign shows (a busy log of single requests, slowed down).
Source of the recorded ranges: the traces of Mooncake, Azure 2023, BurstGPT and Weka's coding agents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.traces.workload import TraceError, Workload

_FAST_TOKENS_PER_S = 1000.0
"""No server streams one answer faster than this."""
_SLOW_TOKENS_PER_S = 0.1
_LONG_S = 3 * 3600.0
_TOO_LONG_S = 86400.0
_SHORT_THINK_S = 0.1
_RARE_S = 3600.0
_TOO_RARE_S = 2 * 86400.0
_HEAVY_TOKENS_PER_S = 1e6
_TOO_HEAVY_TOKENS_PER_S = 1e7
"""The prefill of hundreds of GPUs."""
_MANY = 100
"""Requests from which on their rate means something."""
_FEW = 3
_NAMES = {"ms": "milliseconds", "s": "seconds"}


@dataclass(frozen=True)
class _Sign:
    """What a trace's times imply that they should not."""

    seen: str
    impossible: bool
    fast: bool
    """Everything goes too fast, so the unit is larger than taken; else too slow."""


def check(workload: Workload, unit: str) -> str:
    """What makes the times of a trace, taken as `unit` (`ms` or `s`), doubtful; or nothing. Raises TraceError when they cannot be."""
    signs = [sign for look in (_answers, _spacing, _thinking, _pace, _load) if (sign := look(workload)) is not None]
    for sign in signs:
        if sign.impossible:
            raise _wrong(sign, unit)
    return _taken(unit) + " and ".join(sign.seen for sign in signs) if signs else ""


def check_answers(answers: Sequence[tuple[float, int]], unit: str) -> None:
    """Raises TraceError when recorded answers, (seconds, tokens) each, whose times were taken as `unit`, cannot be right."""
    if len(answers) < _FEW:
        return
    seconds, tokens = np.array(answers).T
    speed = float(np.median(tokens / np.maximum(seconds, 1e-9)))
    if not _SLOW_TOKENS_PER_S <= speed <= _FAST_TOKENS_PER_S:
        seen = f"half of the answers stream at {'more' if speed > 1 else 'less'} than {speed:,.3g} tokens/s"
        raise _wrong(_Sign(seen, True, speed > 1), unit)


def _wrong(sign: _Sign, unit: str) -> TraceError:
    question = "are the times in seconds?" if unit == "ms" and sign.fast else "which unit are the times in?"
    return TraceError(f"{_taken(unit)}{sign.seen}: {question}")


def _taken(unit: str) -> str:
    return f"taken as {_NAMES[unit]}, as this format has them, "


def _resumed(workload: Workload, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of turns that resume a session, where they are known, and the tokens of the answers before."""
    known = ~workload.is_first[1:] & np.isfinite(column)
    return column[known], workload.output_tokens[:-1][known]


def _answers(workload: Workload) -> _Sign | None:
    spacing, answers = _resumed(workload, np.diff(workload.arrival_s))
    if len(spacing) < _FEW or np.mean(spacing < answers / _FAST_TOKENS_PER_S) <= 0.5:
        return None
    return _Sign(f"half of the turns follow within {np.median(spacing):.3g} s on answers of {np.median(answers):.0f} tokens", True, True)


def _spacing(workload: Workload) -> _Sign | None:
    spacing, _ = _resumed(workload, np.diff(workload.arrival_s))
    return _long(spacing, "half of the turns come more than {:,.3g} h after the turn before")


def _thinking(workload: Workload) -> _Sign | None:
    gaps, _ = _resumed(workload, workload.gap_s[1:])
    thought = gaps[gaps > 0]
    if len(thought) >= _FEW and np.median(thought) < _SHORT_THINK_S:
        return _Sign(f"half of the think times are under {1e3 * np.median(thought):.3g} ms", False, True)
    return _long(thought, "half of the think times are over {:,.3g} h")


def _long(seconds: np.ndarray, words: str) -> _Sign | None:
    if len(seconds) < _FEW or np.median(seconds) <= _LONG_S:
        return None
    return _Sign(words.format(np.median(seconds) / 3600), bool(np.median(seconds) > _TOO_LONG_S), False)


def _arrivals(workload: Workload) -> tuple[int, float]:
    """How many turns have an arrival, and the seconds from the first of these to the last."""
    known = workload.arrival_s[np.isfinite(workload.arrival_s)]
    return len(known), float(np.ptp(known)) if len(known) else 0.0


def _pace(workload: Workload) -> _Sign | None:
    count, span_s = _arrivals(workload)
    if count <= _FEW or span_s / count <= _RARE_S:
        return None
    return _Sign(f"only {count:,} requests come in {span_s / 86400:,.3g} days", span_s / count > _TOO_RARE_S, False)


def _load(workload: Workload) -> _Sign | None:
    count, span_s = _arrivals(workload)
    known = np.isfinite(workload.arrival_s)
    tokens = int((workload.prompt_tokens[known].astype(np.int64) + workload.output_tokens[known]).sum())
    if count <= _MANY or not tokens > _HEAVY_TOKENS_PER_S * span_s > 0:
        return None
    seen = f"{count:,} requests come in {span_s:.3g} s and ask for {tokens / span_s:,.0f} tokens/s"
    return _Sign(seen, tokens > _TOO_HEAVY_TOKENS_PER_S * span_s, True)
