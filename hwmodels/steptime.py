"""Seconds of a GPU step, and of the layer pipeline that hides KV loading under it.

One functional form, linear in what a run of decode steps varies, so that a roofline and a fit to measurements both give it:

    base(n, r)     = fixed + experts·(1 − spared^n) + per_request·r + per_token·n        n tokens of r requests
    prefill(n, h)  = base(n, 1) + per_pair·n·(h + (n+1)/2) + per_history·h               n new tokens on h history tokens
    decode(B, C)   = base(B, B) + per_context·C                                          one step, batch B, context sum C

**Windows.** Layers that attend to the last w tokens only have pairs Σ min(position, w) and read min(h, w) tokens of history. Each
decode step of a job reads, of its windows, what its steps read in the mean: exact over the answer, and constant within a run.

**Mixture of experts.** `experts` is the time to read all routed experts. A step of n tokens with k of E experts each touches the
share 1 − (1 − k/E)^n of them, if tokens choose evenly: 95 % at n = 3·E/k (12 tokens for Mixtral, 96 for DeepSeek-V3). The batch of
a run is constant, so runs of steps have a closed form.

**Efficiency curve.** `fixed` and `experts` hold one read of the weights and `per_token` the arithmetic of one token, so a step of n
tokens runs its matrix products at `gemm_efficiency · n / (n + n_half)` of peak with n_half = read time / arithmetic per token
(about 130 tokens on an A100): memory-bound when small, compute-bound when large, no kink. A roofline with perfect overlap,
max(read, arithmetic), is at most 2× faster, at n = n_half, and equal at both ends.

`kvplan.hwmodels.datasheet` makes one of a GPU's figures, `kvplan validate fit` of measured steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kvplan.hwmodels.footprint import attended, least

COEFFICIENTS = ("fixed", "per_token", "per_pair", "per_history", "per_context")
"""Of a StepTime: those that are fitted to measured steps. Each is in seconds, and its times are in proportion to all of them."""
_ROOFLINE_ONLY = ("experts", "per_request", "per_window_byte")
"""Those that a roofline has beside: a fit to steps of one model holds them in the others."""


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

    def prefill(self, new: float, history: float) -> float:
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
    """Of KV in windows that a decode step reads, and of states, which it reads and writes."""
    experts: float = 0.0
    spared: float = 0.0
    """Share of the routed experts that one token leaves alone: 1 − k/E."""
    per_request: float = 0.0

    def _with_experts(self, tokens: float) -> float:
        """The part of a step of so many tokens that one token does not add to, but by the experts that it touches."""
        return self.fixed + self.experts * (1 - self.spared**tokens)

    def times(self, factor: float) -> "StepTime":
        """All of it so many times as long."""
        windows = tuple(replace(one, per_pair=factor * one.per_pair, per_history=factor * one.per_history) for one in self.windows)
        scaled = {name: factor * getattr(self, name) for name in (*COEFFICIENTS, *_ROOFLINE_ONLY)}
        return replace(self, windows=windows, **scaled)

    def prefill(self, new: float, history: float = 0) -> float:
        """Seconds to prefill `new` tokens after `history` tokens whose KV is in HBM."""
        base = (self._with_experts(new) if self.experts else self.fixed) + self.per_request + self.per_token * new
        seconds = base + self.per_pair * new * (history + 0.5 * (new + 1)) + self.per_history * history
        return seconds + sum([window.prefill(new, history) for window in self.windows]) if self.windows else seconds

    def decode(self, batch: float, context: float, steps: int = 1, window_bytes: float = 0) -> float:
        """Seconds of `steps` decode steps of a constant batch whose contexts sum to `context` tokens before the first, and which reads
        `window_bytes` of windows a step.

        Each step adds one token per job, so the steps form an arithmetic series.
        """
        base = (self._with_experts(batch) if self.experts else self.fixed) + self.per_request * batch + self.per_token * batch
        step = base + self.per_context * context + self.per_window_byte * window_bytes
        return steps * step + self.per_context * batch * (0.5 * steps * (steps - 1))

    def step(self, chunks: Sequence[tuple[int, int]], batch: int = 0, context: int = 0, window_bytes: int = 0) -> float:
        """Seconds of one step that prefills chunks of (new tokens, tokens before them in HBM), and gives each of `batch` jobs, whose
        contexts sum to `context` tokens, one more. Weights are read once. With one chunk alone this is `prefill`, without chunks one
        step of `decode`, to the last bit."""
        new, history, pairs = 0, 0, 0.0
        for tokens, before in chunks:
            new += tokens
            history += before
            pairs += self.per_pair * tokens * (before + 0.5 * (tokens + 1))
        if self.windows:
            pairs += sum([window.prefill(*chunk) for chunk in chunks for window in self.windows])
        pairs += self.per_window_byte * window_bytes
        fixed = self._with_experts(new + batch) if self.experts else self.fixed
        base = fixed + self.per_request * (len(chunks) + batch) + self.per_token * (new + batch)
        return base + pairs + self.per_history * history + self.per_context * context

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
        steps = max(1, self._about(batch, context, seconds, window_bytes))
        while steps > 1 and self.decode(batch, context, steps - 1, window_bytes) >= seconds:
            steps -= 1
        while self.decode(batch, context, steps, window_bytes) < seconds:
            steps += 1
        return steps

    def _about(self, batch: int, context: int, seconds: float, window_bytes: int) -> int:
        """The same, but for rounding."""
        half_growth = 0.5 * self.per_context * batch
        linear = self.decode(batch, context, 1, window_bytes) - half_growth
        root = math.sqrt(linear * linear + 4 * half_growth * seconds)
        return math.ceil(2 * seconds / (linear + root))


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
