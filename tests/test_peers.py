"""`kvplan validate peers`: what the others are given is what kvplan reads, and they are not needed."""

import pytest

from kvplan.sim.replay.blocks import BlockReplay
from kvplan.sim.store.blocks.modes import MODES
from kvplan.traces import read_trace
from kvplan.traces.blockpaths import block_contexts
from kvplan.validate.peers import command, serving, simulators
from kvplan.validate.peers.requests import BLOCK_TOKENS, SYSTEM_TOKENS, drawn, write_requests


@pytest.fixture(scope="module")
def requests():
    return drawn(20)


def test_prompts_begin_alike_and_go_on_from_their_own(requests):
    shared = SYSTEM_TOKENS // BLOCK_TOKENS
    assert {tuple(one.blocks[:shared]) for one in requests} == {tuple(requests[0].blocks[:shared])}
    assert [one.at_s for one in requests] == sorted(one.at_s for one in requests)
    assert all(len(one.blocks) == -(-one.tokens // BLOCK_TOKENS) for one in requests)


def test_with_room_for_all_what_hits_is_what_was_there_before(requests, tmp_path):
    write_requests(requests, tmp_path / "trace.jsonl")
    replay = BlockReplay(MODES["lmcache"], block_contexts(read_trace(tmp_path / "trace.jsonl"), BLOCK_TOKENS))
    seen, hits = set(), 0
    for one in requests:
        full = one.blocks[: one.tokens // BLOCK_TOKENS]
        known = [block in seen for block in full]
        hits += min(BLOCK_TOKENS * sum(known), one.tokens - 1)
        seen.update(full)
    assert replay.served(replay.cache("lru", 1 << 20)).hit_tokens == hits


def test_one_that_is_not_installed_is_named_and_left_out(monkeypatch, capsys):
    absent = simulators.Peer("nobody's", "no_such_module", "lru", "lmcache", "", lambda *_: [])
    alike = simulators.Peer("itself", "json", "lru", "lmcache", "", lambda trace, requests, sizes: [None, 0.5])
    monkeypatch.setattr(command, "PEERS", (absent, alike))
    monkeypatch.setattr(serving, "ENTRY", "no_such_module")
    assert command.main(["--sessions", "5", "--blocks", "10,1000"]) == 0
    said = capsys.readouterr().out
    assert "nobody's, lru: not installed" in said and "not judged" in said and "50.000" in said and "AISimulate: not installed" in said


def test_a_server_that_hits_as_much_as_the_log_has_in_common(requests, tmp_path, monkeypatch):
    """Both are given the same times and the same room; the other one is played by what it is told."""
    told = []
    monkeypatch.setattr(serving, "aisimulates", lambda trace, *blocks: told.append(blocks) or serving.Served(0, 0, 0, 0, 0))
    case = serving.Load(2, 0.92, 10)
    ours = serving.beside(requests, case)["kvplan"]
    full = [set(one.blocks[: one.tokens // BLOCK_TOKENS]) for one in requests]
    known = [len(own & set().union(*full[:number])) for number, own in enumerate(full)]
    assert ours.hit_rate == pytest.approx(BLOCK_TOKENS * sum(known) / sum(one.tokens for one in requests))
    assert 7000 < told[0][0] < 7500 and told[0][1] == 10**10 // (BLOCK_TOKENS * 131_072)
    cache = serving.prediction(tmp_path, *told[0])["engine"]["workers"]["aggregated"]["kv_cache"]
    assert (cache["capacity"]["blocks"], cache["host_offload"]["num_host_blocks"]) == told[0]
    assert "host_offload" not in serving.prediction(tmp_path, 7000)["engine"]["workers"]["aggregated"]["kv_cache"]
    assert 0 < ours.ttft_mean_s < ours.ttft_p95_s


def test_requests_come_as_much_sooner_as_is_said(requests, tmp_path):
    found = []
    for faster in (1, 4):
        write_requests(requests, tmp_path / "trace.jsonl", faster)
        found.append(read_trace(tmp_path / "trace.jsonl"))
    assert found[1].arrival_s * 4 == pytest.approx(found[0].arrival_s, abs=8e-3)
    assert found[0].turns == found[0].sessions == len(requests)


@pytest.mark.parametrize("arguments", [("--blocks", "500,x"), ("--blocks", "0"), ("--sessions", "0"), ("--sessions", "some")])
def test_what_is_no_size_is_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    assert ended.value.code == 2
    assert "is not a whole number from 1 on" in capsys.readouterr().err
