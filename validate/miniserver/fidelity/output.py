"""The comparison as a table on stdout, and as JSON, CSV, picture and page."""

import base64
import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kvplan.sim.files.atomic import replacing
from kvplan.sim.files.ours import Kind, check_folder, says
from kvplan.sim.report.picture import picture
from kvplan.validate.miniserver.fidelity.compare import CALIBRATIONS, HIT_RATES, Pair, Row
from kvplan.validate.show import show as show_table

JSON, CSV, PICTURE, PAGE = "fidelity.json", "fidelity.csv", "fidelity.png", "fidelity.html"
_CATALOGUE = tuple(f"catalogue/{kind}/*.yaml" for kind in ("calibration", "gpu", "link", "models", "node", "prices", "ssd"))


def _is_ours(folder: Path) -> bool:
    """By its command, and by the entries that it put into the catalogue: another one is the user's."""
    entries = {path.relative_to(folder).as_posix() for path in folder.glob("catalogue/*/*")}
    return says(folder / JSON, lambda found: "validate fidelity" in found["about"]["command"] and entries <= set(found["catalogue"]))


KIND = Kind("fidelity folder", _is_ours, (JSON, CSV, PICTURE, PAGE, *_CATALOGUE))
_TABLE = (*HIT_RATES, "TTFT, mean", "TTFT, p95", "prefill, mean", "TPOT, mean", "busy time", "makespan")
_OVERVIEWS = {
    "training": "Errors of the simulator, calibrated by steps and transfers of the server on other traces",
    "own": "Errors of the simulator, calibrated by steps and transfers of the very run it is compared with",
    "case": "Errors of the simulator, calibrated by kernels and transfers timed alone",
}
"""In the order of CALIBRATIONS."""
TARGETS = {**dict.fromkeys(HIT_RATES, 1.0), "TTFT, mean": 0.1, "busy time": 0.1}
"""Points, and shares."""


def check_out(out: Path, case: Path) -> None:
    """Before a long run. Raises OutputError when `write_pairs` could not write there, or would replace the case."""
    check_folder(out, KIND, [case])


def data(pairs: Sequence[Pair], about: dict, entries: Sequence[str]) -> dict:
    """All of it as plain data; `entries` are the paths of the catalogue's."""
    return {"about": about, "catalogue": list(entries), "scenarios": [_scenario(pair) for pair in pairs]}


def _scenario(pair: Pair) -> dict:
    found = {
        "name": pair.scenario.name,
        "load": pair.scenario.load,
        "overrides": list(pair.scenario.overrides),
        "turns": pair.served.summary["turns"],
        "own_work_s": pair.served.own_s,
        "idle_s": pair.served.idle_s,
        "faults": asdict(pair.served.faults),
    }
    for name in CALIBRATIONS:
        rows = {row.quantity: {**asdict(row), "error": row.error, "noise": row.noise} for row in pair.rows(name)}
        found[name] = {"quantities": rows, "busy_time_explained": asdict(pair.explained[name])}
    return found


def write_pairs(out: Path, pairs: Sequence[Pair], about: dict, catalogue: Path) -> None:
    """Writes the folder, whole or not at all. Raises WriteError."""
    with replacing(out, KIND) as temporary:
        shutil.copytree(catalogue, temporary / "catalogue")
        entries = sorted(path.relative_to(temporary).as_posix() for path in temporary.glob("catalogue/*/*"))
        (temporary / JSON).write_text(json.dumps(data(pairs, about, entries), indent=1) + "\n", encoding="utf-8")
        _write_csv(temporary / CSV, pairs)
        _draw(temporary / PICTURE, pairs)
        (temporary / PAGE).write_text(_page(pairs, about, temporary / PICTURE), encoding="utf-8")


def _write_csv(path: Path, pairs: Sequence[Pair]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("scenario", "calibration", "quantity", "served", "served_again", "simulated", "error", "noise"))
        for pair in pairs:
            for name in CALIBRATIONS:
                for row in pair.rows(name):
                    numbers = (row.served, row.served_again, row.simulated, row.error, row.noise)
                    cells = ("" if number is None else f"{number:.6g}" for number in numbers)
                    writer.writerow((pair.scenario.name, name, row.quantity, *cells))


# --- tables -----------------------------------------------------------------------------------------------------------------------


def show(pairs: Sequence[Pair], about: dict) -> None:
    """Prints a table per scenario, and one of all of them."""
    for pair in pairs:
        show_table(f"{pair.scenario.name}: {pair.served.summary['turns']} turns", _COLUMNS, detail(pair))
    for name, title in _OVERVIEWS.items():
        show_table(f"{title} (* beyond the target)", *overview(pairs, name))
    show_table("Why the busy time differs, % of it", *reasons(pairs))
    print(f"clock: {_clock(about['clock'])}; load average {about['load_1_min']} to {about['load_1_min_at_end']}")


_COLUMNS = ["quantity", "served", "again", "noise", *(cell for name in CALIBRATIONS for cell in (f"by {name}", "error"))]


def detail(pair: Pair) -> list[list[str]]:
    """Cells of one scenario's table, under `_COLUMNS`."""
    found = []
    for rows in zip(*(pair.rows(name) for name in CALIBRATIONS), strict=True):
        row = rows[0]
        again = "" if row.served_again is None else f"{row.served_again:.4g}"
        simulated = [cell for each in rows for cell in (f"{each.simulated:.4g}", _error(each, each.error))]
        found.append([row.quantity, f"{row.served:.4g}", again, _error(row, row.noise), *simulated])
    return found


def overview(pairs: Sequence[Pair], calibration: str) -> tuple[list[str], list[list[str]]]:
    """Columns and cells of the table of all scenarios: errors, and the noise below scenarios that were served twice."""
    cells = []
    for pair in pairs:
        rows = {row.quantity: row for row in pair.rows(calibration)}
        cells.append([pair.scenario.name, *(_error(rows[name], rows[name].error, TARGETS) for name in _TABLE)])
        if pair.again:
            cells.append(["  server against itself", *(_error(rows[name], rows[name].noise) for name in _TABLE)])
    return ["scenario", *(name.replace(", resumed turns", "").replace("hits ", "") for name in _TABLE)], cells


def reasons(pairs: Sequence[Pair]) -> tuple[list[str], list[list[str]]]:
    """Columns and cells: what the error of the busy time is made of."""
    cells = []
    for pair in pairs:
        numbers = [each for name in CALIBRATIONS for each in (pair.explained[name].step_times, pair.explained[name].other_steps)]
        cells.append([pair.scenario.name, *(f"{100 * number:+.1f}" for number in (*numbers, pair.explained["case"].own_work))])
    columns = [f"{part}, {name}" for name in CALIBRATIONS for part in ("step times", "other steps")]
    return ["scenario", *columns, "the server's own work"], cells


def _error(row: Row, error: float | None, targets: dict[str, float] | None = None) -> str:
    if error is None:
        return ""
    text = f"{error:+.1f} pt" if row.quantity in HIT_RATES else f"{100 * error:+.1f}%"
    beyond = targets is not None and row.quantity in targets and abs(error) > targets[row.quantity]
    return f"{text} *" if beyond else text


def _clock(name: str) -> str:
    if name == "wall":
        return "wall (real time)"
    return "steady (computing counts at the machine's usual speed, waiting for transfers real time; what other programs take is left out)"


# --- picture and page -------------------------------------------------------------------------------------------------------------

_DRAWN = ("TTFT, mean", "TTFT, p95", "prefill, mean", "TPOT, mean", "busy time", "makespan")


def _draw(path: Path, pairs: Sequence[Pair]) -> None:
    """Served against simulated: seconds and bytes on logarithmic axes, hit rates on linear ones."""
    rows = [row for pair in pairs for row in pair.rows(CALIBRATIONS[0])]
    with picture(path, 1, 2, (10, 4.6)) as (_, (seconds, hits)):
        _scatter(seconds, [[row for row in rows if row.quantity == name] for name in _DRAWN], "seconds", 0.1)
        seconds.set(xscale="log", yscale="log")
        _scatter(hits, [[row for row in rows if row.quantity == name] for name in HIT_RATES], "% of resumed turns", 0.0)


def _scatter(axes, groups: list[list[Row]], unit: str, band: float) -> None:
    """One colour per quantity, the diagonal, and a band of that share around it."""
    values = [value for rows in groups for row in rows for value in (row.truth, row.simulated) if value > 0]
    ends = np.array([0.8 * min(values, default=0.1), 1.1 * max(values, default=1)])
    axes.plot(ends, ends, color="#888888", linewidth=1)
    if band:
        axes.fill_between(ends, (1 - band) * ends, (1 + band) * ends, color="#888888", alpha=0.15, linewidth=0)
    for rows in groups:
        axes.scatter([row.truth for row in rows], [row.simulated for row in rows], s=22, label=rows[0].quantity, alpha=0.8)
    axes.set_xlabel(f"real server, {unit}")
    axes.set_ylabel(f"simulator, {unit}")
    axes.legend(frameon=False, fontsize=8)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kvplan: fidelity</title>
<style>
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem .2rem 0; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #e6e6e6; }
img { width: 100%; } pre { background: #f6f6f6; padding: .8rem; font-size: 13px; white-space: pre-wrap; }
</style></head><body>
<h1>The simulator against a real server</h1>
<p>Clock: {{ clock }}. The grey band is 10 % wide on either side; a star marks what is beyond the target: 1 point in hit rates,
10 % in mean TTFT and busy time.</p>
<img alt="served against simulated" src="data:image/png;base64,{{ picture }}">
{% for table in tables %}<h2>{{ table.title }}</h2>
<table><tr>{% for name in table.columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% endfor %}<h2>Run</h2><pre>{{ about }}</pre>
</body></html>
"""


def _page(pairs: Sequence[Pair], about: dict, picture: Path) -> str:
    import jinja2

    tables = [
        *((title, *overview(pairs, name)) for name, title in _OVERVIEWS.items()),
        ("Why the busy time differs, % of it", *reasons(pairs)),
        *((pair.scenario.name, _COLUMNS, detail(pair)) for pair in pairs),
    ]
    return (
        jinja2.Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            clock=_clock(about["clock"]),
            picture=base64.b64encode(picture.read_bytes()).decode(),
            tables=[{"title": title, "columns": columns, "rows": rows} for title, columns, rows in tables],
            about=json.dumps(about, indent=1),
        )
    )
