"""A name for a run that changes whenever its numbers could: configuration, seed, kvplan's version and code, catalogue
entries, content of the workload's files and of users' own policies."""

import json

from kvplan.sim.config import Config
from kvplan.sim.contents import text
from kvplan.sim.provenance import sources, version


def digest(config: Config, **more: object) -> str:
    """Of the run of a configuration, and of what `more` it depends on: 16 hexadecimal digits. Raises PolicyError, and UnreadableError when
    a file cannot be read."""
    return text(json.dumps({"kvplan": version(), "config": config.resolved(), **sources(config), **more}, sort_keys=True))
