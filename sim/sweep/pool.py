"""Where simulations run: in this process, in processes of this machine, or on a Dask or Ray cluster; the same results byte for byte.

A pool lives as long as a whole search, so that modules are loaded once. Results come in the order in which they are ready; who needs an
order keeps one.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CLUSTERS = ("dask", "ray")


class PoolError(RuntimeError):
    """A process died, or there is no such cluster."""


class Pool:
    """In this process, one task after another."""

    size = 1
    """Tasks at once."""

    def __init__(self) -> None:
        self._tasks: list[tuple[Any, Callable, Any]] = []

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        """`function(argument)` will be done; its result comes under `key`, which no other task has."""
        self._tasks.append((key, function, argument))

    def next(self) -> tuple[Any, Any]:
        """(key, result) of a task that is done; raises what it raised, and PoolError. Waits for one."""
        key, function, argument = self._tasks.pop(0)
        return key, function(argument)

    def close(self) -> None:
        """Ends what still runs."""
        self._tasks.clear()


class Processes(Pool):
    """Processes of this machine."""

    def __init__(self, jobs: int) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        super().__init__()
        self.size = jobs
        self._executor = ProcessPoolExecutor(max_workers=jobs, initializer=_quiet, initargs=(os.getpid(),))
        self._futures: dict[Any, Any] = {}

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        self._futures[self._executor.submit(function, argument)] = key

    def next(self) -> tuple[Any, Any]:
        from concurrent.futures import FIRST_COMPLETED, wait

        from joblib.externals.loky.process_executor import TerminatedWorkerError

        done = next(iter(wait(self._futures, return_when=FIRST_COMPLETED).done))
        try:
            return self._futures.pop(done), done.result()
        except TerminatedWorkerError:
            raise PoolError("a process died, perhaps for want of memory: take fewer --jobs") from None

    def close(self) -> None:
        self._executor.shutdown(kill_workers=True)


class Dask(Pool):
    """A Dask cluster: that of the environment's DASK_SCHEDULER_ADDRESS, else one on this machine."""

    def __init__(self, jobs: int) -> None:
        from dask.distributed import Client, LocalCluster

        super().__init__()
        address = os.environ.get("DASK_SCHEDULER_ADDRESS")
        self._cluster = None if address else LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
        self._client = Client(address or self._cluster)
        self.size = sum(self._client.nthreads().values()) or jobs
        self._futures: dict[Any, Any] = {}

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        future = self._client.submit(function, argument, pure=False)
        self._futures[future.key] = (key, future)

    def next(self) -> tuple[Any, Any]:
        from dask.distributed import wait

        done = next(iter(wait([future for _, future in self._futures.values()], return_when="FIRST_COMPLETED").done))
        key, future = self._futures.pop(done.key)
        return key, future.result()

    def close(self) -> None:
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


class Ray(Pool):
    """A Ray cluster: that of the environment's RAY_ADDRESS, else one on this machine."""

    def __init__(self, jobs: int) -> None:
        import ray

        super().__init__()
        address = os.environ.get("RAY_ADDRESS")
        ray.init(**({"address": address} if address else {"num_cpus": jobs, "include_dashboard": False}), log_to_driver=False)
        self._ray, self._call = ray, ray.remote(_call)
        self.size = int(ray.cluster_resources().get("CPU", jobs))
        self._references: dict[Any, Any] = {}

    def submit(self, key: Any, function: Callable, argument: Any) -> None:
        self._references[self._call.remote(function, argument)] = key

    def next(self) -> tuple[Any, Any]:
        (done, *_), _ = self._ray.wait(list(self._references), num_returns=1)
        return self._references.pop(done), self._ray.get(done)

    def close(self) -> None:
        self._ray.shutdown()


def _call(function: Callable, argument: Any) -> Any:
    return function(argument)


def _quiet(parent: int) -> None:
    """Of a process: Ctrl-C is for the parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def pool(jobs: int, cluster: str | None = None) -> Iterator[Pool]:
    """A pool of so many tasks at once, closed at the end of the block. Raises PoolError when the cluster's package is not installed."""
    try:
        found = {"dask": Dask, "ray": Ray}[cluster](jobs) if cluster else Processes(jobs) if jobs > 1 else Pool()
    except ImportError as error:
        raise PoolError(f"--cluster {cluster} needs its package: pip install 'kvplan[{cluster}]' ({error})") from None
    try:
        yield found
    finally:
        found.close()
