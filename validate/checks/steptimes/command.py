"""`kvplan validate steptimes --rows WHEEL`: measured / predicted time per output token over public end-to-end rows.

The rows come with the wheel of aisimulate, have no licence of their own, and are not shipped: fetch it yourself. Step times are not
fitted to them (`kvplan validate kerneltables` fits to tables of kernels): these rows only judge.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from kvplan.validate.aisimulate import FETCH, NotAWheel
from kvplan.validate.checks.steptimes.predict import tpot_s
from kvplan.validate.checks.steptimes.rows import Rows
from kvplan.validate.ending import ended
from kvplan.validate.show import show

_COLUMNS = ["case", "rows", "median", "typical error", "p90", "worst"]
_CLIENTS = [1, 4, 8, 16, 32, 64, 128, 4096]
_SERVER = ["kind", "gpu", "model", "bits", "engine", "load"]
"""What tells one server and its prompts and answers from others in the table of ratios."""
TYPICAL, WORST, SLOPE = 0.14, 2.0, 0.15
"""Aims: of the median error, of the largest factor, and of how much the median may change between 2 and 64 clients."""


def main(arguments: list[str]) -> int:
    """Exit code of the command: 1 when an aim is missed."""
    parser = argparse.ArgumentParser(prog="kvplan validate steptimes", description=__doc__, epilog=f"Fetch the wheel with: {FETCH}")
    parser.add_argument("--rows", type=Path, required=True, metavar="WHEEL", help="aisimulate-*.whl")
    parser.add_argument("--largest", type=int, default=10, help="rows that are furthest off, to print")
    asked = parser.parse_args(arguments)
    try:
        table = ratios(rows := Rows(asked.rows))
    except NotAWheel as error:
        return ended("steptimes", error)
    if table.empty:
        return ended("steptimes", f"{asked.rows} has no row that can be predicted")
    show("Time per output token, measured / predicted", _COLUMNS, summaries(table))
    _print_largest(table, asked.largest)
    if again := repeated(table):
        print(again)
    print("Not judged: " + ", ".join(f"{count} {why}" for why, count in rows.left_out.items() if count))
    print(*(missed := list(missed_aims(table))) or ["All aims are met."], sep="\n")
    return 1 if missed else 0


def ratios(rows: Rows) -> pd.DataFrame:
    """One line a row: what it is of, and measured / predicted."""
    found = [
        {
            "kind": "mixture" if row.model.num_experts else "dense",
            "gpu": row.gpu.name,
            "model": row.model.name.rpartition("/")[2],
            "bits": f"{min(map(float, vars(row.model.bits).values())):.3g}-bit",
            "engine": row.engine,
            "load": f"TP{row.gpus}{f' EP{row.ranks}' * (row.ranks > 1)} {row.prompt}/{row.answer}",
            "clients": row.clients,
            "ms": 1e3 * row.tpot_s,
            "runs": " to ".join(f"{1e3 * seconds:.1f}" for seconds in sorted(set(row.runs_s))),
            "spread": row.runs_s[1] / row.runs_s[0] - 1,
            "ratio": row.tpot_s / tpot_s(row),
        }
        for row in rows
    ]
    table = pd.DataFrame(found)
    return with_neighbours(table) if found else table


def with_neighbours(table: pd.DataFrame) -> pd.DataFrame:
    """Each row with what the same server took with the next fewer and the next more clients, and whether it took less with more: then
    the row contradicts its neighbours, since clients only ever add to a step."""
    ordered = table.sort_values("clients")
    of_server = ordered.groupby(_SERVER, sort=False).ms
    fewer, more = of_server.shift(), of_server.shift(-1)
    least = of_server.transform(lambda each: each[::-1].cummin()[::-1].shift(-1))
    return table.assign(fewer=fewer, more=more, contradicts=ordered.ms > least)


def summaries(table: pd.DataFrame) -> list[list[str]]:
    """Lines of all rows together, and of them by kind, by GPU, by clients, by engine and by model."""
    binned = table.assign(
        bin=pd.cut(table.clients, _CLIENTS, labels=[f"to {most}" for most in _CLIENTS[1:-1]] + ["more"], include_lowest=True)
    )
    by = [["kind"], ["gpu", "kind"], ["kind", "bin"], ["kind", "engine"], ["model", "gpu", "bits"]]
    parts = [(" ".join(map(str, name)), part) for keys in by for name, part in binned.groupby(keys, observed=True)]
    return [_summary("all", table), *(_summary(name.replace("to ", "up to ") + _unit(name), part) for name, part in parts)]


def repeated(table: pd.DataFrame) -> str:
    """How far runs of one server and load differ among themselves, in a sentence: what no prediction can be nearer to; empty where none
    was repeated."""
    spread = table.spread[table.spread > 0]
    if spread.empty:
        return ""
    return (
        f"Measured again, {len(spread)} of the rows: the longest run took {spread.median():.1%} more than the shortest at the median,"
        f" {spread.quantile(0.9):.0%} at p90, {spread.max():.0%} at the most."
    )


def _unit(name: str) -> str:
    return " clients" if " to " in name or name.endswith("more") else ""


def _summary(name: str, rows: pd.DataFrame) -> list[str]:
    error = (rows.ratio - 1).abs()
    figures = [f"{rows.ratio.median():.2f}", f"{error.median():.1%}", f"{error.quantile(0.9):.0%}", f"{_factor(rows).max():.2f}x"]
    return [name, str(len(rows)), *figures]


def _factor(rows: pd.DataFrame) -> pd.Series:
    """How many times too fast or too slow."""
    return rows.ratio.where(rows.ratio >= 1, 1 / rows.ratio)


def _print_largest(table: pd.DataFrame, count: int) -> None:
    rows = table.assign(factor=_factor(table)).nlargest(count, "factor")
    cells = [
        [
            f"{row['model']} {row['gpu']} {row['bits']}",
            *(str(row[key]) for key in ("engine", "load", "clients")),
            f"{row['ratio']:.2f}",
            row["runs"],
            _ms(row["fewer"]),
            _ms(row["more"]),
        ]
        for row in rows.to_dict("records")
    ]
    columns = ["case", "engine", "load", "clients", "measured / predicted", "measured, ms", "with fewer clients", "with more"]
    show("Furthest off", columns, cells)


def _ms(number: float) -> str:
    return "" if pd.isna(number) else f"{number:.1f}"


def missed_aims(table: pd.DataFrame) -> Iterator[str]:
    """A sentence for each."""
    typical, worst = (table.ratio - 1).abs().median(), _factor(table).max()
    if typical > TYPICAL:
        yield f"Missed: the typical error is {typical:.1%}, the aim {TYPICAL:.0%}."
    if worst > WORST:
        beyond = table[_factor(table) > WORST]
        yield (
            f"Missed: the worst row is off by {worst:.2f}x, the aim {WORST:.1f}x; {len(beyond)} of {len(table)} rows are beyond,"
            f" {int(beyond.contradicts.sum())} of which took longer than the same server did with more clients."
        )
    for kind, rows in table[table.clients.between(2, 64)].groupby("kind"):
        medians = rows.groupby("clients").ratio.median()
        change = medians.max() / medians.min() - 1
        if change > SLOPE:
            yield f"Missed: between 2 and 64 clients the median of {kind} models changes by {change:.0%}, the aim {SLOPE:.0%}."
