"""The workload table, the ShareGPT reader, token counting, and the generators."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import traces
from kvplan.sim.rng import stream
from kvplan.traces import TraceError
from kvplan.traces.generate import sharegpt
from kvplan.traces.reading import Reading
from kvplan.traces.source import Source
from kvplan.traces.workload import untimed


def write(tmp_path, records, name="trace.json"):
    path = tmp_path / name
    path.write_text(records if isinstance(records, str) else json.dumps(records), encoding="utf-8")
    return path


def conversation(*messages):
    return {"conversations": [{"from": role, "value": text} for role, text in messages]}


# --- workload ---------------------------------------------------------------------------------------------------------------------


def test_history_and_turn_numbers():
    table = untimed([0, 0, 0, 1, 1], [1, 2, 3, 4, 5], [10, 20, 30, 40, 50])
    assert table.history_tokens.tolist() == [0, 11, 33, 0, 44]
    assert table.turn.tolist() == [0, 1, 2, 0, 1]
    assert table.session_tokens.tolist() == [66, 99]
    assert not table.arrivals_known and not table.gaps_known


@pytest.mark.parametrize(
    ("session", "prompt", "output"),
    [([], [], []), ([0, 2], [1, 1], [1, 1]), ([1], [1], [1]), ([0], [0], [1]), ([0], [1], [-1]), ([0], [1], [200_000_000])],
)
def test_broken_tables_are_refused(session, prompt, output):
    with pytest.raises(TraceError):
        untimed(session, prompt, output)


@pytest.mark.parametrize(("arrival", "gap"), [(-1.0, 0.0), (np.inf, 0.0), (0.0, -1.0), (0.0, np.inf)])
def test_broken_times_are_refused(arrival, gap):
    with pytest.raises(TraceError):
        untimed([0, 0], [1, 1], [1, 1]).with_times([arrival], np.array([0.0, gap]))


# --- the ShareGPT reader ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", traces.known_formats())
def test_every_format_reads_its_own_example(tmp_path, name):
    module = traces.known_formats()[name]
    path = write(tmp_path, module.EXAMPLE)
    assert module.detect(Source(path).head())
    assert traces.read_trace(path).turns >= 1
    assert traces.read_trace(path, name).origin["format"] == name


def test_roles_chunks_and_empty_turns(tmp_path):
    records = [
        conversation(("system", "Be brief."), ("human", "One"), ("gpt", "Two three"), ("user", "Four"), ("chatgpt", "Five")),
        conversation(("gpt", "left out"), ("human", "six"), ("gpt", "seven")),
        conversation(("human", "a"), ("gpt", ""), ("human", "b"), ("gpt", "c"), ("gpt", "d"), ("human", "unanswered")),
        conversation(("human", "nobody answers")),
        conversation(),
    ]
    table = traces.registry.known_formats()["sharegpt"].read(Source(write(tmp_path, records)), Reading(), len)
    assert table.session.tolist() == [0, 0, 1, 2]
    assert table.prompt_tokens.tolist() == [12, 4, 3, 2]
    assert table.output_tokens.tolist() == [9, 4, 5, 2]
    assert table.origin["left_out"] == {"answers_without_prompt": 1, "prompts_without_answer": 2, "conversations_without_answer": 2}


GOOD = [conversation(("human", "hello there"), ("gpt", "hi"))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (json.dumps(GOOD)[:-5], "truncated"),
        (json.dumps(GOOD) + "x", "not readable after record 1"),
        ('[{"id": 1, "conversations": 7}]', "record 1"),
        ('[{"id": 1, "conversations": [7]}]', "message 0: is not an object"),
        ('[{"conversations": [{"from": "alien", "value": "x"}]}]', "unknown role 'alien'"),
        ('[{"conversations": [{"from": "gpt", "value": 7}]}]', "message 0: `value` is 7, not text"),
        ('[{"conversations": [{"from": "gpt", "value": null}]}]', "no turns"),
        ('[{"conversations": [{"from": ["human"], "value": "x"}]}]', "message 0: the role is not text"),
        ('[{"conversations": [{"from": {}, "value": "x"}]}]', "message 0: the role is not text"),
        ('[{"conversations": []}]', "no turns"),
        ("", "empty"),
        ("   \n", "empty"),
        ('{"conversations": []}', "no turns"),
        ("hello", "not recognised"),
    ],
)
def test_bad_files_get_one_clear_message(tmp_path, text, reason):
    path = write(tmp_path, text)
    with pytest.raises(TraceError, match=reason) as caught:
        traces.read_trace(path)
    assert str(path) in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(TraceError, match="cannot read"):
        traces.read_trace(tmp_path / "none.json")
    with pytest.raises(TraceError, match="no trace files"):
        traces.read_trace(tmp_path)
    with pytest.raises(TraceError, match="unknown trace format 'sharegtp': did you mean 'sharegpt'"):
        traces.read_trace(write(tmp_path, GOOD), "sharegtp")


@given(st.data())
def test_the_reader_survives_mutated_files(tmp_path_factory, data):
    original = bytearray(json.dumps(GOOD * 3).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(original) - 1))
        original[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "t.json"
    path.write_bytes(bytes(original)[: data.draw(st.integers(0, len(original)))])
    try:
        assert traces.read_trace(path, "sharegpt").turns >= 1
    except TraceError as error:
        assert str(error)


def test_the_real_sample(sharegpt_sample):
    table = traces.read_trace(sharegpt_sample)
    assert (table.sessions, table.turns) == (291, 1086)


# --- generators -------------------------------------------------------------------------------------------------------------------


def test_generated_sessions_are_the_published_population():
    """5.6 turns, 69 % multi-turn, 41 % over 2K and 23 % over 4K tokens when cut at 40 turns and 32K tokens."""
    table = sharegpt.generate(40_000, stream(1, "lengths"))
    turns = np.diff(table.first_turn)
    assert turns.mean() == pytest.approx(5.65, abs=0.12)
    assert (turns > 1).mean() == pytest.approx(0.69, abs=0.01)
    assert (table.session_tokens > 2048).mean() == pytest.approx(0.41, abs=0.02)
    assert (table.session_tokens > 4096).mean() == pytest.approx(0.23, abs=0.015)
    assert turns.max() <= 40 and table.session_tokens.max() <= 32_768


def test_generated_lengths_keep_the_published_marginals():
    table = sharegpt.generate(20_000, stream(2, "lengths"), max_turns=10**6, max_tokens=10**9, length_correlation=0.5)
    for column, name in ((table.prompt_tokens, "human_tokens"), (table.output_tokens, "gpt_tokens")):
        cdf, values = sharegpt.quantiles()[name]
        for share in (0.1, 0.25, 0.5, 0.75, 0.9):
            assert np.quantile(column, share) == pytest.approx(np.interp(share, cdf, values), rel=0.06, abs=1)


def test_impossible_limits_are_refused():
    with pytest.raises(TraceError, match="raise the limits"):
        sharegpt.generate(10, stream(1, "lengths"), max_tokens=2)


@pytest.mark.parametrize("sessions", [1, 7, 1000])
def test_as_many_sessions_as_asked_for(sessions):
    assert sharegpt.generate(sessions, stream(1, "lengths")).sessions == sessions


def test_streams_are_independent_of_each_other():
    assert stream(1, "a").random() != stream(1, "b").random() != stream(2, "b").random()
    assert stream(1, "a").random() == stream(1, "a").random()
