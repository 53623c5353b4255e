"""Real writings of `config.json`, shortened to the keys that count: read rightly, or refused for the true reason; never misread."""

import dataclasses
import json
from fractions import Fraction

import pytest
from conftest import SHARED
from typer.testing import CliRunner

from kvplan import hwmodels
from kvplan.hwmodels import hfconfig, kvsize
from kvplan.hwmodels.simplified import every_token, simplified
from kvplan.sim.cli.app import app
from kvplan.sim.config import load
from kvplan.sim.deployment import resolve

OURS = {"name": "m", "source": "test", "date": "2026"}
GPT_OSS = {
    "model_type": "gpt_oss",
    "num_hidden_layers": 36,
    "hidden_size": 2880,
    "intermediate_size": 2880,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "num_local_experts": 128,
    "num_experts_per_tok": 4,
    "experts_per_token": 4,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 18,
    "vocab_size": 201_088,
    "max_position_embeddings": 131_072,
    "attention_bias": True,
    "swiglu_limit": 7.0,
    "router_aux_loss_coef": 0.9,
    "quantization_config": {"quant_method": "mxfp4"},
}
GEMMA_3 = {
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "mm_tokens_per_image": 256,
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
    },
    "vision_config": {"hidden_size": 1152},
}
GEMMA_3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}
DEEPSEEK_V3_2 = {
    "model_type": "deepseek_v32",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "index_head_dim": 128,
    "index_n_heads": 64,
    "index_topk": 2048,
    "max_position_embeddings": 163_840,
    "vocab_size": 129_280,
    "num_nextn_predict_layers": 1,
    "quantization_config": {"quant_method": "fp8"},
}
LLAMA_4 = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "num_hidden_layers": 48,
        "head_dim": 128,
        "num_local_experts": 16,
        "num_experts_per_tok": 1,
        "vocab_size": 202_048,
        "max_position_embeddings": 10_485_760,
        "no_rope_layers": [],
    },
}
MISTRAL_V0_1 = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "sliding_window": 4096,
    "vocab_size": 32_000,
    "max_position_embeddings": 32_768,
}
COMMAND_A = {
    "model_type": "cohere2",
    "hidden_size": 12_288,
    "intermediate_size": 36_864,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "num_hidden_layers": 64,
    "head_dim": 128,
    "sliding_window": 4096,
    "sliding_window_pattern": 4,
    "layer_switch": 4,
    "order_of_interleaved_layers": "local_attn_first",
    "vocab_size": 256_000,
    "max_position_embeddings": 131_072,
}
EXAONE_4 = {
    "model_type": "exaone4",
    "hidden_size": 5120,
    "intermediate_size": 27_392,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "num_hidden_layers": 64,
    "head_dim": 128,
    "sliding_window": 4096,
    "sliding_window_pattern": "LLLG",
    "vocab_size": 102_400,
    "max_position_embeddings": 131_072,
}
ERNIE = {
    "model_type": "ernie4_5_moe",
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "moe_intermediate_size": 3584,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 54,
    "moe_num_experts": 64,
    "moe_k": 8,
    "moe_layer_start_index": 3,
    "moe_layer_interval": 1,
    "moe_num_shared_experts": 0,
    "tie_word_embeddings": False,
    "vocab_size": 103_424,
    "max_position_embeddings": 131_072,
    "head_dim": 128,
}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 8192,
    "intermediate_size": 28_672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "num_hidden_layers": 80,
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
}
_GROUP = {"weights": {"num_bits": 8, "type": "float", "strategy": "channel"}, "targets": ["Linear"]}
COMPRESSED = {"quant_method": "compressed-tensors", "config_groups": {"group_0": _GROUP}, "ignore": ["lm_head"], "kv_cache_scheme": None}
MODELOPT = {"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_scheme": {"num_bits": 8, "type": "float"}, "ignore": ["lm_head"]}
QWEN_3_NEXT = {
    "model_type": "qwen3_next",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "num_hidden_layers": 48,
    "num_experts": 512,
    "num_experts_per_tok": 10,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "vocab_size": 151_936,
    "max_position_embeddings": 262_144,
}
QWEN_3_5 = {
    **{key: value for key, value in QWEN_3_NEXT.items() if key not in ("intermediate_size", "full_attention_interval")},
    "model_type": "qwen3_5_moe",
    "num_hidden_layers": 40,
}
QWEN_3_6_27B = {
    "num_hidden_layers": 64,
    "linear_num_value_heads": 48,
    "num_key_value_heads": 4,
    "num_experts": None,
    "num_experts_per_tok": None,
    "moe_intermediate_size": None,
    "intermediate_size": 17_408,
}
_SMALL = {"vocab_size": 65_536, "max_position_embeddings": 131_072, "num_attention_heads": 32, "num_key_value_heads": 8}
NEMOTRON_H = {
    **_SMALL,
    "model_type": "nemotron_h",
    "hidden_size": 4096,
    "intermediate_size": 21_504,
    "head_dim": 128,
    "num_hidden_layers": 52,
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
    "mamba_num_heads": 128,
    "mamba_head_dim": 64,
    "ssm_state_size": 128,
    "n_groups": 8,
    "conv_kernel": 4,
    "mamba_ssm_cache_dtype": "float32",
    "chunk_size": 128,
}
GRANITE_4 = {
    **_SMALL,
    "model_type": "granitemoehybrid",
    "hidden_size": 1536,
    "intermediate_size": 512,
    "shared_intermediate_size": 1024,
    "num_local_experts": 64,
    "num_experts_per_tok": 6,
    "tie_word_embeddings": True,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "num_hidden_layers": 40,
    "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4,
    "mamba_n_heads": 48,
    "mamba_d_head": 64,
    "mamba_d_state": 128,
    "mamba_n_groups": 1,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
JAMBA = {
    **_SMALL,
    "model_type": "jamba",
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "attn_layer_period": 8,
    "attn_layer_offset": 4,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_d_state": 16,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
}
LFM_2 = {
    **_SMALL,
    "model_type": "lfm2",
    "hidden_size": 2048,
    "intermediate_size": 10_752,
    "num_hidden_layers": 30,
    "full_attn_idxs": [2, 5, 9, 13, 17, 21, 25, 28],
    "conv_L_cache": 3,
}
MINIMAX_M1 = {
    **_SMALL,
    "model_type": "minimax_m1",
    "hidden_size": 6144,
    "intermediate_size": 9216,
    "num_attention_heads": 64,
    "head_dim": 128,
    "num_hidden_layers": 80,
    "attn_type_list": [0, 0, 0, 0, 0, 0, 0, 1] * 10,
    "num_local_experts": 32,
    "num_experts_per_tok": 2,
}
MLLAMA = {
    "model_type": "mllama",
    "text_config": {
        **_SMALL,
        "model_type": "mllama_text_model",
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 40,
        "cross_attention_layers": [3, 8, 13, 18, 23, 28, 33, 38],
    },
}
GEMMA_3N = {
    "model_type": "gemma3n_text",
    "hidden_size": 2048,
    "intermediate_size": [16_384] * 35,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "num_hidden_layers": 35,
    "num_kv_shared_layers": 15,
    "sliding_window": 512,
    "laurel_rank": 64,
    "altup_num_inputs": 4,
    "hidden_size_per_layer_input": 256,
    "vocab_size_per_layer_input": 262_144,
    "vocab_size": 262_400,
    "max_position_embeddings": 32_768,
}
MINIMAX_M2 = {
    **_SMALL,
    "model_type": "minimax_m2",
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "num_attention_heads": 48,
    "head_dim": 128,
    "num_hidden_layers": 62,
    "num_local_experts": 256,
    "num_experts_per_tok": 8,
}
KIMI_LINEAR = {
    **_SMALL,
    "model_type": "kimi_linear",
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "moe_intermediate_size": 1024,
    "num_key_value_heads": 32,
    "num_hidden_layers": 27,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "num_experts": 256,
    "num_experts_per_token": 8,
    "num_shared_experts": 1,
    "first_k_dense_replace": 1,
    "linear_attn_config": {
        "num_heads": 32,
        "head_dim": 128,
        "short_conv_kernel_size": 4,
        "full_attn_layers": [4, 8, 12, 16, 20, 24, 27],
        "kda_layers": [layer for layer in range(1, 28) if layer % 4 and layer != 27],
    },
}
FALCON_H1 = {
    **_SMALL,
    "model_type": "falcon_h1",
    "hidden_size": 3072,
    "intermediate_size": 12_288,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "num_hidden_layers": 44,
    "mamba_d_ssm": 3072,
    "mamba_n_heads": 24,
    "mamba_d_head": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_conv": 4,
}
MIMO_V2 = {
    **_SMALL,
    "model_type": "mimo_v2_flash",
    "hidden_size": 4096,
    "intermediate_size": 16_384,
    "moe_intermediate_size": 2048,
    "num_attention_heads": 64,
    "num_key_value_heads": 4,
    "head_dim": 192,
    "v_head_dim": 128,
    "swa_num_attention_heads": 64,
    "swa_num_key_value_heads": 8,
    "swa_head_dim": 192,
    "swa_v_head_dim": 128,
    "sliding_window": 128,
    "sliding_window_size": 128,
    "attention_chunk_size": 128,
    "num_hidden_layers": 48,
    "hybrid_layer_pattern": [int(layer != 0 and layer % 6 != 5) for layer in range(48)],
    "moe_layer_freq": [0] + [1] * 47,
    "n_routed_experts": 256,
    "n_shared_experts": None,
    "num_experts_per_tok": 8,
}
GEMMA_4 = {
    **_SMALL,
    "model_type": "gemma4_text",
    "hidden_size": 2816,
    "intermediate_size": 2112,
    "moe_intermediate_size": 704,
    "num_attention_heads": 16,
    "head_dim": 256,
    "global_head_dim": 512,
    "num_global_key_value_heads": 2,
    "attention_k_eq_v": True,
    "sliding_window": 1024,
    "num_hidden_layers": 30,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
    "enable_moe_block": True,
    "num_experts": 128,
    "top_k_experts": 8,
    "num_kv_shared_layers": 0,
    "hidden_size_per_layer_input": 0,
}
AFMOE = {
    **_SMALL,
    "model_type": "afmoe",
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 1024,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_hidden_layers": 32,
    "num_dense_layers": 2,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_shared_experts": 1,
    "sliding_window": 2048,
    "global_attn_every_n_layers": 4,
}
HYBRIDS = {
    "kimi-linear": KIMI_LINEAR,
    "falcon-h1": FALCON_H1,
    "qwen3-next": QWEN_3_NEXT,
    "qwen3.5-35b": QWEN_3_5,
    "nemotron-h": NEMOTRON_H,
    "granite-4": GRANITE_4,
    "jamba": JAMBA,
    "lfm2": LFM_2,
    "minimax-m1": MINIMAX_M1,
    "gemma-3n": GEMMA_3N,
}
ALL = {
    **HYBRIDS,
    "mimo-v2": MIMO_V2,
    "gemma-4": GEMMA_4,
    "afmoe": AFMOE,
    "mllama": MLLAMA,
    "minimax-m2": MINIMAX_M2,
    "gpt-oss-120b": GPT_OSS,
    "gemma-3-27b": GEMMA_3,
    "gemma-3-4b": GEMMA_3_4B,
    "deepseek-v3.2": DEEPSEEK_V3_2,
    "llama-4-scout": LLAMA_4,
    "mistral-7b-v0.1": MISTRAL_V0_1,
    "command-a": COMMAND_A,
    "exaone-4-32b": EXAONE_4,
    "ernie-4.5-300b": ERNIE,
    "llama-3.1-70b": LLAMA,
    "llama-3.1-70b-compressed": {**LLAMA, "quantization_config": COMPRESSED},
    "llama-3.1-70b-modelopt": {**LLAMA, "quantization_config": MODELOPT},
}


def _read(config):
    return hfconfig.read_model({**OURS, **config})


@pytest.mark.parametrize(
    ("config", "per_token", "window_bytes"),
    [
        (GPT_OSS, 36_864, 4_718_592),
        (GEMMA_3, 81_920, 436_207_616),
        (DEEPSEEK_V3_2, 85_888, 0),
        (MISTRAL_V0_1, 0, 512 * 2**20),
        (LLAMA_4, 12 * 4096, 36 * 4096 * 8192),
        (COMMAND_A, 16 * 4096, 48 * 4096 * 4096),
        (EXAONE_4, 16 * 4096, 48 * 4096 * 4096),
        (LLAMA, 327_680, 0),
        (QWEN_3_NEXT, 24_576, 77_266_944),
        (QWEN_3_5, 20_480, 64_389_120),
        ({**QWEN_3_5, "model_type": "qwen3_5", **QWEN_3_6_27B}, 65_536, 153_944_064),
        ({**QWEN_3_5, "num_hidden_layers": 60, "linear_num_value_heads": 64}, 30_720, 192_061_440),
        (NEMOTRON_H, 4 * 2 * 8 * 128 * 2, 24 * (3 * (8192 + 2 * 8 * 128) * 2 + 8192 * 128 * 4)),
        (GRANITE_4, 4 * 2 * 4 * 128 * 2, 36 * (3 * (3072 + 2 * 128) * 2 + 3072 * 128 * 2)),
        (JAMBA, 4 * 2 * 8 * 128 * 2, 28 * (3 * 8192 * 2 + 8192 * 16 * 2)),
        (LFM_2, 8 * 2 * 8 * 64 * 2, 22 * 2 * 2048 * 2),
        (MINIMAX_M1, 10 * 2 * 8 * 128 * 2, 70 * 64 * 128 * 128 * 4),
        (MLLAMA, 32 * 2 * 8 * 128 * 2, 0),
        (KIMI_LINEAR, 7 * 576 * 2, 20 * (3 * 3 * 4096 * 2 + 4096 * 128 * 4)),
        (FALCON_H1, 44 * 2 * 2 * 128 * 2, 44 * (3 * (3072 + 512) * 2 + 3072 * 256 * 2)),
        (MIMO_V2, 9 * 4 * 320 * 2, 39 * 8 * 320 * 2 * 129),
        (GEMMA_4, 5 * 2 * 2 * 512 * 2, 25 * 2 * 8 * 256 * 2 * 1024),
        (AFMOE, 8 * 2 * 4 * 128 * 2, 24 * 2 * 4 * 128 * 2 * 2048),
        (GEMMA_3N, 4 * 2 * 2 * 256 * 2, 16 * 2 * 2 * 256 * 2 * 512),
    ],
)
def test_kv_of_a_session_to_the_byte(config, per_token, window_bytes):
    """What a store of windows keeps of 100,000 tokens; one that keeps every token has all layers' rate."""
    model = _read(config)
    assert kvsize.kv_bytes(model, 100_000) == 100_000 * per_token + window_bytes
    assert kvsize.kv_bytes(model, 100_000, "every-token") == 100_000 * kvsize.kv_bytes_per_token(model) + kvsize.kv_bytes(model, 0)
    assert kvsize.kv_bytes(model, 100) == kvsize.kv_bytes(model, 100, "every-token"), "shorter than every window"
    assert sum(group.count for group in model.layers) == model.num_hidden_layers


@pytest.mark.parametrize(
    ("name", "per_token", "window_bytes", "tokens_a_checkpoint"),
    [
        ("deepseek-v3", 70_272, 0, 0),
        ("deepseek-v3.2", 85_888, 0, 0),
        ("glm-5", 109_824, 0, 0),
        ("gpt-oss-120b", 36_864, 4_718_592, 0),
        ("gpt-oss-20b", 24_576, 3_145_728, 0),
        ("gemma-2-9b", 172_032, 172_032 * 4096, 0),
        ("gemma-3-27b", 81_920, 436_207_616, 0),
        ("llama-4-scout", 49_152, 147_456 * 8192, 0),
        ("mistral-7b", 0, 512 * 2**20, 0),
        ("mistral-7b-v0.3", 131_072, 0, 0),
        ("qwen3-next-80b-a3b", 24_576, 77_266_944, 3144),
        ("qwen3.5-27b", 65_536, 153_944_064, 2349),
        ("qwen3.5-35b-a3b", 20_480, 64_389_120, 3144),
        ("qwen3.5-397b-a17b", 30_720, 192_061_440, 6252),
        ("nemotron-3-nano-30b-a3b", 6144, 49_082_368, 7988),
        ("nemotron-3-super-120b-a12b", 8192, 170_229_760, 20_780),
    ],
)
def test_the_catalogue_to_the_byte(name, per_token, window_bytes, tokens_a_checkpoint):
    """A session longer than every window; a checkpoint of states weighs as much as so many tokens of KV."""
    model = hwmodels.load("model", name)
    assert kvsize.kv_bytes(model, 100_000) == 100_000 * per_token + window_bytes
    if tokens_a_checkpoint:
        assert window_bytes // per_token == tokens_a_checkpoint


OLMO_3 = {
    **_SMALL,
    "model_type": "olmo3",
    "hidden_size": 5120,
    "intermediate_size": 27_648,
    "num_attention_heads": 40,
    "num_hidden_layers": 64,
    "sliding_window": 4096,
}
STARCODER_2 = {
    **_SMALL,
    "model_type": "starcoder2",
    "hidden_size": 6144,
    "intermediate_size": 24_576,
    "num_attention_heads": 48,
    "num_key_value_heads": 4,
    "num_hidden_layers": 40,
    "sliding_window": 4096,
}


@pytest.mark.parametrize(("config", "times"), [(OLMO_3, 3.657), (STARCODER_2, 32.0), (COMMAND_A, 3.657), (EXAONE_4, 3.657)])
def test_windows_keep_so_many_times_less_at_128k(config, times):
    model = _read(config)
    kept, every = (kvsize.kv_bytes(model, 131_072, keeps) for keeps in ("windowed", "every-token"))
    assert every / kept == pytest.approx(times, rel=0.001)


def test_deepseek_v3_1_in_nvfp4():
    """671 G weights at 4.5 bits but attention, which is left out: 397 GB, where a bare file had said 1,342."""
    plain = {**DEEPSEEK_V3_2, "model_type": "deepseek_v3", "index_head_dim": None, "index_n_heads": None, "index_topk": None}
    said = {"quant_method": "modelopt", "quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["*self_attn*", "lm_head"]}
    assert kvsize.weight_bytes(_read({**plain, "quantization_config": said})) / 1e9 == pytest.approx(396.5, rel=0.001)
    assert kvsize.weight_bytes(_read({**plain, "quantization_config": None})) / 1e9 == pytest.approx(1342, rel=0.001)


def test_layers_that_share_an_index_keep_no_key_for_it():
    every, shared = _read(DEEPSEEK_V3_2), _read({**DEEPSEEK_V3_2, "indexer_types": ["full"] * 30 + ["shared"] * 31})
    assert kvsize.kv_bytes_per_token(every) - kvsize.kv_bytes_per_token(shared) == 31 * 128 * 2
    fp8 = [dataclasses.replace(model, kv_bits=Fraction(8)) for model in (every, shared)]
    assert [kvsize.kv_bytes_per_token(model) for model in fp8] == [61 * (656 + 132), 61 * 656 + 30 * 132], "vLLM's layout"
    assert kvsize.parameters(every) - kvsize.parameters(shared) == 31 * (64 * 128 * 1536 + 7168 * (128 + 64))


def test_what_is_simplified_is_said():
    assert simplified(_read(LLAMA)) == [] and simplified(hwmodels.load("model", "llama-2-13b")) == []
    assert simplified(_read(GPT_OSS)) == []
    (said,) = every_token(_read(GPT_OSS), "all is kept")
    assert "18 of 36 layers attend to 128 tokens" in said and "2.0x" in said
    (said,) = simplified(_read(DEEPSEEK_V3_2))
    assert "indexer" in said


def test_sizes_of_mixtures():
    assert kvsize.parameters(_read(ERNIE)) / 1e9 == pytest.approx(300, rel=0.01)
    assert kvsize.active_parameters(_read(ERNIE)) / 1e9 == pytest.approx(47, rel=0.03)
    assert kvsize.parameters(_read(GEMMA_3)) / 1e9 == pytest.approx(27.0, rel=0.01)
    assert kvsize.parameters(_read(GEMMA_3_4B)) / 1e9 == pytest.approx(3.88, rel=0.01)


@pytest.mark.parametrize("name", [name for name in HYBRIDS if name != "gemma-3n"])
def test_hybrids_are_simulated(tmp_path, name):
    (tmp_path / "config.json").write_text(json.dumps(HYBRIDS[name]))
    config = load(None, [f"model={tmp_path}/config.json", "hardware=b200-x8", "prices=rent-2026"])
    deployment = resolve(config)
    assert deployment.kv.state == deployment.hbm_kv.state == kvsize.kv_bytes(deployment.model, 0) > 0


def test_describe_says_what_it_leaves_out(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(QWEN_3_NEXT))
    shown = CliRunner().invoke(app, ["trace", "describe", "--model", str(tmp_path / "config.json")])
    assert shown.exit_code == 0 and "36 of 48 layers keep states" in " ".join(shown.stdout.split())


HYBRID = {"layer_types": ["linear_attention"] * 60 + ["full_attention"] * 20}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mamba3"}, "model_type 'mamba3' is not known.*write llama in a copy"),
        ({"model_type": None}, "model_type is missing"),
        ({"model_type": 7}, "model_type is missing"),
        (HYBRID, "what layers of linear_attention keep is not modelled"),
        ({"layer_types": ["full_attention"] * 79}, "79 layers"),
        ({"layer_types": ["sliding_attention"] * 80}, "sliding_window is missing"),
        ({"sliding_window": 4096}, "which layers of model_type llama have it"),
        ({"attention_chunk_size": 4096}, "attention_chunk_size: may say"),
        ({"index_topk": 2048}, "index_topk: may say"),
        ({**DEEPSEEK_V3_2, "indexer_types": ["full"] * 30 + ["none"] * 31}, "indexer_types"),
        ({**DEEPSEEK_V3_2, "indexer_types": ["full"] * 30}, "30 layers"),
        ({"full_attention_interval": 4}, "full_attention_interval: may say what layers keep"),
        ({"num_kv_shared_layers": 20}, "num_kv_shared_layers"),
        ({"cross_attention_layers": [3, 8]}, "cross_attention_layers"),
        ({"mamba_d_state": 16}, "mamba_d_state"),
        ({"kv_compression": 8}, "kv_compression"),
        ({"text_config": [1]}, "text_config is no mapping"),
        ({"num_local_experts": 8, "num_experts": 4, "num_experts_per_tok": 2}, "the same"),
        ({"moe_intermediate_size": 512}, "without a number of experts"),
    ],
)
def test_what_is_not_understood_is_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        _read({**LLAMA, **changes})


@pytest.mark.parametrize("key", ["moe_layer_freq", "mlp_layer_types"])
def test_a_file_that_does_not_say_of_each_layer_whether_it_has_experts_is_refused(tmp_path, key):
    """With the file's name and before anything is made of it, also where layers without experts have their width."""
    (tmp_path / "config.json").write_text(json.dumps({**MIMO_V2, key: [1, 2] if key == "moe_layer_freq" else ["sparse"]}))
    with pytest.raises(hwmodels.CatalogueError, match=f"config.json: .*{key}"):
        hwmodels.load("model", str(tmp_path / "config.json"))


def test_null_and_false_say_that_there_is_none():
    assert _read({**MISTRAL_V0_1, "sliding_window": None}).layers[0].kind.window is None
    with pytest.raises(ValueError, match="sliding_window is missing"):
        _read({key: value for key, value in MISTRAL_V0_1.items() if key != "sliding_window"})
    assert _read({**LLAMA, "num_kv_shared_layers": 0, "full_attention_interval": None}) == _read(LLAMA)


LLAMA_405B = {**LLAMA, "hidden_size": 16_384, "intermediate_size": 53_248, "num_attention_heads": 128, "num_hidden_layers": 126}
FP8_405B = {
    "quant_method": "fbgemm_fp8",
    "modules_to_not_convert": [
        *[f"model.layers.{layer}.self_attn" for layer in range(126)],
        "lm_head",
    ],
}


@pytest.mark.parametrize(
    ("config", "quantised", "gigabytes", "kv_bytes"),
    [
        (LLAMA, COMPRESSED, 72.654, 327_680),
        (LLAMA, MODELOPT, 72.654, 163_840),
        (LLAMA, {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_quant_algo": "NVFP4"}, 42.704, 92_160),
        (LLAMA, {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True}, 39.763, 327_680),
        (LLAMA, {"quant_method": "gptq", "bits": 4, "group_size": -1}, 38.427, 327_680),
        (LLAMA, {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True}, 39.514, 327_680),
        (LLAMA_405B, FP8_405B, 481.94, 516_096),
        (GPT_OSS, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}, 65.149, 73_728),
        (ERNIE, {"quant_method": "fp8", "weight_block_size": [128, 128]}, 301.25, 221_184),
    ],
)
def test_weights_by_their_precision(config, quantised, gigabytes, kv_bytes):
    """Published: Llama 405B FP8 482 GB, gpt-oss-120b 65.1 GB, both with norms."""
    model = _read({**config, "quantization_config": quantised})
    assert kvsize.weight_bytes(model) / 1e9 == pytest.approx(gigabytes, rel=0.003)
    assert kvsize.kv_bytes_per_token(model) == kv_bytes


@pytest.mark.parametrize(
    ("quantised", "reason"),
    [
        ({"quant_method": "quark"}, "quark"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "MIXED_PRECISION"),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "INT2"}, "INT2"),
        ({**COMPRESSED, "config_groups": {"a": _GROUP, "b": {"weights": {"num_bits": 4}}}}, "one number of bits"),
        ({**COMPRESSED, "config_groups": {}}, "one number of bits"),
        ({"quant_method": "awq"}, "give bits"),
        ({"quant_method": "fp8", "kv_cache_bits": 4}, "kv_cache_bits: may say"),
        ({"quant_method": "gptq", "bits": 4, "dynamic": {"a": {"bits": 8}}}, "dynamic"),
        ([], "quantization_config"),
    ],
)
def test_weights_whose_bits_are_not_said_are_refused(quantised, reason):
    with pytest.raises(ValueError, match=reason):
        _read({**LLAMA, "quantization_config": quantised})


def test_modelopts_file_beside_a_bare_config_counts(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    plain = hwmodels.load("model", str(tmp_path / "config.json"))
    said = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(said))
    quantised = hwmodels.load("model", str(tmp_path / "config.json"))
    assert (plain.weight_bits, quantised.weight_bits) == (16, 4)
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {}}))
    with pytest.raises(hwmodels.CatalogueError, match="quant_algo"):
        hwmodels.load("model", str(tmp_path / "config.json"))
    (tmp_path / "hf_quant_config.json").write_text("{")
    with pytest.raises(hwmodels.CatalogueError, match="hf_quant_config"):
        hwmodels.load("model", str(tmp_path / "config.json"))


def test_a_window_may_stand_under_its_older_name():
    older = {key: value for key, value in LLAMA.items() if key != "max_position_embeddings"} | {"model_max_length": 4096}
    assert _read(older).max_position_embeddings == 4096
    assert _read({**LLAMA, "model_max_length": 4096}) == _read(LLAMA)


def test_yarn_lengthens_the_window():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}
    short = {**LLAMA, "max_position_embeddings": 32_768}
    assert _read({**short, "rope_scaling": yarn}).max_position_embeddings == 131_072
    assert _read({**short, "rope_scaling": {**yarn, "rope_type": "llama3"}}).max_position_embeddings == 32_768
    assert _read({**short, "rope_scaling": {**yarn, "factor": "4"}}).max_position_embeddings == 32_768
    assert _read({**DEEPSEEK_V3_2, "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}}) == _read(
        DEEPSEEK_V3_2
    )


OTHER = ("1", [], {}, True, False, 1.5, -1, 0, [1], {"a": 1})
"""Values of types and sizes that a key should not have."""
KNOWN_DEFAULTS = {
    ("gemma-3-27b", "head_dim"),
    ("gemma-3-27b", "quantization_config"),
    *((name, "num_key_value_heads") for name in ALL if name.startswith("llama-3.1")),
}
"""Where the family's class gives a missing key a meaning that is another than the file's: a file without it is another model."""
SIMPLE = {"quantization_config", "kv_cache_scheme", "torch_dtype", "tie_word_embeddings", "max_position_embeddings"}
"""Keys without which a file means a model in 16 bits, or the like: not told from one that never had them."""


def _changed(config):
    """(key, config) with one key renamed, taken out, or given another type, also within `text_config`."""
    for key, value in config.items():
        rest = {name: kept for name, kept in config.items() if name != key}
        yield from ((key, {**rest, name: value}) for name in (f"{key}_x", f"our_{key}"))
        yield key, rest
        yield from ((key, {**config, key: other}) for other in OTHER if type(other) is not type(value))
        if key in ("text_config", "quantization_config", "linear_attn_config"):
            yield from ((inner, {**config, key: changed}) for inner, changed in _changed(value))


def _sizes(config):
    model = _read(config)
    return kvsize.kv_bytes(model, 100_000), kvsize.parameters(model), kvsize.active_parameters(model), model.bits


@pytest.mark.parametrize("name", ALL)
def test_a_changed_file_is_refused_or_means_the_same(name):
    config = ALL[name]
    right, misread = _sizes(config), []
    for key, changed in _changed(config):
        try:
            found = _sizes(changed)
        except ValueError as error:
            assert str(error)
            continue
        if found != right and key not in SIMPLE and (name, key) not in KNOWN_DEFAULTS:
            misread.append((key, changed.get(key), found))
    assert not misread


FIELD = SHARED.parent / "field"


@pytest.mark.skipif(not FIELD.is_dir(), reason="needs the shared inputs")
@pytest.mark.parametrize(
    ("name", "per_token", "window_bytes"),
    [("gpt-oss-120b", 36_864, 4_718_592), ("deepseek-v3.2", 85_888, 0), ("gemma3-27b", 81_920, 436_207_616)],
)
def test_files_from_the_field(name, per_token, window_bytes):
    model = hwmodels.load("model", str(FIELD / f"{name}.config.json"))
    assert kvsize.kv_bytes(model, 50_000) == 50_000 * per_token + window_bytes


def test_modules_of_several_bits_are_counted_each():
    """ModelOpt's list of what each module has; what is not listed keeps 16 bits."""
    listed = {
        **{f"model.layers.{layer}.mlp.up_proj": {"quant_algo": "NVFP4", "group_size": 16} for layer in range(80)},
        **{f"model.layers.{layer}.self_attn.q_proj": {"quant_algo": "FP8"} for layer in range(40)},
    }
    model = _read(
        {**LLAMA, "quantization_config": {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": listed}}
    )
    assert (model.bits.dense, model.bits.attention, model.bits.head, model.weight_bits) == (Fraction(9, 2), 12, 16, 4)
    listed = {"model.layers.0.mlp": {"quant_algo": "FP8"}, "lm_head": {"quant_algo": "FP8"}}
    model = _read({**LLAMA, "quantization_config": {"quant_method": "modelopt", "quantized_layers": listed}})
    assert (model.bits.dense, model.bits.attention, model.bits.head) == (16 - Fraction(8, 80), 16, 8)


def test_a_flag_of_zero_is_a_state_that_is_not_known():
    with pytest.raises(ValueError, match="linear_attention keep is not modelled"):
        _read({**ALL["minimax-m2"], "attn_type_list": [1] * 61 + [0]})
    assert _read({**ALL["minimax-m2"], "attn_type_list": [1] * 62}) == _read(ALL["minimax-m2"])
