"""Measured overlap beside the layer pipeline of `kvplan.hwmodels.steptime`, which takes only the two ends of it from the measurement.

`none` gives the compute time, `no-pl` − `none` the time of loading; everything between them is predicted.
"""

from collections.abc import Iterator

from kvplan.hwmodels.steptime import pipeline_s
from kvplan.validate.calibration.fit.steps import Rows


def compared(rows: Rows) -> Iterator[tuple[str, float, float]]:
    """(loading, measured seconds, predicted seconds) of every read buffer; nothing where an end was not measured."""
    jobs: dict[tuple[str, ...], dict[str, float]] = {}
    for row in rows:
        job = tuple(row[name] for name in ("model", "dtype", "layers", "batch", "history", "new"))
        jobs.setdefault(job, {})[row["loading"]] = float(row["median_s"])
    for job, seconds in jobs.items():
        if not {"none", "no-pl"} <= seconds.keys():
            continue
        layers, compute = int(job[2]), seconds["none"]
        load = max(0.0, seconds["no-pl"] - compute)
        for loading in sorted(seconds.keys() - {"none", "no-pl"}, key=_read_buffer):
            predicted = pipeline_s(layers, compute / layers, load / layers, _read_buffer(loading))
            yield f"{job[0]} {loading}", seconds[loading], predicted


def _read_buffer(loading: str) -> int:
    return int(loading.removeprefix("pl-b"))
