"""The kernel tables of engines in a wheel of `aisimulate` (Apache-2.0, NVIDIA): Parquet files."""

import fnmatch
import re
from io import BytesIO

import pandas as pd

from kvplan.validate.aisimulate import CORE, Wheel

_DATA = f"{CORE}/systems/data"
ANY = f"{_DATA}/*.parquet"
"""What a wheel must have."""


def of_system(system: str) -> str:
    """A pattern for all tables of a GPU."""
    return f"{_DATA}/{system}/*.parquet"


def tables(wheel: Wheel, system: str, kind: str, file: str) -> list[pd.DataFrame]:
    """One of each engine that has it, of the version with most rows, the newest of equals; `seconds` is what a call took.
    Raises NotAWheel where a file is damaged."""
    by_engine: dict[str, list[tuple[int, list[int], pd.DataFrame]]] = {}
    for name in fnmatch.filter(wheel.names, f"{_DATA}/{system}/{kind}/*/*/{file}"):
        engine, version = name.split("/")[-3:-1]
        if "dev" not in version:
            table = pd.read_parquet(BytesIO(wheel.read(name)))
            by_engine.setdefault(engine, []).append((len(table), [int(part) for part in re.findall(r"\d+", version)], table))
    best = [max(found, key=lambda each: each[:2])[2] for found in by_engine.values()]
    return [table.assign(seconds=table.latency / 1e3) for table in best]
