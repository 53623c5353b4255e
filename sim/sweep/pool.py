"""Where simulations run: in this process, in processes of this machine, or on a Dask or Ray cluster; the same results byte for byte.

A pool lives as long as a whole command, so that modules are loaded once. Results come in the order in which they are ready; who needs an
order keeps one. A task that fails, or that cannot be sent or brought back, gives a `Failed` with the cause, and the others go on; a process
that dies is a SweepError.

Tasks and results travel as bytes that are made and read here, so that all kinds of pool fail in one way. A task runs in the working
directory and with the Python path of who asks, so that a user's own policy is found as it is here: a cluster needs the same file system.
Not seen: that a Dask cluster of others has loaded a policy's file which has changed since; restart its workers then.

Processes come from joblib's loky: they need no `if __name__ == "__main__"` in a user's script. Those of a local Dask cluster do.
"""

import os
import pickle
import sys
import time
import traceback
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvplan.foreign.files import UnreadableError
from kvplan.sim.config import ConfigError
from kvplan.sim.policies.supervise import PolicyError
from kvplan.sim.provenance import maker
from kvplan.sim.sweep import workers
from kvplan.sim.sweep.measures import MeasureError
from kvplan.traces import TraceError

_AHEAD = 2
"""Tasks under way for each process: one that runs, and one that waits beside it."""
_PATIENCE_S = 20
"""How long a cluster may take to answer."""


class SweepError(RuntimeError):
    """The runs could not be done."""


@dataclass(frozen=True)
class Failed:
    """What a task gives that could not be done."""

    reason: str
    """One line."""


def attempt(function: Callable, argument: Any) -> Any:
    """`function(argument)`, or why it failed: whatever it raises is its failure, and no error of who asks."""
    try:
        return function(argument)
    except (PolicyError, MeasureError, ConfigError, TraceError, UnreadableError, SweepError) as error:
        return Failed(str(error))
    except MemoryError:
        return Failed("out of memory: simulate fewer sessions")
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Failed(f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}, in {last.name})")


class Pool:
    """In this process, one task after another."""

    size = 1
    """Tasks at once."""

    def __init__(self) -> None:
        self._tasks: deque[tuple[Any, Callable, Any]] = deque()

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        """`function(argument)` will be done; its result comes under `key`, which no other task has. Both must be known to `pickle`."""
        self._tasks.append((key, function, argument))

    def next(self) -> tuple[Any, Any]:
        """(key, result or Failed) of a task that is done. Waits for one. Raises SweepError when a process died."""
        key, function, argument = self._tasks.popleft()
        return key, attempt(function, argument)

    def close(self) -> None:
        """Ends what still runs."""
        self._tasks.clear()


class _Elsewhere(Pool):
    """In other processes. Few tasks are under way at a time, so that no queue holds the data of all of them."""

    def __init__(self, size: int, place: "_Place") -> None:
        super().__init__()
        self.size = size
        self._place = place
        self._sent: dict[Any, Any] = {}
        """Handle of a task under way -> its key."""
        self._ready: deque[tuple[Any, Any]] = deque()

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        super().submit(key, function, argument)
        self._send()

    def next(self) -> tuple[Any, Any]:
        while not self._ready:
            self._ready += [(self._sent.pop(handle), pickle.loads(data)) for handle, data in self._finished()]
        self._send()
        return self._ready.popleft()

    def _send(self) -> None:
        while self._tasks and len(self._sent) < _AHEAD * self.size:
            key, *task = self._tasks.popleft()
            data = attempt(pickle.dumps, task)
            if isinstance(data, Failed):
                self._ready.append((key, data))
            else:
                self._sent[self._start(pickle.dumps((self._place, data)))] = key

    @abstractmethod
    def _start(self, data: bytes) -> Any:
        """Has `_work(data)` done; gives a handle to it."""

    @abstractmethod
    def _finished(self) -> list[tuple[Any, bytes]]:
        """Handle and result of tasks that are done, at least one. Raises SweepError."""


_LOOKS, _LOOK_S = 400, 0.005
"""How often, and after how long each, a pool looks whether it can end."""


@dataclass(frozen=True)
class _Place:
    """Where who asks is."""

    folder: str
    path: tuple[str, ...]
    maker: dict | None = None
    """What decides results beside the task, where another one may be installed."""

    @classmethod
    def here(cls, others: bool) -> "_Place":
        """`others`: whether tasks run where others have installed things."""
        return cls(os.getcwd(), tuple(sys.path), maker() if others else None)

    def settle(self) -> None:
        """The Python path of who asks, after this process's own. Raises SweepError when kvplan is another one here."""
        if self.maker is not None and self.maker != maker():
            raise SweepError(f"a process of the cluster has another kvplan, NumPy or SimPy than the one that asks: {maker()}, {self.maker}")
        sys.path += [folder for folder in self.path if folder not in sys.path]


def _work(data: bytes) -> bytes:
    """Of a process: does a task, and gives what came of it."""
    packed = attempt(pickle.dumps, attempt(_done, data))
    return packed if isinstance(packed, bytes) else pickle.dumps(packed)


def _done(data: bytes) -> Any:
    place, task = pickle.loads(data)
    with nullcontext() if os.getcwd() == place.folder else chdir(place.folder):
        place.settle()
        function, argument = pickle.loads(task)
        return function(argument)


class Processes(_Elsewhere):
    """Processes of this machine. They start with the first task."""

    def __init__(self, jobs: int) -> None:
        from multiprocessing import resource_tracker

        from joblib.externals.loky import ProcessPoolExecutor
        from joblib.externals.loky.backend import resource_tracker as loky_tracker

        super().__init__(jobs, _Place.here(others=False))
        with workers.deaf():
            for tracker in (resource_tracker, loky_tracker):  # to start one ends what `deaf` does
                tracker.ensure_running()
            self._executor = ProcessPoolExecutor(max_workers=jobs, initializer=workers.begin, initargs=(os.getpid(),))

    def _start(self, data: bytes) -> Any:
        with workers.deaf():
            return self._executor.submit(_work, data)

    def _finished(self) -> list[tuple[Any, bytes]]:
        from concurrent.futures import FIRST_COMPLETED, wait

        done = wait(self._sent, return_when=FIRST_COMPLETED).done
        whole = [(each, each.result()) for each in done if each.exception() is None]
        if not whole:
            raise SweepError("a process died, perhaps for want of memory: take fewer --jobs")
        return whole

    def close(self) -> None:
        super().close()
        self._taken_up()
        self._executor.shutdown(kill_workers=True)

    def _taken_up(self) -> None:
        """Waits until loky's thread has seen all tasks: ended before, it looks for those that it has just thrown away, and fails."""
        queued = self._executor._work_ids
        for _ in range(_LOOKS):
            if queued.empty():
                return
            time.sleep(_LOOK_S)


class Dask(_Elsewhere):
    """A Dask cluster: that of the environment's DASK_SCHEDULER_ADDRESS, else one on this machine."""

    def __init__(self, jobs: int) -> None:
        from dask.distributed import Client, LocalCluster

        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._cluster = None
        with workers.deaf():
            if not address:
                self._cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL")
            try:
                self._client = Client(address or self._cluster, timeout=_PATIENCE_S)
            except OSError as error:
                raise SweepError(f"no Dask cluster at {address}: {error}") from None
        super().__init__(sum(self._client.nthreads().values()) or jobs, _Place.here(others=bool(address)))

    def _start(self, data: bytes) -> Any:
        return self._client.submit(_work, data, pure=False)

    def _finished(self) -> list[tuple[Any, bytes]]:
        from dask.distributed import wait

        done = wait(list(self._sent), return_when="FIRST_COMPLETED").done
        try:
            return [(each, each.result()) for each in done]
        except Exception as error:  # what a task raises is in its result
            raise SweepError(f"a process of the Dask cluster died, perhaps for want of memory: {error}") from None

    def close(self) -> None:
        super().close()
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Ray(_Elsewhere):
    """A Ray cluster: the one that this process uses already, that of the environment's RAY_ADDRESS, else one on this machine."""

    def __init__(self, jobs: int) -> None:
        import ray

        address = os.environ.get("RAY_ADDRESS")
        self._ray, self._own = ray, not ray.is_initialized()
        if self._own:
            more = {"address": address} if address else {"num_cpus": jobs, "include_dashboard": False}
            with workers.deaf():
                try:
                    ray.init(**more, log_to_driver=False, logging_level="CRITICAL")
                except (ConnectionError, RuntimeError) as error:
                    raise SweepError(f"no Ray cluster at {address}: {error}") from None
        self._call = ray.remote(_work)
        super().__init__(int(ray.cluster_resources().get("CPU", jobs)), _Place.here(others=bool(address) or not self._own))

    def _start(self, data: bytes) -> Any:
        return self._call.remote(data)

    def _finished(self) -> list[tuple[Any, bytes]]:
        done, _ = self._ray.wait(list(self._sent), num_returns=1)
        try:
            return [(each, self._ray.get(each)) for each in done]
        except self._ray.exceptions.RayError as error:  # what a task raises is in its result
            raise SweepError(f"a process of the Ray cluster died, perhaps for want of memory: {error}") from None

    def close(self) -> None:
        super().close()
        if self._own:
            self._ray.shutdown()


CLUSTERS = {"dask": Dask, "ray": Ray}


@contextmanager
def pool(jobs: int | None = None, cluster: str | None = None, most: int | None = None) -> Iterator[Pool]:
    """A pool of `jobs` tasks at once, all cores when not given, closed at the end of the block; of `most`, where there are never more.
    Raises ConfigError for a cluster that is not known or not installed, and SweepError when it does not answer."""
    found = _cluster(cluster, jobs or _cores()) if cluster else _local(min(jobs or _cores(), most or sys.maxsize))
    try:
        yield found
    finally:
        found.close()


def _cores() -> int:
    from joblib import cpu_count

    return cpu_count()


def _local(jobs: int) -> Pool:
    return Processes(jobs) if jobs > 1 else Pool()


def _cluster(name: str, jobs: int) -> Pool:
    if name not in CLUSTERS:
        raise ConfigError(f"cluster {name!r} is none of {', '.join(CLUSTERS)}")
    try:
        return CLUSTERS[name](jobs)
    except ImportError as error:
        raise ConfigError(f"--cluster {name} needs a package that is not installed: pip install 'kvplan[{name}]' ({error})") from None
