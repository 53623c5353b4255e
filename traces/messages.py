"""Chat messages to turns, for all formats that hold text.

- system, human, user, tool … messages are the prompt side; gpt, chatgpt, assistant … the answer side. Messages without text are
  ignored, then neighbours of one side are one message.
- A conversation that begins with an answer (the ShareGPT V3 dump cuts conversations into chunks of about 2K tokens): the prompt is
  not in the file, so the answer is left out and counted. A last prompt without an answer is left out and counted as well.
- A conversation without any answered prompt is left out and counted.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from kvplan.traces.build import Turns
from kvplan.traces.source import BadRecord
from kvplan.traces.workload import Workload

PROMPT_ROLES = frozenset({"human", "user", "system", "developer", "tool", "function", "observation"})
ANSWER_ROLES = frozenset({"gpt", "chatgpt", "assistant", "bing", "bard", "model"})


class Conversations:
    """Collects conversations; `count_tokens` turns a text into its number of tokens."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._count = count_tokens
        self._turns = Turns()
        self._sessions = 0
        self._left_out: Counter[str] = Counter()

    def add(self, number: int, messages: Iterable[tuple[object, str]]) -> None:
        """One conversation of (role, text), from record `number`. Raises BadRecord before it keeps anything."""
        sides = [(_is_prompt(role, index), text) for index, (role, text) in enumerate(messages)]
        turns: list[list[int]] = []
        pending, answered = 0, False
        for is_prompt, text in sides:
            if not text.strip():
                continue
            tokens = max(self._count(text), 1)
            if is_prompt:
                pending += tokens
                answered = False
            elif answered:
                turns[-1][1] += tokens
            elif pending:
                turns.append([pending, tokens])
                pending, answered = 0, True
            else:
                self._left_out["answers_without_prompt"] += 1
        self._left_out["prompts_without_answer"] += pending > 0
        self._left_out["conversations_without_answer"] += not turns
        for prompt, output in turns:
            self._turns.add(self._sessions, prompt, output, number)
        self._sessions += bool(turns)

    def workload(self) -> Workload:
        """The finished table, untimed. Raises TraceError when there is no turn."""
        return self._turns.workload(left_out=self._left_out)


def _is_prompt(role: object, index: int) -> bool:
    if not isinstance(role, str):
        raise BadRecord(f"message {index}: the role is not text")
    if role in PROMPT_ROLES:
        return True
    if role in ANSWER_ROLES:
        return False
    raise BadRecord(f"message {index}: unknown role {role[:40]!r}; known are {', '.join(sorted(PROMPT_ROLES | ANSWER_ROLES))}")
