"""The process that a command runs in: streams that always print, and signals that end it well. Standard library only, so that
nothing slow is loaded before a Ctrl-C is heard.

SIGTERM and SIGHUP are a KeyboardInterrupt, like SIGINT: whoever has something to close or to remove does it, whatever ends the
command. One that the process was started to ignore (nohup, a shell's background job) stays ignored.
"""

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import BinaryIO, TextIO

from kvplan.sim.files import written
from kvplan.sim.sweep import workers

_INTERRUPTED = 130
"""What typer makes of a KeyboardInterrupt."""
_BUSY_S, _AGAIN_S, _ECHO_S = 5.0, 0.02, 1.0
"""How long a signal waits at most, while it would do harm, how often it looks, and how long after the first another is the same."""
_PYDANTIC = f"{os.sep}pydantic{os.sep}"


def run_command(command: Callable[[], int | None]) -> int:
    """Runs a command and gives the exit code of the process, which should end now: 1 when it was interrupted, or could not print."""
    workers.rarely_collect()
    ending = _Ending()
    ending.listen()
    with _steady_streams() as stdout:
        code = _exit_code(command, ending)
        if code == _INTERRUPTED:
            print(f"kvplan: interrupted, {written.sentence()}", file=sys.stderr)
            code = 1
        sys.stdout.flush()
        if stdout.failure is None:
            return code
        if stdout.failure.errno != errno.EPIPE:  # a reader that is gone has seen enough
            print(f"kvplan: cannot print the result: {stdout.failure.strerror}", file=sys.stderr)
        return code or 1


def _exit_code(command: Callable[[], int | None], ending: "_Ending") -> int:
    try:
        return int(command() or 0)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception:
        if ending.interrupted:  # C code made it another error
            return _INTERRUPTED
        raise
    finally:
        ending.over = True


class _Ending:
    """Makes signals KeyboardInterrupts: not while a module is loaded or pydantic builds a validator, whose C code may swallow it or
    make it another error, and not while something is printed, which would be printed twice, nor while processes start."""

    def __init__(self) -> None:
        self.over = False
        """Whether the command has ended: nothing is left to close."""
        self._heard_s: float | None = None
        self._raised_s: float | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the command was told to end."""
        return self._raised_s is not None

    def listen(self) -> None:
        sys.unraisablehook = self._unraisable
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self._raised_s is not None and now_s - self._raised_s < _ECHO_S:
            return  # a terminal that closes and its shell both send SIGHUP
        if self.over:
            os._exit(1)
        self._heard_s = now_s if self._heard_s is None else self._heard_s
        if not (_busy(frame) and now_s - self._heard_s < _BUSY_S and _comes_again()):
            self._raised_s = now_s
            raise KeyboardInterrupt

    def _unraisable(self, what: "sys.UnraisableHookArgs") -> None:
        """An interrupt in a destructor or a callback goes nowhere: it comes again."""
        if issubclass(what.exc_type, KeyboardInterrupt) and _comes_again():
            self._raised_s = None
        else:
            sys.__unraisablehook__(what)


def _comes_again() -> bool:
    """Has the system send a signal in a moment; False where it cannot."""
    if not hasattr(signal, "setitimer"):
        return False
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    return True


def _busy(frame: FrameType | None) -> bool:
    """Whether a module is loaded, a validator is built (which pydantic does at first use), something is printed, or processes start."""
    if workers.starting():
        return True
    while frame is not None:
        code = frame.f_code
        if code is _Sink.write.__code__ or code.co_filename.startswith("<frozen importlib") or _PYDANTIC in code.co_filename:
            return True
        frame = frame.f_back
    return False


@contextmanager
def _steady_streams() -> Iterator["_Sink"]:
    """stdout and stderr that print what the locale can show of a text, and never fail; yields what lies below stdout."""
    _fill_closed()
    before = sys.stdout, sys.stderr
    sinks = [_Sink(getattr(stream.buffer, "raw", stream.buffer)) for stream in before]
    sys.stdout, sys.stderr = map(_steady, before, sinks)
    try:
        yield sinks[0]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _fill_closed() -> None:
    """Streams that the process was started without lead nowhere; else the next file that is opened would become one of them."""
    while (last := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(last)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process


def _steady(stream: TextIO, below: "_Sink") -> io.TextIOWrapper:
    by_line = bool(stream.line_buffering or getattr(stream, "write_through", False))
    return io.TextIOWrapper(io.BufferedWriter(below), stream.encoding, errors="replace", line_buffering=by_line)


class _Sink(io.RawIOBase):
    """Takes all bytes, whether or not the stream does: what cannot be printed must not stop what is to be written."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.failure: OSError | None = None
        """The first; nothing is printed after it."""

    def write(self, data) -> int | None:
        try:
            return len(data) if self.failure else self._raw.write(data)
        except OSError as error:
            self.failure = error
            return len(data)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw.isatty()

    def fileno(self) -> int:
        return self._raw.fileno()
