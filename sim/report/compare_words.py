"""What a comparison means, in sentences that stay few with many variants."""

import math
from collections.abc import Callable, Mapping, Sequence

from kvplan.sim.report.metric_names import Metric, metric
from kvplan.sim.sweep.stats import Estimate, Pair, Ratio, Table, groups, twins

Losses = Callable[[str, str], list[str]]
"""(better, worse) -> what the better of two variants is worse in."""
_FACTOR = 3.0


def verdict(key: str, means: Mapping[str, float], pairs: Sequence[Pair], losses: Losses = lambda better, worse: []) -> list[str]:
    """Sentences on a measure: which variants are identical, which cannot be told apart, and what is better than what, best first. `losses`
    says what the better of two loses elsewhere: a gain that is one nowhere else is not called a win."""
    shown, table = metric(key), Table(pairs)
    ranked = sorted(means, key=means.__getitem__, reverse=shown.better >= 0)
    found = twins(ranked, table)
    lines = [f"{_listed(group)} are identical here in {shown.name}." for group in found if len(group) > 1]
    distinct = [group[0] for group in found]
    if len(distinct) < 2:
        return lines
    best, worst = distinct[0], distinct[-1]
    if table.pair(best, worst).difference.half_width is None:
        return [*lines, f"{_better(table.pair(best, worst), shown)} in the one replication: no intervals, it may be chance."]
    return lines + _ranking(groups(distinct, table), table, shown, len(pairs), losses)


def _ranking(found: list[list[str]], table: Table, shown: Metric, pairs: int, losses: Losses) -> list[str]:
    lines = []
    for place, group in enumerate(found):
        if place:
            better = next(label for label in found[place - 1] if table.pair(label, group[0]).apart)
            lost = losses(better, group[0])
            lines.append(_better(table.pair(better, group[0]), shown) + (f", but {' and '.join(lost)}." if lost else "."))
        if len(group) > 1:
            widest = table.pair(group[0], group[-1])
            doubt = f"; not enough among {pairs} pairs, more replications would tell" if _significant(widest) else ""
            lines.append(f"{_listed(group)} cannot be told apart here in {shown.name} ({gap(widest, shown)}{doubt}).")
    return lines


def _better(pair: Pair, shown: Metric) -> str:
    """`lru: TTFT (p95) 30% ± 5 less than fifo`, without a full stop."""
    if pair.ratio is None:
        return f"{pair.first}: {gap(pair, shown)} {'more' if pair.difference.mean > 0 else 'less'} {shown.name} than {pair.second}"
    return f"{pair.first}: {shown.name} {compared(pair.ratio)} {pair.second}"


def _significant(pair: Pair) -> bool:
    """Whether the pair's own interval leaves out no difference."""
    if pair.ratio is not None:
        ends = pair.ratio.ends
        return ends is not None and not ends[0] <= 1 <= ends[1]
    half = pair.difference.half_width
    return half is not None and abs(pair.difference.mean) > half


def lost(name: str, found: Ratio | None) -> str | None:
    """`cost is 12% ± 1 more`, when the ratio, of a measure of which less is better, is above 1 with its whole interval."""
    if found is None or found.low is None or found.low <= 1:
        return None
    return f"its {name} is {change(found).lstrip('+')}{' more' * (not _in_factors(found))}"


def gap(pair: Pair, shown: Metric) -> str:
    """How far two are apart, without a sign."""
    return number(pair.difference, shown) if pair.ratio is None else change(pair.ratio).lstrip("+-")


def change(found: Ratio) -> str:
    """A ratio with its interval, in percent: `-30% ± 5`; from a factor of 3 on, and where the interval is wider than what is compared,
    `4.1x (3.0 to 5.6)`."""
    ends = found.ends
    if _in_factors(found):
        return f"{found.factor:.3g}x" if ends is None else f"{found.factor:.3g}x ({ends[0]:.2g} to {ends[1]:.2g})"
    percent = 100 * (found.factor - 1)
    half = None if ends is None else 50 * (ends[1] - ends[0])
    places = min(decimals(half or abs(percent) / 10), 2)
    return f"{percent:+.{places}f}%" if half is None else f"{percent:+.{places}f}% ± {half:.{places}f}"


def _in_factors(found: Ratio) -> bool:
    return found.factor >= _FACTOR or (found.ends is not None and found.ends[1] - found.ends[0] > 2)


def compared(found: Ratio) -> str:
    """As part of a sentence: `30% ± 5 less than`, `4.1x (3.0 to 5.6) that of`."""
    if _in_factors(found):
        return f"{change(found)} that of"
    return f"{change(found).lstrip('+-')} {'more' if found.factor > 1 else 'less'} than"


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


def _listed(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
