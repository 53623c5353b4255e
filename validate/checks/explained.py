"""`explain` against the simulator, over random settings below saturation: hits by tier, and how busy GPUs and links are; half a minute.

`explain` is a second model of the server, so the two must agree, or `explain` must say in its own words where its arithmetic does not
hold. Shares of the history that each tier serves must be within 3 points, the time that GPUs and links are busy within 10 % of itself or
one point.
"""

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from kvplan.hwmodels import catalogue
from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.analytic.limits import GPU, LINKS, SERVED, Limit
from kvplan.sim.analytic.prefilling import each_s
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config
from kvplan.sim.deployment import resolve
from kvplan.sim.keptunit import unit_of
from kvplan.sim.rng import stream
from kvplan.sim.simulation import Result, simulate
from kvplan.validate.show import show
from kvplan.validate.verdict import fail

CASES = 200
SESSIONS = 300
POINTS = 0.03
SHARE = 0.10
SLIGHT = 0.01
"""Of a resource's time: what is used less than this may be off by more than its tenth."""
_MACHINES = (
    ("llama-2-7b", "a100-80g-pcie4", 1, "paper-2024"),
    ("llama-2-13b", "a100-80g-pcie4", 2, "paper-2024"),
    ("llama-1-65b", "a100-80g-pcie4", 4, "paper-2024"),
    ("llama-3.1-8b", "h100-80g-x8", 1, "rent-2026"),
    ("llama-3.1-70b", "h100-80g-x8", 4, "rent-2026"),
)
_LINKS = {"host_to_device": "host to GPU", "device_to_host": "GPU to host", "ssd_read": "SSD read", "ssd_write": "SSD write"}
_TIERS = (("dram",), ("dram",), ("ssd",), ("dram", "ssd"), ("dram", "ssd"), ("hbm", "dram"), ("hbm", "dram", "ssd"))


@dataclass(frozen=True)
class Case:
    """What `explain` says of a configuration, and what the simulator found, in the same names."""

    settings: list[str]
    said: dict[str, float]
    found: dict[str, float]
    reasons: list[Limit]

    @property
    def off(self) -> list[str]:
        """The figures that do not agree."""
        return [name for name, said in self.said.items() if not _agree(name, said, self.found[name])]

    @property
    def unexplained(self) -> list[str]:
        """Those of them for which `explain` gives no reason."""
        given = {kind for reason in self.reasons for kind in reason.of}
        return [name for name in self.off if _kind(name) not in given]

    def words(self, name: str) -> str:
        """A figure that does not agree."""
        return f"{name}: {self.said[name]:.1%}, simulated {self.found[name]:.1%}"


def _kind(name: str) -> str:
    """Of a figure, as `explain` names what its limits concern."""
    return SERVED if name.startswith("served") else GPU if name.startswith("GPU busy") else LINKS


def _agree(name: str, said: float, found: float) -> bool:
    if name.startswith("served"):
        return abs(said - found) <= POINTS
    return abs(said - found) <= max(SHARE * found, SLIGHT)


def settings(seed: int, sessions: int = SESSIONS) -> list[str]:
    """Random overrides of the default: machine, workload, tiers, policies; at 10 to 80 % of what the GPUs can do."""
    rng = stream(seed, "explained")
    model, hardware, gpus, prices = _MACHINES[rng.integers(len(_MACHINES))]
    replicas = int(rng.choice([1, 1, 1, 2]))
    chosen = [
        f"model={model}",
        f"hardware={hardware}",
        f"prices={prices}",
        f"deployment.gpus={gpus}",
        f"deployment.replicas={replicas}",
        f"deployment.max_batch={rng.choice([8, 24, 64])}",
        f"deployment.window_tokens={rng.choice([1024, 2048])}",
        f"deployment.truncation_ratio={rng.choice([0.25, 0.5, 1.0])}",
        f"workload.sessions={sessions * replicas}",
        f"workload.kind={rng.choice(['sharegpt', 'synthetic'])}",
        f"workload.think_time={{distribution: lognormal, median_s: {rng.choice([5, 30, 100])}, sigma: 1.0}}",
        f"seed={seed}",
        "warmup_turns=0",
    ]
    chosen += _store(rng, chosen)
    return [*chosen, f"workload.arrival.rate_per_s={_rate(chosen, rng.uniform(0.1, 0.8)):.4g}"]


def in_blocks(seed: int, sessions: int = SESSIONS) -> list[str]:
    """The same with servers of blocks, which all tiers are below."""
    rng = stream(seed, "explained in blocks")
    return [
        *settings(seed, sessions),
        "store.unit=block",
        "store.save=async",
        "store.ttl_s=null",
        f"store.hbm={rng.choice([0, 2, 5, 10])}GB",
        f"store.mode={rng.choice(['vllm', 'lmcache'])}",
        f"batching={rng.choice(['iteration', 'chunked', 'prefill-first'])}",
        f"workload.system_prompt_tokens={rng.choice([0, 0, 500])}",
    ]


def _store(rng: np.random.Generator, chosen: list[str]) -> list[str]:
    """Tiers that hold from a few per cent to all of what the sessions leave, the lower ones more; and how they are used."""
    loaded = config.load(None, chosen)
    deployment, table = resolve(loaded), build_workload(loaded)
    everything = float(deployment.stored(np.minimum(table.session_tokens, deployment.window)).sum()) / loaded.deployment.replicas
    tiers = _TIERS[rng.integers(len(_TIERS))]
    sizes = dict.fromkeys(("hbm", "dram", "ssd"), 0.0)
    least: float = deployment.stored(deployment.window)
    for name in tiers:
        share = rng.uniform(0.01, 0.04) if name == "hbm" else rng.uniform(0.03, 0.3) * (3 if name == tiers[-1] else 1)
        least = max(least * 1.05, share * everything)
        sizes[name] = least
    sizes["hbm"] = min(sizes["hbm"], 10e9)
    return [
        *(f"store.{name}={size:.0f}B" for name, size in sizes.items()),
        f"store.host_buffer={rng.choice([0.0, 0.1, 0.5])}",
        f"store.eviction={rng.choice(['lru', 'lru', 'lru', 'lookahead', 'fifo'])}",
        f"store.prefetch={rng.choice(['none', 'none', 'lookahead'])}",
        f"store.write={rng.choice(['back', 'back', 'through', 'second-hit'])}",
        f"store.ssd_write={rng.choice(['delta', 'delta', 'whole'])}",
        f"store.save={rng.choice(['async', 'async', 'sync'])}",
        f"store.load_mode={rng.choice(['null', 'null', 'blocking'])}",
        f"store.positions={rng.choice(['decoupled', 'decoupled', 'embedded'])}",
        f"store.load={rng.choice(['always', 'always', 'faster'])}",
        f"store.ttl_s={rng.choice(['null', 'null', '20', '100'])}",
        f"store.connector={rng.choice(['cachedattention', rng.choice(catalogue.names('connector'))])}",
    ]


def _rate(chosen: list[str], load: float) -> float:
    """Sessions/s at which the GPUs of a server without any store have so much to do, in full batches."""
    loaded = config.load(None, chosen)
    deployment, table, most = resolve(loaded), build_workload(loaded), loaded.deployment.max_batch
    context = np.minimum(table.history_tokens + table.prompt_tokens, deployment.window)
    step = deployment.steps.decode(most, most * float(context.mean()))
    alone_s = each_s(deployment.steps.prefill, context, np.zeros_like(context))
    turn_s = float(alone_s.mean()) + float(table.output_tokens.mean()) * step / most
    return load / turn_s * loaded.deployment.replicas * table.sessions / table.turns


def _explained(loaded: Config) -> dict:
    table = build_workload(loaded)
    return explain(loaded, resolve(loaded, table), table)


def explained_case(overrides: list[str]) -> Case:
    """Explains and simulates one configuration."""
    loaded = config.load(None, overrides)
    result, found = simulate(loaded), _explained(loaded)
    simulated = _served(result) | _busy(result)
    said = {f"served from {name}": found["served"][name] for name in found["tiers"]}
    said |= {f"{name} busy": share for name, share in found["demand"]["busy"].items()}
    return Case(overrides, said, simulated, [Limit(**limit) for limit in found["limits"]])


def _served(result: Result) -> dict[str, float]:
    """Shares of all history tokens by the tier that served them."""
    columns, names = result.columns, list(result.summary["tiers"])
    history = max(1, int(columns["history_tokens"].sum()))
    if unit_of(result.config) == "block":
        prompts = history + int(columns["prompt_tokens"].sum())
        return {f"served from {name}": float(columns[f"{name}_tokens"].sum() / prompts) for name in names}
    return {
        f"served from {name}": float(columns["cached_tokens"][columns["tier"] == index].sum() / history) for index, name in enumerate(names)
    }


def _busy(result: Result) -> dict[str, float]:
    links = {f"{_LINKS[name]} busy": link["busy_share"] for name, link in result.summary["links"].items()}
    return {"GPU busy": result.summary["gpu"]["utilization"]} | links


def run() -> None:
    """Prints how many cases agree, and the reasons given; fails when a figure is off without one, and names it."""
    cases = {seed: explained_case(settings(seed)) for seed in range(CASES)}
    off = {seed: one for seed, one in cases.items() if one.off}
    figures = sorted({name for one in cases.values() for name in one.said})
    rows = [_row(name, list(cases.values())) for name in figures]
    show(
        f"explain against simulate, {CASES} random settings", ["figure", "settings with it", "off", "without a reason", "median off"], rows
    )
    kinds = Counter(_plain(reason.words) for one in cases.values() for reason in one.reasons)
    kinds_off = Counter(_plain(reason.words) for one in off.values() for reason in one.reasons)
    rows = [[words, f"{count}", f"{kinds_off[words]}"] for words, count in kinds.most_common()]
    show("Reasons that explain gives", ["reason", "settings", "of them off"], rows)
    fail([f"seed {seed}: {one.words(name)}, and no reason given" for seed, one in off.items() for name in one.unexplained])


def _row(name: str, cases: list[Case]) -> list[str]:
    having = [one for one in cases if name in one.said]
    off, silent = sum(name in one.off for one in having), sum(name in one.unexplained for one in having)
    return [name, f"{len(having)}", f"{off}", f"{silent}", f"{np.median([abs(one.said[name] - one.found[name]) for one in having]):.2%}"]


def _plain(words: str) -> str:
    """A reason without its figures."""
    return re.sub(r"=[\w-]+|\d+%?", "…", words)
