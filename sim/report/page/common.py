"""What pages of several commands have: bars of tiers and of costs, lines over time, and the folded end."""

from collections.abc import Callable, Mapping, Sequence

from kvplan.hwmodels import strictyaml
from kvplan.sim.report.metric_names import metric
from kvplan.sim.report.page import charts
from kvplan.sim.report.page.charts import Axis, Mark, Part, Row
from kvplan.sim.report.page.content import Figure, Key, Section, Table
from kvplan.sim.report.page.place import Cell, Place, in_words, percent, plain, seconds, total, usd
from kvplan.sim.report.tiers import among, name_of, style_of

_NONE = "no run of it was finished"


def part(kind: str, cell: Cell) -> Part:
    """A piece of a bar, by what it is of."""
    return Part(name_of(kind), cell, style_of(kind))


def keys(kinds: Sequence[str]) -> list[Key]:
    """The legend of such parts."""
    return [Key(name_of(kind), style_of(kind), True) for kind in kinds]


def whole_percent(value: float) -> str:
    """Of a share, for axes."""
    return f"{100 * value:.0f}%"


def in_unit(key: str) -> Callable[[float], str]:
    """How a measure is shown: in its own unit."""
    if key.partition(".")[0].endswith("_s") and key.partition(".")[2]:
        return seconds
    if key.startswith("cost_usd"):
        return usd
    shown = metric(key)
    return lambda value: in_words(shown.scale * value, shown.unit)


def hits(found: Sequence[tuple[str, Place, str]]) -> list[Figure]:
    """Bars of resumed turns served by tier: a name, where its figures are, and under which key, with `{}` for the tier."""
    known = [place.at(key.format("dram")).value is not None for _, place, key in found]
    if not any(known):
        return []
    given = {each.removeprefix(key.format("")) for _, place, key in found for each in place.value or () if each.startswith(key.format(""))}
    used = [tier for tier in among(given) if any(place.at(key.format(tier)).value for _, place, key in found)]
    cells = [[place.at(key.format(tier)).cell(percent) for tier in used] for _, place, key in found]
    totals = [total([place.at(key.format(tier)) for tier in used], percent) for _, place, key in found]
    rows = [
        Row(name, [part(tier, cell) for tier, cell in zip(used, row, strict=True)], together.text) if ran else Row(name, [], _NONE)
        for (name, *_), ran, row, together in zip(found, known, cells, totals, strict=True)
    ]
    drawn = charts.bars(rows, Axis("of resumed turns", whole_percent, low=0, high=1), "Hit rate by tier")
    numbers = Table(
        ["", *(name_of(tier) for tier in used), "together"],
        [[Cell(name), *row, together] for (name, *_), row, together in zip(found, cells, totals, strict=True)],
    )
    return [Figure("Hit rate by tier", drawn, "Turns that resume a session and find its KV.", keys(used), numbers)]


def line(times_s: Sequence[float], values: Sequence[float]) -> list[Mark]:
    """Over hours."""
    return [Mark(Cell(plain(time / 3600), time / 3600), Cell(plain(value), value)) for time, value in zip(times_s, values, strict=True)]


def in_server(series: Mapping[str, Sequence[float]]) -> list[float]:
    """Turns that run or wait, over time."""
    return [running + waiting for running, waiting in zip(series["running"], series["waiting"], strict=True)]


def hours(times_s: Sequence[Sequence[float]]) -> Axis:
    """The axis of such lines."""
    return Axis("hours", plain, low=0, high=max(max(times) for times in times_s) / 3600 or 1)


def background(found: Place, settings: str, of: Sequence[str] = ()) -> list[Section]:
    """The folded end: what it rests on, settings, provenance."""
    rows = found.at("assumptions").each()
    heads = ("of", "what", "value", "date", "source")
    sources = Table(heads, [[Cell(row.at(head).value or "") for head in heads] for row in rows])
    provenance = {key: value for key, value in (found.value.get("provenance") or {}).items() if key != "config"}
    return [
        Section("Assumptions, with their sources", lines=of, table=sources, folded=True),
        Section("Settings that the runs used", text=settings, folded=True),
        Section("Provenance", text=strictyaml.dumps(provenance), folded=True),
    ]
