"""`kvplan validate peers`: what the others are given is what kvplan reads, and they are not needed."""

import pytest

from kvplan.sim.replay.blocks import BlockReplay
from kvplan.sim.store.blocks.modes import MODES
from kvplan.traces import read_trace
from kvplan.traces.blockpaths import block_contexts
from kvplan.validate.peers import command, simulators
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
    assert command.main(["--sessions", "5", "--blocks", "10,1000"]) == 0
    said = capsys.readouterr().out
    assert "nobody's, lru: not installed" in said and "not judged" in said and "50.000" in said


@pytest.mark.parametrize("arguments", [("--blocks", "500,x"), ("--blocks", "0"), ("--sessions", "0"), ("--sessions", "some")])
def test_what_is_no_size_is_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    assert ended.value.code == 2
    assert "is not a whole number from 1 on" in capsys.readouterr().err
