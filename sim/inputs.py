"""The files and folders that a run reads, by its configuration."""

import inspect
from pathlib import Path

from kvplan.hwmodels.catalogue import is_path
from kvplan.sim import config as configuration
from kvplan.sim.config import Config
from kvplan.sim.policies.registry import find
from kvplan.sim.settings import POLICY_PATHS


def inputs(source: str | None, *configs: Config) -> list[Path]:
    """Of configurations that were made of one, as `kvplan.sim.config.load` takes it. Packaged files are left out. Raises PolicyError."""
    files = {path for config in configs for path in (*workload_files(config), *_catalogue_files(config), *_policies(config))}
    return sorted(files if source is None or source in configuration.presets() else {*files, Path(source)})


def workload_files(config: Config) -> list[Path]:
    """The files and folders that the workload is read from."""
    workload = config.workload
    named = workload.trace, workload.tokenizer, getattr(workload.arrival, "trace", None)
    return [Path(name) for name in named if name]


def policy_files(config: Config, path: str) -> list[Path]:
    """The files of the user's own policy that a setting names: of its class and of what that inherits from; none for a packaged one.
    Raises PolicyError."""
    name = _at(config, path)
    if ":" not in name:
        return []
    modules = [inspect.getmodule(parent) for parent in find(POLICY_PATHS[path], name).SUPERVISED.__mro__]
    return [Path(file) for module in modules if (file := getattr(module, "__file__", None))]


def _catalogue_files(config: Config) -> list[Path]:
    """The user's own catalogue, and entries that are given by path."""
    entries = [name for name in (config.model, config.hardware, config.prices) if is_path(name)]
    return [Path(name) for name in (config.catalogue, *entries) if name]


def _policies(config: Config) -> list[Path]:
    return [file for path in POLICY_PATHS for file in policy_files(config, path)]


def _at(config: Config, path: str) -> str:
    found = config
    for key in path.split("."):
        found = getattr(found, key)
    return found
