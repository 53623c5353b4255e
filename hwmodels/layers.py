"""Kinds of layers, by what each keeps of a session: a model is a list of (kind, count).

    bytes(session of T tokens) = Σ count · (bytes a token · min(T, window) + state)

A store may keep all T tokens of a layer with a window (`every-token`) or only the last ones (`windowed`); attention reads the window
in both.

Source: DeepSeek-V2 (arXiv 2405.04434) section 2.1 for the latent of MLA, DeepSeek-V3.2-Exp's report section 2.1 for its indexer and
vLLM's `fp8_ds_mla` layout for both in 8 bits; Gated DeltaNet (arXiv 2412.06464) and Mamba-2 (arXiv 2405.21060) for states.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar


@dataclass(frozen=True)
class Layer:
    """One that keeps nothing of its own: feed-forward only, and what the next ones add to it."""

    name: str = "no attention"

    window: int | None = None
    """Tokens that it attends to at most; None for all."""
    attends: ClassVar[bool] = False
    """Whether it attends to tokens of the session."""

    @property
    def state_bytes(self) -> int:
        """What it keeps of a session whatever its length."""
        return 0

    def token_bytes(self, bits: Fraction) -> int:
        """What it keeps of one token, at `bits` an element."""
        return 0

    def copies(self, gpus: int) -> tuple[int, int]:
        """How often tensor parallelism over `gpus` holds it in all ranks together, as a fraction (numerator, denominator)."""
        return 1, 1

    def kept(self, tokens: int) -> int:
        """Tokens of a session of `tokens` that it attends to."""
        return tokens if self.window is None else min(tokens, self.window)


@dataclass(frozen=True)
class Borrowed(Layer):
    """Attention over what an earlier layer keeps."""

    name: str = "attention to another layer's KV"
    attends: ClassVar[bool] = True


@dataclass(frozen=True)
class Pictures(Layer):
    """Attention to pictures alone, whose KV is left out."""

    name: str = "attention to a picture"


@dataclass(frozen=True)
class Attention(Layer):
    """Keys and values of every head: MHA, GQA, MQA, over all tokens, a sliding window or chunks of `window`."""

    name: str = "full attention"
    attends: ClassVar[bool] = True
    kv_heads: int = 1
    head_dim: int = 1
    v_head_dim: int = 1

    def token_bytes(self, bits: Fraction) -> int:
        """K and V of all heads."""
        return self.kv_heads * (self.head_dim + self.v_head_dim) * bits // 8

    def copies(self, gpus: int) -> tuple[int, int]:
        """Heads are split over ranks and copied where there are fewer heads than ranks; where they do not divide evenly, every rank
        sets aside what the fullest one needs. Source: Megatron-LM (arXiv 1909.08053), vLLM's sharding of GQA."""
        return -(-self.kv_heads // gpus) * gpus, self.kv_heads


@dataclass(frozen=True)
class Latent(Layer):
    """MLA: a latent and the positions' part of the key, and with an indexer its key, for all heads at once."""

    name: str = "latent attention"
    attends: ClassVar[bool] = True
    rank: int = 1
    rope: int = 0
    index_width: int = 0
    """Of the indexer's key; 0 without one."""
    chosen: bool = False
    """Whether it attends to few tokens that an indexer chooses, its own or another layer's."""

    def token_bytes(self, bits: Fraction) -> int:
        """In 8 bits with chosen tokens, vLLM's layout: positions stay in 16 bits, and each 128 elements have a scale of 4 bytes."""
        if bits == 8 and self.chosen:
            scales = 4 * (-(-self.rank // 128) + -(-self.index_width // 128))
            return self.rank + 2 * self.rope + self.index_width + scales
        return (self.rank + self.rope + self.index_width) * bits // 8

    def copies(self, gpus: int) -> tuple[int, int]:
        """Every rank holds it whole."""
        return gpus, 1


@dataclass(frozen=True)
class State(Layer):
    """Linear attention, a state-space model or a short convolution: a state of one size, of which a store keeps checkpoints."""

    name: str = "state"
    convolution: int = 0
    """Bytes of its last inputs."""
    recurrent: int = 0
    """Bytes of what it sums up."""

    @property
    def state_bytes(self) -> int:
        """Of one checkpoint."""
        return self.convolution + self.recurrent


@dataclass(frozen=True)
class Both(Attention):
    """Attention and a state side by side in one layer."""

    name: str = "full attention and a state"
    beside: State = State()

    @property
    def state_bytes(self) -> int:
        """Of one checkpoint."""
        return self.beside.state_bytes


@dataclass(frozen=True)
class LayerGroup:
    """So many layers of one kind."""

    kind: Layer
    count: int
