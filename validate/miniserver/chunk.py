"""KV of consecutive tokens of one session, the unit in which it is saved, moved and dropped: a turn adds one chunk to its session's.

A chunk never changes once its turn has ended, so that a copy in a lower tier stays a valid prefix, and cutting the oldest tokens drops
chunks, and the front of one. In host memory and in a file its layers lie one after another, each padded to what direct I/O asks for.

The last token of an answer has no KV yet: it is computed with the session's next prompt. So a session of n tokens has n − 1 here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from kvplan.validate.calibration.datapath.buffers import host_buffer, padded
from kvplan.validate.calibration.datapath.streams import Event


@dataclass(frozen=True)
class Layout:
    """What one token's KV looks like."""

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype

    def layer_bytes(self, tokens: int) -> int:
        """Bytes that one layer of a chunk takes, padded."""
        return padded(tokens * 2 * self.kv_heads * self.head_dim * self.dtype.itemsize)


@dataclass(frozen=True)
class Chunk:
    """In host memory. `kv` is [layers, tokens, 2, kv_heads, head_dim], K before RoPE."""

    layout: Layout
    raw: Tensor
    kv: Tensor
    saved: list[Event] = field(default_factory=list)
    """The end of its saving, once that is known."""

    @property
    def tokens(self) -> int:
        """Tokens."""
        return self.kv.shape[1]

    @property
    def is_whole(self) -> bool:
        """Whether it takes all of the memory that it keeps; not when its front was cut off."""
        return self.kv.data_ptr() == self.raw.data_ptr()

    def layer(self, index: int) -> Tensor:
        """The bytes of one layer of a whole chunk, padded."""
        size = self.layout.layer_bytes(self.tokens)
        return self.raw[index * size : (index + 1) * size]

    def await_saved(self) -> None:
        """Blocks the caller until all of it is there; raises what saving raised."""
        for event in self.saved:
            event.synchronize()

    def compact(self) -> "Chunk":
        """The same tokens in memory of their own; itself when it is whole."""
        if self.is_whole:
            return self
        self.await_saved()
        whole = empty(self.layout, self.tokens)
        whole.kv.copy_(self.kv)
        return whole


def empty(layout: Layout, tokens: int) -> Chunk:
    """Room for so many tokens."""
    size = layout.layer_bytes(tokens)
    raw = host_buffer(layout.layers * size)[: layout.layers * size]
    used = tokens * 2 * layout.kv_heads * layout.head_dim * layout.dtype.itemsize
    rows = raw.view(layout.layers, size)[:, :used].view(layout.dtype)
    return Chunk(layout, raw, rows.unflatten(1, (tokens, 2, layout.kv_heads, layout.head_dim)))


@dataclass(frozen=True)
class ChunkFile:
    """On SSD: all `skip + tokens` tokens of a chunk as it was written, of which the oldest `skip` are not of use any more."""

    path: Path
    tokens: int
    checksums: tuple[int, ...]
    """CRC-32 of each layer's bytes, padding included."""
    skip: int = 0


def count(chunks: Sequence[Chunk] | Sequence[ChunkFile]) -> int:
    """Tokens of all chunks together."""
    return sum(chunk.tokens for chunk in chunks)


def newest(chunks: list, tokens: int) -> list:
    """The newest `tokens` tokens of chunks, or of chunk files: whole ones, and what is left of one whose front is cut off.

    Nothing is copied: what is cut off a chunk in memory keeps its memory until the chunk is made `compact`.
    """
    excess = count(chunks) - tokens
    kept = []
    for chunk in chunks:
        cut = min(excess, chunk.tokens)
        excess -= cut
        if cut < chunk.tokens:
            kept.append(_without(chunk, cut) if cut else chunk)
    return kept


def _without(chunk: Chunk | ChunkFile, cut: int) -> Chunk | ChunkFile:
    if isinstance(chunk, Chunk):
        return replace(chunk, kv=chunk.kv[:, cut:])
    return replace(chunk, tokens=chunk.tokens - cut, skip=chunk.skip + cut)
