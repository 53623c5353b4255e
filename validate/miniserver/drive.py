"""Sessions' KV in files: one thread reads, one writes, each serving its requests in order; they post what they have done.

Every chunk is a file of its own, with a checksum per layer. A read goes layer by layer, so that a job may compute on the first layers
while the others still come. Whatever fails (a full disk, a missing file, bytes that are not what was written) ends that one request
with its error, and a write that failed leaves nothing behind.
"""

import zlib
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from torch import Tensor

from kvplan.validate.calibration.datapath.ssdfile import SsdFile, has_direct_io
from kvplan.validate.miniserver import chunk as kv
from kvplan.validate.miniserver.chunk import Chunk, ChunkFile, Layout
from kvplan.validate.miniserver.meter import Meter

REQUESTS = 4
"""Requests in flight of one read."""


class DamagedFile(OSError):
    """A file does not hold what was written to it."""


class Reading:
    """A session's KV on its way to host memory."""

    def __init__(self, session: int, files: Sequence[ChunkFile], layout: Layout) -> None:
        self.session = session
        self.files = list(files)
        self.chunks = [kv.empty(layout, file.tokens) for file in files]
        self.arrived: list[Future] = [Future() for _ in range(layout.layers)]
        """Per layer; done when that layer of all chunks is there, with the error when it never will be."""
        self.abandoned = False
        """Whether nobody wants it any more; set by the owner of the store."""

    @property
    def error(self) -> BaseException | None:
        """Why it failed, if it did. It must be over."""
        return self.arrived[-1].exception()


class Writing:
    """A session's chunks on their way to files."""

    def __init__(self, session: int, chunks: Sequence[Chunk]) -> None:
        self.session = session
        self.chunks = list(chunks)
        self.files: list[ChunkFile] = []
        self.error: Exception | None = None


class Drive:
    """Files in `folder`, which must exist and is emptied by `close`. Ended Readings and Writings are put into `posted`."""

    def __init__(self, folder: Path, layout: Layout, posted: SimpleQueue) -> None:
        self.direct = has_direct_io(folder)
        self.reads, self.writes = Meter("ssd_read"), Meter("ssd_write")
        self._folder, self._layout, self._posted = folder, layout, posted
        self._reader, self._writer, self._requests = ThreadPoolExecutor(1), ThreadPoolExecutor(1), ThreadPoolExecutor(REQUESTS)
        self._written = 0

    def read(self, session: int, files: Sequence[ChunkFile]) -> Reading:
        """Sends for what a session has in files."""
        reading = Reading(session, files, self._layout)
        self._reader.submit(self._read, reading)
        return reading

    def write(self, session: int, chunks: Sequence[Chunk]) -> Writing:
        """Writes chunks once they are saved, each to a new file."""
        writing = Writing(session, chunks)
        self._writer.submit(self._write, writing)
        return writing

    def delete(self, files: Sequence[ChunkFile]) -> None:
        """Removes files when what was sent for before has been read."""
        self._reader.submit(_remove, [file.path for file in files])

    def close(self) -> None:
        """Ends the threads when they have done what they are at, gives up what waits, and removes all files."""
        for pool in (self._reader, self._writer, self._requests):
            pool.shutdown(cancel_futures=True)
        for path in self._folder.iterdir():
            path.unlink()

    # --- in the reading thread ------------------------------------------------------------------------------------------------

    def _read(self, reading: Reading) -> None:
        try:
            self.reads.timed(lambda: self._read_files(reading))
        except Exception as error:
            for layer in reading.arrived:
                if not layer.done():
                    layer.set_exception(error)
        else:
            self.reads.bytes += sum(chunk.kv.nbytes for chunk in reading.chunks)
        self._posted.put(reading)

    def _read_files(self, reading: Reading) -> None:
        with ExitStack() as stack:
            files = [stack.enter_context(_opened(each.path, self.direct)) for each in reading.files]
            triples = list(zip(files, reading.files, reading.chunks, strict=True))
            layers = [[self._requests.submit(_read_layer, *each, index) for each in triples] for index in range(self._layout.layers)]
            try:
                for arrived, requests in zip(reading.arrived, layers, strict=True):
                    for request in requests:
                        request.result()
                    arrived.set_result(None)
            finally:
                wait([request for requests in layers for request in requests])  # none may use a file that is closed

    # --- in the writing thread ------------------------------------------------------------------------------------------------

    def _write(self, writing: Writing) -> None:
        paths: list[Path] = []
        try:
            chunks = [chunk.compact() for chunk in writing.chunks]
            for each in chunks:
                each.await_saved()
            for each in chunks:
                self._written += 1
                paths.append(self._folder / f"{writing.session}-{self._written}.kv")
                self.writes.timed(partial(self._write_file, paths[-1], each, writing))
                self.writes.bytes += each.kv.nbytes
        except Exception as error:
            _remove(paths)
            writing.files, writing.error = [], error
        self._posted.put(writing)

    def _write_file(self, path: Path, each: Chunk, writing: Writing) -> None:
        with SsdFile(path, self._requests, self.direct) as file:
            file.write(each.raw)
        checksums = tuple(_checksum(each.layer(index)) for index in range(self._layout.layers))
        writing.files.append(ChunkFile(path, each.tokens, checksums))


class _Inline(Executor):
    """Does what is submitted at once: for requests that run in a thread of the drive already."""

    def submit(self, function, /, *arguments, **keywords) -> Future:
        done: Future = Future()
        try:
            done.set_result(function(*arguments, **keywords))
        except OSError as error:
            done.set_exception(error)
        return done


def _remove(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _opened(path: Path, direct: bool) -> SsdFile:
    """A file that must exist. Raises FileNotFoundError."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing")
    return SsdFile(path, _Inline(), direct)


def _read_layer(file: SsdFile, stored: ChunkFile, into: Chunk, index: int) -> None:
    """One layer of one file. Raises OSError, DamagedFile among them."""
    layout, tokens = replace(into.layout, layers=1), stored.skip + stored.tokens
    whole = kv.empty(layout, tokens) if stored.skip else None
    target = into.layer(index) if whole is None else whole.raw
    file.read(target, index * layout.layer_bytes(tokens))
    if _checksum(target) != stored.checksums[index]:
        raise DamagedFile(f"{stored.path}: layer {index} is not what was written")
    if whole is not None:
        into.kv[index].copy_(whole.kv[0, stored.skip :])


def _checksum(buffer: Tensor) -> int:
    return zlib.crc32(buffer.numpy().data)
