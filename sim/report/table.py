"""The result as text: a table beside recomputation, and what it means in words."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.counted import counted
from kvplan.sim.report import engine
from kvplan.sim.report.compare_words import change, compared
from kvplan.sim.report.console import shown, stdout
from kvplan.sim.report.page.place import NONE, Cell, Place, count, total
from kvplan.sim.report.tiers import among, name_of
from kvplan.sim.sweep.stats import LEVEL, Ratio


def comparison(summary: Mapping[str, Any], baseline: dict | None) -> Group:
    """The main figures of a run, beside the recomputation baseline when there is one."""
    table = _plain_table(heads(baseline), rows(summary))
    notes = [shown(line) for line in words(summary, baseline)]
    notes += [shown(f"! {warning}", "yellow") for warning in warnings(summary, baseline)]
    return Group(shown(title(summary), "bold"), table, *_rounds(summary), Text(""), *notes)


def _plain_table(names: Sequence[str], texts: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, justify="right" if place else "left")
    for row in texts:
        table.add_row(*row)
    return table


def _rounds(summary: Mapping[str, Any]) -> list[Table | Text]:
    """Figures by place in the session, of a run that clients send."""
    if not _has_clients(summary):
        return []
    found = Place(summary)
    return [Text(""), _plain_table(by_turn_heads(found), [[cell.text for cell in row] for row in by_turn(found)])]


def _has_clients(summary: Mapping[str, Any]) -> bool:
    """Whether `workload.clients` sent the turns."""
    return "client_wait_s" in summary


def by_turn_heads(found: Place) -> list[str]:
    """Of the columns of `by_turn`."""
    return [
        "turn, from 0",
        "turns",
        "TTFT mean",
        "p50",
        "p95",
        "hits, prompt tokens",
        *(f"from {name_of(name)}" for name in _tiers_by_turn(found)),
        *(["recompute, mean"] if found.at("recompute").value else []),
    ]


def by_turn(found: Place) -> list[list[Cell]]:
    """Rows by place in the session: how many turns, their TTFT and hits, and TTFT of recomputation where it was run."""
    baseline = found.at("recompute")
    others = {row.value["turn"]: row for row in baseline.at("by_turn").each()}
    return [
        [
            row.at("turn").cell("{} and later".format if row.value["and_later"] else str),
            row.at("turns").cell(count),
            *(row.at("ttft_s", name).cell(format_seconds) for name in ("mean", "p50", "p95")),
            row.at("hit_rate", "tokens").cell(_percent),
            *(row.at("token_hits", name).cell(_percent) for name in _tiers_by_turn(found)),
            *[others.get(row.value["turn"], Place(None)).at("ttft_s", "mean").cell(format_seconds)] * (baseline.value is not None),
        ]
        for row in found.at("by_turn").each()
    ]


def _tiers_by_turn(found: Place) -> list[str]:
    """That served tokens of some turn, where a turn can have several."""
    rows = [row.get("token_hits", {}) for row in found.at("by_turn").value]
    return [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]


def heads(baseline: dict | None) -> list[str]:
    """Of the table's columns."""
    return ["", "this run", "recompute", "change"] if baseline else ["", "this run"]


def warnings(summary: Mapping[str, Any], baseline: Mapping[str, Any] | None) -> list[str]:
    """Of the run, and of recomputation: what is the same of both but for its figures is said once."""
    ours, theirs = summary["warnings"], (baseline or {}).get("warnings", [])
    both = set(map(_kind, ours)) & {_kind(warning) for warning in theirs if warning not in ours}
    said = [f"{warning} (recomputing too)" if _kind(warning) in both else warning for warning in ours]
    alone = [warning for warning in theirs if warning not in ours and _kind(warning) not in both]
    return said + [f"recomputation: {warning}" for warning in alone]


def _kind(warning: str) -> str:
    return warning.partition(":")[0]


def rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """The texts of the table."""
    return [[cell.text for cell in row] for row in cells(Place(summary))]


def cells(found: Place) -> list[list[Cell]]:
    """The table: label and value, and with a baseline its value and the change."""
    baseline = found.at("recompute")
    *others, last = _paid_names(found.value)
    storage, rows = f"{', '.join(others)} and {last}", []
    for label, path, show, compares in [*_hits(found.value), *_ROWS, *_passed(found.value)]:
        row = [Cell(label.format(storage=storage)), _get(found, path, show)]
        if baseline.value is not None:
            row += [_get(baseline, path, show), _change(baseline, path)] if compares else [Cell(NONE), Cell("")]
        rows.append(row)
    return rows


def print_comparison(summary: Mapping[str, Any], baseline: dict | None) -> None:
    """To stdout; plain text, never narrower than the table, when that is no terminal."""
    stdout(110).print(comparison(summary, baseline), soft_wrap=False)


def title(summary: Mapping[str, Any]) -> str:
    """One line: what was run."""
    loop = summary["provenance"]["loop"]
    how = f"{loop} loop" if loop in ("open", "closed") else loop
    return (
        f"{counted(summary['turns'], 'turn')} of {counted(summary['sessions'], 'session')} in {format_seconds(summary['makespan_s'])}"
        f" ({how}), {counted(summary['gpu']['gpus'], 'GPU')}"
    )


def _percent(value) -> str:
    return f"{value:.1%}"


def _rate(value) -> str:
    return f"{value:,.0f} tok/s"


def _dollars(value) -> str:
    return f"${value:,.2f}"


def _hours(value) -> str:
    return f"{value:,.2f} h"


def _hits(summary: Mapping[str, Any]) -> list[tuple]:
    """Rows of hit rates; those of the tiers that there are."""
    return [
        ("hit rate, all turns", "hit_rate.turns", _percent, False),
        ("hit rate, resumed turns", "hit_rate.resumed", _percent, False),
        *((f"  from {name_of(name)}", f"hit_rate.{name}", _percent, False) for name in summary["tiers"]),
        ("hit rate, prompt tokens", "hit_rate.tokens", _percent, False),
        *((f"  from {name_of(name)}", f"token_hits.{name}", _percent, False) for name in summary.get("token_hits", {})),
    ]


_ROWS = [
    ("TTFT mean", "ttft_s.mean", format_seconds, True),
    ("TTFT p95", "ttft_s.p95", format_seconds, True),
    ("prefill mean (no queueing)", "prefill_s.mean", format_seconds, True),
    ("prefill p95 (no queueing)", "prefill_s.p95", format_seconds, True),
    ("TPOT mean", "tpot_s.mean", format_seconds, True),
    ("prefill throughput", "prefill_tokens_per_s", _rate, True),
    ("GPU hours, prefilling and loading", "gpu.prefill_h", _hours, True),
    ("GPU hours, busy", "gpu.busy_h", _hours, True),
    ("GPU cost", "cost_usd.gpu", _dollars, True),
    ("{storage} cost", "cost_usd.storage", _dollars, True),
    ("total cost", "cost_usd.total", _dollars, True),
    ("$ per million output tokens", "cost_usd.per_million_output_tokens", _dollars, True),
]


_PASSED = [
    ("turns preempted, and computed again", "preempted_turns", "{:,}".format, False),
    ("turns deferred until their KV came", "deferred_turns", "{:,}".format, False),
]


def _passed(summary: Mapping[str, Any]) -> list[tuple]:
    """Rows of turns that others passed, where any did."""
    return [row for row in _PASSED if summary.get(row[1])]


def _paid_tiers(summary: Mapping[str, Any]) -> list[str]:
    """Those that a run pays for beside its GPUs."""
    return [tier for tier in among(summary["hit_rate"]) if tier in summary["cost_usd"]]


def _paid_names(summary: Mapping[str, Any]) -> list[str]:
    return list(map(name_of, _paid_tiers(summary)))


def _get(found: Place, path: str, show: Callable[[Any], str]) -> Cell:
    if path == "cost_usd.storage":
        return total([found.at("cost_usd", tier) for tier in _paid_tiers(found.value)], show)
    return found.at(*path.split(".")).cell(show)


def _ratio(baseline: dict, path: str) -> Ratio | None:
    """Of this run to recomputation; None where there is nothing to divide."""
    found = baseline["difference"]["ratio"].get(path)
    return None if found is None else Ratio(**found)


def _change(baseline: Place, path: str) -> Cell:
    found = baseline.at("difference", "ratio", path)
    if found.value is None:
        return Cell("")
    ratio = Ratio(**found.value)
    return Cell(_judged(ratio, change(ratio)), ratio.factor, found.at("factor").pointer)


def _judged(found: Ratio, text: str, doubt: str = ", unclear") -> str:
    """What cannot be told from no change is said to be so."""
    if found.low == found.factor == found.high == 1:
        return "none"
    return text if found.p is None or found.p < LEVEL else text + doubt


def _drives(wear: dict) -> str:
    count, each = wear["drives"], format_bytes(wear["drive_bytes"] / wear["drives"])
    return f"{count} drives of {each}" if count > 1 else f"one drive of {each}"


def words(summary: Mapping[str, Any], baseline: dict | None) -> list[str]:
    """What the figures mean."""
    gpu = summary["gpu"]
    busy = gpu["busy_s"] or 1.0
    shares = {
        "decode": gpu["decode_s"],
        "prefill": gpu["prefill_s"],
        "waiting for KV": gpu["load_stall_s"],
        "saving KV": gpu["save_stall_s"],
    }
    parts = ", ".join(f"{name} {percent}%" for name, percent in whole_percents(shares, busy).items() if percent)
    lines = [*engine.words(summary["provenance"]["engine"]), f"GPUs are busy {gpu['utilization']:.0%} of the time: {parts}."]
    ssd = summary["tiers"].get("ssd")
    if ssd:
        wear = summary["ssd_wear"]
        years = "for ever" if wear["lifetime_years"] is None else f"{wear['lifetime_years']:.1f} years"
        lines.append(
            f"SSD holds at most {format_bytes(ssd['peak_bytes'])} of {format_bytes(ssd['capacity_bytes'])}{_together(gpu)} and is written"
            f" {format_bytes(wear['bytes_per_day'])} a day ({wear['dwpd']:.2f} DWPD of {_drives(wear)}):"
            f" {'they last' if wear['drives'] > 1 else 'it lasts'} {years}."
        )
    if _has_clients(summary):
        lines.append(
            f"A turn waits {format_seconds(summary['client_wait_s']['mean'])} in the client on average, from when it is ready until it is"
            " sent; TTFT begins then."
        )
    if baseline is not None and summary["tiers"]:
        if abs(gpu["busy_h"] / baseline["gpu"]["busy_h"] - 1) < 0.05 and gpu["utilization"] < 0.99 and not _has_clients(summary):
            lines.append(
                "Below saturation a faster prefill makes batches smaller, not busy hours fewer: the gain is latency, and room for more"
                " sessions" + ("." if "equal_service" in summary else " (--equal-service says how many).")
            )
        lines += _against(summary, baseline)
    if "equal_service" in summary:
        lines += _equal(summary["equal_service"])
    return lines + _tail(summary, baseline)


def _against(summary: Mapping[str, Any], baseline: dict) -> list[str]:
    """What is gained and lost, and how sure that is."""
    found = [f"{name} {_told(ratio)}" for name, path in _VERDICT if (ratio := _ratio(baseline, path)) is not None]
    count = baseline["difference"]["replications"]
    over = (
        f"Changes are over {count} replications, each with a seed of its own, the same for both; ± is a 95 % interval; unclear: cannot be"
        " told from no change."
    )
    return [
        f"Against recomputation: {', '.join(found)} ({_paid(summary)}).",
        over if count > 1 else "Nothing is drawn at random here: every replication would be the same, so changes have no intervals.",
    ]


def _paid(summary: Mapping[str, Any]) -> str:
    """What the dollars pay for."""
    cost = summary["cost_usd"]
    *others, last = _paid_names(summary)
    if cost["gpu_hours"] == "busy":
        return f"GPUs are paid by the busy hour, {', '.join(others)} and {last} by the clock"
    if cost["included_dram_bytes"] or cost["included_ssd_bytes"]:
        dram, ssd = format_bytes(cost["included_dram_bytes"]), format_bytes(cost["included_ssd_bytes"])
        return f"GPUs are paid for the whole run, and {dram} of DRAM and {ssd} of SSD come with them"
    return f"{', '.join(['GPUs', *others])} and {last} are paid for the whole run"


_VERDICT = (("TTFT p95", "ttft_s.p95"), ("cost", "cost_usd.total"), ("busy GPU hours", "gpu.busy_h"))


def _equal(found: dict) -> list[str]:
    """How many more sessions have the same service, what they cost, and how far to trust it."""
    load, cost = Ratio(**found["load"]), None if found["cost"] is None else Ratio(**found["cost"])
    ours, theirs = found["usd_per_million_output_tokens"], found["recompute_usd_per_million_output_tokens"]
    dollars = "what its prompts cost" if ours is None else f"${ours:.2f} instead of ${theirs:.2f} per million output tokens"
    lines = [
        f"It bears {_sessions(load, found['at_the_reach'] > 0)} at the same TTFT p95 ({format_seconds(found['ttft_p95_s'])},"
        " recomputation's at the present load)" + (f": {dollars} ({change(cost)})." if cost else ".")
    ]
    if load.p is not None and LEVEL <= load.p < 1:
        lines.append("That cannot be told from as many sessions as now.")
    if found["at_the_reach"]:
        lines.append(
            f"In {found['at_the_reach']} of {found['replications']} replications the answer lies beyond the loads that were tried."
        )
    if found["recompute_overloaded"]:
        lines.append("Recomputation cannot keep up at the present load: its TTFT p95 is no level of service, so try a lower load.")
    return lines


def _sessions(load: Ratio, beyond: bool) -> str:
    if load.factor == 1:
        return "no more sessions"
    told = (
        compared(load).replace("more than", "more sessions").replace("less than", "fewer sessions").replace("that of", "as many sessions")
    )
    return f"at least {told}" if beyond and load.factor > 1 else told


def _told(ratio: Ratio) -> str:
    """`30% ± 5 less`; `unclear` where the interval holds no change."""
    return _judged(ratio, compared(ratio).removesuffix(" than").replace("that of", "as much"), " (unclear)")


def _tail(summary: Mapping[str, Any], baseline: dict | None) -> list[str]:
    """How well TTFT's p95 is known: by the run's own sessions, and from seed to seed."""
    if not (summary.get("intervals") or {}).get("ttft_s"):
        return []
    line = f"TTFT p95: {_span(summary['intervals']['ttft_s']['p95'])} by the run's own sessions (bootstrap, 95 %)"
    if baseline is None or baseline["difference"]["replications"] == 1:
        return [f"{line}; another seed can differ by more."]
    ours, theirs = baseline["difference"]["range"]["ttft_s.p95"].values()
    return [f"{line}; from seed to seed {_span(ours)}, recomputing {_span(theirs)}."]


def _span(ends: list[float]) -> str:
    return " to ".join(map(format_seconds, ends))


def _together(gpu: dict) -> str:
    return f" ({gpu['replicas']} replicas together)" if gpu["replicas"] > 1 else ""


def whole_percents(parts: dict[str, float], total: float) -> dict[str, int]:
    """Percentages of the total that add up as the parts do: rounded down, and what is missing goes to the largest remainders."""
    exact = {name: 100 * part / total for name, part in parts.items()}
    found = {name: int(percent) for name, percent in exact.items()}
    missing = round(sum(exact.values())) - sum(found.values())
    for name in sorted(exact, key=lambda name: found[name] - exact[name])[:missing]:
        found[name] += 1
    return found
