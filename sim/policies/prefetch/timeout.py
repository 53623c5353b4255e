"""Wait with a timeout: a job waits for its KV from SSD for 1 s, and 0.25 s per 1,024 tokens of it, at most; the rest is recomputed.

Source: SGLang HiCache, prefetch policy `timeout`, with its defaults (`prefetch_timeout_base`, `prefetch_timeout_per_ki_token`).
"""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.prefetch.best_effort import BestEffort

_BASE_S = 1.0
_PER_TOKEN_S = 0.25 / 1024


@mypyc_attr(allow_interpreted_subclasses=True)
class Timeout(BestEffort):
    """O(log n) per call, amortised."""

    NAME = "timeout"
    HOLDS = True

    def patience_s(self, tokens: int) -> float:
        return _BASE_S + _PER_TOKEN_S * tokens
