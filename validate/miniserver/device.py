"""The part of the server that computes: prefills that wait for their history layer by layer, decode steps of a ragged batch, and saving.

Jobs have a row each in the working caches, so that they come and go without a copy. New KV goes to host memory behind the
computation: that of a prefill layer by layer, that of decode steps `FLUSH_STEPS` steps at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from kvplan.validate.calibration.clock import Clock
from kvplan.validate.calibration.datapath.pipeline import Saver
from kvplan.validate.calibration.datapath.streams import CallerStream, Event, Stream, Streams, ThreadStream
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.miniserver.chunk import Chunk, Layout
from kvplan.validate.miniserver.meter import Meter, MeteredStream
from kvplan.validate.miniserver.storage import Source

FLUSH_STEPS = 16
"""Decode steps whose KV is saved together."""
NOTHING = Source([])


@dataclass
class Job:
    """A turn that runs."""

    turn: int
    session: int
    row: int
    """Of the working caches."""
    cached: int
    """Tokens in its row."""
    left: int
    """Tokens of the answer that are still to come."""
    source: Source = NOTHING
    fresh: Chunk | None = None
    """Host memory for the KV that is new; None when nothing is saved."""
    saved: int = 0
    """Tokens of it that have been sent for saving."""
    token: int = 0
    """The newest token of the answer."""
    answer: list[int] = field(default_factory=list)


class Device:
    """A decoder with room for `rows` jobs of `window` tokens.

    `layerwise`: a layer waits for its own history only, else all wait for all of it. KV on its way to host memory may take
    `write_buffer` bytes; 0 saves synchronously. `attend` is called before every layer, so that the server can look up.
    """

    def __init__(
        self,
        decoder: Decoder,
        rows: int,
        window: int,
        layerwise: bool,
        write_buffer: int,
        clock: Clock,
        attend: Callable[[], None],
    ) -> None:
        self.decoder = decoder
        sizes = decoder.shape
        self.layout = Layout(len(decoder.layers), sizes.num_key_value_heads, sizes.head_dim, decoder.dtype)
        self.to_device, self.to_host = Meter("host_to_device"), Meter("device_to_host")
        self.stall_s = 0.0
        """Seconds in which computing waited for transfers so far."""
        self._clock, self._attend = clock, attend
        self._layerwise = layerwise
        self._streams = Streams(_Waiting(self), ThreadStream(), MeteredStream(self.to_host))
        self._saver = Saver(self._streams, write_buffer)
        self._caches = decoder.room(rows, window)
        self._unsaved: list[Tensor] = []
        """New KV of the latest decode steps of `_batch`, each [layers, batch, 1, 2, kv_heads, head_dim]."""
        self._batch: list[Job] = []

    def prefill(self, job: Job, tokens: Sequence[int]) -> Tensor:
        """Logits after new tokens behind the job's history. Raises OSError when the history does not come; then nothing has changed."""
        history, new = job.source.tokens, len(tokens)
        working = [layer[job.row : job.row + 1] for layer in self._caches]
        loading = _Loading(self._streams.load, working, job.source, self.to_device)
        decoder = self.decoder
        room = None if job.fresh is None else job.fresh.kv[:, None, :new]

        def await_layer(index: int) -> None:
            self._attend()
            self._wait(lambda: loading.await_layer(index if self._layerwise else len(working) - 1))

        x = decoder.stack(
            decoder.embed(torch.tensor([tokens])),
            working,
            decoder.place_prefill(history, new),
            await_history=await_layer,
            keep=None if room is None else lambda index, fresh: self._keep(room[index], fresh),
        )
        job.cached, job.saved = history + new, new
        return decoder.logits(x)[0]

    def _keep(self, room: Tensor, fresh: Tensor) -> None:
        """Sends what a prefill has made of a layer on its way; without an answer all but the last token's, as a context's last token is."""
        self._saver.save(room, fresh[:, : room.shape[1]])

    def decode(self, jobs: Sequence[Job]) -> Tensor:
        """Logits [jobs, vocabulary] after each job's newest token."""
        if [job.turn for job in jobs] != [job.turn for job in self._batch] or len(self._unsaved) == FLUSH_STEPS:
            self.flush()
            self._batch = list(jobs)
        decoder, fresh = self.decoder, []
        place = decoder.place_apart([job.row for job in jobs], [job.cached for job in jobs])
        x = decoder.stack(
            decoder.embed(torch.tensor([[job.token] for job in jobs])),
            self._caches,
            place,
            await_history=lambda _: self._attend(),
            keep=lambda _, kept: fresh.append(kept),
        )
        for job in jobs:
            job.cached += 1
        self._unsaved.append(torch.stack(fresh))
        return decoder.logits(x)

    def flush(self) -> None:
        """Sends what decode steps have left for saving."""
        if self._unsaved:
            fresh = torch.cat(self._unsaved, dim=2)
            steps = fresh.shape[2]
            for index, job in enumerate(self._batch):
                if job.fresh is not None:
                    self._saver.save(job.fresh.kv[:, job.saved : job.saved + steps], fresh[:, index])
                    job.saved += steps
            self._unsaved.clear()

    def finish(self, job: Job) -> list[Chunk]:
        """What the job has added, on its way to host memory; nothing when nothing is saved. Its row is free."""
        self.flush()
        if job.fresh is None:
            return []
        job.fresh.saved.append(self._streams.save.run(lambda: None))
        return [job.fresh]

    def close(self) -> None:
        """Ends the threads."""
        self._streams.close()

    def _wait(self, work: Callable[[], object]) -> None:
        """Waits for a transfer."""
        before = self._clock.now
        try:
            self._clock.blocked(work)
        finally:
            self.stall_s += self._clock.now - before


class _Waiting(CallerStream):
    """The thread that computes; what it waits for is counted."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def wait(self, event: Event) -> None:
        self._device._wait(event.synchronize)


class _Loading:
    """A job's history on its way to its row, a layer at a time, behind the computation."""

    def __init__(self, stream: Stream, working: list[Tensor], source: Source, meter: Meter) -> None:
        self._source, self._meter = source, meter
        self._error: BaseException | None = None
        self._ends = [stream.run(partial(self._load, index, layer)) for index, layer in enumerate(working)] if source.chunks else []

    def await_layer(self, index: int) -> None:
        """Blocks the caller until a layer is there. Raises OSError when it never will be."""
        if self._ends:
            self._ends[index].synchronize()
        if self._error is not None:
            raise self._error

    def _load(self, index: int, working: Tensor) -> None:
        try:
            if self._source.arrived is not None:
                self._source.arrived[index].result()
            if self._error is None:
                pieces = [chunk.kv[index] for chunk in self._source.chunks]
                for chunk in self._source.chunks:
                    chunk.await_saved()
                self._meter.timed(lambda: _copy(pieces, working[0]))
                self._meter.bytes += sum(piece.nbytes for piece in pieces)
        except OSError as error:
            self._error = error


def _copy(pieces: Sequence[Tensor], into: Tensor) -> None:
    """One after another into the beginning of a row."""
    at = 0
    for piece in pieces:
        into[at : at + len(piece)].copy_(piece)
        at += len(piece)
