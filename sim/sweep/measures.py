"""What a run is measured by: a number of `summary.json` under its dotted path (`hit_rate.resumed`, `ttft_s.mean`)."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from kvplan.sim.analytic.turns import cut_spoils
from kvplan.sim.deployment import resolve
from kvplan.sim.replay.bound import best_possible
from kvplan.sim.simulation import Result


def measure(result: Result) -> dict[str, float]:
    """Every number of the run's summary, flat, and the most that any eviction policy could have hit in the run's own order of turns
    (`bound.resumed`, `bound.tokens`), where sessions share nothing; what has no value (null) is left out."""
    found = numbers(result.summary)
    deployment, config = resolve(result.config), result.config
    if deployment.tiers and not deployment.pooled:
        spoilt = result.columns["overflow"] > 0 if cut_spoils(config, deployment) else None
        saved = deployment.connection.saved
        bound = best_possible(result.columns, deployment.room, deployment.stored, config.warmup_turns, saved, spoilt)
        found |= {f"bound.{key}": value for key, value in bound.items()}
    return found


def numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """Every number of a summary, flat; what has no value (null) is left out."""
    return dict(_flat({key: value for key, value in summary.items() if key not in ("schema_version", "provenance", "warnings")}))


class MeasureError(ValueError):
    """Measures that nothing can be said about."""


def checked(values: object) -> dict[str, float]:
    """The measures of a run, or what should be: at least one, all finite numbers. Raises MeasureError."""
    if not isinstance(values, dict) or not values:
        raise MeasureError("there are no measures")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise MeasureError(f"{key} is {value!r}, which is no finite number")
    return values


def _flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield prefix + key, float(value)
