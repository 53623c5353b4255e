"""How a job's cached history reaches the GPU, and when its prefill is done.

KV in DRAM moves over the host link, layer by layer under the prefill (`pipeline_s`); the read buffer, which is HBM that running jobs leave
free, is filled from when the job headed the queue and the link was free. KV in a tier with links of its own (SSD) starts to move when the
job starts, over both links; KV that is being fetched comes as the rest of it arrives. A load is asked for at these times, and its first
byte moves when the connector has dealt with that request, and the link is free. What a load policy asks is worked out from the links
as they are and books nothing; `take` books.
"""

import math
from collections.abc import Callable

from kvplan.hwmodels.steptime import StepTime, pipeline_s
from kvplan.sim.config import Store
from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.paths import Paths
from kvplan.sim.policies.base import LoadView


class Loader(LoadView):
    """One replica's, of whole blocks of so many tokens, of which as many as are loaded have `stored` bytes; `begin` sets the job that the
    questions are about."""

    def __init__(self, deployment: Deployment, settings: Store, paths: Paths, block: int, stored: Callable[[int], int]) -> None:
        self.cached = self.new = self._there = 0
        self.steps: StepTime = deployment.steps
        self._stored, self._hbm_kv = stored, deployment.hbm_kv
        self._ahead_s, self.block = deployment.connection.ahead_s, block
        self._layerwise: bool = deployment.connection.layerwise
        self._latency_s = paths.to_device.latency_s * deployment.connection.transfers(self.steps.layers) / self.steps.layers
        self._read_buffer = min(settings.read_buffer_layers, self.steps.layers) if self._layerwise else 0
        self._paths = paths
        self._tier = 0
        self._now = self._ready = self._since = self._fetched_at = self.rest_s = 0.0
        self._free = 0
        self._worked_out: tuple[int, int, tuple[float, float, float]]
        """Of so many tokens their bytes, and what `_pace` answers."""

    def begin(
        self, tier: int, cached: int, new: int, now: float, ready: float, head_since: float, fetched_at: float, free: int, there: int = 0
    ) -> None:
        """A job starts: `cached` tokens of its history lie in a tier, complete there from `ready` on, and it has headed the queue since
        `head_since`. `fetched_at`: when a fetch that is under way ends; infinity when there is none. `free`: HBM bytes that running jobs
        left while it waited. `there`: tokens before those that are in HBM already."""
        self._there = there
        self._tier, self.cached, self.new, self._now = tier, cached, new, now
        self._ready = ready if ready > self._paths.to_device.free_at else self._paths.to_device.free_at
        self._since = head_since if self._read_buffer else now
        self._fetched_at = fetched_at
        self._free = free
        self.rest_s = self.steps.prefill(new, there + cached)
        self._worked_out = -1, 0, (0.0, 0.0, 0.0)

    def prefill_s(self, new: int, history: int) -> float:
        return self.steps.prefill(new, self._there + history)

    def load_s(self, tokens: int) -> float:
        delay, load, preloaded = self._pace(tokens)
        return delay + (self.steps.layers - preloaded) * load

    def layerwise_s(self, tokens: int) -> float:
        left = self.cached - tokens
        compute = self.steps.prefill(self.new + left, self._there + tokens) if left else self.rest_s
        if not tokens:
            return compute
        delay, load, preloaded = self._pace(tokens)
        if not self._layerwise:
            return delay + self.steps.layers * load + compute
        return pipeline_s(self.steps.layers, compute / self.steps.layers, load, preloaded, delay)

    def _pace(self, tokens: int) -> tuple[float, float, float]:
        """(seconds until the first layer starts to move, seconds per layer, layers that have moved already)."""
        if tokens != self._worked_out[0]:
            size = self._paths.taken[self._tier](self._stored(tokens))
            self._worked_out = tokens, size, self._paced(tokens, size)
        return self._worked_out[2]

    def _paced(self, tokens: int, size: int) -> tuple[float, float, float]:
        layers, link, now, own = self.steps.layers, self._paths.to_device, self._now, self._paths.reads[self._tier]
        load = size / layers / link.bandwidth + self._latency_s
        ready = self._ready
        ahead_s = self._ahead_s(size)
        asked = now + ahead_s
        if own is None:
            start = max(ready, self._since + ahead_s)
            if start < now:
                return 0.0, load, min(self._read_buffer, self._free * layers / self._hbm_kv.of(tokens), (now - start) / load)
            return start - now, load, 0.0
        if self._fetched_at < math.inf:
            coming = (self._fetched_at - now) / layers
            return (asked if asked > ready else ready) - now, coming if coming > load else load, 0.0
        start, end = own.preview(asked, size)
        faster, slower = sorted((load, (end - start) / layers))
        return (start if start > ready else ready) - now + faster, slower, 0.0

    def take(self, tokens: int) -> tuple[float, float]:
        """Books the transfer of so many tokens; returns its start and end."""
        delay, load, preloaded = self._pace(tokens)
        size, now, own = self._worked_out[1], self._now, self._paths.reads[self._tier]
        if own is not None and self._fetched_at == math.inf:
            own.book(now + self._ahead_s(size), size)
        start, end = now + delay - preloaded * load, now + delay + (self.steps.layers - preloaded) * load
        self._paths.to_device.occupy(start, end, size)
        return start, end
