"""A comparison as text and as files: a table with one row per variant, what it means in words, compare.json, .csv, .html and .png."""

import base64
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from kvplan.foreign.text import cell
from kvplan.hwmodels import strictyaml
from kvplan.sim.files.atomic import write_file, write_text
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.report import compare_figures
from kvplan.sim.report.console import html_table, print_table, shown_cell
from kvplan.sim.report.html import as_is, filled
from kvplan.sim.sweep import measures, words
from kvplan.sim.sweep.stats import Estimate, Ratio

SUMMARY, ROWS, PICTURE, PAGE = "compare.json", "compare.csv", "compare.png", "compare.html"
HITS, BOUND = "hit_rate.resumed", "bound.resumed"


def print_comparison(found: dict) -> None:
    """To stdout."""
    print_table(title(found), _table(found), sentences(found))


def html(found: dict) -> str:
    """The same for a notebook."""
    return html_table(title(found), _table(found), sentences(found))


def sentences(found: dict) -> list[str]:
    """What the table means, and what to know about it."""
    count = found["replications"]
    lines = list(found["words"])
    if count > 1:
        lines.append(f"± is the half-width of a 95 % interval over {count} replications with the same seeds for every variant.")
    return lines + found["notes"] + warnings(found)


def warnings(found: dict) -> list[str]:
    """What the runs warn of, and which variants."""
    every = len(found["variants"])
    return [
        f"! {item['text']} ({'all variants' if len(item['variants']) == every > 1 else ', '.join(item['variants'])})"
        for item in found["warnings"]
    ]


def title(found: dict) -> str:
    """One line: what was compared."""
    count = found["replications"]
    paths = ", ".join(path for axis in found["axes"] for path in axis["paths"])
    return f"{len(found['variants'])} variants of {paths}, {count} replication{'s' * (count > 1)}; differences to {found['baseline']}"


@dataclass(frozen=True)
class _Column:
    """One measure in the table."""

    head: str
    key: str
    interval: bool = False


_COLUMNS = (
    _Column("hit rate, %", HITS),
    _Column("to the bound", BOUND),
    _Column("HBM", "hit_rate.hbm"),
    _Column("DRAM", "hit_rate.dram"),
    _Column("SSD", "hit_rate.ssd"),
    _Column("TTFT", "ttft_s.mean", interval=True),
    _Column("p95", "ttft_s.p95"),
    _Column("prefill tok/s", "prefill_tokens_per_s"),
    _Column("GPU h", "gpu.busy_h"),
    _Column("$/M tokens", "cost_usd.per_million_output_tokens", interval=True),
    _Column("SSD TB/day", "ssd_wear.bytes_per_day"),
)


def rows(found: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table."""
    main = found["metric"]
    shown = measures.metric(main)
    columns = [_Column(f"{shown.name}{f', {shown.unit}' if shown.unit == '%' else ''}", main, interval=True)]
    columns += [column for column in _COLUMNS if column.key != main and _is_of_use(column, found["variants"])]
    against = len(found["variants"]) > 1
    cells = []
    for variant in found["variants"]:
        first, *rest = (_cell(variant, column) for column in columns)
        change = [_difference(variant, main, variant["label"] == found["baseline"])] * against
        cells.append([variant["label"], first, *change, *rest])
    return ["", columns[0].head, *["change"] * against, *(column.head for column in columns[1:])], cells


def _is_of_use(column: _Column, variants: Sequence[dict]) -> bool:
    """Whether some variant has it: a tier that is nowhere has no column."""
    return any(variant["mean"].get(column.key) for variant in variants)


def _cell(variant: dict, column: _Column) -> str:
    mean, half = variant["mean"].get(column.key), variant["half_width"].get(column.key)
    if column.key == BOUND and mean is not None:
        return f"{100 * (mean - variant['mean'][HITS]):.1f}"
    if mean is None:
        return "–"
    shown = measures.metric(column.key).at(mean)
    value = shown.scale * mean
    spread = shown.scale * half if column.interval and half else abs(value) / 50
    places = 1 if shown.unit == "%" else min(words.decimals(spread), 4)
    text = f"{value:,.{places}f}"
    if column.interval and half is not None:
        text += f" ± {shown.scale * half:,.{places}f}"
    return f"{text} {shown.unit}" if shown.unit in ("ms", "s") else text


def _difference(variant: dict, key: str, is_baseline: bool) -> str:
    difference = variant["difference"].get(key)
    if is_baseline or difference is None:
        return ""
    if difference["mean"] == 0 and not difference["half_width"]:
        return "identical"
    ratio = variant["ratio"].get(key)
    if ratio is None or not measures.metric(key).relative:
        return words.number(Estimate(**difference), measures.metric(key), signed=True)
    return words.change(Ratio(**ratio))


def _table(found: dict) -> Table:
    heads, cells = rows(found)
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in cells:
        table.add_row(*map(shown_cell, row))
    return table


def write(found: dict, folder: Path) -> None:
    """The files of a comparison, each whole or not at all. Raises WriteError."""
    write_text(folder / SUMMARY, dumps(found))
    write_file(folder / ROWS, lambda path: _write_rows(found, path))
    write_file(folder / PICTURE, lambda path: compare_figures.draw(found, path))
    write_text(folder / PAGE, _page(found, folder / PICTURE))


def _write_rows(found: dict, path: Path) -> None:
    rows = list(run_rows(found))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows({name: cell(value) for name, value in row.items()} for row in rows)


def run_rows(found: dict) -> Iterator[dict]:
    """One row per run: variant, settings, replication, seed, digest, and every measure that it has."""
    for variant in found["variants"]:
        for replication, (seed, run) in enumerate(zip(variant["seeds"], variant["runs"], strict=True)):
            values = {name: values[replication] for name, values in variant["values"].items()}
            yield {
                "variant": variant["label"],
                **variant["settings"],
                "replication": replication,
                "seed": seed,
                "run": run,
                **values,
            }


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kvplan compare</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } td, th { padding: .25rem 0 .25rem 1.1rem; text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; padding-left: 0; } tr { border-bottom: 1px solid #e6e6e6; }
img { width: 100%; } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; }
.failure { background: #fdeaea; padding: .4rem .8rem; border-left: 4px solid #c0392b; margin: .5rem 0; }
</style></head><body>
<h1>{{ title }}</h1>
{% for failure in failures %}<div class="failure">{{ failure }}</div>{% endfor %}
<div class="wide"><table><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in cells %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
{% for line in sentences %}<p>{{ line }}</p>{% endfor %}
<h2>Figures</h2><img alt="comparison" src="data:image/png;base64,{{ picture }}">
<h2>Configuration of the first variant</h2><pre>{{ config }}</pre>
<h2>Provenance</h2><pre>{{ provenance }}</pre>
</body></html>
"""


def _page(found: dict, picture: Path) -> str:
    """The report as HTML text, the picture inside."""
    heads, cells = rows(found)
    provenance = {key: value for key, value in found["provenance"].items() if key != "config"}
    return filled(
        _PAGE,
        title=title(found),
        failures=[failure_text(failure) for failure in found["failures"]],
        heads=heads,
        cells=cells,
        sentences=sentences(found),
        picture=as_is(base64.b64encode(picture.read_bytes()).decode()),
        config=as_is(strictyaml.dumps(found["provenance"]["config"])),
        provenance=as_is(strictyaml.dumps(provenance)),
    )


def failure_text(failure: dict) -> str:
    """One line about a variant that failed."""
    settings, count = " ".join(f"{path}={value}" for path, value in failure["settings"].items()), failure["replications"]
    what = f"failed in {count} replication{'s' * (count > 1)}" if count else "cannot run"
    return f"{settings} {what}: {failure['reason']}"
