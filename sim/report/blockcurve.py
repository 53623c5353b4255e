"""Hit rates of caches of blocks over their size, as text and as plain data."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from kvplan.hwmodels.units import format_bytes
from kvplan.sim.replay.blockcurve import BlockCurve, Point
from kvplan.sim.replay.blocks import Served
from kvplan.sim.report.console import print_table, shown_cell
from kvplan.sim.report.picture import label, picture
from kvplan.traces import Workload, origin

_OF_SESSIONS = ("links", "shared_by_sessions")
"""What a workload's origin says of how requests were made sessions of, which blocks need not know."""


def print_block_curve(found: BlockCurve) -> None:
    """To stdout."""
    print_table(title(found), _table(found), sentences(found))


def title(found: BlockCurve) -> str:
    """One line: what the table shows."""
    below = "" if found.tier in found.mode.tiers else f" below {found.config.store.hbm} of HBM"
    return (
        f"token hit rate, of all prompt tokens, by size of {found.tier.upper()}{below}: {found.config.store.mode},"
        f" blocks of {found.contexts.block_tokens:,} tokens"
    )


def sentences(found: BlockCurve) -> list[str]:
    """What to know about the table."""
    lines = [
        f"{found.config.store.mode}: {found.mode.meaning}.",
        f"An endless cache hits {found.endless.hit_rate:.1%} and holds {format_bytes(found.distinct_blocks * found.block_bytes)} in the"
        f" end: {found.distinct_blocks:,} blocks of {format_bytes(found.block_bytes)} ({found.config.model}).",
        *_grouped(found),
        f"{len(found.contexts.tokens):,} requests, one at a time in order of their starts, without a server; answers are there when they"
        " come back in a prompt.",
    ]
    if any(point.found is None for point in found.points):
        lines.append("–: not full before the requests that are counted, which this tool does not judge.")
    return lines + [f"! {line}" for line in _doubts(found)]


def _grouped(found: BlockCurve) -> list[str]:
    if found.groups is None:
        return []
    groups, kept = found.groups, "every block" if found.groups.dense else "the blocks before a prompt's end"
    return [
        f"A block is of one group of layers: of full attention there are {groups.full}, with a window of {groups.window_tokens:,} tokens"
        f" {groups.windowed}, of which {kept} are kept for others (store.retention={found.config.store.retention})."
    ]


def _doubts(found: BlockCurve) -> list[str]:
    doubts = []
    if not found.contexts.hashed:
        doubts.append(
            "the workload has no block hashes: what a session's turns share with those before them, and what sessions begin with in common"
            f" ({_begun(found.workload)}), is known by construction; what else they share is not, and no such hit is counted"
        )
    doubts += [
        f"{layers} layers of {found.config.model} attend to {tokens:,} tokens only: here they keep every token, in bytes and in what hits"
        for tokens, layers in found.windows.items()
    ]
    if found.past_window:
        doubts.append(
            f"{found.past_window:,} prompts are longer than the window of {found.config.model}: a server would refuse or cut them, here"
            " they are whole"
        )
    known = {key: what for key, what in found.workload.origin.items() if key not in _OF_SESSIONS}
    return doubts + origin.warnings(known)


def _begun(workload: Workload) -> str:
    return "nothing here" if workload.beginnings is None else f"{int((np.diff(workload.beginnings.first) > 0).sum()):,} sessions here"


def _table(found: BlockCurve) -> Table:
    table, below = Table(box=None, pad_edge=False), found.tier not in found.mode.tiers
    heads = [f"{policy}{what}" for policy in found.policies for what in (", %", *(f" {each}" for each in _BELOW[: 2 * below]))]
    for head in (found.tier.upper(), "chunks" if below else "blocks", *heads):
        table.add_column(shown_cell(head), justify="right", no_wrap=True)
    for point in found.points:
        cells = [cell for policy in found.policies for cell in _cells(point, policy)]
        table.add_row(*map(shown_cell, (point.text, f"{point.blocks:,}", *cells)))
    return table


_BELOW = ("in DRAM, %", "stored")
"""What a tier below a pool served, and was written."""


def _cells(point: Point, policy: str) -> list[str]:
    if point.found is None:
        return ["–"]
    served, below = point.found[policy].served, point.found[policy].below
    shares = [served.hit_tokens, *([] if below is None else [below.hit_tokens])]
    return [*(f"{100 * hit / served.prompt_tokens:.1f}" for hit in shares), *([] if below is None else [f"{below.stored_chunks:,}"])]


def draw_block_curve(found: BlockCurve, path: Path) -> None:
    """Writes the picture: a line per policy, and what an endless cache hits. Raises OSError."""
    with picture(path, 1, 1, (7, 4.4)) as (_, axes):
        for policy in found.policies:
            points = [point for point in found.points if point.found is not None and point.bytes]
            rates = [100 * (point.found or {})[policy].served.hit_rate for point in points]
            axes.plot([point.bytes / 1e9 for point in points], rates, marker="o", label=label(policy))
        axes.axhline(100 * found.endless.hit_rate, color="#222222", dashes=(8, 3), linewidth=1.3, label="endless")
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"{found.tier.upper()}, GB")
        axes.set_ylabel("% of all prompt tokens")
        axes.set_title(label(f"{found.config.store.mode}, blocks of {found.contexts.block_tokens:,} tokens"), loc="left")
        axes.legend(frameon=False)


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
            {"policy": policy, "points": [_account(point, policy) for point in found.points if point.found is not None]}
            for policy in found.policies
        ],
        "notes": sentences(found),
        "config": found.config.resolved(),
    }


def _account(point: Point, policy: str) -> dict:
    found = (point.found or {})[policy]
    below = {} if found.below is None else {"below": asdict(found.below)}
    return {"size": point.text, "bytes": point.bytes, "blocks": point.blocks, **_served(found.served), **below}


def _served(served: Served) -> dict:
    return {**asdict(served), "hit_rate.tokens": served.hit_rate}
