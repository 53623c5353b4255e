"""vLLM's own KVCacheManager and CPUOffloadingManager over the same contexts, on a CPU, where vLLM is installed.

Blocks are named by the keys of contexts instead of hashes of tokens, and transfers take no time; all else is vLLM's code, called as its
scheduler does: what a request loads, and what the pool had before it, is not offered to the tier again. Left out: windows.
"""

import warnings
from collections.abc import Callable
from importlib import metadata
from itertools import takewhile
from typing import Any

from kvplan.traces.blockpaths import BlockContexts
from kvplan.validate.checks.blocks.figures import EXTERNAL, HIT, RATE, STORED, Cache, Offload, Pool

Drive = Callable[[Cache, BlockContexts], dict[str, float]]
"""(cache, contexts) -> figures that the real classes give; none of a cache that is not driven."""


def version() -> str:
    """Of the vLLM that is installed."""
    return metadata.version("vllm")


def driver() -> tuple[Drive | None, str]:
    """What drives the real classes, or why nothing does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from vllm.v1.core import kv_cache_manager  # noqa: F401
    except ImportError as error:
        return None, f"real: skipped, vLLM's KVCacheManager cannot be imported ({error})."
    return _driven, ""


def _driven(cache: Cache, contexts: BlockContexts) -> dict[str, float]:
    if isinstance(cache, Pool):
        hits, *_ = _served(_manager(cache.usable, contexts), None, contexts)
        return {HIT: hits}
    if isinstance(cache, Offload):
        hits, below, stored = _served(_manager(cache.usable, contexts), _tier(cache), contexts)
        return {EXTERNAL: below, RATE: (hits + below) / sum(contexts.tokens), STORED: stored}
    return {}


def _served(manager: Any, tier: Any, contexts: BlockContexts) -> tuple[int, int, int]:
    """Tokens that requests hit in the pool and below it, one after the other; chunks stored."""
    hits = below = stored = 0
    size = contexts.block_tokens
    for number, (path, tokens) in enumerate(zip(contexts.paths, contexts.tokens, strict=True)):
        names = [path[block].to_bytes(16, "big", signed=True) for block in range(tokens // size)]
        request, asked = _request(number, names, tokens), None if tier is None else _Asked(tier, number, names, size)
        blocks, hit, _ = manager.get_computed_blocks(request)
        more = 0 if asked is None else asked.found(hit // size, (tokens - 1) // size) * size
        if manager.allocate_slots(request, tokens - hit - more, hit, blocks, num_external_computed_tokens=more) is None:
            continue
        hits, below = hits + hit, below + more
        stored += 0 if asked is None else asked.stored(hit // size, (hit + more) // size)
        manager.free(request)
    return hits, below, stored


class _Asked:
    """A request to the tier."""

    def __init__(self, tier: Any, number: int, names: list[bytes], size: int) -> None:
        from vllm.v1.kv_offload.base import LookupResult, ReqContext, make_offload_key

        self._tier, self._hit = tier, LookupResult.HIT
        self._keys = [make_offload_key(name, 0) for name in names]
        self._context = ReqContext(req_id=str(number))
        tier.on_new_request(self._context)
        for place, key in enumerate(self._keys):
            self._context.set_offload_key_position(key, (place + 1) * size)

    def found(self, start: int, most: int) -> int:
        """Chunks from `start` on, up to `most`, that are there."""
        there = (self._tier.lookup(key, self._context) == self._hit for key in self._keys[start:most])
        return sum(takewhile(bool, there))

    def stored(self, start: int, stop: int) -> int:
        """Loads chunks from `start` to `stop`, and offers what the scheduler does. Returns the chunks that were stored."""
        if load := self._keys[start:stop]:
            self._tier.prepare_load(load, self._context)
            self._tier.complete_load(load, self._context)
        answer = self._tier.prepare_store(self._keys[stop if load else 0 :], self._context)
        keys = [] if answer is None else answer.keys_to_store
        self._tier.complete_store(keys, self._context)
        self._tier.on_request_finished(self._context)
        return len(keys)


def _tier(cache: Offload) -> Any:
    from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager

    return CPUOffloadingManager(cache.chunks, cache_policy=cache.policy, store_threshold=cache.threshold)


def _manager(usable: int, contexts: BlockContexts) -> Any:
    """One group of full attention; a block is reserved."""
    from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec

    size = contexts.block_tokens
    group = KVCacheGroupSpec(
        ["layer"], FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=1, dtype=STR_DTYPE_TO_TORCH_DTYPE["half"])
    )
    config = KVCacheConfig(num_blocks=usable + 1, kv_cache_tensors=[], kv_cache_groups=[group])
    return KVCacheManager(config, max_model_len=max(contexts.tokens) + 1, scheduler_block_size=size, hash_block_size=size)


def _request(number: int, names: list[bytes], tokens: int) -> Any:
    from vllm import SamplingParams
    from vllm.v1.request import Request

    return Request(
        str(number), [0] * tokens, SamplingParams(max_tokens=1), None, block_hasher=lambda request: names[len(request.block_hashes) :]
    )
