"""Hit rates of caches of blocks over their size, as text and as plain data."""

from dataclasses import asdict

from rich.table import Table

from kvplan.hwmodels.units import format_bytes
from kvplan.sim.replay.blockcurve import BlockCurve, Point
from kvplan.sim.replay.blocks import Served
from kvplan.sim.report.console import print_table, shown_cell
from kvplan.traces import origin

_OF_SESSIONS = ("links", "shared_by_sessions")
"""What a workload's origin says of how requests were made sessions of, which blocks need not know."""


def print_block_curve(found: BlockCurve) -> None:
    """To stdout."""
    print_table(title(found), _table(found), sentences(found))


def title(found: BlockCurve) -> str:
    """One line: what the table shows."""
    return (
        f"token hit rate, of all prompt tokens, by size of {found.tier.upper()}: {found.config.store.mode},"
        f" blocks of {found.contexts.block_tokens:,} tokens"
    )


def sentences(found: BlockCurve) -> list[str]:
    """What to know about the table."""
    lines = [
        f"{found.config.store.mode}: {found.mode.meaning}.",
        f"An endless cache hits {found.endless.hit_rate:.1%} and holds {format_bytes(found.distinct_blocks * found.block_bytes)} in the"
        f" end: {found.distinct_blocks:,} blocks of {format_bytes(found.block_bytes)} ({found.config.model}).",
        f"{len(found.contexts.tokens):,} requests, one at a time in order of their starts, without a server; answers are there when they"
        " come back in a prompt.",
    ]
    if any(point.served is None for point in found.points):
        lines.append("–: not full before the requests that are counted, which this tool does not judge.")
    return lines + [f"! {line}" for line in _doubts(found)]


def _doubts(found: BlockCurve) -> list[str]:
    doubts = []
    if not found.contexts.hashed:
        doubts.append(
            "the workload has no block hashes: what a session's turns share with those before them is known by construction; what sessions"
            " share with one another (system prompts, tools, forks) is not, and no such hit is counted"
        )
    if found.past_window:
        doubts.append(
            f"{found.past_window:,} prompts are longer than the window of {found.config.model}: a server would refuse or cut them, here"
            " they are whole"
        )
    known = {key: what for key, what in found.workload.origin.items() if key not in _OF_SESSIONS}
    return doubts + origin.warnings(known)


def _table(found: BlockCurve) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in (found.tier.upper(), "blocks", *(f"{policy}, %" for policy in found.policies)):
        table.add_column(shown_cell(head), justify="right", no_wrap=True)
    for point in found.points:
        table.add_row(*map(shown_cell, (point.text, f"{point.blocks:,}", *(_percent(point, policy) for policy in found.policies))))
    return table


def _percent(point: Point, policy: str) -> str:
    return "–" if point.served is None else f"{100 * point.served[policy].hit_rate:.1f}"


def block_curve_account(found: BlockCurve) -> dict:
    """All of it as strict JSON."""
    return {
        "unit": "block",
        "mode": found.config.store.mode,
        "tier": found.tier,
        "block_tokens": found.contexts.block_tokens,
        "block_bytes": found.block_bytes,
        "requests": len(found.contexts.tokens),
        "distinct_blocks": found.distinct_blocks,
        "endless": _served(found.endless),
        "sizes": [{"text": point.text, "bytes": point.bytes, "blocks": point.blocks} for point in found.points],
        "lines": [
            {"policy": policy, "points": [_account(point, policy) for point in found.points if point.served is not None]}
            for policy in found.policies
        ],
        "notes": sentences(found),
        "config": found.config.resolved(),
    }


def _account(point: Point, policy: str) -> dict:
    served = {} if point.served is None else _served(point.served[policy])
    return {"size": point.text, "bytes": point.bytes, "blocks": point.blocks, **served}


def _served(served: Served) -> dict:
    return {**asdict(served), "hit_rate.tokens": served.hit_rate}
