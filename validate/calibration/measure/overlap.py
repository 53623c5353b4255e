"""What layer-wise loading and asynchronous saving do to the time of a job, on the real data path.

Loading: `none` (history is in HBM: the compute time alone), `no-pl` (all of it is loaded, then computed), `pl-b<n>` (layer by layer,
n layers in the read buffer at the start). Saving, over a prefill and the decode steps after it: `none`, `sync` (each layer's new KV is
saved before the next layer), `async` (a write buffer for all of it).

Source: CachedAttention (USENIX ATC 2024) sections 3.2.1 and 3.2.2 and the ablations of section 4.3.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import torch

from kvplan.validate.calibration.clock import Clock
from kvplan.validate.calibration.datapath import pipeline
from kvplan.validate.calibration.datapath.buffers import host_cache
from kvplan.validate.calibration.datapath.pipeline import Preload, Saver
from kvplan.validate.calibration.datapath.streams import Streams
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.calibration.measure.steps import multiplications
from kvplan.validate.calibration.measure.task import Task
from kvplan.validate.calibration.measure.timing import Timing, once, repeated

MOST_LAYERS_READ = 15
_READ_BUFFERS = ((0, MOST_LAYERS_READ), (4, 8), (2, 6, 10, 12), range(MOST_LAYERS_READ + 1))
"""Layers of the read buffer at each level."""


@dataclass(frozen=True)
class Job:
    """The job that is timed. The paper's is 16 sequences of 1,024 tokens and 100 new ones; saving is shown over 20 decode steps."""

    batch: int = 16
    history: int = 1024
    new: int = 100
    prompt: int = 1280
    steps: int = 20


SMALL = Job(batch=2, history=256, new=32, prompt=128, steps=10)
"""For CPUs."""


class OverlapBench:
    """Times jobs of one decoder with history in (pinned) host memory; on a CPU by `clock`."""

    def __init__(self, decoder: Decoder, dtype: str, streams: Streams, job: Job, clock: Clock):
        self._decoder, self._streams, self._job, self._clock = decoder, streams, job, clock
        self._measured: dict[str, str | int] = {
            "model": decoder.shape.name,
            "dtype": dtype,
            "layers": len(decoder.layers),
            "batch": job.batch,
        }

    @cached_property
    def _host(self) -> list[torch.Tensor]:
        """Host memory for all tokens of every sequence of a job, filled with random numbers."""
        decoder, job = self._decoder, self._job
        tokens = max(job.history, job.prompt + job.steps)
        host = host_cache(decoder.shape, len(decoder.layers), job.batch, tokens, decoder.dtype, pinned=decoder.device == "cuda")
        for layer in host:
            layer.copy_(torch.rand_like(layer[:1, :1]))
        return host

    def tasks(self, level: int) -> Iterator[Task]:
        """The points at a level."""
        layers, job = len(self._decoder.layers), self._job
        buffers = sorted({min(count, layers) for count in _READ_BUFFERS[level]})
        for loading in ("none", "no-pl", *(f"pl-b{count}" for count in buffers)):
            parameters = {**self._measured, "history": job.history, "new": job.new, "loading": loading}
            work = multiplications(self._decoder, job.batch * job.new, job.batch * job.new * job.history)
            yield Task("overlap", parameters, work, "prefill", partial(self._loading, loading))
        for saving in ("none", "sync", "async"):
            parameters = {**self._measured, "prompt": job.prompt, "steps": job.steps, "saving": saving}
            work = multiplications(self._decoder, job.batch * (job.prompt + job.steps), job.batch * job.prompt * job.prompt)
            yield Task("saving", parameters, work, "prefill", partial(self._saving, saving))

    def _loading(self, loading: str, may_take_s: float) -> Timing:
        decoder, job = self._decoder, self._job
        layers = len(decoder.layers)
        host = [layer[:, : job.history] for layer in self._host]
        working = decoder.room(job.batch, job.history + job.new)
        tokens = self._tokens(job.new)
        ahead = {"none": layers, "no-pl": 0}.get(loading)
        ahead = int(loading.removeprefix("pl-b")) if ahead is None else ahead

        def one(_: int) -> float:
            preload = Preload(self._streams, working, host)
            preload.send(ahead)
            preload.await_sent()

            def work() -> None:
                preload.send_all()
                if loading == "no-pl":
                    preload.await_layer(layers - 1)
                pipeline.prefill(decoder, tokens, working, preload)

            return once(work, decoder.device, self._clock)

        return repeated(one, may_take_s)

    def _saving(self, saving: str, may_take_s: float) -> Timing:
        decoder, job = self._decoder, self._job
        capacity = job.prompt + job.steps
        working = decoder.room(job.batch, capacity)
        tokens = self._tokens(job.prompt)
        buffer_bytes = 0 if saving == "sync" else sum(layer.nbytes for layer in working)

        def one(_: int) -> float:
            saver = None if saving == "none" else Saver(self._streams, buffer_bytes)

            def work() -> None:
                pipeline.prefill(decoder, tokens, working, None, saver, self._host)
                for step in range(job.steps):
                    pipeline.decode(decoder, tokens[:, step], working, job.prompt + step, saver, self._host)

            seconds = once(work, decoder.device, self._clock)
            if saver is not None:
                saver.drain()
            return seconds

        return repeated(one, may_take_s)

    def _tokens(self, new: int) -> torch.Tensor:
        return torch.randint(self._decoder.shape.vocab_size, (self._job.batch, new), device=self._decoder.device)
