"""Reading trace files: opening (plain, gzip, zstd; a file or a folder of files), recognising, and walking their records.

A format's reader gives a function `take(number, record)` that checks a record before it keeps anything of it, and raises `BadRecord` for
what is wrong. Records are numbered over all files, so that a number means one record and no other. `Source` knows the place: it turns a
`BadRecord` into a `TraceError` with file and record number in it or, with `skip_bad`, counts the record and goes on. Files are streamed;
memory holds one record and what the reader keeps.
"""

import codecs
import csv
import io
import json
import os
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import ijson

from kvplan.foreign import files
from kvplan.traces import columns, parquet, shapes
from kvplan.traces.workload import TraceError, record_place

_HEAD_BYTES = 1 << 16
_RECORD_BYTES = 1 << 28
"""A file with a longer record is taken for a broken one."""
_EXPANSION = 250
"""A compressed file may grow by this factor; logs reach 50, a bomb 1,000 and more."""
_EXPANSION_FLOOR = 64 << 20
_NESTING = 5000
"""More open brackets in one record than this are refused: the parser's memory grows with their square."""
_SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".gz", ".zst")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_DAMAGED = (OSError, EOFError, ValueError, zlib.error)
"""What gzip and zstd raise for bytes that are not theirs."""
_EMPTY_LISTS = (b"[]", b"[]\n")
_ITEMS = re.compile(r"(\.item)+$")
"""Ends a place within lists, as ijson writes it."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class BadRecord(ValueError):
    """One record is unusable; the message says why. Where it is, is added by the Source.

    `earlier`: the number of a record before it that it contradicts; the Source ends the message with that one's place.
    """

    def __init__(self, message: str, earlier: int | None = None) -> None:
        super().__init__(message)
        self.earlier = earlier


@dataclass(frozen=True)
class Head:
    """What the first bytes of a file tell about its format."""

    container: str
    """`array` (a JSON list), `objects` (JSON Lines, or one object), `csv` (also with tabs, semicolons or bars), `parquet`, `empty` or
    `unknown`."""
    keys: frozenset[str] = frozenset()
    """Top-level keys of the first JSON record, as far as they were seen; or the columns of Parquet."""
    within: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of those that hold objects, or lists of them, the keys that were seen there."""
    fault: str = ""
    """Why the first record could not be read to its end, where that is not for being long."""
    start: bytes = b""
    """The first bytes."""
    columns: frozenset[str] = frozenset()
    """Of a table in text; none of JSON and Parquet, so that no format of records takes a table for its own."""

    @property
    def names(self) -> frozenset[str]:
        """Keys or columns, whichever it has."""
        return self.keys | self.columns

    @property
    def numbers(self) -> frozenset[str]:
        """Columns of a table in text whose first row holds a number there."""
        lines = self.start.decode("utf-8", "replace").splitlines()[:2]
        if self.container != "csv" or len(lines) < 2:
            return frozenset()
        mark = max(",\t;|", key=lines[0].count)
        names, values = ([cell.strip().strip('"') for cell in line.split(mark)] for line in lines)
        return frozenset(name for name, value in zip(names, values, strict=False) if name in self.columns and value.isdecimal())


class Source:
    """The files of one trace, and the place that is being read."""

    def __init__(self, path: Path, skip_bad: bool = False, report: Callable[[int, int], None] | None = None) -> None:
        self.path = Path(path)
        self.skip_bad = skip_bad
        self.skipped = 0
        """Records left out because of `skip_bad`."""
        self.first_reason = ""
        """Why the first of them was."""
        self.other_format: Callable[[Any], str] = lambda record: ""
        """Of a record that cannot be read: the name of another format that it is of."""
        self._report = report or (lambda done, total: None)
        self.files = _files(self.path)
        """The file, or the trace files of the folder in order of their names."""
        self.file = self.files[0]
        """The file that is being read."""
        self.starts: list[tuple[str, int]] = []
        """Of every file begun: its name, and how many records come before it."""
        self._head = cache(_head)
        """Of a file, read once."""
        self._sizes = [os.path.getsize(file) for file in self.files]
        self._done = 0

    def head(self) -> Head:
        """What the first file that is not empty looks like. Raises TraceError when it cannot be read, or all are empty."""
        return next(self.heads())[1]

    def heads(self) -> Iterator[tuple[Path, Head]]:
        """Every file that is not empty, with its head. Raises TraceError when there is none, or one cannot be read."""
        some = False
        for file in self.files:
            head = self._head(file)
            if head.container != "empty":
                some = True
                yield file, head
        if not some:
            raise TraceError(f"{self.path} is empty" if len(self.files) == 1 else f"{self.path}: all files in it are empty")

    def each_json(self, take: Callable[[int, Any], None], lists: bool = False) -> None:
        """Calls `take` with every record of JSON lists, JSON Lines, single JSON objects or Parquet; with `lists` a whole list is one.

        Raises TraceError."""
        self.each(self._records(lambda stream: _json_records(stream, lists)), take)

    def each_row(self, names: Collection[str], take: Callable[[int, Any], None]) -> None:
        """Calls `take` with every row of CSV files that have at least these columns. Raises TraceError."""
        self.each(self._parsed_by(lambda stream: _csv_rows(stream, names)), take)

    def each_table(self, names: Collection[str], take: Callable[[int, Any], None]) -> None:
        """Calls `take` with every row of CSV and Parquet files that have at least these columns, and every record of JSON files. Raises
        TraceError."""
        rows, records = (self._parsed_by(parse) for parse in (partial(_csv_rows, columns=names), partial(_json_records, lists=False)))
        readers: dict[str, Callable[[Path], Iterable[object]]] = {
            "csv": rows,
            "parquet": partial(parquet.rows, columns=names),
            "unknown": _refused_text,
        }
        self.each(lambda file: readers.get(self._head(file).container, records)(file), take)

    def _records(self, parse: "Callable[[io.BufferedReader[_Stream]], Iterator[object]]") -> Callable[[Path], Iterable[object]]:
        """A function from a file to its records, by one from its bytes; those of Parquet are its rows, and tables in text are refused."""
        readers: dict[str, Callable[[Path], Iterable[object]]] = {
            "parquet": parquet.rows,
            "csv": self._refused_table,
            "unknown": _refused_text,
        }
        records = self._parsed_by(parse)
        return lambda file: readers.get(self._head(file).container, records)(file)

    def _refused_table(self, file: Path) -> Iterable[object]:
        head = self._head(file)
        raise TraceError(f"{file}: begins like a table, and this format is JSON: {columns.hint(head.columns, head.numbers)}")

    def each(self, records: Callable[[Path], Iterable[object]], take: Callable[[int, Any], None]) -> None:
        """Calls `take` with every record that `records(file)` gives, a BadRecord standing for one that cannot be read. Raises
        TraceError."""
        number = 0
        for file, size in zip(self.files, self._sizes, strict=True):
            self.file, before = file, number
            self.starts.append((str(file.relative_to(self.path)) if file != self.path else file.name, before))
            try:
                for number, record in enumerate(records(file), before + 1):
                    self._take(take, number, record)
            except TraceError as error:
                raise _placed(error, file) from None
            except (ijson.JSONError, csv.Error, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
                raise TraceError(f"{file}: not readable after record {number - before} {_meant(error)}") from None
            self._done += size
        if not number:
            raise TraceError(f"{self.path} has no records" + (", only a header" if self.head().container == "csv" else ""))

    def _take(self, take: Callable[[int, Any], None], number: int, record: object) -> None:
        """One record, taken; or counted as bad with `skip_bad`."""
        try:
            if isinstance(record, BadRecord):
                raise record
            take(number, record)
        except BadRecord as error:
            against = "" if error.earlier is None else f" {record_place(error.earlier, self.starts)}"
            other = f" (it is a record of {name}: mixed formats)" if (name := self.other_format(record)) else ""
            message = f"{self.file}, record {number - self.starts[-1][1]}: {error}{against}{other}"
            if not self.skip_bad:
                raise TraceError(message) from None
            self.skipped += 1
            self.first_reason = self.first_reason or message

    def _parsed_by(self, parse: "Callable[[io.BufferedReader[_Stream]], Iterator[object]]") -> Callable[[Path], Iterator[object]]:
        """A function from a file to its records, by one from its bytes."""

        def records(file: Path) -> Iterator[object]:
            with opened(file, lambda position: self._report(self._done + position, sum(self._sizes))) as stream:
                for record in parse(stream):
                    stream.raw.begin_record()
                    yield record

        return records


class _Stream(io.RawIOBase):
    """Bytes of a file, decompressed; refuses to grow without bound."""

    def __init__(self, raw, unpacked, size: int, report: Callable[[int], None]) -> None:
        self._raw, self._unpacked, self._report = raw, unpacked, report
        self._limit = max(_EXPANSION * size, _EXPANSION_FLOOR) if unpacked is not raw else None
        self._given = 0
        self.begin_record()

    def begin_record(self) -> None:
        """What is read from now on counts as another record's."""
        self._record_bytes = 0
        self._nesting = 0
        """Opening less closing brackets; those in text count too, which does not matter."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        try:
            data = self._unpacked.read(len(buffer))
        except _DAMAGED as error:
            raise TraceError(self._damage(error)) from None
        self._given += len(data)
        if self._limit is not None and self._given > self._limit:
            raise TraceError(f"unpacks to more than {_EXPANSION} times its size: not a trace; unpack it by hand if it is one")
        buffer[: len(data)] = data
        self._record_bytes += len(data)
        if self._record_bytes > _RECORD_BYTES:
            raise TraceError(f"a record is longer than {_RECORD_BYTES >> 20} MiB: not a trace")
        self._nesting += data.count(b"[") + data.count(b"{") - data.count(b"]") - data.count(b"}")
        if self._nesting > _NESTING:
            raise TraceError(f"nested more than {_NESTING:,} deep: not a trace")
        self._report(self._raw.tell())
        return len(data)

    def _damage(self, error: Exception) -> str:
        """What a failed read means: of a packed file nearly always that it is damaged."""
        if self._unpacked is self._raw or (isinstance(error, OSError) and error.errno):
            return f"reading it fails: {files.reason(error)}"
        return f"damaged: it cannot be unpacked after {self._given:,} bytes ({reason(error)}): is it truncated?"

    def close(self) -> None:
        self._unpacked.close()
        self._raw.close()
        super().close()


@contextmanager
def opened(path: Path, report: Callable[[int], None] = lambda position: None) -> Iterator["io.BufferedReader[_Stream]"]:
    """The bytes of a plain, gzip or zstd file; `.raw` is the _Stream below the buffer. Raises TraceError.

    `report(position)` is called now and then with the bytes of the file on disk that were read."""
    try:
        raw = files.opened(path)
    except files.UnreadableError as error:
        raise TraceError(str(error)) from None
    with raw:
        try:
            magic = raw.peek(4)[:4]
            packing = next((name for start, name in _MAGIC.items() if magic.startswith(start)), None)
            unpacked = raw if packing is None else _unpacked(raw, packing)
            stream = _Stream(raw, unpacked, os.fstat(raw.fileno()).st_size, report)
        except OSError as error:
            raise TraceError(f"cannot read {path}: {files.reason(error)}") from None
        buffered = io.BufferedReader(stream, 1 << 16)
        with buffered:
            yield buffered


def _refused_text(file: Path) -> Iterable[object]:
    raise TraceError(f"{file}: begins neither like JSON nor like a table of two columns or more")


def _placed(error: TraceError, file: Path) -> TraceError:
    """The error with the file that it is about."""
    return error if str(file) in str(error) else TraceError(f"{file}: {error}")


def reason(error: Exception) -> str:
    """The first line of an exception's message, or its name."""
    said = error.args[0] if error.args else ""
    text = (said.decode(errors="replace") if isinstance(said, bytes) else str(error)).strip()  # ijson says bytes
    return text.splitlines()[0][:200] if text else type(error).__name__


def _meant(error: Exception) -> str:
    """An error of a parser, and what it mostly means."""
    utf8 = not isinstance(error, UnicodeDecodeError) and "UTF8" not in str(error)  # ijson writes it so
    return f"({reason(error)}): " + (
        "is it truncated?" if utf8 else "it is not UTF-8: convert it, for example with `iconv -f LATIN1 -t UTF-8`"
    )


def _unpacked(raw, packing: str):
    if packing == "gzip":
        import gzip

        return gzip.GzipFile(fileobj=raw)
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), packing)


def _files(path: Path) -> list[Path]:
    try:
        if not files.is_folder(path):
            files.opened(path).close()
            return [path]
        found = [file for file in _inside(path) if file.suffix in _SUFFIXES]
        files_of_others = [file for file in _inside(path) if file.suffix not in _SUFFIXES]
    except files.UnreadableError as error:
        raise TraceError(str(error)) from None
    if not found:
        there = f"; {files_of_others[0].name}: {what}" if files_of_others and (what := shapes.told(files_of_others[0])) else ""
        raise TraceError(f"{path}: the folder has no trace files ({', '.join(_SUFFIXES)}){there}")
    return found


def _inside(folder: Path) -> list[Path]:
    """The files of a folder and of those in it (`date=2026-01-01`), by name; but not what is hidden, or says that a job has ended."""
    found: list[Path] = []
    for path in files.inside(folder):
        if path.name.startswith((".", "_")):
            continue
        if os.path.isfile(path):
            found.append(path)
        elif path.is_dir() and not path.is_symlink():
            found += _inside(path)
    return found


def _head(path: Path) -> Head:
    try:
        with opened(path) as stream:
            start = stream.read(_HEAD_BYTES)
    except TraceError as error:
        raise _placed(error, path) from None
    if start.startswith(_UTF16) or _alternates(start[:64]):
        raise TraceError(f"{path} is UTF-16 text; kvplan reads UTF-8: convert it, for example with `iconv -f UTF-16 -t UTF-8`")
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if not text or text in _EMPTY_LISTS:
        return Head("empty")
    if text.startswith(b"PAR1"):
        return Head("parquet", *parquet.keys(path), start=start)
    if text.startswith((b"[", b"{")):
        return Head("array" if text.startswith(b"[") else "objects", *_first_keys(text, len(start) == _HEAD_BYTES), start)
    line = text.splitlines()[0].decode("utf-8", "replace")
    if b"\0" not in start and len(names := next(csv.reader([line], delimiter=_delimiter(line)), [])) > 1:
        return Head("csv", start=start, columns=frozenset(name.strip() for name in names))
    return Head("unknown", start=start)


def _first_keys(text: bytes, cut: bool) -> tuple[frozenset[str], Mapping[str, frozenset[str]], str]:
    """Keys of the first object and of the objects in it, from a text that may be `cut` off anywhere, and the fault that
    ended them early otherwise.

    A first line that is whole is read as the reader will read it: NaN passes here, and is refused there by its field's name.
    `use_float` here as everywhere: without it ijson 3.6 ends the process on a number of over 4,300 digits.
    """
    record = _parsed(text.partition(b"\n")[0])
    if isinstance(record, dict):
        return frozenset(record), {key: frozenset(keys) for key, value in record.items() if (keys := _keys_within(value))}, ""
    prefix, keys = ("item" if text.startswith(b"[") else ""), set()
    within: defaultdict[str, set[str]] = defaultdict(set)
    fault = ""
    try:
        for place, event, value in _parser(text).parse(io.BytesIO(text), multiple_values=True, use_float=True):
            if place == prefix and event == "end_map":
                break
            if event == "map_key":
                (keys if place == prefix else within[_ITEMS.sub("", place.removeprefix(f"{prefix}."))]).add(value)
    except (ijson.JSONError, ValueError, OverflowError) as error:
        fault = "" if cut else f"record 1 is not valid JSON ({reason(error)})"
    return frozenset(keys), {key: frozenset(within[key]) for key in keys & within.keys()}, fault


def _alternates(start: bytes) -> bool:
    """Whether every other byte is zero and no other is: text of two bytes a character, without a mark."""
    halves = start[::2], start[1::2]
    return any(one and not any(one) and all(other) for one, other in (halves, halves[::-1]))


def _keys_within(value: object) -> Iterable[str]:
    """Keys of an object, or of the first of a list of objects, or of a list of such lists."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else ()


def _json_records(stream, lists: bool) -> Iterator[object]:
    start = stream.peek(4)[:4]
    if start.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    while (byte := stream.peek(1)[:1]).isspace():
        stream.read(1)
    if byte == b"[":
        yield from _parser(stream.peek(1)).items(stream, "" if lists else "item", use_float=True, multiple_values=lists)
        return
    line = stream.readline()
    record = _parsed(line)
    if isinstance(record, BadRecord) and stream.peek(1)[:1] not in (b"", b"{"):  # one object, printed over many lines
        yield from _parser(line + stream.peek(1)).items(_Rejoined(line, stream), "", use_float=True, multiple_values=True)
        return
    number = 0
    while line:
        if line.strip():
            number += 1
            yield _parsed(line) if number > 1 else record
        line = stream.readline()


def _parser(start: bytes) -> ModuleType:
    """What parses JSON that begins so: ijson's fast parser has 63 bits for a whole number, its slow one has all that a hash may need."""
    return ijson.get_backend("python") if re.search(rb'(?<![\w."])\d{19}', start) else ijson


def _parsed(line: bytes) -> object:
    """The JSON value of a line, or the BadRecord that says why it is none."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        return BadRecord(f"not valid JSON {_meant(error)}")


class _Rejoined:
    """A first line that was read already, and the rest of its stream."""

    def __init__(self, line: bytes, rest) -> None:
        self._line, self._rest = line, rest

    def read(self, size: int) -> bytes:
        """At most about `size` bytes."""
        if not size:
            return b""
        line, self._line = self._line, b""
        return line or self._rest.read(size)


def _delimiter(header: str) -> str:
    """What parts the names of a table's header."""
    return max(",\t;|", key=header.count)


def _csv_rows(stream, columns: Collection[str]) -> Iterator[object]:
    text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
    try:
        first = text.readline()
        if not first:
            return
        rows = csv.reader(chain([first], text), skipinitialspace=True, delimiter=_delimiter(first))
        names = [name.strip() for name in next(rows, [])]
        parquet.check_columns(columns, names)
        for row in rows:
            if row:
                yield (
                    dict(zip(names, row, strict=True)) if len(row) == len(names) else BadRecord("has more or fewer fields than the header")
                )
    finally:
        text.detach()
