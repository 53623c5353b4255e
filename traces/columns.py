"""What columns of a table can hold, and the names under which they are usually found.

`workload.columns` (`--columns`) says which column, or key of a JSON record, holds what: `{session: user, prompt: in, output: out}`. A key
within another is named with dots: `usage.prompt_tokens`.
"""

import difflib
import re
from collections.abc import Collection, Mapping

ROLES: Mapping[str, tuple[str, ...]] = {
    "session": ("session_id", "session", "conversation_id", "conversation", "chat_id", "thread_id", "trace_id"),
    "arrival": ("arrival_time", "arrival", "arrived_at", "arrival_s", "timestamp", "ts", "time", "start_time", "created_at", "created"),
    "end": ("end_time", "finish_time", "finished_at", "completed_at", "ended_at"),
    "latency": ("latency", "latency_ms", "latency_s", "duration", "duration_ms", "duration_s", "elapsed", "elapsed_time", "response_time"),
    "think": ("think_time", "think_time_s", "think_s", "delay", "delay_ms"),
    "prompt": ("prompt_tokens", "input_tokens", "num_prompt_tokens", "num_prefill_tokens", "input_length", "context_tokens", "in"),
    "new": ("new_tokens", "new_prompt_tokens"),
    "output": ("completion_tokens", "output_tokens", "num_generation_tokens", "num_decode_tokens", "output_length", "out"),
    "cached": ("cached_tokens", "cache_read_input_tokens", "num_cached_tokens"),
    "tenant": ("tenant", "customer", "organization", "team"),
    "blocks": ("hash_ids", "block_hashes"),
    "prompt_text": ("prompt", "input", "question", "query"),
    "new_text": (),
    "output_text": ("completion", "response", "output", "answer"),
}
"""What a column can hold -> its usual names."""
PROMPTS = "prompt", "new", "prompt_text", "new_text"
ANSWERS = "output", "output_text"
_LENGTHS = ({"prompt_tokens", "completion_tokens"}, {"input_tokens", "output_tokens"}, {"num_prefill_tokens", "num_decode_tokens"})
_SHOWN = 30


def checked(columns: dict[str, str]) -> dict[str, str]:
    """The columns, when they are enough to read a table by. Raises ValueError."""
    for role in columns:
        if role not in ROLES:
            near = difflib.get_close_matches(role, ROLES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"a column cannot be {role!r}: {hint}known are {', '.join(ROLES)}")
    for kind, roles in (("prompt", PROMPTS), ("answer", ANSWERS)):
        found = [role for role in roles if role in columns]
        if columns and len(found) != 1:
            raise ValueError(f"columns name {' and '.join(found) or 'nothing'} for the {kind}: name one of {', '.join(roles)}")
    return columns


def usual(keys: Collection[str]) -> dict[str, str]:
    """Role -> key, of keys that bear usual names; lengths where there are any, else text."""
    by_name = {_plain(key): key for key in sorted(keys, reverse=True)}
    there = {role: [by_name[_plain(name)] for name in names if _plain(name) in by_name] for role, names in ROLES.items()}
    found = {role: keys[0] for role, keys in there.items() if keys}
    for roles in (PROMPTS, ANSWERS, ("latency", "end")):
        for other in [role for role in roles if role in found][1:]:
            del found[other]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].casefold())


def tells_lengths(keys: Collection[str]) -> bool:
    """Whether keys bear names that nothing else has: a log of requests with their lengths."""
    return any(names <= set(keys) for names in _LENGTHS)


_WHO = ("chat", "user", "user_id", "uid", "client")
"""Names that may be a session's: no more than a hint."""


def hint(keys: Collection[str], numbers: Collection[str] = ()) -> str:
    """How to read a table with these columns or keys, of which some hold numbers: what is there, and what to write."""
    found = usual(keys)
    for text, tokens in (("prompt_text", "prompt"), ("output_text", "output")):
        if found.get(text) in numbers:
            found[tokens] = found.pop(text)
    if "session" not in found and (who := [key for name in _WHO for key in sorted(keys) if _plain(key) == _plain(name)]):
        found = {"session": who[0], **found}
    for roles in (PROMPTS, ANSWERS):
        if not any(role in found for role in roles):
            found[roles[0]] = "…"
    there = sorted(keys)
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return f"it has {', '.join(map(repr, there[:_SHOWN])) or 'no keys'}{more}; name what they hold: --columns {written(found)}"


def written(columns: Mapping[str, str]) -> str:
    """As `--columns` takes them."""
    return ",".join(f"{role}={column}" for role, column in columns.items())


def parsed(text: str) -> dict[str, str]:
    """What `--columns` says. Raises ValueError."""
    pairs = [part.partition("=") for part in text.split(",")]
    for role, equals, column in pairs:
        if not (equals and role.strip() and column.strip()):
            raise ValueError(f"--columns {text}: write it as session=user,arrival=ts,prompt=in,output=out")
    roles = [role.strip() for role, _, _ in pairs]
    if len(set(roles)) < len(roles):
        raise ValueError(f"--columns {text}: {next(role for role in roles if roles.count(role) > 1)} comes twice")
    return {role.strip(): column.strip() for role, _, column in pairs}
