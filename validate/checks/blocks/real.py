"""vLLM's own KVCacheManager over the same contexts, on a CPU, where vLLM is installed.

Blocks are named by the keys of contexts instead of hashes of tokens; all else is vLLM's code. Left out: its tier below and its windows,
whose classes need a server around them; those figures are as measured.
"""

import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

from kvplan.traces.blockpaths import BlockContexts
from kvplan.validate.checks.blocks.figures import HIT, Cache, Pool

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
    return {HIT: _pool(cache.usable, contexts)} if isinstance(cache, Pool) else {}


def _pool(usable: int, contexts: BlockContexts) -> int:
    """Tokens that requests hit, one after the other."""
    manager, hits = _manager(usable, contexts), 0
    for number, (path, tokens) in enumerate(zip(contexts.paths, contexts.tokens, strict=True)):
        request = _request(number, [path[block] for block in range(tokens // contexts.block_tokens)], tokens)
        blocks, hit, _ = manager.get_computed_blocks(request)
        if manager.allocate_slots(request, tokens - hit, hit, blocks) is not None:
            hits += hit
            manager.free(request)
    return hits


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


def _request(number: int, keys: list[int], tokens: int) -> Any:
    from vllm import SamplingParams
    from vllm.v1.request import Request

    names = [key.to_bytes(16, "big", signed=True) for key in keys]
    return Request(
        str(number), [0] * tokens, SamplingParams(max_tokens=1), None, block_hasher=lambda request: names[len(request.block_hashes) :]
    )
