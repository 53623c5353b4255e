"""Every trace format: its own example, how requests become sessions, what is refused, and files that are compressed, split or broken."""

import csv
import gzip
import io
import json
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest

from kvplan import traces
from kvplan.traces import TraceError, fields, origin
from kvplan.traces.formats import canonical
from kvplan.traces.source import BadRecord, Source

FORMATS = traces.known_formats()
REAL = {
    "mooncake_conversation.jsonl": "mooncake",
    "azure_llm_2023_conv.csv": "azure",
    "sharegpt_v3_sample_300.json": "sharegpt",
    "agentic_coding": "agentic",
}


def put(tmp_path, text, name="trace"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def mooncake(at_ms, length, output=10, ids=None, **more):
    blocks = ids if ids is not None else list(range(-(-length // 512)))
    return {"timestamp": at_ms, "input_length": length, "output_length": output, "hash_ids": blocks, **more}


# --- the contract of every format -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_is_found_by_its_example_and_by_no_other(tmp_path, name):
    head = Source(put(tmp_path, FORMATS[name].EXAMPLE)).head()
    assert [other for other, module in FORMATS.items() if module.detect(head)] == [name]


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_offers_what_it_says(tmp_path, name):
    module = FORMATS[name]
    table = traces.read_trace(put(tmp_path, module.EXAMPLE))
    assert table.origin["format"] == name
    assert ("block hashes" in module.OFFERS) == (table.blocks is not None) or name == "canonical"
    assert ("times" in module.OFFERS) == table.arrivals_known or name == "aiperf"
    assert ("tenants" in module.OFFERS) == (table.tenant is not None)
    assert not ("think times" in module.OFFERS and not table.gaps_known)
    assert "text" not in module.OFFERS or "tokens" in table.origin
    assert table.record is not None and table.record.min() >= 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_compressed_files_are_read_as_they_are(tmp_path, name, packing):
    import pyarrow

    plain = traces.read_trace(put(tmp_path, FORMATS[name].EXAMPLE))
    packed = pyarrow.compress(FORMATS[name].EXAMPLE.encode(), codec=packing, asbytes=True)
    other = traces.read_trace(put(tmp_path, packed, "packed"))
    assert other.prompt_tokens.tolist() == plain.prompt_tokens.tolist()
    assert other.open_loop == plain.open_loop


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("field", ["missing", "nan", "negative", "text", "huge"])
def test_every_field_of_every_format_is_checked(tmp_path, name, field):
    """Any one number of the example made impossible: the reader refuses it by record and name, or did not need it."""
    bad = {"nan": float("nan"), "negative": -7, "text": "x", "huge": 10**12}
    example = FORMATS[name].EXAMPLE
    if example.startswith(("{", "[")):
        whole = example.startswith("[") or name == "agentic"
        records = [json.loads(example)] if whole else [json.loads(line) for line in example.splitlines()]
        places = [place for place in _numbers(records) if place[-1] not in ("turn", "parent_chat_id", "chat_id", "t", "id")]
        texts = []
        for place in places:
            changed = json.loads(json.dumps(records))
            target = changed
            for key in place[:-1]:
                target = target[key]
            if field == "missing":
                del target[place[-1]]
            else:
                target[place[-1]] = bad[field]
            texts.append((place[-1], "\n".join(map(json.dumps, changed))))
    else:
        rows = list(csv.DictReader(io.StringIO(example)))
        texts = []
        for column in rows[0]:
            changed = [dict(row) for row in rows]
            changed[-1][column] = "" if field == "missing" else str(bad[field])
            out = io.StringIO()
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(changed)
            texts.append((column, out.getvalue()))
    refused = 0
    for column, text in texts:
        try:
            traces.read_trace(put(tmp_path, text), name)
        except TraceError as error:
            refused += 1
            assert "record" in str(error) or "taken as" in str(error), (column, str(error))
    assert refused or "text" in FORMATS[name].OFFERS


def _numbers(value, place=()):
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _numbers(item, (*place, key))]
    if isinstance(value, list):
        return [found for key, item in enumerate(value) for found in _numbers(item, (*place, key)) if place[-1:] != ("hash_ids",)]
    return [place] if isinstance(value, int | float) else []


# --- requests become sessions -----------------------------------------------------------------------------------------------------


def test_mooncake_sessions_hold_the_blocks_before(tmp_path):
    text = lines(
        mooncake(0, 1100, 50, [1, 2, 3]),
        mooncake(10_000, 1500, 50, [1, 4, 5]),
        mooncake(60_000, 1300, 40, [1, 2, 6]),  # goes on from the first: 1100 + 50, then 150 new
        mooncake(90_000, 1700, 40, [1, 4, 5, 7]),  # the second: full blocks 1 and 4
        mooncake(99_000, 1320, 40, [1, 2, 9]),  # the third, whose full blocks are 1 and 2; its answer has no room
    )
    table = traces.read_trace(put(tmp_path, text))
    assert table.session.tolist() == [0, 0, 0, 1, 1]
    assert table.prompt_tokens.tolist() == [1100, 150, 20, 1500, 150]
    assert table.history_tokens.tolist() == [0, 1150, 1300, 0, 1550]
    assert table.dropped_tokens.tolist() == [0, 0, 40, 0, 0]
    assert table.arrival_s.tolist() == [0, 60, 99, 10, 90] and table.open_loop
    assert table.blocks.ids[table.blocks.first[1] : table.blocks.first[2]].tolist() == [1, 2, 6]


def test_a_compacted_context_keeps_what_its_blocks_share(tmp_path):
    requests = [
        {"t": 0, "in": 320, "out": 30, "hash_ids": [1, 2, 3, 4, 5], "think_time": 0},
        {"t": 9, "in": 200, "out": 30, "hash_ids": [1, 2, 9], "think_time": 4},
    ]
    table = traces.read_trace(put(tmp_path, json.dumps({"id": "a", "block_size": 64, "requests": requests})))
    assert table.history_tokens.tolist() == [0, 128] and table.prompt_tokens.tolist() == [320, 72]
    assert table.dropped_tokens.tolist() == [0, 350 - 128]
    assert table.gap_s.tolist() == [0, 4] and not table.open_loop


def test_the_extended_mooncake_form_names_sessions_and_delays(tmp_path):
    text = lines(
        {"session_id": "a", "timestamp": 0, "input_length": 100, "output_length": 10},
        {"session_id": "b", "timestamp": 500, "input_length": 90, "output_length": 10},
        {"session_id": "a", "delay": 2500, "input_length": 160, "output_length": 10},
        {"session_id": "b", "delay": 1000, "input_length": 150, "output_length": 10},
    )
    table = traces.read_trace(put(tmp_path, text))
    assert table.session.tolist() == [0, 0, 1, 1] and table.prompt_tokens.tolist() == [100, 160, 90, 150]
    assert table.gap_s.tolist() == [0, 2.5, 0, 1] and not table.open_loop
    assert "they may be requests" in table.origin["doubtful_records"]
    whole = traces.read_trace(put(tmp_path, text), records="requests")
    assert whole.prompt_tokens.tolist() == [100, 50, 90, 50] and "doubtful_records" not in whole.origin


def test_lengths_without_hashes_that_never_grow_are_new_tokens(tmp_path):
    text = lines(*({"session_id": "a", "timestamp": 60_000 * i, "input_length": 100, "output_length": 10} for i in range(4)))
    table = traces.read_trace(put(tmp_path, text))
    assert table.history_tokens.tolist() == [0, 110, 220, 330]
    assert table.origin["records"].startswith("what a request adds") and "doubtful_records" not in table.origin


def test_a_second_child_begins_a_session(tmp_path):
    def chat(chat, parent, at, length, turn, ids):
        return {"chat_id": chat, "parent_chat_id": parent, "timestamp": at, "input_length": length, "output_length": 4, "type": "t",
                "turn": turn, "hash_ids": ids}  # fmt: skip

    text = lines(chat(1, -1, 0, 16, 1, [1]), chat(2, 1, 50, 32, 2, [1, 2]), chat(3, 1, 90, 48, 2, [1, 3, 4]), chat(4, 77, 99, 16, 5, [9]))
    table = traces.read_trace(put(tmp_path, text))
    assert table.session.tolist() == [0, 0, 1, 2]
    assert table.prompt_tokens.tolist() == [16, 12, 48, 16]
    assert table.origin["left_out"] == {"links_of_second_children": 1, "parents": 1}


def test_burstgpt_has_think_times_from_elapsed_times(tmp_path):
    table = traces.read_trace(put(tmp_path, FORMATS["burstgpt"].EXAMPLE))
    assert table.gap_s.tolist() == [0, 37.5, 0] and table.opened().open_loop
    assert table.tenant.tolist() == ["Conversation log", "API log"]
    without = "Timestamp,Session ID,Request tokens,Response tokens\n5,1,9,9\n50,1,30,9\n"
    assert traces.read_trace(put(tmp_path, without)).open_loop


def test_a_folder_is_one_trace_and_its_files_are_of_one_format(tmp_path):
    (tmp_path / "logs").mkdir()
    one = json.loads(FORMATS["agentic"].EXAMPLE)
    for index in range(3):
        put(tmp_path / "logs", json.dumps({**one, "id": index}), f"{index}.json")
    assert traces.read_trace(tmp_path / "logs").sessions == 3
    put(tmp_path / "logs", FORMATS["azure"].EXAMPLE, "x.csv")
    with pytest.raises(TraceError, match="mixed formats"):
        traces.read_trace(tmp_path / "logs")


BURST = "Timestamp,Request tokens,Response tokens\n5,100,50\n9,100,50\n"


@pytest.mark.parametrize(
    ("name", "text", "sessions"),
    [
        ("burstgpt", BURST, 4),
        ("mooncake", lines(*({"timestamp": at, "input_length": 600, "output_length": 30} for at in (0, 9000))), 4),
        ("canonical", "session,prompt_tokens,output_tokens\n0,5,5\n0,5,5\n1,5,5\n", 4),
        ("canonical", "session,prompt_tokens,output_tokens,arrival_s\n0,5,5,1\n0,5,5,400\n", 2),
    ],
)
def test_records_of_different_files_are_different_records(tmp_path, name, text, sessions):
    for index in range(2):
        put(tmp_path, text, f"{index}.csv" if name != "mooncake" else f"{index}.jsonl")
    if name == "mooncake":  # its records are in order of time, over all files
        put(tmp_path, text.replace('"timestamp": 0', '"timestamp": 9500').replace("9000", "9900"), "1.jsonl")
    table = traces.read_trace(tmp_path)
    assert table.origin["format"] == name and table.sessions == sessions
    assert table.place(table.turns - 1).startswith("1.")


def test_a_duplicate_in_another_file_is_refused_by_its_place(tmp_path):
    for name in ("a.json", "b.json"):
        put(tmp_path, FORMATS["agentic"].EXAMPLE, name)
    with pytest.raises(TraceError, match=r"b.json, record 1: `id` 'trace_1' is a duplicate of that in a.json, record 1"):
        traces.read_trace(tmp_path)


def test_a_table_in_csv_keeps_its_origin(tmp_path):
    text = json.dumps(
        [{"id": str(i), "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]} for i in (1, 1, 2)]
    )
    table = traces.read_trace(put(tmp_path, text, "chats.json"), skip_bad=True)
    for name in ("a.csv", "b.csv", "c.parquet"):
        canonical.write_canonical(table, tmp_path / name)
    (tmp_path / "chats.json").unlink()
    (tmp_path / "c.parquet").rename(tmp_path / "z")
    both, packed = traces.read_trace(tmp_path), traces.read_trace(tmp_path / "z")
    for again, times in ((both, 2), (packed, 1)):
        assert again.origin["tokens"] == table.origin["tokens"] and again.origin["converted_from"] == table.origin["source"]
        assert again.origin["left_out"] == {"bad_records": times}


def test_open_and_closed_loops(tmp_path):
    open_loop = traces.read_trace(put(tmp_path, FORMATS["mooncake"].EXAMPLE))
    closed = open_loop.closed()
    assert open_loop.open_loop and not closed.open_loop
    assert closed.gap_s.tolist() == [0, 5] and "answers included" in closed.origin["think_times"]
    with pytest.raises(TraceError, match="replay it closed"):
        traces.read_trace(put(tmp_path, FORMATS["agentic"].EXAMPLE)).opened()


# --- what would be silently wrong -------------------------------------------------------------------------------------------------


def _chat_log(scale):
    return [mooncake(scale * 20_000 * i, 600 + 60 * i, 50, [i // 512, *range(1, -(-(600 + 60 * i) // 512))]) for i in range(9)]


def _bailian(chat, parent, at, turn):
    return {"chat_id": chat, "parent_chat_id": parent, "timestamp": at, "input_length": 16 * turn, "output_length": 4, "type": "t",
            "turn": turn, "hash_ids": list(range(turn))}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines(*_chat_log(1e-3)), "taken as milliseconds.*are the times in seconds"),
        (lines(*_chat_log(1e5)), "which unit"),
        (lines(mooncake(0, 600), mooncake(9, 600, 10, list(range(38)))), "record 2: 38 blocks .* are about 16 tokens a block; .* of 512"),
        (
            lines(mooncake(0, 600, 10, [1, 2, 3]), mooncake(9, 999, 10, [1])),
            "record 2: 1 blocks .*; .* of 151 to 299 .*workload.block_tokens",
        ),
        (lines(mooncake(0, 600, 10, [1], block_size=64)), "record 1: 1 blocks .* of 64 tokens as `block_size` says"),
        (lines(mooncake(0, 9000, 10, [1, 2])), "stands for 3,001 to 8,999 tokens.*workload.block_tokens says how many"),
        (lines(mooncake(0, 600), mooncake(9000, 1600, 10, [0])), "record 2: 1 blocks"),
        (lines(mooncake(0, 600, -1)), "record 1: `output_length` is -1, which is not within 0"),
        (lines(mooncake(0, 600, float("nan"))), "record 1: `output_length` is nan, not a finite"),
        (lines(mooncake(0, 600, 10**12)), "record 1: `output_length` is 1,000,000,000,000, which is not within"),
        (lines(mooncake(0, 600, 1.5)), "not a whole number"),
        (lines(mooncake(0, 600, True)), "not a number"),
        (lines(mooncake(-5, 600)), "negative"),
        (
            lines(mooncake(0, 600), {"messages": []}),
            r"record 2: has no `input_length`: the fields are 'messages' \(it is a record of openai: mixed formats\)",
        ),
        (lines(mooncake(0, 600), 7), "record 2: is not a Mooncake record"),
        (lines(mooncake(0, 600)) + '{"timestamp": 5, "inp', "record 2: not valid JSON .*truncated"),
        (
            lines(*({"session_id": "a", "turns": [{"input_length": 5, "output_length": 5}]} for _ in range(2))),
            "duplicate of that in record 1",
        ),
        (lines({"session_id": "a", "turns": [{"output_length": 5}]}), "turn 0: has no `input_length`"),
        (
            lines({"session_id": "a", "turns": [{"text": "x", "role": "assistant"}]}),
            "turn 0: its role is 'assistant', and a turn is a prompt",
        ),
        (lines(mooncake(0, 600), {"timestamp": 9000, "input_length": 9, "output_length": 9}), "record 2: .*lacks it, unlike record 1"),
        (
            lines({"timestamp": 0, "input_length": 9, "output_length": 9}, mooncake(9, 600)),
            "record 2: .* `hash_ids` or none; this one has it",
        ),
        (
            lines(mooncake(0, 600), mooncake(9000, 600, session_id="s")),
            "record 2: .* `session_id` or none; this one has it, unlike record 1",
        ),
        ("session,prompt_tokens,output_tokens,arrival_s\na,5,5,9\nb,5,5,\n", "record 2: .* `arrival_s` or none"),
        ("session,prompt_tokens,output_tokens,dropped_tokens\na,5,5,0\na,5,5,11\n", "record 2: `dropped_tokens` is 11, more than the 10"),
        ("session,prompt_tokens,output_tokens,origin\na,5,5,7\n", "record 1: `origin` is not a JSON object"),
        (
            lines({"messages": [{"role": "assistant", "content": None, "tool_calls": 5}]}),
            "record 1: message 0: `tool_calls` is 5, not text",
        ),
        (lines(_bailian(2, 1, 5.0, 2), _bailian(1, -1, 9.0, 1)), "record 2: turns out of order: is the parent of record 1"),
        (lines(_bailian(1, -1, 5.0, 1) | {"type": "\ud800"}), "record 1: `type` is .*not an identifier"),
        ('{"timestamp": NaN, "input_length": 600, "output_length": 30}\n', "record 1: `timestamp` is nan, not a finite number"),
        ('[{"id": NaN, "conversations": []}]', "format not recognised: record 1 is not valid JSON"),
        ('{"timestamp": 0}'.encode("utf-16"), "is UTF-16 text; kvplan reads UTF-8"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-45,5,5\n", "record 1: `TIMESTAMP` is '2023-13-45', not a date"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,5\n", "record 1: has more or fewer fields"),
        ("Timestamp,Request tokens,Response tokens,Total tokens\n1,5,5,11\n", "record 1: `Total tokens` is 11, not 5"),
        ("session,prompt_tokens,output_tokens,arrival_s\na,5,5,9\na,5,5,3\n", "record 2: .*out of order"),
    ],
)
def test_what_would_be_silently_wrong_is_refused(tmp_path, text, reason):
    path = put(tmp_path, text)
    with pytest.raises(TraceError, match=reason) as caught:
        traces.read_trace(path)
    assert str(path) in str(caught.value)


def _aiperf(at, delay):
    return lines({"session_id": "a", "turns": [{"input_length": 9, "output_length": 90, "timestamp": at}] + [
        {"input_length": 9, "output_length": 90, "delay": delay} for _ in range(3)]})  # fmt: skip


def _agentic(t=1.0, think_time=1.0, api_time=1.0):
    """Five requests, 9 s apart: 4 s of answer (160 tokens), 5 s of thought; each in a unit of its own."""
    requests = [
        {"t": 9 * i * t, "in": 64, "out": 160, "hash_ids": [i], "think_time": 5 * think_time, "api_time": 4 * api_time} for i in range(5)
    ]
    return json.dumps({"id": 1, "block_size": 64, "requests": requests})


def _burst(timestamp=1.0, elapsed=1.0):
    rows = "".join(f"{60 * i * timestamp},1,{3 * elapsed},M,{60 + 60 * i},60,{120 + 60 * i},log\n" for i in range(9))
    return FORMATS["burstgpt"].EXAMPLE.partition("\n")[0] + "\n" + rows


def _table(unit):
    return "session,prompt_tokens,output_tokens,arrival_s\n" + "".join(f"a,50,90,{100 * i * unit}\n" for i in range(9))


def _single(unit, count=200):
    return lines(*({"timestamp": 200 * i * unit, "input_length": 9000, "output_length": 300} for i in range(count)))


IMPOSSIBLE = {
    "coding agents in ms": _agentic(1e3, 1e3, 1e3),
    "their times in ms": _agentic(t=1e3),
    "their think times in ms": _agentic(think_time=1e3),
    "their answers in ms": _agentic(api_time=1e3),
    "elapsed times in ms": _burst(elapsed=1e3),
    "BurstGPT in ms": _burst(1e3, 1e3),
    "a table in ms": _table(1e3),
    "single requests in s": _single(1e-3),
    "single requests in us": _single(1e6),
}
DOUBTFUL = {
    "delays in s": (_aiperf(0, 2.5), "think times are under 2.5 ms"),
    "Bailian in ms": (
        lines(*(_bailian(i, i - 1 if i > 1 else -1, 40_000 * i, i) for i in range(1, 9))),
        "more than 11.1 h after the turn before",
    ),
    "rare requests": (lines(*(_bailian(i, -1, 40_000 * i, i) for i in range(1, 9))), "only 8 requests come in"),
}
"""What a factor of a thousand makes of real times, but a person may too."""


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_units_that_cannot_be_are_refused(tmp_path, case):
    with pytest.raises(TraceError, match=r"taken as .*are the times in"):
        traces.read_trace(put(tmp_path, IMPOSSIBLE[case]))


@pytest.mark.parametrize("case", DOUBTFUL)
def test_units_that_can_hardly_be_are_a_doubt_in_the_result(tmp_path, case):
    text, words = DOUBTFUL[case]
    found = traces.read_trace(put(tmp_path, text)).origin
    assert words in found["doubtful_times"] and any(words in warning for warning in origin.warnings(found))


@pytest.mark.parametrize("text", [_agentic(), _burst(), _table(1), _single(1), _aiperf(0, 2500), BURST])
def test_right_units_raise_no_doubt(tmp_path, text):
    assert "doubtful_times" not in traces.read_trace(put(tmp_path, text)).origin


@pytest.mark.parametrize("name", REAL)
def test_real_files_raise_no_doubt(real, name):
    assert "doubtful_times" not in traces.read_trace(real(name)).origin


@pytest.mark.parametrize("change", ["blocks", "origin", "left_out", "block_tokens"])
def test_parquet_with_wrong_blocks_or_metadata_is_refused(tmp_path, change):
    import pyarrow
    import pyarrow.parquet as parquet

    columns = {"session": [1], "prompt_tokens": [5], "output_tokens": [5], "blocks": [[1.5]] if change == "blocks" else [[1]]}
    said = {"origin": {"left_out": 3}} if change == "left_out" else {"origin": 5} if change == "origin" else {"block_tokens": "x"}
    table = pyarrow.table(columns).replace_schema_metadata({b"kvplan": json.dumps({} if change == "blocks" else said).encode()})
    parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TraceError, match=change):
        traces.read_trace(tmp_path / "t.parquet")


def test_a_pipe_is_refused_and_not_emptied(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="save it to a file first"):
        traces.read_trace(tmp_path / "pipe")


def test_origins_say_what_was_done_and_nothing_else(tmp_path):
    lengths = traces.read_trace(put(tmp_path, _aiperf(0, 2500)))
    assert "tokens" not in lengths.origin
    single = traces.read_trace(put(tmp_path, _single(1)))
    assert "sessions_from" not in single.origin and "session of its own" in single.origin["requests"]


def test_identifiers_are_the_same_as_text_and_as_numbers(tmp_path):
    table = traces.read_trace(put(tmp_path, lines(_bailian(1, -1, 5.0, 1), _bailian(2, "1", 60.0, 2))))
    assert table.sessions == 1 and "left_out" not in table.origin


def test_bad_records_can_be_skipped_and_are_counted(tmp_path):
    text = (
        lines(mooncake(0, 600), mooncake(1, 600, -1), mooncake(2000, 600, 10, [1, 2, 3]))
        + "{broken\n"
        + lines(mooncake(3000, 700, 10, [5, 6]))
    )
    table = traces.read_trace(put(tmp_path, text), skip_bad=True)
    assert table.turns == 2
    assert table.origin["left_out"] == {"bad_records": 3}
    assert "record 2" in table.origin["first_bad_record"]
    rows = traces.read_trace(
        put(tmp_path, "session,prompt_tokens,output_tokens,arrival_s,dropped_tokens\na,5,5,1,0\nb,5,5,,0\na,5,5,60,99\n"), skip_bad=True
    )
    assert rows.turns == 1 and rows.origin["left_out"] == {"bad_records": 2}


def test_a_compressed_bomb_is_refused(tmp_path):
    bomb = gzip.compress(b"[" + b" " * (200 << 20))
    with pytest.raises(TraceError, match="unpacks to more than"):
        traces.read_trace(put(tmp_path, bomb), "sharegpt")


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 100_000, "[" + "9" * 100_000 + "]", '[{"conversations": [{"from": "\\ud800", "value": "x"}]}]']
)
@pytest.mark.parametrize("name", ["sharegpt", "mooncake", "agentic"])
def test_deep_nesting_and_huge_numbers_are_refused(tmp_path, text, name):
    with pytest.raises(TraceError):
        traces.read_trace(put(tmp_path, text), name)


# --- kvplan's own tables ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_every_format_survives_conversion(tmp_path, name, suffix):
    table = traces.read_trace(put(tmp_path, FORMATS[name].EXAMPLE))
    path = tmp_path / f"out{suffix}"
    canonical.write_canonical(table, path)
    again = traces.read_trace(path)
    for column in ("session", "prompt_tokens", "output_tokens", "arrival_s", "history_tokens"):
        assert np.array_equal(getattr(again, column), getattr(table, column), equal_nan=column == "arrival_s"), column
    assert again.open_loop == table.open_loop and again.gaps_known == table.gaps_known
    if table.tenant is not None:
        assert again.tenant.tolist() == table.tenant.tolist()
    if table.blocks is not None and suffix == ".parquet":
        assert again.blocks.ids.tolist() == table.blocks.ids.tolist() and again.blocks.block_tokens == table.blocks.block_tokens


def test_broken_parquet_is_refused(tmp_path):
    table = traces.read_trace(put(tmp_path, FORMATS["mooncake"].EXAMPLE))
    path = tmp_path / "t.parquet"
    canonical.write_canonical(table, path)
    with pytest.raises(TraceError, match="unreadable Parquet"):
        traces.read_trace(put(tmp_path, path.read_bytes()[:-50], "cut.parquet"))


# --- the real files ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def real(sharegpt_sample):
    return lambda name: sharegpt_sample.parent / name


def test_mooncake_sessions_agree_with_an_independent_count(real):
    """8,132 chains, 24 % multi-turn, gaps p50 126 s and p90 486 s by "longest prefix", which links repeated requests too."""
    table = traces.read_trace(real("mooncake_conversation.jsonl"))
    turns = np.diff(table.first_turn)
    gaps = np.diff(table.arrival_s)[~table.is_first[1:]]
    assert table.turns == 12_031 and table.sessions == pytest.approx(8_132, rel=0.015)
    assert (turns > 1).mean() == pytest.approx(0.24, abs=0.011)
    assert np.median(gaps) == pytest.approx(126, rel=0.03) and np.quantile(gaps, 0.9) == pytest.approx(486, rel=0.03)


def test_agentic_sessions_are_their_files(real):
    table = traces.read_trace(real("agentic_coding"))
    assert (table.sessions, table.turns) == (16, 393)
    total = sum(len(json.loads(file.read_text())["requests"]) for file in real("agentic_coding").glob("*.json"))
    assert total == 393
    lengths = [
        request["in"] for file in sorted(real("agentic_coding").glob("*.json")) for request in json.loads(file.read_text())["requests"]
    ]
    assert (table.history_tokens + table.prompt_tokens).tolist() == lengths


def test_azure_is_one_turn_a_row(real):
    table = traces.read_trace(real("azure_llm_2023_conv.csv"))
    assert table.sessions == table.turns == 19_366 and table.open_loop


# --- fuzzing ----------------------------------------------------------------------------------------------------------------------

INPUTS = int(os.environ.get("KVPLAN_INPUTS", "2500"))
"""For each format; more by hand."""


def mutants(seeds: list[bytes], count: int, seed: int):
    """`count` byte-level mutations: flips, cuts, repeats, splices of two seeds, and numbers replaced by absurd ones."""
    rng = random.Random(seed)
    absurd = [
        b"-1",
        b"1e999",
        b"NaN",
        b"1000000000000",
        b'"x"',
        b"null",
        b"[]",
        b"{}",
        b"0",
        b"\xff",
        b"9" * 400,
        b"[" * 300,
        b'{"a":' * 200,
    ]
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data) + 1)
            kind = rng.randrange(5)
            if kind == 0 and data:
                data[place % len(data)] = rng.randrange(256)
            elif kind == 1:
                del data[place : place + rng.randint(1, 30)]
            elif kind == 2:
                data[place:place] = rng.choice(absurd)
            elif kind == 3:
                other = rng.choice(seeds)
                start = rng.randrange(len(other))
                data[place:place] = other[start : start + 60]
            else:
                data[place:place] = data[place : place + 40]
        yield bytes(data)


def survives(path, name, skip_bad):
    try:
        assert traces.read_trace(path, name, skip_bad=skip_bad).turns >= 1
    except TraceError as error:
        assert str(error)


@pytest.fixture
def scratch(tmp_path):
    """A file in memory where the system has such a place: 10,000 small files on disk take longer than reading them."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder) / "t"


@pytest.mark.parametrize("name", FORMATS)
def test_readers_survive_mutated_files(scratch, name):
    path = scratch
    for index, data in enumerate(mutants([FORMATS[name].EXAMPLE.encode()], INPUTS, seed=len(name))):
        path.write_bytes(data)
        survives(path, name if index % 2 else None, skip_bad=index % 3 == 0)


def test_fields_take_numbers_and_nothing_else():
    assert fields.tokens({"n": "12"}, "n") == 12 and fields.tokens({"n": 3.0}, "n") == 3
    for value in (True, None, "", "1.5", "inf", [], {}, 0, -1, 1e300, 10**400):
        with pytest.raises(BadRecord):
            fields.tokens({"n": value}, "n")
