"""What else may be true: the eleven inputs that matter, each a little lower and higher, and what-ifs; each answered by planning again.

A scenario changes settings, the load, or prices. Prices move no replica, so that all options are only counted anew. Everything else is
searched for again near the known answer (`near`), for the cheapest option and the best baseline, one run a probe with the seed of the
plan's first. So is the plan itself, `UNCHANGED`: what a scenario changes is its difference to that. Left out: two inputs that change at
once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kvplan.hwmodels import Node, catalogue, connect, kvsize
from kvplan.sim.config import Config
from kvplan.sim.planner.objective import Objective
from kvplan.sim.planner.search import Fewest, Search, judged

_MOST_GPUS = 2
"""Other nodes that are tried."""


@dataclass(frozen=True)
class Scenario:
    """One thing that is otherwise."""

    name: str
    """Of the input."""
    change: str
    """In words: `× 1.2`."""
    overrides: tuple[str, ...] = ()
    load: float = 1.0
    """Times the sessions per second."""
    prices: tuple[tuple[str, float], ...] = ()
    """(gpu, dram or ssd, times its cost)."""
    start: float = 1.0
    """Times the replicas of the plan: where the search begins."""


UNCHANGED = Scenario("as planned", "")


Ends = tuple[Scenario | None, Scenario | None]
"""(low, high) of an input; None where the plan already has the end of the range."""


def _scaled(name: str, path: str, low: float, high: float | None, config: Config, start: float = 0.0) -> Ends:
    """An input that is a factor among the settings: low and high, replicas about in proportion to the power `start` of it."""
    return _times(name, path, low, config, start), None if high is None else _times(name, path, high, config, start)


def _times(name: str, path: str, factor: float, config: Config, start: float) -> Scenario:
    value: Any = config.resolved()
    for key in path.split("."):
        value = value[key]
    return Scenario(name, f"× {factor:.3g}", (f"{path}={value * factor!r}",), start=factor**start)


def inputs(config: Config) -> list[Ends]:
    """Of the eleven; KV that has 8 bits already has ten."""
    found = [
        (_priced("gpu", 0.8), _priced("gpu", 1.2)),
        (_priced("dram", 0.5), _priced("dram", 2.0)),
        (_priced("ssd", 0.5), _priced("ssd", 2.0)),
        (_loaded(0.8), _loaded(1.2)),
        _scaled("think time", "workload.rescale.think", 1 / 1.5, 1.5, config),
        _scaled("context", "workload.rescale.context", 0.8, 1.2, config, 1.0),
        _scaled("answer length", "workload.rescale.output", 0.8, 1.2, config, 1.0),
        _connectors(config),
        _scaled("link efficiency", "deployment.link_efficiency", 0.5, None, config),
        (_narrower(config), None),
        _scaled("step time", "deployment.step_time_factor", 0.8, 1.2, config, 1.0),
    ]
    return [ends for ends in found if any(ends)]


def _narrower(config: Config) -> Scenario | None:
    """KV in FP8 everywhere, for a plan that has more bits somewhere."""
    model = catalogue.load("model", config.model, config.catalogue)
    bits = kvsize.in_dtype(model, config.deployment.kv_dtype).kv_bits
    if bits <= kvsize.KV_BITS["fp8"]:
        return None
    below = ("store.kv_dtype=null",) if config.store.kv_dtype == "bf16" else ()
    return Scenario("KV dtype", "fp8", ("deployment.kv_dtype=fp8", *below))


def _priced(name: str, factor: float) -> Scenario:
    return Scenario(f"price of {name.upper()}", f"× {factor:g}", prices=((name, factor),))


_LINKS_ALONE = "cachedattention"


def _connectors(config: Config) -> Ends:
    """The links alone, and the slowest connector of those whose bandwidth is known; an end that the plan has is None."""
    folder = config.catalogue
    gpus = config.deployment.gpus or int(catalogue.load("node", config.hardware, folder).max_gpus.value)
    known = [connect(catalogue.load("connector", name), gpus) for name in catalogue.names("connector")]
    slowest = min(known, key=lambda one: one.bytes_per_s).name
    low, high = (None if name == config.store.connector else _connected(name) for name in (_LINKS_ALONE, slowest))
    return low, high


def _connected(name: str) -> Scenario:
    words = "links alone" if name == _LINKS_ALONE else name
    return Scenario("connector", words, (f"store.connector={name}", "store.load_mode=null"))


def _loaded(factor: float) -> Scenario:
    return Scenario("load", f"× {factor:g}", load=factor, start=factor)


def what_ifs(config: Config) -> list[Scenario]:
    """Twice as long think times, sessions and contexts, and other GPUs."""
    double = [_times(name, path, 2.0, config, start) for name, path, start in _DOUBLED]
    return [
        double[0],
        _loaded(2.0),
        double[1],
        *(Scenario("node", name, (f"hardware={name}",)) for name in _nodes(config)),
    ]


_DOUBLED = (("think time", "workload.rescale.think", 0.0), ("context", "workload.rescale.context", 1.0))


def _nodes(config: Config) -> list[str]:
    """Other nodes with as many GPUs that take no less DRAM, newest first and one a GPU, whose GPU the price list has."""
    folder = config.catalogue
    priced = catalogue.load("prices", config.prices, folder).gpus
    mine = catalogue.load("node", config.hardware, folder)
    others = [catalogue.load("node", name, folder) for name in catalogue.names("node", folder) if name != mine.name]
    alike = [node for node in others if node.max_gpus.value == mine.max_gpus.value and _room(node) >= _room(mine)]
    fit = [node for node in alike if node.gpu in priced and node.gpu != mine.gpu]
    newest: dict[str, str] = {}
    for node in sorted(fit, key=lambda node: (node.date, node.name), reverse=True):
        newest.setdefault(node.gpu, node.name)
    return list(newest.values())[:_MOST_GPUS]


def _room(node: Node) -> float:
    """Bytes of DRAM that it takes."""
    return float("inf") if node.max_dram is None else node.max_dram.value


def near(objectives: Sequence[Objective], start: int, least: int, limit: int) -> Search:
    """The fewest replicas, thought to be about `start`: one run a probe, with steps that double until both sides are known."""
    points, low, high = {}, least - 1, None
    failed, place, step = False, min(max(start, least), limit), max(1, round(start / 12))
    while high is None or high - low > 1:
        points[place] = judged(objectives, place, (yield [(place, 0)]))
        if points[place].within:
            high = place
        else:
            low, failed = place, True
        if high is None and low >= limit:
            break
        if high is None:
            place, step = min(limit, low + step), 2 * step
        elif not failed:
            place, step = max(least, high - step), 2 * step
        else:
            place = (low + high) // 2
    reason = None if high is not None else f"{limit} replicas do not meet it either"
    return Fewest(high, tuple(points[each] for each in sorted(points)), reason)
