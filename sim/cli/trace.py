"""`kvplan trace describe | convert | generate`."""

import sys
from pathlib import Path

from hwmodels import catalogue, kvsize
from sim import config as configuration
from sim.cli.progress import progress, turns_of
from sim.engine.plant import plant
from sim.report import rundir, trace
from traces.describe import describe as described
from traces.formats import canonical


def describe(overrides: list[str], ttl_s: float, json: bool, figure: Path | None) -> None:
    """Prints what a trace, or a generated workload, means to a planner."""
    loaded = configuration.load(None, overrides)
    model = catalogue.load("model", loaded.model, loaded.catalogue)
    if figure is not None:
        rundir.check_file(figure)
    workload = turns_of(loaded, any_length=True)
    window = loaded.deployment.window_tokens or model.max_position_embeddings
    with progress("describing") as report:
        found = described(workload, kvsize.kv_bytes_per_token(model), window, ttl_s, report)
    if figure is not None:
        rundir.write_file(figure, lambda path: trace.draw(workload, found, path))
    if json:
        sys.stdout.write(rundir.dumps(found))
    else:
        trace.print_description(found, model.name)
    if figure is not None:
        print(f"wrote {figure}", file=sys.stderr)


def convert(overrides: list[str], out: Path) -> None:
    """Reads a trace, rescales it as the configuration says, and writes it as kvplan's own table."""
    _write(turns_of(configuration.load(None, overrides), any_length=True, timed=False), out)


def generate(config: str | None, overrides: list[str], out: Path) -> None:
    """Writes the workload of a configuration."""
    loaded = configuration.load(config, overrides)
    plant(loaded)
    _write(turns_of(loaded), out)


def _write(workload, out: Path) -> None:
    rundir.check_file(out)
    rundir.write_file(out, lambda path: canonical.write(workload, path))
    loop = "untimed" if not workload.arrivals_known else "open loop" if workload.open_loop else "closed loop"
    print(f"wrote {out}: {workload.turns:,} turns of {workload.sessions:,} sessions, {loop}", file=sys.stderr)
