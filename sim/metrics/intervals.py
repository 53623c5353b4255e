"""How well a run's own sessions tell its latencies: 95 % intervals by bootstrap over sessions (percentile method).

Turns of a session are alike, so whole sessions are drawn with replacement, not turns. Left out: sessions share a queue, so near saturation
another seed differs by more than this; replications tell by how much (`kvplan.sim.sweep.against`).

Source: Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 8 and 13.
"""

import numpy as np

from kvplan.sim.metrics.measured import Latencies, Measured
from kvplan.sim.metrics.summary import PERCENTILES
from kvplan.sim.rng import stream
from kvplan.sim.simulation import Result

DRAWS = 200
_ENDS = (2.5, 97.5)
Interval = dict[str, list[float]]
"""[low, high] by statistic."""


def intervals(result: Result) -> dict[str, Interval | None]:
    """Low and high end for the mean and the percentiles of every latency of the summary, by its name; None where no turn has it."""
    columns = Measured(result.columns, result.columns["order"] >= result.config.warmup_turns)
    _, session = np.unique(columns["session"], return_inverse=True)
    rng = stream(result.config.seed, "bootstrap")
    count = int(session.max()) + 1
    weights = [_drawn(rng, count) for _ in range(DRAWS)]
    several = columns["output_tokens"] > 1
    return {
        name: _interval(values, session[several] if name == "tpot_s" else session, weights) for name, values in Latencies(columns).items()
    }


def _drawn(rng: np.random.Generator, count: int) -> np.ndarray:
    """uint8 per session: how often it is drawn, once in the mean, and 256 times in no run. All draws are held at once."""
    return np.bincount(rng.integers(0, count, count), minlength=count).astype(np.uint8)


def _interval(values: np.ndarray, session: np.ndarray, weights: list[np.ndarray]) -> Interval | None:
    if not len(values):
        return None
    sums = np.bincount(session, values, len(weights[0]))
    order = np.argsort(values, kind="stable")
    values, session = values[order], session[order]
    drawn = np.array([found for weight in weights if (found := _statistics(values, weight[session], weight * sums)) is not None])
    low, high = np.percentile(drawn, _ENDS, axis=0)
    names = ("mean", *(f"p{percentile}" for percentile in PERCENTILES))
    return {name: [float(one), float(other)] for name, one, other in zip(names, low, high, strict=True)}


def _statistics(values: np.ndarray, weight: np.ndarray, sums: np.ndarray) -> list[float] | None:
    """Mean and percentiles of ascending values that count so many times, and that add up to these sums; None when none counts."""
    total = np.cumsum(weight, dtype=np.int32)
    if not total[-1]:
        return None
    places = np.searchsorted(total, np.multiply(PERCENTILES, total[-1] / 100))
    return [float(sums.sum()) / float(total[-1]), *values[places].tolist()]  # no dot product: its rounding goes by the threads of BLAS
