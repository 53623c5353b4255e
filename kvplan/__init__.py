"""kvplan: how many GPUs, and how much DRAM and SSD, an LLM chat service needs for its KV cache.

    >>> import kvplan
    >>> result = kvplan.simulate(kvplan.load("default", {"workload.sessions": 50}))
    >>> result.summary["turns"] > 50
    True

The public names; they are imported when they are first used (PEP 562), so that `kvplan --help` stays instant.
"""

from importlib import import_module

_HOMES = {
    "Config": "sim.config",
    "Result": "sim.engine.run",
    "Workload": "traces.workload",
    "build_workload": "sim.engine.workload",
    "load": "sim.config",
    "simulate": "sim.engine.run",
}
"""Public name -> the module that defines it."""

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
