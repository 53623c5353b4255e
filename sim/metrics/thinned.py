"""Observations over time, as many as a picture shows."""

from collections.abc import Mapping

import numpy as np

POINTS = 80


def thinned(series: Mapping[str, np.ndarray], most: int = POINTS) -> dict[str, list[float]]:
    """Of the first replica: every so many of the observations, from the first to the last, in four digits."""
    mine = np.flatnonzero(np.asarray(series["replica"]) == 0)
    picked = mine[np.unique(np.linspace(0, len(mine) - 1, min(len(mine), most)).astype(int))]
    names = ("time_s", "running", "waiting", *(name for name in series if name.endswith("_bytes")))
    return {name: [float(f"{value:.4g}") for value in np.asarray(series[name])[picked].tolist()] for name in names}
