"""A workload to simulate, of what a server's metrics say, with what they do not say assumed and marked.

A turn's prompt is recorded with its history; a generated session adds it up itself, so what is new in a turn must be told from it. With n
the place of a turn in its session, averaged over turns, P the mean prompt and O the mean answer,

    P = n · new + (n - 1) · O,    so    new = (P - (n - 1) · O) / n .

n follows from turns per session, which is assumed: exponential with a mean of 5, fewer where prompts are too short for so much history,
more where the cache hit more than there would be. Lengths keep the shape of their histogram, scaled to the mean that is right.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from kvplan.traces.prometheus.operations import Observed, Span
from kvplan.traces.prometheus.totals import Distribution
from kvplan.traces.workload import TraceError

USUAL_TURNS = 5.0
_MOST_TURNS = 40
_SWING = 1.25
"""Busiest over mean rate, from which on the load is said to swing."""
_FEWEST, _MOST = 200, 20_000
"""Sessions to generate."""
_ROOM = 32_768
_LONGEST = 1e9
_LEAST_RATE = 2e-9
_DRAWS = 20_000


@dataclass(frozen=True)
class Setting:
    """One setting of a workload, and what is to be said of it."""

    value: Any
    remark: str
    assumed: bool = False


def workload(found: Observed, turns_per_session: float | None = None) -> dict[str, Setting]:
    """Settings under `workload`, by name. Raises TraceError for lengths that no generator takes."""
    mean_turns = turns_per_session or _likely_turns(found)
    place, turns = _place(mean_turns)
    settings = {
        "kind": Setting("synthetic", "sessions are drawn from the laws below"),
        "steady": Setting(True, "the service ran before the export begins, and after it"),
        "sessions": Setting(int(np.clip(found.turns / turns, _FEWEST, _MOST)), f"of {found.turns / turns:,.0f} in the export"),
        "turns": Setting(
            {"distribution": "exponential", "mean": _digits(mean_turns)},
            _turns_remark(found, turns_per_session, place),
            not turns_per_session,
        ),
    }
    prompt, output = _mean(found, "prompt"), _mean(found, "output")
    if prompt:
        new = max(1.0, _new(found, place))
        shape = found.sizes["uncached" if "uncached" in found.sizes else "prompt"]
        remark = f"new in a turn: mean {new:,.0f} of {prompt:,.0f} with history, at {turns:.2g} turns a session; the shape is recorded"
        settings["prompt_tokens"] = Setting(_law(shape, new), remark, True)
    if output:
        settings["output_tokens"] = Setting(_law(found.sizes["output"], output), f"mean {output:,.1f}, recorded")
    tops = sum(each.points[-1][1] if each.points else _mean(found, role) for role, each in found.sizes.items() if role != "uncached")
    if tops > _ROOM:
        settings["max_tokens"] = Setting(1 << math.ceil(math.log2(tops)), "the longest prompt and answer together")
    if found.turns_per_s is not None:
        settings["arrival"] = _arrival(found.turns_per_s, found.curve, turns)
    settings["think_time"] = Setting(
        {"distribution": "lognormal", "median_s": 30.0, "sigma": 1.0}, "not in metrics: from an access log", True
    )
    return settings


def _arrival(turns_per_s: float, curve: Sequence[Span], turns: float) -> Setting:
    """Sessions per second: turns per second over turns per session; as a curve where the load swings."""
    mean = max(turns_per_s / turns, _LEAST_RATE)
    remark = f"{turns_per_s:.3g} turns/s over {turns:.2g} turns a session"
    busiest = max(curve, key=itemgetter(2), default=(0.0, 0.0, 0.0))
    if not _swings(turns_per_s, curve, busiest):
        return Setting({"process": "poisson", "rate_per_s": _digits(mean)}, remark)
    points = [[0.0, curve[0][2]], *([(start + end) / 2, rate] for start, end, rate in curve), [curve[-1][1], curve[-1][2]]]
    times, rate = np.array(points).T
    scale = mean * times[-1] / float(np.diff(times) @ (rate[1:] + rate[:-1]) / 2)
    shown = [[round(time, 3), _digits(each * scale)] for time, each in zip(times.tolist(), rate.tolist(), strict=True)]
    peak = _digits(busiest[2] / turns)
    remark += f"; busiest {peak:g}: to plan for it, arrival: {{process: poisson, rate_per_s: {peak:g}}}"
    return Setting({"process": "curve", "points": shown}, remark)


def _swings(mean_per_s: float, curve: Sequence[Span], busiest: Span) -> bool:
    """Whether the busiest time is busier than the mean, and not by chance."""
    start, end, rate = busiest
    expected = mean_per_s * (end - start)
    return len(curve) >= 4 and rate > _SWING * mean_per_s and rate * (end - start) - expected > 3 * math.sqrt(max(expected, 1.0))


def _place(mean_turns: float) -> tuple[float, float]:
    """(mean place of a turn in its session, mean turns of a session) when turns are exponential and rounded, as the generator does."""
    quantiles = -np.log1p(-(np.arange(_DRAWS) + 0.5) / _DRAWS)
    turns = np.maximum(np.rint(mean_turns * quantiles), 1)
    turns = turns[turns <= _MOST_TURNS]
    return float((turns * (turns + 1) / 2).sum() / turns.sum()), float(turns.mean())


def _mean(found: Observed, role: str) -> float:
    """Tokens; 0 where it was not recorded."""
    each = found.sizes.get(role)
    return 0.0 if each is None or each.mean is None else each.mean


def _new(found: Observed, place: float) -> float:
    """Tokens of a prompt that are no history, in the mean; negative where there cannot be so much history."""
    return (_mean(found, "prompt") - (place - 1) * _mean(found, "output")) / place


def _likely_turns(found: Observed) -> float:
    """The usual number; fewer where new prompts would be shorter than a token, more where less would be history than was hit."""
    prompt, hits = _mean(found, "prompt"), found.hits.get("all")
    if not prompt:
        return USUAL_TURNS
    if _new(found, _place(USUAL_TURNS)[0]) < 1:
        return _bisected(0.1, USUAL_TURNS, lambda mean: _new(found, _place(mean)[0]) >= 1)
    most = max(1.0, prompt * (1 - hits.rate)) if hits else prompt
    if _new(found, _place(USUAL_TURNS)[0]) > most:
        return _bisected(USUAL_TURNS, _MOST_TURNS / 2, lambda mean: _new(found, _place(mean)[0]) > most)
    return USUAL_TURNS


def _bisected(low: float, high: float, holds: Callable[[float], bool]) -> float:
    """About where `holds`, true at the low end, ceases to."""
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _turns_remark(found: Observed, given: float | None, place: float) -> str:
    hits, prompt = found.hits.get("all"), _mean(found, "prompt")
    source = "given" if given else "not in metrics: from an access log"
    if not prompt:
        return source
    history = 1 - max(1.0, _new(found, place)) / prompt
    said = f"{source}; makes {history:.0%} of prompt tokens history"
    if hits is None:
        return said
    doubt = ", less than was hit: more turns, or prefixes that sessions share" if history < hits.rate - 0.01 else ""
    return f"{said}, and {hits.rate:.0%} were hit{doubt}"


def _law(each: Distribution, mean: float) -> dict[str, Any]:
    """A distribution of this mean, with the shape of the histogram where there is one. Raises TraceError."""
    if mean > _LONGEST:
        raise TraceError(f"a mean of {mean:.3g} tokens is no length of a prompt or an answer")
    shares, values = np.array(each.points).T if each.points else (np.zeros(1), np.zeros(1))
    own = float(np.diff(shares) @ (values[1:] + values[:-1]) / 2)
    if not own > 0 or not np.isfinite(values * mean / own).all() or (values * mean / own).max() > _LONGEST:
        return {"distribution": "constant", "value": _digits(mean)}
    scaled = zip(shares.tolist(), (values * mean / own).tolist(), strict=True)
    return {"distribution": "empirical", "points": [[round(share, 6), _digits(value)] for share, value in scaled]}


def _digits(value: float) -> float:
    return float(f"{value:.6g}")
