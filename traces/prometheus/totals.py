"""What counters and histograms say of a span of time: increases, through restarts and gaps, summed over servers.

A counter only rises; where it falls its server has restarted, and counts from 0. What it counted between its last point before a restart
and the restart is lost. With one point a series there is no span: the count is that since the server started.

Within a bucket values are taken to be spread evenly; in the last one, which has no upper end, up to what makes the mean right.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kvplan.traces.prometheus.series import Series
from kvplan.traces.workload import TraceError

_GAP = 3.0
"""Times the usual spacing of points from which on some are missing."""
_QUANTILES = {"p10": 0.10, "p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Rise:
    """A counter's increase: per point, from 0 up."""

    time_s: np.ndarray
    count: np.ndarray
    resets: int
    gaps: int
    """Spacings that are far longer than the usual one."""

    @property
    def total(self) -> float:
        """Over all of its time."""
        return float(self.count[-1])


def rise(series: Series) -> Rise:
    """Of a counter. Raises TraceError for a negative one."""
    values = series.values
    if values.min() < 0:
        raise TraceError(f"{series.name} is a counter, and {values.min():g} at one time: it is negative")
    if len(values) == 1:
        return Rise(series.time_s, values.copy(), 0, 0)
    steps = np.diff(values)
    fallen = steps < 0
    spacing = np.diff(series.time_s)
    gaps = int((spacing > _GAP * np.median(spacing)).sum())
    count = np.concatenate([[0.0], np.cumsum(np.where(fallen, values[1:], steps))])
    return Rise(series.time_s, count, int(fallen.sum()), gaps)


def total(series: Sequence[Series]) -> float:
    """Over all servers. Where some have more points than one, those with one are new: nothing is known to have risen."""
    rises = [rise(each) for each in series]
    spanned = [each for each in rises if len(each.time_s) > 1]
    return sum(each.total for each in spanned or rises)


def rates(series: Sequence[Series], edges: np.ndarray) -> np.ndarray:
    """Increase per second within each of the spans between the edges, over all servers."""
    counted = sum((np.interp(edges, each.time_s, each.count) for each in map(rise, series) if len(each.time_s) > 1), np.zeros(len(edges)))
    return np.diff(counted) / np.diff(edges)


@dataclass(frozen=True)
class Distribution:
    """Of a histogram: how many values, their mean, and what share is at most how much."""

    count: float
    mean: float | None
    """Exact; None without a sum."""
    points: tuple[tuple[float, float], ...]
    """(share, value), both ascending, from 0 to 1; empty without buckets."""
    open_share: float = 0.0
    """Share of the last bucket, whose upper end is not known."""

    def data(self, scale: float = 1.0) -> dict:
        """Mean and quantiles, in units of `scale`."""
        mean = {} if self.mean is None else {"mean": self.mean * scale}
        if not self.points:
            return mean
        shares, values = np.array(self.points).T
        return mean | {name: float(np.interp(share, shares, values)) * scale for name, share in _QUANTILES.items()}


def distribution(parts: dict[str, list[Series]]) -> Distribution | None:
    """Of a histogram's series; None when nothing was counted. Raises TraceError for bounds that are no numbers."""
    bounds, counts = _buckets(parts.get("bucket", []))
    number = total(parts["count"]) if parts.get("count") else float(counts[-1]) if len(counts) else 0.0
    if not number > 0:
        return None
    mean = total(parts["sum"]) / number if parts.get("sum") else None
    if not len(counts) or not counts[-1] > 0:
        return Distribution(number, mean, ())
    finite = np.isfinite(bounds)
    shares, ends = counts[finite] / counts[-1], bounds[finite]
    open_share = float(1 - shares[-1]) if len(shares) else 1.0
    return Distribution(number, mean, _points(shares, ends, open_share, mean), open_share)


def _points(shares: np.ndarray, ends: np.ndarray, open_share: float, mean: float | None) -> tuple[tuple[float, float], ...]:
    """A quantile table: from the lower end of the first bucket that has values to the upper end of the last."""
    cdf, values = np.concatenate([[0.0], shares]), np.concatenate([[min(0.0, ends[0]) if len(ends) else 0.0], ends])
    if open_share > 0:
        below = float(np.diff(cdf) @ (values[1:] + values[:-1]) / 2)
        last = float(values[-1])
        top = 2 * last if mean is None else 2 * (mean - below) / open_share - last
        cdf, values = np.append(cdf, 1.0), np.append(values, max(last, top))
    first, end = int(np.flatnonzero(cdf > 0)[0]) - 1, int(np.flatnonzero(cdf >= cdf[-1])[0])
    cdf, values = cdf[first : end + 1].copy(), values[first : end + 1]
    cdf[-1] = 1.0
    return tuple(zip(cdf.tolist(), values.tolist(), strict=True))


def _buckets(series: Sequence[Series]) -> tuple[np.ndarray, np.ndarray]:
    """(upper bounds, cumulative counts) over all servers, which may have different bounds."""
    servers: dict[tuple, list[Series]] = defaultdict(list)
    for each in series:
        servers[tuple(label for label in each.labels if label[0] != "le")].append(each)
    spanned = [each for each in servers.values() if any(len(one.time_s) > 1 for one in each)]
    tables = [_table(each) for each in spanned or servers.values()]
    if not tables:
        return np.zeros(0), np.zeros(0)
    bounds = np.unique(np.concatenate([ends for ends, _ in tables]))
    finite = bounds[np.isfinite(bounds)]
    summed = sum(
        (np.interp(finite, np.append(0.0, ends[:-1]), np.append(0.0, counts[:-1])) for ends, counts in tables), np.zeros(len(finite))
    )
    return np.append(finite, np.inf), np.maximum.accumulate(np.append(summed, sum(counts[-1] for _, counts in tables)))


def _table(series: Sequence[Series]) -> tuple[np.ndarray, np.ndarray]:
    """(bounds, cumulative counts) of one server, with one that is infinite last."""
    counts = {_bound(each): rise(each).total for each in series}
    counts.setdefault(np.inf, max(counts.values()))
    ends = np.array(sorted(counts))
    return ends, np.maximum.accumulate([counts[end] for end in ends])


def _bound(series: Series) -> float:
    text = series.label("le")
    try:
        bound = math.nan if text is None else float(text)
    except ValueError:
        bound = math.nan
    if not bound >= 0:
        raise TraceError(f"{series.name}: `le` is {text!r}, not the upper end of a bucket")
    return bound
