"""A described workload as text, as a picture, and in words that a planner can use."""

from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.counted import counted
from kvplan.sim.report.console import shown, stdout
from kvplan.sim.report.picture import picture
from kvplan.traces import Workload, origin
from kvplan.traces.reuse import accesses

_BAR = 40
_COLUMNS = ("mean", "p10", "p50", "p90", "p95", "p99", "max")


def print_description(found: dict, model: str) -> None:
    """To stdout; plain text when that is no terminal."""
    stdout(110).print(description(found, model))


def description(found: dict, model: str) -> Group:
    """Tables, a histogram and words."""
    table = Table(title=_title(found), title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for label, key, show in _ROWS:
        statistics = found[key] if key in found else found["reuse"][key]
        if statistics is not None:
            table.add_row(label, *(show(statistics[name]) for name in _COLUMNS))
    notes = [shown(line) for line in words(found, model)]
    notes += [shown(f"! {line}", "yellow") for line in [*doubts(found, model), *found["kv"].get("left_out", [])]]
    return Group(table, Text(""), *_histogram(found), *_kept(found), *notes)


def _beside(kv: dict) -> str:
    """What a long session holds whatever its tokens."""
    parts = {"windows": kv.get("bytes_of_windows", 0), "states": kv.get("state_bytes", 0)}
    return "".join(f", {name} of {format_bytes(size)}" for name, size in parts.items() if size)


def _kept_as(kv: dict) -> str:
    """What tiers make of it that have a dtype of their own."""
    return "".join(f", {each['bytes_per_token']:,} B as {each['dtype']} in {tier.upper()}" for tier, each in kv.get("kept", {}).items())


def words(found: dict, model: str) -> list[str]:
    """What the figures mean for caching."""
    kv, ttl = found["kv"], found["ttl"]
    lines = [
        _verdict(found),
        *_shared(found),
        *_block_words(found),
        f"In a mean hour {found['sessions_per_hour']['mean']:,.0f} distinct sessions have a turn, at most"
        f" {found['sessions_per_hour']['max']:,.0f}.",
        f"A session holds {format_bytes(kv['session_mean_bytes'])} of KV at its end in the mean"
        f" ({kv['bytes_per_token']:,} B per token of {model}{_beside(kv)}{_kept_as(kv)}), all sessions together"
        f" {format_bytes(kv['all_bytes'])}.",
    ]
    distance = found["reuse"]["distance_bytes"]
    if distance is None:
        return [*lines, "No turn resumes a session: no store of sessions can hit."]
    share = found["reuse"]["token_hit_rate"]
    hour = next((row for row in found["reuse"]["kept_for"] if row["seconds"] == 3600), found["reuse"]["kept_for"][-1])
    lines += [
        f"Half of the reuse comes within {format_seconds(found['gap_s']['p50'])}, 90 % within"
        f" {format_seconds(found['gap_s']['p90'])}; {format_bytes(hour['held_bytes'])} hold what comes back within {_span(hour['seconds'])}"
        f" ({hour['reuse_share']:.0%} of the reuse).",
        f"An LRU store hits half of the resumed turns with {format_bytes(distance['p50'])}, 90 % with {format_bytes(distance['p90'])},"
        f" all with {format_bytes(distance['max'])}; first turns never hit, so the ceiling is"
        f" {found['resumed_turns'] / found['turns']:.0%} of all turns. Of all prompt tokens that is {share['p50']:.1%}, {share['p90']:.1%}"
        f" and {share['max']:.1%}: other tools' token hit rate.",
        f"With a TTL of {_span(ttl['ttl_s'])}: {ttl['dsput']:,} distinct sessions (DSpUT) hold {format_bytes(ttl['held_bytes'])} at their"
        f" real sizes; {ttl['reuse_share']:.0%} of the reuse comes in time. CCpUT, each at a full window of {kv['window_tokens']:,} tokens,"
        f" would be {format_bytes(ttl['ccput_bytes'])}.",
    ]
    return lines


def _verdict(found: dict) -> str:
    history, blocks = found["history_share"], _block_share(found)
    share = max(history, blocks)
    verdict = "caching can pay" if share >= 0.5 else "caching may pay" if share >= 0.2 else "there is little to cache"
    shared = f", {blocks:.0%} are blocks that an earlier prompt had" if blocks > history else ""
    return (
        f"{found['multi_turn_share']:.0%} of sessions have more than one turn; {history:.0%} of prefill work is history{shared}: {verdict}."
    )


def _block_share(found: dict) -> float:
    return found["shared"]["hit_rate"]["tokens"] if found["shared"] else 0.0


def _shared(found: dict) -> list[str]:
    """What a store would hold that all requests share, and hit."""
    shared = found["shared"]
    if shared is None:
        return ["Nobody knows what requests share: there are no block hashes, no sessions of several turns, and no known beginnings."]
    rates, hashed = shared["hit_rate"], shared["known_by"] == "block hashes"
    uncut = "; contexts are whole, past the window too" if found["kv"]["turns_past_window_share"] else ""
    return [
        f"A store that all requests share and that forgets nothing holds {shared['distinct']:,} blocks of {shared['block_tokens']:,} tokens"
        f" in the end, {format_bytes(shared['held_bytes'])}, and hits {rates['tokens']:.1%} of all prompt tokens"
        f" ({'by the block hashes' if hashed else 'as far as is known by construction'}): {rates['own']:.1%} what the same session had"
        f" before, {rates['others']:.1%} what only others had. An answer hits from the second prompt on that holds it{uncut}."
    ]


def _block_words(found: dict) -> list[str]:
    """What the block hashes say, where there are any."""
    blocks, history = found["blocks"], found["history_share"]
    if blocks is None:
        return []
    if blocks["distance_bytes"] is None:
        return ["No two requests begin with the same block: no cache of blocks can hit."]
    distance = blocks["distance_bytes"]
    lines = [
        f"An LRU cache of blocks hits half as much with {format_bytes(distance['p50'])}, 90 % of it with"
        f" {format_bytes(distance['p90'])}, all of it with {format_bytes(distance['max'])}."
    ]
    if blocks["hit_rate"] > 2 * history:
        lines.append(
            f"Requests share prefixes across sessions: an endless shared block cache hits {blocks['hit_rate']:.0%}, a store of sessions"
            f" {history:.0%}; store.unit=block simulates servers of blocks, curve --unit block replays them by an engine's rules."
        )
    return lines


def doubts(found: dict, model: str) -> list[str]:
    """What one should know before one trusts the figures."""
    lines = origin.notes(found["origin"])
    if found["loop"] == "closed":
        lines.append("closed loop: answers take no time here, so reuse comes later on a real server")
    if found["kv"]["turns_past_window_share"] > 0:
        lines.append(
            f"{found['kv']['turns_past_window_share']:.1%} of the turns pass the window of {model} ({found['kv']['window_tokens']:,}"
            " tokens); they are truncated, and bytes are for what is left"
        )
    if found["edited_share"] > 0:
        lines.append(
            f"{found['edited_share']:.1%} of the resumed turns go on from less than the whole history (edited or compacted contexts,"
            " answers that are not reused)"
        )
    return lines


def draw(workload: Workload, found: dict, path: Path) -> None:
    """Writes the picture: sessions, lengths, gaps, and the LRU curve. Raises OSError."""
    with picture(path, 2, 2, (10, 6.4)) as (_, axes):
        _draw_turns(axes[0, 0], np.diff(workload.first_turn))
        context = workload.history_tokens + workload.prompt_tokens
        lengths = {"prompt": workload.prompt_tokens, "answer": workload.output_tokens, "prompt with history": context}
        _draw_shares(axes[0, 1], lengths, "tokens", "Lengths")
        gaps = accesses(workload, 1, found["kv"]["window_tokens"]).gap_s
        _draw_shares(axes[1, 0], {"": np.maximum(gaps[~np.isnan(gaps)], 0.1)}, "seconds since the turn before", "Gaps between turns")
        _draw_curve(axes[1, 1], found)


def _title(found: dict) -> str:
    what = f"{counted(found['turns'], 'turn')} of {counted(found['sessions'], 'session')}"
    return f"{what} in {format_seconds(found['span_s'])} ({found['loop']} loop)"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"


_ROWS = [
    ("turns per session", "turns_per_session", _count),
    ("prompt, tokens", "prompt_tokens", _count),
    ("answer, tokens", "output_tokens", _count),
    ("context with answer, tokens", "context_tokens", _count),
    ("gap between turns", "gap_s", format_seconds),
    ("reuse distance", "distance_bytes", format_bytes),
]


def _span(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{'an' if name == 'hour' else 'a'} {name}" if count == 1 else f"{count} {name}s"
    return format_seconds(seconds)


def _histogram(found: dict) -> list[Text]:
    if found["gap_s"] is None:
        return []
    rows, before = [shown("gaps between turns", "bold")], 0.0
    top = max(item["share"] for item in found["gap_histogram"])
    for item in found["gap_histogram"]:
        end = item["up_to_s"]
        label = f"{_span(before)} and more" if end is None else f"under {_span(end)}"
        rows.append(shown(f"  {label:<18}{'█' * round(_BAR * item['share'] / top):<{_BAR}} {item['share']:6.1%}"))
        before = end or 0.0
    return [*rows, Text("")]


def _kept(found: dict) -> list[Text]:
    if found["gap_s"] is None:
        return []
    rows = [
        shown(
            f"  {_span(row['seconds']):<12}{row['reuse_share']:>7.1%} of the reuse, {row['sessions']:>9,} sessions,"
            f" {format_bytes(row['held_bytes']):>8} at most"
        )
        for row in found["reuse"]["kept_for"]
    ]
    return [shown("KV kept after its last use for", "bold"), *rows, Text("")]


def _draw_turns(axes, turns: np.ndarray) -> None:
    top = int(np.percentile(turns, 99))
    values, counts = np.unique(np.minimum(turns, top), return_counts=True)
    axes.bar(values, 100 * counts / len(turns), color="#2a6fbb", width=0.85)
    axes.set_xlabel(f"turns per session ({top} and more in the last bar)" if turns.max() > top else "turns per session")
    axes.set_ylabel("% of sessions")
    axes.set_title("Sessions", loc="left")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="x", visible=False)


def _draw_shares(axes, columns: dict[str, np.ndarray], unit: str, title: str) -> None:
    for (label, values), colour in zip(columns.items(), ("#2a6fbb", "#e08a1e", "#2f9e6e"), strict=False):
        if len(values):
            ordered = np.sort(values)
            pick = np.unique(np.linspace(0, len(ordered) - 1, 1000).astype(int))
            axes.plot(ordered[pick], 100 * (pick + 1) / len(ordered), color=colour, label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, 101)
    axes.set_xlabel(unit)
    axes.set_ylabel("% at most")
    axes.set_title(title, loc="left")
    if any(columns):
        axes.legend(frameon=False)


def _draw_curve(axes, found: dict) -> None:
    curve = found["lru_curve"]
    if curve:
        size = np.array([point["capacity_bytes"] for point in curve]) / 1e9
        axes.plot(size, [100 * point["turn_hit_rate"] for point in curve], color="#2a6fbb", label="of all turns")
        axes.plot(size, [100 * point["history_hit_rate"] for point in curve], color="#e08a1e", label="of history tokens")
    blocks = found["blocks"] and found["blocks"]["lru_curve"]
    if blocks:
        sizes = [point["capacity_bytes"] / 1e9 for point in blocks]
        axes.plot(sizes, [100 * point["token_hit_rate"] for point in blocks], color="#2f9e6e", label="shared blocks, of all prompt tokens")
    if curve or blocks:
        axes.legend(frameon=False)
        axes.set_xscale("log")
    axes.set_ylim(0, 101)
    axes.set_xlabel("capacity, GB")
    axes.set_ylabel("LRU hits, %")
    axes.set_title("LRU store of sessions (no server simulated)", loc="left")
