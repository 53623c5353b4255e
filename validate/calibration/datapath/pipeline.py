"""Layer-wise pre-loading and asynchronous saving: a prefill that waits for a layer's history only when it comes to that layer.

`Preload` moves a job's history from host memory to its working cache, a layer at a time on the load stream. The first layers may be
sent for while the previous job still runs: they are the read buffer. `Saver` moves new KV to host memory on the save stream; what is
not there yet stays in HBM, and that is the write buffer: when it is full, compute waits. A write buffer of no bytes is synchronous
saving.

Left out: an HBM budget for the read buffer (the working cache has its room from the start), and loading from SSD layer by layer: a
file is read into host memory first (`kvplan.validate.calibration.datapath.ssdfile`).
Source: CachedAttention (USENIX ATC 2024) sections 3.2.1 and 3.2.2.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from kvplan.validate.calibration.datapath.streams import Event, Streams
from kvplan.validate.calibration.kernels import kvcache
from kvplan.validate.calibration.kernels.decoder import Decoder

LoadLayer = Callable[[Tensor, Tensor], None]


class Preload:
    """History of one job on its way from host memory, `saved`, to its working cache. `load_layer` moves one layer."""

    def __init__(self, streams: Streams, working: list[Tensor], saved: list[Tensor], load_layer: LoadLayer = kvcache.load_):
        self._streams, self._load_layer = streams, load_layer
        self._ahead = deque(zip(working, saved, strict=True))
        self._arrived: list[Event] = []
        self.history = saved[0].shape[1]
        """Tokens of history."""
        streams.load.wait(streams.compute.run(_nothing))  # the working cache may be one that compute still reads

    def send(self, layers: int) -> None:
        """Queues the next `layers` layers, or as many as are left."""
        for _ in range(min(layers, len(self._ahead))):
            working, saved = self._ahead.popleft()
            self._arrived.append(self._streams.load.run(partial(self._load_layer, working, saved)))

    def send_all(self) -> None:
        """Queues what is left."""
        self.send(len(self._ahead))

    def await_layer(self, index: int) -> None:
        """Makes compute wait for the history of one layer."""
        self._streams.compute.wait(self._arrived[index])

    def await_sent(self) -> None:
        """Blocks the caller until everything that was sent is there."""
        if self._arrived:
            self._arrived[-1].synchronize()


class Saver:
    """Moves new KV to host memory behind the computation, with room in HBM for `buffer_bytes` that are not there yet."""

    def __init__(self, streams: Streams, buffer_bytes: int):
        self._streams, self._room = streams, buffer_bytes
        self._waiting: deque[tuple[Event, Tensor]] = deque()

    def save(self, into: Tensor, fresh: Tensor) -> None:
        """Queues the copy of `fresh`, just computed, to host memory, sequence by sequence: both are [batch, new, ...]."""
        self._streams.save.wait(self._streams.compute.run(_nothing))
        self._waiting.append((self._streams.save.run(lambda: kvcache.load_(into, fresh)), fresh))
        self._forget_saved()
        while self._waiting and self.held_bytes > self._room:
            done, _ = self._waiting.popleft()
            self._streams.compute.wait(done)

    @property
    def held_bytes(self) -> int:
        """Bytes of HBM that hold KV which is not known to be saved."""
        return sum(fresh.nbytes for _, fresh in self._waiting)

    def drain(self) -> None:
        """Blocks the caller until all is saved; raises what saving raised."""
        while self._waiting:
            self._waiting.popleft()[0].synchronize()

    def _forget_saved(self) -> None:
        while self._waiting and self._waiting[0][0].query():
            self._waiting.popleft()[0].synchronize()


def prefill(
    decoder: Decoder,
    tokens: Tensor,
    working: list[Tensor],
    preload: Preload | None = None,
    saver: Saver | None = None,
    host: Sequence[Tensor] = (),
) -> Tensor:
    """Logits after new tokens [batch, new].

    History comes by `preload`, if there is one, whose layers have all been sent. New KV goes by `saver`, if there is one, to its place
    behind the history in `host`, one [batch, capacity, 2, kv_heads, head_dim] per layer.
    """
    history, new = preload.history if preload else 0, tokens.shape[1]
    x = decoder.stack(
        decoder.embed(tokens),
        working,
        decoder.place_prefill(history, new),
        await_history=preload.await_layer if preload else None,
        keep=(lambda index, fresh: saver.save(host[index][:, history : history + new], fresh)) if saver else None,
    )
    return decoder.logits(x)


def decode(
    decoder: Decoder, tokens: Tensor, working: list[Tensor], length: int, saver: Saver | None = None, host: Sequence[Tensor] = ()
) -> Tensor:
    """Logits after one more token per sequence, [batch], all of them `length` tokens long; new KV goes by `saver` to `host`."""
    x = decoder.stack(
        decoder.embed(tokens[:, None]),
        working,
        decoder.place_decode([length] * len(tokens)),
        keep=(lambda index, fresh: saver.save(host[index][:, length : length + 1], fresh)) if saver else None,
    )
    return decoder.logits(x)


def _nothing() -> None:
    """Work that only marks a place in a stream."""
