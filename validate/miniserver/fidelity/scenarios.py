"""What is compared: loads below and above saturation, tight and roomy tiers, policies, and both loops, on one machine's small model.

Load 1 is where sessions arrive as fast as the simulated server ends them when it is never idle. In an open loop the trace has the time of
every turn, as a log of another server would have it. In a closed one turns follow on answers, so that small differences in time put
turns into another order and grow: that shows in the noise.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config
from kvplan.sim.simulation import simulate
from kvplan.traces import Workload
from kvplan.validate.calibration.measure.record import read_header

TRAINING_SEED, TEST_SEED = 1001, 1
MAX_BATCH = 8
WINDOW = 1024
"""Tokens; a few sessions outgrow it and are truncated."""
ANSWER_S = 0.3
"""What an answer took on the server whose log an open-loop trace is."""

_LOOKAHEAD = ("store.eviction=lookahead", "store.prefetch=lookahead")
_LRU = ("store.eviction=lru", "store.prefetch=none")
_TIGHT = ("store.dram=40MB", "store.ssd=4GB")
_SMALL_SSD = ("store.dram=40MB", "store.ssd=100MB")
_ROOMY = ("store.dram=3GB", "store.ssd=4GB")


@dataclass(frozen=True)
class Scenario:
    """One pair of runs. `overrides` are settings of the configuration."""

    name: str
    load: float
    overrides: tuple[str, ...]
    repeated: bool = False
    """Whether the server runs twice, which shows the noise."""
    closed: bool = False
    """Whether turns follow on answers."""


SCENARIOS = (
    Scenario("tight, look-ahead, 0.5", 0.5, (*_TIGHT, *_LOOKAHEAD), repeated=True),
    Scenario("tight, look-ahead, 0.8", 0.8, (*_TIGHT, *_LOOKAHEAD), repeated=True),
    Scenario("tight, look-ahead, 1.5", 1.5, (*_TIGHT, *_LOOKAHEAD), repeated=True),
    Scenario("tight, LRU, 0.8", 0.8, (*_TIGHT, *_LRU)),
    Scenario("tight, LRU, 1.5", 1.5, (*_TIGHT, *_LRU)),
    Scenario("tight, FIFO, 1.5", 1.5, (*_TIGHT, "store.eviction=fifo", "store.prefetch=none")),
    Scenario("small SSD, look-ahead, 0.8", 0.8, (*_SMALL_SSD, *_LOOKAHEAD)),
    Scenario("small SSD, LRU, 1.5", 1.5, (*_SMALL_SSD, *_LRU)),
    Scenario("roomy, look-ahead, 0.8", 0.8, (*_ROOMY, *_LOOKAHEAD)),
    Scenario("no store, 0.5", 0.5, ("store.dram=0GB", "store.ssd=0GB")),
    Scenario("closed, tight, look-ahead, 1.5", 1.5, (*_TIGHT, *_LOOKAHEAD), repeated=True, closed=True),
)
"""Named by tiers, policy and load. "Tight": DRAM has room for a few sessions; "small SSD": SSD for some more; "roomy": DRAM for all."""


class Bench:
    """The configurations of one case: a folder of measurements with its fitted catalogue. Raises RecordError and ConfigError.

    `catalogue` is that by which the server's capacity is known; default: the case's.
    """

    def __init__(self, case: Path, sessions: int, catalogue: Path | None = None) -> None:
        self.case = case
        self._base = _settings(case, sessions)
        all_at_once = (f"catalogue={catalogue or case}", "workload.think_time={distribution: constant, value_s: 0}")
        saturated = self._config(SCENARIOS[1], TRAINING_SEED, 1e3, *all_at_once)
        found = simulate(saturated).summary
        self.capacity_per_s: float = sessions / found["makespan_s"]
        """Sessions per second at load 1."""
        self.busy_s: float = found["gpu"]["busy_s"]
        """Seconds that the sessions keep the server busy at load 1."""

    def config(self, scenario: Scenario, seed: int = TEST_SEED, catalogue: Path | None = None) -> Config:
        """The configuration of a scenario; with another catalogue, to be simulated with that."""
        more = () if catalogue is None else (f"catalogue={catalogue}",)
        return self._config(scenario, seed, scenario.load * self.capacity_per_s, *more)

    def workload(self, scenario: Scenario, seed: int = TEST_SEED) -> Workload:
        """The turns of a scenario."""
        closed = build_workload(self.config(scenario, seed))
        return closed if scenario.closed else logged(closed)

    def _config(self, scenario: Scenario, seed: int, rate_per_s: float, *more: str) -> Config:
        arrival = f"workload.arrival={{process: poisson, rate_per_s: {rate_per_s:.6g}}}"
        return config.load(None, (*self._base, *scenario.overrides, arrival, f"seed={seed}", *more))


def _settings(case: Path, sessions: int) -> tuple[str, ...]:
    """Settings that all scenarios of a case share: its machine and model, and the sessions that are served."""
    header = read_header(case)
    model = next(iter(header["models"]))
    return (
        f"catalogue={case}",
        f"hardware={_node(case)}",
        f"prices={_node(case)}",
        f"model={model}",
        "deployment.gpus=1",
        f"deployment.max_batch={MAX_BATCH}",
        f"deployment.window_tokens={WINDOW}",
        "workload.kind=synthetic",
        f"workload.sessions={sessions}",
        "workload.turns={distribution: exponential, mean: 5}",
        "workload.max_turns=8",
        f"workload.max_tokens={header['models'][model]['max_position_embeddings']}",
        "workload.prompt_tokens={distribution: lognormal, median: 50, sigma: 0.8}",
        "workload.output_tokens={distribution: lognormal, median: 12, sigma: 0.6}",
        "workload.think_time={distribution: lognormal, median_s: 1.5, sigma: 0.8}",
        "store.read_buffer_layers=0",
        "store.write_buffer=64MB",
        "store.load=always",
    )


def logged(closed: Workload) -> Workload:
    """The same turns, each with its time: its think time after an answer that took ANSWER_S."""
    since = np.cumsum(closed.gap_s + ANSWER_S)
    first = closed.first_turn[closed.session]
    return replace(closed, arrival_s=closed.arrival_s[first] + since - since[first]).opened()


def _node(case: Path) -> str:
    """Name of the machine that was measured: that of its one node entry. Raises ValueError."""
    found = sorted(path.stem for path in (case / "node").glob("*.yaml"))
    if len(found) != 1:
        raise ValueError(f"{case} has {len(found)} node entries, one is needed: run kvplan validate fit {case}")
    return found[0]
