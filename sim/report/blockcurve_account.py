"""All that a curve of blocks says, as plain data with stable keys."""

from collections.abc import Iterator
from dataclasses import asdict

from kvplan.hwmodels.units import format_bytes, parse_bytes
from kvplan.sim.assumptions import assumptions
from kvplan.sim.keptunit import SERVED
from kvplan.sim.policies.registry import find
from kvplan.sim.provenance import provenance
from kvplan.sim.replay.blockcurve import BlockCurve, Point, of_sessions
from kvplan.sim.replay.blockmemory import OPTIMAL, of_servers
from kvplan.sim.replay.blocks import Served
from kvplan.traces import Workload, origin

TOKENS = "hit_rate.tokens"
"""Of all prompt tokens: whatever memory served them."""
BELOW = "hit_rate.below"
"""Of all prompt tokens: what the tier below a pool served."""
_OF_SESSIONS = ("links", origin.SHARED)
"""What a workload's origin says of how requests were made sessions of, which blocks need not know."""


def account(found: BlockCurve) -> dict:
    """Strict JSON."""
    server = of_sessions(found.config)
    return {
        "unit": "block",
        "mode": found.config.store.mode,
        "tier": found.tier,
        "below": found.pool_bytes and _pool(found),
        "pool_bytes": found.pool_bytes,
        "replicas": found.config.deployment.replicas,
        "model": found.config.model,
        "block_tokens": found.contexts.block_tokens,
        "block_bytes": found.block_bytes,
        "requests": len(found.contexts.tokens),
        "distinct_blocks": found.distinct_blocks,
        "endless": _served(found.endless),
        "sizes": [{"text": point.text, "bytes": point.bytes, "blocks": point.blocks} for point in found.points],
        "lines": [
            {
                "policy": policy,
                "orders": _orders(found, policy),
                "foresees": _foresees(found, policy),
                "points": [_point(point, policy) for point in found.points if point.found is not None],
            }
            for policy in found.policies
        ],
        "notes": list(_notes(found)),
        "warnings": list(_doubts(found)),
        "assumptions": assumptions(server),
        "config": found.config.resolved(),
        "provenance": provenance(found.config, found.workload, server),
    }


def _pool(found: BlockCurve) -> str:
    """The size of the pool above, as it was asked for; where nothing was, and of servers, as it is."""
    asked = found.config.store.hbm
    return asked if parse_bytes(asked) and not of_servers(found.config) else format_bytes(found.pool_bytes or 0)


def _orders(found: BlockCurve, policy: str) -> str:
    """What leaves in the order of a policy: the mode's own `blocks`, or `sessions`; of the `bound` no server's."""
    if policy == OPTIMAL:
        return "bound"
    return "blocks" if policy in found.own else "sessions"


def _foresees(found: BlockCurve, policy: str) -> bool:
    """Whether it knows what is to come, as no server does."""
    of = _orders(found, policy)
    return of == "bound" or (of == "sessions" and "future" in find("eviction", policy).NEEDS)


def _point(point: Point, policy: str) -> dict:
    found = (point.found or {})[policy]
    below = {}
    if found.below is not None:
        below = {BELOW: found.below.hit_tokens / found.served.prompt_tokens, "below": asdict(found.below)}
    return {"size": point.text, "bytes": point.bytes, "blocks": point.blocks, **_served(found.served), **below}


def _served(served: Served) -> dict:
    return {**asdict(served), TOKENS: served.hit_rate}


def _notes(found: BlockCurve) -> Iterator[str]:
    yield f"{found.config.store.mode}: {found.mode.meaning}."
    yield (
        f"An endless cache hits {found.endless.hit_rate:.1%} and holds {format_bytes(found.distinct_blocks * found.block_bytes)} in the"
        f" end: {found.distinct_blocks:,} blocks of {format_bytes(found.block_bytes)} ({found.config.model})."
    )
    yield from _grouped(found)
    yield from _ordered(found)
    yield (
        f"{len(found.contexts.tokens):,} requests, one at a time in order of their starts, without a server; answers are there"
        f" {_since(found)}."
    )
    if of_servers(found.config):
        yield (
            f"Requests that overlap leave less room for what others left: `kvplan compare --vary store.{found.tier}=64GB,128GB` simulates"
            " such servers, with TTFT; `--unit session` keeps whole sessions."
        )
    if any(point.found is None for point in found.points):
        yield "–: not full before the requests that are counted, which this tool does not judge."


def _since(found: BlockCurve) -> str:
    """From when on answers are found."""
    ended, back = "when they have ended", "when they come back in a prompt"
    if found.answers:
        return ended
    return f"in HBM {ended}, in {found.tier.upper()} {back}" if found.pool_bytes and of_servers(found.config) else back


def _ordered(found: BlockCurve) -> Iterator[str]:
    """What lines are of."""
    by = {of: [policy for policy in found.policies if _orders(found, policy) == of] for of in ("sessions", "bound")}
    if by["sessions"]:
        yield (
            f"{', '.join(by['sessions'])}: who leaves is a session, from its last block on, as in servers with store.eviction; what is"
            f" the mode's own ({', '.join(found.own)}) goes by blocks."
        )
    if of_servers(found.config) and found.config.store.eviction not in found.policies:
        yield f"store.eviction={found.config.store.eviction} is not drawn."
    if found.pool_bytes and of_servers(found.config) and parse_bytes(found.config.store.hbm):
        yield f"HBM keeps {found.config.store.hbm} of what requests leave at most (store.hbm)."
    for policy in by["sessions"]:
        if _foresees(found, policy):
            yield f"{policy} knows when sessions come back, as no server does."
    if by["bound"]:
        yield f"{OPTIMAL} is no policy: the most that any could hit, with all requests to come known."


def _grouped(found: BlockCurve) -> Iterator[str]:
    if found.groups is None:
        return
    groups = found.groups
    kept = "every block is" if groups.dense else "the blocks before a prompt's end, and before where it parts from others, are"
    others = "with states" if groups.states else f"with a window of {groups.window_tokens:,} tokens"
    yield (
        f"A block of {found.contexts.block_tokens:,} tokens is of one group of layers: of full attention there are {groups.full}, {others}"
        f" {groups.windowed}, of which {kept} kept for others (store.retention={found.config.store.retention})."
    )


def _doubts(found: BlockCurve) -> Iterator[str]:
    if not found.contexts.hashed:
        yield (
            "the workload has no block hashes: what a session's turns share with those before them, and what sessions begin with in common"
            f" ({_begun(found.workload)}), is known by construction; what else they share is not, and no such hit is counted"
        )
    for tokens, layers in found.windows.items():
        yield (
            f"{layers} layers of {found.config.model} attend to {tokens:,} tokens only: here they keep every token, in bytes and in what"
            " hits"
        )
    if found.past_window and of_servers(found.config):
        yield (
            f"{found.past_window:,} prompts lack some of their history, which servers cut off where a context does not fit into the"
            f" window of {found.config.model} (deployment.truncation_ratio={found.config.deployment.truncation_ratio:g})"
        )
    elif found.past_window:
        yield (
            f"{found.past_window:,} prompts are longer than the window of {found.config.model}: a server would refuse or cut them, here"
            " they are whole"
        )
    if found.unserved:
        yield f"{found.unserved:,} prompts are longer than the pool of {_pool(found)} of HBM: they are not served, and hit nothing"
    if found.mode.in_chunks and of_servers(found.config):
        pool = SERVED[found.config.store.mode]
        yield (
            f"HBM is left out: servers have {pool}'s pool of blocks above, and `kvplan curve --mode {pool} --tier hbm` says what that hits;"
            f" `--mode {pool} --tier dram` has both together, in chunks of {pool}'s own"
        )
    if found.config.store.ttl_s is not None:
        yield f"store.ttl_s={found.config.store.ttl_s:g}: nothing expires here, as there is no clock; `kvplan simulate` follows it"
    if found.config.warmup_turns:
        counted = "what the mode says is counted" if found.mode.warmup_share else "all requests are counted, from an empty cache on"
        yield f"warmup_turns={found.config.warmup_turns} is not used: {counted}"
    yield from origin.warnings(found.workload.origin, but=_OF_SESSIONS)


def _begun(workload: Workload) -> str:
    return "nothing here" if workload.beginnings is None else f"{workload.beginnings.some.sum():,} sessions here"
