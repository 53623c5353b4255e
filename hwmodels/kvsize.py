"""Sizes of a model: KV bytes per token, parameters, and what tensor parallelism makes of them.

    KV bytes per token = 2 · layers · kv_heads · head_dim · bytes              (MHA, GQA, MQA)
                       = layers · (kv_lora_rank + qk_rope_head_dim) · bytes    (MLA)

Source: CachedAttention (USENIX ATC 2024) section 2; DeepSeek-V2 (arXiv 2405.04434) section 2.1 for MLA.
Not modelled: scales of quantised caches, sliding windows (every layer keeps every token).
"""

from hwmodels.schema import DTYPE_BYTES, Model


def kv_bytes_per_token(model: Model) -> int:
    """Bytes that one token's K and V take in all layers together, stored once (as DRAM and SSD store it)."""
    if model.kv_lora_rank is not None:
        per_layer = model.kv_lora_rank + model.qk_rope_head_dim
    else:
        per_layer = 2 * model.num_key_value_heads * model.head_dim
    return model.num_hidden_layers * per_layer * DTYPE_BYTES[model.torch_dtype]


def hbm_kv_bytes_per_token(model: Model, gpus: int) -> int:
    """Bytes that one token's KV takes in the HBM of all ranks together.

    Tensor parallelism splits KV heads over ranks and copies them where there are fewer heads than ranks; a latent (MLA)
    is copied to every rank. Source: Megatron-LM (arXiv 1909.08053) and vLLM's GQA and MLA sharding.
    """
    if model.kv_lora_rank is not None:
        return kv_bytes_per_token(model) * gpus
    heads = model.num_key_value_heads
    heads_per_rank = -(-heads // gpus)
    return kv_bytes_per_token(model) // heads * heads_per_rank * gpus


def layer_parameters(model: Model) -> int:
    """Weights of the matrix products of one decoder layer (norms and biases are left out)."""
    hidden, heads = model.hidden_size, model.num_attention_heads
    if model.kv_lora_rank is not None:
        nope, rope = model.qk_nope_head_dim or model.head_dim, model.qk_rope_head_dim
        value = model.v_head_dim or model.head_dim
        query_width = heads * (nope + rope)
        rank = model.q_lora_rank
        query = hidden * query_width if rank is None else hidden * rank + rank * query_width
        latent = hidden * (model.kv_lora_rank + rope) + model.kv_lora_rank * heads * (nope + value)
        attention = query + latent + heads * value * hidden
    else:
        attention = hidden * model.head_dim * (2 * heads + 2 * model.num_key_value_heads)
    return attention + (3 if model.gated_mlp else 2) * hidden * model.intermediate_size


def embedding_parameters(model: Model) -> int:
    """Weights of the input embedding and, when it is not tied to it, of the output head."""
    return model.vocab_size * model.hidden_size * (1 if model.tie_word_embeddings else 2)


def parameters(model: Model) -> int:
    """All weights but norms and biases."""
    return model.num_hidden_layers * layer_parameters(model) + embedding_parameters(model)


def weight_bytes(model: Model) -> int:
    """Bytes of all weights together, at the model's dtype."""
    return parameters(model) * DTYPE_BYTES[model.torch_dtype]
