"""`kvplan trace describe | convert | generate`."""

import sys
from collections.abc import Iterable
from pathlib import Path

from kvplan.hwmodels import catalogue, kvsize
from kvplan.sim import config as configuration
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.cli.talk import say
from kvplan.sim.engine.plant import plant
from kvplan.sim.files.atomic import write_file
from kvplan.sim.files.ours import check_file
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs
from kvplan.sim.report import picture, trace
from kvplan.traces import Workload, origin
from kvplan.traces.describe import describe as described
from kvplan.traces.formats import canonical


def describe(overrides: list[str], ttl_s: float, json: bool, figure: Path | None) -> None:
    """Prints what a trace, or a generated workload, means to a planner."""
    loaded = configuration.load(None, overrides)
    model = catalogue.load("model", loaded.model, loaded.catalogue)
    if figure is not None:
        picture.check(figure, inputs(None, loaded, runs=False))
    workload = turns_of(loaded, any_length=True)
    window = loaded.deployment.window_tokens or model.max_position_embeddings
    with progress("describing") as report:
        found = described(workload, kvsize.kv_bytes_per_token(model), window, ttl_s, report, loaded.deployment.truncation_ratio)

    def show() -> None:
        if json:
            sys.stdout.write(dumps(found))
        else:
            trace.print_description(found, model.name)

    deliver(show, (figure, lambda: write_file(figure, lambda path: trace.draw(workload, found, path))))


def convert(overrides: list[str], out: Path) -> None:
    """Reads a trace, rescales it as the configuration says, and writes it as kvplan's own table."""
    loaded = configuration.load(None, overrides)
    _check_table(out, inputs(None, loaded, runs=False))
    _write(turns_of(loaded, any_length=True, timed=False), out)


def generate(config: str | None, overrides: list[str], out: Path) -> None:
    """Writes the workload of a configuration."""
    loaded = configuration.load(config, overrides)
    plant(loaded)
    _check_table(out, inputs(config, loaded, runs=False))
    _write(turns_of(loaded), out)


def _check_table(out: Path, read: Iterable[Path]) -> None:
    """Before long work: that the table can be written there. Raises OutputError and TraceError."""
    check_file(out, read)
    canonical.check_name(out)


def _write(workload: Workload, out: Path) -> None:
    write_file(out, lambda path: canonical.write(workload, path))
    say(f"wrote {out}: {workload.turns:,} turns of {workload.sessions:,} sessions, {_times(workload)}")
    for warning in origin.warnings(workload.origin):
        say(f"! {warning}")


def _times(workload: Workload) -> str:
    if not workload.arrivals_known:
        return "untimed: what is missing is drawn when it is replayed"
    return "open loop" if workload.open_loop else "closed loop"
