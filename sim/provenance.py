"""Where a result comes from: versions, configuration, inputs. Nothing in it changes between two runs of the same thing."""

import hashlib
import json
import platform
from importlib import metadata

from kvplan.sim.config import Config
from kvplan.traces import Workload


def version() -> str:
    """Version of the installed distribution, or of the source tree."""
    try:
        return metadata.version("kvplan")
    except metadata.PackageNotFoundError:
        return "0+source"


__version__ = version()
"""Of the public face: `kvplan.__version__`."""


def provenance(config: Config, workload: Workload) -> dict:
    """Goes into every summary."""
    resolved = json.dumps(config.resolved(), sort_keys=True)
    return {
        "kvplan": version(),
        "python": platform.python_version(),
        "config_sha256": hashlib.sha256(resolved.encode()).hexdigest()[:16],
        "seed": config.seed,
        "loop": "open" if workload.open_loop else "closed",
        "workload": dict(workload.origin),
    }
