"""One look at one replica: simulated at its share of the load, with the store full, and held against the objectives.

The sessions are a cut out of an endless stream (`kvplan.traces.generate.steady`), long enough to fill the tiers first and then to be
measured. A run that can no longer meet a percentile is ended at once: when more of the measured turns are over the limit than may be, no
later turn makes that good.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config
from kvplan.sim.deployment import resolve
from kvplan.sim.keptunit import unit_of
from kvplan.sim.metrics.recorder import Recorder
from kvplan.sim.metrics.steadiness import Span, rising
from kvplan.sim.metrics.thinned import thinned
from kvplan.sim.planner.filling import Filling
from kvplan.sim.planner.objective import Objective, Sample, latency, sample
from kvplan.sim.simulation import Result, simulate
from kvplan.sim.sweep.digest import digest
from kvplan.traces import Workload

FILL = 1.2
"""Time before measuring, for every second that the tiers take to fill."""
FULL = 0.9
"""A tier holds this share of its capacity, or no longer grows, when it is steady."""
_FAR = 2.0
"""Times as many turns over a limit as may be, from which on a run is ended."""
_GROWTH = 1.25
"""Second half over first half of the turns in the server, from which on they are said to rise."""
_QUANTILES = 2001
_WARM_TURNS = 4000
"""Turns before measuring at least: a batch takes time to reach its size, whatever the tiers hold. Near saturation it took 3,000, in
the mean of six seeds (docs/decisions.md)."""
_LOOKS = 50
"""Times that a run is asked whether it is hopeless."""


@dataclass(frozen=True)
class Probe:
    """What to simulate: a configuration of one replica, with its load, and what to measure."""

    config: Config
    objectives: tuple[Objective, ...]
    measured_turns: int
    """The last turns of the run, in order of arrival."""
    to_the_end: bool = False
    """Also when it can no longer meet an objective."""

    @property
    def digest(self) -> str:
        """Probes of the same digest see the same. Raises as `kvplan.sim.sweep.digest.digest`."""
        rest = {"measured_turns": self.measured_turns, "to_the_end": self.to_the_end}
        return digest(self.config, objectives=list(map(asdict, self.objectives)), **rest)


@dataclass(frozen=True)
class Seen:
    """What one run of a probe gave."""

    samples: tuple[Sample, ...] | None
    """Per objective; None when the run was ended early, because it could not meet them any more."""
    figures: dict[str, float]
    """Of the summary, flat; empty when the run was ended early."""
    unsteady: tuple[str, ...] = ()
    """Tiers that were still filling when measuring ended."""
    rising: bool = False
    """Whether ever more turns were in the server: at this load no figure of it lasts."""
    warnings: tuple[str, ...] = ()
    """Of the summary."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """What was where over time, thinned: `time_s`, `running` and `waiting` turns, and bytes of each tier; a picture's worth."""
    ttft_s: tuple[float, ...] = ()
    """Of the measured turns, evenly spaced quantiles: those of several runs together are those of all their turns."""


class _Hopeless(Exception):
    """The run cannot meet its objectives any more."""


def look(probe: Probe) -> Seen:
    """Simulates. Deterministic: the configuration has the seed."""
    workload = build_workload(probe.config)
    warmup = max(0, workload.turns - probe.measured_turns)
    config = probe.config.model_copy(update={"warmup_turns": warmup})
    watch = None if probe.to_the_end else _Watch(probe.objectives, warmup, workload.turns - warmup)
    try:
        result = simulate(config, workload, watch=watch, passing=_passing(config, warmup))
    except _Hopeless:
        return Seen(None, {})
    measured = (result.columns["order"] >= warmup) & (result.columns["arrival_s"] <= _last_arrival_s(workload))
    if not measured.any():  # so overloaded that the warm-up outlasts the arrivals
        return Seen(None, {})
    samples = tuple(sample(objective, result.columns, measured) for objective in probe.objectives)
    rises, warnings = bool(rising(_span(result), _GROWTH)), tuple(result.summary["warnings"])
    ttft_s = latency("ttft", result.columns)[0][measured]
    figures = _figures(result.summary) | _running(result)
    return Seen(samples, figures, tuple(_unsteady(result)), rises, warnings, thinned(result.series), _quantiles(ttft_s))


def _passing(config: Config, warmup: int) -> int:
    """Turns that only fill the tiers, and need not be simulated for it: where KV is in blocks, all but the last before measuring."""
    return max(0, warmup - _WARM_TURNS) if unit_of(config) == "block" else 0


def _quantiles(values: np.ndarray) -> tuple[float, ...]:
    """Evenly spaced, between the values in their order: `np.quantile` finds the place of each anew."""
    places = np.linspace(0, len(values) - 1, _QUANTILES)
    return tuple(np.interp(places, np.arange(len(values)), np.sort(values)).tolist())


def ttft_p95_s(seen: Sequence[Seen]) -> float | None:
    """Of all turns of these runs; None where none was measured."""
    together = [value for each in seen for value in each.ttft_s]
    return float(np.quantile(together, 0.95)) if together else None


def _last_arrival_s(workload: Workload) -> float:
    """Of a session: later turns meet a load that falls."""
    return float(workload.arrival_s[workload.is_first].max())


def _span(result: Result) -> Span:
    """From the end of the warm-up to the last arrival."""
    done_s = np.sort(result.columns["done_s"])
    return Span.of(result.columns, result.workload, float(done_s[result.config.warmup_turns]), result.config.deployment.max_batch)


class _Watch:
    """Called with the recorder now and then; raises _Hopeless when an objective on a percentile is lost for good."""

    def __init__(self, objectives: Sequence[Objective], warmup: int, measured: int) -> None:
        self._objectives = [each for each in objectives if each.share is not None]
        self._allowed = [_FAR * (1 - each.share) * measured for each in objectives if each.share is not None]
        self._late = [0] * len(self._objectives)
        """Turns over each one's limit so far."""
        self._counted = warmup
        """Turns completed when it looked last."""
        self._step = max(1, measured // _LOOKS)

    def __call__(self, recorder: Recorder) -> None:
        if recorder.completed < self._counted + self._step:
            return
        new = np.flatnonzero(np.isfinite(recorder.columns["done_s"]) & (recorder.columns["order"] >= self._counted))
        self._counted = recorder.completed
        col = {name: values[new] for name, values in recorder.columns.items()}
        for place, objective in enumerate(self._objectives):
            self._late[place] += int(objective.late(col).sum())
            if self._late[place] > self._allowed[place]:
                raise _Hopeless


def _figures(summary: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in summary.items():
        if isinstance(value, dict) and key != "provenance":
            found |= _figures(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            found[prefix + key] = float(value)
    return found


def _running(result: Result) -> dict[str, float]:
    """Bytes of HBM that jobs have, in the mean over the measured part; what they share counts once."""
    late = result.series["time_s"] >= _measured_since(result)
    return {"hbm.running_bytes": float(result.series["hbm_running_bytes"][late].mean())} if late.any() else {}


def _measured_since(result: Result) -> float:
    done_s = np.sort(result.columns["done_s"])
    return float(done_s[min(result.config.warmup_turns, len(done_s) - 1)])


def _unsteady(result: Result) -> list[str]:
    """Tiers that were not full and still grew over the measured part."""
    deployment, series = resolve(result.config), result.series
    late = series["time_s"] >= _measured_since(result)
    found = []
    for tier in deployment.tiers:
        held = series[f"{tier.name}_bytes"][late]
        if len(held) > 1 and held[-1] < FULL * tier.taken(tier.capacity - tier.reserve) and held[-1] > held[0] * 1.05:
            found.append(tier.name)
    return found


def sessions_for(filling: Filling, sessions_per_s: float, turns_per_session: float, measured_turns: int, most: int) -> tuple[int, bool]:
    """Sessions of a run that fills the tiers and measures so many turns then, and whether `most` is enough for it."""
    before = max(FILL * filling.seconds(sessions_per_s) * sessions_per_s, _WARM_TURNS / turns_per_session)
    needed = math.ceil(before + measured_turns / turns_per_session)
    return min(needed, most), needed <= most
