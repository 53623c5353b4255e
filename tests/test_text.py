"""Chat messages: every string of a record is counted, left out by name with its amount, or refused; and what becomes of reasoning."""

import copy
import itertools
import json
import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import traces
from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.traces import TraceError, origin, rescale
from kvplan.traces.answers import prefilled_again
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Source
from kvplan.traces.text import parts
from kvplan.traces.workload import untimed

FIELD = SHARED.parent / "field"
MARK = "§"


def words(text: str) -> int:
    """Marked words of a text: adds up over any way to cut it."""
    return text.count(MARK)


def put(tmp_path, *records, name="t.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def read(path, count=words, **settings):
    """The workload of a file of chats, in tokens of `count`."""
    return traces.known_formats()["openai"].read(Source(path), Reading(**settings), count)


def said(path, **settings):
    return " | ".join(origin.notes(traces.read_trace(path, **settings).origin))


def user(text="question"):
    return {"role": "user", "content": text}


def assistant(text="answer", **more):
    return {"role": "assistant", "content": text, **more}


# --- every string has its place ---------------------------------------------------------------------------------------------------

T = st.sampled_from([MARK, f"{MARK} and {MARK}"])
LABEL = st.sampled_from(["m-1", "call", "2026-01-01"])
BYTES = st.sampled_from(["data:image/png;base64,AAAA", "https://example.org/a.png"])


def objects(fixed, **optional):
    return st.fixed_dictionaries(fixed, optional=optional)


def of_type(kind, **fields):
    return objects({"type": st.just(kind), **fields})


NAMES = st.sampled_from(["x_mood", "x_notes", "x_blob", "annotations", "encrypted_content"])
ODD = st.recursive(T | st.integers() | st.none() | st.booleans(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner))
EXTRA = st.dictionaries(NAMES, ODD, max_size=2)


def more(base):
    """With fields that nobody knows."""
    return st.tuples(EXTRA, base).map(lambda pair: {**pair[0], **pair[1]})


DATA = objects({"path": T, "n": st.integers()})
TEXT_PART = of_type("text", text=T) | of_type("input_text", text=T) | of_type("output_text", text=T, annotations=ODD)
MEDIA_PART = (
    of_type("image_url", image_url=objects({"url": BYTES}))
    | of_type("input_image", image_url=BYTES)
    | of_type("image", source=of_type("base64", media_type=LABEL, data=BYTES))
    | of_type("input_audio", input_audio=objects({"data": BYTES, "format": LABEL}))
    | of_type("document", source=of_type("base64", data=BYTES), title=T)
    | of_type("file", file=objects({"file_data": BYTES}))
)
PROMPT_PART = more(
    TEXT_PART
    | MEDIA_PART
    | of_type("tool_result", tool_use_id=T, content=T | st.lists(TEXT_PART, max_size=2))
    | of_type("document", source=of_type("text", data=T), context=T)
    | of_type("odd", x_blob=T)
)
ANSWER_PART = more(
    TEXT_PART
    | of_type("tool_use", id=T, name=T, input=DATA | T)
    | of_type("thinking", thinking=T, signature=LABEL)
    | of_type("redacted_thinking", data=T)
    | of_type("refusal", refusal=T)
    | of_type("odd", x_blob=T)
)
THOUGHT = st.sampled_from([f"<think>{MARK}</think>\n\n{MARK}", f"{MARK}</think>{MARK}", f"<think>{MARK}", f"[THINK]{MARK}[/THINK]"])
CALL = more(objects({"id": T, "type": st.just("function"), "function": objects({"name": T, "arguments": T | DATA})}))
PROMPTS = (
    objects(
        {"role": st.sampled_from(["system", "user", "developer"]), "content": T | st.lists(PROMPT_PART | T, max_size=3)}, name=T, id=LABEL
    )
    | objects({"role": st.just("tool"), "tool_call_id": T, "content": T | DATA})
    | objects({"from": st.sampled_from(["human", "system", "observation", "tool"]), "value": T | st.lists(T)}, text=T, weight=st.integers())
    | of_type("function_call_output", call_id=T, output=T | st.lists(TEXT_PART, max_size=2))
)
ANSWERS = (
    objects(
        {"role": st.just("assistant"), "content": T | THOUGHT | st.none() | st.just("") | st.lists(ANSWER_PART, max_size=3)},
        reasoning_content=T,
        reasoning=T | st.none(),
        tool_calls=st.lists(CALL, max_size=2),
        function_call=objects({"name": T, "arguments": T}),
        refusal=T | st.none(),
        timestamp=LABEL,
    )
    | objects({"from": st.sampled_from(["gpt", "function_call"]), "value": T | THOUGHT})
    | of_type("function_call", id=LABEL, call_id=T, name=T, arguments=T)
    | of_type("reasoning", id=LABEL, summary=st.lists(of_type("summary_text", text=T), max_size=2), encrypted_content=T)
)
TOOL = of_type("function", function=objects({"name": T, "description": T, "parameters": DATA}))
CHOICE = more(objects({"message": more(ANSWERS) | st.none()}, text=T, index=st.integers(), finish_reason=LABEL))
RESPONSES = (
    T
    | more(objects({"choices": st.lists(CHOICE, max_size=2), "id": LABEL}, created=st.integers(0, 10**9), tools=st.lists(T)))
    | more(objects({"output": st.lists(more(ANSWERS), max_size=2)}, instructions=T))
    | st.builds(lambda body: {"status_code": 200, "body": body}, more(objects({"content": T | st.lists(ANSWER_PART)}, answer=T)))
)
RECORDS = more(
    st.tuples(
        st.sampled_from(["messages", "conversations", "conversation", "items"]), st.lists(more(PROMPTS | ANSWERS), max_size=6)
    ).flatmap(
        lambda pair: objects(
            {pair[0]: st.just(pair[1])},
            id=st.none(),
            model=LABEL,
            system=T | st.lists(TEXT_PART, max_size=2),
            tools=st.lists(TOOL, min_size=1, max_size=2) | T,
            instructions=T,
            metadata=ODD,
            prompt=T,
            input=T | EXTRA,
            output=T | st.lists(ANSWERS, max_size=2),
            completion=T,
            response=RESPONSES,
            data=T | EXTRA,
            result=T,
            temperature=st.floats(0, 2),
        )
    )
)
ENVELOPES = RECORDS | more(
    objects({"body": RECORDS}, custom_id=LABEL, url=LABEL) | objects({"request": RECORDS, "response": RESPONSES}, latency=st.integers(0, 9))
)


def numbered(record):
    """The record with no two texts alike: reasoning that is said twice counts once."""
    numbers = itertools.count()
    return json.loads(re.sub(MARK, lambda _: f"{MARK}{next(numbers)}", json.dumps(record, ensure_ascii=False)))


def unmarked(tree):
    """The strings without a marked word."""
    if isinstance(tree, str):
        yield from [tree] * (MARK not in tree)
    elif isinstance(tree, dict | list):
        for each in tree.values() if isinstance(tree, dict) else tree:
            yield from unmarked(each)


@settings(max_examples=250)
@given(ENVELOPES)
def test_every_string_of_a_record_is_counted_or_left_out_by_name(tmp_path_factory, record):
    """But labels and the bytes of media, which hold no marked word here; below keys that nobody knows, each counts for one."""
    record = numbered(record)
    path = put(tmp_path_factory.getbasetemp(), record, {"messages": [user(MARK), assistant(MARK)]}, name="fuzzed.jsonl")
    try:
        table = read(path, reasoning="kept", picture_tokens=0)
    except TraceError as error:
        assert "record 1" in str(error)
        return
    media = sum(table.origin.get("media", {}).values())  # a message of media alone is a token at least
    counted = int((table.prompt_tokens + table.output_tokens).sum()) - 2
    total = counted + sum(table.origin.get("tokens_left_out", {}).values())
    expected = words(json.dumps(record, ensure_ascii=False))
    assert expected <= total <= expected + media + len(list(unmarked(record)))


@settings(max_examples=200)
@given(st.lists(more(PROMPTS | ANSWERS), max_size=6), st.sampled_from([None, "kept"]))
def test_no_text_yields_no_prompt_in_silence(tmp_path_factory, messages, reasoning):
    path = put(tmp_path_factory.getbasetemp(), {"messages": messages}, name="silent.jsonl")
    try:
        table = read(path, reasoning=reasoning)
    except TraceError:
        return
    assert table.prompt_tokens.min() >= 1
    assert not words(json.dumps(messages, ensure_ascii=False)) or int(table.prompt_tokens.sum() + table.output_tokens.sum())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | T | st.just("user"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "from", "type", "content", "text", "source", "id", "x", "image", "tool_calls"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=500)
@given(JSON)
def test_any_json_is_a_message_or_is_refused(found):
    for take in (parts.message, parts.prompt, lambda each: parts.beside({"a": each})):
        try:
            taken = take(found) if isinstance(found, dict) or take is not parts.prompt else None
        except BadRecord as error:
            assert str(error)
        else:
            assert taken is None or all(text.strip() for text in taken.texts)


def test_readers_survive_messages_with_anything_in_them(tmp_path):
    """Trees of all shapes, with one value in them replaced, moved or gone."""
    rng = random.Random(3)
    seeds = [
        {
            "messages": [
                user([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "x"}}]),
                assistant("<think>b</think>c"),
            ]
        },
        {
            "system": [{"type": "text", "text": "a"}],
            "messages": [user(), assistant(None, tool_calls=[{"id": "1", "function": {"name": "f"}}])],
        },
        {"conversations": [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": "b"}], "image": "x.png", "tools": "[]"},
        {
            "session_id": "1",
            "turns": [{"role": "system", "text": "s"}, {"texts": ["a"], "delay": 100}, {"input_length": 9, "output_length": 9}],
        },
        [user(), assistant()],
    ]
    for _ in range(2000):
        record = copy.deepcopy(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            _damage(record, rng)
        try:
            assert traces.read_trace(put(tmp_path, record)).turns >= 1
        except TraceError as error:
            assert str(error)


def _damage(tree, rng):
    """Replaces one value somewhere in a tree."""
    place = tree
    while isinstance(place, dict | list) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.3:
            place[key] = rng.choice([None, 7, 1.5, True, "", "x", [], {}, [[]], {"type": {}}, {"type": "odd"}, ["x", 3], {"role": []}, -1])
            return
        place = place[key]


# --- what is what -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "texts", "reasoning"),
    [
        (assistant("b", reasoning_content="a"), ["b"], "a"),
        (assistant("b", reasoning="a", reasoning_details=[{"type": "reasoning.text", "text": "a", "signature": "s"}]), ["b"], "a"),
        (assistant([{"type": "thinking", "thinking": "a", "signature": "s"}, {"type": "text", "text": "b"}]), ["b"], "a"),
        (assistant("<think>\na\n</think>\n\nb"), ["b"], "a"),
        (assistant("a\n</think>\n\nb"), ["b"], "a"),
        (assistant("<think>\na"), [], "a"),
        (assistant("<think>a</think>b <think>c</think>d"), ["b d"], "a\nc"),
        (assistant("[THINK]a[/THINK]b"), ["b"], "a"),
        ({"from": "gpt", "value": "<think>a</think>b"}, ["b"], "a"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, [], "a"),
        (user("<think>a</think>"), ["<think>a</think>"], ""),
        ({"role": "user", "thinking": "a"}, ["a"], ""),
        (assistant(None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]), ["1", "f", "{}"], ""),
        (assistant([{"type": "tool_use", "id": "1", "name": "f", "input": {"n": 5}}]), ["1", "f", '{"n": 5}'], ""),
        ({"role": "tool", "tool_call_id": "1", "content": {"status": "sent"}}, ["1", '{"status": "sent"}'], ""),
        ({"from": "human", "value": ["a", "b"], "text": None}, ["a", "b"], ""),
        (user([{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a"}, "title": "t"}]), ["t", "a"], ""),
    ],
)
def test_what_the_parts_of_a_message_are(message, texts, reasoning):
    found = parts.message(message)
    assert (found.texts, found.left_out) == (texts, [])
    assert found.reasoning == (f"<think>\n{reasoning}\n</think>\n\n" if reasoning else "")


@pytest.mark.parametrize(
    ("message", "pictures", "attachments"),
    [
        (user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}]), 1, 0),
        (user([{"type": "input_image", "file_id": "f"}, {"type": "image"}]), 2, 0),
        (user([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]), 1, 0),
        ({"role": "user", "content": "", "images": ["AAAA", "BBBB"]}, 2, 0),
        (
            user([{"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, {"type": "file", "file": {"file_id": "f"}}]),
            0,
            2,
        ),
        (user([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}]), 0, 1),
    ],
)
def test_media_are_counted_and_their_bytes_are_no_text(message, pictures, attachments):
    found = parts.message(message)
    assert (found.pictures, found.attachments, found.texts, found.left_out) == (pictures, attachments, [], [])


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (user([{"type": "odd", "n": 5}]), "a part of type 'odd' holds no text that kvplan knows: its keys are 'type', 'n'"),
        (user(5), "`content` is 5, not text"),
        ({"content": "a"}, "has no role: write each message as"),
        ({"type": "item_reference", "id": "a"}, "has no role"),
        ({"role": "alien", "content": "a"}, "unknown role 'alien'"),
        (7, "is not an object"),
    ],
)
def test_what_is_no_message_is_refused(message, why):
    with pytest.raises(BadRecord, match=re.escape(why)):
        parts.message(message)


def test_what_is_left_out_is_named_with_its_tokens(tmp_path):
    path = put(
        tmp_path, {"x_notes": "five words that nobody knows", "messages": [user(), {**assistant(), "x_mood": "glad"}, user("and then?")]}
    )
    words = said(path)
    assert (
        "tokens of text left out of the trace: 6 of `x_notes`" in words and "of `x_mood`" in words and "of prompts without answer" in words
    )


def test_fields_without_end_are_named_together(tmp_path):
    path = put(tmp_path, *({f"x_{i}": "word", "messages": [user(), assistant()]} for i in range(3000)))
    found = traces.read_trace(path).origin["tokens_left_out"]
    assert len(found) == 1001 and found["other fields"] == 2000 and len(said(path)) < 1000


def test_pictures_have_their_place_and_their_price(tmp_path):
    shown = {"from": "human", "value": f"<image>\n{MARK}"}
    answer = {"from": "gpt", "value": MARK}
    path = put(tmp_path, {"image": ["a.png", "b.png"], "conversations": [shown, answer, shown, answer]})
    table = read(path, picture_tokens=300)
    assert table.prompt_tokens.tolist() == [301, 301] and table.origin["media"] == {"pictures": 2, "tokens_each": 300}
    path = put(tmp_path, {"image": "a.png", "conversations": [{"from": "human", "value": MARK}, answer, shown, answer]})
    assert read(path, picture_tokens=300).prompt_tokens.tolist() == [1, 301]
    path = put(tmp_path, {"image": "a.png", "conversations": [{"from": "human", "value": MARK}, answer]})
    assert read(path, picture_tokens=300).prompt_tokens.tolist() == [301]
    path = put(tmp_path, {"conversations": [shown, answer]})
    assert read(path).prompt_tokens.tolist() == [1] and "media" not in read(path).origin
    assert "1 pictures are counted as 1,000 tokens each" in said(put(tmp_path, {"messages": [user([{"type": "image"}]), assistant()]}))
    sound = put(tmp_path, {"messages": [user([{"type": "input_audio", "input_audio": {}}]), assistant()]})
    assert "1 attachments" in said(sound) and "is not known" in said(sound)


# --- reasoning is answered, and not kept ------------------------------------------------------------------------------------------


def test_the_turn_after_reasoning_goes_on_from_before_the_answer(tmp_path):
    thought, answer = MARK * 100, MARK * 5
    path = put(
        tmp_path,
        {
            "messages": [
                user(MARK * 10),
                assistant(answer, reasoning=thought),
                user(MARK * 3),
                assistant(answer),
                user(MARK),
                assistant(MARK),
            ]
        },
    )
    table = read(path)
    assert table.prompt_tokens.tolist() == [10, 5 + 3, 1]
    assert table.output_tokens.tolist() == [105, 5, 1]
    assert table.history_tokens.tolist() == [0, 10, 23]
    assert table.dropped_tokens.tolist() == [0, 105, 0] and table.origin["reasoning_tokens"] == 100
    kept = read(path, reasoning="kept")
    assert kept.prompt_tokens.tolist() == [10, 3, 1] and kept.history_tokens.tolist() == [0, 115, 123] and kept.dropped_tokens is None
    assert read(path, picture_tokens=5).session_tokens.tolist() == [115]


@st.composite
def tables(draw):
    sizes = draw(
        st.lists(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(0, 200)), min_size=1, max_size=5), min_size=1)
    )
    rows = [(session, *turn) for session, turns in enumerate(sizes) for turn in turns]
    session, prompt, output, less = map(list, zip(*rows, strict=True))
    table = untimed(session, prompt, output)
    return rescale.replace(table, dropped_tokens=rescale.dropped_to_leave(table, np.maximum(table.history_tokens - less, 0)))


@given(tables())
def test_answers_that_are_prefilled_again_leave_every_request_as_it_is(table):
    again = prefilled_again(table, "so")
    context = table.history_tokens + table.prompt_tokens
    assert (again.history_tokens + again.prompt_tokens).tolist() == context.tolist()
    assert (again.history_tokens <= np.where(table.is_first, 0, np.append(0, context[:-1]))).all()
    assert (again.history_tokens <= table.history_tokens).all()
    assert again.output_tokens is table.output_tokens
    twice = prefilled_again(again, "so")
    assert twice.dropped_tokens.tolist() == again.dropped_tokens.tolist() and twice.prompt_tokens.tolist() == again.prompt_tokens.tolist()


@given(tables(), st.sampled_from([0.1, 0.5, 2.0, 7.3]))
def test_longer_answers_keep_the_share_that_a_turn_goes_on_from(table, factor):
    longer = rescale.scaled_output(table, factor)
    assert (longer.history_tokens >= 0).all() and longer.prompt_tokens is table.prompt_tokens
    whole = prefilled_again(table, "so")
    assert (prefilled_again(rescale.scaled_output(whole, factor), "so").history_tokens == whole.history_tokens).all()


@pytest.mark.parametrize("setting", ["workload.answers_reused=false", "workload.reasoning=dropped"])
@pytest.mark.parametrize("more", [[], ["workload.rescale.output=2"], ["workload.steady=true"]])
def test_any_workload_can_do_without_the_kv_of_answers(setting, more):
    base = ["workload.sessions=50", *more]
    table, plain = (build_workload(config.load(None, settings)) for settings in ([*base, setting], base))
    context = table.history_tokens + table.prompt_tokens
    later = np.flatnonzero(~table.is_first)
    assert (table.history_tokens[later] <= context[later - 1]).all()
    assert "prefilled again" in " ".join(origin.notes(table.origin)) and setting.split("=")[0] in " ".join(origin.notes(table.origin))
    if "workload.steady=true" not in more:
        assert context.tolist() == (plain.history_tokens + plain.prompt_tokens).tolist()


# --- dialects ---------------------------------------------------------------------------------------------------------------------

HUMAN, GPT = {"from": "human", "value": MARK}, {"from": "gpt", "value": MARK * 2}
DIALECTS = {
    "sharegpt": [
        {"conversations": [HUMAN, GPT]},
        {"conversations": [user(MARK), assistant(MARK * 2)]},
        {"items": [HUMAN, GPT]},
        {"conversations": [{"from": "human", "value": [MARK]}, GPT]},
        {"conversations": [{"from": "human", "value": None, "text": MARK}, GPT]},
        {"conversations": [GPT], "system": MARK},
        [HUMAN, GPT],
    ],
    "openai": [
        {"messages": [user(MARK), assistant(MARK * 2)]},
        {"conversation_id": "a", "conversation": [user(MARK), assistant(MARK * 2)], "model": "m"},
        {"messages": [assistant(MARK * 2)], "system": [{"type": "text", "text": MARK}]},
        [user(MARK), assistant(MARK * 2)],
    ],
}


@pytest.mark.parametrize(("name", "record"), [(name, record) for name, records in DIALECTS.items() for record in records])
@pytest.mark.parametrize("layout", ["lines", "array", "pretty"])
def test_dialects_are_one_format(tmp_path, name, record, layout):
    text = {"lines": json.dumps(record) + "\n", "array": json.dumps([record]), "pretty": json.dumps(record, indent=1)}[layout]
    if layout == "array" and isinstance(record, list):
        text = json.dumps(record) * 2
    path = tmp_path / "t"
    path.write_text(text)
    assert traces.read_trace(path).origin["format"] == name
    table = read(path)
    assert set(table.prompt_tokens.tolist()) == {1} and set(table.output_tokens.tolist()) == {2}


def test_calls_are_answers_and_their_results_prompts(tmp_path):
    path = put(
        tmp_path, {"conversations": [HUMAN, {"from": "function_call", "value": MARK * 9}, {"from": "observation", "value": MARK * 7}, GPT]}
    )
    assert read(path).prompt_tokens.tolist() == [1, 7] and read(path).output_tokens.tolist() == [9, 2]


def test_turns_of_aiperf_may_leave_the_answer_to_the_server(tmp_path):
    session = {
        "type": "multi_turn",
        "turns": [{"role": "system", "text": "Be brief."}, {"texts": ["Hello there"]}, {"text": "And?", "output_length": 7}],
    }
    table = traces.read_trace(
        put(tmp_path, session, {"session_id": "b", "turns": [{"text": "Hi", "image": "a.png"}]}), answer_tokens=90, picture_tokens=300
    )
    assert table.output_tokens.tolist() == [90, 7, 90]
    assert table.prompt_tokens[0] > 3 and table.prompt_tokens[2] == 301
    assert "2 answers have no length in the trace: 90 tokens are assumed" in " ".join(origin.warnings(table.origin))


# --- files from the field ---------------------------------------------------------------------------------------------------------

RIGHT = {
    "tools_empty.jsonl": {"turns": 18, "prefill": 56_250, "output": 7_000, "history": 0.80},
    "tools_text.jsonl": {"turns": 18, "prefill": 56_250, "output": 7_000, "history": 0.80},
    "tools_null.jsonl": {"turns": 18, "prefill": 56_250, "output": 7_000, "history": 0.80},
    "sharegpt_system_toplevel.json": {"prefill": 18_775},
    "sharegpt_system_inside.json": {"prefill": 18_775},
    "openai_tools_toplevel.jsonl": {"prefill": 18_800},
    "reasoning_content.jsonl": {"sessions": 3, "turns": 12, "prefill": 7_812, "output": 11_544, "history": 0.597},
    "reasoning_think_tags.jsonl": {"sessions": 3, "turns": 12, "prefill": 7_812, "output": 11_544, "history": 0.597},
    "openai_images.jsonl": {"sessions": 3, "pictures": 3},
    "sharegpt4v.json": {"sessions": 3, "pictures": 3},
    "sharegpt_function_call.json": {"sessions": 3, "turns": 6},
    "sharegpt_role_content.json": {"turns": 1},
    "sharegpt_items.json": {"turns": 3},
    "sharegpt_valuelist.json": {"turns": 1},
    "sharegpt_text_key.json": {"turns": 1},
    "lmsys.jsonl": {"turns": 3},
    "array_per_line.jsonl": {"sessions": 3, "turns": 6},
    "aiperf_plain.jsonl": {"sessions": 2, "turns": 3, "output": 750},
}


def old_estimate(text):
    """The tokens that the right values are counted in: a fit to LLaMA-2's counts of English chats, by classes of bytes."""
    letters, digits = (len(re.findall(pattern, text)) for pattern in ("[A-Za-z]", "[0-9]"))
    lines, others = text.count("\n"), sum(len(each.encode()) for each in text if ord(each) > 127)
    rest = len(text.encode()) - letters - digits - others - lines - text.count(" ")
    return max(round(0.245 * letters + 1.51 * digits + 0.66 * rest + 1.651 * lines + 0.533 * others), 1) if text else 0


def in_their_tokens(path):
    module = traces.known_formats()[traces.read_trace(path).origin["format"]]
    return module.read(Source(path), Reading(), old_estimate)


def figures(table):
    whole = (table.history_tokens + table.prompt_tokens).sum()
    return {
        "sessions": table.sessions,
        "turns": table.turns,
        "prefill": int(whole),
        "output": int(table.output_tokens.sum()),
        "history": float(table.history_tokens.sum() / whole),
        "pictures": table.origin.get("media", {}).get("pictures", 0),
    }


@pytest.mark.parametrize("name", RIGHT)
def test_files_from_the_field_have_their_right_values(name):
    if not (FIELD / name).exists():
        pytest.skip("the files from the field are not on this machine")
    found = figures(in_their_tokens(FIELD / name))
    for key, value in RIGHT[name].items():
        tolerance = {"prefill": 0.01, "output": 0.02, "history": 0.005}.get(key, 0)
        assert found[key] == pytest.approx(value, rel=tolerance), key


def test_a_trace_of_lengths_can_be_read_without_its_answers():
    if not FIELD.exists():
        pytest.skip("the files from the field are not on this machine")
    table = build_workload(config.load(None, [f"workload.trace={FIELD / 'bailian_thinking.jsonl'}", "workload.reasoning=dropped"]))
    assert figures(table)["history"] == pytest.approx(100 / 848) and figures(table)["prefill"] == 848


def test_requests_are_linked_alike_whatever_the_hash_seed(tmp_path):
    said = [{"role": ("user", "assistant")[place % 2], "content": f"{MARK} {place}"} for place in range(6)]
    path = put(tmp_path, *({"messages": said[:end]} for end in (1, 3, 5)), {"messages": said[1:2] + said[:1]})
    code = "import sys; from kvplan import traces; t = traces.read_trace(sys.argv[1]); print(t.session, t.prompt_tokens, t.origin)"
    seen = set()
    for seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        out = subprocess.run([sys.executable, "-c", code, str(path)], env=environment, capture_output=True, text=True, check=True)
        seen.add(out.stdout)
    assert len(seen) == 1 and "[0 0 0" in out.stdout
