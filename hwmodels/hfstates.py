"""States of layers that keep one instead of KV, from the keys of a `config.json`: linear attention, state-space models, short
convolutions. One class a kind; its fields are the keys as they are written.

A convolution keeps the last k − 1 inputs of its channels in 16 bits, a recurrence its state in the type that is given.

Source: vLLM's `MambaStateShapeCalculator` and `MambaStateDtypeCalculator`; Gated DeltaNet (arXiv 2412.06464), Mamba (arXiv 2312.00752),
Mamba-2 (arXiv 2405.21060), MiniMax-01 (arXiv 2501.08313) section 2 for lightning attention, Kimi Linear (arXiv 2510.26692).
"""

from abc import ABC, abstractmethod
from itertools import chain
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kvplan.hwmodels.hfkeys import keys_of, under
from kvplan.hwmodels.layers import State
from kvplan.hwmodels.schema import DTYPE_BYTES

_Size = Annotated[int, Field(gt=0, le=10_000_000)]
_Dtype = Literal["float32", "bfloat16", "float16"]


class _Keys(BaseModel, ABC):
    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, strict=True)

    hidden_size: _Size

    @abstractmethod
    def state(self) -> State:
        """What a layer keeps of a session."""

    @abstractmethod
    def weights(self) -> int:
        """Matrices of a layer, its convolution among them."""


class GatedDelta(_Keys):
    """Gated DeltaNet (Qwen3-Next, Qwen3.5): conv (k − 1)(2·h_k·d_k + h_v·d_v), recurrence h_v·d_k·d_v in float32."""

    kind: Literal["delta"]
    linear_conv_kernel_dim: _Size
    linear_key_head_dim: _Size
    linear_value_head_dim: _Size
    linear_num_key_heads: _Size
    linear_num_value_heads: _Size

    def state(self) -> State:
        """The doctest is Qwen3.5-35B-A3B's, of which 30 layers keep 64,389,120 B.

        >>> keys = dict(linear_conv_kernel_dim=4, linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16)
        >>> GatedDelta(kind="delta", hidden_size=2048, linear_num_value_heads=32, **keys).state().state_bytes
        2146304
        """
        recurrent = 4 * self._values * self.linear_key_head_dim
        return State(convolution=2 * (self.linear_conv_kernel_dim - 1) * self._channels, recurrent=recurrent)

    def weights(self) -> int:
        """Queries, keys, values, their convolution, output gate, decay and rate of each head, output."""
        rows = self._channels + 2 * self._values + 2 * self.linear_num_value_heads
        return self.hidden_size * rows + self._channels * self.linear_conv_kernel_dim

    @property
    def _values(self) -> int:
        return self.linear_num_value_heads * self.linear_value_head_dim

    @property
    def _channels(self) -> int:
        """Of the convolution: queries, keys and values."""
        return 2 * self.linear_num_key_heads * self.linear_key_head_dim + self._values


class Mamba2(_Keys):
    """Mamba-2 (Nemotron-H, Granite 4, Bamba): conv (k − 1)(h·d + 2·groups·N), recurrence h·d·N."""

    kind: Literal["mamba2"]
    heads: _Size = under("mamba_num_heads", "mamba_n_heads")
    width: _Size = under("mamba_head_dim", "mamba_d_head")
    size: _Size = under("ssm_state_size", "mamba_d_state")
    groups: _Size = under("n_groups", "mamba_n_groups")
    kernel: _Size = under("conv_kernel", "mamba_d_conv")
    mamba_ssm_cache_dtype: _Dtype = "bfloat16"

    def state(self) -> State:
        """In the model's 16 bits, where `mamba_ssm_cache_dtype` does not say more."""
        recurrent = DTYPE_BYTES[self.mamba_ssm_cache_dtype] * self._inner * self.size
        return State(convolution=2 * (self.kernel - 1) * self._channels, recurrent=recurrent)

    def weights(self) -> int:
        """Gate, inputs of the convolution and time steps; convolution; output."""
        return self.hidden_size * (2 * self._inner + self._channels + self.heads) + self._channels * self.kernel

    @property
    def _inner(self) -> int:
        return self.heads * self.width

    @property
    def _channels(self) -> int:
        """Of the convolution."""
        return self._inner + 2 * self.groups * self.size


class Mamba1(_Keys):
    """Mamba (Jamba): conv (k − 1)·expand·hidden, recurrence expand·hidden·N, in the model's 16 bits."""

    kind: Literal["mamba1"]
    mamba_d_state: _Size
    mamba_d_conv: _Size
    mamba_expand: _Size
    mamba_dt_rank: _Size | Literal["auto"] = "auto"

    def state(self) -> State:
        """What one layer keeps."""
        return State(convolution=2 * (self.mamba_d_conv - 1) * self._inner, recurrent=2 * self._inner * self.mamba_d_state)

    def weights(self) -> int:
        """Gate and inputs, output, convolution, decay; time steps through a narrow state, with what chooses inputs and outputs."""
        rank = -(-self.hidden_size // 16) if self.mamba_dt_rank == "auto" else self.mamba_dt_rank
        return self._inner * (3 * self.hidden_size + self.mamba_d_conv + self.mamba_d_state + 2 * rank + 2 * self.mamba_d_state)

    @property
    def _inner(self) -> int:
        return self.mamba_expand * self.hidden_size


class Convolution(_Keys):
    """A short convolution alone (LFM2)."""

    kind: Literal["conv"]
    inputs: _Size = under("conv_L_cache")

    def state(self) -> State:
        """What one layer keeps."""
        return State(name="convolution", convolution=2 * (self.inputs - 1) * self.hidden_size)

    def weights(self) -> int:
        """Two gates and inputs, output, convolution."""
        return self.hidden_size * (4 * self.hidden_size + self.inputs)


class Lightning(_Keys):
    """Lightning attention (MiniMax-01, M1): heads·d·d in float32."""

    kind: Literal["lightning"]
    num_attention_heads: _Size
    head_dim: _Size

    def state(self) -> State:
        """What one layer keeps."""
        return State(recurrent=4 * self.num_attention_heads * self.head_dim**2)

    def weights(self) -> int:
        """Queries, keys, values, output gate, output."""
        return 5 * self.hidden_size * self.num_attention_heads * self.head_dim


class _Kda(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)

    num_heads: _Size
    head_dim: _Size
    short_conv_kernel_size: _Size
    kda_layers: list[_Size]
    full_attn_layers: list[_Size]
    """From 1 on."""

    @property
    def inner(self) -> int:
        """Width of all heads together."""
        return self.num_heads * self.head_dim


class KimiDelta(_Keys):
    """Kimi Delta Attention: conv 3·(k − 1)·h·d, recurrence h·d·d in float32."""

    kind: Literal["kda"]
    linear_attn_config: _Kda

    def state(self) -> State:
        """What one layer keeps."""
        of = self.linear_attn_config
        return State(convolution=2 * 3 * (of.short_conv_kernel_size - 1) * of.inner, recurrent=4 * of.inner * of.head_dim)

    def weights(self) -> int:
        """Queries, keys, values, their convolution, output; decay and output gate through a head's width; rate and decay of each head."""
        of = self.linear_attn_config
        narrow = 2 * of.head_dim * (self.hidden_size + of.inner)
        return of.inner * (4 * self.hidden_size + 3 * of.short_conv_kernel_size) + narrow + (self.hidden_size + 1) * of.num_heads


States = Annotated[GatedDelta | KimiDelta | Mamba2 | Mamba1 | Convolution | Lightning, Field(discriminator="kind")]
_CLASSES: dict[str, type[BaseModel]] = {
    "delta": GatedDelta,
    "kda": KimiDelta,
    "mamba2": Mamba2,
    "mamba1": Mamba1,
    "conv": Convolution,
    "lightning": Lightning,
}


def keys(kind: str) -> set[str]:
    """What a file may write of states of this kind; nothing for none."""
    return set(chain(*keys_of(_CLASSES[kind]).values())) - {"kind"} if kind else set()


KEYS = set().union(*(keys(kind) for kind in _CLASSES))
"""What files may write of states of any kind."""
