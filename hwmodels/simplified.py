"""What of a model kvplan's simulation does not follow, in sentences that go with every result."""

from collections.abc import Iterator

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.layers import Latent, Pictures
from kvplan.hwmodels.schema import Model


def unsupported(model: Model) -> str:
    """Why a model can be sized, but not simulated; empty where it can.

    >>> from kvplan.hwmodels import catalogue
    >>> unsupported(catalogue.load("model", "llama-2-13b"))
    ''
    """
    if not kvsize.kv_bytes_per_token(model):
        return f"{model.name}: no layer keeps KV of tokens, so that the bytes of a session do not say how many tokens it has"
    return ""


def simplified(model: Model) -> list[str]:
    """One sentence a simplification; nothing for a model whose layers keep and read all tokens, or their windows, in 16 bits."""
    return [*_states(model), *_indexer(model), *_float32(model), *_pictures(model)]


def _states(model: Model) -> Iterator[str]:
    if layers := kvsize.state_layers(model):
        yield (
            f"{model.name}: {layers} of {model.num_hidden_layers} layers keep states, {kvsize.state_bytes(model):,} B in all; stores of"
            " whole sessions keep that of a session's end alone: a history that is edited, or loses its oldest tokens, is computed again."
            " Steps read and write states, and scan prompts at the pace of Gated DeltaNet"
        )


def every_token(model: Model, is_so: str) -> Iterator[str]:
    """A sentence for each window, of whoever counts what lies before it too; `is_so`: what happens to it, in words."""
    for tokens, layers in kvsize.windows(model).items():
        longest = model.max_position_embeddings
        kept, every = kvsize.kv_bytes(model, longest), kvsize.kv_bytes(model, longest, "every-token")
        yield (
            f"{model.name}: {layers} of {model.num_hidden_layers} layers attend to {tokens:,} tokens at most; {is_so}: at"
            f" {longest:,} tokens {every / kept:.1f}x the bytes of windows"
        )


def _indexer(model: Model) -> Iterator[str]:
    if any(isinstance(group.kind, Latent) and group.kind.index_width for group in model.layers):
        yield (
            f"{model.name}: its indexer lets a token attend to few of the others; here step times are those of attention to all: upper"
            " bounds for long contexts. Bytes are exact"
        )


def _float32(model: Model) -> Iterator[str]:
    if model.torch_dtype == "float32":
        yield f"{model.name}: torch_dtype is float32, and so are weights and KV here; most engines serve such a file in 16 bits"


def _pictures(model: Model) -> Iterator[str]:
    if any(isinstance(group.kind, Pictures) for group in model.layers):
        yield f"{model.name}: the KV that its layers of cross attention keep of pictures is left out"
