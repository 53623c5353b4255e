"""Rows of Parquet files, a batch at a time."""

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from kvplan.foreign import files
from kvplan.traces.workload import TraceError

_BATCH = 4096


def keys(path: Path) -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """The columns of a file, and those within columns that hold records or lists of them; nothing of a damaged file."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with files.opened(path) as file:
            schema = parquet.read_schema(file)
    except (pyarrow.ArrowException, OSError, ValueError):
        return frozenset(), {}
    inner = {column.name: column.type.value_type if pyarrow.types.is_list(column.type) else column.type for column in schema}
    structs = {name: kind for name, kind in inner.items() if pyarrow.types.is_struct(kind)}
    return frozenset(schema.names), {name: frozenset(each.name for each in kind) for name, kind in structs.items()}


def rows(path: Path, columns: Collection[str] = (), look: Callable[[Any], None] = lambda schema: None) -> Iterator[dict[str, Any]]:
    """The rows of a file that has at least these columns, by all of its columns; `look` is called with the schema first. Raises
    TraceError."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with files.opened(path) as file:
            table = parquet.ParquetFile(file)
            check_columns(columns, table.schema_arrow.names)
            look(table.schema_arrow)
            for batch in table.iter_batches(batch_size=_BATCH):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, TraceError | GeneratorExit):
            raise
        why = str(error).partition("\n")[0][:200] or type(error).__name__
        raise TraceError(f"{path}: unreadable Parquet ({why})") from None


def check_columns(columns: Collection[str], there: Collection[str]) -> None:
    """Raises TraceError when one of the columns that a table must have is not there, or there twice."""
    twice = [name for name in columns if list(there).count(name) > 1]
    if twice:
        raise TraceError(f"the column {twice[0]!r} is there twice: which of them is meant?")
    missing = set(columns) - set(there)
    if missing:
        raise TraceError(f"the column {min(missing)!r} is missing: there are {', '.join(map(repr, there))}")
