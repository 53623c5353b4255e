"""What a comparison means, in sentences that stay few with many variants."""

import math
from collections.abc import Mapping, Sequence

from kvplan.sim.sweep.measures import Metric, metric
from kvplan.sim.sweep.stats import Estimate, Pair, Table, groups, twins


def verdict(key: str, means: Mapping[str, float], pairs: Sequence[Pair], replications: int) -> list[str]:
    """Sentences on a measure: which variants are identical, which cannot be told apart, and what beats what, best first."""
    shown, table = metric(key), Table(pairs)
    ranked = sorted(means, key=means.__getitem__, reverse=shown.better >= 0)
    found = twins(ranked, table)
    lines = [f"{_listed(group)} are identical here in {shown.name}." for group in found if len(group) > 1]
    distinct = [group[0] for group in found]
    if len(distinct) < 2:
        return lines
    if replications < 2:
        best, worst = distinct[0], distinct[-1]
        by = number(table.pair(best, worst).difference, shown)
        return [*lines, f"{best} {_verb(shown)} {worst} by {by} in the one replication: no intervals, it may be chance."]
    return lines + _ranking(groups(distinct, table), table, shown, len(pairs))


def _ranking(found: list[list[str]], table: Table, shown: Metric, pairs: int) -> list[str]:
    lines = []
    for place, group in enumerate(found):
        if place:
            better = next(label for label in found[place - 1] if table.pair(label, group[0]).apart)
            lines.append(f"{better} {_verb(shown)} {group[0]} by {number(table.pair(better, group[0]).difference, shown)} of {shown.name}.")
        if len(group) > 1:
            widest = table.pair(group[0], group[-1]).difference
            doubt = f"; not enough among {pairs} pairs, more replications would tell" if abs(widest.mean) > widest.half_width else ""
            lines.append(f"{_listed(group)} cannot be told apart here ({number(widest, shown)}{doubt}).")
    return lines


def number(difference: Estimate, shown: Metric, signed: bool = False) -> str:
    """A difference with its interval in the metric's unit, as many digits as the interval deserves: `27 ± 2 points`."""
    shown = shown.at(max(abs(difference.mean), difference.half_width or 0.0))
    unit = shown.difference or shown.unit
    mean, half = shown.scale * difference.mean, None if difference.half_width is None else shown.scale * difference.half_width
    places = decimals(half or abs(mean) / 10)
    text = f"{mean if signed else abs(mean):{'+' if signed else ''},.{places}f}"
    if half is not None:
        text += f" ± {half:,.{places}f}"
    return f"{text} {unit}".rstrip()


def decimals(spread: float) -> int:
    """Decimal places that show the first digit of `spread`, and the second when the first is a 1."""
    if spread <= 0:
        return 0
    exponent = math.floor(math.log10(spread))
    return min(max(0, -exponent + (spread / 10**exponent < 1.95)), 9)


def _verb(shown: Metric) -> str:
    return "beats" if shown.better else "is above"


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
