"""What the catalogue files may say.

Every number of a GPU, a link, an SSD, a node, a connector or a price list is a row `{value, unit, source}`; a `note` may follow, and a
`date` where the row is older or newer than the `date` of its file. Of a connector, a value may be null: not known. Unknown keys, wrong
units, non-finite and out-of-range numbers are refused with the path of the offending row. Model files are read by
`kvplan.hwmodels.hfconfig`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from kvplan.hwmodels import units
from kvplan.hwmodels.layers import LayerGroup
from kvplan.hwmodels.quantization import Arithmetic, WeightBits
from kvplan.hwmodels.weights import Weights

YEAR_S = 365 * 86400.0
"""Seconds of a year of service, as warranties and depreciation count it."""

Date = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(pattern=r"^[12][0-9]{3}(-(0[1-9]|1[0-2]))?$"),
]
"""`2026-02` or `2026`: when a figure was published or looked up."""


class Sourced(BaseModel):
    """A row: something that is said, by whom and when."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)

    source: str = Field(min_length=3)
    date: Date
    note: str = ""


class Quantity(Sourced):
    """One sourced number. After loading, `value` is SI, whatever the unit of the file was."""

    value: float
    unit: str

    @property
    def text(self) -> str:
        """The number in the unit of its file: `25 GB/s`."""
        return _text(units.from_si(self.value, self.unit), self.unit)


Kind = TypeVar("Kind")


class Fact(Sourced, Generic[Kind]):
    """Something that is no number: whether, or which."""

    value: Kind

    @property
    def text(self) -> str:
        """`yes`, `no`, or what it is."""
        return ("yes" if self.value else "no") if isinstance(self.value, bool) else str(self.value)


class Unknown(Sourced):
    """There is no figure; `source` says why, or where one was looked for."""

    value: None

    @property
    def text(self) -> str:
        return "–"


Row = Quantity | Fact | Unknown


def _text(number: float, unit: str) -> str:
    digits = format(Decimal(f"{number:.6g}"), "f")
    return digits if unit == "1" else f"{digits} {unit}"


def _checked(row: Quantity, dimension: str, low: float, high: float) -> float:
    number = units.to_si(row.value, row.unit, dimension)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{row.value} {row.unit} is out of range")
    return number


def _row(dimension: str, low: float, high: float, whole: bool = False) -> AfterValidator:
    def check(row: Quantity) -> Quantity:
        number = _checked(row, dimension, low, high)
        if whole and number != int(number):
            raise ValueError(f"{row.value} is not a whole number")
        return row.model_copy(update={"value": number})

    return AfterValidator(check)


Bytes = Annotated[Quantity, _row("bytes", 1, 1e18)]
BytesPerSecond = Annotated[Quantity, _row("bytes_per_s", 1e3, 1e18)]
FlopPerSecond = Annotated[Quantity, _row("flop_per_s", 1e6, 1e21)]
Seconds = Annotated[Quantity, _row("seconds", 0, 3600)]
Share = Annotated[Quantity, _row("ratio", 1e-6, 1)]
Times = Annotated[Quantity, _row("ratio", 1e-3, 100)]
Count = Annotated[Quantity, _row("count", 1, 1e6, whole=True)]
PerDay = Annotated[Quantity, _row("per_day", 1e-6, 1e6)]
Years = Annotated[Quantity, _row("years", 1e-3, 1000)]
Watts = Annotated[Quantity, _row("watts", 1, 1e5)]
Factor = Annotated[Quantity, _row("ratio", 1, 10)]
Interest = Annotated[Quantity, _row("ratio", 0, 1)]
UsdPerJoule = Annotated[Quantity, _row("usd_per_joule", 0, 1e-3)]
UsdPerWattSecond = Annotated[Quantity, _row("usd_per_watt_s", 0, 1e-3)]


class Price(Quantity):
    """A rent, or a purchase price with the `lifetime` over which it is written off. After loading, `value` is dollars per second.

    Straight line: price / lifetime. Interest and power come with the terms of the list (`kvplan.hwmodels.ownership`). Left out of a
    purchase price: the server around the part, resale.
    """

    lifetime: Years | None = None

    @property
    def purchase(self) -> float | None:
        """Dollars to pay at once; None for a rent."""
        return None if self.lifetime is None else self.value * self.lifetime.value * YEAR_S

    @property
    def text(self) -> str:
        """The price in the unit of its file: `5 USD/h`, or `18.8 USD/GB over 3 years`."""
        if self.lifetime is None:
            return super().text
        years = self.lifetime.value
        return f"{_text(units.from_si(self.value * years * YEAR_S, self.unit), self.unit)} over {years:g} years"


def _price(rent: str, purchase: str) -> AfterValidator:
    """Of a Price whose unit says which of the two it is: a rent has no lifetime, a purchase needs one."""

    def check(row: Price) -> Price:
        bought = row.unit in units.UNITS[purchase]
        if bought and row.lifetime is None:
            raise ValueError(f"a price in {row.unit} needs a lifetime in years")
        if row.lifetime is not None and not bought:
            raise ValueError(f"a lifetime goes with {', '.join(units.UNITS[purchase])}, not with {row.unit}")
        seconds = 1.0 if row.lifetime is None else row.lifetime.value * YEAR_S
        return row.model_copy(update={"value": _checked(row, purchase if bought else rent, 0, 1e9) / seconds})

    return AfterValidator(check)


UsdPerSecond = Annotated[Price, _price("usd_per_s", "usd")]
UsdPerByteSecond = Annotated[Price, _price("usd_per_byte_s", "usd_per_byte")]


class Entry(BaseModel):
    """What every file of the catalogue has."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)

    name: str
    description: str = ""
    date: Date
    """Of every row that has none of its own."""

    @model_validator(mode="before")
    @classmethod
    def _date_rows(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "date" not in data:
            return data
        return {key: _dated(value, data["date"]) for key, value in data.items()}

    def rows(self) -> Iterator[tuple[str, Row]]:
        """(path, row) of every row, those of mappings included: `("gpus.a100-80g", row)`."""
        for field in type(self).model_fields:
            value = getattr(self, field)
            inside = value if isinstance(value, dict) else dict(value) if isinstance(value, Products) else None
            found = {field: value} if inside is None else {f"{field}.{key}": row for key, row in inside.items()}
            yield from ((path, row) for path, row in found.items() if isinstance(row, Row))


def _dated(value: Any, date: Any) -> Any:
    """`value` with the date in every row in it that has none; a row is a mapping with a `value`."""
    if not isinstance(value, dict):
        return value
    filled = {key: _dated(each, date) for key, each in value.items()}
    return {"date": date, **filled} if "value" in value else filled


class Products(BaseModel):
    """How a GPU multiplies activations with weights of one kind. What is not said of products with experts is as of the others."""

    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True)

    peak_flops: FlopPerSecond
    """Dense matrix peak."""
    gemm_efficiency: Share
    """Share of that peak which a large matrix product reaches."""
    hbm_efficiency: Share
    """Share of HBM bandwidth at which it reads weights."""
    gemm_overhead: Seconds | None = None
    """Of one product beside its reading and arithmetic; 0 where `layer_overhead` holds it."""
    expert_efficiency: Share | None = None
    """As `gemm_efficiency`, of the products of a layer with its routed experts."""
    expert_hbm_efficiency: Share | None = None
    expert_overhead: Seconds | None = None
    """As `gemm_overhead`, of all of a layer's together, with choosing and sorting."""
    expert_passed: Times | None = None
    """How many times a token goes through HBM on its way to the experts and back, where once is to be read, written for each expert, read
    for each and written; 0 where it is not said."""


class Gpu(Entry, Products):
    """One accelerator. The rows of Products are those of 16-bit weights; other weights are multiplied in 16 bits where their own are not
    said."""

    hbm: Bytes
    hbm_bandwidth: BytesPerSecond
    attention_efficiency: Share
    """Share of the 16-bit peak that attention of long prompts reaches."""
    attention_half: Count | None = None
    """Tokens of a prompt whose attention reaches half of that; 0 where it is not said."""
    kv_efficiency: Share | None = None
    """Share of HBM bandwidth at which attention reads KV; `hbm_efficiency` where it is not said."""
    layer_overhead: Seconds
    """Launch and synchronisation time per decoder layer, whatever the batch; of the attention kernel and the small ones where
    `gemm_overhead` is said."""
    indexer_overhead: Seconds | None = None
    """Beside it, of a layer whose indexer chooses the tokens that it attends to; 0 where it is not said."""
    scan_overhead: Seconds | None = None
    """Of one token of a prompt in one layer that sums up tokens in a state, whatever its heads: a prompt is scanned chunk after chunk; 0
    where it is not said."""
    fp8: Products | None = None
    """8-bit floating-point weights and activations."""
    fp8_block: Products | None = None
    """The same with a scale for each block of weights; as `fp8` where it is not said."""
    int8: Products | None = None
    """8-bit integers."""
    fp4: Products | None = None
    """4-bit floating-point weights and activations."""
    w4a8: Products | None = None
    """4-bit weights, 8-bit activations."""
    w4a16: Products | None = None
    """4-bit weights, 16-bit activations."""
    power: Watts | None = None
    """Of one board at most."""


class Link(Entry):
    """One host link, as copies of many megabytes from and to pinned memory see it."""

    host_to_device: BytesPerSecond
    device_to_host: BytesPerSecond
    latency: Seconds


class Ssd(Entry):
    """One class of drives, as sold. Everything is of one drive."""

    capacity: Bytes
    read_bandwidth: BytesPerSecond
    write_bandwidth: BytesPerSecond
    latency: Seconds
    rated_dwpd: PerDay
    """Drive writes per day that the warranty allows."""
    warranty: Years


class Node(Entry):
    """A server: identical GPUs, their interconnect, host links, DRAM, and SSDs. `kvplan.hwmodels.node` has its arithmetic."""

    gpu: str
    max_gpus: Count
    interconnect_bandwidth: BytesPerSecond
    """All-reduce bus bandwidth per GPU, one way."""
    interconnect_latency: Seconds
    """Time of one all-reduce of no bytes."""
    host_link: str
    host_links: Count
    """Links that carry data independently: 1 is one link that all GPUs share, `max_gpus` one link each."""
    dram_bandwidth: BytesPerSecond | None = None
    """What all host links together cannot exceed."""
    max_dram: Bytes | None = None
    ssd: str
    ssd_drives: Count
    """Drives that it has, read and written in parallel."""


def _which(row: Any) -> str:
    return "unknown" if isinstance(row, Unknown) or (isinstance(row, dict) and row.get("value", 0) is None) else "known"


OrUnknown = Annotated[Annotated[Kind, Tag("known")] | Annotated[Unknown, Tag("unknown")], Discriminator(_which)]
"""A row of that kind, or one without a value."""


Loads = Literal["layerwise", "blocking", "asynchronous"]
"""How KV is loaded, and who waits for it."""


class Connector(Entry):
    """What moves KV between HBM and where it is kept: how fast in effect, in which pieces, and which KV.
    `kvplan.hwmodels.connector` has what a replica makes of it."""

    per_gpu: OrUnknown[BytesPerSecond]
    """What it moves to one GPU in effect; the same is taken for the way back."""
    per_server: OrUnknown[BytesPerSecond]
    """The same of all GPUs of a server together."""
    alone: OrUnknown[BytesPerSecond] | None = None
    """What one load by itself gets, to one GPU, where that is less: the host works on it for longer, while other loads go on."""
    request: OrUnknown[Seconds]
    """Of each load, before its first byte moves."""
    loads: Fact[Loads]
    """`layerwise`: a layer's KV while those before it are computed; `blocking`: all of it first, and the GPUs wait; `asynchronous`: all of
    it first, and the GPUs go on with other jobs."""
    block: OrUnknown[Count]
    """Tokens of which it keeps and loads KV together or not at all."""
    replicated: OrUnknown[Fact[bool]]
    """Whether ranks that hold the same KV (MLA; fewer KV heads than ranks) each keep and load a copy."""
    saves: OrUnknown[Fact[Literal["all", "prompt"]]]
    """KV of which tokens it saves: `prompt` leaves out the answers."""
    when: OrUnknown[Fact[str]]
    """When it saves, in words: `store.save` and `store.write` are the settings."""


class Prices(Entry):
    """What a second of each resource costs."""

    gpus: dict[str, UsdPerSecond] = Field(min_length=1)
    """Per GPU, by its name."""
    dram: UsdPerByteSecond
    ssd: UsdPerByteSecond
    included_dram: dict[str, Bytes] = {}
    """What comes with each rented GPU, by its name; only what is beyond is charged."""
    included_ssd: dict[str, Bytes] = {}
    interest: Interest | None = None
    """A year, on what is bought; none where it is not said. So are the next, which hold for purchases only: a rent contains them."""
    electricity: UsdPerJoule | None = None
    pue: Factor | None = None
    """Power of the hall over that of its servers."""
    power_share: Share | None = None
    """What a server draws in the mean, of its greatest power."""
    server_power: Factor | None = None
    """Greatest power of a whole server over that of its GPUs."""
    hosting: UsdPerWattSecond | None = None
    """Rent of the place, by the greatest power of the server."""
    availability: Share | None = None
    """Hours in service of all hours."""

    @model_validator(mode="after")
    def _check_included(self) -> "Prices":
        for gpu in {**self.included_dram, **self.included_ssd}:
            if gpu not in self.gpus:
                raise ValueError(f"something comes with {gpu}, which has no price")
            if self.gpus[gpu].lifetime is not None:
                raise ValueError(f"nothing comes with {gpu}, which is bought")
        return self


@dataclass(frozen=True)
class Model:
    """A decoder-only transformer. `kvplan.hwmodels.hfconfig` makes one of a HuggingFace `config.json`, whose names it keeps."""

    name: str
    source: str
    date: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    """Width of a head's query and key."""
    v_head_dim: int
    """Width of a head's value."""
    intermediate_size: int
    """Width of the feed-forward part of a dense layer."""
    vocab_size: int
    model_type: str
    """Its architecture by HuggingFace's name; empty where a file does not say."""
    max_position_embeddings: int
    torch_dtype: str
    """Of activations and embeddings."""
    weight_bits: int
    """Of a quantised weight, without its scales; embeddings have `torch_dtype`."""
    bits: WeightBits
    """Of a weight of the decoder layers, by part, with scales."""
    kv_bits: Fraction
    """Of an element of KV."""
    arithmetic: Arithmetic
    """How quantised weights are multiplied, where a GPU can."""
    gated_mlp: bool
    """Gate, up and down projections (LLaMA); False: up and down only (Falcon)."""
    moe_layers: int
    """Decoder layers whose feed-forward part is a mixture of experts; 0 for a dense model."""
    num_experts: int
    """Routed experts of such a layer."""
    num_experts_per_tok: int
    shared_intermediate_size: int
    """Width of all experts together that every token passes."""
    kv_lora_rank: int | None
    """Width of the latent that MLA caches instead of K and V; None for every other attention."""
    qk_rope_head_dim: int
    """Part of `head_dim` that MLA caches beside the latent; 0 without MLA."""
    layers: tuple[LayerGroup, ...]
    """What each keeps of a session, `num_hidden_layers` in all."""
    weights: Weights


DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}
