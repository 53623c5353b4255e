"""Chat messages to turns, for all formats that hold text.

- Messages without text are ignored, then neighbours of one side are one message.
- Reasoning is answered, and not kept: the next turn goes on from the history before the answer, for the KV of text that follows on dropped
  reasoning is of no use, and its prompt holds the rest of the answer again. `reasoning: kept` makes it an answer like any other.
- A picture, or an attachment of whatever size, costs as many tokens as the settings say.
- A conversation that begins with an answer (the ShareGPT V3 dump cuts conversations into chunks of about 2K tokens): the prompt is
  not in the file, so the answer is left out and counted. A last prompt without an answer is left out and counted as well, and so is a
  conversation without any answered prompt.
"""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from kvplan.traces.build import Turns
from kvplan.traces.reading import Reading
from kvplan.traces.text.parts import Message
from kvplan.traces.text.rows import Counted, Row
from kvplan.traces.text.starts import Starts, with_starts
from kvplan.traces.workload import Workload

_FIELDS = 1000
"""Of keys that are left out; those of more go together."""


@dataclass
class Turn:
    """A prompt and its answer, in tokens."""

    prompt: int
    """What is new, and what is sent back of an answer that was not kept."""
    output: int = 0
    """The whole answer, reasoning included."""
    reasoning: int = 0
    """What of it is not sent back."""
    dropped: int = 0
    """Tokens at the end of the history that it does not go on from: the answer before, or none."""
    arrival_s: float = math.nan
    """When its prompt came, or else its answer; NaN where neither says."""


class Account:
    """Counts the tokens of messages, and keeps account of what is left out and of what is no text."""

    def __init__(self, count_tokens: Callable[[str], int], reading: Reading) -> None:
        self._count, self._reading = count_tokens, reading
        self.left_out: Counter[str] = Counter()
        """Things left out, by what they are."""
        self._tokens_left_out: Counter[str] = Counter()
        self._seen: Counter[str] = Counter()

    def tokens(self, message: Message) -> tuple[int, int]:
        """(tokens, tokens of reasoning) of a message: what is sent back of it, and what is not; 0 where it is empty."""
        kept = reasoning = 0
        for text in message.texts:
            kept += self._count(text) or 1
        if media := message.pictures + message.attachments:
            kept = max(kept + media * self._reading.picture_tokens, 1)
        if message.reasoning:
            reasoning = self._count(message.reasoning) or 1
        return (kept + reasoning, 0) if self._reading.reasoning == "kept" else (kept, reasoning)

    def see(self, message: Message, reasoning: int = 0) -> None:
        """A message that is read."""
        if not (message.left_out or reasoning or message.pictures or message.attachments):
            return
        for name, text in message.left_out:
            known = name in self._tokens_left_out or len(self._tokens_left_out) < _FIELDS
            self._tokens_left_out[_shown(name) if known else "other fields"] += self._count(text) or 1
        for name, count in (("pictures", message.pictures), ("attachments", message.attachments), ("reasoning_tokens", reasoning)):
            self._seen[name] += count

    def leave_out(self, what: str, tokens: int) -> None:
        """One thing of so many tokens is left out."""
        self.left_out[what] += 1
        self._tokens_left_out[what.replace("_", " ")] += tokens

    def leave_out_times(self, times_s: np.ndarray) -> None:
        """Times are of no use: some have none, or all have the same."""
        known = int(np.isfinite(times_s).sum())
        self.left_out["times_that_others_lack" if known < len(times_s) else "times_that_are_all_the_same"] = known

    def origin(self) -> dict[str, Any]:
        """What the origin of the workload says of it."""
        found: dict[str, Any] = {name: self._seen[name] for name in ("reasoning_tokens",) if self._seen[name]}
        if media := {name: self._seen[name] for name in ("pictures", "attachments") if self._seen[name]}:
            found["media"] = {**media, "tokens_each": self._reading.picture_tokens}
        if left_out := {name: tokens for name, tokens in self._tokens_left_out.most_common() if tokens}:
            found["tokens_left_out"] = left_out
        return found


def _shown(name: str) -> str:
    """The name of a key, as a file can hold it."""
    return f"`{name[:60]}`".encode("utf-8", "backslashreplace").decode()


def turns(messages: Iterable[tuple[Counted, float]], account: Account) -> list[Turn]:
    """The turns of one conversation of messages with their times; what is no turn is left out, and accounted for."""
    found: list[Turn] = []
    pending, answered, sent = 0, False, math.nan
    for message, at_s in messages:
        kept, reasoning = message.kept, message.reasoning
        if not message.is_answer:
            sent = sent if pending and not math.isnan(sent) else at_s
            pending += kept
            answered = False
        elif answered:
            found[-1].output += kept + reasoning
            found[-1].reasoning += reasoning
        elif pending:
            found.append(_next(found[-1] if found else None, pending, kept, reasoning))
            found[-1].arrival_s = at_s if math.isnan(sent) else sent
            pending, answered, sent = 0, True, math.nan
        else:
            account.leave_out("answers_without_prompt", kept + reasoning)
    if pending:
        account.leave_out("prompts_without_answer", pending)
    return found


def _next(before: Turn | None, prompt: int, kept: int, reasoning: int) -> Turn:
    turn = Turn(prompt, kept + reasoning, reasoning)
    if before is not None and before.reasoning:
        turn.prompt += before.output - before.reasoning
        turn.dropped = before.output
    return turn


def conversations(runs: Iterable[Sequence[Row]], account: Account, timed: Callable[[np.ndarray], bool], **origin) -> Workload:
    """The workload of whole conversations, each of one record or of pieces. Times are those of messages, or else of records, when they are
    `timed`: the first turns' tell. Raises TraceError when there is no turn."""
    table, session, starts, begun = Turns(), 0, array("d"), Starts()
    for rows in runs:
        found = turns(chain.from_iterable(map(_timed, rows)), account)
        account.left_out["conversations_without_answer"] += not found
        begun.put(session, [message for row in rows for message in (*row.messages, *row.answer)])
        for turn in found:
            at_s = rows[0].recorded.sent_s if turn is found[0] and math.isnan(turn.arrival_s) else turn.arrival_s
            table.add(session, turn.prompt, turn.output, rows[0].number, at_s, dropped=turn.dropped)
            if turn is found[0]:
                starts.append(at_s)
        session += bool(found)
    if not timed(np.array(starts)):
        account.leave_out_times(np.array(starts))
        table.forget_times()
    workload = table.workload(left_out=account.left_out, **account.origin(), **origin)
    return with_starts(workload, begun.beginnings(range(session)))


def _timed(row: Row) -> Iterable[tuple[Counted, float]]:
    """Messages and answer, with their times."""
    return zip([*row.messages, *row.answer], [*row.times_s, *[row.recorded.ended_s] * len(row.answer)], strict=True)
