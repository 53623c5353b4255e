"""Logs, ShareGPT dumps and generators, all turned into one table, the Workload. Knows nothing of hardware or simulation.

What reads files is loaded when it is first used (PEP 562): most commands draw their sessions.
"""

from typing import TYPE_CHECKING

from kvplan.traces.workload import TraceError, Workload

if TYPE_CHECKING:
    from kvplan.traces.registry import known_formats, read_trace

__all__ = ["TraceError", "Workload", "known_formats", "read_trace"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kvplan.traces import registry

    return getattr(registry, name)
