"""How vLLM lays a model's layers out in its pool of blocks: in groups of as many layers each, which attend to everything or to a window.

A block of the pool is one group's. Source: vLLM 0.33, v1/core/kv_cache_utils.py (groups of one page size): the kind with fewer layers says
how many a group has, and one with less than a quarter more has room beside it; what is left of a group is padding.
"""

from dataclasses import dataclass

from kvplan.hwmodels import Model, kvsize
from kvplan.hwmodels.footprint import Footprint
from kvplan.sim.store.blocks.windows import Groups

_NEARLY = 1.25


@dataclass(frozen=True)
class Layout:
    """Of a model with windows."""

    groups: Groups
    token_bytes: int
    """HBM that a group takes for a token."""


def layout(model: Model, kept: Footprint, dense: bool) -> Layout | None:
    """Of jobs that take so much HBM. None where no layer has a window, or where that is not one window beside full attention, with as many
    bytes a layer."""
    windows = kvsize.windows(model)
    keeping = sum(group.count for group in model.layers if group.kind.token_bytes(16))
    full = keeping - sum(windows.values())
    if len(windows) != 1 or full <= 0 or kvsize.state_layers(model):
        return None
    ((tokens, windowed),) = windows.items()
    if kept.windows[0][1] * full != kept.per_token * windowed:
        return None
    fewer, more = sorted((full, windowed))
    size = more if more < _NEARLY * fewer else fewer
    return Layout(Groups(-(-full // size), -(-windowed // size), tokens, dense), kept.per_token * size // full)
