"""What a server's metrics say, as text; and the configuration that comes of them."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.table import Table

from kvplan.foreign.text import visible
from kvplan.hwmodels import strictyaml
from kvplan.hwmodels.units import format_seconds
from kvplan.sim.counted import counted
from kvplan.sim.report.console import print_table, shown_cell
from kvplan.traces.prometheus.operations import UNKNOWN, Observed
from kvplan.traces.prometheus.settings import Setting

HEAD = "# Of "
"""How a configuration of it begins."""
_COLUMNS = ("mean", "p10", "p50", "p90", "p95", "p99")
_SIZES = {"prompt": "prompt tokens, history included", "uncached": "  of them computed", "output": "answer tokens"}
_LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "E2E", "queue": "queue"}
_NAMES = {"vllm": "vLLM", "sglang": "SGLang", "lmcache": "LMCache"}


def print_observed(found: Observed, where: str) -> None:
    """To stdout."""
    print_table(title(found, where), _table(found), sentences(found))


def title(found: Observed, where: str) -> str:
    """One line: what was read."""
    what = ", ".join(filter(None, (_NAMES.get(found.engine or ""), found.model, counted(found.servers, "server"))))
    over = f"in {format_seconds(found.span_s)}" if found.span_s else "since the start of the servers"
    return f"{where}: {what}; {found.turns:,.0f} turns {over}"


def _table(found: Observed) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for names, shapes, show in ((_SIZES, found.sizes, lambda value: f"{value:,.0f}"), (_LATENCIES, found.latencies, format_seconds)):
        for key, label in names.items():
            if key in shapes:
                data = shapes[key].data()
                table.add_row(label, *(shown_cell(show(data[name]) if name in data else "–") for name in _COLUMNS))
    return table


def sentences(found: Observed) -> Iterator[str]:
    """What the metrics say, what was found, and what they cannot say."""
    if found.turns_per_s is not None:
        over = [rate for _, _, rate in found.curve]
        swing = f", from {min(over):.3g} to {max(over):.3g} in spans of {format_seconds(found.curve[0][1])}" if len(over) > 1 else ""
        yield f"Turns per second: {found.turns_per_s:.3g} in the mean{swing}."
    for name, each in found.hits.items():
        yield f"Prefix hit rate, {name}: {each.rate:.1%} of {each.of} ({each.hits:,.0f} of {each.queries:,.0f})."
    if "all" in found.hits:
        yield "A simulation of this server should come to the same hit_rate.tokens as `all`: a target to calibrate by."
    for name, (mean, most) in found.levels.items():
        yield f"{name}: {mean:.3g} in the mean, {most:.3g} at most."
    yield f"Read: {', '.join(f'{role} from {name}' for role, name in found.found.items())}."
    yield f"Not in the export: {', '.join(found.missing)}."
    yield from (f"Not known: {each}." for each in UNKNOWN)
    yield from (f"! {note}" for note in found.notes)


def configuration(found: Observed, workload: dict[str, Setting], model: str | None, where: str) -> str:
    """YAML that `simulate` and `plan` take; what is assumed says so."""
    begin = datetime.fromtimestamp(found.begin_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"{HEAD}{visible(where)}: {found.turns:,.0f} turns"
        + (f" in {format_seconds(found.span_s)} from {begin}" if found.span_s else " since the start of the servers"),
        *(f"# Prefix hit rate, {visible(name)}: {each.rate:.4f} of {each.of}; calibrate by it" for name, each in found.hits.items()),
        *(
            f"# {name.upper()} as recorded: {format_seconds(each.mean)} in the mean"
            for name, each in found.latencies.items()
            if each.mean is not None
        ),
        *(f"# ! {visible(note)}" for note in found.notes),
        f"model: {strictyaml.flow(model)}" if model else f"# model:  # set it; the server calls it {visible(str(found.model))}",
        "# hardware:  # set it: metrics do not say what the server runs on (`kvplan list hardware`)",
        "workload:",
        *(
            f"  {name}: {strictyaml.flow(each.value)}  # {'ASSUMED: ' * each.assumed}{visible(each.remark)}"
            for name, each in workload.items()
        ),
    ]
    return "\n".join(lines) + "\n"
