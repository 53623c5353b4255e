"""Host memory: pinned where a GPU copies from it, and aligned for direct I/O."""

import math

import torch
from torch import Tensor

from kvplan.validate.calibration.kernels.shape import ModelShape

ALIGNMENT = 4096
"""Bytes; what O_DIRECT asks of addresses, lengths and offsets on common drives (512 on some)."""


def padded(size: int) -> int:
    """`size` bytes rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def host_buffer(size: int, pinned: bool = False) -> Tensor:
    """`padded(size)` bytes at an aligned address. `pinned` needs CUDA."""
    raw = torch.empty(padded(size) + ALIGNMENT, dtype=torch.uint8, pin_memory=pinned)
    start = -raw.data_ptr() % ALIGNMENT
    return raw[start : start + padded(size)]


def host_cache(shape: ModelShape, layers: int, batch: int, tokens: int, dtype: torch.dtype, pinned: bool = False) -> list[Tensor]:
    """Room in host memory for a saved KV cache: one [batch, tokens, 2, kv_heads, head_dim] per layer."""
    size = (batch, tokens, 2, shape.num_key_value_heads, shape.head_dim)
    number = math.prod(size)
    return [host_buffer(number * dtype.itemsize, pinned).view(dtype)[:number].view(size) for _ in range(layers)]
