"""A plan as text and as plain data: plan.json holds all that is printed and drawn of it."""

import platform
import sys
from collections.abc import Iterator
from typing import Any

from rich.table import Table
from rich.text import Text

from kvplan.foreign.text import visible
from kvplan.hwmodels.units import format_seconds
from kvplan.sim.assumptions import assumptions
from kvplan.sim.counted import counted
from kvplan.sim.planner import doubt
from kvplan.sim.planner.binding import binding, shares
from kvplan.sim.planner.doubt import probability, saved
from kvplan.sim.planner.flags import flags, warnings
from kvplan.sim.planner.money import PUBLIC_CACHE_PRICES, keeping, unit_costs
from kvplan.sim.planner.plan import Answer, Plan
from kvplan.sim.planner.regret import regrets
from kvplan.sim.planner.sensitivity import Outcome, Robust
from kvplan.sim.planner.worth import break_even
from kvplan.sim.provenance import commit, sources, version
from kvplan.sim.report.console import html_table, print_table
from kvplan.sim.report.plan_account import account
from kvplan.sim.report.plan_words import said, sure
from kvplan.sim.settings import used, without

SCHEMA_VERSION = 1


def print_plan(plan: Plan, with_flags: bool = False) -> None:
    """To stdout; on request with what engines are told."""
    print_table(title(plan), _table(plan), sentences(plan))
    if plan.robust is not None:
        print_table(
            "What else may be true, and what is cheapest then:", _scenarios(plan.robust), [f"{plan.robust.simulations} more simulations."]
        )
    if plan.cheapest is not None and with_flags:
        sys.stdout.writelines(f"{visible(line)}\n" for line in pasted(plan.cheapest))


def html(plan: Plan) -> str:
    """The same for a notebook, without what is for a command line."""
    return html_table(title(plan), _table(plan), sentences(plan))


def title(plan: Plan) -> str:
    """One line: what was asked."""
    aims = ", ".join(map(str, plan.question.objectives))
    config, load = plan.config, f"{plan.sessions_per_s:g} sessions/s"
    blocks = " in blocks" * plan.of_blocks
    return f"{config.model} on {config.hardware}, served as by {config.engine}{blocks}, {load}: the fewest replicas with {aims}"


def data(plan: Plan) -> dict[str, Any]:
    """Strict JSON: `kvplan.sim.report.plan_account`, what each engine is told, what is drawn, and what all of it rests on."""
    found = account(plan)
    options = [{**one, **_flags(answer), **_drawn(answer)} for one, answer in zip(found["options"], plan.answers, strict=True)]
    return {
        "schema_version": SCHEMA_VERSION,
        **found,
        "options": options,
        "targets": [{"measure": each.measure, "statistic": each.statistic, "limit": each.limit} for each in plan.question.objectives],
        "title": title(plan),
        "finding": finding(plan),
        "meaning": meaning(plan),
        "paste": [] if plan.cheapest is None else list(pasted(plan.cheapest))[1:],
        "settings": _settings(plan),
        "assumptions": assumptions(plan.question.config(plan.answers[-1].option)),
        "provenance": _provenance(plan),
    }


def _drawn(answer: Answer) -> dict[str, Any]:
    """Costs of all replicas by part, tiers of one, and what was where over time in one of its runs."""
    count, point = answer.replicas, answer.point
    return {
        "cost_usd_per_month": None if count is None else {part: count * usd for part, usd in answer.usd_per_month.items()},
        "tier_bytes": answer.deployment.sizes,
        "series": {} if point is None else point.seen[0].series,
    }


def _settings(plan: Plan) -> dict[str, Any]:
    """What all options share and runs read."""
    varied = [path for answer in plan.answers[1:] for path, _ in answer.option.settings]
    return without(used(plan.question.config(plan.answers[-1].option), plan.workload), varied)


def _provenance(plan: Plan) -> dict[str, Any]:
    return {
        "kvplan": version(),
        "commit": commit(),
        "python": platform.python_version(),
        **sources(plan.config),
        "seed": plan.config.seed,
        "workload": dict(plan.workload.origin),
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
    yield f"To paste, for a replica of {counted(answer.gpus, 'GPU')} with {answer.option.label}:"
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


def _scenarios(robust: Robust) -> Table:
    """A line per scenario, those of the inputs first that move the cost most."""
    table = Table(box=None, pad_edge=False)
    for head in ("input", "change", "cheapest", "GPUs", "$/month", "baseline's GPUs", "dollars saved"):
        table.add_column(head, justify="left" if head in ("input", "change", "cheapest") else "right")
    ends = [each for pair in robust.inputs for each in pair if each is not None]
    for outcome in [robust.unchanged, *ends, *robust.what_ifs]:
        table.add_row(*map(Text, _scenario(outcome)))
    return table


def _scenario(outcome: Outcome) -> list[str]:
    found = outcome.data
    if outcome.best is None:
        return [found["input"], found["change"], outcome.reason or "", "–", "–", "–", "–"]
    theirs, share = found["baseline_gpus"], found["saved_share"]
    return [
        found["input"],
        found["change"],
        found["cheapest"],
        str(found["gpus"]),
        f"{found['usd_per_month']:,.0f}",
        "–" if theirs is None else str(theirs),
        "–" if share is None else f"{share:.0%}",
    ]


def _cells(answer: Answer, cheapest: bool) -> list[str]:
    if answer.replicas is None:
        return [answer.option.label, "–", "–", "–", "–", "–", answer.found.reason or ""]
    ttft, hits = answer.ttft_p95_s, answer.figure("hit_rate.tokens")
    fills = answer.fills and not any(seen.unsteady for seen in answer.seen)
    notes = ["cheapest"] * cheapest + list(answer.found.doubts) + ["" if fills else "never filled"]
    return [
        answer.option.label,
        str(answer.replicas),
        str(answer.all_gpus),
        f"{answer.cost_usd_per_month:,.0f}",
        "–" if ttft is None else format_seconds(ttft),
        "–" if hits is None else f"{hits:.1%}",
        "; ".join(filter(None, notes)),
    ]


def sentences(plan: Plan) -> list[str]:
    """What the table means."""
    return [*finding(plan), *meaning(plan)]


def finding(plan: Plan) -> list[str]:
    """The answer, and what it saves."""
    best = plan.cheapest
    met = None if best is None else best.met
    if best is None or met is None:
        return ["Nothing that was tried meets the objectives."]
    size = f"{sure(best)} replica{'s' * (sure(best) != '1')}, {counted(met.gpus, 'GPU')}"
    years = best.config.cost.horizon_years
    cost = unit_costs(met.usd_per_month, plan.demand, years)
    prices = {kind: cost[f"per_million_{kind}_tokens"] for kind in ("input", "output")}
    tokens = [f"${usd:.3g} per million {kind} tokens" for kind, usd in prices.items() if usd is not None]
    lines = [
        f"Cheapest: {best.option.label}, {size}, ${met.usd_per_month:,.0f} a month; ${cost['over_horizon']:,.0f} over"
        f" {years:g} years, ${cost['per_session']:.3g} a session, {', '.join(tokens)}.",
        f"Its replicas run out of {binding(best)} first ({_used(best)}){_bears(*met.headroom)}; the target holds there with a probability"
        f" of {_percent(probability(best.point))}{_surely(best)}.",
    ]
    return lines + [_against(plan, best, answer) for answer in plan.answers if answer.option.baseline and answer is not best]


def meaning(plan: Plan) -> list[str]:
    """What else there is to know."""
    left_out = [f"{option.label} was not tried: {reason}." for option, reason in plan.refused]
    if plan.cheapest is None:
        return [*left_out, *said(plan)]
    return [*left_out, *map(_regret, regrets(plan)), *said(plan), *_keeping(plan), f"{counted(plan.simulations, 'simulation')}."]


def _percent(share: float | None) -> str:
    """A probability, which nothing measured makes a certainty."""
    if share is None:
        return "unknown size"
    return "over 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _surely(best: Answer) -> str:
    """The replicas with which it holds as far as intervals tell, and what they cost, where the answer may be too few."""
    count, usd = doubt.replicas(best), doubt.cost(best)
    if count is None or count.high in (None, count.value) or usd is None or usd[1] is None:
        return ""
    return f", and with {count.high} replicas surely: {best.gpus * count.high} GPUs, ${usd[1]:,.0f} a month"


def _used(best: Answer) -> str:
    most = sorted(shares(best).items(), key=lambda each: -each[1])[:4]
    return ", ".join(f"{name} {share:.0%}" for name, share in most)


def _bears(low: float, high: float | None) -> str:
    """Of the first of the runs that the probability rests on: what the others bear is not looked for."""
    least = f"; in a single run they bear {low:.3f} times the load"
    return least if high is None else f"{least}, and no longer {high:.3f} times"


def _against(plan: Plan, best: Answer, baseline: Answer) -> str:
    """GPUs and dollars beside a baseline, at equal service."""
    gpus, mine, theirs = saved(best, baseline), best.met, baseline.met
    if gpus is None or mine is None or theirs is None:
        return f"{baseline.option.label} cannot: {baseline.found.reason}."
    span = "" if gpus["low"] == gpus["high"] else f" ({_span(gpus['low'], gpus['high'])})"
    share = 1 - mine.usd_per_month / theirs.usd_per_month
    lines = f"Against {baseline.option.label}: {counted(gpus['value'] or 0, 'GPU')} fewer{span}, {share:.0%} fewer dollars at equal service"
    return f"{lines}{_pays(break_even(plan, best, baseline))}."


def _span(low: int | None, high: int | None) -> str:
    if low is None and high is None:
        return "or any other number"
    return f"{low} or more" if high is None else f"{high} or fewer" if low is None else f"{low} to {high}"


def _pays(found: dict[str, float | None] | None) -> str:
    if found is None:
        return ""
    load, hits = found["sessions_per_s"], found["token_hit_rate"]
    parts = [] if load is None else [f"{load:.3g} sessions/s"]
    parts += [] if hits is None else [f"{hits:.0%} token hits"]
    return f"; it pays from {' and from '.join(parts)} on" if parts else ""


def _regret(found: dict[str, Any]) -> str:
    where = f"The next {found['step']} {found['path'].rpartition('.')[2].upper()} ({found['option']})"
    if not found["feasible"]:
        return f"{where} does not meet it."
    usd = found["usd_per_month_more"]
    return f"{where}: {counted(found['gpus_more'], 'GPU', '+d')}, {'+' if usd >= 0 else '–'}${abs(usd):,.0f} a month."


def _keeping(plan: Plan) -> Iterator[str]:
    """The price of keeping KV, beside what others charge for it; where no turn has a history, there is none to keep."""
    kept = keeping(plan.answers[0].deployment, plan.demand)
    if not kept["recompute_usd_per_mtok"]:
        return
    low, high = PUBLIC_CACHE_PRICES["storage_usd_per_mtok_h"]
    pays = " and ".join(
        f"{name.upper()} for {format_seconds(3600 * hours)}"
        for name in ("dram", "ssd")
        if (hours := kept[f"{name}_break_even_h"]) is not None
    )
    yield (
        f"A million tokens of KV cost ${kept['dram_usd_per_mtok_h']:.2g} an hour in DRAM and ${kept['ssd_usd_per_mtok_h']:.2g} on SSD"
        f" (API vendors charge ${low:g} to ${high:g}), and ${kept['recompute_usd_per_mtok']:.2g} to compute again: keeping pays in {pays}"
        f"{' at most; within what comes with the rented GPUs it costs nothing more.' if kept['included_dram_bytes'] else ' at most.'}"
    )
