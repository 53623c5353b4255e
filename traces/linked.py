"""Requests of a log that knows, or whose reader finds out, which request each one goes on from.

A request's prompt counts its whole context. What it adds to the request before is its new prompt; how much of the context before it goes on
from (`kept`) is, by what is known of it,

    as stated by the reader (common messages), or
    all of it, prompt and answer      when the request is longer than that
    the prompt before                 when it is not shorter than that: the answer changed
    what was recorded as cached       when it is shorter, and the log records that; else the prompt before: the context was compacted

A request whose predecessor has gone on already begins a session of its own (a fork), and is counted.
Left out: prefixes that different sessions share.
"""

from array import array
from collections import Counter

import numpy as np

from kvplan.traces.build import Turns
from kvplan.traces.source import BadRecord
from kvplan.traces.workload import Workload

NONE = -1
"""No request before; nothing stated, nothing recorded."""


class Linked:
    """Requests in columns, each with the one before it."""

    def __init__(self) -> None:
        self._record, self._before = array("i"), array("q")
        self._input, self._output, self._kept, self._cached = array("q"), array("q"), array("q"), array("q")
        self._arrival, self._ended = array("d"), array("d")
        self._gone_on = bytearray()
        self.left_out: Counter[str] = Counter()
        """What is not in the workload, by what it is."""

    def __len__(self) -> int:
        return len(self._record)

    def add(
        self,
        record: int,
        input_tokens: int,
        output_tokens: int,
        arrival_s: float = np.nan,
        ended_s: float = np.nan,
        before: int = NONE,
        kept: int = NONE,
        cached: int = NONE,
    ) -> int:
        """One request; its number. It goes on from request `before`. `kept` and `cached`: tokens of its prompt that the one before had, and
        that the log records as served from a cache. Raises BadRecord when that cannot be."""
        if cached > input_tokens:
            raise BadRecord(f"{cached:,} cached tokens are more than the {input_tokens:,} of the prompt")
        if before != NONE and arrival_s < self._arrival[before]:
            late = self._arrival[before] - arrival_s
            raise BadRecord(f"requests out of order: arrives {late:,.3g} s before the one it goes on from,", self._record[before])
        if before != NONE and self._gone_on[before]:
            self.left_out["links_of_second_children"] += 1
            before = NONE
        if before != NONE:
            self._gone_on[before] = True
        self._gone_on.append(False)
        for column, tokens in ((self._input, input_tokens), (self._output, output_tokens), (self._kept, kept), (self._cached, cached)):
            column.append(tokens)
        self._record.append(record)
        self._before.append(before)
        self._arrival.append(arrival_s)
        self._ended.append(ended_s)
        return len(self) - 1

    def lengthen(self, request: int, output_tokens: int, ended_s: float = np.nan) -> None:
        """The answer of a request was at least this long, and ended no earlier."""
        self._output[request] = max(self._output[request], output_tokens)
        if not ended_s <= self._ended[request]:
            self._ended[request] = ended_s if not np.isnan(ended_s) else self._ended[request]

    def link(self, request: int, before: int, kept: int) -> bool:
        """Whether a request that began a session could be linked to an earlier one that none has gone on from."""
        if self._gone_on[before] or self._arrival[request] < self._arrival[before]:
            return False
        self._before[request], self._kept[request] = before, kept
        self._gone_on[before] = True
        return True

    def length(self, request: int) -> int:
        """Tokens of its prompt."""
        return self._input[request]

    def context(self, request: int) -> int:
        """Tokens of its prompt and its answer."""
        return self._input[request] + self._output[request]

    def has_gone_on(self, request: int) -> bool:
        """Whether another request goes on from this one."""
        return bool(self._gone_on[request])

    def heads(self) -> list[int]:
        """The requests that begin sessions, in order of these."""
        return [request for request, before in enumerate(self._before) if before == NONE]

    def workload(self, **origin) -> Workload:
        """The finished table. Raises TraceError when there are no requests."""
        before, arrival = np.array(self._before, np.int64), np.array(self._arrival)
        history, dropped = self._contexts(before)
        gap = np.where(before == NONE, 0.0, np.maximum(arrival - np.array(self._ended)[before], 0.0))
        turns = Turns.of(
            session=self._sessions(),
            record=np.array(self._record, np.int32),
            prompt=np.array(self._input, np.int64) - history,
            output=np.array(self._output, np.int64),
            dropped=dropped,
            arrival=arrival,
            gap=gap,
        )
        edited = int(np.count_nonzero(dropped))
        origin |= {"edited_contexts": edited} if edited else {}
        return turns.workload(None, None, self.left_out, **origin, **self._recorded(history))

    def _sessions(self) -> np.ndarray:
        """int32 per request: its session, by first appearance."""
        found, count = array("i"), 0
        for before in self._before:
            found.append(count if before == NONE else found[before])
            count += before == NONE
        return np.array(found, np.int32)

    def _contexts(self, before: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 per request: tokens of the context before that it goes on from, and tokens of it that it leaves."""
        length, output = np.array(self._input, np.int64), np.array(self._output, np.int64)
        stated, cached = np.array(self._kept, np.int64), np.array(self._cached, np.int64)
        prompt_before = np.where(before == NONE, 0, length[before])
        whole = np.where(before == NONE, 0, prompt_before + output[before])
        shorter = np.where((length < prompt_before) & (cached != NONE), cached, prompt_before)
        kept = np.where(stated != NONE, stated, np.where(length > whole, whole, shorter))
        kept = np.minimum(np.minimum(kept, whole), length - 1)
        return kept, whole - kept

    def _recorded(self, history: np.ndarray) -> dict[str, object]:
        """What the log records of its cache, and what a store that never forgets a session holds of the same requests."""
        cached = np.array(self._cached, np.int64)
        known = cached != NONE
        if not known.any():
            return {}
        sums = {"prompt_tokens": np.array(self._input, np.int64), "cached_tokens": cached, "history_tokens": history}
        return {"recorded_cache": {"requests": int(known.sum()), **{name: int(column[known].sum()) for name, column in sums.items()}}}
