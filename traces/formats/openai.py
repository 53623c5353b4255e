"""Chat messages in JSON Lines or a list, as OpenAI's, Anthropic's and Gemini's APIs, vLLM's multi-turn benchmark and LMSYS write them.

`{"id"?, "messages": [{"role", "content"}, …]}`, LMSYS's `conversation` or Gemini's `contents` instead of `messages`, or the bare
list of messages a line. `tools` and `system` beside the messages begin the prompt. See `kvplan.traces.text.chats`.
"""

from kvplan.traces.source import Head
from kvplan.traces.text import chats

NAME = "openai"
OFFERS = frozenset({"text"})
EXAMPLE = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}\n'
read = chats.read_chats


def detect(head: Head) -> bool:
    """Whether a file begins like chat messages."""
    named = bool({"messages", "conversation"} & head.keys) or "parts" in head.within.get("contents", frozenset())
    named &= "output_length" not in head.keys
    return named or (head.container == "array" and {"role", "content"} <= head.keys)
