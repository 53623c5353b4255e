"""A plan as text and as plain data."""

import sys
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from kvplan.foreign.text import visible
from kvplan.hwmodels.units import format_seconds
from kvplan.sim.planner.flags import flags, warnings
from kvplan.sim.planner.plan import Answer, Plan, row
from kvplan.sim.report.console import print_table


def print_plan(plan: Plan) -> None:
    """To stdout."""
    print_table(title(plan), _table(plan), sentences(plan))
    if plan.cheapest is not None:
        sys.stdout.writelines(f"{visible(line)}\n" for line in pasted(plan.cheapest))


def title(plan: Plan) -> str:
    """One line: what was asked."""
    aims = ", ".join(map(str, plan.question.objectives))
    return f"{plan.config.model} on {plan.config.hardware}, {plan.sessions_per_s:g} sessions/s: the fewest replicas with {aims}"


def data(plan: Plan) -> dict[str, Any]:
    """Strict JSON."""
    return {
        "sessions_per_s": plan.sessions_per_s,
        "objectives": [str(each) for each in plan.question.objectives],
        "simulations": plan.simulations,
        "cheapest": None if plan.cheapest is None else plan.cheapest.option.label,
        "options": [{**row(answer), **_flags(answer)} for answer in plan.answers],
    }


def _flags(answer: Answer) -> dict[str, Any]:
    """What each engine is told for an option, and what holds for all of them."""
    return {
        "flags": [each.data() for each in flags(answer.sizes)],
        "flag_warnings": warnings(answer.sizes),
        "ssd_dwpd": answer.figure("ssd_wear.dwpd") if answer.sizes.ssd else None,
    }


def pasted(answer: Answer) -> Iterator[str]:
    """An option in the words of the engines, line by line and never wrapped: what is pasted stays whole."""
    yield ""
    yield f"To paste, for a replica of {answer.gpus} GPU{'s' * (answer.gpus > 1)} with {answer.option.label}:"
    for engine in flags(answer.sizes):
        if engine.lines or engine.notes:
            yield f"{engine.engine} {engine.version}  ({engine.source})"
        for line in engine.lines:
            yield f"  {line.text}"
            if line.says:
                yield f"    {line.says}"
        yield from (f"    ! {note}" for note in engine.notes)
    if answer.sizes.ssd and (written := answer.figure("ssd_wear.dwpd")) is not None:
        yield f"The drives are written {written:.2f} times a day (DWPD); {answer.sizes.rated_dwpd:g} is what they are rated for."
    yield from (f"! {each}" for each in warnings(answer.sizes))


def _table(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("store", "replicas", "GPUs", "$/month", "TTFT p95", "token hits", ""):
        table.add_column(head, justify="right" if head not in ("store", "") else "left", no_wrap=bool(head))
    for answer in plan.answers:
        table.add_row(*map(Text, _cells(answer, answer is plan.cheapest)))
    return table


def _cells(answer: Answer, cheapest: bool) -> list[str]:
    if answer.replicas is None:
        return [answer.option.label, "–", "–", "–", "–", "–", answer.found.reason or ""]
    ttft, hits = answer.figure("ttft_s.p95"), answer.figure("hit_rate.tokens")
    notes = ["cheapest"] * cheapest + list(answer.found.doubts) + ["" if answer.fills else "never filled"]
    return [
        answer.option.label,
        str(answer.replicas),
        str(answer.replicas * answer.gpus),
        f"{answer.cost_usd_per_month:,.0f}",
        "–" if ttft is None else format_seconds(ttft),
        "–" if hits is None else f"{hits:.1%}",
        "; ".join(filter(None, notes)),
    ]


def sentences(plan: Plan) -> list[str]:
    """What the table means."""
    best = plan.cheapest
    if best is None:
        return ["Nothing that was tried meets the objectives."]
    size = f"{best.replicas} replicas, {best.replicas * best.gpus} GPUs"
    lines = [f"Cheapest: {best.option.label}, {size}, ${best.cost_usd_per_month:,.0f} a month."]
    for answer in plan.answers:
        if answer.option.baseline and answer.replicas is not None and answer is not best:
            saved = answer.replicas * answer.gpus - best.replicas * best.gpus
            share = 1 - best.cost_usd_per_month / answer.cost_usd_per_month
            lines.append(f"Against {answer.option.label}: {saved} GPUs fewer, {share:.0%} fewer dollars at equal service.")
    return [*lines, f"{plan.simulations} simulations."]
