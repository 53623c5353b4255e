"""The worked plans of docs/plans.md against brute force: no cheaper store and number of replicas of a grid meets the target.

It takes half an hour, and compiled five minutes. Every combination is simulated to its end with two seeds, the first two of the plan's: no
bounds, no search, nothing ended early. The answer gets eight, and so do those that seem to meet the target for less, and those no dearer
than the cheapest that does, which may meet it or not. Sizes are those of the question and some between. What is done is kept in
`build/plans`, so that the next call goes on; the tables are committed, `validate/cases/plans/*.csv`. Left out: a store next to the answer
that no size of the grid has.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

from kvplan.sim.api import asked
from kvplan.sim.files.atomic import write_file
from kvplan.sim.planner import load
from kvplan.sim.planner.plan import Side
from kvplan.sim.planner.probe import Seen, look
from kvplan.sim.planner.question import Option, Question, options
from kvplan.sim.planner.search import Fewest, judged
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.kept_runs import Kept, KeptRuns
from kvplan.sim.sweep.pool import Failed, Pool
from kvplan.validate.show import show
from kvplan.validate.verdict import fail

TABLES = Path(__file__).parents[1] / "cases" / "plans"
SEEDS, SETTLED = 2, 8
"""Of every combination, and of those that decide."""
_HEADS = ("store", "replicas", "usd_per_month", "ttft_p95_s", "share_in_time", "half_width", "seeds", "meets", "within")


@dataclass(frozen=True)
class Worked:
    """A plan of the docs, and the grid that it is held against."""

    preset: str | None
    answer: tuple[str, int]
    """Store and replicas that the docs say to buy."""
    drams: tuple[str, ...]
    ssds: tuple[str, ...]
    replicas: tuple[int, ...]
    settings: tuple[str, ...] = ()
    vary: tuple[str, ...] = ()
    sessions_per_s: float | None = None
    ttft_p95_ms: int | None = None

    @property
    def command(self) -> str:
        """As it is typed."""
        parts = ["kvplan plan", self.preset, *(f"--set {each}" for each in self.settings)]
        parts.append(None if self.sessions_per_s is None else f"--sessions-per-s {self.sessions_per_s:g}")
        parts.append(None if self.ttft_p95_ms is None else f"--ttft-p95 {self.ttft_p95_ms}ms")
        return " ".join(filter(None, [*parts, *(f"--vary {each}" for each in self.vary)]))

    @property
    def question(self) -> Question:
        """The same as a question."""
        aims = {} if self.ttft_p95_ms is None else {"ttft_p95_s": self.ttft_p95_ms / 1000}
        return asked(self.preset, self.settings, list(map(Axis.parse, self.vary)), self.sessions_per_s, **aims)


_CACHEDATTENTION = ("engine=cachedattention", "store.eviction=lru", "deployment.max_batch=256")
"""The server that the presets had when the tables were made."""
WORKED = {
    "chat": Worked(
        None,
        settings=_CACHEDATTENTION,
        answer=("DRAM 549GB + SSD 7.68TB", 10),
        drams=("549GB", "1.09TB", "2.19TB"),
        ssds=("0GB", "3.84TB", "7.68TB"),
        replicas=(9, 10, 11),
    ),
    "agents": Worked(
        "agents-2026",
        settings=_CACHEDATTENTION,
        answer=("DRAM 549GB + SSD 7.68TB", 8),
        drams=("549GB", "1.09TB", "2.19TB"),
        ssds=("0GB", "3.84TB", "7.68TB"),
        replicas=(6, 7, 8, 9, 11, 17),
    ),
    "small-box": Worked(
        "chat-2026",
        answer=("DRAM 100GB + SSD 950GB", 12),
        drams=("50GB", "100GB", "200GB"),
        ssds=("0GB", "475GB", "950GB"),
        replicas=(10, 11, 12, 13, 17),
        settings=(*_CACHEDATTENTION, "model=llama-3.1-8b", "hardware=l40s-x4", "deployment.gpus=1"),
        vary=("store.dram=50GB,100GB,200GB", "store.ssd=0GB,950GB"),
        sessions_per_s=2,
        ttft_p95_ms=500,
    ),
    "a100": Worked(
        "default",
        answer=("prefix cache in HBM", 16),
        drams=("32GB", "64GB", "128GB"),
        ssds=("0GB", "1.2TB", "2.5TB"),
        replicas=(14, 15, 16, 17, 18),
        vary=("store.dram=32GB,64GB,128GB", "store.ssd=0GB,2.5TB"),
        sessions_per_s=4,
        ttft_p95_ms=300,
    ),
}


def run() -> None:
    """Fills the tables and prints what is cheapest in each. Fails when something surely meets a target for less than the docs say."""
    wrong = []
    for name, worked in WORKED.items():
        found = simulated_grid(worked)
        write_file(TABLES / f"{name}.csv", partial(_write, found))
        best = cheapest(found)
        show(f"{name}: {worked.command}", list(_HEADS), [[str(row[head]) for head in _HEADS] for row in (best, *_beside(found, best))])
        wrong += [f"{name}: {row['store']} failed: {row['failed']}" for row in found if row.get("failed")]
        wrong += [f"{name}: {row['store']} with {row['replicas']} replicas" for row in cheaper(worked, found) if row["meets"] == "yes"]
    fail(wrong, "could not be simulated, or meets the target for less")


def cheaper(worked: Worked, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that meet the target, as far as their runs tell, for less than the answer."""
    own = next(row for row in found if (row["store"], int(row["replicas"])) == worked.answer)
    return [row for row in found if str(row["within"]) == "True" and float(row["usd_per_month"]) < float(own["usd_per_month"]) - 0.01]


def cheapest(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the rows that meet the target, the one with the least dollars, then the first."""
    return min((row for row in found if str(row["within"]) == "True"), key=lambda row: float(row["usd_per_month"]))


def read_table(name: str) -> list[dict[str, str]]:
    """The committed table."""
    with (TABLES / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _beside(found: list[dict[str, Any]], best: dict[str, Any]) -> list[dict[str, Any]]:
    """Per store the fewest replicas that meet the target."""
    least: dict[str, dict[str, Any]] = {}
    for row in found:
        if row["within"] and row["replicas"] < least.get(row["store"], {"replicas": 10**9})["replicas"]:
            least[row["store"]] = row
    return [row for row in least.values() if row is not best]


def simulated_grid(worked: Worked, keep: Path = Path("build/plans")) -> list[dict[str, Any]]:
    """One per store and number of replicas."""
    question = worked.question
    base = question.config()
    population = load.population(base)
    rate = question.sessions_per_s or load.own_rate(base, population)
    sides = {option.label: Side(question, option, population, rate) for option in _stores(question, worked)}
    workers = Kept(Pool(), KeptRuns(keep, Seen), attrgetter("digest"), lambda probe: {"seed": probe.config.seed})
    found: dict[tuple[str, int], dict[str, Any]] = {}
    wanted, seeds = list(product(sides, worked.replicas)), SEEDS
    while wanted:
        for store, count in wanted:
            found[store, count] = _row(store, sides[store], question, count, _seen(workers, sides[store], count, seeds))
        wanted, seeds = _undecided(list(found.values()), worked.answer), SETTLED
    return list(found.values())


def _seen(workers: Pool, side: Side, count: int, seeds: int) -> list[Any]:
    """Runs of so many replicas, in the order of their seeds."""
    for replication in range(seeds):
        workers.submit(replication, look, replace(side.probe(count, replication), to_the_end=True))
    return [seen for _, seen in sorted((workers.next() for _ in range(seeds)), key=lambda each: each[0])]


def _undecided(found: list[dict[str, Any]], answer: tuple[str, int]) -> list[tuple[str, int]]:
    """The docs' answer, those that meet the target for less by two seeds, which may be lucky, and those no dearer than the cheapest that
    meets it, of which two seeds do not say whether they do."""
    most = float(cheapest(found)["usd_per_month"])
    own = next(row["usd_per_month"] for row in found if (row["store"], row["replicas"]) == answer)
    doubted = (row for row in found if row["meets"] == "unclear" and row["usd_per_month"] <= most)
    refuting = (row for row in found if row["within"] and row["usd_per_month"] < own)
    cells = {answer, *((row["store"], row["replicas"]) for row in (*doubted, *refuting))}
    return [(row["store"], row["replicas"]) for row in found if row["seeds"] < SETTLED and (row["store"], row["replicas"]) in cells]


def _stores(question: Question, worked: Worked) -> Iterator[Option]:
    """The baselines, and all sizes of the grid."""
    yield from (option for option in options(question) if option.baseline)
    for dram, ssd in product(worked.drams, worked.ssds):
        label = f"DRAM {dram}" + (f" + SSD {ssd}" if ssd != "0GB" else "")
        yield Option(label, (("store.hbm", "0GB"), ("store.dram", dram), ("store.ssd", ssd)))


def _row(store: str, side: Side, question: Question, count: int, seen: list[Seen | Failed]) -> dict[str, Any]:
    failed = next((each.reason for each in seen if isinstance(each, Failed)), None)
    if failed is not None:
        return {"store": store, "replicas": count, "seeds": len(seen), "meets": "no", "within": False, "failed": failed}
    point = judged(question.objectives, count, [each for each in seen if isinstance(each, Seen)])
    side.found = Fewest(count, (point,))
    seen_of: list[Any] = [round(float(figure), 5) for each in point.judgements for figure in (each.value, each.mean, each.half_width)]
    figures = seen_of or [""] * 3  # the warm-up outlasts the arrivals: nothing was measured
    verdict = {True: "yes", False: "no", None: "unclear"}[point.meets]
    cost = round(count * sum(side.answer().usd_per_month.values()), 2)
    return dict(zip(_HEADS, (store, count, cost, *figures, len(seen), verdict, point.within), strict=True))


def _write(found: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _HEADS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
