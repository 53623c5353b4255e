"""Hit rates of caches of blocks over their size, as text, rows and a picture, from the account."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from kvplan.sim.report.blockcurve_account import BELOW, TOKENS
from kvplan.sim.report.console import shown_cell
from kvplan.sim.report.curve import at
from kvplan.sim.report.picture import label, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BELOW = ("hit_tokens", "stored_chunks", "dropped_chunks")


def title(found: dict) -> str:
    """One line: what the table shows."""
    return (
        f"token hit rate, of all prompt tokens, by size of {found['tier'].upper()}{_of_each(found)}{_below(found)}: {found['mode']},"
        f" blocks of {found['block_tokens']:,} tokens"
    )


def _below(found: dict) -> str:
    return f" below {found['below']} of HBM" if found["below"] else ""


def _of_each(found: dict) -> str:
    return " of each replica" if found["replicas"] > 1 else ""


def sentences(found: dict) -> list[str]:
    """What to know about the table."""
    return list(found["notes"])


def warnings(found: dict) -> list[str]:
    """What makes it doubtful."""
    return [f"! {line}" for line in found["warnings"]]


def table(found: dict) -> Table:
    """One row per size."""
    drawn = Table(box=None, pad_edge=False)
    heads = [f"{line['policy']}{what}" for line in found["lines"] for what in (", %", *[" in DRAM, %", " stored"] * bool(found["below"]))]
    for head in (found["tier"].upper(), "chunks" if found["below"] else "blocks", *heads):
        drawn.add_column(shown_cell(head), justify="right", no_wrap=True)
    for size in found["sizes"]:
        cells = [text for line in found["lines"] for text in _cells(line, size, bool(found["below"]))]
        drawn.add_row(*map(shown_cell, (size["text"], f"{size['blocks']:,}", *cells)))
    return drawn


def _cells(line: dict, size: dict, below: bool) -> list[str]:
    point = at(line, size)
    if point is None:
        return ["–"] * (3 if below else 1)
    more = [f"{100 * point[BELOW]:.1f}", _count(point["below"]["stored_chunks"])] if below else []
    return [f"{100 * point[TOKENS]:.1f}", *more]


def _count(chunks: int | None) -> str:
    return "–" if chunks is None else f"{chunks:,}"


def columns(found: dict) -> list[str]:
    """Of `point_rows`."""
    return list(next(point_rows(found)))


def point_rows(found: dict) -> Iterator[dict]:
    """One row per policy and size."""
    for line in found["lines"]:
        for size in found["sizes"]:
            point = at(line, size) or {}
            below = point.get("below", {})
            yield {
                "policy": line["policy"],
                "mode": found["mode"],
                "tier": found["tier"],
                "bytes": size["bytes"],
                "blocks": size["blocks"],
                **{name: point.get(name) for name in (TOKENS, "hit_tokens", "prompt_tokens")},
                **({BELOW: point.get(BELOW), **{f"below.{name}": below.get(name) for name in _BELOW}} if found["below"] else {}),
            }


def draw(found: dict, path: Path | None = None) -> "Figure":
    """The picture: a line per policy, and what an endless cache hits; written to a path. Raises OSError."""
    with picture(path, 1, 1, (7, 4.4)) as (figure, axes):
        for line in found["lines"]:
            points = [point for point in line["points"] if point["bytes"]]
            rates = [100 * point[TOKENS] for point in points]
            how = {"color": "#888888", "linestyle": "--", "marker": "."} if line["orders"] == "bound" else {"marker": "o"}
            axes.plot([point["bytes"] for point in points], rates, label=label(line["policy"]), **how)
        axes.axhline(100 * found["endless"][TOKENS], color="#222222", dashes=(8, 3), linewidth=1.3, label="endless")
        axes.set_xscale("log")
        sizes = [size for size in found["sizes"] if size["bytes"]]
        axes.set_xticks([size["bytes"] for size in sizes], [label(size["text"]) for size in sizes], rotation=45, ha="right")
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"{found['tier'].upper()} per replica")
        axes.set_ylabel("% of all prompt tokens")
        axes.set_title(label(f"{found['mode']}, blocks of {found['block_tokens']:,} tokens{_below(found)}"), loc="left")
        axes.legend(frameon=False)
    return figure
