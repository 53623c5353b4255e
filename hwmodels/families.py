"""What a `config.json` leaves to the configuration class of its family, by `model_type`: which layers are which, and what a missing key
means. A family that is not here is refused: nobody can know its layers.

Source: the configuration classes of `transformers` 5.24 (https://github.com/huggingface/transformers, src/transformers/models) and the
`configuration_*.py` beside models that bring their own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_TIED = {"tie_word_embeddings": True}
_UNGATED = {"gated_mlp": False}
_NO_WINDOW = {"use_sliding_window": False}


@dataclass(frozen=True)
class Family:
    """How one family of models is read."""

    defaults: tuple[Mapping[str, Any], ...] = ()
    """Groups of values; each stands where none of its keys is written."""
    needs: tuple[str, ...] = ()
    """Fields that may not be missing or 0, beside those that no model may miss."""
    written: tuple[str, ...] = ()
    """Keys that must be there, if only as null: without them the class means something that few files mean."""
    windowed: str = ""
    """Which layers have the window: `all`, `upper` (from `max_window_layers` on), `pattern` (all but each nth),
    `chunks` (those with rotary positions, in chunks). Empty: none may. Also which layers have KV: `interval`, `period`, `indices`,
    `letters`, `flags`, `hybrid`, `kda`, `both`, and `cross`, by the keys that hflayers names."""
    pattern: int = 0
    """The n of that, where the file does not say."""
    state: str = ""
    """What layers without KV keep, by its class in `hfstates`; empty where every layer has KV."""
    gated_output: bool = False
    """Whether attention has a gate as wide as its queries."""
    gated_shared: bool = False
    """Whether the shared expert has a gate of one number."""
    others: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Kind of layer -> what of its heads has a key of its own: `heads`, `kv_heads`, `width`, `value_width`."""
    mixed: tuple[str, ...] = ()
    """Keys that must be there, if only as null, where there are experts."""

    def filled(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The values that stand for keys that `data` lacks."""
        groups = [group for group in self.defaults if not any(key in data for key in group)]
        return {key: value for group in groups for key, value in group.items()}


_EXPERTS = ("num_experts", "num_experts_per_tok")
_KV = ("num_key_value_heads",)
_MLA = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_LATENT = ("q_lora_rank", "n_shared_experts")
_DEEPSEEK = (*_MLA, *_EXPERTS, "moe_intermediate_size")

_GEMMA_3N = (
    "num_kv_shared_layers",
    "laurel_rank",
    "altup_num_inputs",
    "hidden_size_per_layer_input",
    "vocab_size_per_layer_input",
)
_QWEN_MIXED = (*_KV, *_EXPERTS, "moe_intermediate_size", "shared_expert_intermediate_size")
_QWEN_HYBRID = ({"head_dim": 256}, {"full_attention_interval": 4})

FAMILIES: dict[str, Family] = {
    "afmoe": Family(
        (),
        (*_KV, *_EXPERTS, "head_dim", "moe_intermediate_size", "sliding_window"),
        ("num_dense_layers", "num_shared_experts"),
        "pattern",
        4,
        gated_output=True,
    ),
    "apertus": Family((_UNGATED,), _KV),
    "arcee": Family((_UNGATED,), _KV),
    "baichuan": Family(),
    "bamba": Family((), (*_KV, "attn_layer_indices"), (), "indices", 0, "mamba2"),
    "cohere": Family((_TIED,)),
    "cohere2": Family((_TIED,), (*_KV, "sliding_window"), (), "pattern", 4),
    "deepseek_v2": Family((), _DEEPSEEK, ("q_lora_rank", "n_shared_experts", "first_k_dense_replace")),
    "deepseek_v3": Family(({"first_k_dense_replace": 3},), _DEEPSEEK, _LATENT),
    "deepseek_v32": Family(({"first_k_dense_replace": 3},), (*_DEEPSEEK, "index_head_dim", "index_n_heads", "index_topk"), _LATENT),
    "dots1": Family(({"first_k_dense_replace": 0},), (*_KV, *_EXPERTS, "moe_intermediate_size"), ("n_shared_experts",), "upper"),
    "ernie4_5": Family((_TIED, {"head_dim": 128}), _KV),
    "ernie4_5_moe": Family((_TIED,), (*_KV, *_EXPERTS, "moe_intermediate_size"), ("moe_layer_start_index", "moe_num_shared_experts")),
    "exaone": Family(needs=_KV),
    "exaone4": Family((), _KV, ("sliding_window",), "pattern", 4),
    "exaone_moe": Family(
        ({"first_k_dense_replace": 1},), (*_KV, *_EXPERTS, "moe_intermediate_size", "sliding_window"), ("num_shared_experts",), "pattern", 4
    ),
    "falcon": Family((_TIED, _UNGATED, {"multi_query": True}, {"max_position_embeddings": 2048})),
    "falcon_h1": Family((), (*_KV, "head_dim", "mamba_d_ssm"), (), "both", 0, "mamba2"),
    "gemma": Family((_TIED, {"head_dim": 256}), _KV),
    "gemma2": Family((_TIED, {"head_dim": 256}), (*_KV, "sliding_window"), (), "pattern", 2),
    "gemma3_text": Family(
        (
            _TIED,
            {"num_attention_heads": 8, "num_key_value_heads": 4},
            {"head_dim": 256},
            {"vocab_size": 262_208},
            {"max_position_embeddings": 131_072},
        ),
        (*_KV, "sliding_window"),
        (),
        "pattern",
        6,
    ),
    "gemma3n_text": Family(
        (_TIED, {"num_attention_heads": 8, "num_key_value_heads": 2}, {"head_dim": 256}, {"max_position_embeddings": 32_768}),
        (*_KV, "sliding_window", *_GEMMA_3N),
        (),
        "pattern",
        5,
    ),
    "gemma4_text": Family(
        (_TIED, {"vocab_size_per_layer_input": 262_144}),
        (*_KV, "head_dim", "intermediate_size", "sliding_window", "layer_types", "global_head_dim"),
        ("num_kv_shared_layers", "hidden_size_per_layer_input", "attention_k_eq_v", "enable_moe_block", "num_global_key_value_heads"),
        mixed=("moe_intermediate_size",),
        others={"full_attention": {"kv_heads": "global_kv_heads", "width": "global_head_dim", "value_width": "global_head_dim"}},
    ),
    "glm": Family(({"head_dim": 128},), _KV),
    "glm4": Family(({"head_dim": 128},), _KV),
    "glm4_moe": Family(({"first_k_dense_replace": 1},), (*_KV, *_EXPERTS, "moe_intermediate_size"), ("n_shared_experts",)),
    "glm_moe_dsa": Family(({"first_k_dense_replace": 3},), (*_DEEPSEEK, "index_head_dim", "index_n_heads", "index_topk"), _LATENT),
    "gpt_neox": Family((_UNGATED,)),
    "gpt_oss": Family(({"head_dim": 64},), (*_KV, *_EXPERTS, "sliding_window"), (), "pattern", 2),
    "granite": Family(needs=_KV),
    "granitemoe": Family(needs=(*_KV, *_EXPERTS)),
    "granitemoehybrid": Family((), (*_KV, "layer_types"), ("num_local_experts", "shared_intermediate_size"), "", 0, "mamba2"),
    "granitemoeshared": Family(needs=(*_KV, *_EXPERTS)),
    "helium": Family(({"head_dim": 128},), _KV),
    "hunyuan_v1_dense": Family(needs=_KV),
    "internlm2": Family(needs=_KV),
    "internlm3": Family(({"head_dim": 128},), _KV),
    "jamba": Family((), (*_KV, *_EXPERTS, "expert_layer_period"), ("expert_layer_offset",), "period", 0, "mamba1"),
    "kimi_k2": Family((), (*_DEEPSEEK, "first_k_dense_replace"), _LATENT),
    "kimi_linear": Family(
        (), (*_DEEPSEEK, "linear_attn_config"), ("q_lora_rank", "num_shared_experts", "first_k_dense_replace"), "kda", 0, "kda"
    ),
    "lfm2": Family((_TIED,), _KV, (), "indices", 0, "conv"),
    "lfm2_moe": Family((_TIED,), (*_KV, "layer_types", *_EXPERTS, "moe_intermediate_size"), ("num_dense_layers",), "", 0, "conv"),
    "llama": Family(),
    "llama4_text": Family(
        ({"attention_chunk_size": 8192}, {"head_dim": 128}, {"max_position_embeddings": 131_072}, {"no_rope_layer_interval": 4}),
        (*_KV, *_EXPERTS, "intermediate_size_mlp"),
        (),
        "chunks",
    ),
    "mimo_v2_flash": Family(
        (),
        (
            *_KV,
            *_EXPERTS,
            "head_dim",
            "v_head_dim",
            "moe_intermediate_size",
            "sliding_window",
            "swa_num_key_value_heads",
            "hybrid_layer_pattern",
        ),
        ("n_shared_experts", "sliding_window_size", "moe_layer_freq"),
        "hybrid",
        others={
            "sliding_attention": {
                "heads": "swa_num_attention_heads",
                "kv_heads": "swa_num_key_value_heads",
                "width": "swa_head_dim",
                "value_width": "swa_v_head_dim",
            }
        },
    ),
    "minicpm": Family((_TIED,), _KV),
    "minicpm3": Family((_TIED,), _MLA, ("q_lora_rank",)),
    "minimax": Family((), (*_KV, *_EXPERTS, "head_dim", "layer_types"), (), "", 0, "lightning"),
    "minimax_m1": Family((), (*_KV, *_EXPERTS, "head_dim", "attn_type_list"), (), "flags", 0, "lightning"),
    "minimax_m2": Family(({"head_dim": 128},), (*_KV, *_EXPERTS), (), "flags"),
    "ministral": Family((), _KV, ("sliding_window",), "all"),
    "ministral3": Family((), (*_KV, "head_dim"), (), "all"),
    "mistral": Family((), _KV, ("sliding_window",), "all"),
    "mixtral": Family((), (*_KV, *_EXPERTS), (), "all"),
    "mllama_text_model": Family((), _KV, ("cross_attention_layers",), "cross"),
    "nemotron_h": Family(
        (_UNGATED, {"mamba_ssm_cache_dtype": "float32"}),
        _KV,
        (),
        "letters",
        0,
        "mamba2",
        mixed=("moe_intermediate_size", "moe_shared_expert_intermediate_size"),
    ),
    "nemotron": Family((_UNGATED,), _KV),
    "olmo": Family(),
    "olmo2": Family(),
    "olmo3": Family((), (*_KV, "sliding_window"), (), "pattern", 4),
    "olmoe": Family(needs=_EXPERTS),
    "persimmon": Family((_UNGATED,)),
    "phi": Family((_UNGATED,)),
    "phi3": Family((), _KV, (), "all"),
    "phimoe": Family((), (*_KV, *_EXPERTS), (), "all"),
    "qwen2": Family((_NO_WINDOW,), _KV, (), "upper"),
    "qwen2_moe": Family((_NO_WINDOW,), _QWEN_MIXED, gated_shared=True),
    "qwen3": Family((_NO_WINDOW, {"head_dim": 128}), _KV, (), "upper"),
    "qwen3_moe": Family((_NO_WINDOW,), (*_KV, *_EXPERTS, "moe_intermediate_size", "head_dim"), (), "all"),
    "qwen3_5_moe_text": Family(_QWEN_HYBRID, _QWEN_MIXED, (), "interval", 0, "delta", True, True),
    "qwen3_5_text": Family(_QWEN_HYBRID, _KV, (), "interval", 0, "delta", True),
    "qwen3_next": Family(_QWEN_HYBRID, _QWEN_MIXED, (), "interval", 0, "delta", True, True),
    "seed_oss": Family((), (*_KV, "head_dim")),
    "smollm3": Family((_TIED,), _KV),
    "stablelm": Family(needs=_KV),
    "starcoder2": Family((_TIED, _UNGATED), _KV, (), "all"),
}
"""By `model_type`. Where a class copies missing KV heads from `num_attention_heads`, `num_key_value_heads` is not needed."""

OTHER_NAMES = {
    "RefinedWeb": "falcon",
    "RefinedWebModel": "falcon",
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "gemma3n": "gemma3n_text",
    "Yi": "llama",
    "aquila": "llama",
    "glm4v_text": "glm4",
    "glm4v_moe_text": "glm4_moe",
    "kimi_k25": "kimi_k2",
    "llama4": "llama4_text",
    "mimo": "qwen2",
    "MiniMaxM1": "minimax_m1",
    "mllama": "mllama_text_model",
    "mistral3": "mistral",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl_moe_text": "qwen3_moe",
    "qwen3_vl_text": "qwen3",
}
"""Model types whose language model is one of another name."""
NESTED = ("text_config", "llm_config", "language_config")
"""Where a file of a model with pictures or sound keeps its language model."""
