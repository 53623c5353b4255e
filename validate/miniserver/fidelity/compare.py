"""One scenario through the server and the simulator: quantities side by side, and where an error comes from.

The error of the busy time has two parts. The steps that the server made, each priced by the calibration, show how far the *step times* are
off; what is left is that the simulator made *other steps* (batches of other sizes, other hits).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvplan.hwmodels.steptime import StepTime
from kvplan.sim.deployment import resolve
from kvplan.sim.simulation import Result
from kvplan.validate.miniserver.fidelity.scenarios import Scenario
from kvplan.validate.miniserver.fidelity.training import seconds_of
from kvplan.validate.miniserver.server import Served

CALIBRATIONS = ("training", "own", "case")
"""By which the simulator runs; `kvplan.validate.miniserver.fidelity.command` says what they are."""
HIT_RATES = ("hit rate, resumed turns", "hits in DRAM", "hits on SSD")
"""Compared in percentage points; everything else as a share."""


@dataclass(frozen=True)
class Row:
    """One quantity of one scenario. `served_again` is None where the server ran once."""

    quantity: str
    served: float
    served_again: float | None
    simulated: float

    @property
    def error(self) -> float | None:
        """Simulated against served (the mean of two runs): a share, points for hit rates; None when there is nothing to divide by."""
        return _difference(self.quantity, self.simulated, self.truth)

    @property
    def noise(self) -> float | None:
        """The second run of the server against the first, in the same unit."""
        return None if self.served_again is None else _difference(self.quantity, self.served_again, self.served)

    @property
    def truth(self) -> float:
        """What the simulator should give."""
        return self.served if self.served_again is None else (self.served + self.served_again) / 2


def _difference(quantity: str, value: float, truth: float) -> float | None:
    if quantity in HIT_RATES:
        return value - truth
    return value / truth - 1 if truth else None


@dataclass(frozen=True)
class Explained:
    """Shares of the served busy time, stalls included."""

    step_times: float
    """The calibration's seconds for the steps that the server made, less what they took."""
    other_steps: float
    """What the simulator's busy time differs by beyond that."""
    own_work: float
    """The server's own work, part of its steps; no timing of kernels has it."""


@dataclass(frozen=True)
class Pair:
    """One scenario on both sides."""

    scenario: Scenario
    served: Served
    again: Served | None
    simulated: Mapping[str, Result]
    """By each of CALIBRATIONS."""
    explained: Mapping[str, Explained]
    """Likewise."""

    def rows(self, calibration: str) -> list[Row]:
        """Every quantity, by one of CALIBRATIONS."""
        runs = [self.served.summary, self.again.summary if self.again else None, self.simulated[calibration].summary]
        served, again, said = [dict(quantities(each)) if each else {} for each in runs]
        return [Row(name, served[name], again.get(name), said[name]) for name in served]


def quantities(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(name, value) of what is compared of a summary: percent, seconds, MB."""
    hits = summary["hit_rate"]
    for name, key in zip(HIT_RATES, ("resumed", "dram", "ssd"), strict=True):
        yield name, 100 * hits[key]
    yield "TTFT, mean", summary["ttft_s"]["mean"]
    yield "TTFT, p95", summary["ttft_s"]["p95"]
    yield "prefill, mean", summary["prefill_s"]["mean"]
    yield "TPOT, mean", summary["tpot_s"]["mean"]
    yield "busy time", summary["gpu"]["busy_s"]
    yield "makespan", summary["makespan_s"]
    for name, link in summary["links"].items():
        yield f"moved: {name.replace('_', ' ')}", link["bytes"] / 1e6


def explain(runs: Sequence[Served], simulated: Result) -> Explained:
    """Where the error of the busy time comes from; all in means over the runs."""
    form: StepTime = resolve(simulated.config).steps
    busy_s = sum(run.summary["gpu"]["busy_s"] for run in runs)
    step_error = sum(seconds_of(form, step) - step.seconds for run in runs for step in run.steps)
    error = len(runs) * simulated.summary["gpu"]["busy_s"] - busy_s
    return Explained(step_error / busy_s, (error - step_error) / busy_s, sum(run.own_s for run in runs) / busy_s)
