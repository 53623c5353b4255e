"""One scenario through the server and the simulator: quantities side by side, and where an error comes from.

The error of the busy time has two parts. The steps that the server made, each priced by the calibration, show how far the *step times* are
off; what is left is that the simulator made *other steps* (batches of other sizes, other hits). Work between steps, which no
calibration has, is its own row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hwmodels.steptime import StepTime
from sim.engine.plant import plant
from sim.engine.run import Result
from validate.engine.server import Served
from validate.fidelity.scenarios import Scenario
from validate.fidelity.training import seconds_of

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
    between: float
    """The server's own work between steps, on top of its busy time and unknown to the simulator."""


@dataclass(frozen=True)
class Pair:
    """One scenario on both sides."""

    scenario: Scenario
    served: Served
    again: Served | None
    by_case: Result
    """Simulated with the calibration of the case …"""
    by_training: Result
    """… and with that of the server's own steps."""
    why_case: Explained
    why_training: Explained

    def rows(self, simulated: Result) -> list[Row]:
        """Every quantity, for one of the two."""
        runs = [self.served.summary, self.again.summary if self.again else None, simulated.summary]
        served, again, said = [dict(quantities(each)) if each else {} for each in runs]
        return [Row(name, served[name], again.get(name), said[name]) for name in served]


def quantities(summary: dict) -> Iterator[tuple[str, float]]:
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


def explain(served: Served, simulated: Result) -> Explained:
    """Where the error of the busy time comes from."""
    form: StepTime = plant(simulated.config).steps
    gpu = served.summary["gpu"]
    priced = sum(seconds_of(form, step) for step in served.steps)
    step_error = priced - sum(step.seconds for step in served.steps)
    error = simulated.summary["gpu"]["busy_s"] - gpu["busy_s"]
    return Explained(step_error / gpu["busy_s"], (error - step_error) / gpu["busy_s"], served.between_s / gpu["busy_s"])
