"""A stack of decoder layers with embedding and output head: prefill with reused KV, and decode steps.

A model's layers are all alike, so fewer of them than the model has are enough to measure it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from kvplan.validate.calibration.kernels import kvcache
from kvplan.validate.calibration.kernels.layer import Layer, Place, norm
from kvplan.validate.calibration.kernels.linear import Linear
from kvplan.validate.calibration.kernels.rope import Rope
from kvplan.validate.calibration.kernels.shape import ModelShape

DTYPES = {"float64": torch.float64, "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class Decoder:
    """`layers` layers of a model's shape with random weights of that seed. `dtype` is a name of DTYPES, `device` cpu or cuda."""

    def __init__(self, shape: ModelShape, layers: int, dtype: str, device: str = "cpu", positions: int | None = None, seed: int = 0):
        self.shape, self.dtype, self.device = shape, DTYPES[dtype], device
        generator = torch.Generator(device).manual_seed(seed)
        words, hidden = shape.vocab_size, shape.hidden_size
        self._embedding = torch.randn(words, hidden, dtype=self.dtype, device=device, generator=generator)
        self._head = Linear(torch.randn(hidden, words, dtype=self.dtype, device=device, generator=generator).mul_(hidden**-0.5))
        self.layers = [Layer(shape, layers, self.dtype, device, generator) for _ in range(layers)]
        self.rope = Rope(positions or shape.max_position_embeddings, shape.head_dim, shape.rope_theta, self.dtype, device)

    def room(self, batch: int, capacity: int) -> list[Tensor]:
        """An empty working cache for `batch` sequences of `capacity` tokens."""
        return kvcache.room(self.shape, len(self.layers), batch, capacity, self.dtype, self.device)

    def place_prefill(self, history: int, new: int) -> Place:
        """The same number of new tokens for every sequence, after a history that was just loaded."""
        end = history + new
        mask: Tensor | None = None if new == 1 else causal_lower_right(new, end)
        if history and mask is not None and self.device == "cpu":  # where the bias would be made into a mask in every layer
            mask = torch.ones(new, end, dtype=torch.bool).tril(history)
        return Place(history, self.rope.span(history, end), (slice(None), slice(history, end)), end, mask)

    def place_decode(self, lengths: Sequence[int]) -> Place:
        """One new token per sequence, after `lengths` tokens of each in the working cache. Equal lengths need no mask."""
        after = torch.tensor(lengths, device=self.device)
        visible = max(lengths) + 1
        mask = None
        if min(lengths) + 1 < visible:
            mask = (torch.arange(visible, device=self.device) <= after[:, None])[:, None, None]
        rows = torch.arange(len(lengths), device=self.device)
        return Place(0, self.rope.at(after), (rows[:, None], after[:, None]), visible, mask)

    def place_apart(self, rows: Sequence[int], lengths: Sequence[int]) -> Place:
        """One new token per sequence, as in `place_decode`, but sequence i lives in row `rows[i]` of the working cache and is attended by
        itself: work is in proportion to the sum of `lengths` instead of to the longest, and jobs may come and go without a copy."""
        after = torch.tensor(lengths, device=self.device)
        slots = (torch.tensor(rows, device=self.device)[:, None], after[:, None])
        apart = tuple((row, length + 1) for row, length in zip(rows, lengths, strict=True))
        return Place(0, self.rope.at(after), slots, max(lengths) + 1, None, apart)

    def embed(self, tokens: Tensor) -> Tensor:
        """[batch, new, hidden] of token numbers [batch, new]."""
        return self._embedding[tokens]

    def layer(self, index: int, x: Tensor, kv: Tensor, place: Place) -> tuple[Tensor, Tensor]:
        """One layer of a step, with the history of a prefill turned to its positions first. Shapes as in Layer."""
        if place.history:
            kvcache.embed_(kv, place.history, self.rope.span(0, place.history))
        return self.layers[index](x, kv, place)

    def stack(
        self,
        x: Tensor,
        kv: list[Tensor],
        place: Place,
        await_history: Callable[[int], None] | None = None,
        keep: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """All layers; the last one's output. Layer i runs after `await_history(i)`; `keep(i, fresh)` gets what is to be saved of it."""
        for index, layer_kv in enumerate(kv):
            if await_history is not None:
                await_history(index)
            x, fresh = self.layer(index, x, layer_kv, place)
            if keep is not None:
                keep(index, fresh)
        return x

    def logits(self, x: Tensor) -> Tensor:
        """[batch, vocabulary] for the last token of each sequence of [batch, new, hidden]."""
        return self._head(norm(x[:, -1]))

    def prefill(self, tokens: Tensor, kv: list[Tensor], history: int = 0) -> tuple[Tensor, list[Tensor]]:
        """Logits after new tokens [batch, new], and what to save of them. `kv` holds `history` tokens as they were saved."""
        return self._step(tokens, kv, self.place_prefill(history, tokens.shape[1]))

    def decode(self, tokens: Tensor, kv: list[Tensor], lengths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """Logits after one more token per sequence, [batch], and what to save of it. `lengths` are the tokens already in `kv`."""
        return self._step(tokens[:, None], kv, self.place_decode(lengths))

    def _step(self, tokens: Tensor, kv: list[Tensor], place: Place) -> tuple[Tensor, list[Tensor]]:
        saved: list[Tensor] = []
        x = self.stack(self.embed(tokens), kv, place, keep=lambda _, fresh: saved.append(fresh))
        return self.logits(x), saved
