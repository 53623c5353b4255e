"""Hardware, models and prices: from catalogue files to bytes, seconds and dollars. Knows nothing of traces or simulation."""

from hwmodels.catalogue import CatalogueError, load, names
from hwmodels.schema import Gpu, Model, Node, Prices, Ssd
from hwmodels.steptime import StepTime, pipeline_s, roofline

__all__ = [
    "CatalogueError",
    "Gpu",
    "Model",
    "Node",
    "Prices",
    "Ssd",
    "StepTime",
    "load",
    "names",
    "pipeline_s",
    "roofline",
]
