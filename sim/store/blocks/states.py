"""vLLM's pool of blocks for a model with layers that keep a state (`mamba_cache_mode=align`): as with windows, but a block of such a group
is one state, that of the end of so many tokens.

A prefix is found where full attention has all of its blocks, and each group of states the block that ends there. A request has one block of
each such group, which is written on and on; until its prefill has ended also the one that it goes on from. Steps of a prefill end where
states are kept: before the longest prefix that a lookup of the same prompt could find, which leaves a token to compute, and at a junction.
A state that a step has gone on from is left before all that its request leaves at its end. Who comes back with some of its answer stops at
such a place of all that it computes, which is its prompt's or none. Of answers no state is kept.

Left out: that a prefill takes a step more for the tokens behind its last kept state (Mamba-2's kernels, and FlashInfer's for gated delta
rules, export it within the step, into a third block); a second block for the one step in which an answer begins a block; and lookups finer
than a block (`prefix_match_unit`, which is a block's tokens where nobody sets it).
Source: vLLM 0.33.0, MambaManager of v1/core/single_type_kv_cache_manager.py, `replay_boundaries` of v1/core/kv_cache_coordinator.py,
`_mamba_block_aligned_split` of v1/core/sched/scheduler.py. That a request has two blocks all the while that it is prefilled is a choice:
the second is free as soon as its first step has ended.
"""

from collections.abc import Sequence

from kvplan.sim.store.blocks.runs import Piece
from kvplan.sim.store.blocks.windows import Groups, WindowsPool, WindowsUse


class StatesPool(WindowsPool):
    """`usable` blocks, each of one group."""

    def __init__(
        self, groups: Groups, usable: int, block_tokens: int, most_kept: int | None = None, step_tokens: int | None = None
    ) -> None:
        super().__init__(groups, usable, block_tokens, most_kept, step_tokens)
        self._has, self._in_step = 1, 2

    def _replayed(self, tokens: int, prompt: int) -> int:
        boundary = self._most(prompt)
        return boundary if boundary == self._most(tokens) else 0

    def _left_before(self, use: WindowsUse) -> int:
        return max(0, len(use.named) - 1)

    def _give_back(self, blocks: Sequence[Sequence[Piece]], now: float) -> None:
        """Steps have left one after the other."""
        for each in blocks:
            for piece in each:
                self._runs.give_back([piece], now)
