"""Fits of forms that are linear in their coefficients, none of which may be negative, to seconds that span orders of magnitude.

Rows are divided by what was measured, so that relative errors are what is squared and a short step counts as much as a long one.
Errors are cross-validated: each point is predicted by a fit to the others (leave one out; ten folds when there are many points).

Source: Lawson and Hanson, Solving Least Squares Problems (1974), chapter 23, as scipy.optimize.nnls.
"""

from dataclasses import dataclass

import numpy as np

LEAST_POINTS = 2
"""Points per coefficient, below which errors would say nothing."""
MOST_FOLDS = 40
"""More points than this are left out a tenth at a time."""


@dataclass(frozen=True)
class Fit:
    """Coefficients, and for every point predicted / measured − 1 by a fit that had not seen it."""

    coefficients: np.ndarray
    errors: np.ndarray

    @property
    def mean_error(self) -> float:
        """Mean of the absolute relative errors."""
        return float(np.abs(self.errors).mean())

    @property
    def largest_error(self) -> float:
        """Largest of the absolute relative errors."""
        return float(np.abs(self.errors).max())


def fit_coefficients(design: np.ndarray, seconds: np.ndarray) -> Fit:
    """Fits `design`, [points, coefficients], to `seconds`, [points]. Raises ValueError when there are too few points."""
    points, unknowns = design.shape
    if points < LEAST_POINTS * unknowns:
        raise ValueError(f"{points} points are too few for {unknowns} coefficients: measure longer")
    folds = np.arange(points) % (points if points <= MOST_FOLDS else 10)
    errors = np.empty(points)
    for fold in np.unique(folds):
        seen = folds != fold
        errors[~seen] = design[~seen] @ _solve(design[seen], seconds[seen]) / seconds[~seen] - 1
    return Fit(_solve(design, seconds), errors)


def _solve(design: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    from scipy.optimize import nnls

    relative = design / seconds[:, None]
    scale = np.maximum(np.abs(relative).max(axis=0), np.finfo(float).tiny)  # columns range from 1 to squares of tokens
    return nnls(relative / scale, np.ones(len(seconds)))[0] / scale
