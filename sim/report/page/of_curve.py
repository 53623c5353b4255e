"""The page of a curve: hit rate and TTFT against the size of a tier."""

from kvplan.hwmodels import strictyaml
from kvplan.sim.report import compare, curve
from kvplan.sim.report.page import charts, common
from kvplan.sim.report.page.charts import Axis, Mark, Series
from kvplan.sim.report.page.content import Figure, Key, Page, Section, Table
from kvplan.sim.report.page.place import NONE, Cell, Place, percent, seconds, size
from kvplan.sim.report.page.svg import STYLES
from kvplan.sim.settings import without


def page(found: Place) -> Page:
    """Of curve.json."""
    data = found.value
    config, comparison = data["comparison"]["provenance"]["config"], found.at("comparison")
    unused = data["comparison"].get("unused_settings", ())
    varied = ["store.eviction", "store.prefetch", f"store.{data['tier']}"]
    return Page(
        title=f"How much {data['tier'].upper()}: {config['model']} on {config['hardware']}",
        question=curve.title(data),
        finding=_finding(data),
        warnings=[*map(compare.failure_text, data["failures"]), *(line.removeprefix("! ") for line in curve.warnings(data))],
        sections=[
            Section("Figures", figures=_figures(found)),
            Section("Sizes and policies", curve.sentences(data), _table(found)),
            *common.background(comparison, strictyaml.dumps(without(config, [*varied, *unused]))),
        ],
    )


def _finding(data: dict) -> list[str]:
    """The best of the largest size, and the smallest size that comes within a point of it."""
    points = [(line["policy"], point) for line in data["lines"] for point in line["points"]]
    if not points:
        return []
    policy, best = max(points, key=lambda each: (each[1]["hit_rate.resumed"]["mean"], -each[1]["bytes"]))
    most = best["hit_rate.resumed"]["mean"]
    near = min((point for name, point in points if name == policy and point["hit_rate.resumed"]["mean"] >= most - 0.01),
               key=lambda point: point["bytes"])  # fmt: skip
    tier = data["tier"].upper()
    half = best["hit_rate.resumed"]["half_width"]
    within = "" if half is None else f" ± {100 * half:.1f}"
    lines = [f"{policy} hits {percent(most)}{within} of resumed turns with {best['size']} of {tier}."]
    if others := _not_below(points, policy, best):
        lines.append(f"By these runs {' and '.join(others)} may hit as many.")
    return lines + [f"{near['size']} come within a point of that."] * (near is not best)


def _not_below(points: list[tuple[str, dict]], policy: str, best: dict) -> list[str]:
    """Other policies whose interval at the same size meets the best one's."""
    least = best["hit_rate.resumed"]["mean"] - (best["hit_rate.resumed"]["half_width"] or 0.0)
    return [
        name
        for name, point in points
        if name != policy and point["size"] == best["size"]
        if point["hit_rate.resumed"]["mean"] + (point["hit_rate.resumed"]["half_width"] or 0.0) >= least
    ]


def _figures(found: Place) -> list[Figure]:
    tier = found.value["tier"]
    panels = (
        ("hit_rate.resumed", "Hits in all tiers, of resumed turns", Axis("of resumed turns", common.whole_percent, low=0, high=1.02)),
        (
            "hit_rate.tokens",
            "Hits in all tiers, of all prompt tokens",
            Axis("of all prompt tokens", common.whole_percent, low=0, high=1.02),
        ),
        (f"hit_rate.{tier}", f"Hits in {tier.upper()}", Axis("of resumed turns", common.whole_percent, low=0, high=1.02)),
        ("ttft_s.mean", "Mean TTFT", Axis("TTFT", seconds, low=0)),
        ("ttft_s.p95", "TTFT p95", Axis("TTFT", seconds, low=0)),
    )
    return [_figure(found, *panel) for panel in panels]


def _figure(found: Place, key: str, title: str, axis: Axis) -> Figure:
    lines = [line for line in found.at("lines").each() if line.value["points"]]
    series = [
        Series(line.value["policy"], [_mark(point, key, axis) for point in line.at("points").each() if point.value["bytes"]], style(number))
        for number, line in enumerate(lines)
    ]
    clockless = [line for line in found.at("clockless").each() if line.value["points"] and key in line.value["points"][0]]
    series += [Series(line.value["name"], _bound(line, key, axis), 0, signs=False) for line in clockless]
    series += [Series("recompute", marks, 0, signs=False)] if (marks := _recomputation(found, key, axis)) else []
    tier = found.value["tier"].upper()
    drawn = charts.plot(series, Axis(f"{tier} of a replica", size, log=True), axis, title)
    return Figure(title, drawn, "", [Key(each.name, each.style, False) for each in series])


def _recomputation(found: Place, key: str, axis: Axis) -> list[Mark]:
    """Where it hits nothing there is none."""
    if key.startswith("hit_rate") or not found.value.get("recompute"):
        return []
    return across(found, found.at("recompute", key, "mean").cell(axis.show))


def across(found: Place, level: Cell) -> list[Mark]:
    """A line of one level over all sizes."""
    sizes = [each["bytes"] for each in found.value["sizes"] if each["bytes"]]
    return [Mark(Cell(size(each), each), level) for each in (min(sizes), max(sizes))] if sizes else []


def style(number: int) -> int:
    """Of a policy's line; 0 is the clockless one."""
    return 1 + number % (STYLES - 1)


def _mark(point: Place, key: str, axis: Axis) -> Mark:
    mean, half = point.at(key, "mean"), point.value[key]["half_width"]
    ends = None if half is None or mean.value is None else (mean.value - half, mean.value + half)
    return Mark(point.at("bytes").cell(size), mean.cell(axis.show), ends)


def _bound(line: Place, key: str, axis: Axis) -> list[Mark]:
    return [
        Mark(Cell(size(point["bytes"]), point["bytes"]), Cell(axis.show(point[key]), point[key]))
        for point in line.value["points"]
        if point["bytes"]
    ]


def _table(found: Place) -> Table:
    lines = [line for line in found.at("lines").each() if line.value["points"]]
    heads = [found.value["tier"].upper(), "of need"]
    heads += [f"{line.value['policy']}{what}" for line in lines for what in (", turns hit", ", tokens hit", ", TTFT")]
    rows = []
    for place in found.at("sizes").each():
        cells = [Cell(place.value["text"], place.value["bytes"]), place.at("rcc_to_held").cell(common.whole_percent)]
        for line in lines:
            point = at(line, place)
            cells += _cells(point) if point else [Cell(NONE)] * 3
        rows.append(cells)
    return Table(heads, rows)


def at(line: Place, size: Place) -> Place | None:
    """A line's point of a size, where it has one."""
    return next((point for point in line.at("points").each() if point.value["size"] == size.value["text"]), None)


def _cells(point: Place) -> list[Cell]:
    hit = point.at("hit_rate.resumed")
    half = hit.value["half_width"]
    text = percent(hit.value["mean"]) + ("" if half is None else f" ± {100 * half:.1f}")
    return [
        Cell(text, hit.value["mean"], hit.at("mean").pointer),
        point.at("hit_rate.tokens", "mean").cell(percent),
        point.at("ttft_s.mean", "mean").cell(seconds),
    ]
