"""Finds policies: every module of `kvplan.sim.policies.<kind>` holds one; a user's own is `package.module:Class` or `path/file.py:Class`.

A user's own runs code when it is imported, so `check_name` looks at the shape of the name alone; `find` imports, when a run starts. Modules
are looked for on the Python path and then in the working directory, files from the working directory on. The folder that a module or a
file was found in stays on the path, last, for what it imports itself.
"""

import difflib
import hashlib
import inspect
import pkgutil
import sys
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from kvplan.sim.policies.base import OPTIONAL, Batching, Eviction, Load, Prefetch, Router, Scheduler, Write
from kvplan.sim.policies.supervise import PolicyError, calls, supervised

KINDS: dict[str, type[Any]] = {
    "eviction": Eviction,
    "prefetch": Prefetch,
    "write": Write,
    "load": Load,
    "scheduling": Scheduler,
    "batching": Batching,
    "routing": Router,
}
"""Kind -> base class; also the folder's name."""


@cache
def policies(kind: str) -> dict[str, type[Any]]:
    """Name -> class of every packaged policy of a kind, by name."""
    package = import_module(f"kvplan.sim.policies.{kind}")
    found: dict[str, type[Any]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        module = import_module(f"{package.__name__}.{info.name}")
        members: list[tuple[str, type[Any]]] = inspect.getmembers(module, inspect.isclass)
        for _, member in members:
            if issubclass(member, KINDS[kind]) and member.__module__ == module.__name__:
                if member.NAME in found:
                    raise TypeError(f"two {kind} policies are named {member.NAME!r}")
                found[member.NAME] = member
    return dict(sorted(found.items()))


def is_users_own(name: str) -> bool:
    """Whether the name is of a user's own policy and not of a packaged one."""
    return ":" in name


def check_name(kind: str, name: str) -> None:
    """That there is a packaged policy of that name, or that it could be the name of a user's own. Imports none. Raises PolicyError."""
    if is_users_own(name):
        _parts(kind, name)
    elif name not in policies(kind):
        near = difflib.get_close_matches(name, policies(kind), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = f"known are {', '.join(policies(kind))}"
        raise PolicyError(f"unknown {kind} policy {name!r}: {hint}{known}, or package.module:Class or path/to/file.py:Class for your own")


def find(kind: str, name: str) -> type[Any]:
    """The class of a packaged policy, or of a user's own, which is imported. Raises PolicyError."""
    check_name(kind, name)
    return _users_own(kind, name) if is_users_own(name) else policies(kind)[name]


def _parts(kind: str, name: str) -> tuple[str, str]:
    """Module or file, and class."""
    where, _, class_name = name.rpartition(":")
    is_named = where.endswith(".py") or all(map(str.isidentifier, where.split(".")))
    if not (is_named and class_name.isidentifier()):
        raise PolicyError(f"{name!r} names no {kind} policy: write package.module:Class, or path/to/file.py:Class")
    return where, class_name


def _users_own(kind: str, name: str) -> type[Any]:
    where, class_name = _parts(kind, name)
    try:
        module = _file(where) if where.endswith(".py") else _module(where)
        found = getattr(module, class_name, None)
    except (Exception, SystemExit) as error:  # whatever a user's module does when it is imported
        raise PolicyError(f"cannot load the {kind} policy {name!r}: {type(error).__name__}: {error}") from None
    if found is None:
        raise PolicyError(f"cannot load the {kind} policy {name!r}: {getattr(module, '__file__', module)} has no {class_name}")
    base = KINDS[kind]
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise PolicyError(f"{name!r} is not a subclass of kvplan.sim.policies.base.{base.__name__}")
    if missing := [call for call in calls(base) if call not in OPTIONAL and getattr(found, call) is getattr(base, call)]:
        raise PolicyError(f"{name!r} does not define {', '.join(missing)}")
    return supervised(kind, base, name, found)


def _module(name: str) -> ModuleType:
    _look_in(Path.cwd())
    return import_module(name)


def _file(name: str) -> ModuleType:
    """A module of a name of its own, so that two files of one name are two modules, and neither is a module of the Python path."""
    path = Path(name).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    own = f"{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    if own not in sys.modules:
        spec = spec_from_file_location(own, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no file of Python: its name does not end in .py")
        sys.modules[own] = module = module_from_spec(spec)  # where inspect and dataclasses look for it
        _look_in(path.parent)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[own]
            raise
    return sys.modules[own]


def _look_in(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
