"""The load of a service, and a replica's share of it: sessions per second change, what happens within a session keeps its pace.

Open loops are closed: requests at their recorded times would not wait for answers that come later here, and thinning them would lose hits.
"""

import numpy as np

from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config
from kvplan.traces import Workload
from kvplan.traces.generate.arrivals import Replayed, at_rate

_POPULATION = 2000
"""Sessions that bounds and sizes are worked out from, where they are generated."""
_ENDLESS = {"steady": True, "loop": "closed"}
"""A service goes on: neither its first session nor its last is part of what is measured."""


def population(config: Config) -> Workload:
    """Whole sessions in a closed loop, to take means of. Raises ConfigError and TraceError."""
    return build_workload(_changed(config, sessions=_POPULATION, steady=False, loop="closed"))


def own_rate(config: Config, workload: Workload) -> float:
    """Sessions per second that a configuration asks for, or its trace has."""
    arrival = config.workload.arrival
    if config.workload.trace is None and not isinstance(arrival, Replayed):
        return 1 / arrival.mean_s
    starts = workload.arrival_s[workload.first_turn[:-1]]
    return (workload.sessions - 1) / max(float(np.ptp(starts)), 1e-9)


def share(config: Config, recorded: float, sessions_per_s: float, sessions: int) -> Config:
    """The configuration of one replica that gets so many sessions per second, and so many in all; `recorded` is the rate that it has
    itself.

    A trace is drawn from with replacement, so that a run can be longer than it.
    """
    settings = config.workload
    if settings.trace is None and not isinstance(settings.arrival, Replayed):
        return _changed(config, sessions=sessions, arrival=at_rate(settings.arrival, sessions_per_s), **_ENDLESS)
    faster = {"rate": settings.rescale.rate * sessions_per_s / recorded}
    drawn = {"resample": sessions} if settings.trace is not None else {}
    return _changed(config, sessions=sessions, rescale=settings.rescale.model_copy(update=faster | drawn), **_ENDLESS)


def _changed(config: Config, **settings) -> Config:
    return config.model_copy(update={"workload": config.workload.model_copy(update=settings)})
