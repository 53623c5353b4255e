"""What is asked: a load, objectives, and the stores that may be bought; resolved and checked before anything runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any

from kvplan.hwmodels.cost import included_bytes
from kvplan.hwmodels.units import format_bytes, parse_bytes
from kvplan.sim import config as configuration
from kvplan.sim.config import Config, ConfigError, without_clients
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.keptunit import unit_of
from kvplan.sim.planner.objective import Objective, objectives
from kvplan.sim.sweep.axes import Axis, Point, points

NO_STORE = {"store.hbm": "0GB", "store.dram": "0GB", "store.ssd": "0GB"}
"""Nothing below HBM, and nothing set aside in it: of whole sessions nothing is kept, of blocks what running jobs leave of the pool."""
RECOMPUTE = {**NO_STORE, "store.unit": "session"}
HBM_SHARE = 0.5
"""Of the HBM that weights leave: what a prefix cache of whole sessions in HBM is taken to hold. The rest is for running jobs."""
_DRAM_SHARES, _SSD_SHARES = (0.25, 1.0), (0.0, 0.25)
"""Of the DRAM and of the drives that a node has: the sizes that are tried when nobody names any. More SSD takes days of service to fill."""


@dataclass(frozen=True)
class Option:
    """One kind of store, on any number of replicas."""

    label: str
    settings: tuple[tuple[str, str], ...]
    """(path, value as text)."""
    baseline: bool = False
    given: tuple[tuple[str, Any], ...] = ()
    """(path, value) where the value is more than its text."""

    @property
    def overrides(self) -> list[str | tuple[str, Any]]:
        """As `kvplan.sim.config.load` takes them."""
        return Point(self.label, self.settings, self.given).overrides()


@dataclass(frozen=True)
class Question:
    """What `plan` is asked."""

    source: Config | str | PathLike[str] | None = None
    """Preset, file or configuration, as `kvplan.sim.config.load` takes it; so are the overrides."""
    overrides: tuple[str | tuple[str, Any], ...] = ()
    sessions_per_s: float | None = None
    """Of the whole service; None takes the workload's own."""
    axes: tuple[Axis, ...] = ()
    """What may vary; empty tries sizes of DRAM and SSD that the node offers."""
    most_replicas: int = 512
    measured_turns: int = 8_000
    """Of one simulation."""
    most_sessions: int = 20_000
    """Of one simulation: tiers that so many do not fill are said not to have filled."""
    replications: int = 3
    """At most, of one probe."""

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What the service must keep. Raises ConfigError when there is nothing."""
        found = objectives(self.config().slo)
        if not found:
            raise ConfigError("nothing to aim at: name an objective, for example --ttft-p95 500ms, or settings under slo")
        return found

    @property
    def unread(self) -> tuple[str, ...]:
        """Settings that a plan chooses by itself."""
        return ("deployment.replicas", "warmup_turns", "workload.sessions", *([] if self.axes else NO_STORE))

    @cached_property
    def _some_of_sessions(self) -> bool:
        """Whether `store.unit: auto` is whole sessions for any of what is asked: then it is for all, so that they can be compared."""
        asked = [
            configuration.load(self.source, [*self.overrides, *point.overrides()]) for point in (points(self.axes) if self.axes else [])
        ]
        asked.append(configuration.load(self.source, self.overrides))
        return any(unit_of(each) == "session" or parse_bytes(each.store.hbm) for each in asked if each.store.unit == "auto")

    def config(self, option: Option | None = None) -> Config:
        """Of one replica with that store. Raises ConfigError."""
        overrides = [*self.overrides, "deployment.replicas=1", "warmup_turns=0", *(option.overrides if option else ())]
        config = without_clients(configuration.load(self.source, overrides), "a plan is for a load in sessions per second")
        if config.store.unit == "auto" and unit_of(config) == "block" and self._some_of_sessions:
            config = configuration.load(config, {"store.unit": "session"})
        if unit_of(config) == "block" and parse_bytes(config.store.hbm):
            raise ConfigError(
                f"store.hbm={config.store.hbm} bounds what a pool of blocks keeps, and no engine can be told so: leave it out, or set"
                " store.hbm=0GB"
            )
        if config.router != "session":
            raise ConfigError(
                f"a plan simulates one replica with an even share of the sessions, which router={config.router} need not give it:"
                " leave router out, or set router=session"
            )
        strangers = [tier.name for tier in config.store.listed if tier.name not in configuration.SHORTHANDS]
        if strangers:
            raise ConfigError(
                f"a plan buys {', '.join(configuration.SHORTHANDS)} at the prices of a list, and store.tiers has {', '.join(strangers)}:"
                " leave it out, or compare stores with `kvplan compare`"
            )
        return config


def _check(axes: Sequence[Axis]) -> None:
    """All options are held against each other for one load and one target, which is what replicas are counted for. Raises ConfigError."""
    for path in [path for axis in axes for path in axis.paths]:
        if path in ("deployment.replicas", "warmup_turns", "workload.sessions"):
            raise ConfigError(f"--vary {path}: a plan finds that itself; leave it out")
        if path.partition(".")[0] in ("workload", "slo"):
            raise ConfigError(f"--vary {path}: all that is compared is for one load and one target; plan for each by itself, with --set")


def options(question: Question) -> list[Option]:
    """The baselines, and then what may be bought. Raises ConfigError."""
    _check(question.axes)
    found = [Option("recompute", tuple(RECOMPUTE.items()), True), _prefix_cache(question)]
    return found + (
        [Option(point.label, point.settings, given=point.given) for point in points(question.axes)] if question.axes else _offered(question)
    )


def _prefix_cache(question: Question) -> Option:
    """The engine as people run it: prefixes stay in the HBM that is left."""
    bare = resolve(question.config(Option("", tuple(NO_STORE.items()))))
    if bare.pooled:
        return Option("prefix cache in HBM", tuple(NO_STORE.items()), True)
    size = f"{int(HBM_SHARE * bare.hbm_budget / 1e9)}GB"
    settings = {**NO_STORE, "store.hbm": size, "store.prefetch": "none", "store.eviction": "lru"}
    return Option("prefix cache in HBM", tuple(settings.items()), True)


def _offered(question: Question) -> list[Option]:
    """Quarters and all of the DRAM and of the drives that come with the GPUs; of a part of a node's GPUs that part of its drives, for other
    replicas have the others."""
    config = question.config(Option("", tuple(NO_STORE.items())))
    deployment = resolve(config)
    drives = min(deployment.drives, deployment.share_of_drives) if config.store.ssd_drives is None else deployment.drives
    dram, ssd = _node_dram(deployment), drives * int(deployment.ssd.capacity.value)
    drams = [_whole(share * dram) for share in _DRAM_SHARES]
    ssds = [_whole(share * ssd) if share else "0GB" for share in _SSD_SHARES]
    some = () if drives == deployment.drives else (("store.ssd_drives", str(drives)),)
    return [_below_hbm(one, other, some) for one in dict.fromkeys(drams) for other in dict.fromkeys(ssds)]


def _below_hbm(dram: str, ssd: str, drives: tuple[tuple[str, str], ...]) -> Option:
    """So much of each; `drives`: settings of an SSD."""
    settings = ("store.hbm", "0GB"), ("store.dram", dram), ("store.ssd", ssd)
    return Option(f"DRAM {dram}", settings) if ssd == "0GB" else Option(f"DRAM {dram} + SSD {ssd}", (*settings, *drives))


def _node_dram(deployment: Deployment) -> float:
    """What comes with the rent of the node's GPUs, as far as the board takes it; else half of what the board takes."""
    included, _ = included_bytes(deployment.prices, deployment.gpu.name, deployment.gpus)
    most = deployment.node.max_dram
    if included:
        return min(included, math.inf if most is None else most.value)
    return 512e9 if most is None else most.value / 2


def _whole(size: float) -> str:
    """A size to name, as text: three digits, and never more than there is, for the rest would be bought beside it."""
    unit = 10 ** (math.floor(math.log10(size)) - 2)
    return format_bytes(size // unit * unit).replace(" ", "")
