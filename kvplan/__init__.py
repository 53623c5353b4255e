"""kvplan: how many GPUs, and how much DRAM and SSD, an LLM chat service needs for its KV cache.

    >>> import kvplan
    >>> result = kvplan.simulate(kvplan.load("default", {"workload.sessions": 50, "store.dram": "64GB"}))
    >>> result.summary["turns"] > 50
    True
    >>> len(result.to_frame()) == result.summary["turns"]
    True

The public names; they are imported when they are first used (PEP 562), so that `kvplan --help` stays instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names, for type checkers and editors
    from kvplan.hwmodels.catalogue import CatalogueError
    from kvplan.sim.api import Comparison, Curve, compare, curve, plan
    from kvplan.sim.build_workload import build_workload
    from kvplan.sim.config import Config, ConfigError, load
    from kvplan.sim.files.ours import OutputError
    from kvplan.sim.metrics.schema import Summary
    from kvplan.sim.planner.plan import Plan
    from kvplan.sim.policies.base import Batching, Eviction, Load, Prefetch, Router, Scheduler, Step, Write
    from kvplan.sim.policies.supervise import PolicyError
    from kvplan.sim.provenance import __version__
    from kvplan.sim.simulation import Result, simulate
    from kvplan.sim.sweep.pool import SweepError
    from kvplan.traces.registry import read_trace
    from kvplan.traces.workload import TraceError, Workload

_HOMES = {
    "Batching": "sim.policies.base",
    "CatalogueError": "hwmodels.catalogue",
    "Comparison": "sim.api",
    "Config": "sim.config",
    "ConfigError": "sim.config",
    "Curve": "sim.api",
    "Eviction": "sim.policies.base",
    "Load": "sim.policies.base",
    "OutputError": "sim.files.ours",
    "Plan": "sim.planner.plan",
    "PolicyError": "sim.policies.supervise",
    "Prefetch": "sim.policies.base",
    "Result": "sim.simulation",
    "Router": "sim.policies.base",
    "Scheduler": "sim.policies.base",
    "Step": "sim.policies.base",
    "Summary": "sim.metrics.schema",
    "SweepError": "sim.sweep.pool",
    "TraceError": "traces.workload",
    "Workload": "traces.workload",
    "Write": "sim.policies.base",
    "__version__": "sim.provenance",
    "build_workload": "sim.build_workload",
    "compare": "sim.api",
    "curve": "sim.api",
    "load": "sim.config",
    "plan": "sim.api",
    "read_trace": "traces.registry",
    "simulate": "sim.simulation",
}
"""Public name -> the module that defines it."""

__all__ = [
    "Batching",
    "CatalogueError",
    "Comparison",
    "Config",
    "ConfigError",
    "Curve",
    "Eviction",
    "Load",
    "OutputError",
    "Plan",
    "PolicyError",
    "Prefetch",
    "Result",
    "Router",
    "Scheduler",
    "Step",
    "Summary",
    "SweepError",
    "TraceError",
    "Workload",
    "Write",
    "__version__",
    "build_workload",
    "compare",
    "curve",
    "load",
    "plan",
    "read_trace",
    "simulate",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return __all__
