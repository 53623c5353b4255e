"""Step times of whole models from timed layers, fitted to the form of `kvplan.hwmodels.steptime`.

A stack of n layers stands for a model's L by the factor L/n, as its layers are all alike; the output head was timed apart and is added
once, for one row in a prefill and for the batch in a decode step. One set of coefficients serves both, as the form has it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kvplan.hwmodels.steptime import COEFFICIENTS, StepTime
from kvplan.validate.calibration.fit.least_squares import Fit, fit_coefficients

_NOTHING: dict[str, Any] = dict.fromkeys(COEFFICIENTS, 0.0)
UNITS = [StepTime(layers=1, **{**_NOTHING, name: 1.0}) for name in COEFFICIENTS]
"""Step times that have one coefficient only: what they give for a step is a row of the design matrix."""

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class FittedModel:
    """One model's fit."""

    model: str
    dtype: str
    layers: int
    coefficients: dict[str, float]
    spans: dict[str, list[int]]
    """Smallest and largest `new`, `history`, `batch` and summed `context`."""
    errors: dict[str, Fit]
    """The cross-validated errors of "prefill" and "decode" points, and of the "head" fit."""


def fit_model(model: str, dtype: str, layers: int, prefill: Rows, decode: Rows, head: Rows) -> FittedModel:
    """Fits one model of `layers` layers. Raises ValueError when there are too few points."""
    head_fit = fit_coefficients(np.array([[1.0, float(row["rows"])] for row in head]), _seconds(head))

    def head_s(rows: int) -> float:
        return float(head_fit.coefficients @ [1.0, rows])

    steps = [(int(row["new"]), int(row["history"])) for row in prefill]
    batches = [(int(row["batch"]), int(row["batch"]) * int(row["context"])) for row in decode]
    design = [[unit.prefill(*step) for unit in UNITS] for step in steps] + [[unit.decode(*step) for unit in UNITS] for step in batches]
    scale = np.array([layers / int(row["layers"]) for row in prefill + decode])
    heads = np.array([head_s(1) for _ in steps] + [head_s(batch) for batch, _ in batches])
    found = fit_coefficients(np.array(design, dtype=float), _seconds(prefill + decode) * scale + heads)
    columns = {
        "new": [new for new, _ in steps],
        "history": [history for _, history in steps],
        "batch": [batch for batch, _ in batches],
        "context": [context for _, context in batches],
    }
    return FittedModel(
        model,
        dtype,
        layers,
        coefficients=dict(zip(COEFFICIENTS, map(float, found.coefficients), strict=True)),
        spans={name: [min(values), max(values)] for name, values in columns.items()},
        errors={
            "prefill": replace(found, errors=found.errors[: len(steps)]),
            "decode": replace(found, errors=found.errors[len(steps) :]),
            "head": head_fit,
        },
    )


def _seconds(rows: Rows) -> np.ndarray:
    return np.array([float(row["median_s"]) for row in rows])
