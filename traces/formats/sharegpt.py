"""ShareGPT JSON: a list of `{"id", "conversations": [{"from", "value"}, …]}`.

Read as a stream, so that memory grows with turns and not with text. What is in the file and what becomes of it:

- system, human, user, tool … messages are the prompt side; gpt, chatgpt, assistant … the answer side. Messages without text are
  ignored, then neighbours of one side are one message.
- A chunk that begins with an answer (the V3 dump cuts conversations into chunks of about 2K tokens): the prompt is not in the
  file, so the answer is left out and counted. A last prompt without an answer is left out and counted as well.
- A conversation without any answered prompt is left out and counted.

The format has no times: arrivals and think times come from the workload's settings.
"""

from array import array
from collections.abc import Callable
from pathlib import Path

import ijson

from traces.workload import TraceError, Workload, untimed

NAME = "sharegpt"
OFFERS = frozenset({"text"})
EXAMPLE = '[{"id": "a_0", "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}]'

PROMPT_ROLES = frozenset({"human", "user", "system", "tool", "function", "observation"})
ANSWER_ROLES = frozenset({"gpt", "chatgpt", "assistant", "bing", "bard", "model"})


def detect(head: bytes) -> bool:
    """Whether a file that begins with `head` looks like ShareGPT."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and (b'"conversations"' in head)


def read(path: Path, count_tokens: Callable[[str], int]) -> Workload:
    """All sessions of the file, untimed. Raises TraceError with the record number and what is wrong with it."""
    session, prompt, output = array("i"), array("q"), array("q")
    left_out = {"conversations_without_answer": 0, "answers_without_prompt": 0, "prompts_without_answer": 0}
    sessions = 0
    for number, record in _records(path):
        before = len(session)
        pending = 0
        answered = False
        for is_prompt, text in _messages(record, f"{path}, record {number}"):
            tokens = max(count_tokens(text), 1)
            if is_prompt:
                pending += tokens
                answered = False
            elif answered:
                output[-1] += tokens
            elif pending:
                session.append(sessions)
                prompt.append(pending)
                output.append(tokens)
                pending, answered = 0, True
            else:
                left_out["answers_without_prompt"] += 1
        left_out["prompts_without_answer"] += pending > 0
        if len(session) == before:
            left_out["conversations_without_answer"] += 1
        else:
            sessions += 1
    if not sessions:
        raise TraceError(f"{path}: no conversation with a prompt and an answer")
    return untimed(session, prompt, output, **{name: count for name, count in left_out.items() if count})


def _records(path: Path):
    number = 0
    try:
        with open(path, "rb") as file:
            for number, record in enumerate(ijson.items(file, "item", use_float=True), 1):
                yield number, record
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror}") from None
    except (ijson.JSONError, UnicodeDecodeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, TraceError):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TraceError(
            f"{path}: not valid JSON after record {number} ({reason}): is the file truncated or not ShareGPT JSON?"
        ) from None


def _messages(record, where: str):
    if not isinstance(record, dict) or not isinstance(record.get("conversations"), list):
        raise TraceError(f"{where}: a ShareGPT record is an object with a list `conversations`")
    for index, message in enumerate(record["conversations"]):
        if not isinstance(message, dict):
            raise TraceError(f"{where}, message {index}: is not an object")
        role, text = message.get("from"), message.get("value")
        if not isinstance(text, str):
            raise TraceError(f"{where}, message {index}: `value` is not text")
        if not isinstance(role, str):
            raise TraceError(f"{where}, message {index}: `from` is not text")
        if role in PROMPT_ROLES:
            is_prompt = True
        elif role in ANSWER_ROLES:
            is_prompt = False
        else:
            known = ", ".join(sorted(PROMPT_ROLES | ANSWER_ROLES))
            raise TraceError(f"{where}, message {index}: unknown role {role!r}; known are {known}")
        if text.strip():
            yield is_prompt, text
