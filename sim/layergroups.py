"""How vLLM lays a model's layers out in its pool of blocks: in groups of as many layers each, which attend to everything or to a window, or
keep a state.

A block of the pool is one group's. A block of a group with states holds one in each of its layers, so it has at least the tokens whose KV
takes as much in a layer with full attention, rounded up to what kernels take.
Source: vLLM 0.33, v1/core/kv_cache_utils.py (groups of one page size): the kind with fewer layers says how many a group has, and one with
less than a quarter more has room beside it; what is left of a group is padding. platforms/interface.py (hybrid block size): the tokens.
"""

from dataclasses import dataclass
from functools import partial

from kvplan.hwmodels import Model, kvsize
from kvplan.hwmodels.footprint import Footprint
from kvplan.hwmodels.layers import Latent
from kvplan.sim.store.blocks.modes import MakePool
from kvplan.sim.store.blocks.states import StatesPool
from kvplan.sim.store.blocks.windows import Groups, WindowsPool

_NEARLY = 1.25
_KERNEL = 16
"""Tokens; a block is a multiple. Source: vLLM's FlashAttention backend."""


@dataclass(frozen=True)
class Layout:
    """Of a model with windows or states."""

    groups: Groups
    token_bytes: int
    """HBM that a group takes for a token."""
    least_tokens: int = 1
    """Of a block."""

    @property
    def make(self) -> MakePool:
        """An empty pool."""
        return partial(StatesPool if self.groups.states else WindowsPool, self.groups)


def layout(model: Model, kept: Footprint, dense: bool) -> Layout | None:
    """Of jobs that take so much HBM. None where every layer attends to everything; and where others do not all have one window, or one
    state, or full attention beside them has not as many bytes a layer."""
    if not kept.is_checkpoint:
        return None
    return _with_states(model, kept) if kept.state else _with_windows(model, kept, dense)


def _with_windows(model: Model, kept: Footprint, dense: bool) -> Layout | None:
    windows = kvsize.windows(model)
    full = sum(group.count for group in model.layers if group.kind.token_bytes(16)) - sum(windows.values())
    if len(windows) != 1 or full <= 0:
        return None
    ((tokens, windowed),) = windows.items()
    if kept.windows[0][1] * full != kept.per_token * windowed:
        return None
    size = _of_a_group(full, windowed)
    return Layout(Groups(-(-full // size), -(-windowed // size), tokens, dense), kept.per_token * size // full)


def _with_states(model: Model, kept: Footprint) -> Layout | None:
    """A lookup needs the state of the token before, as a window of two tokens has it."""
    of_tokens = [group for group in model.layers if group.kind.token_bytes(16)]
    full, states = sum(group.count for group in of_tokens), kvsize.state_layers(model)
    sizes = {group.kind.token_bytes(16) for group in of_tokens}, {group.kind.state_bytes for group in model.layers} - {0}
    if kept.windows or any(len(each) != 1 for each in sizes) or any(isinstance(group.kind, Latent) for group in of_tokens):
        return None
    size, tokens = _of_a_group(full, states), -(-kept.state * full // (states * kept.per_token * _KERNEL)) * _KERNEL
    return Layout(Groups(-(-full // size), -(-states // size), 2, states=True), kept.per_token * size // full, tokens)


def _of_a_group(*layers: int) -> int:
    """Layers that each group has room for."""
    fewer, more = sorted(layers)
    return more if more < _NEARLY * fewer else fewer
