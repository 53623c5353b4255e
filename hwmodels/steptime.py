"""Seconds of a GPU step, and of the layer pipeline that hides KV loading under it.

One functional form, linear in its coefficients, so that a roofline and a fit to measurements both give it:

    prefill(n, h)  = fixed + per_token·n + per_pair·n·(h + (n+1)/2) + per_history·h        n new tokens on h history tokens
    decode(B, C)   = fixed + per_token·B + per_context·C                                   one step, batch B, context sum C

**Windows.** Layers that attend to the last w tokens only have pairs Σ min(position, w) and read min(h, w) tokens of history. Each
decode step of a job reads, of its windows, what its steps read in the mean: exact over the answer, and constant within a run.

**Efficiency curve.** `fixed` holds one read of all weights and `per_token` the arithmetic of one token, so a step of n tokens
runs its matrix products at `gemm_efficiency · n / (n + n_half)` of peak with n_half = read time / arithmetic per token (about
130 tokens on an A100): memory-bound when small, compute-bound when large, no kink. A roofline with perfect overlap,
max(read, arithmetic), is at most 2× faster, at n = n_half, and equal at both ends.

**Mixture of experts.** `fixed` reads the weights of all experts, `per_token` multiplies with the active ones only. A step of n
tokens with k of E experts each touches the share 1 − (1 − k/E)^n of them, if tokens choose evenly: 95 % at n = 3·E/k (12 tokens
for Mixtral, 96 for DeepSeek-V3), so prefills and large batches read them all. Smaller decode batches read less than the form
says (Mixtral at n = 1: 25 %) and come out too slow, by up to 2.8× for Mixtral against gpt-fast (`kvplan validate micro`).

**Quantised weights** are read at their own size and multiplied at the 16-bit peak, as weight-only kernels do; where the GPU
multiplies in FP8 at twice that, prefill comes out up to twice too slow.

**Left out:** wave quantisation, the output head in prefill (one token only, counted in decode), sampling, scheduler time on
the CPU (`layer_overhead` is a flat sum), pipeline parallelism.

Source of the roofline: Williams et al., CACM 52(4), 2009; transformer arithmetic as in Kaplan et al. (arXiv 2001.08361) table 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.footprint import attended, least
from kvplan.hwmodels.schema import DTYPE_BYTES, Gpu, Model, Node

COEFFICIENTS = ("fixed", "per_token", "per_pair", "per_history", "per_context")
"""Of a StepTime, each in seconds and in proportion to which its times are."""


@dataclass(frozen=True)
class Measured:
    """Where coefficients were fitted, each from the smallest to the largest value, and how far off they are there.

    The errors are cross-validated: means of |predicted − measured| / measured over points that the fit had not seen.
    """

    new: tuple[int, int]
    history: tuple[int, int]
    batch: tuple[int, int]
    context: tuple[int, int]
    """Summed over the batch."""
    prefill_error: float
    decode_error: float


@dataclass(frozen=True)
class Window:
    """What layers cost whose tokens attend to the last `tokens` at most, in seconds, beside what a StepTime says of all layers."""

    tokens: int
    per_pair: float
    per_history: float

    def prefill(self, new: int, history: int) -> float:
        """As StepTime's."""
        pairs = attended(history + new, self.tokens) - attended(history, self.tokens)
        return self.per_pair * pairs + self.per_history * least(history, self.tokens)


@dataclass(frozen=True)
class StepTime:
    """Coefficients of the form above, in seconds. `layers` is what the layer pipeline divides a prefill into."""

    layers: int
    fixed: float
    per_token: float
    per_pair: float
    per_history: float
    per_context: float
    source: str = ""
    measured: Measured | None = None
    """None for a roofline, which holds everywhere alike."""
    windows: tuple[Window, ...] = ()
    """Layers that attend to windows, in none of the pairs, histories and contexts above."""
    per_window_byte: float = 0.0
    """Of KV in windows that a decode step reads."""

    def times(self, factor: float) -> "StepTime":
        """All of it so many times as long."""
        windows = tuple(replace(one, per_pair=factor * one.per_pair, per_history=factor * one.per_history) for one in self.windows)
        scaled = {name: factor * getattr(self, name) for name in (*COEFFICIENTS, "per_window_byte")}
        return replace(self, windows=windows, **scaled)

    def prefill(self, new: int, history: int = 0) -> float:
        """Seconds to prefill `new` tokens after `history` tokens whose KV is in HBM."""
        seconds = self.fixed + self.per_token * new + self.per_pair * new * (history + 0.5 * (new + 1)) + self.per_history * history
        return seconds + sum([window.prefill(new, history) for window in self.windows]) if self.windows else seconds

    def decode(self, batch: int, context: int, steps: int = 1, window_bytes: int = 0) -> float:
        """Seconds of `steps` decode steps of a constant batch whose contexts sum to `context` tokens before the first, and which reads
        `window_bytes` of windows a step.

        Each step adds one token per job, so the steps form an arithmetic series.
        """
        step = self.fixed + self.per_token * batch + self.per_context * context + self.per_window_byte * window_bytes
        return steps * step + self.per_context * batch * (0.5 * steps * (steps - 1))

    def step(self, chunks: Sequence[tuple[int, int]], batch: int = 0, context: int = 0, window_bytes: int = 0) -> float:
        """Seconds of one step that prefills chunks of (new tokens, tokens before them in HBM), and gives each of `batch` jobs, whose
        contexts sum to `context` tokens, one more. Weights are read once. With one chunk alone this is `prefill`, without chunks one
        step of `decode`, to the last bit."""
        new = sum([tokens for tokens, _ in chunks])
        history = sum([before for _, before in chunks])
        pairs = sum([self.per_pair * tokens * (before + 0.5 * (tokens + 1)) for tokens, before in chunks])
        if self.windows:
            pairs += sum([window.prefill(*chunk) for chunk in chunks for window in self.windows]) + self.per_window_byte * window_bytes
        return self.fixed + self.per_token * (new + batch) + pairs + self.per_history * history + self.per_context * context

    def outside(self, **asked: int) -> list[str]:
        """What of `new`, `history`, `batch` and `context` lies outside what was measured, in words; nothing for a roofline.

        >>> fit = StepTime(2, 1e-3, 1e-5, 0, 0, 0, measured=Measured((16, 2048), (0, 2032), (1, 16), (64, 32768), 0.05, 0.04))
        >>> fit.outside(new=4096, history=0)
        ['new 4096 (measured: 16 to 2048)']
        """
        if self.measured is None:
            return []
        spans = {name: getattr(self.measured, name) for name in asked}
        return [
            f"{name} {asked[name]} (measured: {low} to {high})" for name, (low, high) in spans.items() if not low <= asked[name] <= high
        ]

    def steps_until(self, batch: int, context: int, seconds: float, window_bytes: int = 0) -> int:
        """Fewest decode steps that take at least `seconds`: the inverse of `decode`."""
        if seconds <= 0:
            return 0
        half_growth = 0.5 * self.per_context * batch
        linear = self.fixed + self.per_token * batch + self.per_context * context - half_growth + self.per_window_byte * window_bytes
        root = math.sqrt(linear * linear + 4 * half_growth * seconds)
        steps = max(1, math.ceil(2 * seconds / (linear + root)))
        while steps > 1 and self.decode(batch, context, steps - 1, window_bytes) >= seconds:
            steps -= 1
        while self.decode(batch, context, steps, window_bytes) < seconds:
            steps += 1
        return steps


def roofline(model: Model, gpu: Gpu, node: Node, gpus: int) -> StepTime:
    """StepTime of `model` under tensor parallelism over `gpus` GPUs of a node, from datasheet numbers and efficiencies.

    Two all-reduces per layer move 2(g−1)/g · hidden · bytes per token over the interconnect (ring; Megatron-LM). A history
    token costs two passes over its KV in HBM: attention reads it, and decoupled positions read and write K, half of it. Under
    MLA its keys and values are made of the latent again (DeepSeek-V2, arXiv 2405.04434, section 2.1).
    """
    layers = model.num_hidden_layers
    dtype = DTYPE_BYTES[model.torch_dtype]
    output_head = model.vocab_size * model.hidden_size * dtype
    gemm = gpus * gpu.peak_flops.value * gpu.gemm_efficiency.value
    attention = gpus * gpu.peak_flops.value * gpu.attention_efficiency.value
    memory = gpus * gpu.hbm_bandwidth.value * gpu.hbm_efficiency.value
    kv, windows = kvsize.hbm_footprint(model, gpus), kvsize.windows(model)

    def per_pair(layers: int) -> float:
        return 2 * layers * model.num_attention_heads * (model.head_dim + model.v_head_dim) / attention

    kv_read = kv.per_token / memory
    overhead = layers * gpu.layer_overhead.value
    reduce_per_token = 0.0
    if gpus > 1:
        overhead += 2 * layers * node.interconnect_latency.value
        ring_share = 2 * (gpus - 1) / gpus
        reduce_per_token = 2 * layers * ring_share * model.hidden_size * dtype / node.interconnect_bandwidth.value
    return StepTime(
        layers=layers,
        fixed=(kvsize.decoder_bytes(model) + output_head) / memory + overhead,
        per_token=2 * kvsize.active_decoder_parameters(model) / gemm + reduce_per_token,
        per_pair=per_pair(layers - sum(windows.values())),
        per_history=2 * kv_read + 2 * layers * kvsize.expansion_parameters(model) / gemm,
        per_context=kv_read,
        windows=tuple(Window(tokens, per_pair(count), 2 * dict(kv.windows).get(tokens, 0) / memory) for tokens, count in windows.items()),
        per_window_byte=1 / memory if kv.windows else 0.0,
        source=f"roofline: {model.name} on {gpus} x {gpu.name}",
    )


def pipeline_s(layers: int, compute_s: float, load_s: float, preloaded: float = 0.0, delay_s: float = 0.0) -> float:
    """Seconds from the start of a prefill to its end when its history KV is loaded layer by layer under it.

    `compute_s` and `load_s` are per layer; `preloaded` layers (a fraction counts) are in HBM at the start; the rest follow one
    per `load_s`, the first after another `delay_s`. Closed form of the recurrence

        end_i = max(end_{i−1}, available_i) + compute_s,   available_i = delay_s + (i − preloaded)·load_s  for i > preloaded, else 0

    whose maximum, being linear in i between the first missing layer and the last, lies at one of those two.
    Source: CachedAttention section 3.2; cachedattention's closed form is this one at whole `preloaded` and no delay.
    """
    end = layers * compute_s
    if preloaded >= layers:
        return end
    first = math.floor(preloaded) + 1
    return max(
        end,
        delay_s + (first - preloaded) * load_s + (layers - first + 1) * compute_s,
        delay_s + (layers - preloaded) * load_s + compute_s,
    )
