"""ShareGPT JSON: a list, or lines, of `{"id"?, "conversations": [{"from", "value"}, …]}`, and its dialects.

`items` or a bare list instead of `conversations`, `role` and `content` instead of `from` and `value`, `system`, `tools` and `image` beside
them. See `kvplan.traces.text.chats`.
"""

from kvplan.traces.source import Head
from kvplan.traces.text import chats

NAME = "sharegpt"
OFFERS = frozenset({"text"})
EXAMPLE = '[{"id": "a_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}]'
read = chats.read_chats


def detect(head: Head) -> bool:
    """Whether a file begins like ShareGPT."""
    bare = head.container == "array" and {"from", "value"} <= head.keys
    named = "conversations" in head.keys and "messages" not in head.within.get("conversations", frozenset())
    return named or bare or {"from", "value"} <= head.within.get("items", frozenset())
