"""Finds times in the wrong unit, which would pass silently and make every answer wrong by a factor of a thousand, by what they imply.

What cannot be is refused. What can hardly be, but may, is a doubt that goes into the workload's origin. A user who names the unit has
doubts at most, and one who says `exact` has none. Each sign stands between what was recorded and what a factor of a thousand makes of it:

    sign                                      recorded           doubted            refused
    answers before the turn that replies      few                                   half, at over 1,000 tokens/s
    a recorded answer, tokens/s               2 to 500                              under 0.1, over 1,000
    from a turn to the next, median           10 s to 10 min     over 3 h           over 1 day
    think time, median                        1 s to 10 min      under 0.1 s, 3 h   over 1 day
    requests: one every                       0.1 s to 10 min    over 1 h           over 2 days
    tokens asked for or answered per second   1 to 1e5           over 1e6           over 1e7
    the same of at most 100 requests                             over 1e5           never: it may be a burst

Left out: units that are wrong for some turns only; factors that no sign shows (a busy log of single requests, slowed down).
Source of the recorded ranges: the traces of Mooncake, Azure 2023, BurstGPT and Weka's coding agents.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.traces.reading import Reading
from kvplan.traces.workload import TraceError, Workload

_FAST_TOKENS_PER_S = 1000.0
"""No server streams one answer faster than this."""
_SLOW_TOKENS_PER_S = 0.1
_ROUNDING_S = 1e-6
_LONG_S = 3 * 3600.0
_TOO_LONG_S = 86400.0
_SHORT_THINK_S = 0.1
_RARE_S = 3600.0
_TOO_RARE_S = 2 * 86400.0
_BUSY_TOKENS_PER_S = 1e5
_HEAVY_TOKENS_PER_S = 1e6
_TOO_HEAVY_TOKENS_PER_S = 1e7
"""The prefill of hundreds of GPUs."""
_MANY = 100
"""Requests from which on their rate means something."""
_FEW = 3
WAY_OUT = "workload.times=s or ms names it, workload.times=exact takes the times as they are"
_NAMES = {"ms": "milliseconds", "s": "seconds"}


@dataclass(frozen=True)
class _Sign:
    """What a trace's times imply that they should not."""

    seen: str
    impossible: bool
    fast: bool
    """Everything goes too fast, so the unit is larger than taken; else too slow."""


def doubtful_times(workload: Workload, reading: Reading, own: str) -> str:
    """What makes the times of a trace of a format with the unit `own` (`ms` or `s`) doubtful; or nothing. Raises TraceError when they
    cannot be."""
    if reading.times == "exact":
        return ""
    signs = [sign for look in (_answers, _spacing, _thinking, _pace, _load) if (sign := look(workload)) is not None]
    for sign in signs:
        if sign.impossible and reading.times is None:
            raise _wrong(sign, own)
    return _taken(reading, own) + " and ".join(sign.seen for sign in signs) if signs else ""


def check_answers(answers: Sequence[tuple[float, int]] | np.ndarray, reading: Reading, own: str) -> None:
    """Raises TraceError when recorded answers, (seconds, tokens) each, of a format with the unit `own` cannot be right, unless the user
    says what their times are."""
    seconds, tokens = np.asarray(answers, np.float64).reshape(-1, 2).T
    tells = (tokens > 0) & (np.abs(seconds) > _ROUNDING_S)  # no time at all is none in any unit
    seconds, tokens = seconds[tells], tokens[tells]
    if len(tokens) < _FEW or reading.times is not None:
        return
    speed = float(np.median(tokens / np.maximum(seconds, _ROUNDING_S)))
    if not _SLOW_TOKENS_PER_S <= speed <= _FAST_TOKENS_PER_S:
        seen = f"half of the answers stream at {'more' if speed > 1 else 'less'} than {speed:,.3g} tokens/s"
        raise _wrong(_Sign(seen, True, speed > 1), own)


def _wrong(sign: _Sign, own: str) -> TraceError:
    question = "are the times in seconds?" if own == "ms" and sign.fast else "which unit are the times in?"
    return TraceError(f"{_taken(Reading(), own)}{sign.seen}: {question} {WAY_OUT}")


def _taken(reading: Reading, own: str) -> str:
    return f"taken as {_NAMES[reading.unit(own)]}, as {'this format has them' if reading.times is None else 'workload.times says'}, "


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
    few = count <= _MANY
    if count <= _FEW or not tokens > (_BUSY_TOKENS_PER_S if few else _HEAVY_TOKENS_PER_S) * span_s > 0:
        return None
    seen = f"{count:,} requests come in {span_s:.3g} s and ask for {tokens / span_s:,.0f} tokens/s"
    return _Sign(seen, not few and tokens > _TOO_HEAVY_TOKENS_PER_S * span_s, True)
