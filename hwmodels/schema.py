"""What the catalogue files may say.

Every number of a GPU, an SSD, a node or a price list is a row `{value, unit, source}` (a `note` may follow); unknown keys,
wrong units, non-finite and out-of-range numbers are refused with the path of the offending row. Model files use the names of
HuggingFace `config.json`, so that a local config.json is itself a model file.
"""

import math
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hwmodels import units


class Quantity(BaseModel):
    """One sourced number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: float
    unit: str
    source: str = Field(min_length=3)
    note: str = ""


def _row(dimension: str, low: float = 0.0, high: float = math.inf, open_low: bool = True) -> Any:
    def check(row: Quantity) -> Quantity:
        number = units.to_si(row.value, row.unit, dimension)
        if not math.isfinite(number) or number > high or number < low or (open_low and number == low):
            raise ValueError(f"{row.value} {row.unit} is out of range")
        return row.model_copy(update={"value": number})

    return Annotated[Quantity, AfterValidator(check)]


Bytes = _row("bytes")
BytesPerSecond = _row("bytes_per_s")
FlopPerSecond = _row("flop_per_s")
Seconds = _row("seconds", open_low=False)
Share = _row("ratio", high=1.0)
Count = _row("count")
PerDay = _row("per_day")
Years = _row("years")
UsdPerSecond = _row("usd_per_s", open_low=False)
UsdPerByteSecond = _row("usd_per_byte_s", open_low=False)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    description: str = ""


class Gpu(_Entry):
    """One accelerator. After loading, every `.value` is SI."""

    peak_flops: FlopPerSecond
    """Dense 16-bit matrix peak."""
    hbm: Bytes
    hbm_bandwidth: BytesPerSecond
    gemm_efficiency: Share
    """Share of peak that a large matrix product reaches."""
    attention_efficiency: Share
    """Share of peak that the attention kernel reaches."""
    hbm_efficiency: Share
    """Share of HBM bandwidth that streaming reads reach."""
    layer_overhead: Seconds
    """Launch and synchronisation time per decoder layer, whatever the batch."""


class Ssd(_Entry):
    """One class of drives, as sold."""

    read_bandwidth: BytesPerSecond
    write_bandwidth: BytesPerSecond
    latency: Seconds
    rated_dwpd: PerDay
    """Drive writes per day that the warranty allows."""
    warranty: Years


class Node(_Entry):
    """A server: identical GPUs, their interconnect, host links, and an SSD class."""

    gpu: str
    max_gpus: Count
    interconnect_bandwidth: BytesPerSecond
    """All-reduce bus bandwidth per GPU, one way."""
    interconnect_latency: Seconds
    """Time of one all-reduce of no bytes."""
    host_to_device: BytesPerSecond
    """Effective bandwidth DRAM -> HBM of the whole node."""
    device_to_host: BytesPerSecond
    host_link_latency: Seconds
    ssd: str


class Prices(_Entry):
    """What an hour of each resource costs."""

    gpu: UsdPerSecond
    """Per GPU."""
    dram: UsdPerByteSecond
    ssd: UsdPerByteSecond


class Model(BaseModel):
    """A decoder-only transformer, in the names of HuggingFace `config.json`. Unknown keys of a config.json are ignored;
    kvplan's own model files are read with `strict_keys`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    source: str = ""
    model_type: str = "llama"
    num_hidden_layers: int = Field(gt=0, le=10_000)
    hidden_size: int = Field(gt=0, le=1_000_000)
    num_attention_heads: int = Field(gt=0, le=100_000)
    num_key_value_heads: int = Field(gt=0, le=100_000)
    head_dim: int = Field(gt=0, le=100_000)
    intermediate_size: int = Field(gt=0, le=10_000_000)
    vocab_size: int = Field(gt=0, le=100_000_000)
    max_position_embeddings: int = Field(gt=0, le=1_000_000_000)
    torch_dtype: str = "bfloat16"
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    """Gate, up and down projections (LLaMA); False: up and down only (Falcon)."""
    kv_lora_rank: int | None = Field(default=None, gt=0)
    qk_rope_head_dim: int | None = Field(default=None, gt=0)
    qk_nope_head_dim: int | None = Field(default=None, gt=0)
    v_head_dim: int | None = Field(default=None, gt=0)
    q_lora_rank: int | None = Field(default=None, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """The defaults that HuggingFace's own config classes apply."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        for unsupported in ("n_routed_experts", "num_local_experts", "num_experts"):
            if data.get(unsupported):
                raise ValueError(f"{unsupported}: mixture-of-experts models are not supported yet")
        heads = data.get("num_attention_heads")
        if data.get("num_key_value_heads") is None:
            data["num_key_value_heads"] = 1 if data.get("multi_query") else heads
        if data.get("head_dim") is None and _positive(heads) and _positive(data.get("hidden_size")):
            data["head_dim"] = data["hidden_size"] // heads
        if data.get("model_type") == "falcon":
            data.setdefault("gated_mlp", False)
            data.setdefault("intermediate_size", 4 * data.get("hidden_size", 0))
            if data.get("new_decoder_architecture") and data.get("num_kv_heads"):
                data["num_key_value_heads"] = data["num_kv_heads"]
        data.setdefault("torch_dtype", data.get("dtype") or "bfloat16")
        return data

    @model_validator(mode="after")
    def _check(self) -> "Model":
        if self.torch_dtype not in DTYPE_BYTES:
            raise ValueError(f"torch_dtype {self.torch_dtype!r} is not one of {', '.join(DTYPE_BYTES)}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads is not a multiple of num_key_value_heads")
        if self.kv_lora_rank is not None and self.qk_rope_head_dim is None:
            raise ValueError("kv_lora_rank is given without qk_rope_head_dim")
        return self


DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


def _positive(number: Any) -> bool:
    return isinstance(number, int) and number > 0
