"""Records of chats as rows: messages as tokens and digests, kept in columns (25 bytes a message) until it is known what they are."""

import json
import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kvplan.traces.linked import NONE
from kvplan.traces.source import BadRecord
from kvplan.traces.text import parts
from kvplan.traces.text.parts import Message

_REMEMBERED = 1 << 16
"""Messages at most."""
_PLAIN = 2
"""Keys of a message that is a role and a text."""


class Counted(NamedTuple):
    """A message in tokens."""

    is_answer: bool
    kept: int
    """What is sent back of it."""
    reasoning: int
    """What is not."""
    digest: int
    """64 bits of what is sent back, to compare with others of this process: messages with the same are the same."""


class Recorded(NamedTuple):
    """What a record says of a request beside its text; NaN or NONE where it does not."""

    sent_s: float = math.nan
    ended_s: float = math.nan
    prompt: int = NONE
    """Tokens of the whole prompt."""
    output: int = NONE
    cached: int = NONE
    """Tokens of the prompt that were served from a cache."""


class Row(NamedTuple):
    """A record. Messages that hold nothing are not in it."""

    number: int
    messages: Sequence[Counted]
    times_s: Sequence[float]
    answer: Sequence[Counted]
    """What stands apart of the messages."""
    length: int
    """Messages of the record, with those that hold nothing, without what stands beside them."""
    session: str | None
    recorded: Recorded


class Taken(NamedTuple):
    """A message, and what it comes to."""

    message: Message
    """Without its texts, when it is remembered."""
    counted: Counted


class Messages:
    """Takes messages in, and remembers what they came to: logs of requests repeat their history in every line."""

    def __init__(self, count: Callable[[Message], tuple[int, int]]) -> None:
        """`count` gives (tokens, tokens of reasoning)."""
        self._count = count
        self._taken: dict[int, Taken] = {}
        """By digest of how a message is written: for those that take long to walk over."""
        self._tokens: dict[tuple[int, int, int], tuple[int, int]] = {}
        """By digest and lengths of the texts."""

    def of(self, found: object, placeholders: bool) -> Taken:
        """A message as a record has it; see `parts.message`. Raises BadRecord."""
        if isinstance(found, dict) and len(found) == _PLAIN:
            message = parts.message(found, placeholders)
            return Taken(message, self.counted(message))
        try:
            name = hash((json.dumps(found), placeholders))
        except RecursionError:
            raise BadRecord("is nested too deep for a message") from None
        if (known := self._taken.get(name)) is not None:
            return known
        message = parts.message(found, placeholders)
        taken = Taken(message._replace(texts=[]), self.counted(message))
        return taken if message.left_out else _remembered(self._taken, name, taken)

    def counted(self, message: Message) -> Counted:
        """What a message comes to."""
        digest = hash((message.is_answer, message.pictures, message.attachments, *map(str.strip, message.texts)))
        name = digest, sum(map(len, message.texts)), len(message.reasoning)
        known = None if message.reasoning else self._tokens.get(name)
        kept, reasoning = known or _remembered(self._tokens, name, self._count(message))
        return Counted(message.is_answer, kept, reasoning, digest)


def _remembered(known: dict[Any, Any], name: object, value: Any) -> Any:
    """The value, kept for a while."""
    if len(known) >= _REMEMBERED:
        known.clear()
    known[name] = value
    return value


class Rows:
    """Rows in columns."""

    def __init__(self) -> None:
        self._said = array("b"), array("i"), array("i"), array("q")
        """Of every message: what `Counted` names."""
        self._is_answer, self._digest = self._said[0], self._said[-1]
        self._time_s = array("d")
        self._number, self._apart, self._end, self._length = array("i"), array("q"), array("q", [0]), array("i")
        self._recorded: tuple[array, ...] = array("d"), array("d"), array("q"), array("q"), array("q")
        self._session: list[str | None] = []

    def append(self, row: Row) -> None:
        """One more."""
        for numbers, values in zip(self._said, zip(*row.messages, *row.answer, strict=True), strict=False):  # none of no message
            numbers.extend(values)
        self._time_s.extend(row.times_s)
        self._time_s.extend([row.recorded.ended_s] * len(row.answer))
        self._number.append(row.number)
        self._length.append(row.length)
        self._apart.append(self._end[-1] + len(row.messages))
        self._end.append(len(self._digest))
        self._session.append(row.session)
        for column, value in zip(self._recorded, row.recorded, strict=True):
            column.append(value)

    def __len__(self) -> int:
        return len(self._number)

    def __getitem__(self, index: int) -> Row:
        start, apart, end = self._end[index], self._apart[index], self._end[index + 1]
        recorded = Recorded._make(column[index] for column in self._recorded)
        messages, answer = self._messages(start, apart), self._messages(apart, end)
        return Row(self._number[index], messages, self._time_s[start:apart], answer, self._length[index], self._session[index], recorded)

    def _messages(self, start: int, end: int) -> list[Counted]:
        is_answer, *others = (column[start:end] for column in self._said)
        return list(map(Counted, map(bool, is_answer), *others))

    def that_begin_alike(self) -> list[int]:
        """Numbers of the rows whose first message is another's as well: only of these can one go on from another."""
        starts = np.minimum(np.array(self._end, np.int64)[:-1], max(len(self._digest) - 1, 0))
        firsts = np.frombuffer(self._digest, np.int64)[starts] if len(self._digest) else np.zeros(len(self), np.int64)
        _, which, counts = np.unique(firsts, return_inverse=True, return_counts=True)
        return np.flatnonzero(counts[which] > 1).tolist()

    def sides(self, index: int) -> bytes:
        """Of the messages of a row, without an answer apart: 1 for answers, 0 for prompts."""
        return self._is_answer[self._end[index] : self._apart[index]].tobytes()

    def prompts(self, index: int) -> list[int]:
        """Digests of the prompts among the messages of a row."""
        digests = self._digest[self._end[index] : self._apart[index]]
        return [digest for digest, is_answer in zip(digests, self.sides(index), strict=True) if not is_answer]

    def has_answer_apart(self, index: int) -> bool:
        """Whether a row has one, or its length."""
        return self._end[index + 1] > self._apart[index] or self._recorded[3][index] >= 0

    def lengths(self) -> array:
        """Of every row: its messages."""
        return self._length

    def sessions(self) -> Sequence[str | None]:
        """Of every row: the name of its session."""
        return self._session

    def resume_sessions(self) -> bool:
        """Whether any row names the session of another."""
        named = [session for session in self._session if session is not None]
        return len(set(named)) < len(named)

    def sent_s(self) -> array:
        """Of every row: when its request was sent."""
        return self._recorded[0]
