"""The configurations of a sweep: every one of them resolved and checked before anything runs.

A user's own policy that cannot be loaded does not stop the others: it becomes the failure of its variants.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from kvplan.hwmodels import strictyaml
from kvplan.sim import config as configuration
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.inputs import load_policies
from kvplan.sim.keptunit import unit_of
from kvplan.sim.policies.registry import PolicyError, find, is_users_own, policies
from kvplan.sim.servable import servable
from kvplan.sim.settings import POLICY_PATHS
from kvplan.sim.sweep.axes import Axis, Point, points
from kvplan.sim.sweep.runs import WorkloadKey
from kvplan.traces import Workload

_OF_SESSIONS = "whole sessions in all variants, as some are simulated with those only (store.unit=auto is blocks elsewhere)"


@dataclass(frozen=True)
class Variant:
    """One configuration of the sweep."""

    point: Point
    config: Config
    """Without the policies that could not be loaded."""
    failure: str | None = None
    """Why it cannot run."""
    note: str | None = None
    """What is to be said of it."""

    @property
    def label(self) -> str:
        """Of its point."""
        return self.point.label


def eviction_policies() -> Axis:
    """All packaged eviction policies: what `compare` varies when nobody says what."""
    return Axis(("store.eviction",), tuple((name,) for name in policies("eviction")))


def variants(
    source: Config | str | PathLike[str] | None, overrides: Sequence[str | tuple[str, Any]], axes: Sequence[Axis]
) -> list[Variant]:
    """The variants of a configuration (as `kvplan.sim.config.load` takes it). Raises ConfigError that names the axes' values."""
    load_policies(configuration.load(source, overrides))  # what is wrong without the axes is no fault of theirs
    found = [_variant(source, overrides, point) for point in points(axes)]
    units = {unit_of(variant.config) for variant in found if variant.config.store.unit == "auto"}
    if len(units) < 2:
        return found
    return [_of_sessions(source, overrides, variant) if _is_auto_block(variant) else variant for variant in found]


def _is_auto_block(variant: Variant) -> bool:
    return variant.config.store.unit == "auto" and unit_of(variant.config) == "block"


def _of_sessions(source: Config | str | PathLike[str] | None, overrides: Sequence[str | tuple[str, Any]], variant: Variant) -> Variant:
    """The same with whole sessions, so that it can be laid beside others that need them."""
    return replace(_variant(source, [*overrides, "store.unit=session"], variant.point), note=_OF_SESSIONS)


def _variant(source: Config | str | PathLike[str] | None, overrides: Sequence[str | tuple[str, Any]], point: Point) -> Variant:
    broken = {path: reason for path, value in point.settings if (reason := _cannot_load(path, value))}
    try:
        config = configuration.load(source, [*overrides, *point.overrides(but=broken)])
        resolve(config)
    except ConfigError as error:
        raise ConfigError(f"--vary {' '.join(point.texts)}: {error}") from None
    return Variant(point, config, "; ".join(broken.values()) or None)


def _cannot_load(path: str, value: str) -> str | None:
    """Why a user's own policy cannot be loaded. Whatever its module raises is its failure."""
    name = _parsed(value)
    if path not in POLICY_PATHS or not isinstance(name, str) or not is_users_own(name):
        return None
    try:
        find(POLICY_PATHS[path], name)
    except PolicyError as error:
        return f"{path}={value}: {error}"
    except (Exception, SystemExit) as error:
        return f"{path}={value}: loading it raised {type(error).__name__}: {error}"
    return None


def _parsed(value: str) -> object:
    """What a setting's text says; None where it is no YAML, which loading the configuration reports."""
    try:
        return strictyaml.loads(value)
    except strictyaml.YamlError:
        return None


def read_workloads(found: Sequence[Variant], read: Callable[[Config], Workload] = build_workload) -> dict[str, Workload]:
    """The workload of each variant by label, read or drawn once, checked against its server. Raises ConfigError, TraceError."""
    known: dict[WorkloadKey, Workload] = {}
    workloads = {}
    for variant in found:
        key = WorkloadKey.of(variant.config)
        if key not in known:
            known[key] = read(variant.config)
        try:
            servable(variant.config, known[key])
        except ConfigError as error:
            raise ConfigError(f"--vary {' '.join(variant.point.texts)}: {error}") from None
        workloads[variant.label] = known[key]
    return workloads
