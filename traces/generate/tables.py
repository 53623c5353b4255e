"""Quantile tables packaged beside this file.

A CSV file has the columns `quantity`, `cdf`, `value`: a share `cdf` of the quantity is at most `value`; both ascend. Its comments name
the source. A table is called by its file and quantity, `agentic-gaps`. Adding a table is adding a file, or rows to one.
"""

import csv
from functools import cache
from importlib import resources

import numpy as np

Table = tuple[np.ndarray, np.ndarray]
"""(cdf, value), both ascending."""


@cache
def read_tables(file: str) -> dict[str, Table]:
    """Quantity -> its table, of one packaged file (named without `.csv`)."""
    text = resources.files("kvplan.traces.generate").joinpath(f"{file}.csv").read_text(encoding="utf-8")
    table: dict[str, list[tuple[float, float]]] = {}
    for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
        table.setdefault(row["quantity"], []).append((float(row["cdf"]), float(row["value"])))
    return {quantity: tuple(np.array(points).T) for quantity, points in table.items()}


@cache
def known() -> dict[str, Table]:
    """Name -> table, of all that are whole quantile functions: those whose cdf runs from 0 to 1."""
    files = sorted(entry.name[:-4] for entry in resources.files("kvplan.traces.generate").iterdir() if entry.name.endswith(".csv"))
    tables = {f"{file}-{quantity}": table for file in files for quantity, table in read_tables(file).items()}
    return {name: (cdf, values) for name, (cdf, values) in tables.items() if cdf[0] == 0 and cdf[-1] == 1}
