"""The page of a plan: which store, how many GPUs, what it costs, and against what."""

from string import ascii_uppercase

from kvplan.hwmodels import strictyaml
from kvplan.sim.counted import counted
from kvplan.sim.report.page import charts, common
from kvplan.sim.report.page.charts import Axis, Level, Mark, Part, Row, Series, Swing
from kvplan.sim.report.page.common import whole_percent
from kvplan.sim.report.page.content import Figure, Key, Page, Section, Table, Tile
from kvplan.sim.report.page.place import NONE, Cell, Place, count, fine_usd, percent, plain, seconds, size, usd
from kvplan.sim.report.page.svg import STYLES
from kvplan.sim.report.tiers import among, name_of


def page(found: Place) -> Page:
    """Of plan.json."""
    data, options = found.value, found.at("options").each()
    best = _best(found)
    return Page(
        title=f"{data['model']} on {data['hardware']}: {_headline(best)}",
        question=data["title"],
        finding=[*data["finding"], *([] if best else data["meaning"])],
        tiles=_tiles(found, best),
        warnings=best.value["warnings"] if best else (),
        sections=[
            Section("GPUs and dollars at equal service", figures=[*_sizes(options), *_money(options), *_front(data, options)]),
            Section("Options", table=_table(options, data["cheapest"])),
            Section("What it means", data["meaning"] if best else ()),
            Section("Service and load", figures=[*_service(data, options), *_hits(options), *_resources(options)]),
            Section("Over time, in one replica", figures=_times(options)),
            *_robustness(found.at("robust")),
            Section("To paste", text="\n".join(data["paste"]), folded=True),
            *common.background(found, strictyaml.dumps(data["settings"])),
        ],
    )


def _best(found: Place) -> Place | None:
    options = found.at("options").each()
    return next((option for option in options if option.value["option"] == found.value["cheapest"]), None)


def _headline(best: Place | None) -> str:
    return "no plan" if best is None else f"{counted(best.value['gpus'], 'GPU')} with {best.value['option']}"


def name(option: Place) -> str:
    """With its letter, which figures know it by."""
    return f"{letter(option)} {option.value['option']}"


def letter(option: Place) -> str:
    """`A`, `B`, …, by its place in the list."""
    number = _number(option)
    return ascii_uppercase[number % 26] * (1 + number // 26)


def _number(option: Place) -> int:
    return int(option.pointer.rsplit("/", 1)[1])


def _style(option: Place) -> int:
    return _number(option) % STYLES


def _keys(options: list[Place], filled: bool = False) -> list[Key]:
    return [Key(name(option), _style(option), filled) for option in options]


def _tiles(found: Place, best: Place | None) -> list[Tile]:
    if best is None:
        return []
    tiles = [
        Tile(
            "GPUs", best.at("gpus").cell(count), Cell(f"{counted(best.value['replicas'], 'replica')} of {best.value['gpus_of_a_replica']}")
        ),
        Tile("a month", best.at("usd_per_month").cell(usd), Cell(best.value["option"])),
        Tile("TTFT p95", best.at("ttft_p95_s").cell(seconds)),
        Tile("prompt tokens from the cache", best.at("token_hit_rate").cell(percent)),
    ]
    known = [label for label, saved in best.value["gpus_saved"].items() if saved]
    return tiles + [
        Tile(
            f"GPUs saved against {label}",
            best.at("gpus_saved", label, "value").cell(count),
            best.at("usd_saved_per_month", label).cell(_less),
        )
        for label in known
    ]


def _less(value: float) -> str:
    return f"{usd(value)} a month less"


def _table(options: list[Place], cheapest: str | None) -> Table:
    heads = ["store", "replicas", "GPUs", "$ a month", "$ a session", "TTFT p95", "token hits", "short of", "sure to hold", "what to know"]
    marked = next((number for number, option in enumerate(options) if option.value["option"] == cheapest), None)
    return Table(heads, [_row(option) for option in options], marked)


def _row(option: Place) -> list[Cell]:
    known = [option.value["reason"]] if option.value["replicas"] is None else _notes(option.value)
    return [
        Cell(name(option)),
        _replicas(option),
        option.at("gpus").cell(count),
        option.at("usd_per_month").cell(usd),
        option.at("usd", "per_session").cell(fine_usd),
        option.at("ttft_p95_s").cell(seconds),
        option.at("token_hit_rate").cell(percent),
        Cell(option.value["binding"] or NONE),
        option.at("probability").cell(whole_percent),
        Cell("; ".join(filter(None, known))),
    ]


def _replicas(option: Place) -> Cell:
    """With the ends of its interval, where these are others."""
    found, sure = option.at("replicas"), option.value["replicas_interval"]
    if not sure or sure["low"] == sure["high"]:
        return found.cell(count)
    ends = f"{sure['low']} or more" if sure["high"] is None else f"{sure['low']} to {sure['high']}"
    return found.cell(lambda value: f"{value} ({ends})")


def _notes(option: dict) -> list[str]:
    """What to know about an answer."""
    worn = option["wear"]
    years = [f"drives last {worn['years']:.2g} years"] if worn and worn["too_short"] else []
    return [*option["doubts"], *years, *["never filled"] * (not option["fills"])]


# --- figures ----------------------------------------------------------------------------------------------------------------------

_NO = "does not meet it with any number"
_SEEN = 0.005
"""Least share of a resource that is worth a row; what is over 1 is none in use, but a life that ends too soon."""


def _sizes(options: list[Place]) -> list[Figure]:
    cells = [option.at("gpus").cell(count) for option in options]
    if not any(cell.value for cell in cells):
        return []
    rows = [
        Row(name(option), [Part("GPUs", cell, _style(option))], cell.text, _gpu_ends(option)) if cell.value else Row(name(option), [], _NO)
        for option, cell in zip(options, cells, strict=True)
    ]
    numbers = Table(["store", "GPUs"], [[Cell(name(option)), cell] for option, cell in zip(options, cells, strict=True)])
    note = "Strokes: what the runs leave open." if any(row.ends for row in rows) else ""
    return [Figure("GPUs that it takes", charts.bars(rows, Axis("GPUs", count, whole=True), "GPUs by store"), note, numbers=numbers)]


def _gpu_ends(option: Place) -> tuple[float, float] | None:
    """Of the interval; one without an end is drawn to the answer."""
    sure, each = option.value["replicas_interval"], option.value["gpus_of_a_replica"]
    if not sure or sure["low"] == sure["high"]:
        return None
    return each * sure["low"], each * (sure["high"] or sure["value"])


def _money(options: list[Place]) -> list[Figure]:
    known = [option for option in options if option.value["cost_usd_per_month"]]
    if not known:
        return []
    kinds = list(dict.fromkeys(kind for option in known for kind in option.value["cost_usd_per_month"]))
    paid = [kind for kind in kinds if any(option.value["cost_usd_per_month"].get(kind) for option in known)]
    rows = []
    for option in options:
        costs = option.at("cost_usd_per_month")
        parts = [common.part(kind, costs.at(kind).cell(usd)) for kind in paid] if costs.value else []
        rows.append(Row(name(option), parts, option.at("usd_per_month").cell(usd).text if parts else _NO))
    free = [name_of(kind) for kind in kinds if kind not in paid]
    note = f"Costs nothing more here: {', '.join(free)}." if free else ""
    numbers = Table(
        ["store", *(name_of(kind) for kind in paid), "together"],
        [
            [Cell(name(option)), *(option.at("cost_usd_per_month", kind).cell(usd) for kind in paid), option.at("usd_per_month").cell(usd)]
            for option in known
        ],
    )
    drawn = charts.bars(rows, Axis("a month", usd), "Dollars a month by store and part")
    return [Figure("What it costs a month", drawn, note, common.keys(paid), numbers)]


def _front(data: dict, options: list[Place]) -> list[Figure]:
    """Cost against TTFT."""
    known = [option for option in options if option.value["usd_per_month"] is not None and option.value["ttft_p95_s"] is not None]
    if len(known) < 2:
        return []
    front = [(each["option"], each["replicas"]) for each in data["pareto"]]
    series = [
        Series(
            name(option),
            [
                Mark(
                    option.at("usd_per_month").cell(usd),
                    option.at("ttft_p95_s").cell(seconds),
                    hollow=(option.value["option"], option.value["replicas"]) not in front,
                )
            ],
            _style(option),
            letter(option),
        )
        for option in known
    ]
    drawn = charts.plot(series, Axis("dollars a month", usd, near=True), Axis("TTFT p95", seconds, near=True), "TTFT p95 against cost")
    note = "Filled: no other is both cheaper and faster (Pareto front). Down and left is better."
    return [Figure("Cost against TTFT", drawn, note, _keys(known))]


def _service(data: dict, options: list[Place]) -> list[Figure]:
    """TTFT against the load of a replica: everything that was simulated."""
    seen = [option for option in options if option.value["points"]]
    if not seen:
        return []
    series = [
        Series(name(option), [_probe(option, point) for point in _by_load(option)], _style(option), letter(option)) for option in seen
    ]
    targets = [
        Level(each["limit"], f"target {seconds(each['limit'])}")
        for each in data["targets"]
        if (each["measure"], each["statistic"]) == ("ttft", "p95")
    ]
    drawn = charts.plot(
        series,
        Axis("sessions/s of one replica", plain, near=True),
        Axis("TTFT p95", seconds, log=True),
        "TTFT p95 against load",
        targets,
        300,
    )
    note = (
        "Filled: meets the target. Hollow: does not. A cross: could not meet it any more and was ended early. Strokes: from the lowest run"
    )
    rows = [_probe_row(option, point) for option in seen for point in _by_load(option)]
    numbers = Table(["store", "replicas", "sessions/s each", "runs", "TTFT p95", "meets"], rows)
    return [Figure("TTFT against load", drawn, f"{note} to the highest.", _keys(seen), numbers)]


def _probe_row(option: Place, point: Place) -> list[Cell]:
    keys = (("replicas", count), ("sessions_per_s_of_a_replica", plain), ("runs", count), ("ttft_p95_s", seconds))
    return [Cell(name(option)), *(point.at(key).cell(show) for key, show in keys), Cell(_verdict(point.value))]


def _by_load(option: Place) -> list[Place]:
    return sorted(option.at("points").each(), key=lambda point: point.value["sessions_per_s_of_a_replica"])


def _verdict(point: dict) -> str:
    if point["ended_early"]:
        return "no, ended early"
    return {True: "yes", False: "no", None: "cannot be told"}[point["meets"]] + (", ever more turns wait" if point["rising"] else "")


def _probe(option: Place, point: Place) -> Mark:
    value = point.value
    ends = value["ttft_p95_range_s"] if value["runs"] > 1 and not value["ended_early"] else None
    load = point.at("sessions_per_s_of_a_replica").cell(plain)
    said = f"{name(option)}: {counted(value['replicas'], 'replica')}, {load.text} sessions/s each, {_verdict(value)}"
    shown = Cell(NONE) if value["ended_early"] else point.at("ttft_p95_s").cell(seconds)
    return Mark(load, shown, tuple(ends) if ends else None, not value["within"], said)


def _hits(options: list[Place]) -> list[Figure]:
    return common.hits([(name(option), option.at("figures"), "hit_rate.{}") for option in options])


def _resources(options: list[Place]) -> list[Figure]:
    """What each option uses of what it has."""
    known = [option for option in options if option.value["resources"]]
    if not known:
        return []
    kinds = list(dict.fromkeys(kind for option in known for kind in option.value["resources"]))
    used = [kind for kind in kinds if _SEEN <= max(option.value["resources"].get(kind) or 0 for option in known) <= 1]
    cells = [[option.at("resources", kind).cell(percent) for kind in used] for option in known]
    drawn = charts.dots(
        used, cells, [_style(option) for option in known], Axis("in use", common.whole_percent, low=0), "Resources in use by option"
    )
    numbers = Table(["store", *used], [[Cell(name(option)), *row] for option, row in zip(known, cells, strict=True)])
    return [
        Figure("What replicas use", drawn, "Share in use, in the mean; the fullest is what an option is short of.", _keys(known), numbers)
    ]


def _times(options: list[Place]) -> list[Figure]:
    """Turns in the server, and what each tier holds of its capacity."""
    known = [option for option in options if option.value["series"]]
    if not known:
        return []
    series = [
        Series(name(option), common.line(found["time_s"], common.in_server(found)), _style(option), letter(option), signs=False, solid=True)
        for option in known
        if (found := option.value["series"])
    ]
    hours = common.hours([option.value["series"]["time_s"] for option in known])
    drawn = charts.plot(series, hours, Axis("turns", plain), "Turns in the server over time")
    figures = [Figure("Turns in the server", drawn, "Running and waiting.", _keys(known))]
    for tier in among(tier for option in known for tier in option.value["tier_bytes"]):
        figures += _fill(tier, [option for option in known if option.value["tier_bytes"].get(tier)], hours)
    return figures


def _fill(tier: str, options: list[Place], hours: Axis) -> list[Figure]:
    if not options:
        return []
    series = []
    for option in options:
        found, capacity = option.value["series"], option.value["tier_bytes"][tier]
        shares = [held / capacity for held in found[f"{tier}_bytes"]]
        series.append(Series(name(option), common.line(found["time_s"], shares), _style(option), letter(option), signs=False, solid=True))
    label = name_of(tier)
    drawn = charts.plot(
        series, hours, Axis("of capacity", common.whole_percent, low=0, high=1.1), f"Fill of {label}", [Level(1, "capacity")]
    )
    rows = [[Cell(name(option)), option.at("tier_bytes", tier).cell(size)] for option in options]
    note = "Recomputation keeps nothing there."
    return [Figure(f"{label}: how full", drawn, note, _keys(options), Table(["store", f"{label} of a replica"], rows))]


# --- what else may be true --------------------------------------------------------------------------------------------------------


def _robustness(robust: Place) -> list[Section]:
    """The tornado and the what-ifs, where they were asked for."""
    if robust.value is None:
        return []
    unchanged = robust.at("unchanged")
    lines = [f"Each by planning again: {robust.value['simulations']} simulations more."]
    table = Table(_OUTCOME, [_outcome(each) for each in (unchanged, *robust.at("what_if").each())])
    return [Section("If it is otherwise", lines, table, _tornado(unchanged, robust.at("sensitivity").each()))]


_OUTCOME = ("what", "change", "cheapest", "GPUs", "$ a month", "without DRAM and SSD: GPUs", "$ a month", "saved", "why not")


def _outcome(found: Place) -> list[Cell]:
    shown = (("gpus", count), ("usd_per_month", usd), ("baseline_gpus", count), ("baseline_usd_per_month", usd), ("saved_share", percent))
    texts = [Cell(found.value[key] or NONE) for key in ("input", "change", "cheapest")]
    return [*texts, *(found.at(key).cell(show) for key, show in shown), Cell(found.value["reason"] or "")]


def _tornado(unchanged: Place, inputs: list[Place]) -> list[Figure]:
    """Dollars a month at both ends of each input, around the plan's."""
    base = unchanged.at("usd_per_month").cell(usd)
    if base.value is None:
        return []
    swings = [
        Swing(each.value["input"], *((_end(each.at(side)) if each.value[side] else None) for side in ("low", "high"))) for each in inputs
    ]
    drawn = charts.swings(swings, base, Axis("dollars a month", usd), "Dollars a month by input")
    note = f"The plan's {base.text} a month, if one input is lower or higher. A cross: no plan then."
    numbers = Table(_OUTCOME, [_outcome(end) for each in inputs for end in (each.at("low"), each.at("high")) if end.value])
    return [Figure("What the cost hangs on", drawn, note, [Key("lower", 1, True), Key("higher", 2, True)], numbers)]


def _end(outcome: Place) -> tuple[Cell, str]:
    return outcome.at("usd_per_month").cell(usd), outcome.value["change"]
