"""Hit rate and TTFT over the size of a tier, as text, rows and a picture, from the account."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.report import compare
from kvplan.sim.report.console import shown_cell
from kvplan.sim.report.curve_account import KEYS
from kvplan.sim.report.picture import label, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = ("#2a6fbb", "#e08a1e", "#2f9e6e", "#b5489a", "#7a5cc4", "#b8860b", "#3aa6a6", "#c0392b")
_DASHES = ((4, 2), (1, 1.5), (6, 2, 1, 2))


def title(found: dict) -> str:
    """One line: what the table shows."""
    return f"hit rates of resumed turns and of all prompt tokens, and mean TTFT, by size of {found['tier'].upper()}"


def sentences(found: dict) -> list[str]:
    """What to know about the table."""
    need, count = found["need"], found["replications"]
    lines = [
        "turns: shares of resumed turns; tokens: of all prompt tokens, history included.",
        f"of need: all tiers together against {format_bytes(need['held_bytes'])}, what the {need['dsput']:,} distinct sessions of"
        f" {format_seconds(need['ttl_s'])} hold at their real sizes (CCpUT, each at a full window: {format_bytes(need['ccput_bytes'])}).",
        "LRU, clockless: one exact LRU list of whole sessions; no server, no room kept free, no queueing.",
    ]
    if found.get("recompute"):
        lines.append(
            f"Recomputing everything takes {format_seconds(found['recompute']['ttft_s.mean']['mean'])} to the first token in the mean."
        )
    if count > 1:
        lines.append(f"± is the half-width of a 95 % interval over {count} replications with the same seeds for every point.")
    return lines + found["notes"]


def warnings(found: dict) -> list[str]:
    """What the runs warn of, and at which policies and sizes."""
    return compare.warnings(found["comparison"])


def table(found: dict) -> Table:
    """One row per size."""
    tier = found["tier"].upper()
    drawn = Table(box=None, pad_edge=False)
    lines = [line for line in found["lines"] if line["points"]]
    heads = [tier, "of need", *(head for line in lines for head in (f"{line['policy']}, turns %", "tokens %", "TTFT"))]
    for head in [*heads, *(head for line in found["clockless"] for head in (f"{line['name']}, turns %", "tokens %"))]:
        drawn.add_column(shown_cell(head), justify="right", no_wrap=True)
    for size in found["sizes"]:
        cells = [size["text"], f"{size['rcc_to_held']:.0%}"]
        for line in lines:
            point = at(line, size)
            cells += ["–"] * 3 if point is None else [_hit(point), _tokens(point), format_seconds(point["ttft_s.mean"]["mean"])]
        for line in found["clockless"]:
            point = next(point for point in line["points"] if point["bytes"] == size["bytes"])
            cells += [f"{100 * point[key]:.1f}" for key in ("hit_rate.resumed", "hit_rate.tokens")]
        drawn.add_row(*map(shown_cell, cells))
    return drawn


def at(line: dict, size: dict) -> dict | None:
    """A line's point of a size, where it has one."""
    return next((point for point in line["points"] if point["size"] == size["text"]), None)


def _tokens(point: dict) -> str:
    return f"{100 * point['hit_rate.tokens']['mean']:.1f}"


def _hit(point: dict) -> str:
    hit = point["hit_rate.resumed"]
    return f"{100 * hit['mean']:.1f}" + ("" if hit["half_width"] is None else f" ± {100 * hit['half_width']:.1f}")


def columns(found: dict) -> list[str]:
    """Of `point_rows`."""
    return ["policy", "tier", "bytes", "rcc_to_held", "rcc_to_ccput", *(f"{key}{what}" for key in KEYS for what in ("", ".half_width"))]


def point_rows(found: dict) -> Iterator[dict]:
    """One row per policy and size, means over replications."""
    shares = {size["text"]: {name: size[name] for name in ("rcc_to_held", "rcc_to_ccput")} for size in found["sizes"]}
    for line in found["lines"]:
        for point in line["points"]:
            values = {f"{key}{what}": point[key][name] for key in KEYS for what, name in (("", "mean"), (".half_width", "half_width"))}
            place = {"policy": line["policy"], "tier": found["tier"], "bytes": point["bytes"]}
            yield place | shares[point["size"]] | values


def draw(found: dict, path: Path | None = None) -> "Figure":
    """The picture: hits in all tiers, by turns and by tokens, in the varied tier, and TTFT; written to a path. Raises OSError."""
    tier, (scale, unit) = found["tier"], _seconds(found)
    panels = (
        ("hit_rate.resumed", 100, "Turns that hit", "% of resumed turns"),
        ("hit_rate.tokens", 100, "Tokens that hit", "% of all prompt tokens"),
        (f"hit_rate.{tier}", 100, f"Turns that hit in {tier.upper()}", "% of resumed turns"),
        ("ttft_s.mean", scale, "Mean TTFT", unit),
    )
    with picture(path, 2, 2, (10, 7.5)) as (figure, grid):
        axes = grid.ravel()
        for axis, (key, scale, title, unit) in zip(axes, panels, strict=True):
            _lines(axis, found, key, scale)
            _sizes(axis, found)
            axis.set_ylabel(unit)
            axis.set_title(title, loc="left", pad=10)
            if key.startswith("hit_rate"):
                axis.set_ylim(0, 101)
            else:
                _recomputation(axis, found, key, scale)
                axis.set_ylim(bottom=0)
        shown = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(len(shown), 8), frameon=False)
    return figure


def _seconds(found: dict) -> tuple[float, str]:
    """Scale and unit for the latencies of the curve."""
    points = [point for line in found["lines"] for point in line["points"]] + [found["recompute"]] * bool(found.get("recompute"))
    means = [point["ttft_s.mean"]["mean"] for point in points]
    return (1.0, "s") if max(means, default=0) >= 10 else (1e3, "ms")


def _lines(axis, found: dict, key: str, scale: float) -> None:
    for number, line in enumerate(found["lines"]):
        colour = _COLOURS[number % len(_COLOURS)]
        size = np.array([point["bytes"] for point in line["points"]])
        mean = scale * np.array([point[key]["mean"] for point in line["points"]])
        half = scale * np.array([point[key]["half_width"] or 0.0 for point in line["points"]])
        width = 1.5 + 3.0 * (len(found["lines"]) - 1 - number) / len(found["lines"])  # lines that lie on one another all show
        axis.plot(size, mean, color=colour, marker="o", markersize=2.5 + width, linewidth=width, label=label(line["policy"]))
        axis.fill_between(size, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)
    for number, line in enumerate(found["clockless"]):
        if line["points"] and key in line["points"][0]:
            sizes = [point["bytes"] for point in line["points"]]
            values = [scale * point[key] for point in line["points"]]
            axis.plot(sizes, values, color="#555555", dashes=_DASHES[number % len(_DASHES)], linewidth=1.3, label=label(line["name"]))


def _recomputation(axis, found: dict, key: str, scale: float) -> None:
    """A line across all sizes."""
    if found.get("recompute"):
        axis.axhline(scale * found["recompute"][key]["mean"], color="#222222", dashes=(8, 3), linewidth=1.3, label="recompute")


def _sizes(axis, found: dict) -> None:
    """Bytes below, with the sizes that were run as ticks, and shares of what is asked for above; logarithmic, but for no tier at all."""
    from matplotlib.ticker import NullLocator

    exact = [size["bytes"] for size in found["sizes"]]
    least = min((size for size in exact if size), default=1)
    above = axis.twiny()
    for each in (axis, above):
        each.set_xscale("symlog", linthresh=least, linscale=0.5)
        each.set_xlim(min(exact) / 1.2, max(exact) * 1.2)
        each.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(exact, [label(size["text"]) for size in found["sizes"]], rotation=45, ha="right")
    axis.set_xlabel(f"{found['tier'].upper()} per replica")
    above.set_xticks(exact, [f"{size['rcc_to_held']:.0%}" for size in found["sizes"]], fontsize=8)
    above.set_xlabel("of what the active sessions hold", fontsize=8)
    above.grid(visible=False)
