"""What of a model kvplan's simulation does not follow, in sentences that go with every result."""

from collections.abc import Iterator

from kvplan.hwmodels import kvsize
from kvplan.hwmodels.layers import Latent
from kvplan.hwmodels.schema import Model


def simplified(model: Model) -> list[str]:
    """One sentence a simplification; nothing for a model whose every layer keeps and reads all tokens in 16 bits."""
    return [*_windows(model), *_indexer(model), *_float32(model)]


def _windows(model: Model) -> Iterator[str]:
    for layers, tokens in kvsize.windows(model):
        longest = model.max_position_embeddings
        kept, every = kvsize.kv_bytes(model, longest), kvsize.kv_bytes(model, longest, "every-token")
        yield (
            f"{model.name}: {layers} of {model.num_hidden_layers} layers attend to {tokens:,} tokens at most; here store and HBM keep every"
            f" token of them, and steps read it, as engines do that keep no windows apart: bytes and times are upper bounds, at"
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
