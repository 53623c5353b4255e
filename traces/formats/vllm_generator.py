"""vLLM's multi-turn generator, JSON: `filetype` (generate_conversations), `num_conversations`, laws of `prompt_input` and `prompt_output`.

`num_turns` counts messages of both sides, made an even number; `num_tokens` are those of a message, `prefix_num_tokens` come in front of a
conversation's first one. `common_prefix_num_tokens`, drawn once, begin all conversations, inside the first `num_tokens` as far as these
suffice. Laws: constant, uniform, lognormal (`average` and `median_ratio`, or `mean` and `sigma`), zipf and poisson, with `max`.

Left out: the text (`text_files`); that the lengths of a log-normal law are scaled until their mean is exact. Source: vllm-project/vllm,
benchmarks/multi_turn.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from kvplan.traces import fields
from kvplan.traces.build import Turns
from kvplan.traces.generate import laws
from kvplan.traces.reading import Reading
from kvplan.traces.source import BadRecord, Head, Source
from kvplan.traces.workload import MAX_TOKENS, Workload

NAME = "vllm-generator"
OFFERS = frozenset({"lengths"})
EXAMPLE = """\
{"filetype": "generate_conversations", "num_conversations": 6, "text_files": ["a.txt"], "prompt_input": {\
"num_turns": {"distribution": "uniform", "min": 4, "max": 8}, \
"prefix_num_tokens": {"distribution": "lognormal", "average": 1000, "max": 5000}, \
"num_tokens": {"distribution": "zipf", "alpha": 1.2, "max": 160}}, \
"prompt_output": {"num_tokens": {"distribution": "poisson", "alpha": 100, "max": 120}}}
"""
_MOST_CONVERSATIONS, _MOST_TURNS = 1_000_000, 10_000_000
_ASKED_TOKENS = 19
"""No prompt is shorter than its conversation's number and what it asks for, "rewrite the following text and add more content"."""
_MEDIAN_RATIO = 0.85


def detect(head: Head) -> bool:
    """Whether a file is such a generator."""
    return {"filetype", "prompt_input"} <= head.keys


def read(source: Source, reading: Reading, count_tokens: Callable[[str], int]) -> Workload:
    """The conversations, drawn. Raises TraceError with the record number and what is wrong with it."""
    table = Turns()
    sessions, shared = 0, 0

    def take(number: int, record: object) -> None:
        nonlocal sessions, shared
        plan = _Plan.of(fields.of(record, "a generator of conversations"))
        turns, prompt, answer, common = plan.drawn(reading.rng)
        session = np.repeat(np.arange(sessions, sessions + len(turns)), turns)
        for row in zip(session.tolist(), prompt.tolist(), answer.tolist(), strict=True):
            table.add(*row, number)
        sessions += len(turns)
        shared += common * (len(turns) - 1)

    source.each_json(take)
    workload = table.workload(tokens="drawn, not counted", drawn_by="the laws of vLLM's generator")
    prefilled = int((workload.history_tokens + workload.prompt_tokens).sum())
    return replace(workload, origin={**workload.origin, "shared_by_sessions": shared / prefilled})


class _Plan(NamedTuple):
    """What a file says: how many conversations, and the laws of their parts."""

    conversations: int
    messages: laws.Law
    common_prefix: laws.Law
    prefix: laws.Law
    prompt: laws.Law
    answer: laws.Law

    @classmethod
    def of(cls, record: dict[str, Any]) -> "_Plan":
        """Raises BadRecord."""
        count = fields.tokens(record, "num_conversations")
        if count > _MOST_CONVERSATIONS:
            raise BadRecord(f"`num_conversations` is {count:,}; at most {_MOST_CONVERSATIONS:,} are drawn")
        asked, answered = (fields.of(fields.required(record, name), f"an object in `{name}`") for name in ("prompt_input", "prompt_output"))
        common = _law(asked, "common_prefix_num_tokens") if "common_prefix_num_tokens" in asked else laws.Constant(value=0.0)
        messages, prefix, prompt = (_law(asked, name) for name in ("num_turns", "prefix_num_tokens", "num_tokens"))
        return cls(count, messages, common, prefix, prompt, _law(answered, "num_tokens"))

    def drawn(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(turns of each conversation, tokens of each prompt, of each answer, of the prefix that all begin with). Raises BadRecord."""
        turns = np.maximum(-(-_whole(self.messages, self.conversations, rng) // 2), 1)
        if turns.sum() > _MOST_TURNS:
            raise BadRecord(f"`num_turns` gives {turns.sum():,} turns; at most {_MOST_TURNS:,} are drawn")
        common, prefix = int(_whole(self.common_prefix, 1, rng)[0]), _whole(self.prefix, self.conversations, rng)
        prompt = np.maximum(_whole(self.prompt, int(turns.sum()), rng), _ASKED_TOKENS)
        first = np.cumsum(turns) - turns
        prompt[first] = np.maximum(prompt[first], common + _ASKED_TOKENS) + prefix
        answer = np.maximum(_whole(self.answer, len(prompt), rng), 1)
        return turns, np.minimum(prompt, MAX_TOKENS), answer, common


def _whole(law: laws.Law, count: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(law.sample(count, rng)), 0, MAX_TOKENS).astype(np.int64)


def _law(section: dict[str, Any], name: str) -> laws.Law:
    """The law of one quantity, as a law of ours. Raises BadRecord."""
    given = fields.of(fields.required(section, name), f"a law in `{name}`")
    kind = fields.text(given, "distribution")
    if kind not in _LAWS:
        raise BadRecord(f"`{name}` has the distribution {kind[:40]!r}; known are {', '.join(_LAWS)}")
    try:
        return _LAWS[kind](given)
    except BadRecord as error:
        raise BadRecord(f"`{name}`: {error}") from None
    except (ValidationError, OverflowError, ValueError) as error:
        raise BadRecord(f"`{name}` is no {kind} law: {_fault(error)}") from None


def _fault(error: Exception) -> str:
    """The first finding, with the setting that it is about."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


def _number(given: dict[str, Any], name: str) -> float:
    return float(fields.number(fields.required(given, name), name))


def _uniform(given: dict[str, Any]) -> laws.Uniform:
    """Of whole numbers both ends are as likely as the others: half a number more on both sides, which rounding makes the ends."""
    low, high = given.get("min"), given.get("max")
    half = 0.5 if isinstance(low, int) and isinstance(high, int) and low > 0 else 0.0
    return laws.Uniform(min=_number(given, "min") - half, max=_number(given, "max") + half)


def _lognormal(given: dict[str, Any]) -> laws.LogNormal:
    cap = _number(given, "max") if given.get("max") is not None else None
    if "average" not in given:
        return laws.LogNormal(median=math.exp(_number(given, "mean")), sigma=_number(given, "sigma"), max=cap)
    ratio = _number(given, "median_ratio") if given.get("median_ratio") is not None else _MEDIAN_RATIO
    if not 0 < ratio < 1:
        raise BadRecord(f"`median_ratio` is {ratio:g}, not between 0 and 1")
    return laws.LogNormal(median=_number(given, "average") * ratio, sigma=math.sqrt(-2 * math.log(ratio)), max=cap)


def _cap(given: dict[str, Any]) -> int:
    """The cap of a law of whole numbers; a large one where it has none."""
    return laws.MOST if given.get("max") is None else fields.tokens(given, "max")


_LAWS: Mapping[str, Callable[[dict[str, Any]], laws.Law]] = {
    "constant": lambda given: laws.Constant(value=_number(given, "value")),
    "uniform": _uniform,
    "lognormal": _lognormal,
    "zipf": lambda given: laws.Zipf(alpha=_number(given, "alpha"), max=_cap(given)),
    "poisson": lambda given: laws.Poisson(rate=_number(given, "alpha"), max=_cap(given)),
}
