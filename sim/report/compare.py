"""A comparison as text and as files: a table with one row per variant, what it means in words, JSON, CSV, a picture, and the report."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from kvplan.foreign.text import cell
from kvplan.sim.counted import counted
from kvplan.sim.files.atomic import write_file, write_text
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.report import compare_figures, compare_words
from kvplan.sim.report.console import html_table, print_table, shown_cell
from kvplan.sim.report.metric_names import metric
from kvplan.sim.report.page.place import NONE, Cell, Place
from kvplan.sim.sweep.stats import Estimate, Ratio

SUMMARY, ROWS, PICTURE = "compare.json", "compare.csv", "compare.png"
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
    lines = [*found["words"], "Hits are shares of resumed turns, by tier too; tokens hit, of all prompt tokens, history included."]
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
    return f"{counted(len(found['variants']), 'variant')} of {paths}, {counted(count, 'replication')}; differences to {found['baseline']}"


@dataclass(frozen=True)
class _Column:
    """One measure in the table."""

    head: str
    key: str
    interval: bool = False


_COLUMNS = (
    _Column("tokens hit, %", "hit_rate.tokens"),
    _Column("resumed hit, %", HITS),
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


def rows(found: Place) -> tuple[list[str], list[list[Cell]]]:
    """Heads and cells of the table."""
    main, variants = found.value["metric"], found.value["variants"]
    shown = metric(main)
    columns = [_Column(f"{shown.name}{f', {shown.unit}' if shown.unit == '%' else ''}", main, interval=True)]
    columns += [column for column in _COLUMNS if column.key != main and _is_of_use(column, variants)]
    against = len(variants) > 1
    cells = []
    for variant in found.at("variants").each():
        first, *rest = (_cell(variant, column) for column in columns)
        change = [_difference(variant, main, variant.value["label"] == found.value["baseline"])] * against
        cells.append([Cell(variant.value["label"]), first, *change, *rest])
    return ["", columns[0].head, *["change"] * against, *(column.head for column in columns[1:])], cells


def _is_of_use(column: _Column, variants: Sequence[dict]) -> bool:
    """Whether some variant has it: a tier that is nowhere has no column."""
    return any(variant["mean"].get(column.key) for variant in variants)


def _cell(variant: Place, column: _Column) -> Cell:
    found, half = variant.at("mean", column.key), variant.at("half_width", column.key).value
    mean = found.value
    if mean is None:
        return Cell(NONE)
    if column.key == BOUND:
        share = 100 * (mean - variant.value["mean"][HITS])
        return Cell(f"{share:.1f}", share)
    shown = metric(column.key).at(mean)
    value = shown.scale * mean
    spread = shown.scale * half if column.interval and half else abs(value) / 50
    places = 1 if shown.unit == "%" else min(compare_words.decimals(spread), 4)
    text = f"{value:,.{places}f}"
    if column.interval and half is not None:
        text += f" ± {shown.scale * half:,.{places}f}"
    return Cell(f"{text} {shown.unit}" if shown.unit in ("ms", "s") else text, mean, found.pointer)


def _difference(variant: Place, key: str, is_baseline: bool) -> Cell:
    difference = variant.at("difference", key)
    if is_baseline or difference.value is None:
        return Cell("")
    if difference.value["mean"] == 0 and not difference.value["half_width"]:
        return Cell("identical")
    ratio = variant.at("ratio", key)
    if ratio.value is None or not metric(key).relative:
        text = compare_words.number(Estimate(**difference.value), metric(key), signed=True)
        return Cell(text, difference.value["mean"], difference.at("mean").pointer)
    return Cell(compare_words.change(Ratio(**ratio.value)), ratio.value["factor"], ratio.at("factor").pointer)


def _table(found: dict) -> Table:
    heads, cells = rows(Place(found))
    table = Table(box=None, pad_edge=False)
    for head in heads:
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    for row in cells:
        table.add_row(*(shown_cell(cell.text) for cell in row))
    return table


def write_comparison(found: dict, folder: Path) -> None:
    """The files of a comparison, each whole or not at all. Raises WriteError."""
    from kvplan.sim.report.page import folder as pages

    write_text(folder / SUMMARY, dumps(found))
    write_file(folder / ROWS, lambda path: _write_rows(found, path))
    write_file(folder / PICTURE, lambda path: compare_figures.draw(found, path))
    pages.write_report(folder, SUMMARY)


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


def failure_text(failure: dict) -> str:
    """One line about a variant that failed."""
    settings, count = " ".join(f"{path}={value}" for path, value in failure["settings"].items()), failure["replications"]
    what = f"failed in {counted(count, 'replication')}" if count else "cannot run"
    return f"{settings} {what}: {failure['reason']}"
