"""Batching policies against arithmetic: what a step holds decides who waits for whom, and for how long."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan.hwmodels import kvsize, units
from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.engine.batch import Job
from kvplan.sim.engine.growth import Even
from kvplan.sim.engine.sharing import SharingBatch
from kvplan.sim.policies import registry
from kvplan.sim.policies.base import Limits
from kvplan.sim.report import table as report
from kvplan.sim.simulation import simulate
from kvplan.sim.stepbudget import step_budget
from kvplan.traces.workload import untimed

NO_STORE = ("store.dram=0GB", "store.ssd=0GB")
PACKED = ("chunked", "prefill-first")
ASYNCHRONOUS = ("store.load_mode=asynchronous", "store.load=always")
TOKENS = 256


def served(batching, sessions, arrival_s=None, *overrides, **given):
    """Sessions of one turn, (prompt, answer) each: the step times and the columns of the run."""
    loaded = config.load(None, [f"batching={batching}", f"deployment.step_tokens={TOKENS}", *NO_STORE, *overrides])
    table = untimed(list(range(len(sessions))), *map(list, zip(*sessions, strict=True)))
    workload = table.with_times(np.array(arrival_s or [0.0] * len(sessions)), np.zeros(len(sessions)))
    return resolve(loaded, workload).steps, simulate(loaded, workload, **given).columns


def served_together(batching, sessions, *overrides):
    """The same of sessions whose turns all wait when a step begins, at time 0 of what is returned."""
    steps, columns = served(batching, [(1, 1), *sessions], [0.0, *[1e-6] * len(sessions)], *overrides)
    times = {name: columns[name][1:] - steps.prefill(1) for name in ("admitted_s", "first_token_s", "done_s")}
    return steps, times | {name: columns[name][1:] for name in columns if name == "preemptions"}


def in_chunks(steps, new, size=TOKENS, batch=0, context=0):
    """Seconds of a prompt that goes in chunks of one size, beside so many decodes."""
    starts = range(0, new, size)
    return sum(steps.step([(min(size, new - start), start)], batch, context + batch * place) for place, start in enumerate(starts))


@pytest.mark.parametrize("batching", PACKED)
@pytest.mark.parametrize("new", [1, 255, 256, 257, 1000, 1024])
def test_a_request_alone_takes_its_steps(batching, new):
    """As many steps as the budget goes into its prompt, and the time to its first token is their sum."""
    steps, columns = served(batching, [(new, 5)])
    assert columns["first_token_s"][0] == pytest.approx(in_chunks(steps, new), rel=1e-12)
    assert columns["done_s"][0] - columns["first_token_s"][0] == pytest.approx(steps.decode(1, new + 1, 4), rel=1e-9)


@pytest.mark.parametrize("batching", PACKED)
def test_decodes_alone_take_the_time_of_their_batch(batching):
    """B equal jobs that came at once share their steps: of prefill, and then of decoding."""
    steps, columns = served_together(batching, [(50, 40)] * 5)
    first = columns["first_token_s"]
    assert first.tolist() == pytest.approx([steps.step([(50, 0)] * 5)] * 5, rel=1e-12)
    assert columns["done_s"] - first == pytest.approx([steps.decode(5, 5 * 51, 39)] * 5, rel=1e-9)


def test_decodes_come_first_and_each_chunk_delays_them():
    """Beside R decodes a prompt of P tokens takes ceil(P / (T − R)) steps."""
    decoding, new = 6, 1000
    steps, columns = served("chunked", [(20, 400)] * decoding + [(new, 1)], [0.0] + [1e-6] * (decoding - 1) + [0.5])
    both = columns["first_token_s"][1]  # the first job had a step of its own, and is a token ahead
    before = steps.steps_until(decoding, decoding * 21 + 1, 0.5 - both)
    context = decoding * (21 + before) + 1
    took = columns["first_token_s"][-1] - columns["admitted_s"][-1]
    assert took == pytest.approx(in_chunks(steps, new, TOKENS - decoding, decoding, context), rel=1e-9)
    chunks = -(-new // (TOKENS - decoding))
    after = steps.decode(decoding, context + decoding * chunks, 398 - before - chunks)
    assert columns["done_s"][0] == pytest.approx(columns["first_token_s"][-1] + after, rel=1e-9)


def test_prefill_first_holds_up_the_decodes_for_a_whole_prompt():
    """The job that decodes waits for all chunks of the other's prompt, and both decode after that."""
    steps, columns = served("prefill-first", [(20, 400), (1000, 1)], [0.0, 0.5])
    before = steps.steps_until(1, 21, 0.5 - columns["first_token_s"][0])
    spike = columns["first_token_s"][1] - columns["admitted_s"][1]
    assert spike == pytest.approx(in_chunks(steps, 1000), rel=1e-9)
    alone = columns["done_s"][0] - columns["first_token_s"][0] - spike
    assert alone == pytest.approx(steps.decode(1, 21, before) + steps.decode(1, 21 + before, 399 - before), rel=1e-9)


def test_one_prompt_at_a_time_is_in_parts():
    """What does not fit beside others goes on in the next step before those that came later."""
    steps, columns = served_together("prefill-first", [(100, 1), (300, 1), (100, 1)])
    first = steps.step([(100, 0), (156, 0)])
    assert columns["first_token_s"].tolist() == pytest.approx([first, *[first + steps.step([(144, 156), (100, 0)])] * 2], rel=1e-12)


def test_a_prompt_too_long_to_share_a_step_waits_for_its_own():
    """With 256 tokens for prompts together 200 are not begun beside 100, though the step of 512 has room for a part of them."""
    shared = ("deployment.step_tokens=512", "deployment.prefill_tokens=256")
    steps, columns = served_together("prefill-first", [(100, 1), (200, 1), (40, 1)], *shared)
    first, second = steps.prefill(100), steps.step([(200, 0), (40, 0)])
    assert columns["first_token_s"].tolist() == pytest.approx([first, first + second, first + second], rel=1e-12)
    steps, columns = served("prefill-first", [(300, 1)], None, *shared)
    assert columns["first_token_s"][0] == pytest.approx(steps.prefill(300)), "alone it goes whole"


@pytest.mark.parametrize("batching", PACKED)
def test_no_more_jobs_run_than_have_a_place(batching):
    """Two places: the third prompt waits for the first answer, however much room the step has."""
    _, columns = served_together(batching, [(10, 30)] * 3, "deployment.max_batch=2")
    assert columns["admitted_s"].tolist() == pytest.approx([0.0, 0.0, columns["done_s"][0]], abs=1e-12)


@pytest.mark.parametrize("batching", PACKED)
def test_a_hit_lowers_what_is_computed_and_not_what_attention_reads(batching, workload):
    """A cached history costs its reads in every chunk, and no arithmetic of its own."""
    loaded = config.load(None, [f"batching={batching}", f"deployment.step_tokens={TOKENS}", *NO_STORE, "store.hbm=6GB"])
    table = workload([[(3000, 10), (600, 2)]], gap_s=60)
    steps, columns = resolve(loaded, table).steps, simulate(loaded, table).columns
    took = columns["first_token_s"][1] - columns["admitted_s"][1]
    parts = [steps.step([(tokens, 3010 + 256 * place)]) for place, tokens in enumerate((256, 256, 88))]
    assert columns["cached_tokens"][1] == 3010 and took == pytest.approx(sum(parts), rel=1e-9)
    assert sum(parts) == pytest.approx(in_chunks(steps, 600) + 3010 * (3 * steps.per_history + 600 * steps.per_pair), rel=1e-9)


def tight(tokens, *overrides):
    """The setting that leaves HBM for so many tokens of KV, beside what is set aside for a store."""
    found = resolve(config.load(None, [*NO_STORE, *overrides]))
    total = found.gpus * found.gpu.hbm.value
    used = kvsize.weight_bytes(found.model) + found.hbm_kv.of(tokens) + units.parse_bytes(config.load(None, list(overrides)).store.hbm)
    return f"deployment.hbm_utilization={(used + 0.5) / total!r}"


def test_two_requests_that_outgrow_hbm_the_later_is_computed_once_more():
    """Both enter, for their prompts fit; when HBM holds no token more of each, the later one gives way, and is computed again, with what is
    out of its answer, when the first has ended."""
    steps, columns = served_together("chunked", [(20, 400), (20, 400)], tight(500))
    together = steps.step([(20, 0)] * 2) + steps.decode(2, 2 * 21, 229)
    alone = together + steps.decode(1, 250, 170)
    assert columns["first_token_s"].tolist() == pytest.approx([steps.step([(20, 0)] * 2)] * 2, rel=1e-12)
    assert columns["done_s"].tolist() == pytest.approx([alone, alone + steps.prefill(250) + steps.decode(1, 251, 169)], rel=1e-9)
    assert columns["admitted_s"].tolist() == pytest.approx([0.0, 0.0], abs=1e-12), "of the first time"
    assert columns["preemptions"].tolist() == [0, 1]


def test_nobody_gives_way_where_answers_are_reserved():
    """The same with room for whole answers: the second waits until the first has ended."""
    _, columns = served_together("chunked", [(20, 400), (20, 400)], tight(500), "deployment.admission=answer")
    assert columns["admitted_s"][1] == pytest.approx(columns["done_s"][0], abs=1e-12) and "preemptions" not in columns


def test_who_gives_way_goes_before_the_queue_and_keeps_it_waiting():
    """A short turn that would fit comes after who gave way: it is computed when that has HBM again."""
    steps, columns = served_together("chunked", [(20, 400), (20, 400), (10, 2)], tight(500), "deployment.max_batch=2")
    assert columns["preemptions"].tolist() == [0, 1, 0]
    both = columns["done_s"][0] + steps.step([(250, 0), (6, 0)])
    assert columns["admitted_s"][2] == pytest.approx(columns["done_s"][0], abs=1e-12), "in the step that computes the other again"
    assert columns["first_token_s"][2] == pytest.approx(both + steps.step([(4, 6)], 1, 251), rel=1e-9)


def test_who_entered_first_goes_before_others_that_gave_way():
    """The third gives way to two, and then the second to the first: which is computed again before the third."""
    steps, columns = served_together("chunked", [(20, 400), (20, 400), (20, 230)], tight(600))
    assert columns["preemptions"].tolist() == [0, 1, 1]
    again = steps.step([(256, 0)]) + steps.step([(44, 256), (200, 0)]) + steps.decode(2, 301 + 201, 49)
    assert columns["done_s"][2] - columns["done_s"][0] == pytest.approx(again, rel=1e-9)


def share_after(steps):
    """Of what running answers may still take, SGLang's: it falls from 0.7 to 0.098 within 600 decode steps."""
    return 0.7 - min(steps, 600) * (0.7 - 0.098) / 600


def test_a_job_enters_when_the_share_of_running_answers_leaves_room_for_its_own():
    """Its prompt and answer fit beside what the other has, and a share of what that may still write: the run of steps ends there. When both
    have outgrown HBM, that with the shorter answer so far gives way."""
    room = 719
    steps, columns = served_together("prefill-first", [(20, 400), (20, 400)], tight(room))
    waited = next(k for k in range(400) if 21 + k + share_after(k) * (399 - k) + 420 <= room)
    first = steps.prefill(20)
    assert 0 < waited < 399
    assert columns["admitted_s"].tolist() == pytest.approx([0.0, first + steps.decode(1, 21, waited)], rel=1e-9)
    assert columns["preemptions"].tolist() == [0, 1]
    together = (room - 42 - waited) // 2
    shared = steps.prefill(20) + steps.decode(2, 21 + waited + 21, together)
    alone = steps.decode(1, 21 + waited + together, 399 - waited - together)
    assert columns["done_s"][0] == pytest.approx(columns["admitted_s"][1] + shared + alone, rel=1e-9)
    again = in_chunks(steps, 21 + together) + steps.decode(1, 22 + together, 398 - together)
    assert columns["done_s"][1] == pytest.approx(columns["done_s"][0] + again, rel=1e-9)


def sharing(jobs: int, steps: int) -> tuple[SharingBatch, Job]:
    """A batch of jobs with 60 tokens to write each, that came one after the other, so many steps apart; and the last of them."""
    batch = SharingBatch(100, 9, Even(1))
    for turn in range(jobs):
        job = Job(turn, turn, 0, 5, 65, 65)
        job.left = 5
        batch.enter(job)
        batch.prefilled(job, 5)
        batch.decoded(steps)
    return batch, job


def test_jobs_give_way_until_twenty_steps_of_the_others_fit():
    """The shortest answers go first; the share is then what the others have made of their answers, and twenty steps of each."""
    batch, job = sharing(4, 1)
    batch.decoded(batch.at_most(50))
    assert (batch.hbm_used, batch.is_short) == (98, True), "and two tokens are no step of four"
    assert [job.turn for job in batch.give_way()] == [3, 2] and [job.turn for job in batch.preempted] == [2, 3]
    free, out = 100 - batch.hbm_used, batch.hbm_used - 2 * 5
    assert free >= 2 * 20
    share = (out + 2 * 20) / (2 * 60 + 1)
    assert batch.left_beside(job) == free - round(share * (2 * 65 - batch.hbm_used)) - 65


def test_who_gave_way_counts_where_the_least_loaded_replica_is_asked_for():
    """Of three turns two go to the first replica, where one gives way: the fourth goes to the second, which has one."""
    two = ("deployment.replicas=2", "router=least-loaded", tight(500), "deployment.window_tokens=500")
    sessions = [(20, 400), (20, 470), (20, 400), (10, 2)]
    steps, _ = served("chunked", sessions[:1])
    _, columns = served("chunked", sessions, [0.0, 0.0, 0.0, steps.decode(1, 21, 300)], *two)
    assert columns["preemptions"].tolist() == [0, 0, 1, 0] and columns["done_s"][1] > columns["arrival_s"][3] > columns["first_token_s"][2]
    assert columns["replica"].tolist() == [0, 1, 0, 1]


def test_of_equal_jobs_the_last_gives_way():
    """As SGLang sorts them: three came at once, and the first goes on."""
    batch, _ = sharing(3, 0)
    batch.decoded(batch.at_most(50))
    assert [job.turn for job in batch.give_way()] == [2, 1]


def test_a_prompt_that_is_being_computed_gives_way():
    """The last of those that run is in its prefill: it begins anew, and its first token comes once."""
    steps, columns = served("chunked", [(20, 400), (460, 2)], [0.0, 1e-6], tight(490), "deployment.step_tokens=21")
    assert columns["preemptions"].tolist() == [0, 1] and columns["first_token_s"][1] > columns["done_s"][0]
    again = in_chunks(steps, 460, 21)
    assert columns["first_token_s"][1] - columns["done_s"][0] == pytest.approx(again, rel=1e-9)


def test_the_summary_says_how_many_gave_way():
    loaded = config.load(None, ["batching=chunked", *NO_STORE, tight(500), "deployment.window_tokens=500"])
    table = untimed([0, 1], [20, 20], [400, 400]).with_times(np.zeros(2), np.zeros(2))
    found = simulate(loaded, table).summary
    assert (found["preempted_turns"], found["preemptions"]) == (1, 1)
    assert found["gpu"]["prefilled_tokens"] == 20 + 20 + 249, "the second began a step later"
    assert any(row[0].startswith("turns preempted") and row[1] == "1" for row in report.rows(found))
    assert [line for line in found["warnings"] if line.startswith("HBM is short: 50.0% of the turns")]
    roomy = simulate(config.load(None, ["batching=chunked", *NO_STORE]), table).summary
    assert "preemptions" not in roomy and "HBM is short" not in str(roomy["warnings"])
    assert not any(row[0].startswith("turns preempted") for row in report.rows(roomy))


@pytest.mark.parametrize("batching", PACKED)
def test_a_turn_without_an_answer_leaves_no_hbm_behind(batching):
    """It enters with its prompt's HBM and gives back as much: ten times its HBM serve hundreds of them, whole batches at a time."""
    _, columns = served(batching, [(20, 0)] * 300, None, tight(200))
    _, together = np.unique(columns["admitted_s"], return_counts=True)
    assert "preemptions" not in columns and together.tolist() == [1, *[10] * 29, 9]


class Waiting(NamedTuple):
    """A job in its prefill."""

    turn: int
    left: int


class Running(NamedTuple):
    """A batch."""

    prefilling: list[Waiting]
    decoding: int
    context: int = 0


@pytest.mark.parametrize("name", registry.policies("batching"))
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6), st.integers(0, 50), st.integers(1, 500), st.integers(1, 500))
def test_batching_contract(name, left, decoding, tokens, shared):
    """A batch that a policy has let grow is never without a step, asking changes nothing, and no budget is passed."""
    policy = registry.policies("batching")[name](Limits("h100-80g", 80 * 2**30, tokens, shared))
    batch = Running([], min(decoding, tokens))
    for turn, each in enumerate(left):
        if policy.admits(batch):
            batch.prefilling.append(Waiting(turn, each))
    assert batch.decoding or batch.prefilling, "who comes to an empty batch enters"
    chunks, decodes = policy.step(batch)
    assert policy.step(batch) == (chunks, decodes) and isinstance(decodes, bool)
    assert chunks or (decodes and batch.decoding)
    assert all(1 <= size <= job.left for job, size in chunks) and [job for job, _ in chunks] == batch.prefilling[: len(chunks)]
    if "step_tokens" in policy.NEEDS:
        assert sum(size for _, size in chunks) + decodes * batch.decoding <= tokens


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(sorted(registry.policies("batching"))),
    st.integers(0, 10**6),
    st.integers(1, 8),
    st.sampled_from([40, 300, 5000]),
    st.floats(0.05, 3),
    st.sampled_from([NO_STORE, ("store.load_mode=layerwise",), ASYNCHRONOUS]),
    st.sampled_from([("answer", None), ("prompt", 1500), ("prompt", 2500), ("share", 1500), ("share", 2500)]),
)
def test_runs_equal_single_steps(batching, seed, batch, tokens, rate, loads, admission):
    """A run of equal steps is one event, and stepping one by one gives the same; also where HBM ends it, and jobs give way."""
    reserved, room = admission
    overrides = [f"batching={batching}", f"seed={seed}", f"deployment.max_batch={batch}", f"deployment.step_tokens={tokens}"]
    overrides += ["workload.sessions=6", "workload.max_tokens=1500", "workload.think_time.median_s=2"]
    overrides += [
        f"workload.arrival.rate_per_s={rate}",
        f"deployment.admission={reserved}",
        *loads,
        *([tight(room, *loads)] if room else []),
    ]
    loaded = config.load(None, overrides)
    fast, slow = (simulate(loaded, longest_run=longest) for longest in (None, 1))
    for name in ("admitted_s", "first_token_s", "done_s"):
        np.testing.assert_allclose(fast.columns[name], slow.columns[name], rtol=1e-9)
    for name in ("cached_tokens", *(["preemptions"] if "preemptions" in slow.columns else [])):
        assert fast.columns[name].tolist() == slow.columns[name].tolist()
    for name, value in fast.summary["gpu"].items():
        assert value == pytest.approx(slow.summary["gpu"][name], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("work", ["hidden", "added"])
@pytest.mark.parametrize("batching", ["iteration", *PACKED])
def test_runs_equal_single_steps_beside_the_hosts_work(batching, work):
    """Also where the first steps of a run are the host's and its last are the GPUs'."""
    few = ["workload.sessions=6", "workload.max_tokens=1500", "workload.think_time.median_s=2", "workload.arrival.rate_per_s=3"]
    loaded = config.load(None, [f"batching={batching}", *NO_STORE, *few])
    alone = simulate(loaded)
    host_s = resolve(loaded, alone.workload).steps.decode(1, 700)
    loaded = config.load(loaded, [f"deployment.host_step_s={host_s}", "deployment.host_request_s=2e-5", f"deployment.host_work={work}"])
    fast, slow = (simulate(loaded, longest_run=longest) for longest in (None, 1))
    for name in ("admitted_s", "first_token_s", "done_s"):
        np.testing.assert_allclose(fast.columns[name], slow.columns[name], rtol=1e-9)
    ratio = fast.summary["tpot_s"]["mean"] / alone.summary["tpot_s"]["mean"]
    assert 1 < ratio < 1.1 if work == "hidden" else ratio > 1.9


def test_what_a_run_of_steps_leaves_of_hbm_reads_ahead():
    """As much of a waiting job's history as the last step left room for, not the first one."""
    small = ("deployment.max_batch=4", "workload.sessions=10", "workload.max_tokens=1500", "workload.think_time.median_s=1", "seed=781994")
    loads = ("store.load_mode=layerwise", "workload.arrival.rate_per_s=10", "deployment.window_tokens=1600", "deployment.admission=prompt")
    loaded = config.load(None, [*small, *loads, tight(1600)])
    fast, slow = (simulate(loaded, longest_run=longest).columns["done_s"] for longest in (None, 1))
    np.testing.assert_allclose(fast, slow, rtol=1e-9)


@pytest.mark.parametrize(
    ("gpu", "gib", "chunked", "prefill_first"),
    [
        ("l4", 24, 2048, 2048),
        ("a100-40g", 40, 2048, 4096),
        ("a100-80g", 80, 2048, 8192),
        ("h100-80g", 80, 8192, 8192),
        ("b200", 180, 16_384, 16_384),
    ],
)
def test_the_budget_is_the_engines_default_for_the_gpu(gpu, gib, chunked, prefill_first):
    limits = Limits(gpu, gib * 2**30)
    assert [registry.policies("batching")[name](limits).tokens for name in PACKED] == [chunked, prefill_first]
    assert registry.policies("batching")["chunked"](limits._replace(step_tokens=77)).tokens == 77


@pytest.mark.parametrize(
    ("preset", "settings", "tokens"), [("chat-2026", [], 8_192), ("chat-2026", ["deployment.step_tokens=99"], 99), ("default", [], None)]
)
def test_the_budget_of_a_step_is_that_of_its_policy_where_nobody_sets_it(preset, settings, tokens):
    loaded = config.load(preset, settings)
    assert step_budget(loaded, resolve(loaded)) == tokens
