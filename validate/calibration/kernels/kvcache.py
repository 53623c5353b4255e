"""The two forms of a KV cache, each one tensor per layer.

**Saved**, [batch, tokens, 2, kv_heads, head_dim]: K before RoPE, and V. Tokens come before all else, so that what a turn adds is
appended and cutting the oldest tokens is a slice.

**Working**, [batch, capacity, 2, kv_heads, head_dim]: room for all the tokens that a job will have, K turned to its positions. History
is loaded into its beginning as it was saved, and turned in place when its layer runs.

Source: CachedAttention (USENIX ATC 2024) section 3.4, decoupled positional encoding.
"""

import torch
from torch import Tensor

from kvplan.validate.calibration.kernels.rope import Rotation, rotate
from kvplan.validate.calibration.kernels.shape import ModelShape


def room(shape: ModelShape, layers: int, batch: int, capacity: int, dtype: torch.dtype, device: str) -> list[Tensor]:
    """An empty working cache: zeros, because what a mask hides is still multiplied by a weight of 0, and 0 · NaN is NaN."""
    size = (batch, capacity, 2, shape.num_key_value_heads, shape.head_dim)
    return [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]


def load_(working: Tensor, saved: Tensor) -> None:
    """Copies one layer's saved history into the beginning of its working cache, a sequence at a time: each is one contiguous copy."""
    for into, history in zip(working, saved, strict=True):
        into[: len(history)].copy_(history, non_blocking=True)


def embed_(working: Tensor, tokens: int, rotation: Rotation) -> None:
    """Turns K of the first `tokens` tokens of one layer to their positions, in place: one read and one write of K."""
    keys = working[:, :tokens, 0]
    keys.copy_(rotate(keys, rotation))


def truncate(saved: list[Tensor], cut: int) -> list[Tensor]:
    """The saved cache without its oldest `cut` tokens. What is left holds no positions, so it is as good as before."""
    return [layer[:, cut:] for layer in saved]


def append(saved: list[Tensor], fresh: list[Tensor]) -> list[Tensor]:
    """The saved cache with the tokens of one more step."""
    return [torch.cat(pair, dim=1) for pair in zip(saved, fresh, strict=True)]
