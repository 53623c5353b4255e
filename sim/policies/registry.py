"""Finds policies: every module of `kvplan.sim.policies.<kind>` holds one, and `package.module:Class` names a user's own."""

import difflib
import inspect
import pkgutil
from functools import cache
from importlib import import_module

from kvplan.sim.policies.base import Eviction, Load, Prefetch, Scheduler, Write
from kvplan.sim.policies.supervise import PolicyError, supervised

KINDS: dict[str, type] = {"eviction": Eviction, "prefetch": Prefetch, "write": Write, "load": Load, "scheduling": Scheduler}
"""Kind -> base class; also the folder's name."""


@cache
def policies(kind: str) -> dict[str, type]:
    """Name -> class of every packaged policy of a kind, by name."""
    package = import_module(f"kvplan.sim.policies.{kind}")
    found: dict[str, type] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = import_module(f"{package.__name__}.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, KINDS[kind]) and member.__module__ == module.__name__:
                if member.NAME in found:
                    raise TypeError(f"two {kind} policies are named {member.NAME!r}")
                found[member.NAME] = member
    return dict(sorted(found.items()))


def find(kind: str, name: str) -> type:
    """The class of a packaged policy, or of `package.module:Class`. Raises PolicyError."""
    if ":" in name:
        return _users_own(kind, name)
    known = policies(kind)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise PolicyError(f"unknown {kind} policy {name!r}: {hint}known are {', '.join(known)}, or package.module:Class for your own")
    return known[name]


def _users_own(kind: str, name: str) -> type:
    module_name, _, class_name = name.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        raise PolicyError(f"cannot load the {kind} policy {name!r}: {type(error).__name__}: {error}") from None
    base = KINDS[kind]
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise PolicyError(f"{name!r} is not a subclass of kvplan.sim.policies.base.{base.__name__}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise PolicyError(f"{name!r} does not define {missing}")
    return supervised(kind, base, name, found)
