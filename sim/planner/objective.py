"""What a service must keep, and whether a run keeps it: a figure with an interval, and yes, no, or cannot be told.

An objective on a percentile is one on a share: p95 within a limit says that 95 % of the turns are. Turns of one session are alike, and so
are turns that waited in one queue, so two intervals are worked out, and the wider one counts:

- over sessions: the share is a ratio of sums over sessions (Cochran, "Sampling Techniques", section 6.4);
- over batches of time: the measured turns in order of arrival, cut into 20 batches of equal size per run (batch means, Law, "Simulation
  Modeling and Analysis", section 9.5.3).

Left out: that a percentile of few turns is known badly in another way; a run has at least some thousand.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import PlainSerializer, PlainValidator

from kvplan.hwmodels.units import format_seconds
from kvplan.sim.config import ConfigError, Slo

BATCHES = 20
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_RANKS = (("p50", "p95"), ("p95", "p99"), ("p50", "p99"))
_LEVEL = 0.05
_MANY_RUNS = 4
"""From so many on what runs differ in says something."""


@dataclass(frozen=True)
class Objective:
    """`ttft_p95 <= 0.5`: a measure of the turns, a statistic of it, and the limit in seconds; `hit_rate >= 0.6`, a share of prompt tokens;
    or `goodput >= 0.9`, a share of turns within several limits at once."""

    measure: str
    statistic: str
    limit: float
    limits: tuple[tuple[str, float], ...] = ()
    """Of goodput: measures, and their limits in seconds."""

    @property
    def share(self) -> float | None:
        """The share of turns that must be within the limit; None for means."""
        return self.limit if self.measure == "goodput" else _QUANTILES.get(self.statistic)

    @property
    def at_least(self) -> bool:
        """Whether more is better: of shares that are figures themselves."""
        return self.measure in ("hit_rate", "goodput")

    def late(self, col: dict[str, np.ndarray]) -> np.ndarray:
        """bool per turn: it counts, and is over the limit."""
        found = np.zeros(len(col["arrival_s"]), bool)
        for measure, limit in self.limits or ((self.measure, self.limit),):
            values, counted = latency(measure, col)
            found |= counted & (values > limit)
        return found

    def __str__(self) -> str:
        if self.measure == "hit_rate":
            return f"token hit rate of at least {self.limit:.0%}"
        if self.measure == "goodput":
            return (
                f"{self.limit:.0%} of turns within {' and '.join(f'{name.upper()} {format_seconds(each)}' for name, each in self.limits)}"
            )
        return f"{self.measure.upper()} {self.statistic} within {format_seconds(self.limit)}"


def objectives(slo: Slo) -> tuple[Objective, ...]:
    """All that a configuration asks for. Raises ConfigError when goodput has no limit to count by, or limits contradict."""
    given = slo.model_dump(exclude_none=True)
    _check(given)
    found = []
    for name, limit in given.items():
        measure, _, statistic = name.removesuffix("_s").rpartition("_")
        if name == "hit_rate":
            found.append(Objective("hit_rate", "mean", limit))
        elif name == "goodput_share":
            limits = tuple((each, given[f"{each}_p95_s"]) for each in ("ttft", "tpot") if f"{each}_p95_s" in given)
            if not limits:
                raise ConfigError("slo.goodput_share needs slo.ttft_p95_s or slo.tpot_p95_s: the limits that a good turn is within")
            found.append(Objective("goodput", "share", limit, limits))
        else:
            found.append(Objective(measure, statistic, limit))
    if any(each.measure == "goodput" for each in found):
        found = [each for each in found if each.statistic != "p95" or each.measure == "e2e"]
    return tuple(found)


def _check(given: dict[str, float]) -> None:
    """No limit is looser than one that implies it: who writes both has mixed them up. Raises ConfigError."""
    ordered = [(f"{name}_{low}_s", f"{name}_{high}_s") for name in ("ttft", "tpot", "e2e") for low, high in _RANKS]
    ordered += [(f"ttft_{each}_s", f"e2e_{each}_s") for each in ("mean", "p50", "p95", "p99")]
    for looser, tighter in ordered:
        if given.get(looser, 0.0) > given.get(tighter, math.inf):
            raise ConfigError(
                f"contradictory objectives: slo.{looser} ({format_seconds(given[looser])}) is longer than slo.{tighter}"
                f" ({format_seconds(given[tighter])}), which already holds it: swap them, or leave slo.{looser} out"
            )


Sums = Annotated[np.ndarray, PlainValidator(lambda given: np.asarray(given, float)), PlainSerializer(np.ndarray.tolist)]
"""float64; as JSON, lists."""


@dataclass(frozen=True)
class Sample:
    """The measured turns of one run for one objective, in order of arrival: sums over batches of time and over sessions."""

    batches: Sums
    """float64, (batches, 2): the sum of what is averaged, and the weight it is averaged over."""
    sessions: Sums
    """float64, (2, 2): sums over sessions of products of the two, for the variance of their ratio."""
    count: int
    """Sessions."""
    value: float
    """The statistic itself: seconds, or a share."""


@dataclass(frozen=True)
class Judgement:
    """An objective held against runs."""

    value: float
    """The statistic in its own unit, mean over the runs."""
    mean: float
    """What is held against `target`: a share of turns, a mean, or a hit rate."""
    half_width: float
    """Of its 95 % interval."""
    lead: float
    """By how much `mean` is on the right side of `target`; negative on the wrong one."""
    target: float

    @property
    def within(self) -> bool:
        """The better guess."""
        return self.lead >= 0

    @property
    def meets(self) -> bool | None:
        """Yes, no, or None: the interval holds the target."""
        return None if abs(self.lead) < self.half_width else self.within


def sample(objective: Objective, columns: dict[str, np.ndarray], measured: np.ndarray) -> Sample:
    """Of a finished run's columns; `measured` marks the turns that count."""
    rows = np.flatnonzero(measured)
    rows = rows[np.argsort(columns["arrival_s"][rows], kind="stable")]
    col = {name: values[rows] for name, values in columns.items()}
    top, weight = _terms(objective, col)
    edges = np.linspace(0, len(rows), BATCHES + 1).astype(int)[:-1]
    batches = np.stack([np.add.reduceat(top, edges), np.add.reduceat(weight, edges)], axis=1)
    _, session = np.unique(col["session"], return_inverse=True)
    sums = np.stack([np.bincount(session, top), np.bincount(session, weight)], axis=1)
    return Sample(batches, sums.T @ sums, len(sums), _statistic(objective, col))


def judge(objective: Objective, samples: Sequence[Sample]) -> Judgement:
    """Over independent runs."""
    from scipy import special

    batches = np.concatenate([each.batches for each in samples])
    total, weight = batches.sum(axis=0)
    mean = total / weight if weight else math.nan
    over_time = _spread(batches[:, 0] - mean * batches[:, 1], len(batches)) / weight
    products, count = sum((each.sessions for each in samples), np.zeros((2, 2))), sum(each.count for each in samples)
    squares = products[0, 0] - 2 * mean * products[0, 1] + mean**2 * products[1, 1]
    over_sessions = math.sqrt(max(0.0, squares) * count / max(count - 1, 1)) / weight
    half = max(
        float(special.stdtrit(len(batches) - 1, 1 - _LEVEL / 2)) * max(over_time, over_sessions),
        float(special.stdtrit(len(samples) - 1, 1 - _LEVEL / 2)) * _between(samples) if len(samples) >= _MANY_RUNS else 0.0,
    )
    sign = 1 if objective.share is not None or objective.measure == "hit_rate" else -1
    target = objective.limit if objective.share is None else objective.share
    value = float(np.mean([each.value for each in samples]))
    return Judgement(value, float(mean), half, sign * (float(mean) - target), target)


def _between(samples: Sequence[Sample]) -> float:
    """Standard error of the mean of runs by what they differ in."""
    sums = np.array([each.batches.sum(axis=0) for each in samples])
    return float(np.std(sums[:, 0] / sums[:, 1], ddof=1)) / math.sqrt(len(samples))


def _spread(errors: np.ndarray, count: int) -> float:
    """Standard error of a sum of so many independent parts."""
    return math.sqrt(float(errors @ errors) * count / max(count - 1, 1))


def _terms(objective: Objective, col: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Per turn what is summed and its weight: their ratio is the share, the mean, or the hit rate."""
    if objective.measure == "hit_rate":
        return col["cached_tokens"].astype(float), (col["prompt_tokens"] + col["history_tokens"]).astype(float)
    if objective.measure == "goodput":
        return (~objective.late(col)).astype(float), np.ones(len(col["arrival_s"]))
    values, weight = latency(objective.measure, col)
    if objective.share is None:
        return np.where(weight, values, 0.0), weight.astype(float)
    return (weight & (values <= objective.limit)).astype(float), weight.astype(float)


def _statistic(objective: Objective, col: dict[str, np.ndarray]) -> float:
    top, weight = _terms(objective, col)
    if objective.share is None or objective.measure == "goodput":
        return float(top.sum() / weight.sum()) if weight.any() else math.nan
    values, counted = latency(objective.measure, col)
    return float(np.quantile(values[counted], objective.share)) if counted.any() else math.nan


def latency(measure: str, col: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds per turn, and which turns have any: an answer of one token has no TPOT."""
    if measure == "tpot":
        more = col["output_tokens"] > 1
        return (col["done_s"] - col["first_token_s"]) / np.maximum(col["output_tokens"] - 1, 1), more
    end = "first_token_s" if measure == "ttft" else "done_s"
    return col[end] - col["arrival_s"], np.ones(len(col[end]), bool)
