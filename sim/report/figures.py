"""Pictures of one run: latency distributions, and what is where over time."""

from pathlib import Path

import numpy as np

from kvplan.sim.engine.run import Result
from kvplan.sim.report.picture import picture

_TIER_COLOURS = {"hbm": "#b5489a", "dram": "#2a6fbb", "ssd": "#e08a1e"}
_POINTS = 1500


def draw(result: Result, folder: Path) -> list[Path]:
    """Writes the figures as PNG into `folder`; returns their paths."""
    paths = [folder / "latency.png", folder / "timeline.png"]
    with picture(paths[0], 1, 1, (7.5, 3.6)) as (_, axes):
        _latency(axes, result)
    rows = 1 + len(_tiers(result))
    with picture(paths[1], rows, 1, (7.5, 1.7 * rows + 0.6), sharex=True) as (_, axes):
        _timeline(np.atleast_1d(axes), result)
    return paths


def _tiers(result: Result) -> list[str]:
    return [name.removesuffix("_bytes") for name in result.series if name.endswith("_bytes") and name != "hbm_running_bytes"]


def _latency(axes, result: Result) -> None:
    columns = result.columns
    measured = columns["order"] >= result.config.warmup_turns
    for label, late, early, colour in (
        ("TTFT", "first_token_s", "arrival_s", "#2a6fbb"),
        ("prefill (without queueing)", "first_token_s", "admitted_s", "#e08a1e"),
    ):
        values = np.sort((columns[late] - columns[early])[measured])
        share = np.linspace(0, 1, len(values))
        pick = np.unique(np.linspace(0, len(values) - 1, _POINTS).astype(int))
        axes.plot(np.maximum(values[pick], 1e-4), share[pick], label=label, color=colour)
    axes.set_xscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of turns")
    axes.set_ylim(0, 1.01)
    axes.set_title("Time to first token", loc="left")
    axes.legend(frameon=False, loc="lower right")


def _timeline(axes, result: Result) -> None:
    series = result.series
    mine = series["replica"] == 0
    hours = series["time_s"][mine] / 3600
    axes[0].plot(hours, series["waiting"][mine], color="#666666", label="waiting")
    axes[0].plot(hours, series["running"][mine], color="#2f9e6e", label="running")
    axes[0].set_ylabel("jobs")
    axes[0].legend(frameon=False, ncols=2, loc="upper left")
    axes[0].set_title("Jobs and stored KV over time" + ("" if mine.all() else " (first replica)"), loc="left")
    for axis, name in zip(axes[1:], _tiers(result), strict=True):
        held = series[f"{name}_bytes"][mine]
        scale, unit = (1e12, "TB") if held.max(initial=0) >= 1e12 else (1e9, "GB")
        axis.fill_between(hours, held / scale, color=_TIER_COLOURS.get(name, "#888888"), alpha=0.75, linewidth=0)
        axis.set_ylabel(f"{name.upper()}, {unit}")
        axis.set_ylim(bottom=0)
    for axis in axes:
        axis.margins(x=0)
    axes[-1].set_xlabel("hours")
