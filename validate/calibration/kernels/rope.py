"""Rotary position embedding (RoPE), as LLaMA computes it: value i of a head turns together with value i + head_dim/2.

Source: Su et al., RoFormer (arXiv 2104.09864) section 3.4; the pairing is that of `transformers`' LLaMA. Left out: the scalings for
long contexts (Llama 3.1, YaRN), which change angles and neither times nor the equalities shown here.
"""

import torch
from torch import Tensor

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, [..., tokens, 1, head_dim / 2] in the dtype of what they turn."""


class Rope:
    """Angles of every position up to `positions`, computed in float64 and kept in `dtype`."""

    def __init__(self, positions: int, head_dim: int, theta: float, dtype: torch.dtype, device: str):
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), theta**-exponents).unsqueeze(1)
        self._cos, self._sin = angles.cos().to(device, dtype), angles.sin().to(device, dtype)

    def span(self, start: int, end: int) -> Rotation:
        """Of positions `start` to `end` − 1."""
        return self._cos[start:end], self._sin[start:end]

    def at(self, positions: Tensor) -> Rotation:
        """Of one position per row of a batch, [batch]."""
        return self._cos[positions].unsqueeze(1), self._sin[positions].unsqueeze(1)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """`x`, [batch, tokens, heads, head_dim], turned to its positions."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
