"""How many bits a weight has, with its scales, and which modules keep 16: the writings of `quantization_config`.

| `quant_method` | bits | scales |
|---|---|---|
| `fp8`, `fbgemm_fp8` | 8 | 32 bits a block (`weight_block_size`), or a row, which sizes leave out |
| `compressed-tensors` | `num_bits` of its groups, which must agree | 16 bits a `group_size`, 8 for NVFP4 |
| `modelopt`, also `hf_quant_config.json` beside | by `quant_algo`, or each module | NVFP4: 8 bits each 16; W4A16, W4A8: 16 a group |
| `awq`, `gptq`, `auto-round` | `bits` | 16 bits and a zero point of `bits` a `group_size` |
| `bitsandbytes` | 8, or 4 with 32 bits each 64, with double quantisation 8 bits each 64 and 32 each 16,384 | |
| `mxfp4` | 4, experts only | 8 bits each 32 |

Embeddings keep the model's type, and so does the head where it is not listed by itself; routers are counted like their experts' layer.

Source: OCP Microscaling formats 1.0 (MXFP4), NVIDIA's ModelOpt (`hf_quant_config.json`), vLLM's compressed-tensors, AWQ and GPTQ readers,
QLoRA (arXiv 2305.14314) section 3 for double quantisation; `transformers` src/transformers/quantizers.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from fractions import Fraction
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Arithmetic = Literal["16-bit", "fp8", "fp8-block", "int8", "fp4", "w4a8", "w4a16"]
"""How quantised weights are multiplied: with activations of their own type, in FP8 also by blocks with a scale each, or 4-bit weights (w4)
with those of 8 or 16 bits (a8, a16)."""
_Bits = Annotated[int, Field(ge=1, le=32)]
_Size = Annotated[int, Field(ge=-1, le=1_000_000)]
PARTS = {
    "attention": (
        "self_attn.q_proj",
        "self_attn.q_b_proj",
        "self_attn.qkv_proj",
        "self_attention.query_key_value",
        "linear_attn.in_proj_qkv",
        "linear_attn.in_proj_qkvz",
        "mamba.in_proj",
        "mixer.in_proj",
        "mixer.q_proj",
        "conv.in_proj",
    ),
    "dense": ("mlp.up_proj", "mlp.gate_up_proj", "feed_forward.up_proj", "mlp.dense_h_to_4h", "mlp.c_fc", "mixer.up_proj"),
    "experts": (
        "mlp.experts.0.up_proj",
        "mlp.experts.gate_up_proj",
        "feed_forward.experts.0.up_proj",
        "feed_forward.experts.gate_up_proj",
        "block_sparse_moe.experts.0.w1",
        "mixer.experts.0.up_proj",
    ),
    "shared": (
        "mixer.shared_experts.up_proj",
        "mlp.shared_experts.up_proj",
        "mlp.shared_expert.up_proj",
        "feed_forward.shared_expert.up_proj",
        "shared_mlp.up_proj",
    ),
}
"""Parts of a decoder layer -> what a module of it may be called."""
_ALGORITHMS = {"FP8": (8, 0, 0), "FP8_PB_WO": (8, 128 * 128, 32), "NVFP4": (4, 16, 8), "W4A16_AWQ": (4, 128, 16), "W4A8_AWQ": (4, 128, 16)}
_ALGORITHMS["W4A16_NVFP4"] = _ALGORITHMS["NVFP4"]
"""ModelOpt's `quant_algo` -> bits of a weight, weights a scale, bits of a scale."""
_BY_ALGORITHM: dict[str, Arithmetic] = {"FP8": "fp8", "FP8_PB_WO": "fp8-block", "NVFP4": "fp4", "W4A8_AWQ": "w4a8"}
_BY_METHOD: dict[str, Arithmetic] = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "w4a8"}
_BY_ACTIVATION: dict[tuple[int | None, str | None], Arithmetic] = {(8, "float"): "fp8", (8, "int"): "int8", (4, "float"): "fp4"}
"""Bits and type of an activation -> arithmetic."""
_KV_ALGORITHMS = {"FP8": Fraction(8), "NVFP4": Fraction(9, 2)}


@dataclass(frozen=True)
class WeightBits:
    """Mean bits of a weight of each part, scales included."""

    attention: Fraction
    dense: Fraction
    """Feed-forward part of a layer without experts."""
    experts: Fraction
    """Routed ones, and their router."""
    shared: Fraction
    """Experts that every token passes."""
    head: Fraction
    """The output head; the input embedding has the model's type."""

    @classmethod
    def alike(cls, bits: int) -> "WeightBits":
        """All of them the same."""
        return cls(*[Fraction(bits)] * 5)


class _Lenient(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="ignore", frozen=True, strict=True)


class _Weights(_Lenient):
    num_bits: _Bits
    group_size: _Size | None = None
    type: str = "int"


class _Activations(_Lenient):
    num_bits: _Bits | None = None
    type: str | None = None


class _Group(_Lenient):
    weights: _Weights
    input_activations: _Activations | None = None


class _Algorithm(_Lenient):
    quant_algo: Literal["FP8", "FP8_PB_WO", "NVFP4", "W4A16_AWQ", "W4A8_AWQ", "W4A16_NVFP4"]

    @property
    def weight(self) -> Fraction:
        """Bits of a weight, with its share of the scales."""
        return _with_scales(*_ALGORITHMS[self.quant_algo])


class _KvScheme(_Lenient):
    num_bits: Annotated[int, Field(ge=4, le=16)]


_TELLING = re.compile("bit|kv|quant|group|module|ignore|layer|exclude|skip|scheme|block|size|weight|scale|cache")
_HARMLESS = {
    "activation_scheme",
    "scale_fmt",
    "quantization_status",
    "global_compression_ratio",
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_storage",
    "bnb_4bit_quant_type",
    "llm_int8_enable_fp32_cpu_offload",
    "llm_int8_has_fp16_weight",
    "llm_int8_threshold",
    "_load_in_4bit",
    "_load_in_8bit",
    "quantizer",
    "quant_type",
    "activation_scale_ub",
    "block_name_to_quantize",
    "to_quant_block_names",
    "cache_block_outputs",
    "cache_examples_on_gpu",
    "batch_size",
    "gradient_accumulate_steps",
    "enable_quanted_input",
    "enable_minmax_tuning",
    "static_groups",
    "use_cuda_fp16",
    "weight_dtype",
    "packing_format",
    "model_file_base_name",
    "act_bits",
    "act_group_size",
    "scale_dtype",
    "inner_group_size",
    "weight_scale_ub",
    "quantization_version",
    "has_scale",
}
"""Keys that look telling, and tell of activations, of how the weights came to be, or of what is read elsewhere."""
_Names = Annotated[list[str], BeforeValidator(lambda value: [] if value is None else value)]


class Quantization(_Lenient):
    """`quantization_config`, as far as sizes hang on it."""

    quant_method: str
    bits: _Bits | None = None
    group_size: _Size | None = None
    weight_block_size: list[Annotated[int, Field(gt=0, le=100_000)]] | None = None
    config_groups: dict[str, _Group] = {}
    quant_algo: str | None = None
    quantized_layers: dict[str, _Algorithm] = {}
    kv_cache_scheme: _KvScheme | None = None
    kv_cache_quant_algo: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    bnb_4bit_use_double_quant: bool = False
    dynamic: dict[str, Any] | None = None
    modules_to_not_convert: _Names = []
    ignored_layers: _Names = []
    ignore: _Names = []
    exclude_modules: _Names = []
    llm_int8_skip_modules: _Names = []

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any) -> Any:
        """That no key is left unread that looks as if it told of bits."""
        if not isinstance(data, dict):
            return data
        known = _HARMLESS | set(cls.model_fields)
        unknown = sorted(key for key, value in data.items() if value and key not in known and _TELLING.search(key))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: may say how many bits something has, and is not modelled")
        producer = data.get("producer")
        if isinstance(producer, dict) and producer.get("name") == "modelopt":
            data = {"quant_method": "modelopt", **data}
        if isinstance(data.get("kv_cache_scheme"), str):
            data = {**data, "kv_cache_scheme": None, "kv_cache_quant_algo": data["kv_cache_scheme"]}
        return {key: value for key, value in data.items() if value is not None}

    @property
    def kept(self) -> list[str]:
        """Modules that keep the model's type, by whichever key names them."""
        return self.modules_to_not_convert + self.ignored_layers + self.ignore + self.exclude_modules + self.llm_int8_skip_modules

    @property
    def weight(self) -> Fraction:
        """Bits of a quantised weight, with its share of the scales. Raises ValueError where they are not said."""
        reader = _READERS.get(self.quant_method)
        if reader is None:
            raise ValueError(f"quant_method {self.quant_method!r} is not one of {', '.join(_READERS)}")
        return _with_scales(*reader(self))

    @property
    def arithmetic(self) -> Arithmetic:
        """How the quantised weights are multiplied."""
        said = {(each.num_bits, each.type) for group in self.config_groups.values() if (each := group.input_activations)}
        if len(said) == 1:
            return _BY_ACTIVATION.get(said.pop(), "16-bit")
        if self.quant_method == "fp8" and self.weight_block_size:
            return "fp8-block"
        by_name = _BY_ALGORITHM.get(self.quant_algo or "") or _BY_METHOD.get(self.quant_method)
        return by_name or ("w4a16" if self.nominal == 4 else "16-bit")

    @property
    def nominal(self) -> int:
        """Bits of a quantised weight alone."""
        return int(self.weight) if self.quant_method != "bitsandbytes" else 8 if self.load_in_8bit else 4

    def parts(self, layers: Mapping[str, Sequence[int]], plain: int) -> WeightBits:
        """Bits by part. `layers`: weights that each layer has of it; `plain`: the bits of what is not quantised."""
        only = {"experts"} if self.quant_method == "mxfp4" else set(PARTS)
        means = {part: self._mean(part, layers[part], plain) if part in only else Fraction(plain) for part in PARTS}
        return WeightBits(**means, head=self.head(plain))

    def _mean(self, part: str, weights: Sequence[int], plain: int) -> Fraction:
        if not any(weights):
            return Fraction(plain)
        bits = sum((count * self._bits(part, layer, plain) for layer, count in enumerate(weights) if count), Fraction())
        return bits / sum(weights)

    def _bits(self, part: str, layer: int, plain: int) -> Fraction:
        """Of a layer's part."""
        if self.quantized_layers:
            around = (name for module in PARTS[part] for name in _around(f"layers.{layer}.{module}"))
            return next((self._listed[name].weight for name in around if name in self._listed), Fraction(plain))
        kept = any(_names(name, f"layers.{layer}.{module}") for name in self.kept for module in PARTS[part])
        return Fraction(plain) if kept else self.weight

    @cached_property
    def _listed(self) -> dict[str, _Algorithm]:
        """Module of a layer -> how it is quantised, where each is listed."""
        return {name[name.index("layers.") :]: said for name, said in self.quantized_layers.items() if "layers." in name}

    def head(self, plain: int) -> Fraction:
        """Of the output head, which is quantised only where it is listed."""
        return self.quantized_layers["lm_head"].weight if "lm_head" in self.quantized_layers else Fraction(plain)

    def kv(self, plain: int) -> Fraction:
        """Bits of an element of KV."""
        if self.kv_cache_scheme is not None:
            return Fraction(self.kv_cache_scheme.num_bits)
        if self.kv_cache_quant_algo is None:
            return Fraction(plain)
        if self.kv_cache_quant_algo not in _KV_ALGORITHMS:
            raise ValueError(f"kv_cache_quant_algo {self.kv_cache_quant_algo!r} is not one of {', '.join(_KV_ALGORITHMS)}")
        return _KV_ALGORITHMS[self.kv_cache_quant_algo]


def _with_scales(bits: int | Fraction, each: int, scale: int) -> Fraction:
    """Of a weight, with its share of a scale of `scale` bits for `each` weights; 0 or less: one that sizes leave out."""
    return Fraction(bits) + (Fraction(scale, each) if each > 0 else 0)


def _around(module: str) -> list[str]:
    """A module, and those that it is in.

    >>> _around("layers.0.mlp.up_proj")
    ['layers.0.mlp.up_proj', 'layers.0.mlp', 'layers.0', 'layers']
    """
    parts = module.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


def _names(name: str, module: str) -> bool:
    """Whether an entry of a list of modules means `module`, or something that it is in: whole, by parts, by `*` or as `re:`.

    >>> _names("model.layers.0.self_attn", "layers.0.self_attn.q_proj"), _names("lm_head", "layers.0.mlp.up_proj")
    (True, False)
    >>> _names("re:.*self_attn.*", "layers.7.self_attn.q_proj"), _names("model.layers.*.self_attn", "layers.7.self_attn.q_proj")
    (True, True)
    """
    if name.startswith("re:"):
        return re.match(name[3:], f"model.{module}") is not None or re.match(name[3:], module) is not None
    if "layers." in name:
        name = name[name.index("layers.") :]
    if "*" in name:
        return fnmatch(module, name) or fnmatch(module, f"{name}.*")
    return f".{name}." in f".{module}."


def _fp8(of: Quantization) -> tuple[int, int, int]:
    block = of.weight_block_size
    return (8, block[0] * block[1], 32) if block and len(block) == 2 else (8, 0, 0)


def _groups(of: Quantization) -> tuple[int, int, int]:
    found = {(group.weights.num_bits, group.weights.group_size or 0, group.weights.type) for group in of.config_groups.values()}
    if len(found) != 1:
        raise ValueError("config_groups does not say one number of bits for all weights")
    ((bits, size, kind),) = found
    return bits, size, 8 if (bits, kind) == (4, "float") else 16


def _modelopt(of: Quantization) -> tuple[int, int, int]:
    """Where modules differ, that of the fewest bits."""
    if of.quantized_layers:
        return min(_ALGORITHMS[said.quant_algo] for said in of.quantized_layers.values())
    if of.quant_algo not in _ALGORITHMS:
        raise ValueError(f"quant_algo {of.quant_algo!r} is not one of {', '.join(_ALGORITHMS)}")
    bits, each, scale = _ALGORITHMS[of.quant_algo]
    return bits, (of.group_size or each) if scale != 32 else each, scale


def _integers(of: Quantization) -> tuple[int, int, int]:
    if of.bits is None:
        raise ValueError(f"quant_method {of.quant_method!r} does not say the bits of a weight: give bits")
    if of.dynamic:
        raise ValueError("dynamic: modules of several bits are not modelled")
    return of.bits, of.group_size or 0, 16 + of.bits


def _bitsandbytes(of: Quantization) -> tuple[Fraction, int, int]:
    if of.load_in_4bit == of.load_in_8bit:
        raise ValueError("bitsandbytes does not say the bits of a weight: one of load_in_4bit and load_in_8bit is true")
    if of.load_in_8bit:
        return Fraction(8), 0, 0
    return (Fraction(4) + Fraction(32, 64 * 256), 64, 8) if of.bnb_4bit_use_double_quant else (Fraction(4), 64, 32)


_READERS: dict[str, Callable[[Quantization], tuple[int | Fraction, int, int]]] = {
    "auto-round": _integers,
    "awq": _integers,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _groups,
    "fbgemm_fp8": _fp8,
    "fp8": _fp8,
    "gptq": _integers,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": lambda of: (4, 32, 8),
}


def beside(data: Any) -> dict[str, Any]:
    """`quantization_config` of the content of a ModelOpt `hf_quant_config.json`."""
    said = data.get("quantization") if isinstance(data, dict) else None
    return {"quant_method": "modelopt", **(said if isinstance(said, dict) else {})}
