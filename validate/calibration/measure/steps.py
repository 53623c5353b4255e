"""Prefill over new and history tokens, decode over batch and context, and the output head by itself.

What is timed of a prefill or a decode step is the stack of layers, which are all alike: n measured layers stand for a model's L by
the factor L/n. Embedding, final norm and output head are timed apart and count once.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from kvplan.validate.calibration.clock import Clock
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.calibration.kernels.layer import Place
from kvplan.validate.calibration.measure import machine
from kvplan.validate.calibration.measure.task import Task, grid
from kvplan.validate.calibration.measure.timing import Timing, once, repeated

LEAST_NEW, LEAST_CONTEXT = 16, 64
"""Where the grids begin, tokens."""
POOL_SHARE = 0.4
"""Of free memory, for the KV that rotates."""


class Pool:
    """Random KV in device memory, of which every repetition gets another part, so that no cache holds it from the last time.

    One flat tensor per layer. Values are random, neither zeros nor denormals, which some hardware treats differently.
    """

    def __init__(self, decoder: Decoder, tokens: int):
        per_token = decoder.shape.kv_values_per_token * len(decoder.layers) * decoder.dtype.itemsize
        enough = max(tokens, 2 * machine.cache_bytes(decoder.device) // per_token + 1)
        self.tokens = min(enough, int(POOL_SHARE * machine.free_bytes(decoder.device)) // per_token)
        """Tokens that a working cache can have at most, over all sequences."""
        self._decoder = decoder
        size = self.tokens * decoder.shape.kv_values_per_token
        self._layers = [torch.empty(size, dtype=decoder.dtype, device=decoder.device).uniform_(-1, 1) for _ in decoder.layers]

    def evict(self) -> None:
        """Reads as much as drives everything else from the device's cache."""
        left = 2 * machine.cache_bytes(self._decoder.device)
        for layer in self._layers:
            if left <= 0:
                break
            layer.sum()
            left -= layer.nbytes

    def working(self, batch: int, capacity: int, turn: int) -> list[Tensor]:
        """Working caches of one job, [batch, capacity, 2, kv_heads, head_dim] per layer."""
        sizes = self._decoder.shape
        values = batch * capacity * sizes.kv_values_per_token
        start = turn % (self.tokens // (batch * capacity)) * values
        shape = (batch, capacity, 2, sizes.num_key_value_heads, sizes.head_dim)
        return [layer[start : start + values].view(shape) for layer in self._layers]


def multiplications(decoder: Decoder, tokens: int, pairs: int) -> float:
    """Of all layers for so many new tokens, and (new token, token it sees) pairs."""
    sizes = decoder.shape
    per_layer = tokens * sizes.weights_per_layer + pairs * 2 * sizes.num_attention_heads * sizes.head_dim
    return float(len(decoder.layers) * per_layer)


class StepBench:
    """Times one decoder; on a CPU by `clock`. `window` bounds new and history tokens together, `max_batch` decode batches."""

    def __init__(self, decoder: Decoder, dtype: str, window: int, max_batch: int, clock: Clock):
        self._decoder, self._window, self._max_batch, self._clock = decoder, window, max_batch, clock
        self._pool = Pool(decoder, max_batch * window)
        self._model: dict[str, str | int] = {"model": decoder.shape.name, "dtype": dtype}
        self._measured: dict[str, str | int] = {**self._model, "layers": len(decoder.layers)}

    def tasks(self, level: int) -> Iterator[Task]:
        """The points of the grids at a level; those too large for the window or for memory are left out."""
        for new in grid(LEAST_NEW, self._window, level):
            for history in [0, *grid(LEAST_CONTEXT, self._window - LEAST_NEW, level)]:
                if new + history <= min(self._window, self._pool.tokens):
                    yield self._prefill(new, history)
        for batch in grid(1, self._max_batch, level):
            for context in grid(LEAST_CONTEXT, self._window - 1, level):
                if batch * (context + 1) <= self._pool.tokens:
                    yield self._decode(batch, context)
        for rows in grid(1, self._max_batch, level + 1):
            yield self._head(rows)

    def _prefill(self, new: int, history: int) -> Task:
        def prepare() -> Callable[[int], float]:
            place = self._decoder.place_prefill(history, new)
            x = self._hidden(1, new)
            return lambda turn: self._stack_s(x, self._pool.working(1, history + new, turn), place)

        return self._task("prefill", {"new": new, "history": history}, new, history * new + new * new // 2, prepare)

    def _decode(self, batch: int, context: int) -> Task:
        def prepare() -> Callable[[int], float]:
            place = self._place_decode([context] * batch)
            x = self._hidden(batch, 1)
            return lambda turn: self._stack_s(x, self._pool.working(batch, context + 1, turn), place)

        return self._task("decode", {"batch": batch, "context": context}, batch, batch * context, prepare)

    def _head(self, rows: int) -> Task:
        decoder = self._decoder

        def measure(may_take_s: float) -> Timing:
            tokens = torch.zeros(rows, 1, dtype=torch.long, device=decoder.device)

            def work() -> None:
                decoder.place_decode([0] * rows)
                decoder.logits(decoder.embed(tokens))

            def one(_: int) -> float:
                self._pool.evict()  # in a step the layers come before it
                return once(work, decoder.device, self._clock)

            return repeated(one, may_take_s)

        work = rows * decoder.shape.vocab_size * decoder.shape.hidden_size
        return Task("head", {**self._model, "rows": rows}, work, "head", measure)

    def _task(self, quantity: str, parameters: dict, tokens: int, pairs: int, prepare: Callable[[], Callable[[int], float]]) -> Task:
        work = multiplications(self._decoder, tokens, pairs)
        return Task(quantity, {**self._measured, **parameters}, work, quantity, lambda may_take_s: repeated(prepare(), may_take_s))

    def _place_decode(self, lengths: list[int]) -> Place:
        """On a CPU as the mini server does it: sequence by sequence. On a GPU at once, as paged kernels do."""
        if self._decoder.device == "cpu":
            return self._decoder.place_apart(range(len(lengths)), lengths)
        return self._decoder.place_decode(lengths)

    def _hidden(self, batch: int, new: int) -> Tensor:
        """Hidden states of random tokens, [batch, new, hidden]."""
        tokens = torch.randint(self._decoder.shape.vocab_size, (batch, new), device=self._decoder.device)
        return self._decoder.embed(tokens)

    def _stack_s(self, x: Tensor, working: list[Tensor], place) -> float:
        def work() -> None:
            self._decoder.stack(x, working, place, await_history=lambda _: self._clock.tick())

        return once(work, self._decoder.device, self._clock)
