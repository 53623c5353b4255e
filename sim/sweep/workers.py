"""Processes that do runs: signals are for the parent, which ends them; and they end by themselves when it is gone, SIGKILL included."""

import gc
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_LOOK_S = 0.2
_OBJECTS = 300_000
"""New ones after which the collector looks for circles. Modules make 200,000 that stay, and a run as many that live long; to
look through them after every 700 takes a tenth of a command's time, and even once a twentieth of a short one's."""
_starting: list[None] = []
"""One for each `deaf` that lasts."""
_FOR_THE_PARENT = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started meanwhile hear no SIGINT, SIGTERM and SIGHUP: a terminal sends them to all of its processes. What
    this process is sent meanwhile, it hears afterwards."""
    before = _blocked()
    _starting.append(None)
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _starting.pop()


def starting() -> bool:
    """Whether processes are being started: half started they would die with a traceback. Another thread, whose signals are not blocked, may
    be given one meanwhile, and Python has the main thread handle it."""
    return bool(_starting)


def _blocked() -> set | None:
    """Blocks signals; gives what was blocked before."""
    if not hasattr(signal, "pthread_sigmask"):
        return None
    return signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def rarely_collect() -> None:
    """For a process that does one thing, and ends."""
    gc.set_threshold(_OBJECTS)


def begin(parent: int) -> None:
    """What a process does before its first run."""
    rarely_collect()
    end_with(parent)


def end_with(parent: int) -> None:
    """Has this process end soon after its parent. Where a process keeps its parent's number for ever (Windows) nothing is seen of that."""
    with suppress(ValueError):  # only the main thread may; where `deaf` can do nothing, this is what does it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
