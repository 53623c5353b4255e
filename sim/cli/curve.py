"""`kvplan curve`."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kvplan.sim import config as configuration
from kvplan.sim.cli.compare import check_places, measured, report_failures
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.config import ON_DEVICE, ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.files.atomic import write_file
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs, load_policies
from kvplan.sim.replay.blockcurve import block_curve, why_sessions
from kvplan.sim.report import blockcurve_account, curves
from kvplan.sim.report.curve_account import account
from kvplan.sim.sweep.compare import Question
from kvplan.sim.sweep.curve import POLICIES, TIER, prepare_curves
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.runs import Outcome

_REPLICATIONS = 5


def run(
    config: str | None,
    overrides: Sequence[str],
    tier: str | None,
    sizes: str | None,
    policies: str | None,
    replications: int | None,
    jobs: int | None,
    cluster: str | None,
    out: Path | None,
    figure: Path | None,
    json: bool,
    resample: bool,
) -> None:
    """Simulates every policy at every size, or replays blocks; prints, draws and writes the curves. Exit code 1 when a run failed."""
    loaded = configuration.load(config, overrides)
    why = why_sessions(loaded, tier)
    if why is None:
        _refuse_with_blocks(replications=replications, jobs=jobs, cluster=cluster)
        check_places(out, figure, inputs(config, loaded, runs=False))
        with progress("replaying", "replays") as report:
            curve = block_curve(loaded, tier, _names(sizes), _names(policies), turns_of, report)
        _deliver(blockcurve_account.account(curve), out, figure, json)
        return
    question, tier = Question(config, tuple(overrides), replications=replications or _REPLICATIONS, resample=resample), tier or TIER
    if tier == ON_DEVICE:
        raise ConfigError(f"--tier hbm: this curve is of whole sessions ({why}); its size varies with --unit block")
    load_policies(loaded)
    resolve(loaded)  # what cannot run is refused first
    check_places(out, figure, inputs(config, loaded))
    asked = prepare_curves(question, tier, _names(sizes), _names(policies) or POLICIES, turns_of)
    records = KeptRuns(out, Outcome)
    compared = measured(asked.sweep, records, jobs, cluster)
    found = account(asked, compared)
    if compared["variants"]:
        _deliver(found, out, figure, json)
    report_failures(found, records)


def _refuse_with_blocks(**given: object) -> None:
    """What only simulations need. Raises ConfigError."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(f"--{name} goes with --unit session: a curve of blocks is one replay, and takes seconds")


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _deliver(found: dict, out: Path | None, figure: Path | None, json: bool) -> None:
    def show() -> None:
        if json:
            sys.stdout.write(dumps(found))
        else:
            curves.print_curve(found)

    draw = partial(curves.words(found).draw, found)
    deliver(show, (out, partial(curves.write_curve, found)), (figure, partial(write_file, write=draw)))
