"""vLLM's pool of blocks for a model with layers that keep a state (`mamba_cache_mode=align`): as with windows, but a block of such a group
is one state, that of the end of so many tokens.

A prefix is found where full attention has all of its blocks, and each group of states the block that ends there. A request has one block of
each such group, which is written on and on; until its prefill has ended also the one that it goes on from. Steps of a prefill end where
states are kept: at the last full block of what it computes, and at a junction. A prompt's own is kept if a lookup of that prompt could
find it: not where the prompt ends with a full block, for a lookup leaves a token to compute. Of answers none is.

Left out: that a prefill takes a step more for the tokens behind its last full block; a second block for the one step in which an answer
begins a block; states where a step's budget happens to end; lookups finer than a block (`hash_block_size`), and `mamba_cache_mode=all`,
which vLLM takes by itself for some Mamba-2 models and which keeps the state of each block.
Source: vLLM 0.33, MambaManager of v1/core/single_type_kv_cache_manager.py, `_mamba_block_aligned_split` of v1/core/sched/scheduler.py. That
a request has two blocks all the while that it is prefilled is a choice: the second is free as soon as its first step has ended.
"""

from kvplan.sim.store.blocks.windows import Groups, WindowsPool


class StatesPool(WindowsPool):
    """`usable` blocks, each of one group."""

    def __init__(
        self, groups: Groups, usable: int, block_tokens: int, most_kept: int | None = None, step_tokens: int | None = None
    ) -> None:
        super().__init__(groups, usable, block_tokens, most_kept, step_tokens)
        self._has, self._in_step = 1, 2

    def _replayed(self, tokens: int, prompt: int) -> int:
        boundary = self._most(prompt)
        return boundary if boundary == tokens // self._block_tokens else 0
