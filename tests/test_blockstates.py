"""Servers of blocks for models with layers that keep a state: groups of blocks in one pool, of which some hold one state each."""

import json
from fractions import Fraction

import numpy as np
import pytest
from test_blockengine import requests
from test_blockwindows import SERVER, Range, mutated, overlapping, that_begin_alike, the_blocks_before, without_what_a_step_needed
from test_blockwindows import ran as ran_with

from kvplan.hwmodels import catalogue, kvsize
from kvplan.sim.blockpool import block_pool
from kvplan.sim.config import ConfigError, load
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import guards
from kvplan.sim.layergroups import layout
from kvplan.sim.replay.blockcurve import block_curve
from kvplan.sim.simulation import simulate
from kvplan.sim.store.blocks.runs import Runs
from kvplan.sim.store.blocks.states import StatesPool
from kvplan.sim.store.blocks.windows import Groups, WindowsPool
from kvplan.traces.blockpaths import block_contexts

MODEL = {
    "model_type": "qwen3_next",
    "num_hidden_layers": 12,
    "hidden_size": 1024,
    "intermediate_size": 1024,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
}
"""Of a layer a token takes 128 bytes, and a state 1,408, those of 11 tokens: blocks have 16, the least that kernels take."""
BLOCK = 16 * 3 * 128
ALONE = ["store.dram=0GB", "store.ssd=0GB"]
GROUPS = Groups(1, 3, 2, states=True)


@pytest.fixture
def model(tmp_path):
    """The setting that names it."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    return f"model={tmp_path / 'config.json'}"


def ran(model, workload, usable, *overrides, **given):
    """A run with so many blocks; those of 8 tokens that are asked for become larger."""
    return ran_with(model, workload, usable, *overrides, block=BLOCK, **given)


@pytest.mark.parametrize(
    ("name", "gpus", "dtype", "tokens", "padding"),
    [
        ("qwen3.5-35b-a3b", 1, None, 1056, "0.0076"),
        ("qwen3.5-35b-a3b", 2, None, 1056, "0.0076"),
        ("qwen3.5-35b-a3b", 4, None, 528, "0.0076"),
        ("qwen3.5-27b", 1, None, 784, "0.0013"),
        ("qwen3.5-27b", 1, "fp8", 1568, "0.0013"),
    ],
)
def test_blocks_have_the_tokens_that_vllm_says(name, gpus, dtype, tokens, padding):
    """Its log: "Setting attention block size to 1056 tokens", "Padding mamba page size by 0.76%"; that of 4 GPUs is of models with as many
    heads a GPU, and that of FP8 follows."""
    entry = kvsize.in_dtype(catalogue.load("model", name), dtype)
    found = layout(entry, kvsize.hbm_footprint(entry, gpus), dense=False)
    size = kvsize.state_layers(entry) // found.groups.windowed
    page, state = Fraction(tokens * found.token_bytes, size), Fraction(kvsize.state_bytes(entry), kvsize.state_layers(entry))
    assert found.least_tokens == tokens and (found.groups.full, found.groups.windowed) == (1, 3)
    assert f"{float(page / state - 1):.4f}" == padding


def test_the_hbm_of_a_conversation(workload):
    """Qwen3.5-35B-A3B: 10,000 tokens are in ten blocks of 1,056, each 10 layers x 2,048 bytes a token, and 30 states in three others, one
    of each group for all its ten layers. A prefill also has the three that it goes on from, and three before its end."""
    loaded = load("chat-2026", ["engine=vllm", "model=qwen3.5-35b-a3b", "deployment.gpus=2", *ALONE, "warmup_turns=0"])
    table = workload([[(10_000, 5)]])
    pool = block_pool(loaded, resolve(loaded, table), table)
    assert pool.block_bytes == 1056 * 10 * 2048 == 21_626_880 > 64_389_120 / 3
    assert pool.empty().needed(10_000) * pool.block_bytes == 13 * 21_626_880 == 281_149_440
    assert pool.empty().alone(10_000, 10_000) == 19


def test_a_job_has_one_state_and_up_to_three_while_it_is_prefilled():
    """That before its end, that at its end, and that which it goes on from."""
    pool = StatesPool(GROUPS, 200, 16)
    assert [pool.needed(tokens) for tokens in (1, 16, 17, 800)] == [4, 4, 5, 53]
    assert [pool.alone(tokens, 900) for tokens in (1, 16, 17, 33, 800)] == [60, 60, 63, 66, 66]
    use = pool.begin(Range(100), 801)
    assert pool.in_use == 51 + 2 * 3
    pool.computed(use, 801)
    pool.decodes(use, 802, 0.0)
    assert pool.in_use == 51 + 3 and pool.held == 50 + 3
    assert pool.reach(Range(100), 801) == (50, 50)
    assert [pool.taken(Range(100), tokens, tokens) for tokens in (801, 817, 833)] == [1 + 2 * 3, 2 + 3 * 3, 3 + 3 * 3]


A, B = Range(100), [*range(1000, 1100)]


@pytest.mark.parametrize(("usable", "found"), [(21, 0), (22, 48)])
def test_what_a_request_goes_on_from_is_the_last_to_go(usable, found):
    """vLLM 0.33.0's own classes give these hits. Of 49 tokens each context leaves three blocks of full attention and three states. To go
    on from one to 97 takes four blocks and six for states, and 22 have that many without a name: of 21 the other context's last goes."""
    pool = StatesPool(GROUPS, usable, 16)
    assert [pool.request(*each) for each in ((A, 49), (B, 49), (A, 97), (B, 49))] == [0, 0, 48, found]


@pytest.mark.parametrize(("usable", "found"), [(24, 0), (25, 48)])
def test_a_junction_takes_states_of_its_own(usable, found):
    """The same. A turn of 49 tokens with an answer of 41 leaves five blocks and three states, another context three of each. The next, of
    110, finds 48 and stops at 80 and 96: it takes four blocks, of which two are there twice then, and nine for states. Three of 24 blocks
    lose their names: the two, and the other context's last one."""
    pool = StatesPool(GROUPS, usable, 16)
    use = pool.begin(A, 49)
    pool.computed(use, 49)
    pool.decoded(use, 49, 90, 0.0)
    pool.computed(use, 90)
    pool.end(use, 90)
    assert [pool.request(*each) for each in ((B, 49), (A, 110), (B, 49))] == [0, 48, found]


@pytest.mark.parametrize(("usable", "found"), [(19, 0), (20, 48)])
def test_an_answer_that_begins_a_block_has_two_states_for_a_step(usable, found):
    """The same. Beside another context's six blocks an answer from 50 to 70 tokens is in seven, and has left three; its 65th token takes
    one and three more."""
    pool = StatesPool(GROUPS, usable, 16)
    assert pool.request(B, 49) == 0
    use = pool.begin(A, 50)
    pool.computed(use, 50)
    pool.decoded(use, 50, 70, 0.0)
    assert pool.in_use == 8 and pool.empty == 0
    pool.end(use, 70)
    assert pool.request(B, 49) == found


def test_a_conversation_is_found_at_block_boundaries(model, workload):
    """Of 100 tokens the state after 96 is kept, and none of the answer. The second turn finds that, and keeps what full attention had of
    the answer, 128 of 140 tokens, and the end of its own prompt, 160 of 164; the third finds that."""
    found = ran(model, workload([[(100, 40), (24, 36), (24, 9)]], gap_s=99.0), 400).columns
    assert found["cached_tokens"].tolist() == [0, 96, 160]


def test_a_prompt_of_full_blocks_keeps_the_state_before_its_last(model, workload):
    """A lookup of the same 96 tokens leaves one to compute, so its prefill stops at 80, and the second turn finds that. It keeps the place
    where full attention ends, 128, and its own end, 144; the third finds that."""
    found = ran(model, workload([[(96, 40), (20, 36), (24, 9)]], gap_s=99.0), 400).columns
    assert found["cached_tokens"].tolist() == [0, 80, 144]


def test_a_prompt_is_found_where_prompts_part(model):
    shared, rest = [*range(10)], [*range(100, 110)]
    contexts = [[*shared, *rest], [*shared, 7, 8, 9], [*shared, 1, 2], [*shared, *rest]]
    found = ran(model, requests(*contexts, prompts=[159, 104, 96, 160]), 400).columns
    assert found["cached_tokens"].tolist() == [0, 0, 80, 144]


@pytest.mark.parametrize("seed", range(3))
def test_requests_one_at_a_time_hit_what_a_replay_hits(model, seed):
    workload = that_begin_alike(seed, 24)
    pool, paths = StatesPool(GROUPS, 60, 16), block_contexts(workload, 16)
    hits = [pool.request(*each) for each in zip(paths.paths, paths.tokens, strict=True)]
    assert ran(model, workload, 60).columns["cached_tokens"].tolist() == hits and sum(map(bool, hits)) > 20
    curve = block_curve(load("default", [model, "store.unit=block", "deployment.gpus=1"]), "hbm", ["61blocks"], [], lambda _: workload)
    (point,) = curve.points
    assert point.found["lru"].served.hit_tokens == sum(hits) and curve.block_bytes == BLOCK


@pytest.mark.pure
@pytest.mark.parametrize(
    ("owner", "method", "mutate", "number"),
    [
        (Runs, "name_within", the_blocks_before, 6),
        (WindowsPool, "decodes", without_what_a_step_needed, 1),
    ],
)
def test_guards_hold_states(monkeypatch, model, owner, method, mutate, number):
    mutated(monkeypatch, owner, method, mutate)
    with pytest.raises(guards.GuardError, match=f"invariant {number}:"):
        ran(model, overlapping(2, most=28), 200)


@pytest.mark.parametrize("settings", [["deployment.step_tokens=16"], ["batching=iteration"], ["store.hbm=60kB"]], ids=" ".join)
@pytest.mark.parametrize("admission", ["prompt", "answer", "share"])
def test_blocks_are_conserved_whoever_overlaps(monkeypatch, model, admission, settings):
    """Under guards, which count every block after every step."""
    monkeypatch.setattr(guards, "_FULL_CHECK_EVERY", 1)
    for seed, usable in enumerate((40, 90)):
        found = ran(model, overlapping(seed, most=28), usable, f"deployment.admission={admission}", *settings).columns
        assert found["hbm_tokens"].any() and (found["cached_tokens"] < found["prompt_tokens"]).all()


@pytest.mark.parametrize(
    ("admission", "usable", "seed"),
    [("prompt", 28, 0), ("prompt", 32, 0), ("prompt", 32, 11), ("share", 32, 0), ("share", 28, 1), ("answer", 28, 0), ("answer", 48, 6)],
)
def test_runs_equal_single_steps(model, admission, usable, seed):
    """With a pool so small that jobs give way, and who waits needs less when growing answers have taken what it would have found."""
    fast, slow = (
        ran(model, overlapping(seed), usable, f"deployment.admission={admission}", "deployment.step_tokens=64", longest_run=longest)
        for longest in (None, 1)
    )
    for name in fast.columns:
        np.testing.assert_allclose(fast.columns[name], slow.columns[name], rtol=1e-9, err_msg=name)
    assert seed or admission == "answer" or fast.columns["preemptions"].any()
    assert fast.ended[0].sums["hbm.byte_seconds"] == pytest.approx(slow.ended[0].sums["hbm.byte_seconds"], rel=1e-2)


@pytest.mark.parametrize(("admission", "usable", "steps"), [("prompt", 17, 4), ("prompt", 16, 15), ("answer", 16, 15), ("prompt", 15, 15)])
def test_who_waits_enters_when_an_answer_has_taken_what_it_would_go_on_from(model, workload, admission, usable, steps):
    """A turn of 20 tokens with an answer to 36 leaves two blocks of full attention, and three of the state after 16. One of 17 with an
    answer to 46 decodes in five, and has left three. The first session goes on with 45 tokens: from that state it takes six blocks, and six
    for states of two steps. 17 have as many. Of 16 eleven are free, three of them without a name; the 33rd token takes one, and three for a
    step, so a state goes. It begins anew, as no step has to end at the state before its end: it takes nine, and ten are free."""

    def found(at_s):
        turns = workload([[(20, 16), (9, 1)], [(17, 29)]], arrivals=[0.0, at_s], gap_s=1.0)
        return ran(model, turns, usable, f"deployment.admission={admission}").columns

    columns = found(found(50.0)["arrival_s"][1] - 6e-3)
    (_, enters_s, _), first_s = columns["admitted_s"], columns["first_token_s"][2]
    step_s = resolve(load("default", [model, *SERVER, *ALONE])).steps.decode(1, 18, 1)
    assert enters_s - first_s == pytest.approx(steps * step_s, rel=1e-3)
    assert columns["cached_tokens"].tolist() == [0, 16 * (usable == 17), 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["store.mode=sglang"], "states, which are simulated by vLLM's rules alone"),
        (["store.ttl_s=60"], "states, whose blocks are simulated without store.ttl_s"),
        (["store.retention=dense"], "states, of which servers are simulated that keep what is before the ends"),
    ],
)
def test_what_states_are_not_simulated_with(model, settings, message):
    with pytest.raises(ConfigError, match=message):
        simulate(load("default", [model, "deployment.gpus=1", "store.unit=block", *ALONE, "store.eviction=lru", *settings]))


@pytest.mark.parametrize("settings", [["store.mode=sglang"], ["store.retention=dense"]])
def test_what_is_not_replayed(model, settings, workload):
    loaded, table = load("default", [model, "deployment.gpus=1", "store.unit=block", *settings]), workload([[(9, 1)]])
    with pytest.raises(ConfigError, match="layers that keep states: blocks of them are replayed in vLLM's pool"):
        block_curve(loaded, None, [], [], lambda _: table)
