"""`plan(question) -> Plan`: for each store the fewest replicas that meet the objectives, what they cost, and which is cheapest.

Load is scaled by sessions per second: a replica of N gets 1/N of them, with think times as they are. A replica has its own store, and a
session stays with its replica.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kvplan.hwmodels.cost import usd_per_s
from kvplan.sim.config import Config
from kvplan.sim.engine.plant import plant
from kvplan.sim.engine.workload import build_workload
from kvplan.sim.planner import bounds
from kvplan.sim.planner.flags import Sizes
from kvplan.sim.planner.probe import Probe, Seen, look, mean_session, sessions_for
from kvplan.sim.planner.question import Option, Question, options
from kvplan.sim.planner.search import Fewest, Point, fewest
from kvplan.sim.sweep.pool import Pool
from kvplan.sim.sweep.runs import replicated
from kvplan.traces import Workload

HOURS_A_MONTH = 730.0
_POPULATION = 2000
"""Sessions that bounds and sizes are worked out from."""


@dataclass(frozen=True)
class Answer:
    """One kind of store and what it takes."""

    option: Option
    found: Fewest
    gpus: int
    """Of one replica."""
    usd_per_month: dict[str, float]
    """Of one replica: gpu, dram, ssd."""
    fills: bool
    """Whether the simulated sessions fill the tiers."""
    sizes: Sizes
    """Of one replica: what its engine is told (`kvplan.sim.planner.flags`)."""

    @property
    def replicas(self) -> int | None:
        """None: it cannot meet the objectives."""
        return self.found.replicas

    @property
    def point(self) -> Point | None:
        """What was seen at that number."""
        return None if self.replicas is None else self.found.at(self.replicas)

    @property
    def cost_usd_per_month(self) -> float | None:
        """Of all replicas."""
        return None if self.replicas is None else self.replicas * sum(self.usd_per_month.values())

    def figure(self, key: str) -> float | None:
        """A figure of the summary at the answer, mean over its runs."""
        values = [] if self.point is None else [seen.figures[key] for seen in self.point.seen if key in seen.figures]
        return float(np.mean(values)) if values else None

    @property
    def load_factor(self) -> tuple[float, float] | None:
        """How much of the load its replicas bear: surely, and surely not, by the numbers of replicas that were looked at."""
        if self.replicas is None:
            return None
        below = [point.replicas for point in self.found.points if point.replicas < self.replicas and not point.within]
        return 1.0, self.replicas / max(below) if below else float("inf")


@dataclass(frozen=True)
class Plan:
    """The answer to a question."""

    question: Question
    sessions_per_s: float
    answers: tuple[Answer, ...]
    simulations: int
    config: Config
    """Of the first baseline."""

    @property
    def cheapest(self) -> Answer | None:
        """The least dollars of those that meet the objectives; of equals the one with fewer GPUs, then the smaller store."""
        feasible = [answer for answer in self.answers if answer.replicas is not None]
        return min(feasible, key=lambda answer: (answer.cost_usd_per_month, answer.replicas * answer.gpus), default=None)

    def to_frame(self):
        """One row per option, as a pandas DataFrame."""
        import pandas as pd

        return pd.DataFrame([row(answer) for answer in self.answers])


def row(answer: Answer) -> dict[str, Any]:
    """An option's figures, flat."""
    return {
        "option": answer.option.label,
        "baseline": answer.option.baseline,
        "replicas": answer.replicas,
        "gpus": None if answer.replicas is None else answer.replicas * answer.gpus,
        "usd_per_month": answer.cost_usd_per_month,
        "ttft_p95_s": answer.figure("ttft_s.p95"),
        "token_hit_rate": answer.figure("hit_rate.tokens"),
        "reason": answer.found.reason,
    }


def plan(question: Question, pool: Pool | None = None, progress: Callable[[int, int], None] = lambda done, total: None) -> Plan:
    """Answers it. `progress(done, so far known)` counts simulations. Raises ConfigError, TraceError, PolicyError."""
    pool = pool or Pool()
    asked = options(question)
    base = question.config(asked[0])
    population = _population(base)
    rate = question.sessions_per_s or _rate(base)
    searches = [_Side(question, option, population, rate) for option in asked]
    simulations = _drive(searches, pool, progress)
    return Plan(question, rate, tuple(side.answer() for side in searches), simulations, base)


def _population(config: Config) -> Workload:
    """Whole sessions to take means of."""
    settings = config.workload.model_copy(update={"sessions": _POPULATION, "steady": False})
    return build_workload(config.model_copy(update={"workload": settings}))


def _rate(config: Config) -> float:
    """Sessions per second that the workload itself has."""
    workload = build_workload(config.model_copy(update={"workload": config.workload.model_copy(update={"steady": False})}))
    starts = workload.arrival_s[workload.first_turn[:-1]]
    return (workload.sessions - 1) / float(np.ptp(starts))


class _Side:
    """The search for one option: its probes, and what it makes of what they gave."""

    def __init__(self, question: Question, option: Option, population: Workload, rate: float) -> None:
        self._question, self._option, self._rate = question, option, rate
        self._config = question.config(option)
        self._built = built = plant(self._config, population)
        self._mean_bytes, self._turns = mean_session(self._config, population)
        self.found: Fewest | None = None
        self._fills = True
        reasons = [bounds.too_slow_when_empty(self._config, built, population, each) for each in question.objectives]
        reason = next((each for each in reasons if each), None)
        if reason is not None:
            self.found = Fewest(None, (), reason)
            return
        least = bounds.least_replicas(self._config, built, population, rate)
        self._search = fewest(question.objectives, least, least, question.most_replicas, question.replications)

    def begin(self) -> list[tuple[int, int]]:
        """The first probes that it wants."""
        return [] if self.found is not None else next(self._search)

    def go_on(self, seen: Sequence[Seen]) -> list[tuple[int, int]]:
        """The next ones; none when it has found its answer."""
        try:
            return self._search.send(list(seen))
        except StopIteration as end:
            self.found = end.value
            return []

    def probe(self, replicas: int, replication: int) -> Probe:
        """Of one replica of so many."""
        config = _loaded(self._config, self._rate / replicas)
        most = self._question.most_sessions
        count, fills = sessions_for(config, self._mean_bytes, self._turns, self._question.measured_turns, most)
        self._fills &= fills
        workload = config.workload.model_copy(update={"sessions": count})
        config = replicated(config.model_copy(update={"workload": workload}), replication, None)
        return Probe(config, self._question.objectives, self._question.measured_turns)

    def answer(self) -> Answer:
        """What was found, and its cost."""
        built = self._built
        sizes = {name: size for name, size, _ in built.tiers}
        rates = usd_per_s(built.prices, built.gpu.name, built.gpus, sizes.get("dram", 0), sizes.get("ssd", 0), built.terms)
        month = {name: value * 3600 * HOURS_A_MONTH for name, value in rates.items()}
        return Answer(self._option, self.found, built.gpus, month, self._fills, Sizes.of(built))


def _loaded(config: Config, sessions_per_s: float) -> Config:
    """The configuration at so many sessions per second."""
    arrival = config.workload.arrival
    changed = arrival.model_copy(update={"rate_per_s": sessions_per_s})
    return config.model_copy(update={"workload": config.workload.model_copy(update={"arrival": changed})})


def _drive(sides: Sequence[_Side], pool: Pool, progress: Callable[[int, int], None]) -> int:
    """Runs all searches through the pool, each going on as soon as what it wants is there. Returns how many simulations it took."""
    waiting: dict[int, dict[int, Seen | None]] = {}
    sent = done = 0

    def send(side: int, wanted: list[tuple[int, int]]) -> None:
        nonlocal sent
        waiting[side] = dict.fromkeys(range(len(wanted)))
        for place, (replicas, replication) in enumerate(wanted):
            pool.submit((side, place), look, sides[side].probe(replicas, replication))
            sent += 1

    for number, side in enumerate(sides):
        send(number, side.begin())
    while done < sent:
        (number, place), seen = pool.next()
        done += 1
        waiting[number][place] = seen
        if all(each is not None for each in waiting[number].values()):
            send(number, sides[number].go_on(list(waiting[number].values())))
        progress(done, sent)
    return done
