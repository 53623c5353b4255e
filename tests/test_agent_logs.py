"""Logs of coding agents: which request goes on from which, what is left out, and what they record of a cache."""

import json

import pytest

from kvplan import traces
from kvplan.traces import TraceError, origin
from kvplan.traces.formats import canonical


def put(tmp_path, records, name="log.jsonl"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# --- Claude Code ------------------------------------------------------------------------------------------------------------------


def line(uuid, parent, at, usage=None, of=None, **more):
    """A line `at` seconds after ten; with a usage (new, made, read, output) it is part of the answer `of`."""
    kind = "user" if usage is None else "assistant"
    message = {"role": kind, "content": "x"}
    if usage is not None:
        names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
        message |= {"id": of or uuid, "usage": dict(zip(names, usage, strict=True))}
    moment = f"2026-06-01T10:{at // 60:02}:{at % 60:02}.500Z"
    return {"type": kind, "uuid": uuid, "parentUuid": parent, "sessionId": "s", "timestamp": moment, "message": message, **more}


def rows(table):
    return list(
        zip(table.session.tolist(), table.history_tokens.tolist(), table.prompt_tokens.tolist(), table.output_tokens.tolist(), strict=True)
    )


def test_parts_of_a_streamed_answer_are_one_request(tmp_path):
    table = traces.read_trace(
        put(
            tmp_path,
            [
                {"type": "summary", "summary": "A title", "leafUuid": "a3"},
                {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}},
                line("u1", None, 0),
                line("a1", "u1", 4, (10, 1000, 0, 1), of="m1"),
                line("a2", "a1", 6, (10, 1000, 0, 80), of="m1"),
                line("u2", "a1", 9),
                line("u3", "a2", 10),
                line("a3", "u3", 15, (20, 300, 1000, 50)),
            ],
        )
    )
    assert rows(table) == [(0, 0, 1010, 80), (0, 1090, 230, 50)]
    assert table.arrival_s.tolist() == [0, 10] and table.gap_s.tolist() == [0, 4]
    assert table.origin["recorded_cache"] == {"requests": 2, "prompt_tokens": 2330, "cached_tokens": 1000, "history_tokens": 1090}
    assert any("records 42.9% as cached" in note and "hold 46.8%" in note for note in origin.notes(table.origin))


def test_subagents_are_sessions_of_their_own_and_their_parent_waits(tmp_path):
    side = {"isSidechain": True}
    main = [line("u1", None, 0), line("a1", "u1", 5, (5, 1000, 0, 50))]
    inside = [line("s1", "a1", 6, **side), line("t1", "s1", 9, (5, 400, 0, 20), **side), line("s2", "t1", 10, **side)]
    inside += [line("t2", "s2", 12, (5, 100, 420, 20), **side)]
    end = [line("u2", "a1", 13), line("a2", "u2", 20, (5, 200, 1050, 30))]
    table = traces.read_trace(put(tmp_path, main + inside + end))
    assert table.sessions == 2 and rows(table)[:2] == [(0, 0, 1005, 50), (0, 1055, 200, 30)]
    assert table.gap_s.tolist() == [0, 8, 0, 1] and table.arrival_s[2] == 6
    apart = {"agentId": "f3", "isSidechain": True}
    put(tmp_path / "folder", main + end, "s.jsonl")
    put(
        tmp_path / "folder",
        [{**record, "parentUuid": None if record["uuid"] == "s1" else record["parentUuid"], **apart} for record in inside],
        "agent-f3.jsonl",
    )
    other = traces.read_trace(tmp_path / "folder")
    assert sorted(rows(other)) == sorted((1 - session, *more) for session, *more in rows(table))


def test_answers_taken_back_fork_and_resumed_files_repeat_nothing(tmp_path):
    first = [line("u1", None, 0), line("a1", "u1", 5, (5, 1000, 0, 50))]
    put(tmp_path / "f", [*first, line("u2", "a1", 20), line("a2", "u2", 25, (5, 100, 1055, 30))], "a.jsonl")
    put(
        tmp_path / "f",
        [*[{**record, "sessionId": "r"} for record in first], line("u3", "a1", 90), line("a3", "u3", 95, (5, 90, 1055, 30))],
        "b.jsonl",
    )
    table = traces.read_trace(tmp_path / "f")
    assert table.turns == 3 and table.sessions == 2 and rows(table)[2] == (1, 0, 1150, 30)
    assert table.origin["left_out"] == {"links_of_second_children": 1}


def test_a_compacted_context_keeps_what_was_cached(tmp_path):
    records = [line("u1", None, 0), line("a1", "u1", 5, (5, 90_000, 0, 500))]
    records += [line("u2", None, 20, logicalParentUuid="a1"), line("a2", "u2", 25, (5, 4_000, 12_000, 300))]
    table = traces.read_trace(put(tmp_path, records))
    assert rows(table) == [(0, 0, 90_005, 500), (0, 12_000, 4_005, 300)] and table.origin["edited_contexts"] == 1


def test_calls_that_failed_are_left_out(tmp_path):
    wrong = line("a1", "u1", 5, (0, 0, 0, 0), isApiErrorMessage=True)
    records = [line("u1", None, 0), wrong, line("a2", "a1", 30, (5, 100, 0, 10)), line("a3", "a2", 40, (0, 0, 0, 10))]
    table = traces.read_trace(put(tmp_path, records))
    assert table.turns == 1 and table.origin["left_out"] == {"failed_requests": 1, "requests_without_prompt": 1}


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        (
            [line("u1", None, 9), line("a1", "u1", 12, (5, 5, 0, 9)), line("u2", "a1", 3), line("a2", "u2", 4, (5, 9, 0, 1))],
            "record 4: requests out of order: .*record 2",
        ),
        ([line("u1", None, 0), {**line("a1", "u1", 5, (1, 1, 1, 1)), "message": {"id": "x"}}], "record 2: has no `usage`"),
        ([line("u1", None, 0), {**line("u2", "u1", 5), "timestamp": "yesterday"}], "record 2: `timestamp` is 'yesterday', not a date"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, records, reason):
    with pytest.raises(TraceError, match=reason):
        traces.read_trace(put(tmp_path, records))


# --- Copilot ----------------------------------------------------------------------------------------------------------------------


def call(at, prompt, completion, cached=0, model="Model A", result="Success", ms=1000.0):
    tokens = {"total": prompt + completion, "prompt": prompt, "completion": completion, "cached": cached, "cached_pct": 0.0}
    return {
        "message_id": f"m{at}",
        "timestamp": f"2026-06-01T10:00:{at:02}Z",
        "duration_ms": ms,
        "model": model,
        "result": result,
        "tokens": tokens,
    }


def session(*calls, name="c0", **more):
    return {
        "session_id": name,
        "date": "2026-06-01",
        "turns": [{"turn_id": f"t{i}", "llm_calls": [each], "tool_batches": []} for i, each in enumerate(calls)],
        **more,
    }


def test_contexts_beside_each_other_are_sessions_of_their_own(tmp_path):
    main = [call(0, 10_000, 100), call(10, 12_000, 100, 9_984), call(30, 13_000, 200, 12_032)]
    other = [call(5, 11_000, 50, 0, "Model B"), call(15, 11_500, 50, 11_008, "Model B")]
    title = [call(20, 300, 9)]
    table = traces.read_trace(put(tmp_path, [session(*sorted(main + other + title, key=lambda each: each["message_id"].zfill(4)))]))
    assert rows(table) == [
        (0, 0, 10_000, 100),
        (0, 10_100, 1_900, 100),
        (0, 12_100, 900, 200),
        (1, 0, 300, 9),
        (2, 0, 11_000, 50),
        (2, 11_050, 450, 50),
    ]
    assert table.gap_s.tolist() == [0, 9, 19, 0, 0, 9]
    recorded = table.origin["recorded_cache"]
    assert recorded["cached_tokens"] == 9_984 + 12_032 + 11_008 and recorded["history_tokens"] == 10_100 + 12_100 + 11_050


def test_a_compacted_call_goes_on_with_what_was_cached(tmp_path):
    table = traces.read_trace(put(tmp_path, [session(call(0, 90_000, 100), call(9, 30_000, 100, 8_192), call(20, 31_000, 90, 30_080))]))
    assert rows(table) == [(0, 0, 90_000, 100), (0, 8_192, 21_808, 100), (0, 30_100, 900, 90)]


def test_failed_calls_are_left_out_and_cancelled_ones_are_not(tmp_path):
    calls = [call(0, 5_000, 0, result="Failed"), call(2, 5_000, 10), call(9, 6_000, 3, 5_000, result="UserCancel"), call(12, 0, 0)]
    table = traces.read_trace(put(tmp_path, [session(*calls)]))
    assert rows(table) == [(0, 0, 5_000, 10), (0, 5_010, 990, 3)]
    assert table.origin["left_out"] == {"failed_calls": 1, "calls_without_prompt": 1}


def test_more_cached_than_sent_is_refused(tmp_path):
    with pytest.raises(TraceError, match="record 1: call 0: `cached` is 11, more than the 10"):
        traces.read_trace(put(tmp_path, [session(call(0, 10, 5, 11))]))


def test_tables_keep_what_was_recorded_and_folders_of_them_add_it_up(tmp_path):
    table = traces.read_trace(put(tmp_path, [session(call(0, 10_000, 100), call(10, 12_000, 100, 9_984))]))
    (tmp_path / "tables").mkdir()
    for name in ("a.csv", "b.csv"):
        canonical.write_canonical(table, tmp_path / "tables" / name)
    canonical.write_canonical(table, tmp_path / "c.parquet")
    assert traces.read_trace(tmp_path / "c.parquet").origin["recorded_cache"] == table.origin["recorded_cache"]
    both = traces.read_trace(tmp_path / "tables").origin["recorded_cache"]
    assert both == {name: 2 * count for name, count in table.origin["recorded_cache"].items()}


@pytest.mark.parametrize("what", ["x", {}, {"requests": 1}, {"requests": 1, "prompt_tokens": 0, "cached_tokens": 0, "history_tokens": 0}])
def test_what_others_wrote_as_recorded_is_no_sentence(what):
    assert not origin.notes({"recorded_cache": what})
