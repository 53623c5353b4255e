"""Settings of a case -> figures: a simulation's summary, or one batch by the layer pipeline. Runs that several figures share are made once.

`what_if` changes what no setting does, of one replica: `compute` makes arithmetic of prefills so many times as long and leaves decoding as
it is, `attention` that of their attention alone, `reads` the reading of weights and KV by a step, `host_link` and `ssd` are factors of
bandwidth, and `capacity` is the share of each tier that can be used, where all of it is paid.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from kvplan.hwmodels import StepTime, pipeline_s
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config, load
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.engine import service
from kvplan.sim.metrics.output import RunInput, RunOutput
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.pool import Failed, pool
from kvplan.traces import Workload
from kvplan.traces.workload import untimed
from kvplan.validate.published.cases import FOLDER, Settings

Found = Mapping[str, Any]
"""A summary, or what stands for one."""
Figures = dict[str, Found | Failed]
"""By `key` of the settings."""


def key(settings: Settings) -> str:
    """The same for the same run."""
    return json.dumps(settings, sort_keys=True)


def run_all(
    wanted: Iterable[Settings],
    jobs: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    found: Figures | None = None,
) -> Figures:
    """Of each the figures, or why there are none; `found` has those that are known already, and is filled."""
    figures = {} if found is None else found
    todo = {key(settings): settings for settings in wanted if key(settings) not in figures}
    with pool(jobs, most=len(todo) or 1) as workers:
        for name, settings in todo.items():
            workers.submit(name, one, settings)
        for done in range(len(todo)):
            name, figures[name] = workers.next()
            progress(done + 1, len(todo))
    return figures


def one(settings: Settings) -> Found:
    """The figures of a run. Raises what `simulate` does."""
    plain = {path: value for path, value in settings.items() if path not in _WORDS}
    if "catalogue" in plain:
        plain["catalogue"] = str(FOLDER / plain["catalogue"])
    config = load(settings.get("preset"), plain)
    changed = partial(_changed, what_if=settings.get("what_if", {}))
    if "pipeline" in settings:
        return _pipelined(changed(resolve(config)), **settings["pipeline"])
    mixed = settings.get("order", "listed") == "mixed"
    workload = _requested(settings["requests"], mixed) if "requests" in settings else _built(_key_of_workload(config), config)
    return dict(simulate(config, workload, engine=lambda given: _engine(given, changed)).summary)


_WORDS = ("preset", "requests", "order", "pipeline", "what_if")


def _engine(given: RunInput, changed: Callable[[Deployment], Deployment]) -> RunOutput:
    return service.run_service(replace(given, deployment=changed(given.deployment)))


def _changed(deployment: Deployment, what_if: Mapping[str, float]) -> Deployment:
    if unknown := set(what_if) - {"compute", "attention", "reads", "host_link", "ssd", "capacity"}:
        raise ValueError(f"what_if knows no {', '.join(sorted(unknown))}")
    steps = _steps(deployment.steps, what_if.get("compute", 1.0), what_if.get("attention", 1.0), what_if.get("reads", 1.0))
    host, drives = (
        links.times(what_if.get(name, 1.0)) for links, name in ((deployment.host, "host_link"), (deployment.drive_links, "ssd"))
    )
    share = what_if.get("capacity", 1.0)
    tiers = tuple(replace(tier, capacity=int(share * tier.capacity), reserve=int(share * tier.reserve)) for tier in deployment.tiers)
    return replace(deployment, steps=steps, host=host, drive_links=drives, tiers=tiers)


def _steps(steps: StepTime, compute: float, attention: float, reads: float) -> StepTime:
    """What a token of a decode step costs is the sum of `per_token` and `per_request`, so that the one can grow at the other's expense."""
    return replace(
        steps,
        fixed=reads * steps.fixed,
        per_context=reads * steps.per_context,
        per_token=compute * steps.per_token,
        per_pair=compute * attention * steps.per_pair,
        per_request=steps.per_request - (compute - 1) * steps.per_token,
    )


def _pipelined(deployment: Deployment, batch: int, history: int, new: int, preloaded: int | None) -> Found:
    """Seconds of a prefill of `batch` jobs together; `preloaded`: layers of their history that are in HBM when it starts, None where all is
    loaded first."""
    layers, steps = deployment.steps.layers, deployment.steps
    compute = steps.step([(new, history)] * batch)
    load = batch * deployment.stored(history) / deployment.host.read_bytes_per_s
    piped = compute + load if preloaded is None else pipeline_s(layers, compute / layers, load / layers, preloaded)
    return {"batch_prefill_s": piped, "compute_s": compute, "load_s": load}


def _key_of_workload(config: Config) -> str:
    """Of what a generated workload rests on: all but the store."""
    return key({name: value for name, value in config.resolved().items() if name in ("workload", "seed", "model", "deployment")})


_kept: dict[str, Workload] = {}


def _built(name: str, config: Config) -> Workload:
    """The workload of a configuration; the last one is kept, since runs that share one follow each other."""
    if name not in _kept:
        _kept.clear()
        _kept[name] = build_workload(config)
    return _kept[name]


_APART_S = 1e-6
"""Between requests of one time, so that they come in their order."""


def _requested(groups: list[dict[str, Any]], mixed: bool) -> Workload:
    """Sessions in full, at their own times: `count` sessions, each with `turns` of [sent at, prompt, answer]; groups follow each other, or
    are mixed evenly."""
    places = [((number + 0.5) / group["count"], group["turns"]) for group in groups for number in range(group["count"])]
    each = [turns for _, turns in (sorted(places, key=lambda place: place[0]) if mixed else places)]
    at_s, prompts, answers = np.array([turn for turns in each for turn in turns], float).T
    session = np.repeat(np.arange(len(each)), [len(turns) for turns in each])
    table = untimed(session, prompts, answers)
    return replace(table, arrival_s=at_s + _APART_S * session, gap_s=np.zeros(len(at_s)), open_loop=True)
