"""Hardware, models and prices: from catalogue files to bytes, seconds and dollars. Knows nothing of traces or simulation."""

from hwmodels.catalogue import CatalogueError, load, names
from hwmodels.node import host_bandwidth, ssd_bandwidth
from hwmodels.schema import Gpu, Link, Model, Node, Prices, Ssd
from hwmodels.steptime import StepTime, pipeline_s, roofline

__all__ = [
    "CatalogueError",
    "Gpu",
    "Link",
    "Model",
    "Node",
    "Prices",
    "Ssd",
    "StepTime",
    "host_bandwidth",
    "load",
    "names",
    "pipeline_s",
    "roofline",
    "ssd_bandwidth",
]
