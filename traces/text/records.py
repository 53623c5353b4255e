"""What a record of a file of chats is: a whole conversation, a request with all of its history, or what a request adds to its session.

The user says it (`workload.records`), or the records do:

    pieces          of conversations: see `kvplan.traces.text.pieces`
    requests        answers, or their lengths, stand apart from the messages of most records; or most records that could go on from an
                    earlier one begin with all of its messages; or most end with a prompt (three at least, or none has an answer at all)
    increments      sessions have several records, most of which neither begin with the messages of an earlier one nor hold its last prompt
                    before their own; those that hold it, but do not begin with all, are requests whose history was edited
    conversations   otherwise
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain, takewhile
from typing import Any, NamedTuple

import numpy as np

from kvplan.traces.reading import Reading
from kvplan.traces.text.conversation import Account, conversations
from kvplan.traces.text.exchange import Exchange
from kvplan.traces.text.pieces import joined
from kvplan.traces.text.requests import Increments, WholeRequests
from kvplan.traces.text.rows import Counted, Messages, Row, Rows
from kvplan.traces.workload import TraceError, Workload

_UNIX_S = 1e8
"""Less than this is no Unix time (1973)."""
_FEW = 3
_MOST = 0.9
"""Less agreement than this is mixed evidence."""
_PROMPT, _ANSWER = b"\0", b"\1"
_MEANS = {
    "conversations": "whole conversations",
    "requests": "requests with all of their history",
    "increments": "what a request adds to its session",
}


class _Evidence(NamedTuple):
    """Numbers of records."""

    records: int
    apart: int
    """Whose answer, or its length, stands apart."""
    resumable: int
    """That hold an answer before their last prompt, and so could go on from an earlier one."""
    linked: int
    """That begin with all messages of an earlier one."""
    open: int
    """That end with a prompt, and have no answer apart."""
    answered: int
    """That hold an answer anywhere."""
    later: int
    """Of a session that an earlier one is of."""
    edited: int
    """Of these: that hold the last prompt of the one before, and then their own."""

    def found(self) -> tuple[str, str, str]:
        """What records are, why, and why it may be doubted."""
        if self.later and 2 * self.linked < self.later:
            return self._of_sessions()
        if 2 * self.apart > self.records:
            return (
                "requests",
                f"{self.apart:,} of {self.records:,} have their answer, or its length, apart",
                _mixed(self.apart, self.records),
            )
        going_on = f"{self.linked:,} of {self.resumable:,} that could go on from an earlier one begin with its messages"
        ending = f"{self.open:,} of {self.records:,} end with a prompt"
        many = self.open >= _FEW or not self.answered
        if self.linked and 2 * self.linked >= self.resumable:
            few = f"only {self.linked:,} begin with an earlier one" if self.linked < _FEW else ""
            return "requests", f"{going_on}, {ending}", few or _mixed(self.linked, self.resumable)
        if many and 2 * self.open > self.records:
            few = f"only {self.open:,} end with a prompt" if self.open < _FEW else ""
            return "requests", f"{ending}, {going_on}", few or _mixed(self.open, self.records)
        doubt = going_on if self.linked else ending if self.open > (1 - _MOST) * self.records else ""
        return (
            "conversations",
            f"{self.records - self.open:,} of {self.records:,} end with an answer, {self.linked:,} begin with an earlier one",
            doubt,
        )

    def _of_sessions(self) -> tuple[str, str, str]:
        """The same where the records of a session do not begin with the messages of those before them."""
        apart = self.later - max(self.linked, self.edited)
        if 2 * apart <= self.later:
            why = f"{self.edited:,} of {self.later:,} of the session of an earlier one hold its last prompt before their own"
            return "requests", f"{why}, and {self.linked:,} begin with all of its messages", _mixed(self.edited, self.later)
        why = f"{apart:,} of {self.later:,} of the session of an earlier one do not begin with its messages"
        return "increments", why, _mixed(apart, self.later)


def _mixed(agree: int, of: int) -> str:
    return "" if agree >= _MOST * of else f"only {agree:,} of {of:,} say so"


class Records:
    """All records of a file, and what they are."""

    def __init__(self, reading: Reading, account: Account, usual: str | None = None) -> None:
        """`usual`: what a record of this format is, unless sessions are named and tell otherwise; None: that is to be found out."""
        self._reading, self._account, self._usual = reading, account, usual
        self._rows = Rows()
        self._texts = 0
        """Prompts that are one text, and name no session."""
        self._threads: dict[str, str] = {}
        """Name of a response -> its session, which is that of the first response that it goes on from."""
        self._labels: list[tuple[str, int, bool] | None] = []
        self.messages = Messages(account.tokens)
        """Takes in the messages of records."""

    def add(self, number: int, found: Exchange, label: object = None, session: str | None = None) -> None:
        """One record; `label` may say which piece of a conversation it is, `session` which session it is of."""
        held = [(each.counted, time_s) for each, time_s in zip(found.messages, found.times_s, strict=True) if _holds(each.counted)]
        messages, times = [message for message, _ in held], [time_s for _, time_s in held]
        if found.failed:
            self._account.leave_out("failed_requests", sum(message.kept for message in messages))
            return
        self._texts += found.is_text and (session or found.session) is None
        for each in chain(found.messages, found.answer):
            self._account.see(each.message, each.counted.reasoning)
        answer = [each.counted for each in found.answer if _holds(each.counted)]
        self._rows.append(
            Row(number, messages, times, answer, len(found.messages) - 1, session or found.session or self._thread(found), found.recorded)
        )
        begins = len(found.messages) > 1 and found.messages[1].counted.is_answer
        self._labels.append((label, len(found.messages) - 1, begins) if isinstance(label, str) else None)

    def _thread(self, found: Exchange) -> str | None:
        """The session of a record that says which response it goes on from."""
        session = self._threads.get(found.previous, found.previous) if found.previous else found.own
        if found.own and session:
            self._threads[found.own] = session
        return session

    def workload(self) -> Workload:
        """The finished table. Raises TraceError when there is no turn."""
        runs, pieces = joined(self._labels)
        kind, why, doubt = self._decided(bool(pieces))
        origin: dict[str, Any] = {"records": f"{_MEANS[kind]}: {why}", **({"doubtful_records": doubt} if doubt else {})}
        if kind == "conversations":
            rows = ([self._rows[index] for index in run] for run in runs)
            return conversations(rows, self._account, self._timed, **origin, **({"pieces": pieces} if pieces else {}))
        requests = Increments(self._account) if kind == "increments" else WholeRequests(self._account)
        self._link(requests, range(len(self._rows)))
        if not self._timed(sent_s := np.array(self._rows.sent_s())):
            self._account.leave_out_times(sent_s)
        if self._texts > 1 and isinstance(requests, WholeRequests) and not requests.linked:
            origin["texts_apart"] = self._texts
        return requests.workload(**origin)

    def _decided(self, are_pieces: bool) -> tuple[str, str, str]:
        """What records are, why, and why it may be doubted."""
        if self._reading.records:
            return self._reading.records, "as workload.records says", ""
        if are_pieces and not self._usual:
            return "conversations", "pieces of them", ""
        usual = (self._usual, "as this format has them", "") if self._usual else None
        if usual and not self._rows.resume_sessions():
            return usual
        found = self._seen()
        return usual if usual and found[0] != "increments" else found

    def _seen(self) -> tuple[str, str, str]:
        requests = WholeRequests(self._account)
        self._link(requests, self._rows.that_begin_alike())
        return self._evidence(requests.linked).found()

    def _evidence(self, linked: int) -> _Evidence:
        seen: Counter[str] = Counter()
        asked: dict[str, list[int]] = {}  # session -> the prompts of its latest record
        sessions = self._rows.sessions()
        for index in self._in_order(range(len(self._rows))):
            session = sessions[index]
            sides, is_apart = self._rows.sides(index), self._rows.has_answer_apart(index)
            seen["apart"] += is_apart
            seen["resumable"] += _ANSWER in sides[: max(sides.rfind(_PROMPT), 0)]
            seen["open"] += not is_apart and sides.endswith(_PROMPT)
            seen["answered"] += is_apart or _ANSWER in sides
            if session is not None:
                prompts = self._rows.prompts(index)
                seen["later"] += session in asked
                seen["edited"] += _goes_on(asked.get(session, []), prompts)
                asked[session] = prompts
        return _Evidence(
            len(self._rows), linked=linked, **{name: seen[name] for name in ("apart", "resumable", "open", "answered", "later", "edited")}
        )

    def counts_time(self) -> bool:
        """Whether times are numbers from some start, and no dates."""
        sent = np.array(self._rows.sent_s())
        return bool((sent < _UNIX_S).any())

    def _timed(self, sent_s: np.ndarray) -> bool:
        """Whether times are those of requests: all have one, and they differ; all at one instant is taken as `times: exact` only."""
        return bool(np.isfinite(sent_s).all()) and (self._reading.times == "exact" or len(sent_s) < 2 or bool(np.ptp(sent_s) > 0))

    def _in_order(self, rows: Sequence[int]) -> Sequence[int]:
        """Rows in order of time, where all have one."""
        sent = np.array(self._rows.sent_s())
        return sorted(rows, key=sent.__getitem__) if self._timed(sent) else rows

    def _link(self, requests: WholeRequests | Increments, rows: Sequence[int]) -> None:
        """Adds records to requests, in order of time where all have one. Raises TraceError."""
        timed = self._timed(np.array(self._rows.sent_s()))
        for index in self._in_order(rows):
            row = self._rows[index]
            if row.session is None and isinstance(requests, Increments):
                raise TraceError(f"record {row.number} has no identifier of its session (session_id, …): nobody knows what it adds to")
            requests.add(row if timed else row._replace(recorded=row.recorded._replace(sent_s=np.nan, ended_s=np.nan)))


def _goes_on(before: list[int], now: list[int]) -> bool:
    """Whether prompts hold the last one of those before, but for those that both end with, as templates do."""
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(before), reversed(now), strict=False)))
    rest, more = before[: len(before) - alike], now[: len(now) - alike]
    return bool(rest) and rest[-1] in more


def _holds(message: Counted) -> bool:
    """Whether a message has any tokens."""
    return message.kept + message.reasoning > 0
