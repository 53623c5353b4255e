"""The picture of a comparison: small multiples that share one row per variant."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvplan.sim.report.metric_names import metric
from kvplan.sim.report.picture import label, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TIERS = (("hit_rate.hbm", "HBM", "#b5489a"), ("hit_rate.dram", "DRAM", "#2a6fbb"), ("hit_rate.ssd", "SSD", "#e08a1e"))
_ACROSS = 3
"""Panels in a row: six in one were too small to show to others."""
_INK, _SOFT, _BOUND = "#333333", "#9db7d5", "#b03030"


def draw(found: dict, path: Path | None = None) -> "Figure":
    """The picture; written where a path is given. Raises OSError."""
    variants = found["variants"]
    panels = _panels(variants, found["metric"])
    rows = -(-len(panels) // _ACROSS)
    height = rows * (1.1 + 0.34 * max(len(variants), 2)) + 0.5
    with picture(path, rows, _ACROSS, (10, height), sharey=True, width_ratios=[1.4, 1, 1]) as (figure, grid):
        axes = np.ravel(grid)
        for axis, panel in zip(axes, panels, strict=False):
            panel(axis, variants)
            axis.grid(axis="y", visible=False)
            axis.locator_params(axis="x", nbins=5)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        axes[0].set_yticks(range(len(variants)), [label(variant["label"]) for variant in variants])
        axes[0].set_ylim(len(variants) - 0.4, -0.6)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), frameon=False)
    return figure


def _panels(variants: Sequence[dict], metric: str) -> list[Callable]:
    """Painters of what the variants have: hit rate, TTFT, throughput, cost, SSD writes, and the main metric if it is none of these."""
    keys = ["prefill_tokens_per_s", "cost_usd.per_million_output_tokens", "ssd_wear.bytes_per_day"]
    if metric not in ("hit_rate.resumed", "ttft_s.mean", *keys):
        keys.insert(0, metric)
    known = [key for key in keys if any(key in variant["mean"] for variant in variants)]
    return [_hits, _ttft, *(_bars(key) for key in known)]


def _column(variants: Sequence[dict], key: str, what: str = "mean") -> np.ndarray:
    """NaN where a variant has none."""
    return np.array([np.nan if variant[what].get(key) is None else variant[what][key] for variant in variants], float)


def _whiskers(axis, variants: Sequence[dict], key: str, scale: float) -> None:
    half = _column(variants, key, "half_width")
    if np.isfinite(half).any():
        place = np.arange(len(variants))
        axis.errorbar(scale * _column(variants, key), place, xerr=scale * half, fmt="none", ecolor=_INK, elinewidth=1.2, capsize=3)


def _hits(axis, variants: Sequence[dict]) -> None:
    place, left = np.arange(len(variants)), np.zeros(len(variants))
    for key, name, colour in _TIERS:
        share = 100 * np.nan_to_num(_column(variants, key))
        if share.any():
            axis.barh(place, share, left=left, height=0.66, color=colour, label=f"hit in {name}")
        left += share
    _whiskers(axis, variants, "hit_rate.resumed", 100)
    bound = 100 * _column(variants, "bound.resumed")
    if np.isfinite(bound).any():
        axis.scatter(bound, place, marker="|", s=170, linewidths=2, color=_BOUND, zorder=3, label="no policy can hit more")
    axis.set_xlim(0, 101)
    axis.set_xlabel("% of resumed turns")
    axis.set_title("Hit rate by tier", loc="left")


def _ttft(axis, variants: Sequence[dict]) -> None:
    mean, tail = _column(variants, "ttft_s.mean"), _column(variants, "ttft_s.p95")
    scale, unit = (1.0, "s") if np.nanmax(tail) >= 10 else (1e3, "ms")
    place = np.arange(len(variants))
    axis.hlines(place, scale * mean, scale * tail, color=_SOFT, linewidth=3, zorder=1)
    axis.scatter(scale * tail, place, s=26, facecolor="white", edgecolor=_TIERS[1][2], zorder=2, label="TTFT p95")
    axis.scatter(scale * mean, place, s=26, color=_TIERS[1][2], zorder=2, label="mean")
    _whiskers(axis, variants, "ttft_s.mean", scale)
    axis.set_xlim(left=0)
    axis.set_xlabel(unit)
    axis.set_title("TTFT, mean to p95", loc="left")


def _bars(key: str) -> Callable:
    shown = metric(key)

    def paint(axis, variants: Sequence[dict]) -> None:
        values = shown.scale * _column(variants, key)
        axis.barh(np.arange(len(variants)), values, height=0.66, color=_SOFT)
        _whiskers(axis, variants, key, shown.scale)
        axis.set_xlim(left=min(0, np.nanmin(values)))
        name, _, of = _NAMES.get(key, shown.name).partition(" (")
        axis.set_xlabel(f"{shown.unit or key} ({of}" if of else shown.unit or key)
        axis.set_title(name[:1].upper() + name[1:], loc="left")

    return paint


_NAMES = {"cost_usd.per_million_output_tokens": "cost per M tokens"}
"""Short ones: a panel is narrow."""
