"""What engines and tools hit of the Mooncake conversation trace, in blocks of 512 tokens, one request at a time, without answers.

Source of the trace: github.com/kvcache-ai/Mooncake, FAST25-release/traces/conversation_trace.jsonl. Sources of the figures: vLLM 0.33's own
classes, driven over it on a CPU in November 2026 (KVCacheManager; with CPUOffloadingManager, whose transfers take no time here); the
package kvcache-simulator 0.1.3 (PyPI), whose last half of the requests counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

REQUESTS, PROMPT_TOKENS, BLOCK_TOKENS = 12_031, 144_793_823, 512
HIT, RATE, EXTERNAL, STORED = "tokens hit", "hit rate of all prompt tokens", "tokens hit in DRAM alone", "chunks stored"
_DIGITS = 0.5e-6
"""Rates are published to six digits."""


@dataclass(frozen=True)
class Pool:
    """vLLM's pool of blocks."""

    usable: int

    def __str__(self) -> str:
        return f"{self.usable:,} blocks"


@dataclass(frozen=True)
class Offload:
    """DRAM below such a pool."""

    usable: int
    chunks: int
    policy: str = "lru"
    threshold: int = 1
    """Offers until a chunk is stored."""

    def __str__(self) -> str:
        more = "" if self.threshold == 1 else f", stored when offered {self.threshold} times"
        return f"{self.usable:,} blocks, {self.chunks:,} chunks, {self.policy}{more}"


@dataclass(frozen=True)
class Tool:
    """A trie of the tool's."""

    policy: str
    blocks: int

    def __str__(self) -> str:
        return f"{self.blocks:,} blocks, {self.policy}"


@dataclass(frozen=True)
class Windows:
    """vLLM's pool with one group of full attention and one that attends to 1,024 tokens."""

    usable: int
    dense: bool
    """Whether all blocks of the window are named, or the default's."""

    def __str__(self) -> str:
        return f"{self.usable:,} blocks, {'dense' if self.dense else 'boundary'}"


Cache = Pool | Offload | Tool | Windows


class Figure(NamedTuple):
    """One that was measured."""

    what: str
    published: float
    within: float
    """What ours may be off: rounding, or a difference that is known."""


@dataclass(frozen=True)
class Case:
    """A cache and what it hits."""

    cache: Cache
    figures: tuple[Figure, ...]


_POOL = {
    1_000: 6_649_856, 2_048: 8_197_632, 4_096: 13_547_520, 8_192: 27_843_072,
    16_384: 39_999_488, 32_768: 50_156_544, 65_536: 53_138_432, 131_072: 53_986_816,
}  # fmt: skip
_OFFLOAD = {
    Offload(2_048, 2_048): (0, 0.056616, 260_480),
    Offload(2_048, 4_096): (5_352_960, 0.093585, 250_025),
    Offload(2_048, 16_384): (31_803_392, 0.276262, 198_364),
    Offload(2_048, 65_536): (44_940_800, 0.366994, 172_705),
    Offload(2_048, 16_384, "arc"): (31_621_120, 0.275003, 198_579),
    Offload(2_048, 16_384, threshold=2): (23_673_344, 0.220113, 42_835),
    Offload(8_192, 4_096): (0, 0.192295, 250_025),
    Offload(8_192, 16_384): (12_162_560, 0.276294, 198_355),
}
_OFF_BLOCKS = {Offload(8_192, 16_384): 9}
"""Where ours is not vLLM's to the token, by how many blocks at most. A request that loads neither offers nor renews what the pool had:
these chunks keep their place in the tier's order. In runs ours are all renewed, which shows where the pool is half as large as the tier;
chunk by chunk (`FilteredOffload`) they are not, and this line is exact, too."""
_TOOL = {
    Tool("fifo", 1_024): 0.045746, Tool("lru", 1_024): 0.047041, Tool("optimal", 1_024): 0.199018,
    Tool("fifo", 4_096): 0.085489, Tool("lru", 4_096): 0.087388, Tool("optimal", 4_096): 0.345322,
    Tool("fifo", 8_192): 0.165058, Tool("lru", 8_192): 0.188201, Tool("optimal", 8_192): 0.398113,
    Tool("fifo", 32_768): 0.314756, Tool("lru", 32_768): 0.355753,
}  # fmt: skip
_WINDOWS = {
    Windows(4_096, dense=True): 0.056694, Windows(16_384, dense=True): 0.196570, Windows(65_536, dense=True): 0.352347,
    Windows(4_096, dense=False): 0.078925, Windows(16_384, dense=False): 0.247514, Windows(65_536, dense=False): 0.342347,
}  # fmt: skip


def _offloading() -> Iterator[Case]:
    for cache, (external, rate, stored) in _OFFLOAD.items():
        off = _OFF_BLOCKS.get(cache, 0)
        tokens = off * BLOCK_TOKENS
        figures = Figure(EXTERNAL, external, tokens), Figure(RATE, rate, _DIGITS + tokens / PROMPT_TOKENS), Figure(STORED, stored, off)
        yield Case(cache, figures)


ORACLES = {
    "A: vLLM 0.33, KVCacheManager": [Case(Pool(usable), (Figure(HIT, hit, 0),)) for usable, hit in _POOL.items()],
    "B: kvcache-simulator 0.1.3": [Case(cache, (Figure(RATE, rate, _DIGITS),)) for cache, rate in _TOOL.items()],
    "C: vLLM 0.33, CPUOffloadingManager below": list(_offloading()),
    "D: vLLM 0.33, full attention and a window of 1,024": [Case(cache, (Figure(RATE, rate, _DIGITS),)) for cache, rate in _WINDOWS.items()],
}
