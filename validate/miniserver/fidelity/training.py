"""A calibration from what a server has done on a trace of its own: the catalogue of a case with these step times and transfers in it.

`kvplan validate measure` times kernels and transfers alone, over a wide grid. A server works in a small part of that grid. Its steps
hold more: its own work, arguments made, answers picked, and the traffic of its other threads; its transfers are small and are checked.
Which of the errors is whose is what simulating with both calibrations tells.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from kvplan.hwmodels.steptime import COEFFICIENTS, StepTime
from kvplan.validate.calibration.fit.entries import write_entry
from kvplan.validate.calibration.fit.least_squares import Fit, fit_coefficients
from kvplan.validate.calibration.fit.steps import UNITS
from kvplan.validate.miniserver.ledger import Step
from kvplan.validate.miniserver.server import Served

_GROUPS = 60
"""Rows of a fit. All of them took the same time together, so that a share of the busy time counts as much wherever it was spent."""
_KINDS = ("gpu", "link", "ssd", "node", "calibration", "models", "prices")


class _Transfer(NamedTuple):
    """A link of a summary, and where the catalogue has its bandwidth."""

    link: str
    kind: str
    name: str


_TRANSFERS = (
    _Transfer("host_to_device", "link", "host_to_device"),
    _Transfer("device_to_host", "link", "device_to_host"),
    _Transfer("ssd_read", "ssd", "read_bandwidth"),
    _Transfer("ssd_write", "ssd", "write_bandwidth"),
)


def groups(steps: Iterable[Step]) -> list[list[Step]]:
    """Steps that are alike in kind, tokens and context, in groups that took about the same time."""
    alike = sorted(steps, key=lambda step: (step.is_prefill, step.tokens, step.context))
    enough = sum(step.seconds for step in alike) / _GROUPS
    found: list[list[Step]] = [[]]
    taken = 0.0
    for step in alike:
        if taken >= enough or (found[-1] and found[-1][-1].is_prefill != step.is_prefill):
            found.append([])
            taken = 0.0
        found[-1].append(step)
        taken += step.seconds
    return found


def fit_steps(steps: Iterable[Step]) -> Fit:
    """Coefficients of `kvplan.hwmodels.steptime` for steps as they were served: the form is linear, so it holds for sums of steps. Raises
    ValueError when there are too few."""
    found = groups(steps)
    design = [[sum(seconds_of(unit, step) for step in group) for unit in UNITS] for group in found]
    return fit_coefficients(np.array(design), np.array([sum(step.seconds for step in group) for group in found]))


def seconds_of(form: StepTime, step: Step) -> float:
    """What a form says a step takes."""
    return form.prefill(step.tokens, step.context) if step.is_prefill else form.decode(step.tokens, step.context)


def write_catalogue(case: Path, folder: Path, runs: Sequence[Served], source: str) -> Fit:
    """Writes the case's catalogue into `folder`, with the steps and the transfers as they were served; returns the fit."""
    for kind in _KINDS:
        if (case / kind).is_dir():
            shutil.copytree(case / kind, folder / kind)
    for row in _TRANSFERS:
        _rewrite(folder, row.kind, partial(_with_transfer, row=row, runs=runs))
    steps = [step for run in runs for step in run.steps]
    found = fit_steps(steps)
    _rewrite(folder, "calibration", lambda entry: _with_steps(entry, runs[0].config.model, steps, found, source))
    return found


def _rewrite(folder: Path, kind: str, change: Callable[[dict], dict]) -> None:
    """Changes the one entry of a kind."""
    (path,) = (folder / kind).glob("*.yaml")
    write_entry(folder, kind, change(yaml.safe_load(path.read_text(encoding="utf-8"))))


def _with_steps(entry: dict, model: str, steps: list[Step], found: Fit, source: str) -> dict:
    fitted = next(each for each in entry["steps"] if each["model"] == model)
    prefills, decodes = ([step for step in steps if step.is_prefill is kind] for kind in (True, False))
    fitted |= {name: _rounded(value) for name, value in zip(COEFFICIENTS, found.coefficients, strict=True)}
    fitted |= {"new": _span(step.tokens for step in prefills), "history": _span(step.context for step in prefills)}
    fitted |= {"batch": _span(step.tokens for step in decodes), "context": _span(step.context for step in decodes)}
    fitted |= {"prefill_error": _rounded(found.mean_error), "decode_error": _rounded(found.mean_error)}
    return {**entry, "source": source, "description": f"{entry['description']}; {model} as the mini server ran it"}


def _with_transfer(entry: dict, row: _Transfer, runs: Sequence[Served]) -> dict:
    """An entry whose `row` is what went over a link / how long it was busy, latencies included; as it was when nothing went over it."""
    moved = sum(run.summary["links"][row.link]["bytes"] for run in runs)
    busy_s = sum(run.summary["links"][row.link]["busy_share"] * run.summary["makespan_s"] for run in runs)
    if not moved:
        return entry
    rate = {"value": _rounded(moved / busy_s / 1e9), "unit": "GB/s", "source": "measured: by the mini server, latencies included"}
    return {**entry, row.name: rate, "latency": {"value": 0.0, "unit": "us", "source": "in the bandwidth"}}


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _span(sizes: Iterable[int]) -> list[int]:
    found = list(sizes)
    return [min(found), max(found)]
