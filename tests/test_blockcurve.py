"""Curves of blocks (`sim/replay/blockcurve.py`): every policy hits what it hits in a server to which requests come one at a time, and none
more than the bound."""

import re
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from test_blockengine import CHUNK, CHUNKS, SERVER, served
from typer.testing import CliRunner

from kvplan.hwmodels.units import format_bytes
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.config import ConfigError, load
from kvplan.sim.deployment import resolve
from kvplan.sim.engine.service import run_service
from kvplan.sim.metrics.output import RunInput
from kvplan.sim.policies.registry import policies
from kvplan.sim.replay.blockbound import Asked, most_hit, stretches
from kvplan.sim.replay.blockcurve import block_curve, why_sessions
from kvplan.sim.report.blockcurve_account import account
from kvplan.sim.report.page.of_blockcurve import _finding
from kvplan.sim.report.page.place import percent
from kvplan.sim.store.blocks.modes import MODES
from kvplan.traces.blockpaths import BlockContexts, block_contexts
from kvplan.traces.workload import untimed

CLOCKED = [name for name, policy in policies("eviction").items() if "queue" not in policy.NEEDS]
"""Those that need no queue."""
DRAWN = [
    "workload.kind=synthetic",
    "workload.sessions=30",
    "workload.applications.count=3",
    "workload.applications.tokens={distribution: constant, value: 40}",
    "workload.forks=0.3",
    "workload.prompt_tokens={distribution: uniform, min: 1, max: 60}",
    "workload.first_prompt_tokens={distribution: uniform, min: 1, max: 60}",
    "workload.output_tokens={distribution: uniform, min: 1, max: 20}",
    "workload.turns={distribution: uniform, min: 1, max: 14}",
]
CONNECTOR = {"vllm": "vllm-native", "sglang": "sglang-hicache"}
BOTH = [(mode, name) for mode in ("vllm", "sglang") for name in CLOCKED if name == "lru" or name not in MODES[mode].offload]
"""Policies that a mode has not as its engine's own, but for LRU, which is that of servers."""


def one_at_a_time(seed):
    """Sessions with beginnings in common and edits, whose turns come an hour after one another, in any order, and have no answers."""
    workload = build_workload(load("default", [*SERVER, *DRAWN, f"seed={seed}"]))
    draw = np.random.default_rng(seed)
    place = np.empty(workload.turns, int)
    mixed = draw.permutation(workload.session)
    for session in range(workload.sessions):
        place[workload.session == session] = np.flatnonzero(mixed == session)
    nothing = np.zeros(workload.turns, np.int32)
    return replace(workload, output_tokens=nothing, arrival_s=3600.0 * place, open_loop=True)


def curved(workload, policy, chunks, *overrides):
    """Tokens that a curve hits, in all and below, with so many chunks, or a size."""
    size = chunks if isinstance(chunks, str) else f"{chunks}blocks"
    curve = block_curve(load("default", [*SERVER, *overrides]), "dram", [size], [policy], lambda _: workload)
    found = curve.points[0].found[policy]
    return found.served.hit_tokens, found.below and found.below.hit_tokens


@pytest.mark.parametrize(("mode", "name"), BOTH)
def test_a_policy_hits_what_it_hits_in_a_server_to_which_requests_come_one_at_a_time(mode, name):
    for seed, chunks in ((1, 160), (2, 300)):
        workload = one_at_a_time(seed)
        settings = [*CHUNKS, f"store.mode={mode}", f"store.connector={CONNECTOR[mode]}", "store.ssd=0GB"]
        pool = 130 + MODES[mode].reserved
        found = served(workload, pool - 1, *settings, f"store.dram={chunks * CHUNK}B", f"store.eviction={name}")
        curve = curved(workload, name, chunks, *settings, f"store.hbm={pool * CHUNK}B")
        assert curve == (found["cached_tokens"].sum(), found["dram_tokens"].sum())
        assert curve[1] > 0


@pytest.mark.parametrize(
    ("mode", "name", "seed", "chunks"), [("vllm", "w-tinylfu", 374, 222.9), ("sglang", "s3-fifo", 374, 222.9), ("sglang", "arc", 14, 170.7)]
)
def test_a_policy_counts_what_is_left_over_of_whole_chunks_as_in_a_server(mode, name, seed, chunks):
    """Its shares of a tier are of bytes."""
    workload, size, pool = one_at_a_time(seed), f"{int(chunks * CHUNK)}B", 130 + MODES[mode].reserved
    settings = [*CHUNKS, f"store.mode={mode}", f"store.connector={CONNECTOR[mode]}", "store.ssd=0GB"]
    found = served(workload, pool - 1, *settings, f"store.dram={size}", f"store.eviction={name}")
    curve = curved(workload, name, size, *settings, f"store.hbm={pool * CHUNK}B")
    assert curve == (found["cached_tokens"].sum(), found["dram_tokens"].sum())


@pytest.mark.parametrize("name", [name for name in CLOCKED if name not in MODES["lmcache"].policies])
def test_lmcaches_own_memory_too(name):
    """Below an HBM that keeps nothing, of chunks of 256 tokens."""
    workload = one_at_a_time(3)
    longer = replace(workload, prompt_tokens=workload.prompt_tokens * 32 + 1, beginnings=None)
    assert not ((longer.history_tokens + longer.prompt_tokens) % 256 == 0).any()
    chunk = 256 * 131_072
    settings = ["store.mode=lmcache", "store.connector=lmcache", "store.load=always", "store.ssd=0GB"]
    blocks = ["store.block_tokens=8", "store.hbm=1B", f"store.dram={60 * chunk}B", f"store.eviction={name}"]
    found = served(longer, 5000, *settings, *blocks)
    assert curved(longer, name, 60, *settings, "store.block_tokens=256") == (found["cached_tokens"].sum(), None)
    assert found["dram_tokens"].sum() == found["cached_tokens"].sum() > 0


ONE_GPU = ["model=llama-3.1-8b", "hardware=h100-80g-x8", "deployment.gpus=1", "prices=rent-2026", "store.ssd=0GB", "store.load=always"]
SERVERS = [
    ["engine=vllm"],
    ["engine=vllm", f"store.hbm={40 * 2 * CHUNK}B"],
    ["engine=vllm", f"store.hbm={40 * 2 * CHUNK}B", "store.saved=all"],
    ["engine=vllm", f"store.hbm={40 * 2 * CHUNK}B", "deployment.window_tokens=1500"],
    ["engine=vllm", f"store.hbm={40 * 2 * CHUNK}B", "store.connector=lmcache", "deployment.replicas=2"],
    ["engine=sglang", f"store.hbm={40 * 2 * CHUNK}B", "deployment.window_tokens=1500", "deployment.truncation_ratio=0.2"],
    ["engine=lmcache", "store.hbm=1B", "deployment.window_tokens=1500"],
    ["engine=lmcache", "store.hbm=1B", "store.saved=all"],
]
"""Of which some keep less in HBM than it has, store what the connector says, and cut contexts to a window."""


@pytest.mark.parametrize("policy", ["lru", "gdsf"])
@pytest.mark.parametrize("settings", SERVERS, ids=" ".join)
def test_a_curve_of_servers_hits_what_they_hit_with_answers_and_contexts_cut_to_the_window(settings, policy):
    draw, workload = np.random.default_rng(7), one_at_a_time(7)
    answers = draw.integers(1, 120, workload.turns).astype(np.int32)
    workload = replace(workload, prompt_tokens=5 * workload.prompt_tokens, output_tokens=answers, beginnings=None)
    config = load("default", [*ONE_GPU, *settings, f"store.eviction={policy}", f"store.dram={1024 * CHUNK}B"])
    found = run_service(RunInput(config, resolve(config, workload), workload)).columns
    curve = block_curve(config, None, [f"{1024 * CHUNK}B"], [policy, "optimal"], lambda _: workload)
    hits = curve.points[0].found[policy]
    assert hits.served.hit_tokens == found["cached_tokens"].sum() > 0
    assert hits.served.prompt_tokens == (found["history_tokens"] + found["prompt_tokens"]).sum()
    assert hits.below is None or hits.below.hit_tokens == found["dram_tokens"].sum()
    assert hits.served.hit_tokens <= curve.points[0].found["optimal"].served.hit_tokens <= curve.endless.hit_tokens
    said = " ".join(account(curve)["warnings"])
    assert ("prompts lack some of their history" in said) == ("window" in "".join(settings)) and "a server would refuse" not in said


@pytest.mark.parametrize(("mode", "counted"), [("vllm", "all requests are"), ("kvcache-simulator", "what the mode says is")])
def test_a_warm_up_that_is_set_is_said_to_be_of_no_use(small, mode, counted):
    def said(*settings):
        curve = block_curve(small("store.unit=block", f"store.mode={mode}", *settings), None, ["1GB"], ["lru"])
        return [each for each in account(curve)["warnings"] if each.startswith("warmup_turns")]

    (line,) = said("warmup_turns=20")
    assert line.startswith(f"warmup_turns=20 is not used: {counted} counted") and not said("warmup_turns=0")


def test_what_a_curve_of_servers_says_of_answers_and_of_hbm(small):
    def notes(*settings, tier=None):
        return " ".join(account(block_curve(small("store.unit=auto", *settings), tier, ["1GB"], ["lru"]))["notes"])

    vllm = ["engine=vllm", "store.hbm=30GB", "store.save=async"]
    assert "answers are there in HBM when they have ended, in DRAM when they come back in a prompt." in notes(*vllm)
    assert "answers are there when they have ended." in notes(*vllm, "store.saved=all")
    assert "answers are there when they have ended." in notes(*vllm, tier="hbm") and "keeps 30GB" not in notes(*vllm, tier="hbm")
    assert "HBM keeps 30GB of what requests leave at most (store.hbm)." in notes(*vllm)
    assert "answers are there when they come back in a prompt." in notes("engine=lmcache")


def asked(*texts, first=None):
    """Requests for the blocks of texts, one a character."""
    paths = [tuple(text[: end + 1] for end in range(len(text))) for text in texts]
    return [Asked(path, len(path), first[row] if first else 0, len(path)) for row, path in enumerate(paths)]


def test_the_bound_by_hand():
    """With room for two blocks: of `ab` and then `ab` both are hit beside nothing else; `cd` in between would take their room, and is not
    kept. In the last, `a` is there for the pool too, so that only `b` is of use below it."""
    assert [most_hit(stretches(asked("ab", "cd", "ab", "cd")), room) for room in range(5)] == [0, 1, 2, 3, 4]
    assert [most_hit(stretches(asked("ab", "cd", "ef", "ab", "abg")), room) for room in range(3)] == [0, 2, 4]
    assert [most_hit(stretches(asked("ab", "cd", "ab", first=[0, 0, 1])), room) for room in range(3)] == [0, 1, 1]


def kept_at_best(requests, room):
    """By trying all choices of stretches."""
    spans = []
    for start, (path, full, *_) in enumerate(requests):
        for block in range(full):
            later = next((row for row in range(start + 1, len(requests)) if path[block] in requests[row].path), None)
            if later is not None and requests[later].first <= block < requests[later].most:
                spans.append((start, later))

    def fits(chosen):
        return all(sum(start <= moment < stop for start, stop in chosen) <= room for moment in range(len(requests)))

    return next(count for count in range(len(spans), -1, -1) if any(map(fits, combinations(spans, count))))


@pytest.mark.parametrize("seed", range(25))
def test_the_bound_is_what_the_best_of_all_choices_hits(seed):
    draw = np.random.default_rng(seed)
    texts = ["".join(draw.choice(list("ab"), draw.integers(1, 4))) for _ in range(6)]
    requests = asked(*texts, first=draw.integers(0, 2, 6).tolist())
    for room in range(4):
        assert most_hit(stretches(requests), room) == kept_at_best(requests, room)


WHERE = [("vllm", "hbm"), ("vllm", "dram"), ("sglang", "hbm"), ("sglang", "dram"), ("lmcache", "dram"), ("lmcache", "ssd")]


@pytest.mark.parametrize("chunk_blocks", [1, 3])
@pytest.mark.parametrize(("mode", "tier"), WHERE)
def test_no_policy_hits_more_than_the_bound_and_the_bound_no_more_than_an_endless_cache(mode, tier, chunk_blocks):
    workload, alone = one_at_a_time(4), mode == "lmcache" or tier == "hbm"
    names = [*MODES[mode].policies, *CLOCKED] if mode == "lmcache" else ["lru"] if tier == "hbm" else CLOCKED
    names, sizes = list(dict.fromkeys([*names, "optimal"])), [f"{blocks}blocks" for blocks in (0, 1, 5, 40, 131, 300, 2000)]
    settings = [
        "store.block_tokens=8",
        f"store.mode={mode}",
        f"store.hbm={0 if alone else 60 * CHUNK}B",
        f"store.chunk_blocks={chunk_blocks}",
    ]
    curve = block_curve(load("default", [*SERVER, *settings]), tier, sizes, names, lambda _: workload)
    for point in curve.points:
        hits = {name: found.served.hit_tokens for name, found in point.found.items()}
        assert max(hits.values()) == hits["optimal"] <= curve.endless.hit_tokens, point
    assert curve.points[-1].found["optimal"].served == curve.endless and curve.endless.hit_tokens > 0
    assert curve.points[3].found["optimal"].served.hit_tokens > curve.points[3].found["lru"].served.hit_tokens


@pytest.mark.parametrize("name", ["lru", "belady"])
def test_each_replica_has_a_cache_of_its_own(name):
    """As in two servers, between which a router has divided the sessions."""
    workload = one_at_a_time(5)
    settings = [*CHUNKS, "store.ssd=0GB", "deployment.replicas=2"]
    found = served(workload, 130, *settings, f"store.dram={160 * CHUNK}B", f"store.eviction={name}")
    assert set(found["replica"]) == {0, 1}
    both = curved(workload, name, 160, *settings, f"store.hbm={131 * CHUNK}B")
    assert both == (found["cached_tokens"].sum(), found["dram_tokens"].sum())
    assert both > curved(workload, name, 160, *settings, f"store.hbm={131 * CHUNK}B", "deployment.replicas=1")


@pytest.mark.parametrize(
    ("settings", "tier", "policies", "message"),
    [
        ([], "dram", ["lookahead"], "goes by the job queue.*compare --vary store.eviction=lru,lookahead"),
        ([], "dram", ["lru2"], "unknown eviction policy 'lru2'.*or the mode's own lru, arc, optimal"),
        ([], "hbm", ["fifo"], "store.mode=vllm has lru, optimal in HBM.*--tier dram"),
        (["store.mode=kvcache-simulator"], "dram", ["gdsf"], "has lru, fifo, optimal in DRAM, which goes by the rules of the mode alone"),
        (["model=gpt-oss-20b"], "hbm", ["optimal"], "no bound"),
        (
            [
                "store.dram=0GB",
                "store.ssd=0GB",
                "store.tiers=[{name: hbm}, {name: cxl, size: 1GB, read: 10GB/s, write: 10GB/s, latency: 1us, price: 0.001USD/GB/h}]",
            ],
            "dram",
            ["gdsf"],
            "store.tiers has no dram",
        ),
        (["deployment.replicas=2", "router=least-loaded"], "hbm", [], "router=least-loaded"),
    ],
)
def test_what_does_not_apply_is_said(small, settings, tier, policies, message):
    with pytest.raises(ConfigError, match=message):
        block_curve(small("store.unit=block", *SERVER, *settings), tier, ["1GB"], policies)


def test_contexts_say_who_asks_and_when():
    workload = one_at_a_time(6)
    contexts = block_contexts(workload, 8)
    order = np.argsort(workload.arrival_s)
    assert [path.session for path in contexts.paths] == workload.session[order].tolist()
    assert contexts.times_s == sorted(workload.arrival_s)
    assert isinstance(contexts, BlockContexts) and len(contexts.by([0] * workload.sessions)) == 1


@pytest.mark.parametrize(
    ("settings", "tier", "why"),
    [
        (["engine=vllm"], None, None),
        (["engine=vllm"], "hbm", None),
        (["engine=vllm"], "ssd", "SSD below other tiers is not replayed"),
        (["engine=lmcache"], "ssd", None),
        (["engine=hicache"], None, None),
        (["engine=sglang"], "dram", None),
        (["engine=vllm", "workload.clients.outstanding=2"], None, "clients"),
        (["engine=vllm", "model=gpt-oss-20b", "deployment.gpus=1"], None, "windows and states"),
        (["engine=vllm", "model=gpt-oss-20b", "deployment.gpus=1"], "hbm", None),
        (["engine=vllm", "store.save=sync"], None, "not simulated"),
        ([], None, "store.unit=session"),
        (["store.unit=block"], "ssd", None),
    ],
)
def test_curves_of_servers_of_blocks_are_of_blocks_where_they_can_be_replayed(settings, tier, why):
    found = why_sessions(load("default", ["model=llama-3.1-8b", "hardware=h100-80g-x8", "prices=rent-2026", *settings]), tier)
    assert (found is None) == (why is None) and (why or "") in (found or "")


def test_a_curve_of_a_server_draws_its_policy_and_the_bound(small):
    drawn = [
        block_curve(load("default", ["engine=vllm", "workload.sessions=20", *more]), None, ["64GB"], [])
        for more in ([], ["store.eviction=s3-fifo"], ["store.eviction=lookahead"])
    ]
    assert [(each.tier, each.policies) for each in drawn] == [("dram", [name, "optimal"]) for name in ("lru", "s3-fifo", "lru")]
    said = [account(each) for each in drawn]
    assert [line["orders"] for line in said[1]["lines"]] == ["sessions", "bound"] and said[0]["lines"][0]["orders"] == "blocks"
    assert [line["foresees"] for line in said[0]["lines"]] == [False, True]
    assert not [each for each in said[0]["notes"] if "is not drawn" in each]
    assert "store.eviction=lookahead is not drawn." in said[2]["notes"]
    assert said[0]["pool_bytes"] == resolve(drawn[0].config).hbm_budget and said[0]["below"] == format_bytes(said[0]["pool_bytes"])


def test_the_command_draws_policies_of_sessions_on_blocks(tmp_path):
    asked = ["curve", "--set", "engine=vllm", "--set", "workload.sessions=20", "--set", "store.hbm=1GB"]
    asked += ["--sizes", "1GB,64GB", "--policies", "fifo,optimal"]
    shown = CliRunner().invoke(app, [*asked, "--out", str(tmp_path / "c")])
    assert shown.exit_code == 0 and "optimal stored" in shown.stdout, shown.output
    said = " ".join(shown.stdout.split())
    assert "fifo: who leaves is a session, from its last block on" in said and "optimal is no policy" in said
    said = (tmp_path / "c" / "report.md").read_text()
    assert "(fifo)" in said and "(optimal)" not in said, "the bound is no answer"
    for extra, message in ((["--policies", "lookahead"], "goes by the job queue"), (["--jobs", "2"], "goes with --unit session")):
        refused = CliRunner().invoke(app, [*asked, *extra])
        assert refused.exit_code == 2 and message in refused.stderr


def test_a_page_says_what_hbm_hits_without_what_is_below_it():
    """Of a handful of sessions all, which no DRAM is bought for; where it keeps little of them, what DRAM adds."""
    said = []
    for more in ([], ["store.hbm=1GB"]):
        found = account(block_curve(load("default", ["engine=vllm", "workload.sessions=20", *more]), None, ["1GB", "256GB"], []))
        first = found["lines"][0]["points"][0]
        said.append(" ".join(_finding(found)))
        assert f"HBM alone hits {percent(first['hit_rate.tokens'] - first['hit_rate.below'])} of all prompt tokens" in said[-1]
    assert "No DRAM is needed for that within a point." in said[0] and "of DRAM" not in said[0]
    assert "256GB of DRAM come within a point of that (lru)" in said[1] and "No DRAM" not in said[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policies", "lru,optimal", "--set", "store.threshold=2"], r"optimal: this curve .*\(servers of blocks are not.*--unit block"),
        (["--policies", "optimal", "--tier", "ssd"], r"optimal: this curve is of whole sessions \(SSD below other tiers is not replayed\)"),
        (["--tier", "hbm", "--set", "store.save=sync"], r"--tier hbm: this curve is of whole sessions \(.*not simulated.*--unit block"),
    ],
)
def test_why_a_curve_is_of_sessions_is_said_where_it_has_not_what_is_asked_for(options, message):
    refused = CliRunner().invoke(app, ["curve", "--set", "engine=vllm", *options])
    assert refused.exit_code == 2 and re.search(message, " ".join(refused.stderr.split())), refused.stderr


def test_belady_keeps_nobody_for_a_prompt_that_the_pool_has_no_room_for():
    """DRAM for two of three sessions: the first is the next to come back, but with a prompt that is not served."""
    session, prompts, times = [0, 0, 1, 1, 2, 2], [17, 100, 17, 5, 17, 5], np.array([0.0, 3.0, 1.0, 4.0, 2.0, 5.0])
    workload = replace(untimed(session, prompts, [0] * 6), arrival_s=times, gap_s=np.zeros(6), open_loop=True)
    assert curved(workload, "belady", 4, "store.block_tokens=8", f"store.hbm={4 * CHUNK}B") == (32, 32)
