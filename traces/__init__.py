"""Logs, ShareGPT dumps and generators, all turned into one table, the Workload. Knows nothing of hardware or simulation."""

from kvplan.traces.registry import known_formats, read_trace
from kvplan.traces.workload import TraceError, Workload

__all__ = ["TraceError", "Workload", "known_formats", "read_trace"]
