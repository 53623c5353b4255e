"""The kernel tables in a wheel of `aisimulate` (Apache-2.0, NVIDIA): Parquet files, read where they lie."""

import re
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import pandas as pd

FETCH = "pip download --no-deps --pre --only-binary :all: aisimulate"
_DATA = "aisimulate_core/systems/data"


class NotAWheel(ValueError):
    """What was given is not a wheel of aisimulate; the message says how to get one."""


class Wheel:
    """Tables by (system, kind, file), one of each engine: the version with most rows, the newest of equals."""

    def __init__(self, path: Path):
        """Raises NotAWheel."""
        try:
            self._zip = ZipFile(path)
        except (OSError, BadZipFile) as error:
            raise NotAWheel(f"{path}: cannot be read as a wheel ({error}); fetch one with: {FETCH}") from None
        self._names = [name for name in self._zip.namelist() if name.startswith(_DATA) and name.endswith(".parquet")]
        if not self._names:
            raise NotAWheel(f"{path}: has no {_DATA}/*.parquet; fetch one with: {FETCH}")
        self.version = next((name.split("-")[1] for name in self._zip.namelist() if ".dist-info/" in name), "")[:6].rstrip(".")

    def tables(self, system: str, kind: str, file: str) -> list[pd.DataFrame]:
        """One of each engine that has it; `seconds` is what a call took."""
        by_engine: dict[str, list[tuple[int, list[int], pd.DataFrame]]] = {}
        for name in self._names:
            here, of, engine, version, last = name.removeprefix(f"{_DATA}/").split("/")[:5]
            if (here, of, last) == (system, kind, file) and "dev" not in version:
                table = pd.read_parquet(BytesIO(self._zip.read(name)))
                by_engine.setdefault(engine, []).append((len(table), [int(part) for part in re.findall(r"\d+", version)], table))
        best = [max(found, key=lambda each: each[:2])[2] for found in by_engine.values()]
        return [table.assign(seconds=table.latency / 1e3) for table in best]
