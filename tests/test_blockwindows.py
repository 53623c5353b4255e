"""Servers of blocks for models with layers that attend to a window: groups of blocks in one pool."""

import json
from dataclasses import replace
from random import Random

import literal_blocks as literal
import numpy as np
import pytest
from test_blockengine import MOONCAKE, one_at_a_time, requests

from kvplan.sim.blockpool import block_pool
from kvplan.sim.config import load
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import guards
from kvplan.sim.engine.service import run_service
from kvplan.sim.metrics.output import RunInput
from kvplan.sim.store.blocks.runs import Runs
from kvplan.sim.store.blocks.states import StatesPool
from kvplan.sim.store.blocks.windows import Groups, WindowsPool
from kvplan.traces import read_trace
from kvplan.traces.blockpaths import block_contexts

WINDOW = 20
"""Of two layers in three."""
MODEL = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 12,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 4,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 4096,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
    "sliding_window": WINDOW,
    "torch_dtype": "bfloat16",
}
BLOCK = 8 * 4 * 2 * 4 * 128 * 2
"""Bytes of 8 tokens in a group, of four layers."""
SERVER = ["hardware=h100-80g-x8", "deployment.gpus=1", "prices=rent-2026", "batching=chunked", "store.unit=block", "store.block_tokens=8"]
ALONE = ["store.dram=0GB", "store.ssd=0GB"]


@pytest.fixture
def model(tmp_path):
    """The setting that names it."""
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    return f"model={tmp_path / 'config.json'}"


def ran(model, workload, usable, *overrides, block=BLOCK, **given):
    """A run with so many blocks."""
    config = load("default", [model, *SERVER, *ALONE, *overrides])
    deployment = resolve(config, workload)
    assert block_pool(config, deployment, workload).block_bytes == block
    (hbm,) = deployment.tiers
    budget = (usable + 1) * block
    deployment = replace(deployment, hbm_budget=budget, tiers=(replace(hbm, capacity=budget),))
    return run_service(RunInput(config, deployment, workload, **given))


def overlapping(seed, requested=120, most=14, longest=60):
    draw = np.random.default_rng(seed)
    lengths, answers = draw.integers(1, most, requested), draw.integers(0, longest, requested).tolist()
    contexts = [np.where(np.arange(length) < draw.integers(1, most), 7, draw.integers(0, 3)) for length in lengths]
    prompts = (8 * lengths - draw.integers(0, 8, requested)).tolist()
    return requests(*contexts, prompts=prompts, answers=answers, apart_s=float(draw.choice([1e-4, 1e-3, 1e-2])))


def test_a_job_has_of_windows_what_they_reach():
    """Of 8 tokens a block a window of 20 reaches into three before a token's own. A prefill has what a step needs besides."""
    pool = WindowsPool(Groups(1, 2, WINDOW), 200, 8, None, 32)
    assert [pool.needed(tokens) for tokens in (1, 8, 9, 32, 33, 800)] == [3, 3, 6, 12, 5 + 8, 100 + 8]
    assert pool.alone(800, 900) == 113 + 8 + 2 * (8 - 4), "51 tokens of the window and the step are in 8 blocks at most"
    use = pool.begin(Range(100), 800)
    assert pool.in_use == 100 + 2 * 8
    pool.grow(1)
    pool.computed(use, 800)
    assert pool.decodes(use, 801, 0.0) == (97 + 4) * 8 + 1, "block 97 leaves when there are four behind it, and one begins"
    assert pool.in_use == 101 + 2 * 4


class Range:
    """Names of a context's blocks."""

    def __init__(self, blocks):
        self.blocks = blocks

    def __len__(self):
        return self.blocks

    def __getitem__(self, block):
        return block


def test_a_prompt_is_found_at_its_end_and_where_prompts_part(model):
    """Windows keep the end of the first prompt. The second finds its ten first blocks in full attention alone, and keeps what is before the
    place where it parts; the third finds that, and the fourth what the first has left."""
    shared, rest = [*range(10)], [*range(100, 110)]
    contexts = [[*shared, *rest], [*shared, 7, 8, 9], [*shared, 1, 2], [*shared, *rest]]
    found = ran(model, requests(*contexts, prompts=[160, 104, 96, 160]), 400).columns
    assert found["cached_tokens"].tolist() == [0, 0, 80, 152]


def test_an_answer_is_found_where_its_session_has_gone_on_once(model, workload):
    """Windows keep no end of an answer: the second turn finds 96 of the first prompt's 100 tokens, the third 160 of the second's 164."""
    found = ran(model, workload([[(100, 40), (24, 36), (24, 9)]], gap_s=99.0), 400).columns
    assert found["cached_tokens"].tolist() == [0, 96, 160]
    every = ran(model, workload([[(100, 40), (24, 36), (24, 9)]], gap_s=99.0), 400, "store.windows=every-token", block=3 * BLOCK).columns
    assert every["cached_tokens"].tolist() == [0, 136, 200]


def that_begin_alike(seed, most):
    """Requests whose contexts have fewer than so many hashes, the first of them the same."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, most, 80)
    contexts = [np.where(np.arange(length) < draw.integers(1, most), 7, draw.integers(0, 3)) for length in lengths]
    return requests(*contexts, prompts=(8 * lengths - draw.integers(0, 8, 80)).tolist())


@pytest.mark.parametrize("seed", range(4))
def test_requests_one_at_a_time_hit_what_a_replay_hits(model, seed):
    workload = that_begin_alike(seed, 12)
    pool, paths = WindowsPool(Groups(1, 2, WINDOW), 70, 8), block_contexts(workload, 8)
    hits = [pool.request(*each) for each in zip(paths.paths, paths.tokens, strict=True)]
    assert ran(model, workload, 70).columns["cached_tokens"].tolist() == hits and sum(map(bool, hits)) > 20


@pytest.mark.parametrize("seed", range(8))
def test_runs_of_a_window_are_its_blocks_one_by_one(seed):
    """Used, named again, left in part and evicted, by contexts that part from each other, as if each block were a run of its own."""
    draw, runs, held = Random(seed), Runs(), []
    contexts = [[(7 if at < place else number, at) for at in range(80)] for number, place in enumerate((80, 30, 30, 57, 0))]
    named, order = {}, []
    """Blocks by their keys, the first first, and those that nobody uses; each is [key, place, users]."""
    for _ in range(300):
        path, (start, stop) = draw.choice(contexts), sorted(draw.sample(range(81), 2))
        what = draw.choice(["use", "name", "leave", "leave", "evict"])
        if what == "use":
            mine = [named[path[at]][0] for at in range(start, stop) if path[at] in named]
            for block in mine:
                block[2] += 1
            order = [block for block in order if not block[2]]
            held.append((runs.take_within(path, start, stop), mine))
        elif what == "name":
            mine = [[path[at], at, 1] for at in range(start, stop)]
            for block in mine:
                named.setdefault(block[0], []).append(block)
            held.append((runs.name_within(path, start, stop, 1), mine))
        elif what == "leave" and held:
            pieces, mine = held.pop(draw.randrange(len(held)))
            place = draw.choice([80, start])
            before, behind = runs.parted(pieces, place)
            held.append((behind, [block for block in mine if block[1] >= place]))
            runs.give_back(before)
            for block in reversed([block for block in mine if block[1] < place]):
                block[2] -= 1
                if not block[2]:
                    order.append(block)
        elif what == "evict":
            count = draw.randrange(len(order) + 1)
            runs.evict(count)
            for block in order[:count]:
                named[block[0]] = [other for other in named[block[0]] if other is not block]
            order, named = order[count:], {key: blocks for key, blocks in named.items() if blocks}
        assert runs.counted() == (runs.blocks, runs.used) == (len(order), sum(map(len, named.values())) - len(order))
        there = [at for at in range(start, stop) if path[at] in named]
        assert [at for _, begin, end in runs.within(path, start, stop) for at in range(begin, end)] == there
        missing = [at for at in range(start, stop) if at not in there and (at == start or at - 1 in there)]
        assert runs.until(path, start, stop) == (missing or [stop])[-1]


def test_a_window_that_moves_on_stays_one_run():
    """Of what it has used together before and what is new: its cost does not grow with its blocks."""
    runs, path = Runs(), range(1000)
    runs.give_back(runs.name_within(path, 100, 164, 1))
    runs.give_back(runs.take_within(path, 120, 164) + runs.name_within(path, 164, 184, 1))
    assert [(begin, end) for _, begin, end in runs.within(path, 0, 1000)] == [(100, 120), (120, 184)]
    runs.evict(30)
    assert [(begin, end) for _, begin, end in runs.within(path, 0, 1000)] == [(120, 174)]


def test_the_copy_named_first_is_found_whatever_it_is_given_back_with():
    """Block 0 is there twice. The first of them is free, with others named later, and the second in use."""
    runs, path = Runs(), range(9)
    first, copy, later = runs.name_within(path, 0, 4, 1), runs.name_within(path, 0, 1, 1), runs.name_within(path, 4, 6, 1)
    runs.give_back(first + later)
    assert runs.used == 1 and runs.take_within(path, 0, 1)[0].run is not copy[0].run and runs.used == 2


def one_window_less(original, self, groups, *arguments):
    original(self, groups, *arguments)
    self._reach -= 1


def the_blocks_before(original, self, path, start, stop, window):
    return original(self, path, max(0, start - 1), max(1, stop - 1), window)


def without_what_a_step_needed(original, self, use, tokens, now):
    use.ahead = 0
    return original(self, use, tokens, now)


def mutated(monkeypatch, owner, method, mutate):
    """A class whose method is another, which is given the original."""
    original = getattr(owner, method)
    monkeypatch.setattr(owner, method, lambda self, *arguments: mutate(original, self, *arguments))


@pytest.mark.pure
@pytest.mark.parametrize(
    ("owner", "method", "mutate", "number"),
    [
        (WindowsPool, "__init__", one_window_less, 6),
        (Runs, "name_within", the_blocks_before, 6),
        (WindowsPool, "decodes", without_what_a_step_needed, 1),
    ],
)
def test_guards_hold_windows(monkeypatch, model, owner, method, mutate, number):
    mutated(monkeypatch, owner, method, mutate)
    with pytest.raises(guards.GuardError, match=f"invariant {number}:"):
        ran(model, overlapping(2), 200)


PUBLIC = Groups(1, 1, 1024)


@pytest.mark.skipif(not MOONCAKE.exists(), reason="the Mooncake trace is not on this machine")
def test_a_server_hits_what_vllm_hits_on_a_public_trace(tmp_path):
    """As `kvplan curve` replays it, and as the real classes do, which are told of no place where prompts part."""
    windowed = {**MODEL, "num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 1024}
    (tmp_path / "config.json").write_text(json.dumps({**windowed, "max_position_embeddings": 200_000}))
    trace = one_at_a_time(read_trace(MOONCAKE))
    columns = ran(
        f"model={tmp_path / 'config.json'}", trace, 4096, "store.block_tokens=512", "batching=iteration", block=512 * 2 * 4 * 128 * 2
    ).columns
    pool, paths = WindowsPool(PUBLIC, 4096, 512), block_contexts(trace, 512)
    assert columns["cached_tokens"].tolist() == [pool.request(*each) for each in zip(paths.paths, paths.tokens, strict=True)]


SETTINGS = [["deployment.step_tokens=16"], ["deployment.step_tokens=64"], ["batching=iteration"], ["store.hbm=2MB"]]


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
@pytest.mark.parametrize("admission", ["prompt", "answer", "share"])
def test_blocks_are_conserved_whoever_overlaps(monkeypatch, model, admission, settings):
    """Under guards, which count every block after every step."""
    monkeypatch.setattr(guards, "_FULL_CHECK_EVERY", 1)
    for seed, usable in enumerate((62, 90, 200)):
        found = ran(model, overlapping(seed), usable, f"deployment.admission={admission}", *settings).columns
        assert found["hbm_tokens"].any() and (found["cached_tokens"] < found["prompt_tokens"]).all()


@pytest.mark.parametrize(
    ("admission", "usable", "seed", "step"), [("prompt", 62, 0, 64), ("share", 62, 0, 64), ("prompt", 60, 5, 32), ("prompt", 44, 8, 32)]
)
def test_runs_equal_single_steps(model, admission, usable, seed, step):
    """With a pool so small that jobs give way, and that of two copies that of a running job is found when the other has gone."""
    fast, slow = (
        ran(model, overlapping(seed), usable, f"deployment.admission={admission}", f"deployment.step_tokens={step}", longest_run=longest)
        for longest in (None, 1)
    )
    for name in fast.columns:
        np.testing.assert_allclose(fast.columns[name], slow.columns[name], rtol=1e-9, err_msg=name)
    assert fast.columns["preemptions"].any()
    assert fast.ended[0].sums["hbm.byte_seconds"] == pytest.approx(slow.ended[0].sums["hbm.byte_seconds"], rel=5e-3)


def test_after_turns_that_took_no_time_the_others_find_what_they_would_have_found(model):
    draw = np.random.default_rng(1)
    lengths = draw.integers(1, 9, 120)
    contexts = [np.where(np.arange(length) < draw.integers(1, 9), 7, draw.integers(0, 4)) for length in lengths]
    workload = requests(*contexts, prompts=(8 * lengths - draw.integers(0, 8, 120)).tolist(), answers=draw.integers(1, 60, 120).tolist())
    whole, rest = (ran(model, workload, 80, passing=passing).columns for passing in (0, 70))
    assert whole["cached_tokens"][70:].tolist() == rest["cached_tokens"][70:].tolist() and whole["cached_tokens"][70:].any()


class _Both:
    """A pool and a literal one, for the same requests."""

    def __init__(self, draw, states):
        size, window, full, windowed, step = (draw.randint(*ends) for ends in ((1, 3), (2, 9), (1, 2), (1, 2), (1, 9)))
        self.size, self.usable, groups = size, draw.randint(30, 90), Groups(full, windowed, 2 if states else window, states=states)
        self.fast = (StatesPool if states else WindowsPool)(groups, self.usable, size, None, step)
        self.slow, self.running = literal.SharedWindows(self.usable, size, window, full, windowed, step, states), []

    def begin(self, text, answer):
        tokens, context, path = len(text), len(text + answer), full_blocks(text + answer, self.size)
        taken = self.slow.taken(path, tokens, context)
        assert self.fast.taken(path, tokens, context) == taken
        if taken <= self.fast.free:
            use, job = self.fast.begin(path, tokens), self.slow.begin(path, tokens, context)
            self.fast.grow(self.fast.needed(context) - self.fast.needed(tokens))
            assert use.hit == job["known"]
            self.running.append(
                (use, job, [(tokens, self.fast.decodes), *((each, self.fast.goes_on) for each in range(tokens + 1, context + 1))])
            )

    def go_on(self, number):
        """One that runs has computed its prompt, or a token more of its answer; then it has ended."""
        place = number % len(self.running)
        use, job, due = self.running[place]
        if not due:
            self.running.pop(place)
            self.fast.computed(use, job["context"])
            self.slow.computed(job, job["context"])
            self.fast.end(use, job["context"])
            self.slow.end(job)
            return
        tokens, moves_on = due.pop(0)
        if moves_on == self.fast.decodes:
            self.fast.computed(use, tokens)
            self.slow.computed(job, tokens)
        moves_on(use, tokens, 0.0)
        self.fast.grow(0)
        self.slow.decodes(job, tokens)
        if self.slow.states and (tokens - 1) % self.size == 0:
            self.slow.begins_a_block()

    def check(self):
        assert self.fast.free == len(self.slow.free) and self.fast.held == len(self.slow.name)


def full_blocks(text, size):
    return [text[: (block + 1) * size] for block in range(len(text) // size)]


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_requests_that_overlap_have_the_blocks_of_a_literal_pool(seed, states):
    draw = Random(seed)
    both = _Both(draw, states)
    for _ in range(600):
        if both.running and draw.random() < 0.7:
            both.go_on(draw.randrange(9))
        else:
            both.begin("".join(draw.choices("ab", (8, 1), k=draw.randint(1, 24))), draw.choice(["", "c", "cdcdcd"]))
        both.check()
