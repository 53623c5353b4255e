"""Who the sessions belong to and what they share: tenants, a system prompt, applications, documents, histories that go on in more ways.

Each lengthens first prompts, and says so in `Workload.beginnings`: a system prompt comes first, then what an application adds to it
(instructions, tools), then a document, then what the session itself asks. Left out: that a fork comes at a certain time after the session
that it goes on from; tenants with applications of their own.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kvplan.traces import beginnings
from kvplan.traces.beginnings import Beginnings, mixed
from kvplan.traces.generate.laws import Law
from kvplan.traces.workload import MAX_TOKENS, TraceError, Workload

_TEXTS, _BEGUN = 1, 2
"""What keys are made of, so that those of texts are no others'."""


def with_system_prompt(workload: Workload, tokens: int) -> Workload:
    """The first prompt of each session begins with a system prompt of `tokens` tokens, the same for all.

    Block hashes no longer fit and are left out. Raises TraceError when `tokens`, or a prompt with it, is no possible length.
    """
    if not 0 <= tokens <= MAX_TOKENS:
        raise TraceError(f"a system prompt of {tokens} tokens: give 0 to {MAX_TOKENS}")
    found = _behind(workload, np.zeros(workload.sessions, np.int64), np.full(workload.sessions, tokens))
    return replace(found, origin={**workload.origin, "system_prompt_tokens": tokens})


def with_texts(workload: Workload, name: str, count: int, tokens: Law, zipf: float, rng: np.random.Generator) -> Workload:
    """The first prompt of each session begins with one of `count` texts, and those with the same one share it; the n-th is used as often as
    1/n to the power `zipf`. `name`: of the texts, for the origin. Raises TraceError when a prompt with it is no possible length."""
    popularity = np.arange(1, count + 1) ** -float(zipf)
    lengths = np.clip(np.rint(tokens.sample(count, rng)), 1, MAX_TOKENS).astype(np.int64)
    which = rng.choice(count, workload.sessions, p=popularity / popularity.sum())
    said = {"count": len(np.unique(which)), "mean_tokens": float(lengths[which].mean())}
    found = _behind(workload, mixed(which, np.array(_TEXTS)), lengths[which])
    return replace(found, origin={**workload.origin, name: said})


def _behind(workload: Workload, key: np.ndarray, tokens: np.ndarray) -> Workload:
    """Each session behind a text of this key and so many tokens."""
    begun = workload.beginnings or beginnings.none(workload.sessions)
    prompt = workload.prompt_tokens.astype(np.int64)
    prompt[workload.first_turn[:-1]] += tokens
    return replace(workload, prompt_tokens=_possible(prompt), blocks=None, beginnings=begun.behind(key, tokens))


def _possible(prompt: np.ndarray) -> np.ndarray:
    """Raises TraceError when one is too long."""
    if prompt.max() > MAX_TOKENS:
        raise TraceError(f"a prompt with all that it begins with has {prompt.max():,} tokens: {MAX_TOKENS:,} are possible")
    return prompt.astype(np.int32)


def with_forks(workload: Workload, share: float, rng: np.random.Generator) -> Workload:
    """This share of the sessions go on from the history of an earlier one up to one of its answers, each in its own way: their first prompt
    holds it, in place of what they began with. Block hashes are left out. Raises TraceError when a prompt with it is no possible length."""
    fork, parent = _forked(workload.sessions, share, rng)
    first, context = workload.first_turn, workload.history_tokens + workload.prompt_tokens + workload.output_tokens
    last = rng.integers(first[parent], _unedited(workload)[parent])
    furthest = np.zeros(workload.sessions, np.int64)
    np.maximum.at(furthest, parent, last)
    parts, prompt = _parts(workload.beginnings or beginnings.none(workload.sessions)), workload.prompt_tokens.astype(np.int64)
    own = np.array([part[-1][1] if part else 0 for part in parts])
    for session in np.unique(parent).tolist():
        parts[session] += [(turn, int(context[turn])) for turn in range(int(first[session]), int(furthest[session]) + 1)]
    for session, of, up_to in zip(fork.tolist(), parent.tolist(), context[last].tolist(), strict=True):
        parts[session] = [part for part in parts[of] if part[1] <= up_to]
    prompt[first[fork]] += context[last] - own[fork]
    tenant = None if workload.tenant is None else workload.tenant.copy()
    if tenant is not None:
        tenant[fork] = tenant[parent]
    begun, origin = Beginnings.of(parts), {**workload.origin, "forks": len(fork)}
    return replace(workload, prompt_tokens=_possible(prompt), blocks=None, tenant=tenant, beginnings=begun, origin=origin)


def _forked(sessions: int, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Sessions that go on from another one, and those others, which are before them and do not."""
    drawn = rng.random(sessions) < share
    others, forks = np.flatnonzero(~drawn), np.flatnonzero(drawn)
    before = np.searchsorted(others, forks)
    return forks[before > 0], others[rng.integers(0, before[before > 0])]


def _unedited(workload: Workload) -> np.ndarray:
    """Per session: the row after the last turn before the first that leaves a part of its history."""
    stop = workload.first_turn[1:].copy()
    if workload.dropped_tokens is not None:
        edits = np.flatnonzero(workload.dropped_tokens > 0)
        np.minimum.at(stop, workload.session[edits], edits)
    return stop


def _parts(known: Beginnings) -> list[list[tuple[int, int]]]:
    """Of each session: (key, end); no key is the number of a turn."""
    return replace(known, key=mixed(known.key, np.array(_BEGUN))).parts()


def with_tenants_apart(workload: Workload) -> Workload:
    """Tenants share nothing: what one has is never another's, as if each had a cache salt of its own. Raises TraceError when the workload
    has no tenants."""
    if workload.tenant is None:
        raise TraceError("workload.tenants_apart keeps tenants apart, and the workload has none: set workload.tenants")
    begun = None if workload.beginnings is None else workload.beginnings.apart(workload.tenant)
    blocks = None if workload.blocks is None else workload.blocks.apart(workload.tenant[workload.session])
    count = len(np.unique(workload.tenant))
    return replace(workload, beginnings=begun, blocks=blocks, origin={**workload.origin, "tenants_apart": count})


def with_tenants(workload: Workload, shares: Mapping[str, float], rng: np.random.Generator) -> Workload:
    """Each session belongs to one of the tenants, drawn with these shares of the sessions, which need not sum to 1.

    Labels that were there are replaced. Raises TraceError when the shares are no shares.
    """
    total = sum(shares.values())
    if not (0 < total < np.inf and all(share >= 0 for share in shares.values())):
        raise TraceError(f"shares of tenants must be finite, not negative, and not all 0: {dict(shares)}")
    weights = np.array(list(shares.values())) / total
    drawn = rng.choice(len(weights), workload.sessions, p=weights)
    origin = {**workload.origin, "tenant_shares": dict(zip(shares, weights.tolist(), strict=True))}
    return replace(workload, tenant=np.array(list(shares))[drawn], origin=origin)
