"""`plan(question) -> Plan`: for each store the fewest replicas that meet the objectives, what they cost, and which is cheapest.

Load is scaled by sessions per second: a replica of N gets 1/N of them, with think times as they are. A replica has its own store, and a
session stays with its replica.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kvplan.sim.config import ON_DRIVES, Config, ConfigError
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.planner import bounds, load
from kvplan.sim.planner.confirmed import Confirmed
from kvplan.sim.planner.filling import Filling
from kvplan.sim.planner.flags import Sizes
from kvplan.sim.planner.headroom import Bearing
from kvplan.sim.planner.money import MONTH_S, Demand, Wear, demand, wear, wear_usd_per_s
from kvplan.sim.planner.probe import Probe, Seen, look, sessions_for, ttft_p95_s
from kvplan.sim.planner.question import Option, Question, options
from kvplan.sim.planner.scenario import near
from kvplan.sim.planner.search import Fed, Fewest, Point, fewest
from kvplan.sim.planner.surely import Surely
from kvplan.sim.servable import servable
from kvplan.sim.sweep.pool import Failed, Pool
from kvplan.sim.sweep.runs import replicated
from kvplan.traces import Workload

if TYPE_CHECKING:
    from kvplan.sim.planner.sensitivity import Robust


@dataclass(frozen=True)
class Met:
    """What it takes to meet the objectives, all replicas together."""

    replicas: int
    gpus: int
    usd_per_month: float
    headroom: tuple[float, float | None]
    """Loads, times the one asked for, that the replicas bear, and no longer bear; None where nothing says when they no longer do."""


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
    config: Config
    """Of one replica; so are the next two."""
    deployment: Deployment
    wear: Wear | None
    """At the answer; None without drives, or without an answer."""
    unloaded: tuple[float, ...] = ()
    """Per objective, the best that any number of replicas can give (`bounds.unloaded`)."""
    borne: tuple[float, float | None] | None = None
    """Loads, times the one asked for, that its replicas bear and no longer bear, where that was looked at."""

    @property
    def replicas(self) -> int | None:
        """None: it cannot meet the objectives."""
        return self.found.replicas

    @property
    def met(self) -> Met | None:
        """What it takes; None: it cannot meet the objectives."""
        count = self.replicas
        if count is None:
            return None
        return Met(count, count * self.gpus, count * sum(self.usd_per_month.values()), self.borne or self._bounds(count))

    @property
    def point(self) -> Point | None:
        """What was seen at that number."""
        return None if self.replicas is None else self.found.at(self.replicas)

    @property
    def seen(self) -> tuple[Seen, ...]:
        """The runs at that number; none without an answer."""
        return () if self.point is None else self.point.seen

    @property
    def all_gpus(self) -> int | None:
        """Of all replicas."""
        return None if self.met is None else self.met.gpus

    @property
    def cost_usd_per_month(self) -> float | None:
        """Of all replicas."""
        return None if self.met is None else self.met.usd_per_month

    def figure(self, key: str) -> float | None:
        """A figure of the summary at the answer, mean over its runs."""
        values = [seen.figures[key] for seen in self.seen if key in seen.figures]
        return float(np.mean(values)) if values else None

    @property
    def ttft_p95_s(self) -> float | None:
        """At the answer, of all turns of its runs."""
        return ttft_p95_s(self.seen)

    @property
    def headroom(self) -> tuple[float, float | None] | None:
        """As `Met` has it."""
        return None if self.met is None else self.met.headroom

    def _bounds(self, replicas: int) -> tuple[float, float | None]:
        """What the search alone says of the load that they bear."""
        below = [point.replicas for point in self.found.points if point.replicas < replicas and not point.within]
        return 1.0, replicas / max(below) if below else None


@dataclass(frozen=True, repr=False)
class Plan:
    """The answer to a question."""

    question: Question
    sessions_per_s: float
    answers: tuple[Answer, ...]
    simulations: int
    config: Config
    """Of the first baseline."""
    demand: Demand
    workload: Workload
    """Whole sessions, from which bounds, sizes and demand were worked out."""
    refused: tuple[tuple[Option, str], ...] = ()
    """Options that cannot be built, and why."""
    robust: "Robust | None" = None
    """What else may be true (`kvplan.sim.planner.sensitivity`), where that was asked for."""

    @property
    def cheapest(self) -> Answer | None:
        """The least dollars of those that meet the objectives; of equals the one with fewer GPUs, then the smaller store; a pool of blocks
        is free, and comes before keeping nothing."""
        feasible = [answer for answer in self.answers if answer.replicas is not None]
        return min(feasible, key=rank, default=None)

    @property
    def of_blocks(self) -> bool:
        """Whether its stores are of blocks that sessions share."""
        return any(answer.deployment.pooled for answer in self.answers)

    def to_frame(self):
        """One row per option, as a pandas DataFrame."""
        import pandas as pd

        refused = [{"option": option.label, "baseline": False, "reason": reason} for option, reason in self.refused]
        return pd.DataFrame([*map(row, self.answers), *refused])

    @property
    def data(self) -> dict[str, Any]:
        """What `kvplan plan --json` prints: options with costs, intervals, points and flags, and the answer in words."""
        from kvplan.sim.report import plan as report

        return report.data(self)

    def __repr__(self) -> str:
        from kvplan.sim.report import plan as report

        return f"<Plan: {report.title(self)}>"

    def _repr_html_(self) -> str:
        """For notebooks: what `kvplan plan` prints."""
        from kvplan.sim.report import plan as report

        return report.html(self)


def rank(answer: Answer) -> tuple[float, int, int, bool]:
    """What the cheapest has least of: dollars to the cent, then GPUs, then bytes of store; what meets no objectives comes last, and of
    equals what has no pool."""
    usd, gpus = (math.inf, 0) if answer.met is None else (answer.met.usd_per_month, answer.met.gpus)
    return round(usd, 2), gpus, answer.deployment.aside, not answer.deployment.pooled


def row(answer: Answer) -> dict[str, Any]:
    """An option's figures, flat."""
    return {
        "option": answer.option.label,
        "baseline": answer.option.baseline,
        "replicas": answer.replicas,
        "gpus": answer.all_gpus,
        "usd_per_month": answer.cost_usd_per_month,
        "ttft_p95_s": answer.ttft_p95_s,
        "token_hit_rate": answer.figure("hit_rate.tokens"),
        "reason": answer.found.reason,
    }


def plan(question: Question, pool: Pool | None = None, progress: Callable[[int, int], None] = lambda done, total: None) -> Plan:
    """Answers it. `progress(done, so far known)` counts simulations. Raises ConfigError, TraceError, PolicyError."""
    pool = pool or Pool()
    asked = options(question)
    base = question.config(asked[0])
    population = load.population(base)
    rate = question.sessions_per_s or load.own_rate(base, population)
    searches, refused = _sides(question, asked, population, rate)
    simulations = drive(searches, pool, progress)
    asked_for = demand(base, resolve(base, population), population, rate)
    found = Plan(question, rate, tuple(side.answer() for side in searches), simulations, base, asked_for, population, refused)
    return _surely(_confirmed(found, searches, pool, progress), searches, pool, progress)


def _sides(
    question: Question, asked: Sequence[Option], population: Workload, rate: float
) -> tuple[list["Side"], tuple[tuple[Option, str], ...]]:
    """The searches, and what cannot be built and why. Raises ConfigError for a baseline, and for settings that are none."""
    sides, refused = [], []
    for option in asked:
        question.config(option)
        try:
            sides.append(Side(question, option, population, rate))
        except ConfigError as error:
            if option.baseline:
                raise
            refused.append((option, str(error)))
    return sides, tuple(refused)


def _confirmed(found: Plan, sides: Sequence["Side"], pool: Pool, progress: Callable[[int, int], None]) -> Plan:
    """The same, whose cheapest rests on more runs. They may ask for more replicas, or make another the cheapest; then again."""
    question, settled = found.question, set[int]()
    while (best := found.cheapest) and (place := found.answers.index(best)) not in settled:
        confirmed = Confirmed(sides[place], question.objectives, best.found, question.most_replicas)
        simulations = drive([confirmed], pool, _after(found, progress))
        sides[place].found = confirmed.found
        answer = sides[place].answer()
        if answer.replicas == best.replicas:
            settled.add(place)
        answers = [*found.answers[:place], answer, *found.answers[place + 1 :]]
        found = replace(found, answers=tuple(answers), simulations=found.simulations + simulations)
    return found


def _after(found: Plan, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Progress of what comes after the simulations that were done."""
    return lambda done, sent: progress(found.simulations + done, found.simulations + sent)


def _surely(found: Plan, sides: Sequence["Side"], pool: Pool, progress: Callable[[int, int], None]) -> Plan:
    """The same, with the load that the cheapest still bears, and the replicas that it is at most."""
    question, best = found.question, found.cheapest
    if best is None or best.met is None:
        return found
    place = found.answers.index(best)
    bearing = Bearing(sides[place], question.objectives, best.met.replicas, best.met.headroom)
    surely = Surely(sides[place], question.objectives, best.found, question.most_replicas, question.replications)
    simulations = drive([bearing, surely], pool, _after(found, progress))
    answer = replace(best, found=surely.found, borne=bearing.found)
    answers = [*found.answers[:place], answer, *found.answers[place + 1 :]]
    return replace(found, answers=tuple(answers), simulations=found.simulations + simulations)


class Side(Fed):
    """The search for one option: its probes, and what it makes of what they gave."""

    def __init__(self, question: Question, option: Option, population: Workload, rate: float, start: int | None = None) -> None:
        """Where it is known about how many it takes, the search begins at `start`, with one run a probe."""
        self._question, self._option, self._rate = question, option, rate
        self._config = question.config(option)
        self._recorded = load.own_rate(self._config, population)
        self._deployment = deployment = servable(self._config, population)
        self._filling, self._turns = Filling(self._config, deployment, population), population.turns / population.sessions
        self._fills = True
        self._unloaded = tuple(bounds.unloaded(self._config, deployment, population, each) for each in question.objectives)
        reasons = map(bounds.out_of_reach, question.objectives, self._unloaded)
        reason = next((each for each in reasons if each), None)
        self.found = Fewest(None, (), reason)
        """Nothing before the search has ended."""
        if reason is not None:
            return
        least = bounds.least_replicas(self._config, deployment, population, rate)
        aims, most = question.objectives, question.most_replicas
        if start is None:
            self._search = fewest(aims, bounds.likely(least), least, most, question.replications)
        else:
            self._search = near(aims, start, least, most)

    def begin(self) -> list[tuple[int, int]]:
        """The first probes that it wants."""
        return next(self._search) if self.found.reason is None else []

    def fail(self, reason: str) -> None:
        """A run could not be done."""
        self.found = Fewest(None, (), reason, failed=True)

    def probe(self, replicas: float, replication: int) -> Probe:
        """Of one replica of so many; not a whole number for another load than the one asked for."""
        question, rate = self._question, self._rate / replicas
        count, fills = sessions_for(self._filling, rate, self._turns, question.measured_turns, question.most_sessions)
        self._fills &= fills
        config = load.share(self._config, self._recorded, rate, count)
        return Probe(replicated(config, replication, None), question.objectives, question.measured_turns)

    def answer(self) -> Answer:
        """What was found, and its cost."""
        sizes = Sizes.of(self._deployment)
        found = Answer(
            self._option, self.found, self._deployment.gpus, {}, self._fills, sizes, self._config, self._deployment, None, self._unloaded
        )
        written = found.figure("ssd_wear.bytes_per_day")
        worn = None if written is None else wear(self._config, self._deployment, written)
        if worn is not None and worn.too_short and self._config.cost.worn_drives == "refuse":
            reason = f"its drives wear out after {worn.years:.2g} years, within the horizon of {worn.horizon_years:g}"
            found = replace(found, found=replace(self.found, replicas=None, reason=reason))
        busy = found.figure("gpu.utilization") if self._config.cost.gpu_hours == "busy" else None
        return replace(found, wear=worn, usd_per_month=self._usd_per_month(worn, 1.0 if busy is None else busy))

    def _usd_per_month(self, worn: Wear | None, paid: float) -> dict[str, float]:
        """`paid` is the share of the hours for which GPUs are."""
        rates = self._deployment.rates
        rates[ON_DRIVES] += wear_usd_per_s(self._deployment, worn)
        rates["gpu"] *= paid
        return {name: value * MONTH_S for name, value in rates.items()}


def drive(sides: Sequence[Fed], pool: Pool, progress: Callable[[int, int], None]) -> int:
    """Runs all searches through the pool, each going on as soon as what it wants is there. Returns how many simulations it took."""
    waiting: dict[int, dict[int, Seen | Failed | None]] = {}
    sent = done = 0

    def send(side: int, wanted: Sequence[tuple[float, int]]) -> None:
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
        there = list(waiting[number].values())
        failure = next((each for each in there if isinstance(each, Failed)), None)
        if all(each is not None for each in there):
            send(number, sides[number].go_on(there) if failure is None else sides[number].fail(failure.reason) or [])
        progress(done, sent)
    return done
