"""Latency and bandwidth of links: seconds = latency + bytes / bandwidth, fitted to one direction of one kind of transfer."""

from dataclasses import dataclass

import numpy as np

from kvplan.validate.calibration.fit.least_squares import LEAST_POINTS, Fit, fit_coefficients
from kvplan.validate.calibration.fit.steps import Rows


@dataclass(frozen=True)
class FittedLink:
    """One direction."""

    bandwidth: float
    """Bytes per second."""
    latency_s: float
    fit: Fit
    largest_bytes: int

    def seconds(self, size: int) -> float:
        """Of a transfer of `size` bytes."""
        return self.latency_s + size / self.bandwidth


def fit_link(rows: Rows) -> FittedLink:
    """Raises ValueError when there are too few rows, or time does not grow with size."""
    sizes = np.array([float(row["bytes"]) for row in rows])
    found = fit_coefficients(np.column_stack((np.ones(len(sizes)), sizes)), np.array([float(row["median_s"]) for row in rows]))
    latency, per_byte = map(float, found.coefficients)
    if per_byte <= 0:
        raise ValueError("transfers do not take longer when they are larger")
    return FittedLink(1 / per_byte, latency, found, int(sizes.max()))


def fit_links(rows: Rows, *by: str) -> dict[tuple[str, ...], FittedLink]:
    """One fit for every combination of the columns `by` that has enough points."""
    groups: dict[tuple[str, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    return {key: fit_link(group) for key, group in groups.items() if len(group) >= 2 * LEAST_POINTS}


def fastest(links: dict[tuple[str, ...], FittedLink], direction: str) -> tuple[tuple[str, ...], FittedLink]:
    """The one of a direction that moves its largest transfer in least time per byte. Raises ValueError when there is none."""
    of_direction = [(key, link) for key, link in links.items() if key[0] == direction]
    if not of_direction:
        raise ValueError(f"there are too few points of {direction}")
    return min(of_direction, key=lambda item: item[1].seconds(item[1].largest_bytes) / item[1].largest_bytes)
