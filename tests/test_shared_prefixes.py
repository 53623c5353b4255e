"""What sessions have in common by construction: by hand, through what changes a workload, in tables, and in caches of blocks."""

import json
from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import ConfigError
from kvplan.sim.replay.blockcurve import block_curve
from kvplan.sim.report import table
from kvplan.sim.report.page.place import Place
from kvplan.sim.simulation import simulate
from kvplan.traces import TraceError, origin, read_trace, rescale
from kvplan.traces.answers import prefilled_again
from kvplan.traces.beginnings import Beginnings
from kvplan.traces.blockpaths import block_contexts, turn_paths
from kvplan.traces.describe import describe
from kvplan.traces.formats.canonical import write_canonical
from kvplan.traces.generate import population
from kvplan.traces.generate.laws import Constant
from kvplan.traces.generate.steady import cut_from_stream
from kvplan.traces.reuse import in_order
from kvplan.traces.sharing import sharing
from kvplan.traces.workload import Blocks, untimed

SYNTHETIC = ["workload.kind=synthetic", "store.unit=block"]


def constant(value):
    return f"{{distribution: constant, value: {value}}}"


def paths(workload, block_tokens=4):
    return [list(path) for path in block_contexts(workload, block_tokens).paths]


def alike(one, other):
    """Leading blocks that two contexts share."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def begun(workload, *parts):
    return replace(workload, beginnings=Beginnings.of(parts))


def test_twenty_applications_hit_three_quarters_and_are_held_once(small):
    """700 prompts of 3,000 + 800 tokens; all but the first of each of 20 applications find 3,000: 680 · 3,000 / (700 · 3,800) = 0.767."""
    config = small(
        *SYNTHETIC, f"workload.turns={constant(1)}", f"workload.prompt_tokens={constant(800)}", "workload.sessions=700",
        "workload.applications.count=20", "workload.applications.tokens=3000", "store.block_tokens=200",
    )  # fmt: skip
    curve = block_curve(config, None, ["10000blocks"], [])
    assert curve.endless.hit_tokens == 680 * 3_000 and curve.endless.prompt_tokens == 700 * 3_800
    assert round(curve.endless.hit_rate, 3) == 0.767
    assert curve.distinct_blocks == 20 * 3_000 / 200 + 700 * 800 / 200
    assert curve.points[0].found["lru"].served == curve.endless


def test_sessions_share_their_beginning_and_nothing_else(workload):
    requests = begun(workload([[(10, 2), (5, 1)], [(9, 1)], [(9, 1)]], arrivals=[0, 100, 200], gap_s=1.0), [(7, 8)], [(7, 8)], [(9, 8)])
    first, second, other, stranger = paths(requests)
    assert first == second[:2] == other and len(second) == 4 and alike(first, stranger) == 0
    halved = rescale.scaled_context(requests, 0.5)
    assert [alike(paths(halved)[0], path) for path in paths(halved)[1:3]] == [1, 1] and halved.beginnings.end.tolist() == [4, 4, 4]


def test_a_block_that_is_only_partly_of_a_beginning_is_not_shared(workload):
    requests = begun(workload([[(20, 1)], [(20, 1)]], arrivals=[0, 9]), [(7, 10)], [(7, 10)])
    assert alike(*paths(requests)) == 2


def test_parts_are_shared_one_after_the_other(workload):
    """A system prompt, then an application, then a document: the same document behind another application is another."""
    requests = workload([[(4, 1)]] * 4, arrivals=range(4))
    requests = population._behind(requests, np.array([1, 1, 1, 2]), np.full(4, 8))
    requests = population._behind(requests, np.array([5, 5, 6, 5]), np.full(4, 4))
    requests = population.with_system_prompt(requests, 4)
    one, same, application, document = paths(requests)
    assert requests.prompt_tokens.tolist() == [20] * 4 and [alike(one, each) for each in (same, application, document)] == [4, 1, 2]
    assert len({tuple(path) for path in (one, same, application, document)}) == 4, "what each asks is its own"
    assert set(one).isdisjoint(application[1:]), "a document behind another application's text is another"


def test_forks_share_the_history_that_they_go_on_from(workload):
    requests = workload([[(8, 4), (8, 4), (8, 4)], [(4, 4), (4, 4)], [(4, 4)]], arrivals=[0, 50, 99], gap_s=1.0)
    forked = population.with_forks(requests, 0.5, np.random.default_rng(9))
    assert forked.origin["forks"] == 1
    (fork,) = np.flatnonzero(forked.prompt_tokens[forked.first_turn[:-1]] != requests.prompt_tokens[requests.first_turn[:-1]])
    taken = forked.prompt_tokens[forked.first_turn[fork]] - requests.prompt_tokens[requests.first_turn[fork]]
    found, rows = paths(forked), forked.first_turn
    assert max(alike(found[rows[fork]], path) for path in found[: rows[fork]]) == min(taken, 32) // 4 > 0, (
        "but for an answer that no prompt of the other holds"
    )


def test_a_fork_takes_over_application_and_tenant(small):
    settings = ["workload.applications.count=9", "workload.tenants={a: 1, b: 1}", "workload.tenants_apart=true"]
    settings += [*SYNTHETIC, f"workload.turns={constant(3)}"]
    workload, plain = build_workload(small(*settings, "workload.forks=0.4")), build_workload(small(*settings))
    grown = workload.prompt_tokens - plain.prompt_tokens
    forks = np.flatnonzero(grown[workload.first_turn[:-1]] > 0)
    assert len(forks) > 5 and np.all(grown[~workload.is_first] == 0)
    parts = workload.beginnings.parts()
    for fork in forks.tolist():
        (parent,) = {number for number in range(fork) if number not in forks and parts[fork][-1] in parts[number]}
        assert workload.tenant[fork] == workload.tenant[parent] and parts[parent][: len(parts[fork])] == parts[fork]


def test_tenants_apart_share_nothing(workload):
    requests = replace(begun(workload([[(9, 1)]] * 3, arrivals=range(3)), *[[(7, 8)]] * 3), tenant=np.array(["a", "b", "a"], object))
    assert [alike(paths(requests)[0], path) for path in paths(requests)[1:]] == [2, 2]
    apart = population.with_tenants_apart(requests)
    assert [alike(paths(apart)[0], path) for path in paths(apart)[1:]] == [0, 2]
    with pytest.raises(TraceError, match=r"set workload\.tenants"):
        population.with_tenants_apart(workload([[(9, 1)]]))


def test_popularity_is_a_power_of_the_rank():
    requests = untimed(range(20_000), [1] * 20_000, [1] * 20_000)
    found = population.with_texts(requests, "documents", 50, Constant(value=10), 1.0, np.random.default_rng(0))
    counts = np.sort(np.unique(found.beginnings.key, return_counts=True)[1])[::-1]
    harmonic = (1 / np.arange(1, 51)).sum()
    assert counts[0] == pytest.approx(20_000 / harmonic, rel=0.05) and counts[9] == pytest.approx(2_000 / harmonic, rel=0.15)
    assert found.origin["documents"] == {"count": 50, "mean_tokens": 10.0} and np.all(found.prompt_tokens == 11)


def test_an_edit_ends_what_is_shared(workload):
    requests = begun(workload([[(12, 4), (4, 4)], [(16, 4)]], arrivals=[0, 99]), [(1, 12), (2, 16)], [(1, 12), (2, 16)])
    edited = replace(requests, dropped_tokens=np.array([0, 8, 0]))
    first, second, other = paths(edited)
    assert (alike(first, other), alike(second, other)) == (3, 2)
    again = prefilled_again(requests, "test")
    assert alike(paths(again)[1], paths(again)[2]) == 3, "an answer that is tokenised anew is another text"
    answered, _, other = (list(path) for path in turn_paths(again, 4, 1000, 0.5))
    assert alike(answered, other) == 3, "and the KV of the answer itself is of no use to who begins with it"


ANSWERED = {
    "goes on from all of it": ([(8, 4), (4, 0)], 0, [[1, 2], [1, 2, 3, 4]], {}, 3),
    "goes on from half a block of it": ([(8, 4), (6, 0)], 2, [[1, 2], [1, 2, 3, 4]], {}, 2),
    "has a prompt shorter than a block": ([(3, 9), (4, 0)], 0, [[], [1, 2, 3, 4]], {}, 3),
    "is cut to the window": ([(8, 4), (16, 0)], 0, [[1, 2], [1, 2, 3, 4]], {"window": 20}, 3),
    "has an unfull block, of smaller ones": ([(6, 6), (4, 0)], 0, [[1, 9], [1, 2, 3, 4]], {"block": 2}, 6),
    "says less than a block, of smaller ones": ([(6, 3), (1, 0), (6, 0)], 0, [[1, 9], [1, 2, 8], [1, 2, 3, 4]], {"block": 2}, 4),
}
"""What the turns are, tokens that the second does not go on from, hashes of blocks of 4, and how many blocks the first context shares with
one that has those of the last."""


def hashed(workload, *ids):
    """Blocks of 4 tokens."""
    return replace(workload, blocks=Blocks(4, np.append(0, np.cumsum([len(each) for each in ids])), np.concatenate(ids)))


def turn_keys(workload, block=4, window=99):
    return [list(path) for path in turn_paths(workload, block, window, 0.5)]


@pytest.mark.parametrize("case", ANSWERED)
def test_an_answer_has_the_hashes_that_the_next_prompt_says(workload, case):
    turns, dropped, ids, more, shared = ANSWERED[case]
    requests = hashed(workload([turns, [(16, 0)]], arrivals=[0, 99]), *ids, [1, 2, 3, 4])
    found = turn_keys(replace(requests, dropped_tokens=np.array([0, dropped, *[0] * (requests.turns - 2)])), **more)
    assert alike(found[0], found[-1]) == shared


def test_a_turn_has_the_hashes_of_what_it_goes_on_from(workload):
    """The second turn drops half a block of the first's prompt, and has no hash of the other half: it is still the first's."""
    requests = hashed(workload([[(8, 1), (1, 0)]]), [1, 2], [1, 9])
    assert alike(*turn_keys(replace(requests, dropped_tokens=np.array([0, 3])), block=2)) == 3


@pytest.mark.parametrize("others", [[3, 4, 5, 6, 7], [3, 4]])
def test_who_has_other_hashes_does_not_go_on_whatever_lengths_say(workload, others):
    """The second turn's history is all of the first's context by its lengths, and other text by its hashes: so is all behind it."""
    requests = hashed(workload([[(8, 8), (8, 4)], [(8, 0)]], arrivals=[0, 99]), [1, 2], others, [1, 2])
    first, second, other = turn_keys(requests)
    assert (alike(first, other), alike(first, second)) == (2, 0)
    assert not set(first) & set(second), "a key says all that was before"


def test_a_context_of_which_a_prompt_was_clipped_has_no_hashes_of_what_follows(workload):
    """A prompt of 12 tokens is cut to 7, in a window of 8; the next turn drops two tokens, and others have its hashes."""
    requests = hashed(workload([[(12, 1), (1, 0)], [(12, 1)]], arrivals=[0, 99]), *[[1, 2, 3]] * 3)
    first, second, other = turn_keys(replace(requests, dropped_tokens=np.array([0, 2, 0])), window=8)
    assert (alike(first, other), alike(second, other)) == (1, 0)


def test_longer_answers_leave_the_first_prompts_alike(workload):
    requests = begun(workload([[(12, 4), (4, 4)], [(20, 4)]], arrivals=[0, 99]), [(1, 12), (2, 16)], [(1, 12), (2, 16)])
    assert rescale.scaled_output(requests, 2.0).beginnings.parts() == [[(1, 12)], [(1, 12), (2, 16)]]


def test_longer_answers_where_one_has_no_tokens(workload):
    edited = replace(workload([[(9, 0), (9, 4), (9, 1)]]), dropped_tokens=np.array([0, 2, 2]))
    longer = rescale.scaled_output(edited, 2.0)
    assert longer.output_tokens.tolist() == [1, 8, 2] and longer.dropped_tokens.tolist() == [0, 2, 4]


def test_copies_of_sessions_share_what_they_begin_with(workload):
    requests = begun(workload([[(8, 1)], [(8, 1)]], arrivals=[0, 1]), [(1, 4)], [])
    copied = requests.select(np.array([1, 0, 0]))
    assert copied.beginnings.parts() == [[], [(1, 4)], [(1, 4)]]


def test_a_session_that_is_under_way_begins_as_it_did_unless_that_was_cut_off(workload):
    requests = begun(workload([[(8, 4), (8, 4), (8, 4)]] * 40, arrivals=range(40), gap_s=30.0), *[[(1, 8)]] * 40)
    whole = cut_from_stream(requests, 999, 0.5, 0.0, np.random.default_rng(1))
    assert np.all(whole.beginnings.end == 8) and len(whole.beginnings.key) == whole.sessions
    short = cut_from_stream(requests, 24, 0.5, 0.0, np.random.default_rng(1))
    third = short.prompt_tokens[short.first_turn[:-1]] < whole.prompt_tokens[whole.first_turn[:-1]]
    assert third.any() and np.array_equal(np.diff(short.beginnings.first) == 0, third)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_keep_what_sessions_share(workload, tmp_path, suffix):
    requests = begun(workload([[(8, 1), (3, 1)], [(8, 1)], [(8, 1)]], arrivals=[0, 1, 2]), [(-5, 4), (2**62, 8)], [], [(-5, 4)])
    write_canonical(requests, path := tmp_path / f"table.{suffix}")
    assert read_trace(path).beginnings.parts() == requests.beginnings.parts()


@pytest.mark.parametrize("said", ["7", "7:x", "7:9 8:9", "7:0", f"{2**63}:4"])
def test_tables_with_impossible_beginnings_are_refused(tmp_path, said):
    (path := tmp_path / "table.csv").write_text(f"session,prompt_tokens,output_tokens,beginning\na,9,1,{said}\n")
    with pytest.raises(TraceError, match=r"record 1.*`beginning`"):
        read_trace(path)


parts_of = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 9)), max_size=3)


@settings(max_examples=30)
@given(st.lists(parts_of, min_size=1, max_size=5), st.integers(0, 9), st.integers(0, 20))
def test_operations_keep_parts_in_order(steps, tokens, most):
    grown = [[(key, sum(step for _, step in session[: place + 1])) for place, (key, _) in enumerate(session)] for session in steps]
    known = Beginnings.of(grown)
    longer = known.behind(np.zeros(len(known)), np.full(len(known), tokens))
    for found in (
        known,
        longer,
        longer.cut(np.full(len(known), most)),
        longer.scaled(0.3),
        longer.shared(),
        known.apart(np.arange(len(known))),
    ):
        assert found.sound() and len(found) == len(known)
    assert longer.end.sum() - known.end.sum() == tokens * (len(known.key) + len(known) * (tokens > 0))
    assert known.cut(np.full(len(known), 99)).parts() == grown


@pytest.mark.parametrize("setting", ["applications.zipf=-1", "documents.count=0", "forks=1", "documents.tokens=-5"])
def test_settings_that_cannot_be_are_refused(small, setting):
    with pytest.raises(ConfigError, match=f"workload.{setting.partition('=')[0].partition('.')[0]}"):
        small(f"workload.{setting}")


# --- text


def chat(*texts):
    roles = ("system", "user", "assistant", "user", "assistant")
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]}


LONG = "You are an assistant that knows all about trains, and answers in short sentences."
CHATS = [
    chat(LONG, "Hi there", "Hello!", "When?", "At nine."),
    chat(LONG, "Hi there", "Hello!", "From where?", "From here."),
    chat(LONG, "When does it go, and from which platform?", "At nine."),
    chat("Another.", "Hi there", "Hello!"),
]


@pytest.mark.parametrize("records", ["conversations", "requests"])
def test_chats_share_the_messages_that_they_begin_with(tmp_path, records):
    (path := tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, CHATS)))
    workload = read_trace(path, records=records)
    parts = workload.beginnings.parts()
    assert parts[0] == parts[1] and parts[2] == parts[0][:1] and parts[3] == []
    assert [key for key, _ in parts[0]] == [0, 1, 2], "numbers of appearance, for digests differ from process to process"
    again, system, context = parts[0][2][1], parts[0][0][1], workload.history_tokens + workload.prompt_tokens
    first = workload.prompt_tokens[workload.first_turn[1]]
    assert workload.origin["shared_by_sessions"] == (min(again, first) + system) / context.sum()
    assert any("3 sessions begin with messages that another has" in note for note in origin.notes(workload.origin))
    one, other = (paths(workload, 1)[row] for row in workload.first_turn[:2])
    assert alike(one, other) == min(again, first)


def test_what_follows_on_reasoning_is_another_text(tmp_path):
    thought = [chat(LONG, "Hi", "<think>Hm.</think>Hello!", "Bye", "See you.") for _ in range(2)]
    (path := tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, thought)))
    workload = read_trace(path, records="conversations")
    assert workload.beginnings.end.tolist() == sorted({*workload.beginnings.end.tolist()}) * 2 and len(workload.beginnings.key) == 4
    assert read_trace(path, records="conversations", reasoning="kept").beginnings.parts()[0][:2] == workload.beginnings.parts()[0]


def test_recorded_lengths_set_how_long_a_beginning_is(tmp_path):
    logged = [
        {**each, "messages": each["messages"][:2], "response": "Yes.", "usage": {"prompt_tokens": 1000, "completion_tokens": 9}}
        for each in (CHATS[0], CHATS[2])
    ]
    (path := tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, logged)))
    short, long = read_trace(path).beginnings.end.tolist()
    assert 500 < long < short < 1000


# --- what an endless store would hit


def literally(workload, block_tokens):
    """(distinct, hits, own): sets of blocks."""
    known, held, hits, own = [list(path) for path in block_contexts(workload, block_tokens).paths], set(), 0, 0
    had = {session: set() for session in range(workload.sessions)}
    for path, session in zip(known, workload.session[in_order(workload)].tolist(), strict=True):
        hits += sum(block in held for block in path)
        own += sum(block in had[session] for block in path)
        held.update(path)
        had[session].update(path)
    return len(held), hits, own


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=4), min_size=1, max_size=5),
    st.lists(parts_of, min_size=5, max_size=5).filter(any), st.integers(1, 4), st.permutations(range(5)),
)  # fmt: skip
def test_sharing_is_that_of_a_literal_store(sessions, parts, block_tokens, order):
    rows = [(number, *turn) for number, session in enumerate(sessions) for turn in session]
    session, prompt, output, edited = map(np.array, zip(*rows, strict=True))
    plain = untimed(session, prompt, output).with_times(np.array(order[: len(sessions)], float), np.full(len(rows), 1.5))
    ends = [list(accumulate(step for _, step in row)) for row in parts[: len(sessions)]]
    grown = [[(int("".join(map(str, row[: place + 1]))), end) for place, end in enumerate(row)] for row in ends]
    shared = begun(replace(plain, dropped_tokens=rescale.dropped_within(plain, edited)), *grown)
    found = sharing(shared, block_tokens)
    if found is not None:
        assert (found.distinct, found.hits, found.own) == literally(shared, block_tokens)


def test_an_endless_store_is_described(workload):
    requests = begun(workload([[(40, 8), (8, 1)], [(40, 1)]], arrivals=[0, 9], gap_s=1.0), [(7, 32)], [(7, 32)])
    found = describe(requests, 100, 10**6, block_tokens=8)["shared"]
    assert found["hit_rate"] == {"tokens": (40 + 32) / (40 + 56 + 40), "own": 40 / 136, "others": 32 / 136}
    assert (found["distinct"], found["held_bytes"], found["known_by"]) == (5 + 2 + 1, 8 * 8 * 100, "construction")
    assert describe(workload([[(9, 1)], [(9, 1)]]), 100, 10**6)["shared"] is None


def test_own_and_other_sessions_hashes(workload):
    requests = workload([[(16, 8), (8, 1)], [(24, 1)]], arrivals=[0, 9], gap_s=1.0)
    ids = np.array([1, 2, 1, 2, 3, 4, 1, 2, 3])
    found = sharing(replace(requests, blocks=Blocks(8, np.array([0, 2, 6, 9]), ids)), 16)
    assert (found.block_tokens, found.distinct, found.hits, found.own) == (8, 4, 5, 2)


# --- served


def test_a_server_of_blocks_hits_and_holds_what_sessions_share_once(small):
    """90 prompts of 160 + 48 tokens of six applications, far apart: 84 of 90 find 160; blocks of 16, answers too short for one."""
    settings = ["store.unit=block", "workload.kind=synthetic", f"workload.turns={constant(1)}", f"workload.prompt_tokens={constant(48)}"]
    settings += [f"workload.output_tokens={constant(3)}", "workload.applications.count=6", "workload.applications.tokens=160"]
    settings += ["workload.sessions=90", "workload.arrival.rate_per_s=0.1", "store.ssd=0GB"]
    found = simulate(small(*settings)).summary
    assert found["hit_rate"]["tokens"] == pytest.approx(84 * 160 / (90 * 208)) and found["hit_rate"]["resumed"] == 0
    assert found["tiers"]["dram"]["peak_bytes"] == (6 * 160 + 90 * 48) * 819_200


def test_hits_by_turn_and_tier_are_those_of_all_turns(small):
    result = simulate(small("store.unit=block", "workload.applications.count=3", "store.dram=2GB", "deployment.hbm_utilization=0.4"))
    rows, tokens = result.summary["by_turn"], (result.columns["prompt_tokens"] + result.columns["history_tokens"])
    turn = np.minimum(result.columns["turn"], 32)
    for name, share in result.summary["token_hits"].items():
        served = sum(row["token_hits"][name] * tokens[turn == row["turn"]].sum() for row in rows)
        assert served == pytest.approx(share * tokens.sum())
    assert all(sum(row["token_hits"].values()) == pytest.approx(row["hit_rate"]["tokens"]) for row in rows)
    assert rows[0]["hit_rate"]["tokens"] > 0, "a first turn hits what others began with"
    assert any("from HBM" in head for head in table.by_turn_heads(Place(result.summary)))
