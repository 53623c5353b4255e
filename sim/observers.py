"""Those who watch a run: each hears what it has a method for.

Hooks, called by the engine and the store while a run goes on (`engine/guards.py` has all of them): make_link, queued, admitted, completed,
found, served, kept_only, saved, evicted, expired, stepped, check, finish. A run that nobody watches calls none.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from kvplan.sim.engine.link import Link


class Observers:
    """Several as one."""

    def __init__(self, *observers: Any) -> None:
        self._observers = observers

    def make_link(self, *arguments) -> Link:
        """A link in the hands of all who watch links; `make` of the first makes it."""
        make: Callable[..., Link] = Link
        for each in self._hearing("make_link"):
            make = partial(each, make=make)
        return make(*arguments)

    def _hearing(self, hook: str) -> list[Callable]:
        return [getattr(each, hook) for each in self._observers if hasattr(each, hook)]

    def __getattr__(self, hook: str) -> Callable[..., None]:
        hearing = self._hearing(hook)

        def tell(*arguments) -> None:
            for each in hearing:
                each(*arguments)

        setattr(self, hook, tell)  # the next call finds it at once
        return tell
