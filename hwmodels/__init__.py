"""Hardware, models and prices: from catalogue files to bytes, seconds and dollars. Knows nothing of traces or simulation.

Public names are imported when they are first used (PEP 562), so that `kvplan.hwmodels.strictyaml` needs PyYAML only: GPU boxes on which
`kvplan validate measure` runs may have no pydantic.
"""

from importlib import import_module

_HOMES = {
    "Calibration": "calibration",
    "CatalogueError": "catalogue",
    "Connection": "connector",
    "Gpu": "schema",
    "Link": "schema",
    "Model": "schema",
    "Node": "schema",
    "Prices": "schema",
    "Ssd": "schema",
    "StepTime": "steptime",
    "connect": "connector",
    "host_bandwidth": "node",
    "load": "catalogue",
    "names": "catalogue",
    "pipeline_s": "steptime",
    "roofline": "datasheet",
    "ssd_bandwidth": "node",
    "step_time": "steps",
}
"""Public name -> the module that defines it."""

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
