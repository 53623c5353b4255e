"""The folder that measurements are kept in: one CSV file per quantity, and `header.yaml` with where they come from.

A point is a line, appended and synced to disk, so that an interrupted run loses at most the point that it was at; a last line
without its end is dropped. A folder takes measurements of one machine with one set of versions only.
"""

import csv
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import yaml

from kvplan.sim.files.atomic import write_text
from kvplan.sim.files.ours import Kind
from kvplan.validate.calibration.measure.task import Task
from kvplan.validate.calibration.measure.timing import Timing

HEADER = "header.yaml"
_OF_MODEL = ("model", "dtype", "layers")
COLUMNS: dict[str, tuple[str, ...]] = {
    "prefill": (*_OF_MODEL, "new", "history"),
    "decode": (*_OF_MODEL, "batch", "context"),
    "head": ("model", "dtype", "rows"),
    "overlap": (*_OF_MODEL, "batch", "history", "new", "loading"),
    "saving": (*_OF_MODEL, "batch", "prompt", "steps", "saving"),
    "copy": ("direction", "memory", "bytes"),
    "ssd": ("direction", "bytes", "queue_depth"),
}
"""Quantity -> its parameters."""
_MEASURED = ("median_s", "q25_s", "q75_s", "repetitions")


class RecordError(ValueError):
    """The folder holds something else; the message says what and what to do."""


class Record:
    """Measurements in a folder, those of earlier runs included. `identity` is what all runs must have in common, `run` what this one
    notes of itself: command, date and the like."""

    def __init__(self, folder: Path, identity: dict, run: dict):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        header = read_header(folder) if (folder / HEADER).exists() else {**identity, "models": {}, "runs": []}
        for key, value in identity.items():
            if header.get(key) != value:
                raise RecordError(f"{folder / HEADER} has {key} {header.get(key)!r}, now it is {value!r}: give another --out")
        header["runs"].append(run)
        self._header = header
        self._write_header()
        self._known = {(quantity, *_key(row, quantity)) for quantity in COLUMNS for row in read_rows(folder, quantity, mend=True)}

    def add_model(self, name: str, sizes: dict) -> None:
        """Notes the sizes of a model that is measured. Raises RecordError when the folder knows another of that name."""
        if self._header["models"].setdefault(name, sizes) != sizes:
            raise RecordError(f"{self._folder / HEADER} has another {name!r}: give another --out")
        self._write_header()

    def settle(self, name: str, first: Callable[[], float]) -> float:
        """What the header has under a name; `first()` when it has nothing yet."""
        if name not in self._header:
            self._header[name] = first()
            self._write_header()
        return self._header[name]

    def has(self, task: Task) -> bool:
        """Whether the point was measured before."""
        return (task.quantity, *_key(task.parameters, task.quantity)) in self._known

    def add(self, task: Task, timing: Timing) -> None:
        """Keeps one point; on disk when this returns."""
        path = self._folder / f"{task.quantity}.csv"
        fresh = not path.exists()
        measured = asdict(timing)
        with open(path, "a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow((*COLUMNS[task.quantity], *_MEASURED))
            seconds = (f"{measured[name]:.6g}" for name in _MEASURED)
            writer.writerow((*(task.parameters[name] for name in COLUMNS[task.quantity]), *seconds))
            file.flush()
            os.fsync(file.fileno())
        self._known.add((task.quantity, *_key(task.parameters, task.quantity)))

    def _write_header(self) -> None:
        write_text(self._folder / HEADER, yaml.safe_dump(self._header, sort_keys=False, allow_unicode=True, width=130))


def read_header(folder: Path) -> dict:
    """What `header.yaml` says. Raises RecordError when there is none."""
    try:
        return yaml.safe_load((folder / HEADER).read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordError(f"cannot read {folder / HEADER}: {error.strerror}") from None


def read_rows(folder: Path, quantity: str, mend: bool = False) -> list[dict[str, str]]:
    """The rows of a quantity, as text; none when it was not measured. A last line without its end is left out, and cut off by `mend`.

    Raises RecordError when the file has other columns.
    """
    path = folder / f"{quantity}.csv"
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if mend and whole != text:
        write_text(path, whole)
    if mend and not whole:
        path.unlink()
    rows = list(csv.DictReader(whole.splitlines()))
    if rows and tuple(rows[0]) != (*COLUMNS[quantity], *_MEASURED):
        raise RecordError(f"{path}: columns are not {', '.join((*COLUMNS[quantity], *_MEASURED))}")
    return rows


def _is_ours(folder: Path) -> bool:
    try:
        return {"models", "runs"} <= set(read_header(folder))
    except (RecordError, yaml.YAMLError, TypeError, ValueError):
        return False


KIND = Kind("folder of measurements", _is_ours)


def _key(row: dict, quantity: str) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in COLUMNS[quantity])
