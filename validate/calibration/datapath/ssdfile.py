"""Files on SSD, read and written in requests by I/O threads, past the page cache where the file system allows it.

With O_DIRECT what is timed is the drive. Without it (tmpfs, some container file systems) writing ends with fdatasync and reading
begins with dropping the file from the page cache, which a file system may ignore: results must say which it was.
"""

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from pathlib import Path

from torch import Tensor

from kvplan.validate.calibration.datapath.buffers import ALIGNMENT, host_buffer

REQUEST_BYTES = 1 << 20
"""Bytes of one request; drives reach their bandwidth with a few of these in flight."""


def has_direct_io(folder: Path) -> bool:
    """Whether files in `folder` can be opened, written and read with O_DIRECT."""
    with tempfile.NamedTemporaryFile(dir=folder) as file, ThreadPoolExecutor(1) as io:
        try:
            with SsdFile(Path(file.name), io, direct=True) as probe:
                probe.write(host_buffer(ALIGNMENT))
                probe.read(host_buffer(ALIGNMENT))
        except OSError:
            return False
    return True


class SsdFile:
    """One file. `io` has as many threads as requests shall be in flight (the queue depth)."""

    def __init__(self, path: Path, io: Executor, direct: bool):
        self._io, self._direct = io, direct
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | (os.O_DIRECT if direct else 0), 0o600)

    def write(self, buffer: Tensor, offset: int = 0) -> None:
        """Writes a buffer of bytes at `offset`; address, length and offset must be aligned. Raises OSError."""
        self._in_requests(os.pwritev, buffer, offset)
        if not self._direct:
            os.fdatasync(self._descriptor)

    def read(self, buffer: Tensor, offset: int = 0) -> None:
        """Fills a buffer of bytes from `offset`. Raises OSError, also when the file ends before."""
        if not self._direct:
            os.posix_fadvise(self._descriptor, offset, len(buffer), os.POSIX_FADV_DONTNEED)
        self._in_requests(os.preadv, buffer, offset)

    def _in_requests(self, call: Callable, buffer: Tensor, offset: int) -> None:
        if offset % ALIGNMENT or len(buffer) % ALIGNMENT or buffer.data_ptr() % ALIGNMENT:
            raise ValueError(f"address, length and offset must be multiples of {ALIGNMENT}: use host_buffer")
        data = buffer.numpy().data
        starts = range(0, len(data), REQUEST_BYTES)
        requests = [self._io.submit(self._whole, call, data[start : start + REQUEST_BYTES], offset + start) for start in starts]
        wait(requests)  # all of them, so that none still uses buffer or file when another one failed
        for request in requests:
            request.result()

    def _whole(self, call: Callable, data: memoryview, offset: int) -> None:
        """One request, repeated until all of it is done."""
        while data:
            done = call(self._descriptor, [data], offset)
            if done == 0:
                raise OSError(f"the file ends {len(data)} bytes too early")
            data, offset = data[done:], offset + done

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)

    def __enter__(self) -> "SsdFile":
        return self

    def __exit__(self, *_) -> None:
        self.close()
