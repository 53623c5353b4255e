"""What `transformers` makes of a `config.json`: its own model without memory (PyTorch's meta device), of which the matrices are counted,
and its own cache, looked at after a few tokens.

Nothing of kvplan's reading is used. Counted are tensors of two and more dimensions but biases: kvplan leaves out norms and biases. A
convolution's cache there has the last k inputs, of which k − 1 are kept from one token to the next.
"""

import logging
import warnings
from dataclasses import dataclass
from typing import Any

_TOKENS = 4
"""Which the model is called with, to see what its cache keeps of them."""
_OURS = {
    "model_type",
    "name",
    "source",
    "date",
    "gated_mlp",
    "quantization_config",
    "compression_config",
    "auto_map",
    "torch_dtype",
    "dtype",
}
"""Keys that are not handed on: of the catalogue, or of what a model is stored in.
Both counts are of the model in 16 bits."""

_UNLIKE = {
    "falcon": "its cache there repeats each KV head for all its query heads",
    **dict.fromkeys(
        ("bamba", "falcon_h1", "granitemoehybrid", "jamba"), "its cache there keeps states in 32 bits, engines in the model's 16"
    ),
}
"""Families whose cache in `transformers` is another than that of engines."""


class IncomparableError(Exception):
    """`transformers` cannot build it; the message says why."""


@dataclass(frozen=True)
class Kept:
    """What one layer's cache holds."""

    token_bytes: int
    window: int | None
    state_bytes: int


@dataclass(frozen=True)
class Counted:
    """One model."""

    matrices: int
    layers: tuple[Kept, ...]
    unseen: str = ""
    """Why the cache could not be looked at."""

    def session_bytes(self, tokens: int, windowed: bool) -> int:
        """KV and one checkpoint of states of a session."""
        return sum(
            layer.state_bytes + layer.token_bytes * (min(tokens, layer.window or tokens) if windowed else tokens) for layer in self.layers
        )


def count(data: dict[str, Any]) -> Counted:
    """The language model of a `config.json`. Raises IncomparableError."""
    try:
        import transformers  # first: it is the one that may be missing, and PyTorch takes long

        import torch  # isort: skip
    except ImportError as error:
        raise IncomparableError(f"{error.name} is not installed (pip install 'kvplan[oracle]')") from None
    transformers.logging.set_verbosity_error()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad(), torch.device("meta"):
        warnings.simplefilter("ignore")
        model, head = _built(data)
        return Counted(_matrices(model) + head, *_cached(model))


def _built(data: dict[str, Any]) -> tuple[Any, int]:
    """The model, and the weights of a head that it lacks: some language models have none without their vision part."""
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    handed = {key: value for key, value in data.items() if key not in _OURS}
    try:
        whole = AutoConfig.for_model(_name(data.get("model_type")), **handed)
        config = whole.get_text_config(decoder=True)
        if type(config) in AutoModelForCausalLM._model_mapping:
            return AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16), 0
        model = AutoModel.from_config(config, dtype=torch.bfloat16)
    except Exception as error:  # whatever a class makes of a file that it was not written for
        raise IncomparableError(_first(error)) from None
    return model, 0 if getattr(whole, "tie_word_embeddings", False) else config.vocab_size * config.hidden_size


def _name(model_type: Any) -> Any:
    """That of the class which a file names in its `auto_map`, or which has taken over its name."""
    return {"kimi_k2": "deepseek_v3", "RefinedWeb": "falcon", "RefinedWebModel": "falcon"}.get(model_type, model_type)


def _first(error: Exception) -> str:
    """The first sentence of a message."""
    return " ".join(str(error).split()).partition(". ")[0][:110]


def _matrices(model: Any) -> int:
    model.tie_weights()
    return sum(weight.numel() for name, weight in model.named_parameters() if weight.ndim > 1 and not name.endswith("bias"))


def _cached(model: Any) -> tuple[tuple[Kept, ...], str]:
    """What each layer keeps, or why it is not known."""
    if model.config.model_type in _UNLIKE:
        return (), _UNLIKE[model.config.model_type]
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    try:
        model.eval()(input_ids=torch.zeros(1, _TOKENS, dtype=torch.long), past_key_values=cache, use_cache=True)
        return tuple(_kept(layer) for layer in cache.layers), ""
    except Exception as error:  # some models look at values, of which the meta device has none
        return (), _first(error)


def _kept(layer: Any) -> Kept:
    rows = [part for part in vars(layer).values() if getattr(part, "ndim", 0) > 2]
    for part in rows:
        if part.shape[-2] != _TOKENS:
            raise ValueError(f"{type(layer).__name__} keeps something else than tokens")
    states = sum(_bytes(state) * (state.shape[-1] - 1) // state.shape[-1] for state in getattr(layer, "conv_states", {}).values())
    states += sum(_bytes(state) for state in getattr(layer, "recurrent_states", {}).values() if state is not None)
    return Kept(sum(map(_bytes, rows)) // _TOKENS, getattr(layer, "sliding_window", None), states)


def _bytes(tensor: Any) -> int:
    return tensor.numel() * tensor.element_size()
