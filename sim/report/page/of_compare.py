"""The page of a comparison: variants side by side, with intervals, and what can be told apart."""

from string import ascii_uppercase

from kvplan.hwmodels import strictyaml
from kvplan.sim.report import compare as report
from kvplan.sim.report.metric_names import metric
from kvplan.sim.report.page import charts, common
from kvplan.sim.report.page.charts import Axis, Mark, Part, Row, Series
from kvplan.sim.report.page.content import Figure, Key, Page, Section, Table
from kvplan.sim.report.page.place import Cell, Place, seconds, usd
from kvplan.sim.report.page.svg import STYLES
from kvplan.sim.settings import without

_MONEY = "cost_usd.per_million_output_tokens"


def page(found: Place) -> Page:
    """Of compare.json."""
    data, variants = found.value, found.at("variants").each()
    heads, cells = report.rows(found)
    cells = [[Cell(name(variant)), *row[1:]] for variant, row in zip(variants, cells, strict=True)]
    labels = [variant["label"] for variant in data["variants"]]
    config = data["provenance"]["config"]
    varied = [path for axis in data["axes"] for path in axis["paths"]]
    spread = [line for line in report.sentences(data) if line not in data["words"] and not line.startswith("! ")]
    return Page(
        title=f"{', '.join(varied)} compared: {config['model']} on {config['hardware']}",
        question=report.title(data),
        finding=data["words"],
        warnings=[*map(report.failure_text, data["failures"]), *(line.removeprefix("! ") for line in report.warnings(data))],
        sections=[
            Section("Variants", spread, Table(heads, cells, labels.index(data["baseline"]) if data["baseline"] in labels else None)),
            Section("Figures", figures=_figures(data, variants)),
            *common.background(found, strictyaml.dumps(without(config, [*varied, *data.get("unused_settings", ())]))),
        ],
    )


def _figures(data: dict, variants: list[Place]) -> list[Figure]:
    keys = dict.fromkeys([data["metric"], "prefill_tokens_per_s", _MONEY, "ssd_wear.bytes_per_day"])
    drawn = [key for key in keys if key not in ("hit_rate.resumed", "ttft_s.mean") and any(v.value["mean"].get(key) for v in variants)]
    return [*_hits(variants), *_latency(variants), *(_bars(variants, key) for key in drawn), *_front(variants)]


def name(variant: Place) -> str:
    """With its letter, which figures know it by."""
    return f"{letter(variant)} {variant.value['label']}"


def letter(variant: Place) -> str:
    """`A`, `B`, …, by its place in the list."""
    number = _number(variant)
    return ascii_uppercase[number % 26] * (1 + number // 26)


def _number(variant: Place) -> int:
    return int(variant.pointer.rsplit("/", 1)[1])


def _hits(variants: list[Place]) -> list[Figure]:
    return common.hits([(name(variant), variant.at("mean"), "hit_rate.{}") for variant in variants])


def _latency(variants: list[Place]) -> list[Figure]:
    known = [variant for variant in variants if "ttft_s.mean" in variant.value["mean"]]
    if not known:
        return []
    cells = [[variant.at("mean", key).cell(seconds) for variant in known] for key in ("ttft_s.mean", "ttft_s.p95")]
    names = [letter(variant) for variant in known]
    drawn = charts.dots(names, cells, (1, 2), Axis("TTFT", seconds, low=0), "TTFT by variant")
    rows = [[Cell(name(variant)), *row] for variant, row in zip(known, zip(*cells, strict=True), strict=True)]
    keys = [Key("mean", 1, False), Key("p95", 2, False)]
    return [Figure("TTFT, mean and p95", drawn, "", keys, Table(["", "mean", "p95"], rows))]


def _bars(variants: list[Place], key: str) -> Figure:
    shown = metric(key)
    known = [variant for variant in variants if key in variant.value["mean"]]
    cells = [variant.at("mean", key).cell(common.in_unit(key)) for variant in known]
    rows = [
        Row(name(variant), [Part(shown.name, cell, 1)], cell.text, _ends(variant, key)) for variant, cell in zip(known, cells, strict=True)
    ]
    title = shown.name[:1].upper() + shown.name[1:]
    numbers = Table(["", shown.name], [[Cell(name(variant)), cell] for variant, cell in zip(known, cells, strict=True)])
    note = "Strokes: 95 % intervals of the means." if any(row.ends for row in rows) else ""
    return Figure(title, charts.bars(rows, Axis("", common.in_unit(key)), title), note, numbers=numbers)


def _ends(variant: Place, key: str) -> tuple[float, float] | None:
    mean, half = variant.value["mean"][key], variant.value["half_width"].get(key)
    return None if half is None else (mean - half, mean + half)


def _front(variants: list[Place]) -> list[Figure]:
    known = [variant for variant in variants if variant.value["mean"].get(_MONEY) and variant.value["mean"].get("ttft_s.p95")]
    if len(known) < 2:
        return []
    series = [
        Series(
            name(variant),
            [Mark(variant.at("mean", _MONEY).cell(usd), variant.at("mean", "ttft_s.p95").cell(seconds))],
            _number(variant) % STYLES,
            letter(variant),
        )
        for variant in known
    ]
    drawn = charts.plot(series, Axis("a million output tokens", usd, near=True), Axis("TTFT p95", seconds, near=True), "TTFT against cost")
    keys = [Key(name(variant), _number(variant) % STYLES, False) for variant in known]
    return [Figure("Cost against TTFT", drawn, "Down and left is better.", keys)]
