"""From a HuggingFace `config.json` to a Model: the one place that knows how models name the same things.

`HfConfig` holds the names as they are written, typed and bounded; `model` reduces them. The ways of writing a mixture of experts
(Mixtral, DeepSeek, Qwen-MoE, Llama 4, ERNIE) become five fields. A language model nested under `text_config` is taken out of it; the
vision part is left out. What a missing key means stands in `families.py`, which layer keeps what in `hflayers.py`.

**Refused:** a `model_type` that is not in `families.py`; keys that look as if a size rested on them and have no meaning here
(`hfkeys.py`); encoders; quantised weights whose bits are not said; two names of one thing
that disagree.
**Left out:** multi-token prediction heads.

Source: the configuration classes of `transformers` (https://github.com/huggingface/transformers, src/transformers/models).
"""

from fractions import Fraction
from itertools import chain, pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kvplan.hwmodels import hflayers, hfstates, hfweights
from kvplan.hwmodels.families import FAMILIES, NESTED, OTHER_NAMES, Family
from kvplan.hwmodels.hfkeys import keys_of, telling, under
from kvplan.hwmodels.hfstates import States
from kvplan.hwmodels.hfwidths import widths
from kvplan.hwmodels.layers import Attention, Both, Latent, Layer, LayerGroup
from kvplan.hwmodels.quantization import Quantization, WeightBits
from kvplan.hwmodels.schema import DTYPE_BYTES, Date, Model

_REMEDY = (
    "where every layer keeps the KV of every token and its feed-forward part has three matrices, write llama in a copy; known are "
    + ", ".join(sorted(FAMILIES))
)

_STATE = "states of layers"
"""Under which the keys of states are put together: nobody writes it."""
_LARGEST_FACTOR = 10_000
_Width = Annotated[int, Field(gt=0, le=10_000_000)]
_Number = Annotated[int, Field(ge=0, le=10_000_000)]


def _flat(data: dict[str, Any]) -> dict[str, Any]:
    """With the language model's keys, where they are nested, in place of those around them. Raises ValueError."""
    for name in NESTED:
        nested = data.get(name)
        if nested is not None and not isinstance(nested, dict):
            raise ValueError(f"{name} is no mapping")
        data = {key: value for key, value in {**data, **(nested or {})}.items() if key != name}
    return {key: _one_of_all(value, data.get("num_hidden_layers")) if key == "intermediate_size" else value for key, value in data.items()}


def _one_of_all(value: Any, layers: Any) -> Any:
    """A list of one width for each layer is that width."""
    return value[0] if isinstance(value, list) and value and len(value) == layers and value == value[:1] * len(value) else value


def family_name(data: dict[str, Any]) -> str:
    """The family that a file says it is of. Raises ValueError."""
    name = data.get("model_type")
    if not isinstance(name, str):
        raise ValueError(f"model_type is missing: without it nobody can know what its layers keep ({_REMEDY})")
    return OTHER_NAMES.get(name, name)


def family_of(data: dict[str, Any]) -> Family:
    """How it is read. Raises ValueError."""
    name = family_name(data)
    if name not in FAMILIES:
        raise ValueError(f"model_type {name!r} is not known, and so what its layers keep is not ({_REMEDY})")
    return FAMILIES[name]


def _check_names(data: dict[str, Any]) -> None:
    """That two names of one field say the same."""
    for keys in _NAMES.values():
        said = [(key, data[key]) for key in keys if key in data]
        for (first, one), (second, other) in pairwise(said):
            if one != other:
                raise ValueError(f"{first} is {one!r}, but {second}, which is the same, is {other!r}")


class HfConfig(BaseModel):
    """The fields of a `config.json` that sizes and times depend on, as written. `name`, `source`, `date` and `gated_mlp` are ours."""

    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, strict=True)

    name: str
    source: str
    date: Date
    num_hidden_layers: Annotated[int, Field(gt=0, le=10_000)] = under("num_hidden_layers", "n_layer")
    hidden_size: _Width
    num_attention_heads: Annotated[int, Field(gt=0, le=100_000)] = under("num_attention_heads", "n_head")
    num_key_value_heads: _Number = under("num_key_value_heads", "num_kv_heads", "n_head_kv", default=0)
    multi_query: bool = False
    new_decoder_architecture: bool = False
    head_dim: _Number = under("head_dim", "attention_head_dim", default=0)
    intermediate_size: _Number = under("intermediate_size", "ffn_hidden_size", default=0)
    vocab_size: Annotated[int, Field(gt=0, le=100_000_000)]
    model_type: str = ""
    max_position_embeddings: Annotated[int, Field(gt=0, le=1_000_000_000)]
    rope_scaling: dict[str, Any] = {}
    rope_parameters: dict[str, Any] = {}
    torch_dtype: str = under("torch_dtype", "dtype", default="bfloat16")
    quantization_config: Quantization | None = None
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    num_experts: _Number = under("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", "num_routed_experts", default=0)
    num_experts_per_tok: _Number = under(
        "num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_k", "moe_topk", "top_k_experts", default=0
    )
    n_shared_experts: _Number = under("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", default=0)
    shared_expert_intermediate_size: _Number = under(
        "shared_expert_intermediate_size", "shared_intermediate_size", "moe_shared_expert_intermediate_size", default=0
    )
    moe_intermediate_size: _Number = 0
    intermediate_size_mlp: _Number = 0
    """Llama 4: width of its dense layers, while `intermediate_size` is that of an expert, and of one shared expert."""
    moe_latent_size: _Number = 0
    first_k_dense_replace: _Number = under("first_k_dense_replace", "num_dense_layers", default=0)
    expert_layer_period: _Width | None = None
    expert_layer_offset: _Number = 0
    moe_layer_freq: _Width | list[_Number] = 1
    decoder_sparse_step: _Width = under("decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_interval", default=1)
    moe_layer_start_index: _Number = 0
    moe_layer_end_index: Annotated[int, Field(ge=-1, le=1_000_000)] = -1
    mlp_only_layers: list[int] = []
    mlp_layer_types: list[str] = []
    expert_layers: list[int] = under("moe_layers", default=[])
    layer_types: list[str] = under("layer_types", "layers_block_type", default=[])
    indexer_types: list[Literal["full", "shared"]] = []
    index_topk_freq: _Width = 1
    index_skip_topk_offset: _Number = 2
    enable_moe_block: bool = True
    use_double_wide_mlp: bool = False
    attention_k_eq_v: bool = False
    global_head_dim: _Number = 0
    num_global_key_value_heads: _Number = 0
    sliding_window_size: _Number = 0
    swa_num_attention_heads: _Number = 0
    swa_num_key_value_heads: _Number = 0
    swa_head_dim: _Number = 0
    swa_v_head_dim: _Number = 0
    hidden_size_per_layer_input: _Number = 0
    vocab_size_per_layer_input: _Number = 0
    laurel_rank: _Number = 0
    altup_num_inputs: _Number = 0
    use_sliding_window: bool = True
    sliding_window: _Number | None = None
    sliding_window_pattern: _Width | str = under(
        "sliding_window_pattern", "_sliding_window_pattern", "layer_switch", "global_attn_every_n_layers", default=0
    )
    max_window_layers: _Number | None = None
    attention_chunk_size: _Width | None = None
    no_rope_layers: list[int] = []
    no_rope_layer_interval: _Width = 4
    full_attention_interval: _Width = 1
    attn_layer_period: _Width | None = None
    attn_layer_offset: _Number | None = None
    attn_layer_indices: list[int] = under("attn_layer_indices", "full_attn_idxs", default=[])
    attn_type_list: list[int] = []
    hybrid_override_pattern: str = ""
    hybrid_layer_pattern: list[int] = []
    mamba_d_ssm: _Number = 0
    linear_attn_config: dict[str, Any] = {}
    cross_attention_layers: list[int] = []
    num_kv_shared_layers: _Number = 0
    state: States | None = under(_STATE, default=None)
    index_head_dim: _Number = 0
    index_topk: _Number = 0
    index_n_heads: _Number = 0
    kv_lora_rank: _Width | None = None
    q_lora_rank: _Width | None = None
    qk_nope_head_dim: _Number = 0
    qk_rope_head_dim: _Number = 0
    v_head_dim: _Number = 0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """The text model, with what its family leaves out; `null` is as good as nothing. Refuses what would be left out in silence."""
        if not isinstance(data, dict):
            return data
        data = _flat(data)
        if data.get("is_encoder_decoder"):
            raise ValueError("is_encoder_decoder: only decoder-only models are modelled")
        family = family_of(data)
        for key in (*family.written, *(family.mixed if any(data.get(name) for name in _NAMES["num_experts"]) else ())):
            if key not in data:
                raise ValueError(f"{key} is missing: for model_type {data['model_type']} nobody can know it; null says that there is none")
        data = {key: value for key, value in data.items() if value is not None}
        data = {**family.filled(data), **data}
        data = {**hflayers.counted(family, data), **data}
        if "model_max_length" in data:
            data.setdefault("max_position_embeddings", data["model_max_length"])
        _check_names(data)
        of_states = hfstates.keys(family.state)
        if unknown := telling(data, (KEYS - hflayers.foreign(family)) | of_states):
            raise ValueError(
                f"{', '.join(unknown)}: may say what layers keep, and is not modelled. Where sizes do not rest on it, take it out of a copy"
                " of the file; else write a model file with the keys that count"
            )
        data |= widths(family_name(data), data)
        if family.state:
            data[_STATE] = {"kind": family.state} | {key: data[key] for key in of_states if key in data}
        return data

    @model_validator(mode="after")
    def _check(self) -> "HfConfig":
        if self.torch_dtype not in DTYPE_BYTES:
            raise ValueError(f"torch_dtype {self.torch_dtype!r} is not one of {', '.join(DTYPE_BYTES)}")
        for name in self.family.needs:
            if not getattr(self, name):
                raise ValueError(f"{name} is missing or 0, and model_type {self.model_type} cannot do without it")
        if self.new_decoder_architecture and not self.num_key_value_heads:
            raise ValueError("new_decoder_architecture goes with num_kv_heads")
        if self.kv_heads == 1 and self.num_key_value_heads not in (0, 1, self.num_attention_heads):
            raise ValueError(f"multi_query, but num_kv_heads is {self.num_key_value_heads}: is it new_decoder_architecture?")
        if self.num_attention_heads % self.kv_heads:
            raise ValueError("num_attention_heads is not a multiple of num_key_value_heads")
        if self.kv_lora_rank and not (self.qk_nope_head_dim and self.qk_rope_head_dim and self.v_head_dim):
            raise ValueError("kv_lora_rank goes with qk_nope_head_dim, qk_rope_head_dim and v_head_dim")
        if not (self.kv_lora_rank or self.head_dim) and self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size is not a multiple of num_attention_heads, and there is no head_dim")
        self._check_experts()
        if self.quantization_config is not None:
            self.quantization_config.kv(int(self.quantization_config.weight))
        self.layers()
        return self

    def _check_experts(self) -> None:
        mixed = self.moe_layers  # raises where its list of layers has another length, whatever else is there
        if not self.intermediate_size and (mixed < self.num_hidden_layers or not self.moe_intermediate_size):
            raise ValueError("intermediate_size is missing or 0")
        if self.num_experts and not 0 < self.num_experts_per_tok <= self.num_experts:
            raise ValueError(f"num_experts_per_tok is {self.num_experts_per_tok}, but there are {self.num_experts} experts")
        if not self.num_experts and (self.moe_intermediate_size or self.n_shared_experts) and self.enable_moe_block:
            raise ValueError("moe_intermediate_size or n_shared_experts without a number of experts")

    @property
    def family(self) -> Family:
        """How it is read."""
        return family_of({"model_type": self.model_type})

    def layers(self) -> tuple[LayerGroup, ...]:
        """Its layers by kind, in the order in which the kinds first come. Raises ValueError."""
        kinds = [self._kind(name) for name in hflayers.names(self)]
        return tuple(LayerGroup(kind, kinds.count(kind)) for kind in dict.fromkeys(kinds))

    def _kind(self, name: str) -> Layer:
        """The layer that a file calls `sliding_attention`."""
        if name == hflayers.STATE and self.state is not None:
            return self.state.state()
        if name in hflayers.WITHOUT_KV:
            return hflayers.WITHOUT_KV[name]
        if self.kv_lora_rank is not None and name in (hflayers.FULL, hflayers.INDEXED):
            index = self.index_head_dim if name == hflayers.FULL else 0
            return Latent(rank=self.kv_lora_rank, rope=self.qk_rope_head_dim, index_width=index, chosen=bool(self.index_head_dim))
        of = hflayers.heads(self, name)
        if name == hflayers.BOTH and self.state is not None:
            return Both(kv_heads=of.kv_heads, head_dim=of.width, v_head_dim=of.value_width, beside=self.state.state())
        return Attention(hflayers.TITLES[name], hflayers.window(self, name), of.kv_heads, of.width, of.value_width)

    @property
    def positions(self) -> int:
        """Longest context: YaRN makes it `factor` times the original one, as vLLM takes it."""
        said, written = self.rope_scaling or self.rope_parameters, self.max_position_embeddings
        factor, original = said.get("factor"), said.get("original_max_position_embeddings", written)
        if said.get("rope_type", said.get("type")) != "yarn" or not isinstance(original, int) or not isinstance(factor, int | float):
            return written
        return max(written, min(int(original * factor), 1_000_000_000)) if 1 <= factor <= _LARGEST_FACTOR else written

    @property
    def kv_heads(self) -> int:
        """Key-value heads; Falcon's `multi_query` is one, unless `new_decoder_architecture` groups them."""
        if self.multi_query and not self.new_decoder_architecture:
            return 1
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def width(self) -> int:
        """Of a head's query and key, but with MLA."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def global_kv_heads(self) -> int:
        """Gemma-4's own number of KV heads without a window, which counts only where values are keys; 0: as the others."""
        return self.num_global_key_value_heads if self.attention_k_eq_v else 0

    @property
    def expert_width(self) -> int:
        """Of one routed expert."""
        return self.moe_intermediate_size or self.intermediate_size

    @property
    def dense_width(self) -> int:
        """Of the feed-forward part of a layer without experts."""
        return self.intermediate_size_mlp or self.intermediate_size

    @property
    def shared_width(self) -> int:
        """Of all experts together that every token passes."""
        said = self.intermediate_size if self.intermediate_size_mlp else self.n_shared_experts * self.expert_width
        return self.shared_expert_intermediate_size or said

    @property
    def moe_layers(self) -> int:
        """Decoder layers with experts."""
        return len(hflayers.with_experts(self))

    def model(self) -> Model:
        """The Model that these fields describe."""
        latent = self.kv_lora_rank is not None
        head_dim = self.qk_nope_head_dim + self.qk_rope_head_dim if latent else self.width
        quantised, plain = self.quantization_config, 8 * DTYPE_BYTES[self.torch_dtype]
        by_layer = hfweights.by_layer(self)
        return Model(
            name=self.name,
            source=self.source,
            date=self.date,
            num_hidden_layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.kv_heads,
            head_dim=head_dim,
            v_head_dim=self.v_head_dim or head_dim,
            intermediate_size=self.dense_width,
            vocab_size=self.vocab_size,
            model_type=self.model_type,
            max_position_embeddings=self.positions,
            torch_dtype=self.torch_dtype,
            weight_bits=quantised.nominal if quantised else plain,
            bits=quantised.parts(by_layer, plain) if quantised else WeightBits.alike(plain),
            kv_bits=quantised.kv(plain) if quantised else Fraction(plain),
            arithmetic=quantised.arithmetic if quantised else "fp8" if plain == 8 else "16-bit",
            gated_mlp=self.gated_mlp,
            moe_layers=self.moe_layers,
            num_experts=self.num_experts,
            num_experts_per_tok=self.num_experts_per_tok,
            shared_intermediate_size=self.shared_width,
            kv_lora_rank=self.kv_lora_rank,
            qk_rope_head_dim=self.qk_rope_head_dim if latent else 0,
            layers=self.layers(),
            weights=hfweights.weights(self, by_layer),
        )


_NAMES = keys_of(HfConfig)
KEYS = set(chain(*_NAMES.values()))
"""Every key that is read, but those of states."""


def read_model(data: dict[str, Any]) -> Model:
    """The Model of a `config.json` with `name`, `source` and `date` beside its fields. Raises pydantic's ValidationError."""
    return HfConfig.model_validate(data).model()
