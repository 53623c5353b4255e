"""Azure LLM inference CSV: `TIMESTAMP` (date and time), `ContextTokens`, `GeneratedTokens`; every row is a session of one turn.

Good for arrivals and lengths; nothing in it can be reused. Source: Azure public dataset, LLM inference traces of 2023 and 2024.
"""

from collections.abc import Callable

from kvplan.traces import fields, records
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.workload import TraceError, Workload

NAME = "azure"
OFFERS = frozenset({"lengths", "times"})
EXAMPLE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
"""
_COLUMNS = frozenset({"TIMESTAMP", "ContextTokens", "GeneratedTokens"})


def detect(head: Head) -> bool:
    """Whether a file begins like Azure's."""
    return head.columns >= _COLUMNS


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests. Raises TraceError with the record number and what is wrong with it."""
    if reading.times in ("s", "ms"):
        raise TraceError(f"its times are dates, which workload.times={reading.times} says nothing about: leave it out, or take exact")
    requests = Requests(source=source)
    without_prompt = 0

    def take(number: int, row: dict) -> None:
        nonlocal without_prompt
        arrival = fields.date(row, "TIMESTAMP")
        prompt, output = fields.tokens(row, "ContextTokens", low=0), fields.tokens(row, "GeneratedTokens", low=0)
        if prompt:
            requests.add(number, prompt, output, arrival)
        else:
            without_prompt += 1

    source.each_row(_COLUMNS, take)
    return requests.workload(reading, records.REQUESTS, left_out={"requests_without_prompt": without_prompt})
