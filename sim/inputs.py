"""The files and folders that a run reads, by its configuration."""

import inspect
import sys
from pathlib import Path
from typing import Any

from kvplan.hwmodels.catalogue import is_path
from kvplan.sim import config as configuration
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.policies.registry import PolicyError, find, is_users_own
from kvplan.sim.settings import POLICY_PATHS


def inputs(source: str | None, *configs: Config, runs: bool = True) -> list[Path]:
    """Of configurations that were made of one, as `kvplan.sim.config.load` takes it. Packaged files are left out, and policies when nothing
    `runs`, for to know their files is to import them. Raises PolicyError."""
    files = {
        path for config in configs for path in (*workload_files(config), *_catalogue_files(config), *(_policies(config) if runs else ()))
    }
    return sorted(files if source is None or source in configuration.presets() else {*files, Path(source)})


def workload_files(config: Config) -> list[Path]:
    """The files and folders that the workload is read from."""
    workload = config.workload
    named = workload.trace, workload.tokenizer, getattr(workload.arrival, "trace", None)
    return [Path(name) for name in named if name]


def load_policies(config: Config) -> None:
    """Imports the user's own policies: before a run, and only then, for that runs their code. Raises ConfigError."""
    for path, kind in POLICY_PATHS.items():
        try:
            find(kind, _at(config, path))
        except PolicyError as error:
            raise ConfigError(f"{path}: {error}") from None


def policy_files(config: Config, path: str) -> list[Path]:
    """The files of the user's own policy that a setting names; none for a packaged one: of its class, of what that inherits from, and of
    what these import from their own folders. It is imported. Raises PolicyError."""
    name = _at(config, path)
    if not is_users_own(name):
        return []
    found: dict[Path, None] = {}
    waiting: list[object] = [inspect.getmodule(parent) for parent in find(POLICY_PATHS[path], name).SUPERVISED.__mro__]
    while waiting:
        module = waiting.pop(0)
        file = _file(module)
        if file is not None and file not in found:
            found[file] = None
            waiting += [other for other in _named_in(module) if file.parent in getattr(_file(other), "parents", ())]
    return list(found)


def _file(module: object) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _named_in(module: object) -> list[object]:
    """The modules that a module's names are, or are from."""
    return [value if inspect.ismodule(value) else sys.modules.get(getattr(value, "__module__", "")) for value in vars(module).values()]


def _catalogue_files(config: Config) -> list[Path]:
    """The user's own catalogue, and entries that are given by path."""
    entries = [name for name in (config.model, config.hardware, config.prices) if is_path(name)]
    return [Path(name) for name in (config.catalogue, *entries) if name]


def _policies(config: Config) -> list[Path]:
    return [file for path in POLICY_PATHS for file in policy_files(config, path)]


def _at(config: Config, path: str) -> str:
    found: Any = config
    for key in path.split("."):
        found = getattr(found, key)
    return found
