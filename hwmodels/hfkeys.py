"""Keys of a `config.json`: under which a field is written; and of those that kvplan does not read, which may be left out without a word.

A key that looks as if it told of layers, experts, windows, states or bits, and is not known to be harmless, means that the model has
something that its size may rest on and that nobody here understands: the file is refused.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, Field

_TELLING = re.compile(
    "layer|decoder|architecture|dense|expert|moe|mlp|ffn|window|slid|chunk|state|ssm|mamba|conv|linear|hybrid|recurr|rwkv|delta|cross|shar|kv|key|value|latent"
    "|lora|rank|index|compress|spars|attn|attention|block|head|bit|quant|mtp|nextn|memor|cache|intermediate|dim|width|depth|top_?k"
    "|group|freq|period|interval|interleav|step|every|global|local|retention|pattern|loop|mix|hidden|gat(e|ing)"
)
"""Parts of names of which sizes may hang."""
_HARMLESS: dict[str, str] = {
    "what arithmetic is done, with no weights or KV of its own": """
        add_swa_attention_sink_bias add_full_attention_sink_bias swa_rope_theta use_bidirectional_attention mla_use_nope
        key_multiplier attention_in_multiplier attention_out_multiplier mlp_multipliers ssm_multipliers ssm_in_multiplier ssm_out_multiplier
        embedding_multiplier lm_head_multiplier mup_enabled
        attention_multiplier attn_logit_softcapping attn_scale attn_temperature_tuning attention_value_scale clip_qkv
        final_logit_softcapping
        floor_scale hidden_act hidden_activation logits_scaling mlp_alpha_factor mlp_beta_factor query_pre_attn_scalar
        attention_out_bias scale_attn_weights scale_attn_by_inverse_layer_idx attn_implementation _attn_implementation
        _attn_implementation_autoset indexer_rope_interleave attn_pdrop hidden_dropout hidden_dropout_prob hidden_dropout_rate
        attention_dropout
        attention_softmax_in_fp32 attention_probs_dropout_prob scale_depth scale_emb dim_model_base
        mup_width_multiplier attention_scale mlp_multiplier block_dropout qk_layernorm use_qk_norm qk_norm use_qk_layernorm
        partial_rotary_factor rotary_dim rotary_pct rope_local_base_freq rope_interleave mrope_interleaved
        interleaved_rope query_key_norm apply_residual_connection_post_layernorm parallel_attn num_ln_in_parallel_attn
        use_parallel_residual original_max_position_embeddings use_dynamic_ntk use_logn_attn""",
    "norms and biases, which sizes leave out": """
        attention_bias mlp_bias qkv_bias use_qkv_bias layer_norm_eps layer_norm_epsilon layernorm_epsilon lm_head_bias use_bias
        layer_norm_elementwise_affine norm_topk_prob q_bias kv_bias o_bias add_bias_linear add_qkv_bias""",
    "how experts are chosen, not how many": """
        n_group topk_group topk_method moe_router_enable_expert_bias use_expert_bias scoring_func moe_loss_weight
        moe_normalize_expert_weights moe_norm_min router_aux_loss_coef moe_router_use_sigmoid seq_aux aux_loss_alpha
        moe_router_topk_scaling_factor moe_use_aux_free moe_norm_topk_prob
        moe_capacity moe_router_score_function use_moe norm_expert_weight scale_shared_experts
        moe_router_dtype router_dtype moe_use_hardware_optim moe_capacity_factor moe_aux_loss_coef sparsemixer_eps""",
    "training, saving and running, not the model": """
        architectures use_cache cache_implementation pretraining_tp gradient_checkpointing ep_size moe_ep_size quantization_status
        chunk_size_feed_forward pruned_heads output_hidden_states output_attentions tie_encoder_decoder cross_attention_hidden_size
        add_cross_attention is_decoder task_specific_params top_k top_p diversity_penalty num_beam_groups use_flash_attn
        use_flash_attention_2 use_cache_quantization use_cache_kernel head_layer num_logits_to_keep max_sequence_length
        transformers.js_config _flash_attn_2_enabled expert_parallel use_gmm step_size
        softmax_in_fp32 use_mamba_kernels quantization is_quantized use_fused_rms_norm""",
    "heads for the next tokens but one, which are left out": """
        num_nextn_predict_layers num_mtp_layers num_mtp_modules mtp_transformer_layers use_mtp mtp_loss_scaling_factor
        multi_token_prediction_lambda multi_token_prediction_depth mtp_num_layers mtp_layers_block_type""",
    "another writing of what is read": """
        num_expert_group moe_renormalize moe_router_activation_func
        qk_head_dim order_of_interleaved_layers use_embedding_sharing use_parallel_block use_parallel_embedding use_gated_activation
        index_share_for_mtp_iteration""",
    "of widths that hfwidths works out": """
        block_auto_adjust_ff_dim block_ff_dim block_ffn_dim_multiplier block_multiple_of""",
    "of states, their gates and feed-forward parts, with no bytes of their own": """
        mamba_hidden_act mlp_hidden_act time_step_rank chunk_size mamba_chunk_size time_step_limit time_step_min time_step_max
        time_step_floor
        mamba_expand mamba_inner_layernorms mamba_rms_norm mamba_norm_before_gate conv_dim conv_dim_out
        conv_use_xavier_init block_mlp_init_scale block_out_init_scale block_use_swiglu block_use_xavier_init block_dim block_size
        full_attn_alpha_factor full_attn_beta_factor linear_attn_alpha_factor linear_attn_beta_factor
        layernorm_full_attention_alpha layernorm_full_attention_beta layernorm_linear_attention_alpha layernorm_linear_attention_beta
        layernorm_mlp_alpha layernorm_mlp_beta shared_moe_mode attn_output_gate mamba_ssm_dtype mtp_num_hidden_layers
        mtp_use_dedicated_embeddings output_gate_type mtp_hybrid_override_pattern
        moe_shared_expert_overlap use_associative_scan use_mambapy use_conv_bias
        activation_sparsity_pattern altup_active_idx""",
    "pictures and sound, which are left out": """
        vision_config audio_config mm_tokens_per_image vision_feature_layer vision_output_dim projector_hidden_act
        multimodal_projector_bias vision_feature_select_strategy mm_hidden_size
        ignore_index use_unified_vision_chunk vision_soft_tokens_per_image image_grid_pinpoints deepstack_visual_indexes
        spatial_merge_size vision_attention projector_input_dim projector_output_dim""",
}
"""Keys that look telling and are not, by the reason."""
_HARMLESS_KEYS = {key for keys in _HARMLESS.values() for key in keys.split()}
_HARMLESS_ENDS = ("_token_id", "_token_index", "_loss_coef", "_dropout", "_init", "_init_std", "_bias", "_eps")
_SPENT: tuple[object, ...] = (None, False, 0, "", [], {})
"""Values that switch a thing off, whatever it is."""


def under(*keys: str, **more: Any) -> Any:
    """A field of a pydantic class that files write under one of these keys."""
    return Field(validation_alias=AliasChoices(*keys), **more)


def keys_of(of: type[BaseModel]) -> dict[str, list[str]]:
    """Field of such a class -> its keys."""
    return {
        name: [str(key) for key in field.validation_alias.choices] if isinstance(field.validation_alias, AliasChoices) else [name]
        for name, field in of.model_fields.items()
    }


def telling(data: Mapping[str, Any], read: Iterable[str]) -> list[str]:
    """Keys of `data` that are not `read`, look as if a size rested on them, and are neither harmless nor switched off."""
    known = _HARMLESS_KEYS | set(read)
    return sorted(
        key
        for key, value in data.items()
        if key not in known and not key.endswith(_HARMLESS_ENDS) and _TELLING.search(key.lower()) and value not in _SPENT
    )
