"""From a HuggingFace `config.json` to a Model: the one place that knows how families of models name the same things.

`HfConfig` holds the names as they are written, typed and bounded; `model` reduces them. The ways of writing a mixture of experts
(Mixtral, DeepSeek, Qwen-MoE, Llama 4) become five fields. A language model nested under `text_config` is taken out of it; the
vision part is left out. Keys without a meaning here are ignored.

**Refused:** layers that keep a state instead of KV (Mamba, linear attention), encoders, quantised weights whose bits are not said.
**Left out:** sliding windows (every layer keeps every token), KV shared between layers, multi-token prediction heads, scales of
quantised weights.

Source: the configuration classes of `transformers` (https://github.com/huggingface/transformers, src/transformers/models).
"""

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from kvplan.hwmodels.schema import DTYPE_BYTES, Date, Model

_RENAMED = {"RefinedWeb": "falcon", "RefinedWebModel": "falcon"}
"""Model types by their older names."""
_DEFAULTS: dict[str, dict[str, Any]] = {
    "cohere": {"tie_word_embeddings": True},
    "cohere2": {"tie_word_embeddings": True},
    "falcon": {"tie_word_embeddings": True, "gated_mlp": False, "max_position_embeddings": 2048},
    "gemma": {"tie_word_embeddings": True},
    "gemma2": {"tie_word_embeddings": True},
    "gemma3_text": {"tie_word_embeddings": True},
    "gpt_neox": {"gated_mlp": False},
    "nemotron": {"gated_mlp": False},
    "phi": {"gated_mlp": False},
    "starcoder2": {"tie_word_embeddings": True, "gated_mlp": False},
}
"""What a family's configuration class adds where a file says nothing."""
_WITHOUT_KV = ("mamba_", "ssm_", "linear_", "attn_layer_", "layers_block_type", "block_types", "hybrid_", "full_attention_interval")
"""Beginnings of keys that say that some layers keep a state instead of KV."""
_QUANTISED_BITS = {"fp8": 8, "fbgemm_fp8": 8, "mxfp4": 4}

_Width = Annotated[int, Field(gt=0, le=10_000_000)]
_Number = Annotated[int, Field(ge=0, le=1_000_000)]


def _written(*names: str, **more: Any) -> Any:
    return Field(validation_alias=AliasChoices(*names), **more)


class Quantization(BaseModel):
    """`quantization_config`, as far as it says how many bits a weight has."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    quant_method: str
    bits: Annotated[int, Field(ge=1, le=32)] | None = None

    @model_validator(mode="after")
    def _say_bits(self) -> "Quantization":
        if self.bits is None and self.quant_method not in _QUANTISED_BITS:
            raise ValueError(f"quant_method {self.quant_method!r} does not say the bits of a weight: give bits")
        return self


class HfConfig(BaseModel):
    """The fields of a `config.json` that sizes and times depend on, as written. `name`, `source`, `date` and `gated_mlp` are ours."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    name: str
    source: str
    date: Date
    num_hidden_layers: Annotated[int, Field(gt=0, le=10_000)] = _written("num_hidden_layers", "n_layer")
    hidden_size: _Width
    num_attention_heads: Annotated[int, Field(gt=0, le=100_000)] = _written("num_attention_heads", "n_head")
    num_key_value_heads: _Number = _written("num_key_value_heads", "num_kv_heads", "n_head_kv", default=0)
    multi_query: bool = False
    new_decoder_architecture: bool = False
    head_dim: _Number = 0
    intermediate_size: _Width = _written("intermediate_size", "ffn_hidden_size")
    vocab_size: Annotated[int, Field(gt=0, le=100_000_000)]
    model_type: str = ""
    max_position_embeddings: Annotated[int, Field(gt=0, le=1_000_000_000)]
    torch_dtype: str = _written("torch_dtype", "dtype", default="bfloat16")
    quantization_config: Quantization | None = None
    tie_word_embeddings: bool = False
    gated_mlp: bool = True
    num_experts: _Number = _written("n_routed_experts", "num_local_experts", "num_experts", default=0)
    num_experts_per_tok: _Number = 0
    n_shared_experts: _Number = 0
    shared_expert_intermediate_size: _Number = 0
    moe_intermediate_size: _Number = 0
    intermediate_size_mlp: _Number = 0
    """Llama 4: width of its dense layers, while `intermediate_size` is that of an expert, and of one shared expert."""
    first_k_dense_replace: _Number = 0
    moe_layer_freq: _Width = 1
    decoder_sparse_step: _Width = _written("decoder_sparse_step", "interleave_moe_layer_step", default=1)
    mlp_only_layers: list[int] = []
    kv_lora_rank: _Width | None = None
    q_lora_rank: _Width | None = None
    qk_nope_head_dim: _Number = 0
    qk_rope_head_dim: _Number = 0
    v_head_dim: _Number = 0

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """The text model, with the defaults of its family; `null` is as good as nothing."""
        if not isinstance(data, dict):
            return data
        nested = data.get("text_config")
        data = {key: value for key, value in {**data, **(nested if isinstance(nested, dict) else {})}.items() if value is not None}
        stateful = next((key for key in data if key.startswith(_WITHOUT_KV)), None)
        if stateful is not None:
            raise ValueError(f"{stateful}: layers that keep a state instead of KV are not modelled")
        if data.get("is_encoder_decoder"):
            raise ValueError("is_encoder_decoder: only decoder-only models are modelled")
        family = str(data.get("model_type"))
        family = _RENAMED.get(family, family)
        if family == "falcon" and "ffn_hidden_size" not in data and isinstance(data.get("hidden_size"), int):
            data.setdefault("intermediate_size", 4 * data["hidden_size"])
        return {**_DEFAULTS.get(family, {}), **data}

    @model_validator(mode="after")
    def _check(self) -> "HfConfig":
        if self.torch_dtype not in DTYPE_BYTES:
            raise ValueError(f"torch_dtype {self.torch_dtype!r} is not one of {', '.join(DTYPE_BYTES)}")
        if self.num_attention_heads % self.kv_heads:
            raise ValueError("num_attention_heads is not a multiple of num_key_value_heads")
        if self.kv_lora_rank and not (self.qk_nope_head_dim and self.qk_rope_head_dim and self.v_head_dim):
            raise ValueError("kv_lora_rank goes with qk_nope_head_dim, qk_rope_head_dim and v_head_dim")
        if not (self.kv_lora_rank or self.head_dim) and self.hidden_size % self.num_attention_heads:
            raise ValueError("hidden_size is not a multiple of num_attention_heads, and there is no head_dim")
        if self.num_experts and not 0 < self.num_experts_per_tok <= self.num_experts:
            raise ValueError(f"num_experts_per_tok is {self.num_experts_per_tok}, but there are {self.num_experts} experts")
        return self

    @property
    def kv_heads(self) -> int:
        """Key-value heads; Falcon's `multi_query` is one, unless `new_decoder_architecture` groups them."""
        if self.multi_query and not self.new_decoder_architecture:
            return 1
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def moe_layers(self) -> int:
        """Decoder layers with experts: all but the first `first_k_dense_replace`, those skipped by a step, and `mlp_only_layers`."""
        if not self.num_experts:
            return 0
        dense = set(self.mlp_only_layers)
        return sum(
            index % self.moe_layer_freq == 0 and (index + 1) % self.decoder_sparse_step == 0 and index not in dense
            for index in range(self.first_k_dense_replace, self.num_hidden_layers)
        )

    def model(self) -> Model:
        """The Model that these fields describe."""
        latent = self.kv_lora_rank is not None
        plain_head_dim = self.head_dim or self.hidden_size // self.num_attention_heads
        head_dim = self.qk_nope_head_dim + self.qk_rope_head_dim if latent else plain_head_dim
        expert = self.moe_intermediate_size or self.intermediate_size
        shared = self.intermediate_size if self.intermediate_size_mlp else self.n_shared_experts * expert
        quantised = self.quantization_config
        bits = (quantised.bits or _QUANTISED_BITS[quantised.quant_method]) if quantised else 8 * DTYPE_BYTES[self.torch_dtype]
        return Model(
            name=self.name,
            source=self.source,
            date=self.date,
            num_hidden_layers=self.num_hidden_layers,
            hidden_size=self.hidden_size,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.kv_heads,
            head_dim=head_dim,
            v_head_dim=self.v_head_dim if latent else head_dim,
            intermediate_size=self.intermediate_size_mlp or self.intermediate_size,
            vocab_size=self.vocab_size,
            model_type=self.model_type,
            max_position_embeddings=self.max_position_embeddings,
            torch_dtype=self.torch_dtype,
            weight_bits=bits,
            tie_word_embeddings=self.tie_word_embeddings,
            gated_mlp=self.gated_mlp,
            moe_layers=self.moe_layers,
            num_experts=self.num_experts,
            num_experts_per_tok=self.num_experts_per_tok,
            moe_intermediate_size=expert,
            shared_intermediate_size=self.shared_expert_intermediate_size or shared,
            kv_lora_rank=self.kv_lora_rank,
            qk_rope_head_dim=self.qk_rope_head_dim if latent else 0,
            q_lora_rank=self.q_lora_rank,
        )


KEYS = {
    str(key)
    for name, field in HfConfig.model_fields.items()
    for key in (field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else [name])
}
"""Every key that a model file of the catalogue may have."""


def read(data: dict[str, Any]) -> Model:
    """The Model of a `config.json` with `name`, `source` and `date` beside its fields. Raises pydantic's ValidationError."""
    return HfConfig.model_validate(data).model()
