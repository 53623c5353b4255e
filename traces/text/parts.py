"""One chat message of OpenAI's (chat completions and responses), Anthropic's or ShareGPT's shape -> `Message`: what of it is what.

One walk goes over the whole message, and a table of keys says what the strings under each are:

    text        becomes prompt or answer: content, text, value, refusals, names, ids and arguments of tool calls, results of tools
    data        text too, as JSON writes it where it is an object: `tools`, `arguments`, `input`
    reasoning   part of an answer that clients do not send back: reasoning_content, thinking, …, and what stands in `<think>` tags
    media       a picture, or an attachment (sound, video, file): counted, and no text
    label       names a thing, and no model sees it: role, type, ids of records and messages (and all else in `_id`), models, times, …
    otherwise   left out, under the key's name

Numbers, true, false and null are no text, and nor are the keys of objects, but in data. An object under a key of text that has none of the
table's keys (a tool's result, say) is data. Reasoning that is said twice (`reasoning` and `reasoning_details`) counts once, and always with
tags around it, whether the record has them or a server has taken them off.
"""

import json
from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from kvplan.traces.source import BadRecord


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


PROMPT_ROLES = _words("human user system developer tool function observation prompter tool_response function_response tool_result ipython")
ANSWER_ROLES = _words("gpt chatgpt assistant bing bard model bot ai function_call tool_call")


class Message(NamedTuple):
    """A message, or what stands beside the messages of a record. Texts are not counted yet, and none is blank."""

    is_answer: bool
    """Whose it is: the model's, or the prompt's."""
    texts: list[str]
    """Prompt, or what clients send back of an answer."""
    reasoning: str
    """What they do not, between the tags that the model wrote around it; empty where there is none."""
    pictures: int
    attachments: int
    """Sounds, videos and files."""
    left_out: list[tuple[str, str]]
    """(key, text) of what is not known."""


class _Kind(Enum):
    TEXT = "text"
    DATA = "data"
    REASONING = "reasoning"
    PICTURE = "picture"
    ATTACHMENT = "attachment"
    LABEL = "label"
    UNKNOWN = "unknown"


_MEDIA = (_Kind.PICTURE, _Kind.ATTACHMENT)


def _table(**keys: str) -> dict[str, _Kind]:
    return {key: _Kind[kind] for kind, names in keys.items() for key in _words(names)}


_COMMON = _table(
    PICTURE="image images image_url image_urls image_file inlineData inline_data",
    ATTACHMENT="audio audios audio_url input_audio video videos video_url file files fileData file_data",
    DATA="tools functions",
    LABEL="""role from type index object status created created_at timestamp time date model language lang usage logprobs finish_reason
        stop_reason stop_sequence turn turn_id turn_identifier message_id uuid parent_id hash cache_control signature phase weight loss
        train mask redacted openai_moderation detoxify_moderation toxic system_fingerprint
        service_tier provider""",
)
_PART = _COMMON | _table(
    TEXT="""content contents text texts value values parts refusal output outputs result results documents name id function
        function_call tool_calls tool_call call_id tool_call_id tool_use_id code query queries title context transcript toolUse toolUseId
        toolResult functionCall functionResponse executableCode codeExecutionResult custom""",
    DATA="arguments args input parameters action json response",
    REASONING="""reasoning_content reasoning reasoning_text reasoning_details thinking thought thoughts summary reasoningContent
        reasoningText""",
)
_MESSAGE = _PART | _table(LABEL="id")
_BESIDE = _COMMON | _table(
    TEXT="system system_prompt system_message systemInstruction system_instruction instructions documents toolConfig",
    DATA="tool_definitions",
    LABEL="""id conversation_id conversation_hash session_id user_id custom_id request_id url method endpoint source dataset tool_choice
        reasoning_effort reasoning state country hashed_ip""",
)
_LABELS = {key: kind for key, kind in _BESIDE.items() if kind is _Kind.LABEL}
_TYPES = _table(
    PICTURE="image image_url image_file input_image output_image image_generation_call",
    ATTACHMENT="audio input_audio output_audio audio_url video video_url input_video file input_file document",
    REASONING="thinking reasoning reasoning_text reasoning.text reasoning.summary summary_text",
)
"""What an object is by its `type`, whatever its keys."""
_REFERENCES = _words("url data source file_id file_data file_url filename media_type mime_type format detail b64_json")
"""Keys of a picture or an attachment that say where it is, or hold its bytes."""
_NAMES = frozenset({"id", "name", "title"})
"""Keys that things have which are no parts of a message."""
_TEXT_ONLY = frozenset({"content", "text", "value", "tool_calls"})
"""A number there is a fault."""
_TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
_TAGGED = "<think>\n{}\n</think>\n\n"
"""An answer with reasoning, as a model writes it and before a server parts the two."""
_PLACEHOLDERS = {"<image>": _Kind.PICTURE, "<video>": _Kind.ATTACHMENT, "<audio>": _Kind.ATTACHMENT}
"""Stand in texts for what the record holds beside them."""


def message(found: object, placeholders: bool = False) -> Message:
    """A message. With `placeholders`, `<image>` and the like in its texts stand for media of the record. Raises BadRecord."""
    if not isinstance(found, dict):
        raise BadRecord("is not an object")
    is_answer = _is_answer(found)
    text = found.get("content", found.get("value"))
    if len(found) == 2 and isinstance(text, str) and not (placeholders or (is_answer and _may_have_tags(text))):
        return Message(is_answer, [text] if text and not text.isspace() else [], "", 0, 0, [])  # nearly all: a role and a text
    walk = _Walk(is_answer, placeholders)
    walk.fields(found, _MESSAGE, _Kind.TEXT)
    return walk.message()


def messages(found: list, placeholders: bool = False) -> list[Message]:
    """All messages of a conversation. Raises BadRecord with the number of the message."""
    taken = []
    for index, each in enumerate(found):
        try:
            taken.append(message(each, placeholders))
        except BadRecord as error:
            raise BadRecord(f"message {index}: {error}") from None
    return taken


def prompt(found: Mapping[str, object]) -> Message:
    """A message that is a prompt, whatever its role. Raises BadRecord."""
    walk = _Walk(is_answer=False, placeholders=False)
    walk.fields(found, _MESSAGE, _Kind.TEXT)
    return walk.message()


def beside(*around: Mapping[str, object]) -> Message:
    """What stands beside the messages of a record, in the objects around them: it begins the first prompt. Raises BadRecord."""
    walk = _Walk(is_answer=False, placeholders=False)
    for found in around:
        walk.fields(found, _BESIDE, _Kind.TEXT)
    return walk.message()


def no_part(found: Mapping[str, object], known: frozenset[str]) -> list[tuple[str, str]]:
    """(key, text) of an object that is no part of a conversation, but under labels and the keys that are `known`: all is left out."""
    walk = _Walk(is_answer=False, placeholders=False)
    walk.fields({key: value for key, value in found.items() if key not in known}, _LABELS, _Kind.TEXT)
    return walk.message().left_out


def _is_answer(found: Mapping[str, object]) -> bool:
    role = found.get("role", found.get("from"))
    if role is None and "parts" in found:
        return False  # Gemini's prompts need not say whose they are
    if role is None:
        return _is_answer_by_type(found.get("type"))
    if not isinstance(role, str):
        raise BadRecord("the role is not text")
    if role in ANSWER_ROLES:
        return True
    if role in PROMPT_ROLES:
        return False
    if (plain := role.lower()) != role and plain in PROMPT_ROLES | ANSWER_ROLES:  # `User`
        return plain in ANSWER_ROLES
    raise BadRecord(f"unknown role {role[:40]!r}; known are {', '.join(sorted(PROMPT_ROLES | ANSWER_ROLES))}")


def _is_answer_by_type(kind: object) -> bool:
    """Of what has no role: LangChain's `human` and `ai`, and items of the responses API (`reasoning`, `function_call_output`, …)."""
    if isinstance(kind, str) and kind.endswith(("_call", "_output", "reasoning")):
        return not kind.endswith("_output")
    if isinstance(kind, str) and kind in PROMPT_ROLES | ANSWER_ROLES:
        return kind in ANSWER_ROLES
    raise BadRecord('has no role: write each message as {"role": "user" or "assistant", "content": …}')


class _Walk:
    """Over one message; keeps what it finds."""

    def __init__(self, is_answer: bool, placeholders: bool) -> None:
        self._is_answer, self._placeholders = is_answer, placeholders
        self._texts: list[str] = []
        self._reasoning: list[str] = []
        self._left_out: list[tuple[str, str]] = []
        self._pictures = self._attachments = 0

    def message(self) -> Message:
        """All that was found."""
        reasoning = _TAGGED.format("\n".join(self._reasoning)) if self._reasoning else ""
        return Message(self._is_answer, self._texts, reasoning, self._pictures, self._attachments, self._left_out)

    @property
    def _found(self) -> int:
        """How many things were found."""
        return len(self._texts) + len(self._reasoning) + len(self._left_out) + self._pictures + self._attachments

    def fields(self, found: Mapping[str, object], table: Mapping[str, _Kind], within: _Kind) -> None:
        """An object whose keys mean what the table says, `within` text, reasoning or what is unknown."""
        kind = found.get("type")
        own = _TYPES.get(kind) if isinstance(kind, str) and table is not _BESIDE and table is not _LABELS else None
        own = _Kind.REASONING if found.get("thought") is True else own  # Gemini's mark
        if own is _Kind.ATTACHMENT and (text := _given_as_text(found.get("source"))) is not None:
            own, found = None, {**found, "source": None, "text": [found.get("text"), text]}
        is_media = own in _MEDIA
        if is_media:
            self._show(own, 1)
        within = _Kind.REASONING if own is _Kind.REASONING else within
        for key, value in found.items():
            meant = table.get(key) or _unknown(key)
            if meant is _Kind.LABEL or (is_media and (key in _REFERENCES or meant in _MEDIA)):
                continue
            if isinstance(value, str) and meant is _Kind.TEXT:
                self._text(value, meant, within, key)
            else:
                self._value(value, meant, within, key)

    def _show(self, kind: _Kind | None, count: int) -> None:
        if kind is _Kind.PICTURE:
            self._pictures += count
        else:
            self._attachments += count

    def _value(self, value: object, meant: _Kind, within: _Kind, key: str) -> None:
        if meant in _MEDIA:
            self._show(meant, 0 if not value else len(value) if isinstance(value, list) else 1)
        elif value is not None:
            self._given(value, meant, within, key)

    def _given(self, value: object, meant: _Kind, within: _Kind, key: str) -> None:
        """A value of text, data, reasoning, or of what is not known."""
        if meant is _Kind.DATA and not isinstance(value, str):
            value = json.dumps(value, ensure_ascii=False)
        if isinstance(value, str):
            self._text(value, meant, within, key)
        elif isinstance(value, list):
            for item in value:
                self._value(item, meant, within, key)
        elif isinstance(value, dict):
            self._object(value, meant, within, key)
        elif key in _TEXT_ONLY:
            raise BadRecord(f"`{key}` is {value!r}, not text")

    def _object(self, value: dict, meant: _Kind, within: _Kind, key: str) -> None:
        if meant is _Kind.UNKNOWN:
            for name, item in value.items():
                if (_PART.get(name) or _unknown(name)) is not _Kind.LABEL:
                    self._given(item, meant, within, key)
        elif isinstance(value.get("type"), str) or _known(value):
            before = self._found
            self.fields(value, _PART, _Kind.REASONING if meant is _Kind.REASONING else within)
            if self._found == before and not _known(value):
                raise BadRecord(f"a part of type {value['type'][:40]!r} holds no text that kvplan knows: {_shown(value)}")
        else:
            self._value(value, _Kind.DATA, within, key)

    def _text(self, text: str, meant: _Kind, within: _Kind, key: str) -> None:
        if not text or text.isspace():
            return
        if meant is _Kind.UNKNOWN:
            self._left_out.append((key, text))
        elif self._is_answer and _Kind.REASONING in (meant, within):
            self._reason(text)
        elif self._is_answer and _may_have_tags(text):
            kept, reasoning = _parted(text)
            self._texts += [kept] if kept else []
            self._reason(reasoning)
        elif self._placeholders:
            self._place(text)
        else:
            self._texts.append(text)

    def _reason(self, text: str) -> None:
        if text and text not in self._reasoning:
            self._reasoning.append(text)

    def _place(self, text: str) -> None:
        """A text in which marks stand for media."""
        for mark, kind in _PLACEHOLDERS.items():
            self._show(kind, text.count(mark))
            text = text.replace(mark, "")
        self._texts += [text] if text.strip() else []


def _unknown(key: str) -> _Kind:
    """Of a key that is in no table: an identifier by its name, or not known."""
    return _Kind.LABEL if key.endswith(("_id", "_ids", "Id")) else _Kind.UNKNOWN


def _known(part: Mapping[str, object]) -> bool:
    """Whether it has keys of a message's part."""
    return any(_PART.get(key, _Kind.LABEL) is not _Kind.LABEL for key in part.keys() - _NAMES)


def _shown(part: Mapping[str, object]) -> str:
    return f"its keys are {', '.join(map(repr, list(part)[:8]))}"


def _given_as_text(source: object) -> object:
    """The text of a document that is one, not a file; None otherwise."""
    if not isinstance(source, dict) or source.get("type") not in ("text", "content"):
        return None
    return source.get("data") if source["type"] == "text" else source.get("content")


def _may_have_tags(text: str) -> bool:
    """False for texts without reasoning in tags, in next to no time: every answer is asked."""
    return "<" in text or "◁" in text or "[" in text


def _parted(text: str) -> tuple[str, str]:
    """(what stays, reasoning) of an answer's text. Where only the end of the reasoning is tagged, the template began it; where only the
    beginning is, the answer broke off in it."""
    for begin, end in _TAGS:
        if end in text or text.lstrip().startswith(begin):
            return _split(text, begin, end)
    return text, ""


def _split(text: str, begin: str, end: str) -> tuple[str, str]:
    """The same by one pair of tags."""
    head, _, tail = text.partition(end)
    if begin not in head:
        head = begin + head
    kept, reasoning, rest = [], [], head + end + tail
    while begin in rest:
        before, _, rest = rest.partition(begin)
        inside, _, rest = rest.partition(end)
        kept.append(before)
        reasoning.append(inside)
    return "".join([*kept, rest]).strip(), "\n".join(reasoning).strip()
