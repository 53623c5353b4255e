"""Series of numbers over time, from files: answers of Prometheus' HTTP API (query and query_range), CSV as Grafana exports it, or what a
server shows at /metrics.

JSON: one answer, a list of answers, or one a line: `{"status": "success", "data": {"resultType": "matrix" | "vector", "result": [
{"metric": {"__name__": …, label: …}, "values": [[t, "v"], …]}, …]}}`, `value` for `values` in a vector. CSV: a column of times, and one
column a series, whose head is `name{label="…"}` or `{__name__="name", label="…"}`. Times are seconds or milliseconds since 1970, or dates.
/metrics: a line a series, `name{label="…"} value`, of one moment, which is not in it (time 0).

Values that are no number (NaN, infinite, empty) are left out and counted. Left out: native histograms, series without a name (what a query
has computed), scalars.

Source: prometheus.io/docs/prometheus/latest/querying/api, prometheus.io/docs/instrumenting/exposition_formats; Grafana, "Inspect panel".
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kvplan.traces.source import Source, opened, reason
from kvplan.traces.workload import TraceError

_MILLISECONDS_FROM = 1e11
"""A time since 1970 from here on is one in milliseconds: in seconds it would be the year 5138."""
_LATEST_S = 1e11
_SMALLEST, _LARGEST = 1e-12, 1e18
"""What is smaller is nothing, what is larger is refused: ratios of what is left are finite."""
_NAME = "__name__"
_LABEL = re.compile(r'\s*([A-Za-z_][\w.]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_LINE = re.compile(r"([A-Za-z_:][\w:]*(?:\{.*\})?)\s+([^\s,;]+)(?:\s+-?\d+)?")
"""Of /metrics: a series, its value, and perhaps a time."""
_HEAD = re.compile(r"\s*([^{}\s]*)\s*(?:\{(.*)\})?\s*", re.DOTALL)


@dataclass(frozen=True)
class Series:
    """One series: its name, its labels, and its points in order of time."""

    name: str
    labels: tuple[tuple[str, str], ...]
    """(label, value), by label."""
    time_s: np.ndarray
    """float64, ascending, since 1970."""
    values: np.ndarray

    def label(self, name: str) -> str | None:
        """The value of a label."""
        return dict(self.labels).get(name)


def label_values(series: Iterable[Series], name: str) -> list[str]:
    """What the label says on those that have it, each once, in order."""
    return sorted({value for each in series if (value := each.label(name))})


@dataclass(frozen=True)
class Export:
    """All series of the files, and what was left out of them."""

    series: tuple[Series, ...]
    no_numbers: int = 0
    """Points whose value is no number."""
    nameless: int = 0
    """Series without a name."""
    native: int = 0
    """Series that are native histograms."""


def read_series(paths: Sequence[Path], keep: Sequence[tuple[str, str]] = ()) -> Export:
    """The series of files and of folders of files; with `keep`, those that have all of these labels. Raises TraceError."""
    points: dict[tuple, dict[float, float]] = {}
    counts = {"no_numbers": 0, "nameless": 0, "native": 0}
    for path in (file for each in paths for file in Source(each).files):
        try:
            for metric, values in _parsed(path):
                _take(metric, values, points, counts)
        except TraceError as error:
            raise error if str(path) in str(error) else TraceError(f"{path}: {error}") from None
    found = [Series(name, labels, *_columns(known)) for (name, labels), known in sorted(points.items()) if known]
    kept = tuple(each for each in found if all(each.label(name) == value for name, value in keep))
    where = ", ".join(map(str, paths))
    if not found:
        raise TraceError(f"{where}: no series with a name and a number in it: ask for the metrics themselves, not for rate() of them")
    if not kept:
        raise TraceError(f"{where}: no series has {', '.join(f'{name}={value}' for name, value in keep)}")
    return Export(kept, **counts)


def _take(metric: dict[str, str], values: Iterable[tuple[float, float]] | None, points: dict, counts: dict[str, int]) -> None:
    """One series of a file."""
    if values is None:
        counts["native"] += 1
        return
    labels = tuple(sorted((name, value) for name, value in metric.items() if name != _NAME))
    known = points.setdefault((metric[_NAME], labels), {}) if metric.get(_NAME) else None
    if known is None:
        counts["nameless"] += 1
        return
    for time, value in values:
        if not math.isfinite(value):
            counts["no_numbers"] += 1
        elif known.setdefault(time, value) != value:
            raise TraceError(f"{metric[_NAME]} has two values at {time:g}: {known[time]:g} and {value:g}")


def _columns(points: dict[float, float]) -> tuple[np.ndarray, np.ndarray]:
    time_s, values = np.array(sorted(points.items())).T
    return time_s, values


def _parsed(path: Path) -> Iterator[tuple[dict[str, str], Iterable[tuple[float, float]] | None]]:
    """(labels, points) of each series of a file; None for points in a form that is not read."""
    with opened(path) as stream:
        try:
            text = stream.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            raise TraceError("it is not UTF-8 text") from None
    if not text.strip():
        raise TraceError("is empty")
    if text.lstrip()[0] in "{[":
        return _answers(text)
    return _shown_by_server(text) if _LINE.fullmatch(next(_lines(text), "")) else _table(text)


# --- JSON -------------------------------------------------------------------------------------------------------------------------


def _answers(text: str) -> Iterator[tuple[dict[str, str], Iterable[tuple[float, float]] | None]]:
    for answer in _documents(text):
        for each in _results(answer):
            metric = each.get("metric", {})
            if not isinstance(metric, dict) or not all(isinstance(value, str) for value in metric.values()):
                raise TraceError("`metric` of a result is not labels")
            if "histogram" in each or "histograms" in each:
                yield metric, None
                continue
            values = each["values"] if "values" in each else [each["value"]] if "value" in each else []
            if not isinstance(values, list):
                raise TraceError("`values` of a result is not a list")
            yield metric, map(_point, values)


def _documents(text: str) -> Iterator[Any]:
    """One, a list of them, or one a line."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            yield from [json.loads(line) for line in text.splitlines() if line.strip()]
        except (ValueError, RecursionError):
            raise TraceError(f"not valid JSON ({reason(error)}): is it truncated?") from None
        return
    yield from whole if isinstance(whole, list) else [whole]


def _results(answer: Any) -> list[dict]:
    """The series of an answer. Raises TraceError for what is none."""
    if not isinstance(answer, dict):
        raise TraceError("is not an answer of Prometheus' HTTP API: no object with `data`")
    if answer.get("status") == "error":
        raise TraceError(f"Prometheus answered with an error: {answer.get('error', answer.get('errorType', 'unknown'))}")
    data = answer.get("data", answer)
    result = data.get("result") if isinstance(data, dict) else None
    if isinstance(data, dict) and data.get("resultType") in ("scalar", "string"):
        return []
    if not isinstance(result, list) or not all(isinstance(each, dict) for each in result):
        raise TraceError("is not an answer of Prometheus' HTTP API: it has no `data.result`")
    return result


def _point(pair: Any) -> tuple[float, float]:
    if not isinstance(pair, list) or len(pair) != 2:
        raise TraceError(f"a point is not [time, value]: {_shown(pair)}")
    return _time_s(pair[0]), _value(pair[1])


# --- /metrics ---------------------------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[str]:
    """Without comments, and without examples at the ends of lines."""
    return (line.partition(" # ")[0].strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))


def _shown_by_server(text: str) -> Iterator[tuple[dict[str, str], Iterable[tuple[float, float]]]]:
    for line in _lines(text):
        match = _LINE.fullmatch(line)
        if match is None:
            raise TraceError(f'a line is not name{{label="value", …}} value: {_shown(line)}')
        yield _labels(match[1]), [(0.0, _value(match[2]))]


# --- CSV --------------------------------------------------------------------------------------------------------------------------


def _table(text: str) -> Iterator[tuple[dict[str, str], Iterable[tuple[float, float]]]]:
    delimiter = ","
    if text.startswith("sep="):  # what Grafana writes for Excel
        first, _, text = text.partition("\n")
        delimiter = first.rstrip()[4:] or ","
    elif text.partition("\n")[0].count(";") > text.partition("\n")[0].count(","):
        delimiter = ";"
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter[:1]))
    except csv.Error as error:
        raise TraceError(f"not readable as CSV ({error})") from None
    rows = [row for row in rows if row]
    heads = rows[0] if rows else []
    if len(heads) < 2 or "time" not in heads[0].strip().lower():
        raise TraceError("is neither JSON of Prometheus nor CSV of Grafana, whose first column is Time")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(heads):
            raise TraceError(f"row {number} has {len(row)} fields, the header {len(heads)}")
    times = [_time_s(row[0]) for row in rows[1:]]
    for place, head in enumerate(heads[1:], 1):
        cells = ((time, row[place]) for time, row in zip(times, rows[1:], strict=True))
        yield _labels(head), ((time, _value(cell)) for time, cell in cells if cell.strip() not in ("", "null", "undefined"))


def _labels(head: str) -> dict[str, str]:
    """Of a column's head."""
    match = _HEAD.fullmatch(head)
    if match is None:
        return {_NAME: head.strip()}
    found, text, at = {_NAME: match[1]} if match[1] else {}, match[2] or "", 0
    while at < len(text) and text[at:].strip():
        label = _LABEL.match(text, at)
        if label is None:
            raise TraceError(f'a column\'s head is not name{{label="value", …}}: {_shown(head)}')
        found[label[1]] = label[2].replace('\\"', '"').replace("\\\\", "\\")
        at = label.end()
    return found


# --- numbers ----------------------------------------------------------------------------------------------------------------------


def _time_s(value: Any) -> float:
    """Seconds since 1970."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = _date_s(value)
    seconds = number / 1000 if abs(number) >= _MILLISECONDS_FROM else number
    if not 0 <= seconds <= _LATEST_S:
        raise TraceError(f"{_shown(value)} is no time: seconds or milliseconds since 1970, or a date")
    return seconds


def _date_s(value: Any) -> float:
    """A date without a time zone is taken for one in UTC: only differences count."""
    try:
        date = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
        return math.nan if date is None else (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan


def _value(value: Any) -> float:
    """A number, or NaN. Raises TraceError for what is neither."""
    try:
        number = float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        raise TraceError(f"{_shown(value)} is no number: export without units (Grafana: switch `Formatted data` off)")
    if math.isfinite(number) and abs(number) > _LARGEST:
        raise TraceError(f"{_shown(value)} is beyond {_LARGEST:.0e}: no count, size or time of a server")
    return number if not abs(number) < _SMALLEST else 0.0


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
