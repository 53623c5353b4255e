"""Step times from the figures of a GPU: what experts, precisions, lengths and message sizes do to them, and published ones."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvplan import hwmodels
from kvplan.hwmodels import StepTime, kvsize
from kvplan.hwmodels.hosttime import with_host
from kvplan.hwmodels.quantization import Quantization, WeightBits

SECONDS = st.floats(0, 1e-2)
FORMS = st.builds(
    StepTime,
    layers=st.just(8),
    fixed=st.floats(1e-4, 1e-1),
    per_token=SECONDS,
    per_pair=st.floats(0, 1e-6),
    per_history=st.floats(0, 1e-5),
    per_context=st.floats(0, 1e-5),
    experts=st.floats(0, 1e-1),
    spared=st.floats(0, 1),
    per_request=SECONDS,
)


def _steps(model: str, node: str, gpus: int, **changes) -> StepTime:
    found = hwmodels.load("node", node)
    return hwmodels.roofline(replace(hwmodels.load("model", model), **changes), hwmodels.load("gpu", found.gpu), found, gpus)


# --- the form ---------------------------------------------------------------------------------------------------------------------


@given(FORMS, st.integers(1, 300), st.integers(0, 10**6), st.integers(1, 40))
def test_a_run_of_steps_takes_what_its_steps_take_one_by_one(form, batch, context, steps):
    one_by_one = sum(form.decode(batch, context + step * batch) for step in range(steps))
    assert form.decode(batch, context, steps) == pytest.approx(one_by_one, rel=1e-9)
    assert form.steps_until(batch, context, form.decode(batch, context, steps)) == steps


HOSTS = st.tuples(st.floats(0, 0.1), st.floats(0, 1e-3))


@given(FORMS, HOSTS, st.integers(1, 300), st.integers(0, 10**6), st.integers(1, 40), st.booleans())
def test_steps_with_the_hosts_work_take_the_sum_or_the_longer_of_the_two(form, host, batch, context, steps, hidden):
    """One by one and as a run, whose first steps are the host's and whose last the GPUs'."""
    served, each = with_host(form, *host, hidden=hidden), host[0] + host[1] * batch
    alone = [form.decode(batch, context + step * batch) for step in range(steps)]
    expected = sum(max(gpu, each) if hidden else gpu + each for gpu in alone)
    assert served.decode(batch, context, steps) == pytest.approx(expected, rel=1e-9)
    assert served.steps_until(batch, context, served.decode(batch, context, steps)) == steps
    assert served.times(2).decode(batch, context) == pytest.approx(
        max(2 * alone[0], each) if hidden and each else 2 * served.decode(batch, context)
    )


@given(FORMS, HOSTS, st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 64), st.booleans())
def test_a_mixed_step_has_the_hosts_work_once(form, host, new, history, batch, hidden):
    served, alone, each = with_host(form, *host, hidden=hidden), form.step([(new, history)], batch, 7), host[0] + host[1] * (batch + 1)
    expected = max(alone, each) if hidden else alone + each
    assert served.step([(new, history)], batch, 7) == pytest.approx(expected, rel=1e-12)
    assert served.prefill(new, history) == served.step([(new, history)])


@given(FORMS, st.integers(1, 5000), st.integers(0, 5000), st.integers(0, 64))
def test_a_step_is_a_prefill_or_a_decode_where_it_does_one_thing_alone(form, new, history, batch):
    assert form.step([(new, history)]) == form.prefill(new, history)
    assert form.step([], batch, 7 * batch) == form.decode(batch, 7 * batch)
    together = form.step([(new, history)], batch, 7 * batch)
    assert together <= (form.prefill(new, history) + form.decode(batch, 7 * batch)) * (1 + 1e-12), "weights are read once"


@given(FORMS, st.floats(0.1, 10), st.integers(1, 500))
def test_times_makes_all_of_it_longer(form, factor, batch):
    longer = form.times(factor)
    assert longer.decode(batch, 3 * batch, 5) == pytest.approx(factor * form.decode(batch, 3 * batch, 5))
    assert longer.prefill(batch, 9) == pytest.approx(factor * form.prefill(batch, 9))


# --- what a GPU's figures make of it ----------------------------------------------------------------------------------------------


def test_a_batch_reads_the_experts_that_its_tokens_touch():
    model, one = hwmodels.load("model", "mixtral-8x7b"), _steps("mixtral-8x7b", "h100-80g-x8", 8)
    gpu = hwmodels.load("gpu", "h100-80g")
    bandwidth = 8 * gpu.hbm_bandwidth.value * gpu.expert_hbm_efficiency.value
    assert one.experts == pytest.approx(float(kvsize.part_bytes(model)["experts"]) / bandwidth)
    read = [one.decode(batch, 0) - one.fixed - batch * (one.per_token + one.per_request) for batch in (1, 12, 10_000)]
    assert read == pytest.approx([one.experts * share for share in (2 / 8, 1 - 0.75**12, 1)])
    assert 1 - (1 - 2 / 8) ** 12 > 0.95 and 1 - (1 - 8 / 256) ** 96 > 0.95, "the shares that steptime.py states"


def test_a_dense_model_has_no_experts():
    steps = _steps("llama-3.1-70b", "h100-80g-x8", 8)
    assert (steps.experts, steps.spared) == (0, 0)


def test_fp8_is_multiplied_faster_where_the_gpu_can_and_weight_only_is_not():
    fp8 = {"bits": WeightBits.alike(8), "arithmetic": "fp8"}
    weight_only = {"bits": WeightBits.alike(8), "arithmetic": "16-bit"}
    plain, quick, slow = (_steps("llama-3.1-70b", "h100-80g-x8", 4, **changes).per_token for changes in ({}, fp8, weight_only))
    assert slow == plain and quick < 0.9 * plain
    on_a100 = [_steps("llama-3.1-70b", "a100-80g-x8", 4, **changes).per_token for changes in ({}, fp8)]
    assert on_a100[0] == on_a100[1], "an A100 has no FP8"


def test_four_bit_weights_fall_back_to_sixteen_bit_arithmetic():
    bits = {"bits": WeightBits.alike(4)}
    ways = {way: _steps("llama-3.1-70b", "h100-80g-x8", 4, **bits, arithmetic=way).per_token for way in ("fp4", "w4a8", "w4a16", "16-bit")}
    assert ways["fp4"] == ways["w4a8"] == ways["w4a16"] >= ways["16-bit"]
    assert _steps("llama-3.1-70b", "b200-x8", 4, **bits, arithmetic="fp4").per_token < ways["fp4"] / 2.5


@pytest.mark.parametrize(
    ("said", "arithmetic"),
    [
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block"),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, "fp8-block"),
        ({"quant_method": "mxfp4"}, "w4a8"),
        ({"quant_method": "awq", "bits": 4}, "w4a16"),
        ({"quant_method": "gptq", "bits": 8}, "16-bit"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "w4a16"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "W4A16_AWQ"}, "w4a16"),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4}}}}, "w4a16"),
        ({"config_groups": {"a": {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8, "type": "int"}}}}, "int8"),
        ({"config_groups": {"a": {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"config_groups": {"a": {"weights": {"num_bits": 8}, "input_activations": None}}}, "16-bit"),
    ],
)
def test_how_weights_are_multiplied_is_read_from_the_file(said, arithmetic):
    assert Quantization(**{"quant_method": "compressed-tensors", **said}).arithmetic == arithmetic


def test_a_quantised_head_is_read_at_its_own_bits():
    model = hwmodels.load("model", "llama-3.1-8b")
    plain, quarter = (_steps("llama-3.1-8b", "h100-80g-x8", 1, bits=replace(model.bits, head=Fraction(bits))).fixed for bits in (16, 4))
    gpu = hwmodels.load("gpu", "h100-80g")
    saved_s = 0.75 * 128256 * 4096 * 2 / gpu.hbm_bandwidth.value / gpu.hbm_efficiency.value
    assert plain == _steps("llama-3.1-8b", "h100-80g-x8", 1).fixed and plain - quarter == pytest.approx(saved_s)


def test_experts_with_scales_by_blocks_are_multiplied_more_slowly_on_blackwell():
    by_block, by_tensor = (_steps("deepseek-v3", "b200-x8", 8, arithmetic=way) for way in ("fp8-block", "fp8"))
    assert hwmodels.load("model", "deepseek-v3").arithmetic == "fp8-block" and by_block.per_token > 1.05 * by_tensor.per_token
    on_a100 = [_steps("deepseek-v3", "a100-80g-x8", 8, arithmetic=way) for way in ("fp8-block", "16-bit")]
    assert on_a100[0].per_token == on_a100[1].per_token


def test_each_gpu_passes_all_tokens_to_their_experts_and_back():
    node, model = hwmodels.load("node", "h100-80g-x8"), hwmodels.load("model", "mixtral-8x7b")
    gpu = hwmodels.load("gpu", node.gpu)
    passed_s = 32 * (2 + 2 * 2) * 4096 * 2 * gpu.expert_passed.value / gpu.hbm_bandwidth.value
    for gpus in (2, 8):
        more = [hwmodels.roofline(model, each, node, gpus).per_token for each in (gpu, gpu.model_copy(update={"expert_passed": None}))]
        assert more[0] - more[1] == pytest.approx(passed_s)


def test_an_indexer_costs_each_of_its_layers_and_a_scan_each_token_of_a_prompt():
    node = hwmodels.load("node", "h200-x8")
    gpu = hwmodels.load("gpu", node.gpu)
    without = gpu.model_copy(update={"indexer_overhead": None, "scan_overhead": None})
    glm, qwen = (hwmodels.load("model", name) for name in ("glm-5", "qwen3.5-397b-a17b"))
    indexed = [hwmodels.roofline(glm, each, node, 8).decode(4, 4000) for each in (gpu, without)]
    assert indexed[0] - indexed[1] == pytest.approx(78 * gpu.indexer_overhead.value)
    ours, plain = (hwmodels.roofline(qwen, each, node, 8) for each in (gpu, without))
    assert ours.decode(4, 4000, 10) == plain.decode(4, 4000, 10), "a decode step reads and writes its state"
    for history in (0, 500):
        added = ours.prefill(1000, history) - plain.prefill(1000, history)
        assert added == pytest.approx(45 * 1000 * gpu.scan_overhead.value)


def test_attention_is_less_efficient_for_short_prompts():
    steps = _steps("llama-3.1-8b", "h100-80g-x8", 1)
    gpu = hwmodels.load("gpu", "h100-80g")
    without = hwmodels.roofline(
        hwmodels.load("model", "llama-3.1-8b"), gpu.model_copy(update={"attention_half": None}), hwmodels.load("node", "h100-80g-x8"), 1
    )
    for tokens in (1000, 16_000):
        pairs = steps.per_pair * tokens * tokens / 2
        reached = pairs / (pairs + steps.prefill(tokens) - without.prefill(tokens))
        assert reached == pytest.approx(tokens / (tokens + gpu.attention_half.value), rel=1e-3)


def test_an_all_reduce_sees_more_of_the_bandwidth_the_larger_it_is():
    node, model = hwmodels.load("node", "h100-80g-x8"), hwmodels.load("model", "llama-3.1-70b")
    one, eight = (_steps("llama-3.1-70b", "h100-80g-x8", gpus) for gpus in (1, 8))
    assert eight.prefill(64) > one.prefill(64) / 8
    sizes = [tokens * model.hidden_size * 2 * 2 * 7 / 8 for tokens in (1, 64, 8192)]
    reached = [size / (node.interconnect_latency.value + size / node.interconnect_bandwidth.value) for size in sizes]
    assert reached == sorted(reached) and reached[0] < 0.05 * reached[2]


@pytest.mark.parametrize("gpus", [1, 8])
def test_host_work_is_of_a_step_and_of_each_request_in_it(gpus):
    steps = _steps("llama-3.1-8b", "h100-80g-x8", gpus)
    assert steps.step([(10, 0), (10, 0)]) - steps.step([(20, 0)]) == pytest.approx(steps.per_request - 100 * steps.per_pair)


# --- published --------------------------------------------------------------------------------------------------------------------

COMPUTED_MS = {1_000: 27, 10_000: 265, 20_000: 640, 40_000: 1650, 60_000: 3015, 80_000: 4790, 100_000: 6850}


@pytest.mark.parametrize(("tokens", "published"), COMPUTED_MS.items())
def test_published_prompts_on_one_h100(tokens, published):
    """Llama-3.1-8B, TTFT of one prompt that is computed, in steps of 8,192 tokens.
    Source: vLLM's blog on its native KV offloading (January 2026), figure of TTFT by prompt length."""
    steps, budget = _steps("llama-3.1-8b", "h100-80g-x1", 1), 8192
    seconds = sum(steps.prefill(min(budget, tokens - done), done) for done in range(0, tokens, budget))
    assert 1e3 * seconds == pytest.approx(published, rel=0.10)
