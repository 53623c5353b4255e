"""What is done is kept: one file for each finished run, written whole, under a name that says all that the result depends on."""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from kvplan.foreign import files
from kvplan.sim.files.atomic import WriteError, write_text
from kvplan.sim.files.ours import OutputError, says
from kvplan.sim.sweep.pool import Failed, Pool, attempt

RUNS = "runs"
"""Where finished runs are, in the folder of what they were done for."""
_DIGEST = "result_sha256"


def are_in(out: Path) -> bool:
    """Whether a folder has finished runs, by what is in them."""
    return any(says(path, lambda found: found[_DIGEST]) for path in (out / RUNS).glob("*.json"))


class KeptRuns:
    """Results of one dataclass, in `out`/runs, one file each. Without a folder nothing is kept."""

    def __init__(self, out: Path | None, kind: type) -> None:
        self.folder = None if out is None else out / RUNS
        """Made when the first result is kept."""
        self.fault: WriteError | None = None
        """Why a result could not be kept: what is done goes on without."""
        self._kind: TypeAdapter[Any] = TypeAdapter(kind)

    def count(self, names: Iterable[str]) -> int:
        """How many of these results are kept."""
        return 0 if self.folder is None else sum(_record(self.folder, name).exists() for name in names)

    def total(self) -> int:
        """How many results are kept."""
        return 0 if self.folder is None else sum(1 for _ in self.folder.glob("[!.]*.json"))

    def load(self, name: str) -> Any:
        """The result of that name, None when there is none. Raises OutputError when its record is none."""
        if self.folder is None or not os.path.lexists(path := _record(self.folder, name)):
            return None
        try:
            record = json.loads(files.read_text(path, files.TABLE_BYTES))
            if record[_DIGEST] != _sha256(record["result"]):
                raise ValueError("its result is not the one that was written")
            return self._kind.validate_python(record["result"])
        except files.UnreadableError as error:
            raise OutputError(str(error)) from None
        except KeyError as error:
            raise _unreadable(path, f"it has no {error}") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise _unreadable(path, error) from None

    def keep(self, name: str, about: dict[str, Any], found: Any) -> None:
        """Writes what was found, with what a reader may want to know of it; or notes why not."""
        if self.folder is None:
            return
        result = self._kind.dump_python(found)
        try:
            write_text(_record(self.folder, name), json.dumps({**about, "result": result, _DIGEST: _sha256(result)}, indent=2) + "\n")
        except WriteError as error:
            self.fault = error


def _record(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _sha256(result: Any) -> str:
    """Tells a record that lacks something, or has something else."""
    return hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()


def _unreadable(path: Path, why: object) -> OutputError:
    return OutputError(f"cannot read {path}: {why}; remove it to do this run again")


class Kept(Pool):
    """A pool that does nothing twice: what `records` have is not done again, and what is done is kept. Failures are tried again."""

    def __init__(self, pool: Pool, records: KeptRuns, name: Callable[[Any], str], about: Callable[[Any], dict[str, Any]]) -> None:
        super().__init__()
        self.size = pool.size
        self.before = 0
        """Tasks that had been done before."""
        self._pool, self._records, self._name, self._about = pool, records, name, about
        self._names: dict[Any, tuple[str, Any]] = {}
        self._ready: deque[tuple[Any, Any]] = deque()

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        """`name(argument)` says all that the result depends on. Raises OutputError for a record that cannot be read."""
        name = attempt(self._name, argument)
        known = name if isinstance(name, Failed) else self._records.load(name)
        if known is not None:
            self.before += not isinstance(known, Failed)
            self._ready.append((key, known))
        else:
            self._names[key] = name, argument
            self._pool.submit(key, function, argument)

    def next(self) -> tuple[Any, Any]:
        if self._ready:
            return self._ready.popleft()
        key, found = self._pool.next()
        name, argument = self._names.pop(key)
        if not isinstance(found, Failed):
            self._records.keep(name, self._about(argument), found)
        return key, found

    def close(self) -> None:
        self._ready.clear()
        self._pool.close()
