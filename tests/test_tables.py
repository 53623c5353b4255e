"""Tables by their columns, files that are no traces, folders of partitions, and large logs in little memory."""

import inspect
import io
import json
import math
import random
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from conftest import SHARED

from kvplan import traces
from kvplan.sim import config
from kvplan.sim.cli.app import app, trace_app
from kvplan.sim.config import ConfigError
from kvplan.traces import TraceError, columns, origin, shapes
from kvplan.traces.source import Source

CSV = """user,ts,in,out,ms
a,2026-01-01T10:00:00Z,100,20,1000
b,2026-01-01T10:00:30Z,300,20,1000
a,2026-01-01T10:01:00Z,200,20,1000
,2026-01-01T10:02:30Z,300,20,
"""
NAMED = {"session": "user", "arrival": "ts", "prompt": "in", "output": "out"}
ROWS = [dict(zip(CSV.splitlines()[0].split(","), line.split(","), strict=True)) for line in CSV.splitlines()[1:]]


def put(folder, data, name="t"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def parquet(rows):
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


def as_numbers(row):
    """The row as JSON and Parquet have it: numbers, and nothing where there is nothing."""
    return {name: None if value == "" else int(value) if value.isdigit() else value for name, value in row.items()}


TYPED = [as_numbers(row) for row in ROWS]
CONTAINERS = {
    "csv": CSV,
    "tsv": CSV.replace(",", "\t"),
    "semicolons": CSV.replace(",", ";"),
    "a byte order mark": b"\xef\xbb\xbf" + CSV.encode(),
    "lines": "".join(json.dumps(row) + "\n" for row in TYPED),
    "list": json.dumps(TYPED, indent=1),
    "parquet": parquet(TYPED),
    "floats with gaps": parquet([{**row, "in": float(row["in"])} for row in TYPED]),
    "dates": pyarrow.BufferReader(
        parquet([{**row, "ts": np.datetime64(row["ts"].rstrip("Z"), "ns").astype("datetime64[us]").item()} for row in TYPED])
    ).read(),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_table_is_read_by_its_columns_whatever_it_is_written_as(tmp_path, name):
    table = traces.read_trace(put(tmp_path, CONTAINERS[name]), columns=NAMED)
    assert table.session.tolist() == [0, 0, 1, 2] and table.arrival_s.tolist() == [0, 60, 30, 150]
    assert table.prompt_tokens.tolist() == [100, 80, 300, 300] and table.history_tokens.tolist() == [0, 120, 0, 0]
    assert table.open_loop and table.origin["columns"] == "session=user,arrival=ts,prompt=in,output=out"


def test_what_else_columns_can_hold(tmp_path):
    path = put(tmp_path, CSV)
    timed = traces.read_trace(path, columns={**NAMED, "latency": "ms"}, times="ms")
    assert timed.gap_s[1] == 59 and not timed.open_loop
    new = traces.read_trace(path, columns={"session": "user", "arrival": "ts", "new": "in", "output": "out", "tenant": "user"})
    assert new.prompt_tokens.tolist() == [100, 200, 300, 300] and new.tenant.tolist() == ["a", "b", ""]
    nested = put(tmp_path, '{"at": 5, "usage": {"in": 90, "out": 9, "details": {"cached": 40}}}\n', "nested")
    found = traces.read_trace(nested, columns={"prompt": "usage.in", "output": "usage.out", "cached": "usage.details.cached"})
    assert found.origin["recorded_cache"]["cached_tokens"] == 40 and "40 %" in str(origin.notes(found.origin)).replace("44.4%", "40 %")
    text = put(tmp_path, '{"q": "Why is the sky blue?", "a": "It scatters."}\n', "text")
    assert traces.read_trace(text, columns={"prompt_text": "q", "output_text": "a"}).prompt_tokens[0] > 3


@pytest.mark.parametrize("written", [lambda ids: ids, json.dumps, lambda ids: " ".join(map(str, ids))])
def test_block_hashes_make_sessions_where_none_are_named(tmp_path, written):
    rows = [(0, 64, [1, 2]), (60, 64, [7, 8]), (120, 128, [1, 2, 3, 4]), (180, 160, [7, 8, 9, 5, 6])]
    text = "".join(json.dumps({"ts": at, "in": length, "out": 5, "h": written(ids)}) + "\n" for at, length, ids in rows)
    table = traces.read_trace(put(tmp_path, text), columns={"arrival": "ts", "prompt": "in", "output": "out", "blocks": "h"})
    assert table.session.tolist() == [0, 0, 1, 1] and table.prompt_tokens.tolist() == [64, 59, 64, 91]
    assert table.blocks.block_tokens == 32 and "block hashes" in table.origin["sessions_from"]
    named = traces.read_trace(tmp_path / "t", columns={"session": "out", "prompt": "in", "output": "out", "blocks": "h"}, block_tokens=32)
    assert named.sessions == 1 and named.history_tokens.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("column", "value", "seconds"),
    [
        ("t", 90.5, 90.5),
        ("t_ms", 90_500, 90.5),
        ("latencyMs", 90_500, 90.5),
        ("startTimeUnixNano", 1_760_000_000_500_000_000, 1_760_000_000.5),
        ("t", 1_760_000_000_500, 1_760_000_000.5),
        ("t", 1_760_000_000_500_000, 1_760_000_000.5),
        ("items", 90.5, 90.5),
        ("t", "2025-10-09 08:53:20.5", 1_760_000_000.5),
        ("t", "2025-10-09T10:53:20.5+02:00", 1_760_000_000.5),
    ],
)
def test_times_are_in_the_unit_that_something_says(tmp_path, column, value, seconds):
    rows = [{column: value, "in": 5, "out": 5}, {column: value, "in": 5, "out": 5}]
    rows[0][column] = 0 if isinstance(value, float | int) else "1970-01-01"
    table = traces.read_trace(
        put(tmp_path, json.dumps(rows)), columns={"arrival": column, "prompt": "in", "output": "out"}, times=None, format="table"
    )
    assert table.arrival_s[1] == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({**NAMED, "output": "outt"}, "the column 'outt' is missing: there are 'user', 'ts', 'in', 'out', 'ms'"),
        ({**NAMED, "arrival": "in", "prompt": "ts"}, "record 1: `ts` is '2026-01-01T10:00:00Z', not a number"),
        ({**NAMED, "output": "user"}, "record 1: `user` is 'a', not a number"),
        ({"prompt": "in"}, "columns name nothing for the answer"),
        ({**NAMED, "end": "ts", "latency": "ms", "arrival": "user"}, "record 1: `user` is 'a', not a date and time"),
    ],
)
def test_columns_that_do_not_fit_are_told_once(tmp_path, named, words):
    with pytest.raises(TraceError, match=words):
        traces.read_trace(put(tmp_path, CSV), columns=named)


def test_a_header_is_read_as_it_is_meant(tmp_path):
    named = {"prompt": "in", "output": "out"}
    assert traces.read_trace(put(tmp_path, "in , out\n5,7\n"), columns=named).output_tokens.tolist() == [7]
    with pytest.raises(TraceError, match="the column 'in' is there twice"):
        traces.read_trace(put(tmp_path, "in,in,out\n5,6,7\n"), columns=named)


def test_a_log_of_ends_has_arrivals_by_its_latencies(tmp_path):
    table = traces.read_trace(
        put(tmp_path, CSV), columns={"end": "ts", "latency": "ms", "prompt": "in", "output": "out"}, times="ms", skip_bad=True
    )
    assert table.turns == 3 and table.arrival_s.tolist() == [0, 30, 60] and table.origin["left_out"]["bad_records"] == 1


def test_every_command_that_reads_a_trace_takes_columns():
    commands = [*app.registered_commands, *trace_app.registered_commands]
    options = {command.callback.__name__: inspect.signature(command.callback).parameters for command in commands}
    assert {name for name, names in options.items() if "columns" in names} == {name for name, names in options.items() if "format" in names}


def test_a_key_that_no_record_has_is_told(tmp_path):
    with pytest.raises(TraceError, match="no record has a 'usr', which columns names"):
        traces.read_trace(put(tmp_path, CONTAINERS["lines"]), columns={**NAMED, "session": "usr"})
    with pytest.raises(TraceError, match="record 1: has no `inn`: the fields are 'user', 'ts', 'in', 'out', 'ms'"):
        traces.read_trace(put(tmp_path, CONTAINERS["lines"]), columns={**NAMED, "prompt": "inn"})


def test_columns_win_over_a_format_and_are_checked_with_the_configuration(tmp_path):
    path = put(tmp_path, "Timestamp,Request tokens,Response tokens\n5,100,50\n9,100,50\n")
    assert traces.read_trace(path).origin["format"] == "burstgpt"
    named = {"prompt": "Request tokens", "output": "Response tokens"}
    assert traces.read_trace(path, columns=named).origin["format"] == "table"
    with pytest.raises(TraceError, match="leave one of them out"):
        traces.read_trace(path, "burstgpt", columns=named)
    for wrong in ({"sesion": "a"}, {"prompt": "a", "new": "b", "output": "c"}):
        with pytest.raises(ConfigError, match=r"did you mean 'session'|prompt and new for the prompt"):
            config.load(None, {"workload.columns": wrong})


def test_the_usual_names_are_enough_where_nothing_else_has_them(tmp_path):
    row = {"arrived_at": 5, "num_prefill_tokens": 90, "num_decode_tokens": 9}
    found = traces.read_trace(put(tmp_path, json.dumps(row)))
    assert found.prompt_tokens.tolist() == [90] and "by their usual names" in found.origin["columns"]
    assert columns.usual({"id", "inputTokens", "Output Tokens", "startTime"}) == {
        "arrival": "startTime",
        "prompt": "inputTokens",
        "output": "Output Tokens",
    }
    with pytest.raises(TraceError, match=r"it has 'cost', 'in', 'who'; name what they hold: --columns prompt=in,output=…"):
        traces.read_trace(put(tmp_path, '{"who": "a", "in": 5, "cost": 5}\n'))


def test_a_hint_takes_numbers_for_tokens_and_who_for_a_session(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("time,chat,prompt,answer\n2026-11-02T08:00:37,c1,11,139\n")
    with pytest.raises(TraceError, match=r"--columns session=chat,arrival=time,prompt=prompt,output=answer$"):
        traces.read_trace(log)
    log.write_text("Timestamp,UserID,input_tokens,completion_tokens\n2026-11-02 08:00:37,4,11,139\n")
    with pytest.raises(TraceError, match=r"--columns session=UserID,arrival=Timestamp,prompt=input_tokens,output=completion_tokens$"):
        traces.read_trace(log)
    log.write_text("time;user;prompt;answer\n2026-11-02T08:00:37;c1;Hello;Hi\n")
    with pytest.raises(TraceError, match=r"--columns session=user,arrival=time,prompt_text=prompt,output_text=answer$"):
        traces.read_trace(log)


def test_what_columns_says_is_read_as_it_is_written():
    assert columns.parsed("session = user, prompt=Request tokens,output=a.b") == {
        "session": "user",
        "prompt": "Request tokens",
        "output": "a.b",
    }
    for wrong in ("", "a", "a=", "=b", "a=b,,c=d", "a=b,a=c"):
        with pytest.raises(ValueError, match="--columns"):
            columns.parsed(wrong)


# --- files that are no traces -----------------------------------------------------------------------------------------------------


def archive(kind):
    out = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(out, "w") as file:
            file.writestr("a", "b")
    else:
        with tarfile.open(fileobj=out, mode=kind) as file:
            file.addfile(tarfile.TarInfo("a"))
    return out.getvalue()


NO_TRACES = {
    "an Excel workbook": ("book.xlsx", archive("zip")),
    "a zip archive": ("a", archive("zip")),
    "a tar archive": ("a", archive("w")),
    "a tar archive ": ("a", archive("w:gz")),
    "a NumPy archive": ("a", b"\x93NUMPY\x01\x00"),
    "an SQLite database": ("a", b"SQLite format 3\0" + bytes(80)),
    "UTF-16 text": ("a", '{"a": 1}'.encode("utf-16-le")),
    "OpenTelemetry": ("a", '{"resourceSpans": [{"scopeSpans": []}]}'),
    "Langfuse": ("a", '[{"id": "1", "traceId": "2", "usageDetails": {"input": 5}}]'),
    "LiteLLM": ("a", '{"call_type": "acompletion", "startTime": 1, "endTime": 2, "spend": 0.1}\n'),
    "HAR": ("a", '{"log": {"version": "1.2", "creator": {"name": "x"}, "entries": []}}'),
    "from-prometheus": ("a", '{"status": "success", "data": {"resultType": "matrix", "result": []}}'),
    "from-prometheus ": ("a", "# HELP vllm:prompt_tokens_total Tokens.\n"),
    "a summary.json of kvplan": ("a", '{"schema_version": 1, "turns": 5, "ttft_s": {}, "provenance": {}}'),
    "a table of kvplan's results": ("a", parquet([{"turn": 1, "ttft_s": 0.1, "queue_s": 0.0}])),
    "a model goes with --set model=FILE": ("a", '{"hidden_size": 5, "num_hidden_layers": 2}'),
    "a configuration": ("c.yaml", "model: llama-2-13b\n"),
    "HuggingFace": ("a.arrow", b"\xff\xff\xff\xff" + bytes(20)),
    "a server's log": ("a", "INFO 01-01 12:00:00 [logger.py:43] Received request cmpl-1: prompt: 'Hi'\n"),
    "Git LFS": ("a", "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"),
    "plain text": ("a", "What is this?\n"),
    "JSON, but of no records with keys": ("a", "[1, 2, 3]"),
    "no text": ("a", b"\x01\x02\x03\x00\x05\x06"),
}


@pytest.mark.parametrize("words", NO_TRACES)
def test_a_file_that_is_no_trace_is_called_what_it_is(tmp_path, words):
    name, data = NO_TRACES[words]
    with pytest.raises(TraceError) as caught:
        traces.read_trace(put(tmp_path, data, name))
    assert words.strip() in str(caught.value) and str(caught.value).count(str(tmp_path)) == 1
    assert "mixed" not in str(caught.value)


def test_no_shape_is_one_of_the_formats_and_each_says_what_to_do(tmp_path):
    for module in traces.known_formats().values():
        head = Source(put(tmp_path, module.EXAMPLE)).head()
        within = [key for keys in head.within.values() for key in keys]
        assert not shapes.told(tmp_path / "t", head.start, [*head.keys, *within]), module.NAME
    assert all(shape.then and (shape.starts or shape.ends or shape.keys) for shape in shapes.SHAPES)


def test_mixed_formats_are_said_only_where_two_were_found(tmp_path):
    one = {"timestamp": 0, "input_length": 600, "output_length": 10}
    with pytest.raises(TraceError, match=r"record 2: .*\(it is a record of openai: mixed formats\)"):
        traces.read_trace(put(tmp_path, json.dumps(one) + "\n" + '{"messages": []}\n'))
    with pytest.raises(TraceError, match=r"record 2: has no `output_length`: the fields are 'timestamp', 'input_length'$"):
        traces.read_trace(put(tmp_path, json.dumps(one) + "\n" + '{"timestamp": 5, "input_length": 5}\n'))


def test_when_all_records_are_bad_the_first_reason_is_told(tmp_path):
    with pytest.raises(TraceError, match=r"2 bad records were left out, the first: .*record 1: `in` is 'x', not a number"):
        traces.read_trace(put(tmp_path, "in,out\nx,5\ny,5\n"), columns={"prompt": "in", "output": "out"}, skip_bad=True)


# --- folders ----------------------------------------------------------------------------------------------------------------------


def test_partitions_are_one_trace(tmp_path):
    for day in (1, 2):
        rows = [{**row, "ts": row["ts"].replace("01-01", f"01-0{day}")} for row in TYPED]
        put(tmp_path, parquet(rows), f"log/date=2026-01-0{day}/part-0.parquet")
    for name in (
        "_SUCCESS",
        "._part-0.parquet.crc",
        ".hidden/x.json",
        "_delta_log/0.json",
        "date=2026-01-02/empty.json",
        "date=2026-01-02/none.json",
    ):
        put(tmp_path / "log", "[]" if "none" in name else "" if "empty" in name or "SUCC" in name else "{}", name)
    table = traces.read_trace(tmp_path / "log", columns={**NAMED, "session": "user"})
    assert table.turns == 8 and table.place(table.turns - 1).startswith("date=2026-01-02/part-0.parquet, record 4")
    put(tmp_path, archive("zip"), "other/book.xlsx")
    with pytest.raises(TraceError, match=r"the folder has no trace files .*; book.xlsx: it is an Excel workbook"):
        traces.read_trace(tmp_path / "other")
    put(tmp_path, "", "none/a.json")
    put(tmp_path, " \n", "none/b.json")
    with pytest.raises(TraceError, match="all files in it are empty"):
        traces.read_trace(tmp_path / "none")


def test_formats_of_json_are_read_from_parquet_as_well(tmp_path):
    messages = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A question."}]
    rows = [{"messages": messages}, {"messages": messages * 2}]
    packed, plain = (traces.read_trace(put(tmp_path, data)) for data in (parquet(rows), json.dumps(rows)))
    assert packed.prompt_tokens.tolist() == plain.prompt_tokens.tolist() and packed.origin["format"] == "openai"


# --- no silent zero ---------------------------------------------------------------------------------------------------------------


def test_whatever_a_table_holds_is_counted_left_out_and_counted_or_refused(tmp_path):
    rng = random.Random(5)
    cells = [0, 1, 7, "12", "x", "", None, True, -3, 1.5, 2.0, 1e12, math.nan, [], {"a": 1}]
    for _ in range(300):
        rows = [{"s": rng.choice(["a", "b", None, 5]), "in": rng.choice(cells), "out": rng.choice(cells)} for _ in range(5)]
        path = put(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
        try:
            table = traces.read_trace(path, columns={"session": "s", "prompt": "in", "output": "out"}, skip_bad=True)
        except TraceError:
            continue
        left_out = sum(table.origin.get("left_out", {}).values())
        assert table.turns + left_out == len(rows) and table.prompt_tokens.min() > 0


# --- memory -----------------------------------------------------------------------------------------------------------------------

_ROWS = 20_000
_BYTES_A_ROW = 320
"""In the peak of reading: 5.3 million rows are 1 GB. Objects for each row take twice as many."""


PLAIN = "session,arrival,prompt,output\na,0,100,20\na,30,200,20\n"
BY_COLUMNS = {"columns": {"session": "session", "arrival": "arrival", "prompt": "prompt", "output": "output"}}


@pytest.mark.parametrize(
    ("text", "settings", "reason"),
    [
        (PLAIN, {}, "name what they hold: --columns session=session,arrival=arrival,prompt=prompt,output=output"),
        (PLAIN, {"format": "mooncake"}, "begins like a table, and this format is JSON: it has 'arrival'"),
        ("timestamp,input_length,output_length\n0,100,20\n", {}, "--columns arrival=timestamp,prompt=input_length,output=output_length"),
        ("nothing\n", {"format": "mooncake"}, "begins neither like JSON nor like a table"),
        ("nothing\n", BY_COLUMNS, "begins neither like JSON nor like a table"),
        ("", BY_COLUMNS, "is empty"),
        (PLAIN.splitlines()[0], BY_COLUMNS, "has no records, only a header"),
        (PLAIN.replace("a,0", "\xfc,0").encode("latin-1"), BY_COLUMNS, "it is not UTF-8: convert it, for example with `iconv"),
        ('{"input_length": 1, "output_length": 2, "user": "\xfc"}\n'.encode("latin-1"), {}, "it is not UTF-8: convert it"),
    ],
)
def test_a_file_that_is_read_as_what_it_is_not_gets_the_reason(tmp_path, text, settings, reason):
    with pytest.raises(TraceError) as caught:
        traces.read_trace(put(tmp_path, text), **settings)
    assert reason in str(caught.value) and "truncated" not in str(caught.value)


def test_what_a_parser_cannot_decode_is_said_in_a_line(tmp_path):
    """ijson's own message is bytes, with lines of the file and an arrow."""
    path = tmp_path / "koi8.json"
    path.write_bytes('[{"conversations": [{"from": "human", "value": "Привет"}]}]'.encode("koi8-r"))
    with pytest.raises(TraceError, match=r"record 0 \(lexical error: invalid bytes in UTF8 string\.\): it is not UTF-8"):
        traces.read_trace(path)


def test_a_bad_row_of_a_table_is_no_record_of_another_format(tmp_path):
    with pytest.raises(TraceError, match=r"record 2: `arrival` is '-5', which is negative$"):
        traces.read_trace(put(tmp_path, PLAIN.replace("a,30", "a,-5")), **BY_COLUMNS)
    strange = put(tmp_path, '{"input_length": 1, "output_length": 2}\n')
    with pytest.raises(TraceError, match="it is a record of mooncake: mixed formats"):
        traces.read_trace(strange, **BY_COLUMNS)


def test_reading_a_log_takes_columns_and_no_objects_for_each_row(tmp_path):
    path = tmp_path / "burst.csv"
    rows = (f"{2 * row},{row // 3 if row % 2 else ''},3.5,M,{300 + row % 50},100,{400 + row % 50},API log\n" for row in range(_ROWS))
    path.write_text("Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n" + "".join(rows))
    traces.known_formats()
    tracemalloc.start()
    try:
        table = traces.read_trace(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table.turns == _ROWS and peak < _BYTES_A_ROW * _ROWS


# --- files of the field -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def field():
    """A function from the name of a file of the field to what is read of it."""

    def read(name):
        path = SHARED.parent / "field" / name
        if not path.exists():
            pytest.skip("the files of the field are not on this machine")
        return traces.read_trace(path)

    return read


def test_a_request_log_of_vllm_is_read_by_its_names(field):
    table = field("vllm_request_log.jsonl")
    assert table.origin["format"] == "table" and (table.prompt_tokens[0], table.output_tokens[0]) == (512, 90)


def test_the_generator_file_of_vllm_is_drawn(field):
    table = field("generate_multi_turn.json")
    assert table.sessions == 24 and set(np.diff(table.first_turn)) <= {6, 7, 8, 9}
    assert 95 <= table.output_tokens.mean() <= 105 and table.prompt_tokens[~table.is_first].max() <= 160
