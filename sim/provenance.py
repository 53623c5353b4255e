"""Where a result comes from: versions, code, configuration, and the content of everything that was read. Nothing in it changes between two
runs of the same thing, and something does between runs of two things, also when they have the same name."""

import json
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from kvplan import foreign, hwmodels, sim, traces
from kvplan.foreign.files import UnreadableError
from kvplan.sim import enginesets
from kvplan.sim.config import Config
from kvplan.sim.contents import array, content, text
from kvplan.sim.deployment import resolve
from kvplan.sim.inputs import policy_files, workload_files
from kvplan.sim.keptunit import unit_of
from kvplan.sim.settings import POLICY_PATHS
from kvplan.sim.store import tier
from kvplan.traces import Workload

_LIBRARIES = ("numpy", "simpy")
"""Those that random numbers and the order of events come from."""
WORDS = ("cli", "report", "api.py")
"""Parts of `kvplan.sim` that print and draw what others have worked out: these import them (tested), and no run does."""
_COLUMNS = ("session", "prompt_tokens", "output_tokens", "arrival_s", "gap_s", "dropped_tokens")


@cache
def version() -> str:
    """Version of the installed distribution, or of the source tree."""
    try:
        return metadata.version("kvplan")
    except metadata.PackageNotFoundError:
        return "0+source"


def form() -> str:
    """How what runs for every turn does: results are the same bytes either way."""
    return "pure Python" if Path(tier.__file__).suffix == ".py" else "compiled"


__version__ = version()
"""Of the public face: `kvplan.__version__`."""


def sources(config: Config) -> dict[str, Any]:
    """What a run depends on beside its settings: code and libraries, catalogue entries, the workload's files, and users' own policies, by
    the settings that name them. Raises PolicyError, ConfigError, and UnreadableError when a file cannot be read."""
    return {
        **maker(),
        "catalogue_sha256": text(repr(resolve(config))),
        "files_sha256": [content(path) for path in workload_files(config)],
        "policies_sha256": {path: content(*own) for path in POLICY_PATHS if (own := policy_files(config, path))},
    }


def maker() -> dict[str, Any]:
    """Code and libraries: what decides results beside the settings and what they name."""
    return {"libraries": dict(_libraries()), "code_sha256": code()}


@cache
def _libraries() -> tuple[tuple[str, str], ...]:
    """Names and versions: their metadata are read once a process, not once a run."""
    return tuple((name, metadata.version(name)) for name in _LIBRARIES)


def provenance(config: Config, workload: Workload, server: Config | None = None) -> dict[str, Any]:
    """Goes into every summary. A file that is gone since it was read has no digest; the turns that came of it have. `server`: what was
    resolved, where it was not all of the configuration."""
    try:
        found = sources(server or config)
    except UnreadableError:
        found = {}
    return {
        "kvplan": version(),
        "commit": commit(),
        "python": platform.python_version(),
        **found,
        "config_sha256": text(json.dumps(config.resolved(), sort_keys=True)),
        "turns_sha256": _turns(workload),
        "seed": config.seed,
        "engine": enginesets.described(config.resolved(), unit_of(config)),
        "loop": _loop(config, workload),
        "workload": dict(workload.origin),
    }


def _loop(config: Config, workload: Workload) -> str:
    """What decides when turns come."""
    if config.workload.clients is not None:
        return config.workload.clients.named
    return "open" if workload.open_loop else "closed"


@cache
def code() -> str:
    """Digest of kvplan's own files, catalogue and presets included, as they decide results: words of reports and help do not."""
    rooms = [Path(file).parent for file in (foreign.__file__, hwmodels.__file__, sim.__file__, traces.__file__)]
    return content(*rooms, but=[Path(sim.__file__).parent / name for name in WORDS])


@cache
def commit() -> str | None:
    """The git commit of a source tree, or of what pip installed from a repository; None where it is not known. Changes on top of it are
    told by `code`."""
    root = Path(hwmodels.__file__).parent.parent
    if (root / ".git").exists():
        return _head(root)
    try:
        installed = metadata.distribution("kvplan").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(installed or "{}").get("vcs_info", {}).get("commit_id")


def _head(root: Path) -> str | None:
    try:
        asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip()


def _turns(workload: Workload) -> str:
    """Digest of the turns as they are replayed, wherever they come from."""
    tenants = None if workload.tenant is None else [str(name) for name in workload.tenant]
    columns = {name: column for name in _COLUMNS if (column := getattr(workload, name)) is not None}
    if workload.beginnings is not None:
        columns |= {f"beginnings.{name}": getattr(workload.beginnings, name) for name in ("first", "key", "end")}
    return text(json.dumps([workload.open_loop, tenants, {name: array(column) for name, column in columns.items()}]))
