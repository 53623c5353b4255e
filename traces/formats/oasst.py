"""OpenAssistant messages, JSON Lines: `message_id`, `parent_id`, `role` (prompter, assistant), `text`; or trees: `prompt` with `replies`.

People answered the same message in several ways. Of each tree the longest path is a conversation (of equals the first); what stands beside
it is left out and counted. Without times: they are those of writing, by other people. Source: OpenAssistant/oasst1, oasst2.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kvplan.traces import fields
from kvplan.traces.reading import Reading
from kvplan.traces.source import Head, Source
from kvplan.traces.text import parts
from kvplan.traces.text.conversation import Account, conversations
from kvplan.traces.text.rows import Counted, Messages, Recorded, Row
from kvplan.traces.workload import Workload

NAME = "oasst"
OFFERS = frozenset({"text"})
EXAMPLE = """\
{"message_id": "m1", "parent_id": null, "role": "prompter", "text": "Hi", "lang": "en", "message_tree_id": "m1"}
{"message_id": "m2", "parent_id": "m1", "role": "assistant", "text": "Hello", "lang": "en", "message_tree_id": "m1"}
"""
_NONE = -1


def detect(head: Head) -> bool:
    """Whether a file begins like OpenAssistant's messages or trees."""
    return {"message_id", "parent_id", "text"} <= head.keys or {"message_tree_id", "prompt"} <= head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """The longest path of every tree, untimed. Raises TraceError with the record number and what is wrong with it."""
    account = Account(count_tokens, reading)
    messages, forest = Messages(account.tokens), _Forest()
    ids = fields.Unique("message_id")

    def take(number: int, record: object) -> None:
        record = fields.of(record, "a message")
        found = [_message(each, parent) for each, parent in _each(record)]
        for name, _, _ in found:
            ids.check(name, number)
        for name, parent, message in found:
            forest.add(number, name, parent, messages.counted(message))
            account.see(message, 0)

    source.each_json(take)
    return conversations(([row] for row in forest.rows(account)), account, lambda times: True)


def _each(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], object]]:
    """The messages of a record, each with the id of what it answers: one, or all of a tree."""
    waiting = [(record.get("prompt", record), record.get("parent_id"))]
    while waiting:
        message, parent = waiting.pop()
        message = fields.of(message, "a message")
        yield message, parent
        replies = message.get("replies") or []
        waiting += [(reply, message.get("message_id")) for reply in reversed(fields.items({"replies": replies}, "replies"))]


def _message(record: dict[str, Any], parent: object) -> tuple[str | int, object, parts.Message]:
    if parent is not None:
        fields.label({"parent_id": parent}, "parent_id")
    role = fields.required(record, "role")
    return fields.label(record, "message_id"), parent, parts.message({"role": role, "content": fields.text(record, "text")})


class _Forest:
    """Messages and what they answer."""

    def __init__(self) -> None:
        self._names: dict[object, int] = {}
        self._parents: list[object] = []
        self._messages: list[tuple[int, Counted]] = []

    def add(self, record: int, name: object, parent: object, message: Counted) -> None:
        """One message."""
        self._names[name] = len(self._messages)
        self._parents.append(parent)
        self._messages.append((record, message))

    def rows(self, account: Account) -> Iterator[Row]:
        """The longest path of every tree; one whose first message answers something that is not there is a tree as well."""
        replies: defaultdict[int, list[int]] = defaultdict(list)
        for index, parent in enumerate(self._parents):
            replies[self._names.get(parent, _NONE)].append(index)
        taken: set[int] = set()
        for root in replies[_NONE]:
            path = _longest(root, replies)
            taken.update(path)
            messages = [message for index in path if (message := self._messages[index][1]).kept]
            yield Row(self._messages[root][0], messages, [math.nan] * len(messages), [], len(messages), None, Recorded())
        for index, (_, message) in enumerate(self._messages):
            if index not in taken:
                account.leave_out("replies_beside_the_longest_path", message.kept + message.reasoning)


def _longest(root: int, replies: Mapping[int, list[int]]) -> list[int]:
    """The longest path down from a message, of equals the first."""
    above, best, longest = {root: _NONE}, root, 1
    waiting = [(root, 1)]
    while waiting:
        index, length = waiting.pop()
        if length > longest:
            best, longest = index, length
        for reply in reversed(replies.get(index, [])):
            above[reply] = index
            waiting.append((reply, length + 1))
    path = [best]
    while above[path[-1]] != _NONE:
        path.append(above[path[-1]])
    return path[::-1]
