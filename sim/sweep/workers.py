"""Processes that do runs: signals are for the parent, which ends them; and they end by themselves when it is gone, SIGKILL included."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker

_LOOK_S = 0.2
_FOR_THE_PARENT = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)}


@contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started meanwhile hear no SIGINT, SIGTERM and SIGHUP: a terminal sends them to all of its processes. What
    this process is sent meanwhile, it hears afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    from joblib.externals.loky.backend import resource_tracker as loky_tracker

    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_PARENT)
    for tracker in (resource_tracker, loky_tracker):  # processes too, whose start unblocks some
        tracker.ensure_running()
    signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with(parent: int) -> None:
    """Has this process end soon after its parent. Where a process keeps its parent's number for ever (Windows) nothing is seen of that."""
    with suppress(ValueError):  # only the main thread may; where `deaf` can do nothing, this is what does it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(1)
