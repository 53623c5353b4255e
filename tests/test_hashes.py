"""Block hashes: their identity, sessions found by them against populations that are known, and what a shared cache of blocks hits."""

import json
import random
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan import traces
from kvplan.sim.cli.app import app
from kvplan.sim.report.trace import words
from kvplan.traces import TraceError, origin
from kvplan.traces.blockreuse import block_reuse
from kvplan.traces.build import Requests
from kvplan.traces.chains import Log, chains, sessions
from kvplan.traces.describe import describe
from kvplan.traces.hashes import NAMESPACES, OWNERS, identity, is_hash, within
from kvplan.traces.prefixes import prefixes
from kvplan.traces.workload import Blocks

BLOCK = 16


def log(tmp_path, *records):
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return traces.read_trace(path)


def mooncake(at_s, blocks, output=10, length=None, **more):
    return {"timestamp": 1000 * at_s, "input_length": length or 512 * len(blocks), "output_length": output, "hash_ids": blocks, **more}


# --- identity ---------------------------------------------------------------------------------------------------------------------

ANY_HASH = st.one_of(
    st.integers(), st.integers(-(2**64), 2**64), st.integers(0, 2**256), st.text(min_size=1), st.integers(0, 2**256).map(hex)
)


@given(st.lists(ANY_HASH, unique=True, max_size=30))
def test_different_hashes_stay_different_and_fit_64_bits(values):
    found = [identity(value) for value in values]
    assert len(set(found)) == len({value if isinstance(value, str) else str(value) for value in values})
    assert all(-(2**63) <= value < 2**63 for value in found)


@given(st.integers(0, 2**256 - 1), st.integers(0, 255), st.sampled_from([int, hex, str]))
def test_any_bit_makes_another_block(value, bit, spelling):
    assert identity(spelling(value)) != identity(spelling(value ^ (1 << bit)))


def test_small_hashes_are_themselves_and_others_are_the_same_in_every_process():
    assert [identity(value) for value in (0, -1, 2**63 - 1, -(2**63))] == [0, -1, 2**63 - 1, -(2**63)]
    code = "from kvplan.traces.hashes import identity; print(identity(2**63), identity('0xab'))"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert [int(text) for text in again] == [identity(2**63), identity("0xab")]
    assert not any(is_hash(value) for value in (True, None, 1.5, "", [1]))


@pytest.mark.parametrize("bit", [9, 31, 32, 40, 52, 53, 61, 62, 63, 64, 200])
@pytest.mark.parametrize("spelled", [int, hex])
def test_groups_apart_by_an_upper_bit_are_apart(tmp_path, bit, spelled):
    records = [mooncake(30 * i, [spelled((i % 2 << bit) + 4 * (i // 2) + depth) for depth in range(3)], 200) for i in range(40)]
    table = log(tmp_path, *records)
    assert table.sessions == 40 and not table.history_tokens.any()
    assert len(np.unique(table.blocks.ids)) == 120


@pytest.mark.parametrize("printed", [{}, {"indent": 1}])
@pytest.mark.parametrize("bit", [62, 63, 64, 200])
def test_hashes_of_any_size_are_read_however_the_file_is_printed(tmp_path, bit, printed):
    records = [mooncake(30 * i, [(i % 2 << bit) + i // 2]) for i in range(4)]
    whole = json.dumps(records, **printed), "\n".join(json.dumps(record, **printed) for record in records)
    for index, text in enumerate(whole):
        (tmp_path / f"{index}.json").write_text(text)
        table = traces.read_trace(tmp_path / f"{index}.json")
        assert len(np.unique(table.blocks.ids)) == table.sessions == 4


@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True), st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=5))
def test_a_namespace_keeps_blocks_apart_and_their_order(blocks, names):
    held = [within(blocks, (("model", name),)) for name in names] + [within(blocks, ())]
    assert all(len(row) == len(blocks) and -(2**63) <= min(row, default=0) <= max(row, default=0) < 2**63 for row in held)
    assert len({block for row in held for block in row}) == len(blocks) * len(held)


def _lmcache(at_s, chunks, **more):
    return {"timestamp": at_s, "chunk_size": 256, "seq_len": 256 * len(chunks), "chunk_hashes": chunks, **more}


def _bailian(at_s, chunks, **more):
    return {"chat_id": at_s + 1, "parent_chat_id": -1, "timestamp": at_s, "input_length": 16 * len(chunks), "output_length": 10,
            "type": "text", "turn": 1, "hash_ids": chunks, **more}  # fmt: skip


@pytest.mark.parametrize("record", [mooncake, _lmcache, _bailian])
@pytest.mark.parametrize("field", NAMESPACES)
def test_what_separates_hashes_separates_sessions_and_sharing(tmp_path, record, field):
    """One conversation of two requests, and the same again in each of three namespaces, one of which is none."""
    values = ("a", "b", None)
    rows = [record(9 * i + 3 * turn, list(range(2 + turn)), **{field: value}) for turn in range(2) for i, value in enumerate(values)]
    rows.sort(key=lambda row: row["timestamp"])
    table = log(tmp_path, *rows)
    found = describe(table, 1000, 10**6)["blocks"]
    assert found["distinct"] == 9 and found["hit_rate"] == pytest.approx(2 / 5)
    assert table.sessions == (3 if record is not _bailian else 6)
    assert table.origin["blocks_apart_by"] == {field: 3}
    assert f"block hashes are kept apart by {field} (3 values)" in origin.notes(table.origin)


def test_one_value_for_all_separates_nothing(tmp_path):
    plain, named = (log(tmp_path, *(mooncake(9 * i, [0, 1, 2, 3][: 2 + i], **more) for i in range(3))) for more in ({}, {"model": "m"}))
    assert plain.sessions == named.sessions == 1 and "blocks_apart_by" not in named.origin


@pytest.mark.parametrize("field", OWNERS)
def test_users_share_prompts_but_no_sessions(tmp_path, field):
    table = log(tmp_path, *(mooncake(9 * i, [1, 2, 3][: 2 + i], **{field: f"u{i}"}) for i in range(2)))
    assert table.sessions == 2 and table.origin["sessions_apart_by"] == {field: 2}
    assert describe(table, 1000, 10**6)["blocks"]["hit_rate"] == pytest.approx(2 / 5)


@pytest.mark.parametrize(("scope", "hit_rate"), [({}, 0), ({"hash_id_scope": "local"}, 0), ({"hash_id_scope": "global"}, 1 / 2)])
def test_local_hashes_mean_something_within_their_session_only(tmp_path, scope, hit_rate):
    request = {"t": 0, "in": 128, "out": 9, "hash_ids": [1, 2], "think_time": 0}
    table = log(tmp_path, *({"id": str(i), "block_size": 64, "requests": [request], **scope} for i in range(2)))
    assert describe(table.with_arrivals(np.array([0.0, 5.0])), 1000, 10**6)["blocks"]["hit_rate"] == hit_rate
    assert table.origin.get("blocks_apart_by") == (None if hit_rate else {"session": 2})


@pytest.mark.parametrize(("hash_id", "shown"), [(1.5, r"1\.5"), (True, "True")])
def test_a_hash_that_is_none_is_refused(tmp_path, hash_id, shown):
    with pytest.raises(TraceError, match=rf"record 2: `hash_ids` holds {shown}, which is no block hash"):
        log(tmp_path, mooncake(0, [1]), mooncake(9, [hash_id]))


# --- prefixes ---------------------------------------------------------------------------------------------------------------------

ROWS = st.lists(st.lists(st.integers(0, 2), max_size=6), min_size=1, max_size=30)


def tree_of(rows):
    counts = np.array([len(row) for row in rows])
    return prefixes(np.array([block for row in rows for block in row], np.int64), np.cumsum(counts) - counts, counts)


@given(ROWS)
def test_prefixes_are_rows_of_hashes_from_the_start(rows):
    """Independent: prefixes as tuples. Hashes come again at other places, where they mean other prefixes."""
    tree = tree_of(rows)
    begun: dict[tuple, int] = {}
    names: dict[int, tuple] = {}
    for request, row in enumerate(rows):
        held = [tuple(row[: depth + 1]) for depth in range(len(row))]
        assert tree.matched[request] == sum(prefix in begun for prefix in held)
        for prefix, number in zip(held, tree.node[tree.first[request] :].tolist(), strict=False):
            assert names.setdefault(number, prefix) == prefix and tree.beginner[number] == begun.setdefault(prefix, request)
    assert len(tree.beginner) == len(begun)


# --- sessions ---------------------------------------------------------------------------------------------------------------------


class Population:
    """Sessions that are known: each turn adds some blocks of text, an answer and a question, to a context that may begin with a prompt
    that several sessions share."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rows: list[tuple[float, list, int, object]] = []
        self._text = 0

    def text(self, low: int, high: int) -> list:
        """Some tokens that are nowhere else."""
        self._text += 1
        return [(self._text, place) for place in range(self.rng.randint(low, high))]

    def conversation(self, prompt: list, turns: int, first: tuple[int, int] = (2 * BLOCK, 6 * BLOCK), fork: bool = False) -> None:
        before, context, name, at = prompt, prompt + self.text(*first), object(), self.rng.random() * 3600
        for turn in range(turns):
            answer = self.text(BLOCK, 4 * BLOCK)
            self.rows.append((at, context, len(answer), name))
            if fork and turn:
                self.rows.append((at + 0.5, before + self.text(BLOCK, 4 * BLOCK), 9, object()))
            before = context + answer
            context, at = before + self.text(BLOCK, 4 * BLOCK), at + self.rng.uniform(1, 300)

    def found(self) -> tuple[list, list, dict]:
        """(true session, found session, evidence) per request, in order of time."""
        self.rows.sort(key=lambda row: row[0])
        blocks = [[hash(tuple(text[: BLOCK * (i + 1)])) for i in range(len(text) // BLOCK)] for _, text, _, _ in self.rows]
        known = Log([len(row[1]) for row in self.rows], [row[2] for row in self.rows], [row[0] for row in self.rows], [""] * len(self.rows))
        before, evidence = chains(tree_of(blocks), known)
        numbers: dict[object, int] = {}
        return [numbers.setdefault(row[3], len(numbers)) for row in self.rows], sessions(before).tolist(), evidence


@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 6 * BLOCK), st.integers(2, 8)), min_size=1, max_size=4),
    st.integers(0, 6),
    st.booleans(),
)
def test_exactly_the_sessions_of_a_population_are_found(seed, prompts, alone, fork):
    """Applications with a prompt of any length, each used by several conversations; some without; and forks, which begin anew."""
    population = Population(seed)
    for length, users in prompts:
        prompt = population.text(length, length)
        for _ in range(users):
            population.conversation(prompt, population.rng.randint(1, 6), fork=fork)
    for _ in range(alone):
        population.conversation([], population.rng.randint(1, 6), fork=fork)
    true, found, evidence = population.found()
    assert found == true
    assert evidence["links"] == len(true) - len(set(true)) and evidence["not_believed"] == 0


@given(st.integers(0, 2**32), st.integers(5, 20), st.integers(10, 20), st.integers(0, 6 * BLOCK))
def test_independent_requests_of_applications_are_no_sessions(seed, applications, users, length):
    population = Population(seed)
    for _ in range(applications):
        prompt = population.text(length, length)
        for _ in range(users):
            population.conversation(prompt, 1, first=(1, BLOCK))
    true, found, _ = population.found()
    assert found == true


def test_questions_about_documents_are_no_sessions_and_the_doubt_is_said():
    """Two questions each: half of the second ones are longer, by chance; and half of the first ones."""
    population = Population(5)
    for _ in range(200):
        document = population.text(20 * BLOCK, 20 * BLOCK)
        for _ in range(2):
            population.rows.append((population.rng.random() * 3600, document + population.text(1, BLOCK - 1), 2, object()))
    true, found, evidence = population.found()
    assert found == true and evidence["not_believed"] > 50
    said = origin.warnings({"links": {"requests": 400, **evidence}})
    assert any("about as many would backwards in time" in text for text in said)


def chained(*rows):
    """Session of each (second, blocks, output, length), and what the table says of its origin."""
    requests = Requests(512)
    for number, (at, blocks, output, length) in enumerate(rows):
        requests.add(number, length, output, at, blocks=blocks)
    said = requests.workload(**requests.chain_by_prefix()).origin
    return [requests.session_of(number) for number in range(len(rows))], said


def test_requests_of_one_instant_do_not_follow_one_another():
    assert chained((0, [1, 2], 5, 1024), (0, [1, 2, 3], 5, 1536))[0] == [0, 1]
    assert chained((0, [1, 2], 5, 1024), (1, [1, 2, 3], 5, 1536))[0] == [0, 0]


def test_the_first_of_a_fork_goes_on_and_what_the_second_shares_is_counted():
    found, said = chained((0, [1, 2], 100, 1024), (60, [1, 2, 3], 100, 1536), (90, [1, 2, 4, 5], 100, 2048))
    assert found == [0, 0, 1] and said["shared_by_sessions"] == pytest.approx(1024 / (1024 + 1536 + 2048))


def test_who_cannot_have_gone_on_from_the_first_makes_a_prefix_a_shared_prompt():
    """The third has no room for the first one's answer; without it, the second goes on from the first."""
    first, second, third = (0, [1, 2], 600, 1030), (60, [1, 2, 3], 100, 1700), (90, [1, 2, 4], 10, 1600)
    assert chained(first, second)[0] == [0, 0] and chained(first, second, third)[0] == [0, 1, 2]


def test_a_request_is_longer_than_the_one_it_goes_on_from():
    assert chained((0, [1, 2, 3], 5, 1300), (9, [1, 2, 4], 5, 1300))[0] == [0, 1]
    assert chained((0, [1, 2, 3], 5, 1300), (9, [1, 2, 4], 5, 1200))[0] == [0, 1]
    assert chained((0, [1, 2, 3], 5, 1300), (9, [1, 2, 4], 5, 1400))[0] == [0, 0]


def test_requests_are_taken_in_order_of_time():
    found, _ = chained((60, [1, 2, 3], 5, 1536), (0, [1, 2], 5, 1024), (30, [7, 8], 5, 1024))
    assert found == [0, 1, 0]


def test_how_sure_the_links_are_is_said():
    _, said = chained((0, [9, 1], 10, 1100), (1, [9, 2], 10, 1100), (60, [9, 2, 3], 10, 1600), (70, [9, 5], 10, 1200), (80, [6], 3, 90))
    assert said["links"] == {"requests": 5, "links": 1, "without_room_for_the_answer": 0, "on_one_block": 1, "by_chance": 0,
                             "not_believed": 0, "shorter_than_a_block": 1}  # fmt: skip
    assert "1 of 5 requests go on from an earlier one; 1 of these links rest on one block that no other session has" in origin.notes(said)
    assert any("1 requests are shorter than a block" in text for text in origin.warnings(said))


def test_what_named_sessions_share_is_counted_too(tmp_path):
    rows = [mooncake(9 * i, [1, 2, 10 + i], session_id=f"s{i % 3}") for i in range(3)]
    assert log(tmp_path, *rows).origin["shared_by_sessions"] == pytest.approx(2 * 2 / 9)


@pytest.mark.parametrize("said", [{"links": "x"}, {"links": {"links": "x"}}, {"shared_by_sessions": "x"}, {"blocks_apart_by": 5}])
def test_an_odd_origin_of_a_table_is_no_fault(said):
    assert isinstance(origin.notes(said), list)


# --- what a shared cache of blocks hits -------------------------------------------------------------------------------------------


def _hits(rows, capacity):
    """Independent: an LRU cache of blocks, tail of a context first; blocks that a request is about to hit are not given up for it."""
    held: OrderedDict[tuple, None] = OrderedDict()
    hits = 0
    for row in rows:
        path = [tuple(row[: depth + 1]) for depth in range(len(row))]
        hits += next((depth for depth, prefix in enumerate(path) if prefix not in held), len(path))
        for prefix in reversed(path):
            held[prefix] = None
            held.move_to_end(prefix)
        while len(held) > capacity:
            held.popitem(last=False)
    return hits


def blocks_of(rows):
    counts = np.array([len(row) for row in rows])
    ids = np.array([block for row in rows for block in row], np.int64)
    return Blocks(BLOCK, np.append(0, np.cumsum(counts)), ids), BLOCK * counts


@given(ROWS)
def test_hits_of_every_size_are_those_of_an_lru_cache(rows):
    found = block_reuse(*blocks_of(rows), np.arange(len(rows)))
    capacities = np.arange(found.distinct + 3)
    assert found.hits_within(capacities).tolist() == [_hits(rows, capacity) for capacity in capacities]
    assert found.hits == _hits(rows, 10**9) and found.distinct == len({tuple(row[: i + 1]) for row in rows for i in range(len(row))})
    if found.hits:
        for share in (0.1, 0.5, 1.0):
            capacity = found.capacity_for(share)
            assert _hits(rows, capacity) >= share * found.hits > _hits(rows, capacity - 1)
        assert found.capacity_for(1.0) == found.enough and _hits(rows, found.smallest) > 0 == _hits(rows, found.smallest - 1)


def test_only_full_blocks_count_and_requests_come_in_order_of_time(tmp_path):
    table = log(tmp_path, mooncake(0, [1, 2], length=1000), mooncake(5, [1, 3], length=1024), mooncake(9, [1, 3], length=1023))
    found = describe(table, 10, 10**6)["blocks"]
    assert found["hit_rate"] == pytest.approx(2 * 512 / 3047) and found["distinct"] == 2
    assert found["held_bytes"] == 2 * 512 * 10 and found["block_tokens"] == 512
    assert found["lru_curve"][-1]["token_hit_rate"] == pytest.approx(found["hit_rate"])
    assert describe(table.select(np.array([1])), 10, 10**6)["blocks"]["distance_bytes"] is None


def test_copies_of_sessions_share_what_the_sessions_shared(tmp_path):
    """Two sessions with a prompt of two blocks: copies have blocks of their own behind it, the same in every turn."""
    rows = [mooncake(10 * i + 1000 * turn, [1, 2, 10 + i, 20 + i][: 3 + turn]) for turn in range(2) for i in range(2)]
    table = log(tmp_path, *rows)
    larger = table.select(np.array([0, 1, 0, 0, 1]))
    found = [describe(each, 1000, 10**6)["blocks"] for each in (table, larger)]
    assert [each["distinct"] for each in found] == [2 + 2 * 2, 2 + 5 * 2]
    assert found[1]["hit_rate"] == pytest.approx((5 * (2 + 3) - 2) / (5 * (3 + 4)))
    assert larger.blocks.ids[:7].tolist() == table.blocks.ids[:7].tolist()


def test_words_go_by_the_larger_of_what_sessions_and_blocks_reuse(tmp_path):
    """Sixty requests of three applications: nothing for a store of sessions."""
    rng = random.Random(3)
    prompts = [list(range(5 * i, 5 * i + 5)) for i in range(3)]
    table = log(tmp_path, *(mooncake(9 * i, [*rng.choice(prompts), 1000 + i]) for i in range(60)))
    found = describe(table, 1000, 10**6)
    text = " ".join(words(found, "m"))
    assert table.sessions == 60 and found["history_share"] == 0 and found["blocks"]["hit_rate"] == pytest.approx(57 * 5 / 360)
    assert "caching can pay" in text and "little to cache" not in text
    assert "an endless shared block cache hits 79%, a store of sessions 0%; store.unit=block simulates" in text
    assert any("79% of all prompt tokens begin a session like" in line for line in origin.warnings(table.origin))


def test_a_picture_of_blocks_is_drawn_where_no_session_is_resumed(tmp_path):
    log(tmp_path, mooncake(0, [1, 2]), mooncake(9, [1, 3]))
    result = CliRunner().invoke(app, ["trace", "describe", str(tmp_path / "log.jsonl"), "--figure", str(tmp_path / "d.png")])
    assert result.exit_code == 0 and "hits 25.0% of all prompt tokens" in result.stdout
    assert (tmp_path / "d.png").read_bytes().startswith(b"\x89PNG")


# --- files of the field -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def real():
    def path(name):
        found = next((folder / name for folder in (SHARED, SHARED.parent / "field") if (folder / name).exists()), None)
        return found or pytest.skip(f"{name} is not on this machine")

    return path


def test_600_requests_of_20_applications(real):
    table = traces.read_trace(real("toolagent_20_apps.jsonl"))
    found = describe(table, 1000, 10**6)
    assert table.sessions == 600 and found["blocks"]["hit_rate"] == pytest.approx(0.767, abs=0.0005)


@pytest.mark.parametrize("bit", [40, 62, 63])
def test_groups_of_hashes(real, bit):
    found = describe(traces.read_trace(real(f"hash_groups_bit{bit}.jsonl")), 1000, 10**6)
    assert (found["sessions"], found["history_share"], found["blocks"]["hit_rate"]) == (40, 0, 0)


ENGINE = {1_000: 6_649_856, 2_048: 8_197_632, 4_096: 13_547_520, 8_192: 27_843_072, 16_384: 39_999_488, 32_768: 50_156_544,
          65_536: 53_138_432, 131_072: 53_986_816}  # fmt: skip
"""Tokens that the block manager of vLLM 0.33 hits with so many blocks, one request at a time, no answers. It takes one block more for the
tail of a prompt, which our cache does not hold."""


def test_blocks_hit_what_a_real_engine_hits(real):
    table = traces.read_trace(real("mooncake_conversation.jsonl"))
    found = block_reuse(table.blocks, table.history_tokens + table.prompt_tokens, np.lexsort((table.record, table.arrival_s)))
    hits = 512 * found.hits_within(np.array(list(ENGINE)))
    assert hits.tolist() == pytest.approx(list(ENGINE.values()), rel=3e-4)
    assert hits[[1, 6, 7]].tolist() == [ENGINE[size] for size in (2_048, 65_536, 131_072)]


def test_links_of_a_real_log_point_forward(real):
    links = traces.read_trace(real("mooncake_conversation.jsonl")).origin["links"]
    assert links["requests"] == 12_031 and links["links"] == 3_786 and links["by_chance"] < 0.002 * links["links"]
