"""One decoder layer: RMSNorm, attention with grouped KV heads and rotary positions, RMSNorm, (gated) MLP.

Left out, as neither times nor equalities hang on them: biases (Qwen), soft caps and second norms (Gemma), attention and MLP side by
side (Falcon), sliding windows.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention, silu

from kvplan.validate.calibration.kernels.linear import Linear
from kvplan.validate.calibration.kernels.rope import Rotation, rotate
from kvplan.validate.calibration.kernels.shape import ModelShape


@dataclass(frozen=True)
class Place:
    """Where the new tokens of a step stand; worked out once for all layers."""

    history: int
    """Tokens of history that every sequence has and that still lack positions: those of a prefill. 0 in a decode step."""
    rotation: Rotation
    """Of the new tokens."""
    slots: tuple
    """Index of the new tokens in the first two dimensions of a working cache."""
    visible: int
    """Tokens of a working cache that attention looks at."""
    mask: Tensor | None
    """Which of them each new token sees; None for all."""
    apart: tuple[tuple[int, int], ...] = ()
    """(row of the working cache, tokens of it to look at) per sequence, when each is attended by itself; () when all are at once."""


class Layer:
    """Weights of one layer, drawn at random so that activations keep their size through any number of layers."""

    def __init__(self, shape: ModelShape, depth: int, dtype: torch.dtype, device: str, generator: torch.Generator):
        self._heads, self._kv_heads, self._head_dim = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        self._gated = shape.gated_mlp

        def weight(inputs: int, outputs: int, scale: float = 1.0) -> Linear:
            drawn = torch.randn(inputs, outputs, dtype=dtype, device=device, generator=generator)
            return Linear(drawn.mul_(scale * inputs**-0.5))

        hidden, wide = shape.hidden_size, shape.intermediate_size
        residual = (2 * depth) ** -0.5
        self._qkv = weight(hidden, (self._heads + 2 * self._kv_heads) * self._head_dim)
        self._out = weight(self._heads * self._head_dim, hidden, residual)
        self._up = weight(hidden, (2 if self._gated else 1) * wide)
        self._down = weight(wide, hidden, residual)

    def __call__(self, x: Tensor, kv: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """The layer's output, [batch, new, hidden], and what to save of the new tokens: [batch, new, 2, kv_heads, head_dim].

        `x` is [batch, new, hidden]; `kv` is the layer's working cache, to which the new tokens are written; its history has its
        positions already.
        """
        heads = self._qkv(norm(x)).unflatten(-1, (-1, self._head_dim))
        query = rotate(heads[:, :, : self._heads], place.rotation)
        fresh = heads[:, :, self._heads :].unflatten(2, (2, self._kv_heads)).contiguous()
        kv[(*place.slots, 0)] = rotate(fresh[:, :, 0], place.rotation)
        kv[(*place.slots, 1)] = fresh[:, :, 1]
        x = x + self._out(self._attended(query, kv, place))
        return x + self._down(self._activated(self._up(norm(x)))), fresh

    def _attended(self, query: Tensor, kv: Tensor, place: Place) -> Tensor:
        """Attention over what of a working cache each sequence sees."""
        if not place.apart:
            return self._attention(query, kv[:, : place.visible], place.mask)
        found = [self._attention(query[i : i + 1], kv[row : row + 1, :seen], None) for i, (row, seen) in enumerate(place.apart)]
        return torch.cat(found)

    def _attention(self, query: Tensor, kv: Tensor, mask: Tensor | None) -> Tensor:
        """[batch, new, heads · head_dim] from queries [batch, new, heads, head_dim] and the visible part of a working cache."""
        keys, values = kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)
        grouped = self._kv_heads < self._heads
        found = scaled_dot_product_attention(query.transpose(1, 2), keys, values, attn_mask=mask, enable_gqa=grouped)
        return found.transpose(1, 2).flatten(2)

    def _activated(self, wide: Tensor) -> Tensor:
        if not self._gated:
            return silu(wide)
        gate, up = wide.chunk(2, dim=-1)
        return silu(gate) * up


def norm(x: Tensor) -> Tensor:
    """RMSNorm with weights of one."""
    return rms_norm(x, x.shape[-1:], eps=1e-5)
