"""Families of vocabularies, and the one that a model's belongs to."""

from dataclasses import dataclass

from kvplan.traces.workload import TraceError

PADDING = 0.02
"""Share by which a model's vocabulary and its tokenizer's may differ: rows are added for speed, tokens for chats."""


@dataclass(frozen=True)
class Family:
    """Vocabularies that cut text alike."""

    label: str
    tokens: tuple[int, ...]
    """Sizes of its vocabularies, the measured one first."""
    models: tuple[str, ...]
    """Beginnings of the `model_type` of models that have it."""


FAMILIES = {
    "llama-2": Family("LLaMA-2's vocabulary", (32_000,), ("llama",)),
    "mistral": Family("Mistral-7B's vocabulary", (32_000, 32_768), ("mistral", "mixtral")),
    "cl100k": Family("GPT-4's vocabulary (cl100k)", (100_277,), ("phi3", "dbrx", "olmo2")),
    "llama-3": Family("Llama-3's vocabulary", (128_256,), ("llama", "mllama", "nemotron-nas")),
    "deepseek": Family("DeepSeek-V3's vocabulary", (129_280,), ("deepseek",)),
    "tekken": Family("Mistral's Tekken vocabulary", (131_072,), ("mistral", "ministral", "pixtral")),
    "qwen": Family("Qwen's vocabulary", (151_936,), ("qwen2", "qwen3")),
    "o200k": Family("GPT-4o's vocabulary (o200k)", (201_088, 200_064), ("gpt_oss", "phi3", "phi4")),
    "gemma": Family("Gemma's vocabulary", (262_144, 256_000), ("gemma",)),
}
"""Name -> family. Each was measured with the tokenizer of its first size."""


def chosen(name: str | None, model: tuple[str, int] | None) -> tuple[str, str]:
    """(name, doubt) of the family that is named, or else that a model's (`model_type`, tokens) say; LLaMA-2's where nothing is said.

    Raises TraceError for a name that is none. The doubt is empty unless a model's vocabulary is of no known family.
    """
    if name is not None:
        if name not in FAMILIES:
            raise TraceError(f"unknown vocabulary {name!r}: known are {', '.join(FAMILIES)}")
        return name, ""
    if model is None:
        return "llama-2", ""
    kind, tokens = model
    known = [name for name, family in FAMILIES.items() if kind.startswith(family.models) and fits(tokens, *family.tokens)]
    nearest = (known or sorted(FAMILIES, key=lambda name: min(abs(tokens - size) for size in FAMILIES[name].tokens)))[0]
    return nearest, "" if known else f"a vocabulary of {tokens:,} tokens ({kind or 'no model_type'}) is of no family that was measured"


def fits(tokens: int, *sizes: int) -> bool:
    """Whether a vocabulary of so many tokens is one of these sizes, but for padding."""
    return any(abs(tokens - size) <= PADDING * size for size in sizes)
