"""The result as text: a table beside recomputation, and what it means in words."""

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from kvplan.hwmodels.units import format_bytes, format_seconds


def comparison(summary: dict, baseline: dict | None) -> Group:
    """The main figures of a run, beside the recomputation baseline when there is one."""
    table = Table(title=title(summary), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ["", "this run", "recompute", "saved"] if baseline else ["", "this run"]:
        table.add_column(name, justify="right" if name else "left")
    for row in rows(summary, baseline):
        table.add_row(*row)
    notes = [Text(line) for line in words(summary, baseline)]
    notes += [Text(f"! {warning}", style="yellow") for warning in summary["warnings"]]
    return Group(table, Text(""), *notes)


def rows(summary: dict, baseline: dict | None) -> list[list[str]]:
    """The cells of the table: label and value, and with a baseline its value and the difference."""
    found = []
    for label, path, show, saves in _ROWS:
        value = _get(summary, path)
        cells = [label, show(value)]
        if baseline is not None:
            other = _get(baseline, path)
            cells += [show(other), _saved(value, other)] if saves else ["–", ""]
        found.append(cells)
    return found


def print_comparison(summary: dict, baseline: dict | None) -> None:
    """To stdout; plain text, never narrower than the table, when that is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=110, no_color=True)
    console.print(comparison(summary, baseline), soft_wrap=False)


def title(summary: dict) -> str:
    """One line: what was run."""
    loop = summary["provenance"]["loop"]
    return (
        f"{summary['turns']:,} turns of {summary['sessions']:,} sessions in {format_seconds(summary['makespan_s'])} ({loop} loop),"
        f" {summary['gpu']['gpus']} GPUs"
    )


def _percent(value) -> str:
    return f"{value:.1%}"


def _seconds(value) -> str:
    return "–" if value is None else format_seconds(value)


def _rate(value) -> str:
    return f"{value:,.0f} tok/s"


def _dollars(value) -> str:
    return f"${value:,.2f}"


def _hours(value) -> str:
    return f"{value:,.2f} h"


_ROWS = [
    ("hit rate, all turns", "hit_rate.turns", _percent, False),
    ("hit rate, resumed turns", "hit_rate.resumed", _percent, False),
    ("  from DRAM", "hit_rate.dram", _percent, False),
    ("  from SSD", "hit_rate.ssd", _percent, False),
    ("hit rate, tokens", "hit_rate.tokens", _percent, False),
    ("TTFT mean", "ttft_s.mean", _seconds, True),
    ("TTFT p95", "ttft_s.p95", _seconds, True),
    ("prefill mean (no queueing)", "prefill_s.mean", _seconds, True),
    ("prefill p95 (no queueing)", "prefill_s.p95", _seconds, True),
    ("TPOT mean", "tpot_s.mean", _seconds, True),
    ("prefill throughput", "prefill_tokens_per_s", _rate, True),
    ("GPU hours, prefilling and loading", "gpu.prefill_h", _hours, True),
    ("GPU hours, busy", "gpu.busy_h", _hours, True),
    ("GPU cost", "cost_usd.gpu", _dollars, True),
    ("DRAM and SSD cost", "cost_usd.storage", _dollars, True),
    ("total cost", "cost_usd.total", _dollars, True),
    ("$ per million output tokens", "cost_usd.per_million_output_tokens", _dollars, True),
]


def _get(summary: dict, path: str):
    if path == "cost_usd.storage":
        return summary["cost_usd"]["dram"] + summary["cost_usd"]["ssd"]
    if path == "gpu.prefill_h":
        gpu = summary["gpu"]
        return (gpu["prefill_s"] + gpu["load_stall_s"]) * gpu["busy_h"] / gpu["busy_s"] if gpu["busy_s"] else 0.0
    for key in path.split("."):
        summary = summary[key]
    return summary


def _saved(value: float | None, other: float | None) -> str:
    if not value or not other:
        return ""
    if value > 10 * other or other > 10 * value:
        return f"{max(value, other) / min(value, other):.1f}x {'more' if value > other else 'less'}"
    change = round(100 * (value / other - 1))
    return f"{change:+d}%" if change else "0%"


def _drives(wear: dict) -> str:
    count, each = wear["drives"], format_bytes(wear["drive_bytes"] / wear["drives"])
    return f"{count} drives of {each}" if count > 1 else f"one drive of {each}"


def words(summary: dict, baseline: dict | None) -> list[str]:
    """What the figures mean."""
    gpu = summary["gpu"]
    busy = gpu["busy_s"] or 1.0
    shares = {
        "decode": gpu["decode_s"],
        "prefill": gpu["prefill_s"],
        "waiting for KV": gpu["load_stall_s"],
        "saving KV": gpu["save_stall_s"],
    }
    parts = ", ".join(f"{name} {seconds / busy:.0%}" for name, seconds in shares.items() if seconds / busy >= 0.005)
    lines = [f"GPUs are busy {gpu['utilization']:.0%} of the time: {parts}."]
    ssd = summary["tiers"].get("ssd")
    if ssd:
        wear = summary["ssd_wear"]
        years = "for ever" if wear["lifetime_years"] is None else f"{wear['lifetime_years']:.1f} years"
        lines.append(
            f"SSD holds {format_bytes(ssd['peak_bytes'])} at most and is written {format_bytes(wear['bytes_per_day'])} a day"
            f" ({wear['dwpd']:.2f} DWPD of {_drives(wear)}): {'they last' if wear['drives'] > 1 else 'it lasts'} {years}."
        )
    if baseline is not None and summary["tiers"]:
        if abs(gpu["busy_h"] / baseline["gpu"]["busy_h"] - 1) < 0.05 and gpu["utilization"] < 0.99:
            lines.append(
                "Below saturation a faster prefill makes batches smaller, not busy hours fewer: the gain is latency, and room for more"
                " sessions."
            )
        cost, other = summary["cost_usd"]["total"], baseline["cost_usd"]["total"]
        dollars = f"{_saved(cost, other)} dollars, " if other else ""
        lines.append(
            f"Against recomputation: {dollars}{_saved(gpu['busy_h'], baseline['gpu']['busy_h'])} GPU hours"
            " (GPUs are paid by the busy hour, storage by the clock)."
        )
    return lines
