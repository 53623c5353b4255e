"""The page of one run, beside recomputation where it was run as well."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kvplan.hwmodels import strictyaml
from kvplan.sim.counted import counted
from kvplan.sim.metrics.thinned import thinned
from kvplan.sim.report import moving, table
from kvplan.sim.report.page import charts, common
from kvplan.sim.report.page.charts import Axis, Level, Part, Row, Series
from kvplan.sim.report.page.content import Figure, Key, Page, Section, Table, Tile
from kvplan.sim.report.page.place import Cell, Place, percent, plain, seconds, size, usd
from kvplan.sim.report.tiers import among, name_of, style_of

OURS, THEIRS = 1, 0
"""Styles of the run and of recomputation."""
_POINTS = 160


def page(found: Place, settings: Mapping[str, Any], series: Mapping[str, np.ndarray]) -> Page:
    """Of summary.json, the settings that were used, and tiers.parquet."""
    summary = found.value
    baseline = summary.get("recompute")
    said = table.words(summary, baseline)
    finding = [line for line in said if line.startswith("Against recomputation")] or said[:1]
    return Page(
        title=f"{settings['model']} on {counted(summary['gpu']['gpus'], 'GPU')} of {settings['hardware']}",
        question=table.title(summary),
        finding=finding,
        tiles=_tiles(found),
        warnings=table.warnings(summary, baseline),
        sections=[
            Section("Beside recomputation" if baseline else "The run", [line for line in said if line not in finding], _table(found)),
            _rounds(found),
            *_moving(found),
            Section("Figures", figures=[*_latencies(found), *common.hits(_hits(found)), *_busy(found), *_costs(found)]),
            Section("Over time" + _which(series), figures=_times(found, series)),
            *common.background(found, strictyaml.dumps(dict(settings))),
        ],
    )


def _rounds(found: Place) -> Section:
    """Place by place in the session; folded unless clients send the turns, whose rounds these are."""
    rows = Table(table.by_turn_heads(found), table.by_turn(found))
    return Section("By turn of the session", table=rows, folded="client_wait_s" not in found.value)


def _moving(found: Place) -> list[Section]:
    """What the links could do, and what the connector does."""
    data = found.value.get("moving")
    if not data:
        return []
    rows = [[Cell(text) for text in row] for row in moving.rows(data)]
    return [Section("How KV gets to the GPUs", table=Table(moving.heads(data), rows, sorts=False), folded=True)]


def _sides(found: Place) -> list[tuple[str, Place, int]]:
    """The run, and recomputation where there is one: name, figures, style."""
    sides = [("this run", found, OURS)]
    return [*sides, ("recompute", found.at("recompute"), THEIRS)] if found.value.get("recompute") else sides


def _hits(found: Place) -> list[tuple[str, Place, str]]:
    return [(name, side.at("hit_rate"), "{}") for name, side, _ in _sides(found)]


def _tiles(found: Place) -> list[Tile]:
    def beside(*keys: str, show=seconds) -> Cell:
        other = found.at("recompute", *keys)
        return Cell("") if other.value is None else other.cell(lambda value: f"recompute: {show(value)}")

    cost = ("cost_usd", "per_million_output_tokens")
    return [
        Tile("hit rate of resumed turns", found.at("hit_rate", "resumed").cell(percent)),
        Tile("hit rate of all prompt tokens", found.at("hit_rate", "tokens").cell(percent)),
        Tile("TTFT p95", found.at("ttft_s", "p95").cell(seconds), beside("ttft_s", "p95")),
        Tile("TTFT mean", found.at("ttft_s", "mean").cell(seconds), beside("ttft_s", "mean")),
        Tile("GPUs busy", found.at("gpu", "utilization").cell(percent), beside("gpu", "utilization", show=percent)),
        Tile("a million output tokens", found.at(*cost).cell(usd), beside(*cost, show=usd)),
    ]


def _table(found: Place) -> Table:
    return Table(table.heads(found.value.get("recompute")), table.cells(found), sorts=False)


# --- figures ----------------------------------------------------------------------------------------------------------------------

_STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def _latencies(found: Place) -> list[Figure]:
    known = (
        ("Time to first token", "ttft_s", "From arrival."),
        ("Prefill", "prefill_s", "The same without queueing: loading KV, and computing."),
    )
    return [_latency(found, *each) for each in known]


def _latency(found: Place, title: str, key: str, note: str) -> Figure:
    sides = _sides(found)
    cells = [[side.at(key, statistic).cell(seconds) for statistic in _STATISTICS] for _, side, _ in sides]
    drawn = charts.dots(_STATISTICS, cells, [style for *_, style in sides], Axis("", seconds, log=True), title)
    rows = [[Cell(statistic), *row] for statistic, row in zip(_STATISTICS, zip(*cells, strict=True), strict=True)]
    return Figure(title, drawn, note, _keys(found), Table(["", *(name for name, *_ in sides)], rows))


def _keys(found: Place) -> list[Key]:
    return [Key(name, style, False) for name, _, style in _sides(found)]


_BUSY = (
    ("decode_s", "decoding", 3),
    ("prefill_s", "prefilling", 2),
    ("load_stall_s", "waiting for KV", 4),
    ("save_stall_s", "saving KV", 1),
)


def _busy(found: Place) -> list[Figure]:
    """What the GPUs do."""
    rows, numbers = [], []
    for name, side, _ in _sides(found):
        parts = [Part(label, side.at("gpu", key).cell(seconds), style) for key, label, style in _BUSY]
        rows.append(Row(name, parts, side.at("gpu", "busy_s").cell(seconds).text))
        numbers.append([Cell(name), *(part.cell for part in parts)])
    keys = [Key(label, style, True) for key, label, style in _BUSY if any(side.at("gpu", key).value for _, side, _ in _sides(found))]
    drawn = charts.bars(rows, Axis("busy time of a replica, all replicas together", seconds), "What the GPUs do")
    return [Figure("What the GPUs do", drawn, "", keys, Table(["", *(label for _, label, _ in _BUSY)], numbers))]


def _costs(found: Place) -> list[Figure]:
    kinds = [
        kind for kind in ("gpu", *among(found.value["hit_rate"])) if any(side.at("cost_usd", kind).value for _, side, _ in _sides(found))
    ]
    rows, numbers = [], []
    for name, side, _ in _sides(found):
        parts = [common.part(kind, side.at("cost_usd", kind).cell(usd)) for kind in kinds]
        rows.append(Row(name, parts, side.at("cost_usd", "total").cell(usd).text))
        numbers.append([Cell(name), *(part.cell for part in parts), side.at("cost_usd", "total").cell(usd)])
    drawn = charts.bars(rows, Axis("of the run", usd), "Cost of the run by part")
    heads = ["", *(name_of(kind) for kind in kinds), "together"]
    return [Figure("What the run costs", drawn, "", common.keys(kinds), Table(heads, numbers))]


def _which(series: Mapping[str, np.ndarray]) -> str:
    return "" if (np.asarray(series["replica"]) == 0).all() else ", in the first replica"


def _times(found: Place, series: Mapping[str, np.ndarray]) -> list[Figure]:
    """Turns in the server, and each tier with its capacity."""
    mine = thinned(series, _POINTS)
    replicas = found.value["gpu"]["replicas"]
    hours = common.hours([mine["time_s"]])
    lines = [
        Series(name, common.line(mine["time_s"], mine[name]), style, signs=False, solid=True)
        for name, style in (("waiting", 2), ("running", 3))
    ]
    other = found.at("recompute", "series").value
    if other:
        lines.insert(0, Series("recompute, both", common.line(other["time_s"], common.in_server(other)), THEIRS, signs=False, solid=True))
    drawn = charts.plot(lines, hours, Axis("turns", plain, low=0), "Turns that run and wait")
    figures = [Figure("Turns in the server", drawn, "", [Key(line.name, line.style, False) for line in lines])]
    return figures + [_fill(found, tier, mine, hours, replicas) for tier in found.value["tiers"]]


def _fill(found: Place, tier: str, mine: Mapping[str, Sequence[float]], hours: Axis, replicas: int) -> Figure:
    name, place = name_of(tier), found.at("tiers", tier)
    capacity = place.value["capacity_bytes"] / replicas
    times, nothing = mine["time_s"], [0.0] * len(mine["time_s"])
    lines = [
        Series("recompute", common.line(times, nothing), THEIRS, signs=False),
        Series(name, common.line(times, mine[f"{tier}_bytes"]), style_of(tier), signs=False, solid=True),
    ]
    drawn = charts.plot(lines, hours, Axis("held", size, low=0), f"{name} over time", [Level(capacity, f"capacity {size(capacity)}")])
    numbers = Table(["", "all replicas"], [[Cell(key.removesuffix("_bytes")), place.at(key).cell(size)] for key in place.value])
    keys = [Key(name, style_of(tier), False), Key("recompute keeps nothing", THEIRS, False)]
    return Figure(f"{name} over time", drawn, "", keys, numbers)
