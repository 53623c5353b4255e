"""What a log of lengths holds: whole requests or increments, in which unit, in blocks of which size, and answers of no tokens; decided from
evidence, said, and settled by the user's word."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import traces
from kvplan.sim.config import load
from kvplan.sim.simulation import simulate
from kvplan.traces import TraceError, origin, rescale
from kvplan.traces.formats import canonical
from kvplan.validate.checks import agreement

FIELD = Path(__file__).resolve().parents[2] / "shared" / "field"
DATA = FIELD.parent / "data"


def put(tmp_path, rows, name="trace.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(tmp_path, rows, **settings):
    return traces.read_trace(put(tmp_path, rows), **settings)


def prompts(table):
    """Tokens of all requests with their histories."""
    return int((table.history_tokens + table.prompt_tokens).sum())


# --- increments or whole requests -------------------------------------------------------------------------------------------------


def population(seed, sessions=40, turns=6):
    """(session, start in s, [(new prompt, answer), …]) of sessions that differ."""
    rng = np.random.default_rng(seed)
    for session in range(sessions):
        count = int(rng.integers(2, turns + 1))
        yield (
            session,
            float(session * 40),
            list(zip(rng.integers(600, 5000, count).tolist(), rng.integers(20, 400, count).tolist(), strict=True)),
        )


def written(rows, whole, hashed, unit_s, every_s=60.0, block=512):
    """The population as Mooncake rows with sessions."""
    found, fresh = [], 10**6
    for session, start, turns in rows:
        context, ids = 0, []
        for index, (new, answer) in enumerate(turns):
            length = context + new if whole else new
            full = ids[: context // block]
            ids = full + list(range(fresh, fresh + -(-(context + new) // block) - len(full)))
            fresh += 1000
            row = {
                "session_id": f"s{session}",
                "timestamp": (start + every_s * index) / unit_s,
                "input_length": length,
                "output_length": answer,
            }
            if hashed:
                row["hash_ids"] = ids if whole else list(range(fresh, fresh + -(-new // block)))
                fresh += 1000
            found.append(row)
            context += new + answer
    return sorted(found, key=lambda row: row["timestamp"])


def columns(table):
    """What a table says by session, whatever order sessions came in."""
    order = np.argsort(table.arrival_s[table.first_turn[:-1]], kind="stable")
    same = table.select(order)
    return [getattr(same, name).tolist() for name in ("session", "prompt_tokens", "output_tokens", "history_tokens", "arrival_s")]


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_one_population_written_in_any_way_is_one_workload(tmp_path_factory, seed):
    rows, tmp_path = list(population(seed)), tmp_path_factory.mktemp("population")
    plain = columns(read(tmp_path, written(rows, False, False, 1e-3)))
    assert plain[1] == [new for _, _, turns in rows for new, _ in turns]
    for whole in (True, False):
        for hashed in (True, False):
            for unit_s, times in ((1e-3, None), (1e-3, "ms"), (1.0, "s")):
                table = read(tmp_path, written(rows, whole, hashed, unit_s), times=times)
                assert columns(table) == plain, (whole, hashed, times)
                assert "doubtful_records" not in table.origin and table.origin["records"]


def session_rows(lengths, answers, **more):
    return [
        {"session_id": "a", "timestamp": 60_000 * index, "input_length": length, "output_length": answer, **more}
        for index, (length, answer) in enumerate(zip(lengths, answers, strict=True))
    ]


def test_where_nothing_tells_there_is_a_doubt_and_a_setting_that_ends_it(tmp_path):
    rows = session_rows([700, 1000, 1300], [200, 200, 200])
    table = read(tmp_path, rows)
    assert table.prompt_tokens.tolist() == [700, 1000, 1300]
    assert any("workload.records" in warning for warning in origin.warnings(table.origin))
    whole = read(tmp_path, rows, records="requests")
    assert whole.prompt_tokens.tolist() == [700, 100, 100]
    new = read(tmp_path, rows, records="increments")
    assert new.prompt_tokens.tolist() == [700, 1000, 1300]
    for said in (whole, new):
        assert "doubtful_records" not in said.origin and "as workload.records says" in said.origin["records"]


def test_hashes_tell_what_lengths_cannot(tmp_path):
    rows = session_rows([700, 1000, 1300], [200, 200, 200])
    for row, whole, new in zip(rows, ([1, 2], [1, 3], [1, 3, 4]), ([1, 2], [3, 4], [5, 6, 7]), strict=True):
        row["whole"], row["new"] = whole, new
    whole, new = ([row | {"hash_ids": row[name]} for row in rows] for name in ("whole", "new"))
    assert read(tmp_path, whole).prompt_tokens.tolist() == [700, 100, 100]
    found = read(tmp_path, new)
    assert found.prompt_tokens.tolist() == [700, 1000, 1300] and found.blocks is None
    for table in (read(tmp_path, whole), found):
        assert "doubtful_records" not in table.origin and "hashes" in table.origin["records"]


BURST = "Timestamp,Session ID,Request tokens,Response tokens\n"


def test_a_log_that_says_nothing_of_itself_is_doubted_when_it_is_small(tmp_path):
    def burst(rows):
        path = tmp_path / "burst.csv"
        path.write_text(BURST + "".join(f"{60 * i},{s},{length},50\n" for i, (s, length) in enumerate(rows)))
        return traces.read_trace(path)

    assert "doubtful_records" in burst([(1, 100), (1, 90)]).origin
    rng = np.random.default_rng(1)
    many = burst([(i // 4, int(n)) for i, n in enumerate(rng.integers(10, 900, 400))])
    assert "doubtful_records" not in many.origin and many.origin["records"].startswith("what a request adds")
    whole = burst([(i // 4, int(n) + 900 * (i % 4)) for i, n in enumerate(rng.integers(10, 900, 400))])
    assert whole.origin["records"].startswith("requests with all")


def test_tables_of_new_tokens_that_look_whole_are_doubted_and_can_be_read_so(tmp_path):
    lengths = [(s, int(n)) for s in range(30) for n in np.cumsum(np.random.default_rng(s).integers(100, 3000, 4) + 20)]
    path = tmp_path / "t.csv"
    path.write_text("session,prompt_tokens,output_tokens\n" + "".join(f"{s},{n},10\n" for s, n in lengths))
    turns = [{"session_id": f"s{s}", "turns": [{"input_length": n, "output_length": 10} for t, n in lengths if t == s]} for s in range(30)]
    for file in (path, put(tmp_path, turns)):
        table, whole = traces.read_trace(file), traces.read_trace(file, records="requests")
        assert "they may be requests with all" in table.origin["doubtful_records"]
        assert table.prompt_tokens.tolist() == [n for _, n in lengths]
        assert prompts(whole) == sum(n for _, n in lengths) and "doubtful_records" not in whole.origin


def test_records_of_lengths_are_no_conversations(tmp_path):
    with pytest.raises(TraceError, match=r"workload\.records=requests or increments"):
        read(tmp_path, session_rows([100, 200], [5, 5]), records="conversations")
    turns = [{"session_id": "s", "turns": [{"input_length": 9, "output_length": 5}]}]
    assert read(tmp_path, turns, records="conversations").turns == 1


# --- times ------------------------------------------------------------------------------------------------------------------------


def test_seconds_in_a_small_file_of_milliseconds_are_doubted_by_the_setting_that_says_so(tmp_path):
    rows = [{"timestamp": 0.8 * i, "input_length": 2000, "output_length": 150} for i in range(90)]
    table = read(tmp_path, rows)
    assert any("workload.times=s or ms" in warning for warning in origin.warnings(table.origin))
    seconds = read(tmp_path, rows, times="s")
    assert "doubtful_times" not in seconds.origin and seconds.arrival_s[-1] == pytest.approx(0.8 * 89)
    assert "doubtful_times" not in read(tmp_path, rows, times="exact").origin


@pytest.mark.parametrize("count", [3, 10_000])
def test_all_at_one_instant_is_let_through_when_the_user_says_so(tmp_path, count):
    rows = [{"session_id": i // 2, "timestamp": 0, "input_length": 2000 + i % 2, "output_length": 1500} for i in range(2 * count)]
    with pytest.raises(TraceError, match=r"workload\.times=exact takes the times as they are"):
        read(tmp_path, rows)
    table = read(tmp_path, rows, times="exact")
    assert table.turns == 2 * count and not table.arrival_s.any() and "doubtful_times" not in table.origin


def test_a_unit_that_the_user_names_is_doubted_at_most(tmp_path):
    rows = session_rows([100, 200, 300, 400, 500], [90] * 5)
    wide = [row | {"timestamp": 1000 * row["timestamp"]} for row in rows]
    assert "as workload.times says" in read(tmp_path, wide, times="s").origin["doubtful_times"]
    assert read(tmp_path, wide, times="exact").arrival_s[-1] == pytest.approx(4 * 60_000)
    path = tmp_path / "a.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,5,0\n")
    with pytest.raises(TraceError, match="its times are dates"):
        traces.read_trace(path, times="ms")
    assert traces.read_trace(path, times="exact").output_tokens.tolist() == [0]


# --- block sizes ------------------------------------------------------------------------------------------------------------------


@given(size=st.sampled_from([16, 64, 128, 1024]), said=st.booleans(), seed=st.integers(0, 1000))
def test_any_size_of_blocks_is_found_or_said(tmp_path_factory, size, said, seed):
    tmp_path, rng = tmp_path_factory.mktemp("blocks"), np.random.default_rng(seed)
    lengths = [5 * size + 7, *rng.integers(1, 9 * size, 9).tolist()]
    rows = [
        {"timestamp": 60_000 * i, "input_length": n, "output_length": 9, "hash_ids": [100 * i + k for k in range(-(-n // size))]}
        | ({"block_size": size} if said else {})
        for i, n in enumerate(lengths)
    ]
    table = read(tmp_path, rows)
    assert table.blocks.block_tokens == size
    assert table.origin["block_tokens"].startswith(f"{size:,} tokens")
    assert read(tmp_path, rows, block_tokens=size).blocks.block_tokens == size
    with pytest.raises(TraceError, match=r"record 1: 6 blocks .* as workload\.block_tokens says"):
        read(tmp_path, rows, block_tokens=2 * size)


def test_what_contradicts_the_size_is_refused_by_its_record(tmp_path):
    rows = [{"timestamp": 0, "input_length": 130, "output_length": 9, "hash_ids": [1, 2, 3], "block_size": 64}]
    with pytest.raises(TraceError, match="record 2: `block_size` is 128; blocks are of 64 tokens as `block_size` says"):
        read(tmp_path, [*rows, rows[0] | {"timestamp": 9, "block_size": 128}])


# --- answers of no tokens ---------------------------------------------------------------------------------------------------------


def zeroed(table, every=3):
    output = np.array(table.output_tokens)
    output[::every] = 0
    return replace(table, output_tokens=output, dropped_tokens=None)


@pytest.mark.parametrize("family", agreement.FAMILIES)
@pytest.mark.parametrize(("every", "seed"), [(1, 2), (3, 3)])
def test_engine_and_reference_agree_on_answers_of_no_tokens(family, every, seed):
    config, table = agreement.random_case(family, 11 if "batching" in family else seed)
    found, _ = agreement.compare(config, zeroed(table, every))
    assert not found


def test_an_answer_of_no_tokens_ends_with_its_prefill(workload, small):
    table = workload([[(300, 0), (200, 20), (50, 0)]], gap_s=1.0)
    found = simulate(small("store.load=always"), table)
    col = found.columns
    assert col["first_token_s"][[0, 2]].tolist() == col["done_s"][[0, 2]].tolist()
    assert col["history_tokens"].tolist() == [0, 300, 520] and col["cached_tokens"].tolist() == [0, 300, 520]
    assert found.summary["output_tokens"] == 20


def test_a_trace_without_answers_has_no_price_per_answer(workload, small):
    summary = simulate(small(), workload([[(300, 0), (200, 0)]], gap_s=1.0)).summary
    assert summary["output_tokens_per_s"] == 0 and summary["tpot_s"]["mean"] is None
    assert summary["cost_usd"]["per_million_output_tokens"] is None and summary["cost_usd"]["total"] > 0


# --- subagents --------------------------------------------------------------------------------------------------------------------


def request(t, prompt, output, ids, api=1.0, **more):
    return {"t": t, "type": "n", "in": prompt, "out": output, "hash_ids": ids, "api_time": api, **more}


def coding(requests, name="w1"):
    return {"id": name, "block_size": 64, "hash_id_scope": "local", "requests": requests}


def subagent(t, requests, duration_ms=None, **more):
    return {"t": t, "type": "subagent", "agent_id": "a", "duration_ms": duration_ms, "requests": requests, **more}


def test_subagents_are_sessions_that_start_with_their_parent(tmp_path):
    nested = subagent(8.0, [request(0.0, 64, 5, [71], api=3.0)])  # 5.0 to 8.0 of its parent
    inner = [request(0.0, 128, 10, [51, 52]), nested, request(12.0, 192, 10, [51, 52, 53], api=2.0)]
    record = coding([
        request(0.0, 640, 20, list(range(10)), api=4.0),
        subagent(30.0, inner, duration_ms=25_000),
        subagent(31.0, [request(0.0, 64, 5, [61], api=6.0)]),  # null: 6 s, so from 25.0
        request(34.0, 832, 30, list(range(13)), api=5.0),
    ])  # fmt: skip
    table = read(tmp_path, [record, coding([request(0.0, 64, 1, [1])], "w2")])
    assert table.sessions == 5 and table.turns == 7
    assert table.families.root.tolist() == [0, 0, 0, 0, 4]
    assert table.families.after_s.tolist() == [0, 5, 10, 25, 0]
    assert table.gap_s.tolist() == [0, 30, 0, 11, 0, 0, 0]
    assert prompts(table) == 640 + 832 + 128 + 192 + 64 + 64 + 64
    timed = table.with_arrivals(np.array([100.0, 200.0]))
    assert timed.arrival_s[timed.is_first].tolist() == [100, 105, 110, 125, 200]
    faster = rescale.scaled_rate(timed, 2.0)
    assert faster.arrival_s[faster.is_first].tolist() == [50, 55, 60, 75, 100]
    twice = rescale.resampled(table, 3, np.random.default_rng(0))
    assert len(twice.roots) == 3 and twice.with_arrivals(np.arange(3.0)).arrivals_known
    for name in ("t.csv", "t.parquet"):
        canonical.write_canonical(table, tmp_path / name)
        again = traces.read_trace(tmp_path / name)
        assert again.families.root.tolist() == [0, 0, 0, 0, 4] and again.families.after_s.tolist() == [0, 5, 10, 25, 0]


def test_think_times_that_leave_no_time_for_answers_tell_nothing_of_the_unit(tmp_path):
    requests = [request(10.3 * i, 64, 50, [i], api=None, think_time=0.0 if i == 0 else 10.3) for i in range(6)]
    assert read(tmp_path, [coding(requests)]).gap_s.tolist() == [0, *[10.3] * 5]


def test_a_subagent_without_requests_is_left_out_with_its_tokens(tmp_path):
    lost = {"t": 9.0, "type": "subagent", "agent_id": "x", "total_tokens": 900}
    table = read(tmp_path, [coding([request(0.0, 64, 5, [1]), lost])])
    assert table.origin["left_out"] == {"subagents_without_requests": 1, "tokens_of_subagents_without_requests": 900}


def test_subagents_are_replayed_after_their_parents(tmp_path):
    inner = [request(0.0, 320, 40, [101, 102, 103, 104, 105])]
    record = coding(
        [request(0.0, 640, 20, list(range(10))), subagent(30.0, inner, duration_ms=25_000), request(34.0, 832, 30, list(range(13)))]
    )
    path = put(tmp_path, [record | {"id": f"w{i}"} for i in range(4)])
    found = simulate(load("default", [f"workload.trace={path}"]))
    first = found.columns["arrival_s"][found.workload.is_first].reshape(4, 2)
    assert np.allclose(first[:, 1] - first[:, 0], 5.0) and np.ptp(first[:, 0]) > 0


# --- several files ----------------------------------------------------------------------------------------------------------------


def test_files_that_overlap_in_time_are_one_log(tmp_path):
    rows = [
        {
            "timestamp": 3000.0 * i,
            "input_length": 1100 + 600 * (i // 2),
            "output_length": 9,
            "hash_ids": [i % 2 * 50 + k for k in range(3 + i // 2)],
        }
        for i in range(8)
    ]
    for row in rows:
        row["hash_ids"] = row["hash_ids"][: -(-row["input_length"] // 512)]
    one = traces.read_trace(put(tmp_path, rows))
    folder = tmp_path / "pods"
    folder.mkdir()
    put(folder, rows[::2], "a.jsonl"), put(folder, rows[1::2], "b.jsonl")
    both = traces.read_trace(folder)
    assert columns(both) == columns(one) and "overlap in time" in both.origin["files"]
    newest_first = traces.read_trace(put(tmp_path, rows[::-1], "newest.jsonl"))
    assert columns(newest_first) == columns(one) and newest_first.origin["order"] == "of time"


@pytest.mark.parametrize("hashed", [False, True])
@pytest.mark.parametrize(
    ("said", "stamp"),
    [
        ("s since 1970", lambda at: 1.76e9 + at),
        ("", lambda at: round(1.76e12 + 1e3 * at)),
        ("us since 1970", lambda at: round(1.76e15 + 1e6 * at)),
        ("ns since 1970", lambda at: round(1.76e18 + 1e9 * at)),
        ("dates", lambda at: f"2026-05-01T10:{int(at) // 60:02}:{at % 60:06.3f}Z"),
    ],
)
def test_dates_and_unix_times_tell_their_unit(tmp_path, hashed, said, stamp):
    """Mooncake's rows count milliseconds from a start; what others write in that shape has whatever clock they have."""
    more = {"hash_ids": [1, 2]} if hashed else {}
    rows = [{"timestamp": stamp(7.5 * i), "input_length": 700 + i, "output_length": 90, **more} for i in range(9)]
    table = traces.read_trace(put(tmp_path, rows))
    assert sorted(table.arrival_s) == pytest.approx([7.5 * i for i in range(9)], abs=1e-3)
    chats = [{**row, "hash_ids": [i], "chat_id": i, "parent_chat_id": -1, "turn": 1, "type": "text"} for i, row in enumerate(rows)]
    turns = [{"session_id": str(i), "turns": [{k: row[k] for k in row if k != "hash_ids"}]} for i, row in enumerate(rows)]
    for name, other in (("bailian", chats), ("aiperf", turns)):
        same = traces.read_trace(put(tmp_path, other, f"{name}.jsonl"), block_tokens=1024)
        assert same.origin["format"] == name and sorted(same.arrival_s) == pytest.approx([7.5 * i for i in range(9)], abs=1e-3)
    assert said in table.origin.get("times", "") and bool(said) == ("times" in table.origin) and "doubtful_times" not in table.origin


def test_a_session_may_go_on_in_another_file(tmp_path):
    rows = session_rows([700, 100, 1300, 200], [20] * 4)
    put(tmp_path, [rows[1], rows[3]], "a.jsonl"), put(tmp_path, [rows[0], rows[2]], "b.jsonl")
    assert traces.read_trace(tmp_path).prompt_tokens.tolist() == [700, 100, 1300, 200]


# --- files as people bring them ---------------------------------------------------------------------------------------------------

SHAPES = {  # sessions, turns, prompt tokens of all requests
    "mooncake_sessions_incremental.jsonl": (6, 30, 111_000),
    "mooncake_sessions_incremental_nohash.jsonl": (6, 30, 111_000),
    "mooncake_delta_11060.jsonl": (1, 2, 4190 + 5374),
    "mooncake_seconds_nohash.jsonl": (90, 90, 180_000),
    "weka_out_zero.json": (1, 3, 576),
    "bailian_zero.jsonl": (2, 2, 60),
    "weka_subagent_small.json": (2, 4, 2240),
    "weka_block16.json": (1, 2, 1472),
    "weka_jsonl.jsonl": (4, 8, 5888),
    "lmcache_chunk128.jsonl": (5, 5, 3000),
    "mooncake_64.jsonl": (1, 2, 330),
    "kvcache_sim.jsonl": (1, 2, 320),
    "lmcache_two_pods": (10, 20, 25_600),
}


@pytest.mark.parametrize("name", SHAPES)
def test_files_from_the_field_hold_what_they_hold(name):
    if not FIELD.exists():
        pytest.skip("the files are not on this machine")
    table = traces.read_trace(FIELD / name)
    assert (table.sessions, table.turns, prompts(table)) == SHAPES[name]


def test_sessions_of_coding_agents_hold_what_their_totals_say():
    files = sorted((DATA / "agentic_coding").glob("*.json"))
    if not files:
        pytest.skip("the sessions are not on this machine")
    assert traces.read_trace(DATA / "agentic_coding").sessions >= len(files)
    for file in files:
        table, totals = traces.read_trace(file), json.loads(file.read_text())["totals"]
        read_of = {"combined_tokens": np.ones(table.turns, bool), "parent_tokens": np.isin(table.session, table.roots)}
        for name, rows in read_of.items():
            assert int((table.history_tokens + table.prompt_tokens)[rows].sum()) == totals[name]["input"]
            assert int(table.output_tokens[rows].sum()) == totals[name]["output"]
        assert table.sessions - len(table.roots) == totals["subagent_count"]
