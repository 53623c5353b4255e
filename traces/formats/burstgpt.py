"""BurstGPT CSV: `Timestamp` (s), `Session ID`, `Elapsed time` (s), `Model`, `Request tokens`, `Response tokens`, `Log Type`.

Early releases have no `Session ID`: then every row is a session of its own. The dataset does not say whether `Request tokens` counts the
history; it is taken from the data (see `kvplan.traces.records`). With `Elapsed time`, the recorded seconds to the answer, a
later turn has a think time as well as an arrival. Rows without a response failed and are left out; `Log Type` is the tenant.
Source: Wang et al., BurstGPT (arXiv 2401.17644).
"""

import math
from array import array
from collections.abc import Callable

import numpy as np

from kvplan.traces import clock, fields, records
from kvplan.traces.build import Requests
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.stamps import Stamps
from kvplan.traces.workload import Workload

NAME = "burstgpt"
OFFERS = frozenset({"lengths", "times", "think times", "tenants"})
TIME_UNIT = "s"
EXAMPLE = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,1,2.5,ChatGPT,472,18,490,Conversation log
45,1,4.0,ChatGPT,600,230,830,Conversation log
118,2,9.0,GPT-4,1087,230,1317,API log
"""
_COLUMNS = frozenset({"Timestamp", "Request tokens", "Response tokens"})


def detect(head: Head) -> bool:
    """Whether a file begins like BurstGPT."""
    return head.columns >= _COLUMNS


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """All requests, in sessions. Raises TraceError with the record number and what is wrong with it."""
    requests = Requests(source=source)
    latest: dict[str, int] = {}
    ends, answers = array("d"), array("d")
    failed = 0
    unit_s, stamps = reading.unit_s(TIME_UNIT), Stamps("Timestamp", reading, TIME_UNIT)

    def take(number: int, row: dict) -> None:
        nonlocal failed
        arrival = stamps.seconds(row)
        prompt, output = fields.tokens(row, "Request tokens", low=0), fields.tokens(row, "Response tokens", low=0)
        elapsed = fields.seconds(row, "Elapsed time", unit_s) if row.get("Elapsed time") else math.nan
        total, tenant = row.get("Total tokens"), fields.tag(row, "Log Type")
        if total and fields.tokens(row, "Total tokens", low=0) != prompt + output:
            raise BadRecord(f"`Total tokens` is {total}, not {prompt} + {output}")
        if not prompt or not output:
            failed += 1
            return
        name = row.get("Session ID")
        before = latest.get(name) if name else None
        gap = math.nan if before is None or math.isnan(ends[before]) else max(0.0, arrival - ends[before])
        session = None if before is None else requests.session_of(before)
        added = requests.add(number, prompt, output, arrival, gap, session=session, tenant=tenant)
        ends.append(arrival + elapsed)
        if name:
            latest[name] = added
        if not math.isnan(elapsed):
            answers.extend((elapsed, output))

    source.each_row(_COLUMNS, take)
    clock.check_answers(np.frombuffer(answers).reshape(-1, 2), reading, TIME_UNIT)
    return requests.workload(reading, records.REQUESTS, False, {"requests_without_response": failed}, **stamps.origin())
