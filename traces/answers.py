"""Answers whose KV is of no use to the turn that follows: clients tokenise them anew, or do not send back the reasoning in them.

The KV of a token holds for what came before it, token by token. So a turn goes on from the context before the answer, and prefills the
answer again as part of its prompt; what it is asked in all stays the same. Where reasoning is left away, a log of requests has counted the
rest only, as it should; lengths that are new tokens only cannot say how much of an answer comes back, and all of it is taken to. Who begins
with a session's answer finds none of its KV either: of what sessions have in common, a session keeps what lies in its first prompt.
"""

from dataclasses import replace

import numpy as np

from kvplan.traces.workload import Workload


def prefilled_again(workload: Workload, why: str) -> Workload:
    """The same requests, none of which goes on from the answer before it. `why`, in words, goes into the origin."""
    history, context = workload.history_tokens, workload.history_tokens + workload.prompt_tokens
    before, answer = (np.where(workload.is_first, 0, np.append(0, column[:-1])) for column in (context, workload.output_tokens))
    kept = np.minimum(history, before)
    prompt = workload.prompt_tokens + (history - kept)
    begun = None if workload.beginnings is None else workload.beginnings.cut(context[workload.is_first])
    again = {"why": why, "tokens": int((history - kept).sum())}
    return replace(
        workload,
        prompt_tokens=prompt.astype(workload.prompt_tokens.dtype),
        dropped_tokens=before + answer - kept,
        beginnings=begun,
        origin={**workload.origin, "prefilled_again": again},
    )
