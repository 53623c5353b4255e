"""How long a simulator takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed() -> Iterator[list[float]]:
    """Gives a list that has the seconds in it when the block has ended."""
    spent: list[float] = []
    start = time.perf_counter()
    yield spent
    spent.append(time.perf_counter() - start)
