"""Sizes of the decoder that the kernels run, from a catalogue model or a HuggingFace `config.json`, without pydantic.

`kvplan.hwmodels.hfconfig` knows every family's way of writing; this reads LLaMA's names only, so that measuring needs no more than PyTorch,
NumPy and PyYAML. For the models that both read they agree (a test holds them to it).

**Refused:** MLA and mixtures of experts, whose layers are other kernels, and families that are not listed here.
"""

from dataclasses import dataclass
from pathlib import Path

from kvplan.hwmodels import strictyaml

FAMILIES = ("falcon", "gemma", "gemma2", "llama", "mistral", "qwen2")
"""`model_type`s whose layer is near enough to LLaMA's for its time: the same matrix products and the same attention."""
MODELS = Path(strictyaml.__file__).parent / "models"
"""Catalogue models, one YAML file each."""


class ShapeError(ValueError):
    """No such model, or one that these kernels do not run; the message says which and why."""


@dataclass(frozen=True)
class ModelShape:
    """A dense decoder's sizes under their HuggingFace names."""

    name: str
    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    torch_dtype: str
    gated_mlp: bool
    rope_theta: float

    @property
    def kv_values_per_token(self) -> int:
        """Numbers that one token's K and V take in one layer."""
        return 2 * self.num_key_value_heads * self.head_dim

    @property
    def weights_per_layer(self) -> int:
        """Weights of one layer's matrix products."""
        attention = self.head_dim * 2 * (self.num_attention_heads + self.num_key_value_heads)
        return self.hidden_size * (attention + (3 if self.gated_mlp else 2) * self.intermediate_size)


def read_shape(name: str) -> ModelShape:
    """The shape of a catalogue model, or of the `.yaml` or `.json` file at that path. Raises ShapeError."""
    is_path = name.endswith((".yaml", ".yml", ".json")) or "/" in name
    path = Path(name) if is_path else MODELS / f"{name}.yaml"
    if not is_path and not path.exists():
        raise ShapeError(f"unknown model {name!r}: known are {', '.join(sorted(file.stem for file in MODELS.glob('*.yaml')))}")
    try:
        data = strictyaml.load(path)
    except strictyaml.YamlError as error:
        raise ShapeError(str(error)) from None
    if not isinstance(data, dict):
        raise ShapeError(f"{path}: a model file is a mapping of fields, this is not")
    try:
        return shape({"name": path.resolve().parent.name if path.name == "config.json" else path.stem, **data})
    except ShapeError as error:
        raise ShapeError(f"{path}: {error}") from None


def shape(data: dict) -> ModelShape:
    """The shape that a `config.json` with a `name` describes. Raises ShapeError."""
    if data.get("kv_lora_rank"):
        raise ShapeError("kv_lora_rank: the kernels do not run multi-head latent attention (MLA); measure a model with K and V")
    if any(data.get(key) for key in ("num_local_experts", "num_experts", "n_routed_experts")):
        raise ShapeError("the kernels do not run mixtures of experts; measure a dense model")
    family = data.get("model_type")
    if family not in FAMILIES:
        raise ShapeError(f"model_type {family!r} is not one that the kernels run: {', '.join(FAMILIES)}")
    heads, hidden = _positive(data, "num_attention_heads"), _positive(data, "hidden_size")
    kv_heads = _positive({"num_key_value_heads": heads, **data}, "num_key_value_heads")
    if heads % kv_heads:
        raise ShapeError("num_attention_heads is not a multiple of num_key_value_heads")
    head_dim = _positive({"head_dim": hidden // heads, **data}, "head_dim")
    if head_dim % 2:
        raise ShapeError(f"head_dim is {head_dim}: rotary positions need an even one")
    return ModelShape(
        name=data["name"],
        num_hidden_layers=_positive(data, "num_hidden_layers"),
        hidden_size=hidden,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=_positive(data, "intermediate_size"),
        vocab_size=_positive(data, "vocab_size"),
        max_position_embeddings=_positive(data, "max_position_embeddings"),
        torch_dtype=data.get("torch_dtype") or "bfloat16",
        gated_mlp=data.get("gated_mlp", family != "falcon"),
        rope_theta=float(data.get("rope_theta") or 10_000.0),
    )


def _positive(data: dict, key: str) -> int:
    number = data.get(key)
    if type(number) is not int or number < 1:
        raise ShapeError(f"{key} is {number!r}, and must be a positive whole number")
    return number
