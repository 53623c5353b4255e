"""What the host has to do for a step, beside what the GPUs do: scheduling it, preparing its inputs, dealing with its outputs.

    host(r) = step + request·r                                      r requests in the step

Where the host works when the GPUs have ended, a step takes GPU + host. Where it works a step ahead, while they compute, it takes
max(GPU, host). Steps of a run of decodes grow with their contexts, so those that the host is longer for come first, and the time of k steps
stays a closed form: of m steps the host's, and of k − m the GPUs'.

Left out: that the first step after a pause has none before it to hide behind.

Source of the two forms: vLLM's async scheduling (pull request 19970), SGLang's overlap scheduler (SGLang 0.4, lmsys.org, 2024-12), after
NanoFlow (arXiv 2408.12757).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from kvplan.hwmodels.steptime import StepTime


def with_host(steps: StepTime, step_s: float, request_s: float, hidden: bool) -> StepTime:
    """Step times with so much of the host's work in them, behind that of the GPUs or hidden by it."""
    if not step_s and not request_s:
        return steps
    source = f"{steps.source}; host {step_s:g} s a step, {request_s:g} s a request, {'hidden' if hidden else 'added'}"
    if not hidden:
        return replace(steps, fixed=steps.fixed + step_s, per_request=steps.per_request + request_s, source=source)
    given = {field.name: getattr(steps, field.name) for field in fields(steps)}
    return HiddenHost(**(given | {"source": source}), host_step=step_s, host_request=request_s)


@dataclass(frozen=True)
class HiddenHost(StepTime):
    """Each step takes the longer of the two."""

    host_step: float = 0.0
    host_request: float = 0.0

    def prefill(self, new: float, history: float = 0) -> float:
        return max(super().prefill(new, history), self._host(1))

    def step(self, chunks: Sequence[tuple[int, int]], batch: int = 0, context: int = 0, window_bytes: int = 0) -> float:
        return max(super().step(chunks, batch, context, window_bytes), self._host(len(chunks) + batch))

    def decode(self, batch: float, context: float, steps: int = 1, window_bytes: float = 0) -> float:
        host = self._host(batch)
        if steps == 1:
            return max(super().decode(batch, context, 1, window_bytes), host)
        first = min(steps, self._host_bound(batch, context, window_bytes))
        if not first:
            return super().decode(batch, context, steps, window_bytes)
        rest = super().decode(batch, context + first * batch, steps - first, window_bytes) if steps > first else 0.0
        return first * host + rest

    def _about(self, batch: int, context: int, seconds: float, window_bytes: int) -> int:
        host, first = self._host(batch), self._host_bound(batch, context, window_bytes)
        if seconds <= first * host:
            return math.ceil(seconds / host)
        return first + super()._about(batch, context + first * batch, seconds - first * host, window_bytes)

    def _host(self, requests: float) -> float:
        return self.host_step + self.host_request * requests

    def _host_bound(self, batch: float, context: float, window_bytes: float) -> int:
        """Of steps of a batch, the first that the host is longer for than the GPUs; more than any run has, where all are."""
        short = self._host(batch) - super().decode(batch, context, 1, window_bytes)
        if short <= 0:
            return 0
        grows = self.per_context * batch
        return _ALL if short >= grows * _ALL else math.ceil(short / grows)


_ALL = 1 << 40
"""Steps."""
