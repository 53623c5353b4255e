"""The run directory: written whole or not at all.

Everything goes into a folder of a temporary name beside the target, which is renamed at the end. An existing folder is replaced only
when it is a run directory itself.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kvplan.hwmodels import strictyaml
from kvplan.sim.engine.run import Result
from kvplan.sim.settings import unused

SUMMARY = "summary.json"


class OutputError(ValueError):
    """The output cannot be written there."""


def check_writable(out: Path, mark: str = SUMMARY, kind: str = "run directory") -> None:
    """Before a long run: that `replacing` could write there. Raises OutputError."""
    parent = _existing_parent(out)
    if not parent.is_dir():
        raise OutputError(f"cannot write {out}: {parent} is not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {out}: no permission to write in {parent}")
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / mark).is_file())):
        raise OutputError(f"will not replace {out}: it is not a {kind}; name another --out")


@contextmanager
def replacing(out: Path, mark: str = SUMMARY, kind: str = "run directory") -> Iterator[Path]:
    """A new folder that becomes `out` when the block ends well, and is gone when not. What is there must be empty, or a `kind`, which is a
    folder with a file `mark`. Raises OutputError."""
    check_writable(out, mark, kind)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from None
    try:
        yield temporary
        temporary.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write(result: Result, summary: dict, out: Path) -> None:
    """config.resolved.yaml, summary.json, turns.parquet, tiers.parquet, figures and report.html. Raises OutputError."""
    import pandas as pd

    from kvplan.sim.report import figures, html

    with replacing(out) as temporary:
        (temporary / SUMMARY).write_text(dumps(summary), encoding="utf-8")
        (temporary / "config.resolved.yaml").write_text(_resolved(result), encoding="utf-8")
        pd.DataFrame(result.columns).to_parquet(temporary / "turns.parquet", index=False)
        pd.DataFrame(result.series).to_parquet(temporary / "tiers.parquet", index=False)
        pictures = figures.draw(result, temporary)
        (temporary / "report.html").write_text(html.page(result, summary, pictures), encoding="utf-8")


def _resolved(result: Result) -> str:
    """Every setting, and a word on those that this run did not read."""
    spare = unused(result.config, result.workload)
    note = f"# Not used by this run: {', '.join(spare)}\n" if spare else ""
    return note + strictyaml.dumps(result.config.resolved())


def check_file(path: Path) -> None:
    """Before long work: that `write_file` could write there. Raises OutputError."""
    parent = _existing_parent(path)
    if path.is_dir() or not parent.is_dir():
        raise OutputError(f"cannot write {path}: {path if path.is_dir() else parent} is {'a' if path.is_dir() else 'not a'} folder")
    if path.exists() and not path.is_file():
        raise OutputError(f"will not replace {path}: it is not a plain file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: no permission to write in {parent}")


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """A single file, whole or not at all: `write` gets a temporary name beside it, of the same suffix. Raises OutputError."""
    check_file(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def dumps(summary: dict) -> str:
    """summary.json as text: strict JSON, keys in the order of the contract."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def _existing_parent(path: Path) -> Path:
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    return parent
