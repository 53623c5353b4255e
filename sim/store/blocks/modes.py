"""Whose rules a cache of blocks goes by: an engine's or a tool's, by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvplan.sim.store.blocks.arc import ArcOrder
from kvplan.sim.store.blocks.base import BlockCache, Path
from kvplan.sim.store.blocks.chunks import Chunks
from kvplan.sim.store.blocks.lmcache import FifoChunks, LfuChunks, LruChunks
from kvplan.sim.store.blocks.offload import FilteredOffload, LruOrder, Offload
from kvplan.sim.store.blocks.optimal import OptimalTrie
from kvplan.sim.store.blocks.passing import PassingOffload
from kvplan.sim.store.blocks.pool import Pool
from kvplan.sim.store.blocks.sglang import RadixCache
from kvplan.sim.store.blocks.trie import FifoTrie, LruTrie
from kvplan.sim.store.blocks.vllm import VllmPool

Simple = Callable[[int, int], BlockCache]
"""(usable blocks, tokens of a block) -> an empty cache."""
Make = Callable[[int, int, Sequence[Path], Sequence[int]], BlockCache]
"""The same, with the contexts and tokens of all requests to come."""

MakePool = Callable[[int, int, int, int | None], Pool]
"""(usable blocks, tokens of a block, blocks that may be kept when nobody uses them, tokens that one step computes of a request at most) ->
an empty pool."""

MakeOffload = Callable[[int, int, int], Offload]
"""(usable chunks, tokens of a chunk, offers until one is stored) -> an empty tier."""


@dataclass(frozen=True)
class Mode:
    """One set of rules."""

    meaning: str
    block_tokens: int
    """Of its own blocks, where nothing else is said."""
    policies: Mapping[str, Make]
    """What goes first, by name; the first is its own."""
    tiers: Sequence[str]
    """Where its memory can be; the first where nothing else is said."""
    offload: Mapping[str, MakeOffload] = field(default_factory=dict)
    """What goes first in DRAM below its memory, by name, where it has such a tier."""
    pool: MakePool | None = None
    """Its memory in HBM for requests that overlap."""
    in_chunks: bool = False
    """Whether its own memory is one of chunks, which policies of sessions can order too."""
    reserved: int = 0
    """Blocks of the memory that it keeps for itself."""
    warmup_share: float = 0.0
    """Requests, the first of all, whose hits are not counted; memory that has not filled by then is not judged."""


def _lru_offload(usable: int, chunk_tokens: int, threshold: int) -> Offload:
    return PassingOffload(Chunks(usable), chunk_tokens) if threshold == 1 else FilteredOffload(usable, chunk_tokens, LruOrder(), threshold)


def _arc_offload(usable: int, chunk_tokens: int, threshold: int) -> Offload:
    return FilteredOffload(usable, chunk_tokens, ArcOrder(usable), threshold)


def _simple(cache: Simple) -> Make:
    return lambda usable, block_tokens, paths, tokens: cache(usable, block_tokens)


MODES: Mapping[str, Mode] = {
    "vllm": Mode(
        "vLLM's prefix cache in HBM: a free queue, tail first, unnamed blocks before others; lookups leave a token to compute",
        16,
        {"lru": _simple(VllmPool)},
        ("hbm",),
        {"lru": _lru_offload, "arc": _arc_offload},
        VllmPool,
        reserved=1,
    ),
    "sglang": Mode(
        "SGLang's radix cache: leaves that nobody uses go, whole nodes at once; lookups leave a token to compute",
        64,
        {"lru": _simple(RadixCache)},
        ("hbm",),
        {"lru": _lru_offload},
        RadixCache,
    ),
    "lmcache": Mode(
        "LMCache's CPU memory: whole chunks only, whatever HBM above it hits",
        256,
        {"lru": _simple(LruChunks), "fifo": _simple(FifoChunks), "lfu": _simple(LfuChunks)},
        ("dram", "ssd"),
        in_chunks=True,
    ),
    "kvcache-simulator": Mode(
        "the tool's trie, without an engine: unfull blocks too, prompts hit whole; the last half of the requests is counted",
        16,
        {"lru": _simple(LruTrie), "fifo": _simple(FifoTrie), "optimal": OptimalTrie},
        ("dram", "hbm", "ssd"),
        warmup_share=0.5,
    ),
}
"""By name. Sources are in the files of the caches."""
