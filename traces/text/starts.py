"""What sessions of text begin with in common, message by message: system prompts, tools, histories that go on in several ways.

Chains of digests of a session's messages, up to the first answer with reasoning, after which the history is another text. Those that one
session has alone are forgotten. Where a log records how long a prompt is, places within it are in proportion.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, takewhile

import numpy as np

from kvplan.traces.beginnings import Beginnings
from kvplan.traces.text.rows import Counted
from kvplan.traces.workload import Workload


class Starts:
    """Of sessions, by whatever number their reader has for them."""

    def __init__(self) -> None:
        self._chains: dict[int, tuple[array, array]] = {}

    def put(self, number: int, messages: Sequence[Counted], tokens: int | None = None) -> None:
        """The messages of a session so far; together they are of so many tokens, or as counted."""
        alike = list(takewhile(lambda message: not message.reasoning, messages)) if messages and not messages[0].is_answer else []
        ends = list(accumulate(message.kept for message in alike))
        if tokens is not None and ends and len(alike) == len(messages):
            ends = [end * tokens // ends[-1] for end in ends]
        digests = accumulate((message.digest for message in alike), lambda before, digest: hash((before, digest)), initial=0)
        self._chains[number] = array("q", list(digests)[1:]), array("q", ends)

    def beginnings(self, numbers: Iterable[int]) -> Beginnings:
        """Of the sessions of these numbers, in this order: what several have. Keys are numbers in order of appearance, the same in every
        process."""
        chains = [self._chains[number] for number in numbers]
        first = np.append(0, np.cumsum([len(digests) for digests, _ in chains]))
        digest, end = (np.array([value for chain in chains for value in chain[which]], np.int64) for which in (0, 1))
        _, begun, number = np.unique(digest, return_index=True, return_inverse=True)
        return Beginnings(first, np.argsort(np.argsort(begun))[number], end).growing().shared()


def with_starts(workload: Workload, found: Beginnings) -> Workload:
    """The workload whose sessions begin so, with what its origin says of it."""
    if not len(found.key):
        return workload
    prompts = workload.prompt_tokens[workload.first_turn[:-1]].astype(np.int64)
    total = int((workload.history_tokens + workload.prompt_tokens).sum())
    again = found.seen_before().cut(prompts).reach.sum()
    said = {"begin_alike": int(found.some.sum()), "shared_by_sessions": int(again) / total}
    return replace(workload, beginnings=found, origin={**workload.origin, **said})
