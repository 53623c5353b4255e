"""Those who watch a run: each hears what it has a method for.

Hooks, called by the engine and the store while a run goes on (`engine/guards.py` has all of them): queued, admitted, completed, found,
served, kept_only, saved, evicted, expired, booked, booked_behind, broken_off, stepped, check, finish. A run that nobody watches calls none.
"""

from collections.abc import Callable
from typing import Any


class Observers:
    """Several as one."""

    def __init__(self, *observers: Any) -> None:
        self._observers = observers

    def __getattr__(self, hook: str) -> Callable[..., None]:
        hearing = [getattr(each, hook) for each in self._observers if hasattr(each, hook)]

        def tell(*arguments) -> None:
            for each in hearing:
                each(*arguments)

        setattr(self, hook, tell)  # the next call finds it at once
        return tell
