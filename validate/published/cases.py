"""A case: one published figure or benchmark as YAML, with its conditions, its runs, and the numbers that were published.

`points` are what the figure varies (models, sizes, rates), `runs` what it compares at each point. A run's settings are those of the case's
`base`, then of the point, then of the run, by path as `--set` takes them, with five words of their own: `preset` is where they start,
`requests` is a small workload in full, whose groups come one after another, or with `order: mixed` evenly mixed, `pipeline` one batch by
the layer pipeline's arithmetic instead of a simulation, and `what_if` what no setting changes (see `runs`). A quantity says what is taken
of which run; its published numbers go by point, two where a range was given.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kvplan.hwmodels import catalogue, strictyaml

FOLDER = Path(__file__).resolve().parents[1] / "cases"
Settings = dict[str, Any]
Number = float | Annotated[list[float], Field(min_length=2, max_length=2)]
ASSUMPTIONS = "assumptions"
"""The file beside the cases of a group that says what is tried where a cell misses."""


class _Strict(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True)


class Quantity(_Strict):
    """A number of each point: taken of one run, beside that of another where `against` names one."""

    name: str
    kind: Literal["hits", "TTFT", "prefill", "throughput", "gain", "GPU time", "cost", "decode"]
    run: str
    take: list[str] = Field(min_length=1)
    """Keys of summary.json, which are added up."""
    per: str | None = None
    """A key that the sum is divided by."""
    against: str | None = None
    shown: Literal["value", "percent", "change", "saved", "points", "times"] = "value"
    """`change` is 100 (a / b - 1), `saved` 100 (1 - a / b), `points` 100 (a - b), `times` a / b, of the run's a and the other's b."""
    scale: float = 1.0
    published: dict[str, Number] = {}
    fitted: list[str] = []
    """Points whose published number the catalogue's own figures were derived from."""
    also: dict[str, str] = {}
    """Other definitions of the same: what they are, and the key that they take instead."""
    panel: str | None = None
    """Quantities of one panel are drawn together; None is drawn alone."""
    unit: str = ""

    @property
    def in_points(self) -> bool:
        """Whether it is a percentage, whose error is a difference."""
        return self.shown in ("percent", "change", "saved", "points")


class Case(_Strict):
    """One file."""

    title: str
    source: str
    about: str = ""
    axis: str
    base: Settings = {}
    points: dict[str, Settings] = Field(min_length=1)
    runs: dict[str, Settings] = Field(min_length=1)
    quantities: list[Quantity] = Field(min_length=1)
    seeds: list[int] = []
    """Of runs that are published once, and are as chance has it: each is run with all of these, and a number is their mean."""
    reconcile: list[str] = []
    """Names of assumptions that are tried."""
    tried_at: list[str] = []
    """Points at which they are."""

    def setup(self, point: str, run: str, more: Settings | None = None) -> list[Settings]:
        """The settings of a run, by seed; what is tried changes those of the point, not what tells the runs apart."""
        settings = merged(self.base, self.points[point], more or {}, self.runs[run])
        return [settings | {"seed": seed} for seed in self.seeds] or [settings]

    @property
    def published(self) -> list[tuple[Quantity, str]]:
        """Cells that have a published number, in their order."""
        return [(quantity, point) for quantity in self.quantities for point in self.points if point in quantity.published]


class Assumption(_Strict):
    """What is tried: values in words, and the settings that each is."""

    about: str
    held_against: str | None = None
    """A case of the group that must hold under it as well."""
    tried: dict[str, Settings] = Field(min_length=1)


def merged(*layers: Settings) -> Settings:
    """Later ones win; `what_if` and `pipeline` are merged within."""
    found: Settings = {}
    for layer in layers:
        within = {name: {**found.get(name, {}), **layer[name]} for name in ("what_if", "pipeline") if name in layer}
        found |= layer | within
    return found


def names(group: str) -> list[str]:
    """The cases of a group, in the order of their files."""
    return [path.stem for path in sorted((FOLDER / group).glob("*.yaml")) if path.stem != ASSUMPTIONS]


@cache
def load(group: str, name: str) -> Case:
    """Raises CaseError."""
    case = _read(Case, FOLDER / group / f"{name}.yaml")
    _check(case, f"{group}/{name}.yaml")
    return case


def assumptions(group: str) -> dict[str, Assumption]:
    """By name; none where the group has none. Raises CaseError."""
    path = FOLDER / group / f"{ASSUMPTIONS}.yaml"
    return _read(_Assumptions, path).assumptions if path.exists() else {}


class _Assumptions(_Strict):
    assumptions: dict[str, Assumption]


_Kind = TypeVar("_Kind", bound=BaseModel)


class CaseError(ValueError):
    """A file is not the case that it should be."""


def _read(kind: type[_Kind], path: Path) -> _Kind:
    try:
        return kind.model_validate(strictyaml.load(path))
    except ValidationError as error:
        raise CaseError(f"{path}: {catalogue.explain(error)}") from None
    except strictyaml.YamlError as error:
        raise CaseError(str(error)) from None


def _check(case: Case, where: str) -> None:
    """That names mean something."""
    for quantity in case.quantities:
        for what, name, known in (
            ("run", quantity.run, case.runs),
            ("run", quantity.against or quantity.run, case.runs),
            *(("point", point, case.points) for point in quantity.published),
            *(("point", point, case.points) for point in case.tried_at),
        ):
            if name not in known:
                raise CaseError(f"{where}: {quantity.name}: there is no {what} {name!r}, only {', '.join(known)}")
        if (quantity.against is None) != (quantity.shown in ("value", "percent")):
            raise CaseError(f"{where}: {quantity.name}: `shown: {quantity.shown}` and `against` do not go together")
