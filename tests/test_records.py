"""What a record of chats is: the same sessions written as conversations, requests or increments; pieces; envelopes; what was recorded."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import traces
from kvplan.traces import TraceError, origin

FIELD = Path(__file__).resolve().parents[2] / "shared" / "field"


def put(tmp_path, records, name="log.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def rows(table):
    columns = (table.session, table.history_tokens, table.prompt_tokens, table.output_tokens)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def sessions(table):
    """Turns of each session, whatever the order of the sessions."""
    found = {}
    for session, *turn in rows(table):
        found.setdefault(session, []).append(tuple(turn))
    return sorted(found.values())


# --- one workload, written in three ways ------------------------------------------------------------------------------------------


@st.composite
def chats(draw):
    """Conversations that differ from their first prompt on, all answered, and an order in which their turns come."""
    system = draw(st.sampled_from(["", "Be brief. " * 5]))
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    order = draw(st.permutations([index for index, turns in enumerate(lengths) for _ in range(turns)]))
    conversations = []
    for index, turns in enumerate(lengths):
        messages = [{"role": "system", "content": system}] if system else []
        for turn in range(turns):
            messages += [
                user(f"question {index} {turn} " + "word " * draw(st.integers(1, 40))),
                bot(f"answer {turn} " * draw(st.integers(1, 9))),
            ]
        conversations.append(messages)
    return conversations, order


def written(conversations, order, way, apart, named):
    """The records of a way of writing: conversations, requests or increments; the answer apart or as the last message."""
    done = dict.fromkeys(range(len(conversations)), 0)
    for index in order:
        messages = conversations[index]
        start = done[index]
        end = next(place for place in range(start, len(messages)) if messages[place]["role"] == "assistant") + 1
        done[index] = end
        if way == "conversations" and end < len(messages):
            continue
        sent = messages[start:end] if way == "increments" else messages[:end]
        record = {"messages": sent[:-1], "response": sent[-1]["content"]} if apart else {"messages": sent}
        yield record | ({"session_id": f"s{index}"} if named else {})


@given(chats(), st.booleans(), st.booleans())
def test_conversations_requests_and_increments_are_one_workload(tmp_path_factory, given_, apart, named):
    conversations, order = given_
    folder = tmp_path_factory.mktemp("ways")
    right = sessions(traces.read_trace(put(folder, ({"messages": messages} for messages in conversations)), records="conversations"))
    for way, told in (("conversations", "conversations"), ("requests", "requests"), ("increments", "increments")):
        if way == "increments" and not named:
            continue
        table = traces.read_trace(put(folder, written(conversations, order, way, apart and way != "conversations", named)), records=told)
        assert sessions(table) == right, way
        assert "left_out" not in table.origin
    if max(map(len, conversations)) > 3:
        found = traces.read_trace(put(folder, written(conversations, order, "requests", apart, named)))
        assert sessions(found) == right and found.origin["records"].startswith("requests")


def test_a_request_log_without_answers_is_told_by_what_goes_on(tmp_path):
    talk = [user("one"), bot("two three"), user("four"), bot("five"), user("six")]
    other = [user("uno"), bot("dos"), user("tres")]
    log = [talk[:1], other[:1], talk[:3], talk[:5], other[:3]]
    table = traces.read_trace(put(tmp_path, ({"model": "m", "messages": messages} for messages in log)))
    assert table.session.tolist() == [0, 0, 0, 1, 1] and table.output_tokens[2] == table.output_tokens[4] == 1
    assert "3 of 3 that could go on from an earlier one begin with its messages" in table.origin["records"]
    assert "2 of 5 requests" in table.origin["answers"] and "doubtful_records" not in table.origin
    conversations = traces.read_trace(tmp_path / "log.jsonl", records="conversations")
    assert "as workload.records says" in conversations.origin["records"] and conversations.turns == 4


def test_thin_evidence_is_a_doubt(tmp_path):
    table = traces.read_trace(put(tmp_path, [{"messages": [user("one")]}, {"messages": [user("one"), bot("two"), user("three")]}]))
    assert table.sessions == 1 and any("doubtful what a record is" in line for line in origin.warnings(table.origin))
    mixed = [{"messages": [user(f"{i}"), bot("x"), user("y")][: 2 + (i > 7)]} for i in range(10)]
    assert "2 of 10 end with a prompt" in traces.read_trace(put(tmp_path, mixed)).origin["doubtful_records"]


def test_forks_begin_sessions_of_their_own(tmp_path):
    start = [user("one"), bot("two"), user("three")]
    log = [
        start[:1],
        start,
        [*start, bot("four"), user("five")],
        [*start[:2], user("other"), bot("six")],
        [user("one"), bot("seven"), user("x")],
    ]
    table = traces.read_trace(put(tmp_path, ({"messages": messages} for messages in log)), records="requests")
    assert np.diff(table.first_turn).tolist() == [3, 1, 1]
    assert table.origin["left_out"] == {"links_of_second_children": 2}


def test_of_requests_that_are_alike_the_answer_tells(tmp_path):
    log = [
        {"messages": [user("hi")], "response": "hello"},
        {"messages": [user("hi")], "response": "good morning"},
        {"messages": [user("hi"), bot("hello"), user("one")], "response": "x"},
        {"messages": [user("hi"), bot("good morning"), user("two")], "response": "y"},
        {"messages": [user("hi"), bot("nobody said that"), user("three")], "response": "z"},
    ]
    table = traces.read_trace(put(tmp_path, log))
    assert table.record.tolist() == [1, 3, 2, 4, 5] and table.sessions == 3


def test_edited_history_of_a_named_session_keeps_what_is_common(tmp_path):
    long = user("word " * 100)
    log = [[long], [long, bot("a"), user("b")], [long, bot("a"), user("changed")], [user("new context")]]
    table = traces.read_trace(put(tmp_path, ({"session_id": "s", "messages": each} for each in log)), records="requests")
    first = table.prompt_tokens[0]
    assert table.session.tolist() == [0, 0, 0, 1] and table.history_tokens[2] == first + 1 and table.origin["edited_contexts"] == 1


def test_increments_need_a_session(tmp_path):
    with pytest.raises(TraceError, match="record 1 has no identifier of its session"):
        traces.read_trace(put(tmp_path, [{"messages": [user("x"), bot("y")]}]), records="increments")
    log = [{"session_id": i % 2, "messages": [user(f"question {i}")]} for i in range(6)]
    table = traces.read_trace(put(tmp_path, log))
    assert table.origin["records"].startswith("what a request adds") and table.sessions == 2


def test_sessions_of_a_log_of_prompts_and_answers_are_followed(tmp_path):
    log = [{"session_id": i % 2, "prompt": f"question {i} " * 9, "response": f"answer {i} " * 9} for i in range(6)]
    table = traces.read_trace(put(tmp_path, log))
    assert table.origin["format"] == "request-log" and table.origin["records"].startswith("what a request adds")
    assert table.sessions == 2 and (table.history_tokens[~table.is_first] > 0).all()


@pytest.mark.parametrize(("window", "stamp", "found"), [(2, "", 2), (99, "at {} ", 10)])
def test_an_edited_history_is_no_increment(tmp_path, window, stamp, found):
    """Clients that cut old turns away, or write the time into the system prompt: the whole history is sent, and counts once."""
    log = []
    for turn in range(5):
        for name in "ab":
            talk = [(user if i % 2 == 0 else bot)(f"message {i} of {name} " * 9) for i in range(2 * turn + 1)]
            system = {"role": "system", "content": stamp.format(turn) + "Be brief. " * 9}
            log.append(
                {"session_id": name, "messages": [system, *talk[-window - 1 :]], "response": f"message {2 * turn + 1} of {name} " * 9}
            )
    table = traces.read_trace(put(tmp_path, log))
    alone = traces.read_trace(
        put(tmp_path, [{key: each[key] for key in ("messages", "response")} for each in log], "b.jsonl"), records="requests"
    )
    assert table.origin["records"].startswith("requests with all") and "hold its last prompt" in table.origin["records"]
    assert table.sessions == found
    assert sum(table.history_tokens + table.prompt_tokens) == sum(alone.history_tokens + alone.prompt_tokens)


@pytest.mark.parametrize("wrapped", [False, True])
def test_responses_go_on_from_the_one_that_they_name(tmp_path, wrapped):
    """OpenAI's Responses API keeps the history on the server: a request holds what is new, and names the response before."""
    log = []
    for turn in range(3):
        for name in "ab":
            asked = {"input": f"question {turn} of {name} " * 9, "previous_response_id": f"{name}{turn - 1}" if turn else None}
            said = {"id": f"{name}{turn}", "output": [{"type": "message", "content": [{"type": "output_text", "text": "Well. " * 9}]}]}
            log.append({"request": {"model": "m", **asked}, "response": said} if wrapped else {**asked, **said})
    table = traces.read_trace(put(tmp_path, log))
    assert table.origin["format"] == "request-log" and table.session.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.history_tokens[1] == table.prompt_tokens[0] + table.output_tokens[0]


def test_logs_of_gemini_are_read(tmp_path):
    asked = [{"parts": [{"text": "word " * 50}, {"inlineData": {"mimeType": "image/png", "data": "iVBO" * 99}}]}]
    call = {"role": "model", "parts": [{"functionCall": {"name": "find", "args": {"q": "word " * 20}}}]}
    result = {"role": "user", "parts": [{"functionResponse": {"name": "find", "response": {"found": "word " * 30}}}]}
    said = {"role": "model", "parts": [{"text": "hm " * 40, "thought": True}, {"text": "word " * 10}]}
    head = {"systemInstruction": {"parts": [{"text": "word " * 20}]}, "tools": [{"functionDeclarations": [{"name": "find"}]}]}
    table = traces.read_trace(put(tmp_path, [{**head, "contents": [*asked, call, result, said]}]))
    assert table.origin["format"] == "openai" and "tokens_left_out" not in table.origin
    assert table.origin["media"]["pictures"] == 1 and table.origin["reasoning_tokens"] >= 40 and len(table.session) == 2
    usage = {"promptTokenCount": 120, "candidatesTokenCount": 10, "thoughtsTokenCount": 45, "cachedContentTokenCount": 64}
    response = {"candidates": [{"content": said}], "usageMetadata": usage}
    table = traces.read_trace(put(tmp_path, [{"request": {**head, "contents": asked}, "response": response}], "b.jsonl"))
    assert (table.prompt_tokens.tolist(), table.output_tokens.tolist()) == ([120], [55])
    assert table.origin["recorded_cache"]["cached_tokens"] == 64


def test_pieces_of_a_streamed_answer_are_one_answer(tmp_path):
    pieces = [{"choices": [{"delta": {"content": f"{word} "}}]} for word in ("It", "left", "on", "Monday")]
    table = traces.read_trace(put(tmp_path, [{"request": {"messages": [user("When?")]}, "response": pieces}]))
    assert table.output_tokens[0] >= 4 and "tokens_left_out" not in table.origin


def test_texts_that_may_hold_a_history_are_a_doubt(tmp_path):
    """A template that ends with an open line, which the next prompt goes on with."""
    said = [f"User: question {i}\nAssistant:" for i in range(3)]
    log = [{"prompt": "answer\n".join(said[: i + 1]), "output": "answer"} for i in range(3)]
    table = traces.read_trace(put(tmp_path, log))
    assert table.sessions == 3 and table.origin["texts_apart"] == 3
    assert any("if they hold a history, it is not seen" in each for each in origin.warnings(table.origin))
    named = traces.read_trace(put(tmp_path, ({**each, "session_id": "s"} for each in log), "named.jsonl"))
    assert (
        named.sessions == 1
        and "texts_apart" not in named.origin
        and sum(named.history_tokens + named.prompt_tokens) == sum(table.prompt_tokens)
    )
    new = traces.read_trace(put(tmp_path, ({"session_id": "s", "prompt": each, "output": "answer"} for each in said), "new.jsonl"))
    assert new.sessions == 1 and new.origin["records"].startswith("what a request adds")


@pytest.mark.parametrize(
    ("records", "remedy"),
    [
        ([{"conversation_id": "a", "role": "user", "content": "x"}], "one message a row: gather .*group_by"),
        ([{"id": "a", "data": ["x", "y"]}], "UltraChat.*jq -c"),
        ([{"version": 1, "data": [{"messages": [user("x"), bot("y")]}]}], r"jq -c '\.data\[\]'"),
    ],
)
def test_what_is_not_read_is_told_how_to_write_it(tmp_path, records, remedy):
    with pytest.raises(TraceError, match=remedy):
        traces.read_trace(put(tmp_path, records))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_text_in_columns_that_nothing_names_is_left_out_aloud(tmp_path, suffix):
    """Alpaca's `instruction` is named, its `input` and `system` are not."""
    row = {"instruction": "Say it. " * 9, "input": "word " * 30, "output": "Well. " * 9, "system": "Be brief. " * 9, "cost": "0.25"}
    path = put(tmp_path, [row] * 3, f"log.{suffix}")
    if suffix == "csv":
        path.write_text("\n".join([",".join(row), *[",".join(row.values())] * 3]) + "\n")
    table = traces.read_trace(path, columns={"prompt_text": "instruction", "output_text": "output"})
    assert list(table.origin["tokens_left_out"]) == ["`input`", "`system`"] and table.origin["tokens_left_out"]["`input`"] > 80


def test_roles_may_begin_with_a_capital(tmp_path):
    plain, capital = ([{"messages": [{"role": how(role), "content": role} for role in ("user", "assistant")]}] for how in (str, str.title))
    assert rows(traces.read_trace(put(tmp_path, capital))) == rows(traces.read_trace(put(tmp_path, plain, "b.jsonl")))


def test_ids_of_tokens_are_refused_with_what_to_write(tmp_path):
    with pytest.raises(TraceError, match="--columns prompt=prompt"):
        traces.read_trace(put(tmp_path, [{"prompt": [1, 2, 3], "completion": "x"}]))


def test_newest_first_is_put_in_order_of_time(tmp_path):
    talk = [user("one"), bot("two"), user("three"), bot("four"), user("five")]
    log = [{"messages": talk[: 2 * i + 1], "created": 1_760_000_000 + 60 * i, "latency_ms": 2000} for i in (2, 1, 0)]
    table = traces.read_trace(put(tmp_path, log), records="requests")
    assert table.sessions == 1 and table.arrival_s.tolist() == [0, 60, 120] and table.gap_s.tolist() == [0, 58, 58]


def test_recorded_tokens_times_and_hits_are_used(tmp_path):
    openai = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 0}}
    later = {"input_tokens": 30, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10, "output_tokens": 5}
    first = {"usage": openai, "choices": [{"message": bot("ho")}]}
    second = {"usage": later, "content": [{"type": "text", "text": "x"}]}
    day = "2026-01-01T00:0"
    log = [
        {"start_time": f"{day}0:00Z", "end_time": f"{day}0:04Z", "request": {"messages": [user("hi")]}, "response": first},
        {"start_time": f"{day}1:00Z", "request": {"messages": [user("hi"), bot("ho"), user("bye")]}, "response": second},
    ]
    table = traces.read_trace(put(tmp_path, log))
    assert table.origin["format"] == "request-log" and rows(table) == [(0, 0, 100, 20), (0, 120, 20, 5)]
    assert table.arrival_s.tolist() == [0, 60] and table.gap_s.tolist() == [0, 56]
    assert table.origin["recorded_cache"] == {"requests": 2, "prompt_tokens": 240, "cached_tokens": 100, "history_tokens": 120}


def test_failed_requests_are_left_out_and_answers_of_all_shapes_are_taken(tmp_path):
    ask = {"messages": [user("hi there")]}
    answers = [
        {"choices": [{"message": {**bot(None), "tool_calls": [{"function": {"name": "look", "arguments": '{"a": "word word"}'}}]}}]},
        {"body": {"choices": [{"text": "word word word"}]}},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "word word word"}]}]},
        json.dumps({"role": "assistant", "content": [{"type": "text", "text": "word word word"}]}),
        {"text": "word word word"},
        "word word word",
        [bot("word word word")],
    ]
    failed = [{"request": ask, "response": {"status_code": 429}}, {"request": ask, "error": "overloaded", "response": None}]
    table = traces.read_trace(put(tmp_path, [*({"request": ask, "response": answer} for answer in answers), *failed]))
    assert table.turns == len(answers) and table.output_tokens.min() >= 3 and "answers" not in table.origin
    assert table.origin["left_out"] == {"failed_requests": 2}


@pytest.mark.parametrize("scale", [1, 1e3, 1e6, 1e9])
def test_unix_times_tell_their_unit(tmp_path, scale):
    log = [{"messages": [user(str(i))], "created": round((1_760_000_000 + 30 * i) * scale)} for i in range(4)]
    assert traces.read_trace(put(tmp_path, log)).arrival_s == pytest.approx([0, 30, 60, 90])


def test_times_from_some_start_are_checked_and_dates_are_not(tmp_path):
    def log(start, step):
        talk = [message for i in range(6) for message in (user(f"question {i}"), bot("answer " * 90))]
        return [{"messages": talk[: 2 * i + 1], "timestamp": start + step * i} for i in range(6)]

    assert traces.read_trace(put(tmp_path, log(0, 30))).arrival_s.tolist() == [30 * i for i in range(6)]
    with pytest.raises(TraceError, match=r"taken as seconds, .*which unit"):
        traces.read_trace(put(tmp_path, log(0, 300_000)))
    assert traces.read_trace(put(tmp_path, log(0, 30_000)), times="ms").arrival_s[1] == 30
    assert traces.read_trace(put(tmp_path, log(1_760_000_000, 300_000))).arrival_s[1] == 300_000


def test_times_at_one_instant_are_taken_as_they_are_when_told(tmp_path):
    log = [{"messages": [user(str(i))], "created": 1_760_000_000} for i in range(4)]
    table = traces.read_trace(put(tmp_path, log))
    assert not table.arrivals_known and table.origin["left_out"] == {"times_that_are_all_the_same": 4}
    assert traces.read_trace(put(tmp_path, log), times="exact").arrival_s.tolist() == [0] * 4


def test_messages_of_conversations_have_times(tmp_path):
    def said(message, at):
        return {**message, "timestamp": f"2026-01-01T00:00:{at:02}"}

    log = [{"conversation": [said(user("a"), at), said(bot("b"), at + 3), user("c"), said(bot("d"), at + 20)]} for at in (0, 9)]
    table = traces.read_trace(put(tmp_path, log))
    assert table.open_loop and table.arrival_s.tolist() == [0, 20, 9, 29]
    log[0]["conversation"][1]["timestamp"] = "2025-12-31T00:00:00"
    with pytest.raises(TraceError, match=r"record 1: message 1: comes .* before one above it"):
        traces.read_trace(put(tmp_path, log))


# --- pieces -----------------------------------------------------------------------------------------------------------------------


def piece(name, start, end):
    sides = [("human", "gpt")[place % 2] for place in range(start, end)]
    return {
        "id": f"{name}_{start}",
        "conversations": [{"from": side, "value": f"{name} {place} " * 9} for place, side in enumerate(sides, start)],
    }


def test_pieces_are_joined_where_they_touch(tmp_path):
    whole = traces.read_trace(put(tmp_path, [piece("a", 0, 8), piece("b", 0, 6)]))
    cut = [piece("a", 0, 3), piece("a", 3, 7), piece("a", 7, 8), piece("b", 0, 5), piece("b", 5, 6)]
    random.Random(1).shuffle(cut)
    table = traces.read_trace(put(tmp_path, cut))
    assert sessions(table) == sessions(whole)
    assert table.origin["pieces"] == {"records": 5, "conversations": 2, "joined": 3, "beginnings_missing": 0}
    del cut[[record["id"] for record in cut].index("a_3")]
    gap = traces.read_trace(put(tmp_path, cut))
    assert gap.origin["pieces"] == {"records": 4, "conversations": 2, "joined": 1, "beginnings_missing": 1}
    assert any("4 pieces of 2 conversations; 1 were joined" in line and "1 sessions lack" in line for line in origin.notes(gap.origin))


@pytest.mark.parametrize("what", ["x", {}, {"records": 1}, 3])
def test_what_others_wrote_of_pieces_is_harmless(what):
    assert len(origin.notes({"pieces": what})) == bool(what)


def test_numbers_that_are_no_places_are_no_pieces(tmp_path):
    records = [{"id": f"chat_{i}", "conversations": piece("x", 0, 4)["conversations"]} for i in range(9)]
    table = traces.read_trace(put(tmp_path, records))
    assert table.sessions == 9 and "pieces" not in table.origin


# --- other shapes -----------------------------------------------------------------------------------------------------------------


def test_a_prompt_that_is_one_text_goes_on_from_its_beginning(tmp_path):
    start = "Plan the search.\nBe brief.\n"
    other = {"prompt": "Something else", "completion": "x"}
    log = [{"prompt": start, "completion": "A plan."}, other, {"prompt": start + "Now go on.\n", "completion": "Done."}]
    table = traces.read_trace(put(tmp_path, log))
    assert np.diff(table.first_turn).tolist() == [2, 1] and table.history_tokens[1] == table.prompt_tokens[0]


def test_trees_are_their_longest_path(tmp_path):
    def reply(name, parent, role="assistant", text="word " * 5):
        return {"message_id": name, "parent_id": parent, "role": role, "text": text}

    log = [reply("a", None, "prompter"), reply("b", "a"), reply("c", "a"), reply("d", "c", "prompter"), reply("e", "d")]
    log += [reply("f", "x", "prompter"), reply("g", "f")]
    table = traces.read_trace(put(tmp_path, log))
    assert table.origin["format"] == "oasst" and np.diff(table.first_turn).tolist() == [2, 1]
    assert table.origin["left_out"] == {"replies_beside_the_longest_path": 1}
    below = {**log[2], "replies": [{**log[3], "replies": [log[4]]}]}
    tree = {"message_tree_id": "a", "prompt": {**log[0], "replies": [{**log[1], "replies": []}, below]}}
    assert rows(traces.read_trace(put(tmp_path, [tree]))) == rows(table)[:2]


# --- files of the field -----------------------------------------------------------------------------------------------------------

RIGHT = {
    "cumulative_requests.jsonl": ("openai", 18, 3, 23_139, 0.832),
    "sharegpt_whole.json": ("sharegpt", 120, 10, 222_480, 0.942),
    "sharegpt_v3_chunks.json": ("sharegpt", 120, 10, 222_480, 0.942),
    "openai_batch.jsonl": ("request-log", 3, 3, 63, 0.0),
    "wildchat.jsonl": ("openai", 6, 3, 51, 0.471),
    "oasst.jsonl": ("oasst", 1, 1, 1, 0.0),
    "mooncake_text_messages.jsonl": ("mooncake-chat", 2, 1, 11, 0.364),
    "lmcache_agent_trace.jsonl": ("request-log", 2, 1, 22, 0.409),
    "sglang_agentic_trace.json": ("sglang", 2, 1, 1_460, 0.482),
    "claude_code_transcript.jsonl": ("claude-code", 1, 1, 20_004, 0.0),
    "copilot2026.jsonl": ("copilot", 6, 3, 131_400, 0.479),
}
"""Format, turns, sessions, prefill tokens, share of history."""


@pytest.mark.parametrize("name", RIGHT)
def test_files_of_the_field(name):
    if not (FIELD / name).exists():
        pytest.skip("the files of the field are not on this machine")
    table = traces.read_trace(FIELD / name)
    prefill = int((table.history_tokens + table.prompt_tokens).sum())
    assert (table.origin["format"], table.turns, table.sessions) == RIGHT[name][:3]
    assert prefill == pytest.approx(RIGHT[name][3], rel=0.1, abs=10)  # tokens are estimated
    assert table.history_tokens.sum() / prefill == pytest.approx(RIGHT[name][4], abs=0.04)


def test_a_sample_of_pieces_is_said_to_be_one(sharegpt_sample):
    said = traces.read_trace(sharegpt_sample).origin["pieces"]
    assert said["conversations"] == 293 and said["joined"] <= 1 and said["beginnings_missing"] > 50
