"""What a plan means, in plain words: when a cache does not help, what cannot be told, what this plan cannot judge."""

from collections.abc import Iterator

from kvplan.hwmodels.units import format_bytes, format_seconds, parse_bytes
from kvplan.sim.config import named
from kvplan.sim.counted import counted
from kvplan.sim.deployment import of_sessions
from kvplan.sim.keptunit import SERVED, refused
from kvplan.sim.planner import doubt
from kvplan.sim.planner.binding import binding, shares
from kvplan.sim.planner.miss import nearest
from kvplan.sim.planner.plan import Answer, Plan
from kvplan.sim.planner.question import HBM_SHARE
from kvplan.sim.planner.regret import faster, more, pareto, ties
from kvplan.sim.provided import extras
from kvplan.sim.report.alike import once
from kvplan.sim.settings import in_vain
from kvplan.traces import origin

_FULL = 0.9
"""Share of a tier that counts as full."""
_LITTLE = 0.3
"""Share of history in what is prefilled, from which down there is little to keep."""
_FEW = 200
"""Sessions of a trace below which means and tails rest on few of them."""
_OFFERS = 3
"""Faster offers that are named."""


def said(plan: Plan) -> list[str]:
    """One sentence each, the most important first."""
    best = plan.cheapest
    if best is None:
        return [*_missed(plan), *_of_workload(plan)]
    return [
        *_no_help(plan, best),
        *_set_aside(plan, best),
        *_tied(plan, best),
        *_sized(best),
        *_worn(plan),
        *_faster(plan, best),
        *_beyond(best),
        *_too_short(best),
        *_without_hashes(plan),
        *_outside(best),
        *_of_workload(plan),
    ]


def _missed(plan: Plan) -> Iterator[str]:
    miss = nearest(plan)
    if miss is None:
        return
    if all(not answer.found.points for answer in plan.answers):
        yield f"No store and no number of replicas can meet it: {miss.objective} is out of reach of a server with one turn at a time."
    yield f"Nearest: {miss.option}; {miss.objective}: {miss.lacks}."


def _no_help(plan: Plan, best: Answer) -> Iterator[str]:
    """Why the cheapest has no DRAM and no SSD."""
    if not best.option.baseline:
        return
    stores = [answer for answer in plan.answers if not answer.option.baseline]
    if not stores or any(_surer(best, answer) for answer in stores):
        return
    yield f"DRAM and SSD do not pay here: {_why(plan, best, stores)}."


def _why(plan: Plan, best: Answer, stores: list[Answer]) -> str:
    found = [answer for answer in stores if answer.replicas is not None]
    if not found:
        return "no store that was tried meets the objectives"
    hits = max(answer.figure("hit_rate.tokens") or 0.0 for answer in found)
    if plan.demand.reuse < _LITTLE and not (plan.of_blocks and hits >= _LITTLE):
        return f"only {plan.demand.reuse:.0%} of the tokens to prefill are history"
    if best.replicas == 1 and best.point is not None and best.point.meets:
        return "one replica meets it without them"
    short = binding(best)
    if short in ("decode", "HBM", "batch"):
        return f"replicas are short of {short} ({shares(best)[short]:.0%} in use), which a store does not spare"
    return f"it takes as many replicas at up to {hits:.0%} token hits, or more dollars for the store than the GPUs it saves"


def _set_aside(plan: Plan, best: Answer) -> Iterator[str]:
    """That a prefix cache of whole sessions is the weaker one to be compared with, and why it is one."""
    yield from (f"{said[0].upper()}{said[1:]}." for said in of_sessions(best.config, best.deployment))
    if not plan.of_blocks and not best.option.baseline:
        yield (
            f"Prefix cache in HBM has {HBM_SHARE:.0%} of what weights leave, set aside; vLLM's and SGLang's have all that running"
            f" requests leave, and may need fewer GPUs{_in_blocks(best)}."
        )


def _in_blocks(best: Answer) -> str:
    """How to plan with blocks instead, where that needs no other change."""
    mode = {} if best.config.store.mode in SERVED else {"mode": "vllm"}
    store = best.config.store.model_copy(update=mode)
    if refused(best.config.model_copy(update={"store": store}), best.deployment.model, best.deployment.hbm_kv) or parse_bytes(store.hbm):
        return ""
    return f": {'store.mode=vllm with ' if mode else ''}store.unit=block plans with that"


def _tied(plan: Plan, best: Answer) -> Iterator[str]:
    for other in ties(plan):
        yield f"{best.option.label} and {other.option.label} cannot be told apart in cost; the first is {_better(best, other)}."


def _better(best: Answer, other: Answer) -> str:
    """Than one that cannot be told from it in cost; and in what that one is better for no more money: DRAM comes with GPUs."""
    dearer = more(best.cost_usd_per_month, other.cost_usd_per_month)
    if dearer is not None and dearer >= 1:
        return "cheaper"
    smaller = "smaller" if best.deployment.aside < other.deployment.aside else "no dearer"
    mine, theirs, gains = best.ttft_p95_s, other.ttft_p95_s, []
    if mine is not None and theirs is not None and faster(other, best):
        gains.append(f"faster for the same dollars (TTFT p95 {format_seconds(theirs)} for {format_seconds(mine)})")
    if _surer(best, other):
        gains.append("surely enough")
    return f"{smaller}, the second {' and '.join(gains)}" if gains else smaller


def _surer(best: Answer, other: Answer) -> bool:
    """Whether another surely meets it for no more dollars, and it may meet it or not."""
    dearer = more(best.cost_usd_per_month, other.cost_usd_per_month)
    if best.point is None or other.point is None or dearer is None:
        return False
    return dearer < 1 and best.point.meets is None and other.point.meets is True


def _sized(best: Answer) -> Iterator[str]:
    """Whether the simulated sessions say anything about the sizes."""
    seen = best.seen
    rising = sorted({name for each in seen for name in each.unsteady})
    if not best.fills or rising:
        names = " and ".join(name.upper() for name in rising) or "The last tier"
        yield f"{names} never filled in these runs: they cannot judge its size."
        return
    for name, size in best.deployment.sizes.items():
        peak = best.figure(f"tiers.{name}.peak_bytes")
        if peak is not None and peak < _FULL * size:
            used = f"{format_bytes(peak)} of {format_bytes(size)} were used"
            yield f"{name.upper()} holds all that comes back: {used}; more would be the same."


def _worn(plan: Plan) -> Iterator[str]:
    for answer in plan.answers:
        worn = answer.wear
        if worn is None or not worn.too_short:
            continue
        times = counted(worn.replacements, "more time")
        fate = "ruled out" if answer.replicas is None else f"all of the node's are bought {times}, which is in its cost"
        yield f"{answer.option.label}: writes wear its drives out in {worn.years:.2g} of {worn.horizon_years:g} years; {fate}."


def _faster(plan: Plan, best: Answer) -> Iterator[str]:
    """What more money buys in TTFT, up to twice as much."""
    least = best.cost_usd_per_month or 0.0
    for offer in [each for each in pareto(plan)[1:] if each.usd_per_month <= 2 * least][:_OFFERS]:
        usd = offer.usd_per_month - least
        what = f"{counted(offer.replicas, 'replica')} of {offer.answer.option.label}"
        yield f"Faster for ${usd:,.0f} more a month: {what}, TTFT p95 {format_seconds(offer.ttft_p95_s)}."


def _beyond(best: Answer) -> Iterator[str]:
    """What does not come with the node or its rent."""
    yield from (f"{text}." for text in extras(best.deployment))


def _too_short(best: Answer) -> Iterator[str]:
    ttl, span = best.config.store.ttl_s, best.figure("makespan_s")
    if ttl is not None and span is not None and span < ttl:
        yield f"The runs measure {format_seconds(span)}, less than the TTL of {format_seconds(ttl)}: what expires was not seen."


def _without_hashes(plan: Plan) -> Iterator[str]:
    """Streams have no block hashes (`kvplan.traces.generate.steady`)."""
    if plan.workload.blocks is not None and plan.of_blocks:
        yield "The trace's block hashes are left out, for a stream has no requests of the trace's own: what sessions share is not counted."


def _outside(best: Answer) -> Iterator[str]:
    """Step times beyond their calibration, at the answer."""
    yield from map(_sentence, once(text for each in best.seen for text in each.warnings if text.startswith("step times")))


def _of_workload(plan: Plan) -> Iterator[str]:
    """What makes the turns that a plan is for less certain than they look, and what was asked for and does not matter to it."""
    found = plan.workload
    if plan.config.workload.trace is not None and found.sessions < _FEW:
        yield f"The trace has {found.sessions:,} sessions, which the runs draw again and again: how much others differ is not seen."
    yield from map(_sentence, origin.warnings(found.origin, but=[origin.SHARED] * plan.of_blocks))
    yield from map(_sentence, in_vain(named(plan.question.overrides), plan.question.unread))


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def sure(answer: Answer) -> str:
    """The number of replicas and how sure it is: `27`, `27 (26 to 28)`, `27 (26 or more)`; `–` without an answer."""
    count = doubt.replicas(answer)
    if count is None:
        return "–"
    if count.low == count.high:
        return str(count.value)
    return f"{count.value} ({count.low} {'or more' if count.high is None else f'to {count.high}'})"
