"""Who the sessions belong to and what they share: tenants, and one system prompt."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from kvplan.traces.workload import MAX_TOKENS, TraceError, Workload


def with_system_prompt(workload: Workload, tokens: int) -> Workload:
    """The first prompt of each session begins with a system prompt of `tokens` tokens, the same for all.

    Block hashes no longer fit and are left out. Raises TraceError when `tokens`, or a prompt with it, is no possible length.
    """
    if not 0 <= tokens <= MAX_TOKENS:
        raise TraceError(f"a system prompt of {tokens} tokens: give 0 to {MAX_TOKENS}")
    longer = workload.prompt_tokens + np.where(workload.is_first, np.int32(tokens), np.int32(0))
    return replace(workload, prompt_tokens=longer, blocks=None, origin={**workload.origin, "system_prompt_tokens": tokens})


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
