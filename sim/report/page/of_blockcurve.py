"""The page of a curve of blocks: hit rate of all prompt tokens against the size of a cache."""

from kvplan.hwmodels import strictyaml
from kvplan.sim.report import blockcurve
from kvplan.sim.report.blockcurve_account import BELOW, TOKENS
from kvplan.sim.report.page import charts, common
from kvplan.sim.report.page.charts import Axis, Mark, Series
from kvplan.sim.report.page.content import Figure, Key, Page, Section, Table
from kvplan.sim.report.page.of_curve import across, at, style
from kvplan.sim.report.page.place import NONE, Cell, Place, count, percent, size

_NEAR = 0.01


def page(found: Place) -> Page:
    """Of curve.json, where its unit is the block."""
    data = found.value
    return Page(
        title=f"How much {data['tier'].upper()} for prefixes: {data['model']}, as {data['mode']} keeps them",
        question=blockcurve.title(data),
        finding=_finding(data),
        warnings=data["warnings"],
        sections=[
            Section("Figures", figures=_figures(found)),
            Section("Sizes and policies", data["notes"], _table(found)),
            *common.background(found, strictyaml.dumps(data["config"])),
        ],
    )


def _finding(data: dict) -> list[str]:
    """What an endless cache hits, and the smallest size that comes near to it or the best of the largest, of what a server could do."""
    most, lines = data["endless"][TOKENS], [line for line in data["lines"] if not line["foresees"]]
    points = [(point["bytes"], -point[TOKENS], line["policy"], point) for line in lines for point in line["points"]]
    near = [each for each in points if -each[1] >= most - _NEAR]
    said, tier = [f"An endless cache hits {percent(most)} of all prompt tokens."], data["tier"].upper()
    if data["below"]:
        above = next(point[TOKENS] - point[BELOW] for line in data["lines"] for point in line["points"])
        said = [f"HBM alone hits {percent(above)} of all prompt tokens, and with endless {tier} {percent(most)}."]
        if above >= most - _NEAR:
            return [*said, f"No {tier} is needed for that within a point."]
    if near:
        *_, policy, point = min(near, key=lambda each: each[:2])
        return [*said, f"{point['size']} of {tier} come within a point of that ({policy}): {percent(point[TOKENS])}."]
    if points:
        *_, policy, point = max(points, key=lambda each: (-each[1], -each[0]))
        return [*said, f"{point['size']} of {tier}, the best size tried, hit {percent(point[TOKENS])} ({policy})."]
    return said


def _figures(found: Place) -> list[Figure]:
    panels = [(TOKENS, "Hits of all prompt tokens")]
    panels += [(BELOW, "Hits in DRAM alone, of all prompt tokens")] if found.value["below"] else []
    return [_figure(found, *panel) for panel in panels]


def _figure(found: Place, key: str, title: str) -> Figure:
    axis = Axis("of all prompt tokens", common.whole_percent, low=0)
    series = [
        Series(
            line.value["policy"],
            [
                Mark(point.at("bytes").cell(size), point.at(key).cell(axis.show))
                for point in line.at("points").each()
                if point.value["bytes"]
            ],
            style(number),
        )
        for number, line in enumerate(found.at("lines").each())
    ]
    marks = across(found, found.at("endless", TOKENS).cell(axis.show)) if key == TOKENS else []
    series += [Series("endless", marks, 0, signs=False)] if marks else []
    drawn = charts.plot(series, Axis(found.value["tier"].upper(), size, log=True), axis, title)
    return Figure(title, drawn, "", [Key(each.name, each.style, False) for each in series])


def _table(found: Place) -> Table:
    below = bool(found.value["below"])
    heads = [found.value["tier"].upper(), "chunks" if below else "blocks"]
    heads += [f"{line['policy']}{what}" for line in found.value["lines"] for what in (", tokens hit", *[", in DRAM", ", stored"] * below)]
    rows = []
    for place in found.at("sizes").each():
        cells = [Cell(place.value["text"], place.value["bytes"]), place.at("blocks").cell(count)]
        for line in found.at("lines").each():
            point = at(line, place)
            cells += [Cell(NONE)] * (1 + 2 * below) if point is None else _cells(point, below)
        rows.append(cells)
    return Table(heads, rows)


def _cells(point: Place, below: bool) -> list[Cell]:
    more = [point.at(BELOW).cell(percent), _stored(point)] if below else []
    return [point.at(TOKENS).cell(percent), *more]


def _stored(point: Place) -> Cell:
    stored = point.at("below", "stored_chunks")
    return Cell(NONE) if stored.value is None else stored.cell(count)
