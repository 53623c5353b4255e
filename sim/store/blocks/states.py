"""vLLM's pool of blocks for a model with layers that keep a state (`mamba_cache_mode=align`): as with windows, but a block of such a group
is one state, that of the end of so many tokens.

A prefix is found where full attention has all of its blocks, and each group of states the block that ends there. Of a prompt the state is
kept before the longest prefix that a lookup of it could find, which leaves a token to compute, and at a junction, where a step ends. Of
answers none is: a job that decodes writes one block of each such group on and on.

A step takes a block of each group for the state at its end, and, if it is a prompt's last, one for the state that is kept before that.
What it goes on from is left when the next step starts, and is the last to go then: it gives that step no room. So a request takes blocks
for all states that it writes, not only for those that it has at once: with a junction three of each group, beside the one that was there.
An answer that begins a block of tokens takes one more, for a step.
Who comes back with some of its answer stops at such a place of all that it computes, which is its prompt's or none.

Left out: Triton's gated delta rules (GPUs before Hopper) do not give a state within a step: there a prompt's last step is two, and the
state that it went on from goes sooner. A state that tiers below give has the place of one that the pool had, or of the one before the end.
Of answers that begin blocks in one step one takes more. A prefill of many steps takes one more of each group, and leaves it without a
name. One with a junction and no state before it is let in when there is room for three, not two. Lookups finer than a block
(`prefix_match_unit`, a block's tokens where nobody sets it).
Source: vLLM 0.33.0, MambaManager of v1/core/single_type_kv_cache_manager.py, `replay_boundaries` of v1/core/kv_cache_coordinator.py,
`_mamba_block_aligned_split` of v1/core/sched/scheduler.py, `_exports_checkpoints` of model_executor/layers/mamba.
"""

from typing import ClassVar

from kvplan.sim.store.blocks.pool import Use
from kvplan.sim.store.blocks.runs import depth
from kvplan.sim.store.blocks.windows import Groups, Span, WindowsPool, WindowsUse, merged


class StatesUse(WindowsUse):
    """A tier below has a state where a chunk ends with it."""

    def below(self, blocks: int) -> list[Span]:
        new = [end for end in self.ends if end > max(self.hit, self.loaded)]
        ends = [end // blocks for end in (self.loaded, *new) if end and not end % blocks]
        return merged([(end - 1, end) for end in ends])


class StatesPool(WindowsPool):
    """`usable` blocks, each of one group."""

    USE: ClassVar[type[WindowsUse]] = StatesUse

    def __init__(
        self, groups: Groups, usable: int, block_tokens: int, most_kept: int | None = None, step_tokens: int | None = None
    ) -> None:
        super().__init__(groups, usable, block_tokens, most_kept, step_tokens)
        self._has, self._in_step = 1, 3
        self._begun = False
        """Whether an answer has begun a block since blocks were taken last."""

    @property
    def empty(self) -> int:
        """Of those without a name, that answers fill as they grow."""
        return max(0, self._unnamed - self._windowed)

    def _ahead(self, tokens: int, hit: int, there: int) -> int:
        before = hit or 0 < there < self._most(tokens)
        return min(super()._ahead(tokens, hit, there), 1 + bool(before))

    def _least_ahead(self, tokens: int, hit: int, there: int) -> int:
        return min(self._ahead(tokens, hit, there), 1)

    def _replayed(self, tokens: int, prompt: int) -> int:
        boundary = self._most(prompt)
        return boundary if boundary == self._most(tokens) else 0

    def computed(self, use: Use, tokens: int) -> int:
        assert isinstance(use, WindowsUse)
        before, named = depth(use.pieces), super().computed(use, tokens)
        for junction in use.ends[1:]:
            if before < junction <= depth(use.pieces):
                self._step_ends(use, junction)
        return named

    def _step_ends(self, use: WindowsUse, junction: int) -> None:
        """The next has left what the one that ends at a junction went on from, and has taken what it writes."""
        left, ahead = self._before(use, junction - 1), use.ahead
        use.ahead = 1 + (junction < self._most(use.tokens))
        self._unnamed += self._blocks(left) - self._leaves(left, 0.0)
        self._take(self._blocks(left) + self._windowed * (use.ahead - ahead))
        self._forget(self._runs.blocks - self._most_kept)

    def goes_on(self, use: Use, tokens: int, now: float) -> int | None:
        assert isinstance(use, WindowsUse)
        super().goes_on(use, tokens, now)
        blocks, last = divmod(tokens - 1, self._block_tokens)
        if not last and not use.ended:
            self._begun = True
            self._make_room()
        return None if use.ended else (blocks + 1) * self._block_tokens + 1

    def grow(self, blocks: int) -> None:
        super().grow(blocks)
        if self._begun:
            self._begun = False
            self._make_room()

    def _make_room(self) -> None:
        """A block of each group has been taken for a step."""
        self._forget(min(self._windowed, self.free) - self._unnamed)
