"""An explained configuration as text."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvplan.hwmodels.units import format_bytes, format_seconds
from kvplan.sim.counted import counted
from kvplan.sim.report import engine, moving
from kvplan.sim.report.console import shown, stdout
from kvplan.sim.report.tiers import name_of
from kvplan.traces import origin


def print_explanation(found: dict) -> None:
    """To stdout; plain text when that is no terminal."""
    stdout(120).print(explanation(found))


def explanation(found: dict) -> Group:
    """Tables, words and warnings."""
    parts: list[RenderableType] = [shown(line) for line in [*_sizes(found), *engine.words(found["engine"])]]
    parts += [Text(""), _tiers(found), Text("")]
    parts += [shown(f"Prefill of {found['points'][0]['prompt_tokens']:,} new tokens", "bold"), _points(found)]
    parts += [shown(line) for line in _break_even(found)]
    parts += [Text(""), _moving(found["moving"])] if found["moving"] else []
    rate = found["rate"]
    title = (
        f"At {rate['turns_per_s']:.3g} turns/s a replica, with {rate['sessions_per_s']:.3g} sessions/s that begin (asked for: of full"
        " batches, in the middle of the run; busy: in batches as they come, over all of it)"
    )
    parts += [Text(""), shown(title, "bold"), _demand(found)]
    parts += [shown(line) for line in [*_saturation(found), *_money(found)]]
    parts += [shown(f"~ {limit}") for limit in _limits(found)]
    parts += [shown(f"! {warning}", "yellow") for warning in [*found["warnings"], *origin.notes(found["origin"])]]
    return Group(*parts)


def _sizes(found: dict) -> list[str]:
    model, hbm, turn = found["model"], found["hbm"], found["turn"]
    return [
        f"{model['name']} on {counted(model['gpus'], 'GPU')} of {model['hardware']}"
        + (f", {model['replicas']} replicas" * (model["replicas"] > 1)),
        f"  KV {model['kv_bytes_per_token']:,} B per token ({model['hbm_kv_bytes_per_token']:,} B in HBM){_windows(model)}, window"
        f" {model['window_tokens']:,} tokens: {format_bytes(model['kv_bytes_at_full_window'])}",
        *_narrower(found["tiers"]),
        *_blocks(found),
        f"  HBM {format_bytes(hbm['installed_bytes'])}: weights {format_bytes(model['weight_bytes'])}, left for KV"
        f" {format_bytes(hbm['kv_bytes'])} = {hbm['kv_tokens']:,} tokens: {hbm['jobs']:.1f} mean jobs at once,"
        f" {hbm['jobs_at_full_window']:.1f} at a full window; what they leave {_left(found)}",
        f"  mean turn: {turn['prompt_tokens']:,.0f} new tokens after {turn['history_tokens']:,.0f} of history, answer"
        f" {turn['output_tokens']:,.0f}; mean session: {turn['turns_per_session']:.1f} turns, {turn['session_tokens']:,.0f} tokens,"
        f" {format_bytes(turn['session_bytes'])} of KV",
    ]


def _left(found: dict) -> str:
    """What the HBM that running jobs leave is."""
    hbm, blocks = found["hbm"], found["blocks"]
    if blocks:
        kept = f", {blocks['kept_blocks']:,} of them at most" * (blocks["kept_blocks"] < blocks["blocks"])
        return "keeps prefixes" + kept
    return (
        f"is read buffer, up to {format_bytes(hbm['read_buffer_bytes'])}, and write buffer, up to {format_bytes(hbm['write_buffer_bytes'])}"
    )


def _blocks(found: dict) -> list[str]:
    """What blocks and chunks are, and what is found in full ones."""
    blocks = found["blocks"]
    if not blocks:
        return []
    below = len(found["tiers"]) > 1
    one = " in one group" * (blocks["groups"] is not None)
    chunks = f"; chunks of {blocks['chunk_tokens']:,}{one} below, {format_bytes(blocks['chunk_bytes'])} of KV" * below
    in_chunks = f", and in full chunks {blocks['in_full_chunks']:,}" * below
    return [
        f"  {blocks['blocks']:,} blocks of {blocks['block_tokens']:,} tokens{_of_groups(blocks['groups'])},"
        f" {format_bytes(blocks['block_bytes'])} each{chunks}; the mean resumed turn has {blocks['resumed_history_tokens']:,} tokens of"
        f" history, {blocks['in_full_blocks']:,} of them in full blocks{in_chunks}",
    ]


def _of_groups(groups: dict | None) -> str:
    """Whose blocks they are."""
    if groups is None:
        return ""
    kept = "states" if groups["states"] else "windows"
    return f" in one of {groups['full'] + groups['windowed']} groups of layers ({groups['windowed']} with {kept})"


def _windows(model: dict) -> str:
    """Of layers that keep windows or states."""
    store, hbm = model["kv_bytes_of_windows"], model["hbm_kv_bytes_of_windows"]
    windows = f", windows of {format_bytes(store)} ({format_bytes(hbm)} in HBM)" if hbm else ""
    return windows + (f", states of {format_bytes(model['state_bytes'])}" if model["state_bytes"] else "")


def _narrower(tiers: dict) -> list[str]:
    """What tiers make of KV that have a dtype of their own."""
    said = [f"{name_of(name)} {tier['kv_dtype']}, {tier['kv_bytes_per_token']:,} B" for name, tier in tiers.items() if tier["kv_dtype"]]
    return [f"  kept in a narrower dtype: {'; '.join(said)} per token"] if said else []


def _tiers(found: dict):
    if not found["tiers"]:
        return shown("No tier keeps KV: every turn recomputes its history.")
    table = Table("tier", box=None, pad_edge=False)
    for name in ("capacity", "kept free", "mean sessions", "full windows", "LRU serves"):
        table.add_column(name, justify="right")
    for name, tier in found["tiers"].items():
        table.add_row(
            name_of(name),
            format_bytes(tier["capacity_bytes"]),
            format_bytes(tier["kept_free_bytes"]),
            f"{tier['sessions']:,.0f}",
            f"{tier['sessions_at_full_window']:,.0f}",
            f"{found['served'][name]:.0%} of {'prompts' if found['blocks'] else 'history'}",
        )
    if found["blocks"]:
        served = found["served"]
        return Group(table, shown(f"Together {1 - served['lost']:.1%} of all prompt tokens; with endless room, {served['at_most']:.1%}."))
    windows = found["windows"]
    note = (
        f"Look-ahead windows: L_pw {windows['prefetch_jobs']:,.0f} waiting jobs are fetched ahead, {windows['eviction_jobs']:,.0f} are kept"
        f" (S_kv {format_bytes(windows['s_kv_bytes'])}; running jobs' pins make both smaller)."
    )
    return Group(table, shown(note))


def _points(found: dict) -> Table:
    table = Table("history", box=None, pad_edge=False)
    for name in ("KV", "recompute", "from DRAM", "without buffer", "from SSD", "load DRAM", "load SSD", "break-even", "S_buf"):
        table.add_column(name, justify="right")
    for point in found["points"]:
        table.add_row(
            f"{point['history_tokens']:,}",
            format_bytes(point["kv_bytes"]),
            *(format_seconds(point[name]) for name in ("recompute_s", "with_dram_s", "with_dram_unbuffered_s", "with_ssd_s")),
            *(format_seconds(point[name]) for name in ("load_dram_s", "load_ssd_s")),
            "never" if (rate := point["break_even_bytes_per_s"]) is None else f"{format_bytes(rate)}/s",
            f"{format_bytes(point['s_buf_bytes'])} = {point['s_buf_layers']:.0f} layers",
        )
    return table


def _moving(found: dict) -> Table:
    first, *others = moving.heads(found)
    table = Table(first, box=None, pad_edge=False)
    for name in others:
        table.add_column(name, justify="left" if name == others[-1] else "right")
    for row in moving.rows(found):
        table.add_row(*row)
    return table


def _break_even(found: dict) -> list[str]:
    rates = [rate for point in found["points"] if (rate := point["break_even_bytes_per_s"]) is not None]
    if not rates:
        return ["Loading never beats recomputing: a prefill takes as long without the history as with it."]
    return [
        f"Loading beats recomputing above {format_bytes(min(rates))}/s to {format_bytes(max(rates))}/s (break-even, without any overlap)."
        " S_buf is the read buffer that hides the load wholly."
    ]


def _demand(found: dict) -> Table:
    table = Table("resource", box=None, pad_edge=False)
    for name in ("per turn", "turns/s at most", "asked for", "busy"):
        table.add_column(name, justify="right")
    busy = found["demand"]["busy"]
    for name, one in found["demand"]["resources"].items():
        limit = "–" if one["turns_per_s"] is None else f"{one['turns_per_s']:,.2f}"
        shares = f"{one['utilization']:.0%}", f"{busy[name]:.0%}" if name in busy else ""
        table.add_row(name, format_seconds(one["seconds_per_turn"]), limit, *shares)
    return table


def _limits(found: dict) -> list[str]:
    """Where the figures do not hold, and which."""
    kinds = {"served": "hits", "GPU": "GPU time", "links": "links"}
    return [f"{', '.join(kinds[kind] for kind in limit['of'])} may differ when it runs: {limit['words']}" for limit in found["limits"]]


def _saturation(found: dict) -> list[str]:
    demand = found["demand"]
    first = demand["resources"][demand["first"]]
    return [
        f"{demand['first'][0].upper()}{demand['first'][1:]} saturates first, at {first['turns_per_s'] or 0:,.2f} turns/s"
        f" ({first['utilization']:.0%} of it is asked for); decoding, which no cache shortens, is {format_seconds(demand['decode_s'])} of a"
        f" turn's GPU time in batches of {demand['batch']}. The GPUs work as long as any job runs: {demand['busy']['GPU']:.0%} of the time,"
        f" in batches of {demand['jobs']:.1f}."
    ]


def _money(found: dict) -> list[str]:
    cost = found["cost_usd_per_h"]
    if not cost["storage"]:
        return [f"A replica costs ${cost['gpus']:.2f} an hour in GPUs."]
    line = (
        f"A replica costs ${cost['gpus']:.2f} an hour in GPUs and ${cost['storage']:.2f} in DRAM and SSD ({cost['storage_share']:.0%}): the"
        f" cache pays once it saves {cost['must_save_share']:.0%} of the GPU time of a busy replica; on this workload it saves"
        f" {cost['seconds_saved_share']:.0%} per turn (at full batches)."
    )
    return [line]
