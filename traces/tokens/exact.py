"""Real tokenizers: a HuggingFace `tokenizer.json`, a SentencePiece model, a tiktoken file, Mistral's `tekken.json`, or a model's folder.

Which of them a file is, its content says: `tokenizer.model` may be either of two. Each kind needs a package that is no dependency.
"""

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from kvplan.foreign import files
from kvplan.traces.workload import TraceError

IN_A_FOLDER = ("tokenizer.json", "tekken.json", "tokenizer.model", "*.tiktoken", "tiktoken.model", "*.model")
"""What is looked for in a model's folder, in this order."""
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
)
_PIECES = (
    (140_000, _LETTERS + r"|\p{N}{1,3}" + _SPACES),
    (170_000, _LETTERS + r"|\p{N}" + _SPACES),
    (10_000_000, _CASED + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
)
"""Up to how many tokens -> the pieces that a tiktoken file is for, which it does not say: GPT-4's and Llama-3's, Qwen's, GPT-4o's."""
_PROBE = "Probe 123: тест 你好 🙂\n"


@dataclass(frozen=True)
class Exact:
    """A tokenizer."""

    count: Callable[[str], int]
    tokens: int
    """Size of its vocabulary."""


def load(path: Path) -> Exact:
    """The tokenizer in a file, or in the folder of a model. Raises TraceError when it is missing or broken, or a package is missing."""
    try:
        path = _within(path) if files.is_folder(path) else path
        data = files.read_bytes(path, files.TABLE_BYTES)
    except files.UnreadableError as error:
        raise TraceError(str(error)) from None
    try:
        found = _of(data)
        found.count(_PROBE)
    except (TraceError, KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a package's panic is no Exception; the others raise many kinds for faults of the file
        raise TraceError(f"cannot use the tokenizer {path}: {str(error) or type(error).__name__}") from None
    return found


def _within(folder: Path) -> Path:
    for pattern in IN_A_FOLDER:
        for path in sorted(folder.glob(pattern)):
            return path
    raise TraceError(f"the folder {folder} holds no tokenizer: looked for {', '.join(IN_A_FOLDER)}")


def _of(data: bytes) -> Exact:
    if data.lstrip()[:1] == b"{":
        document = json.loads(data)
        return _tekken(document) if {"config", "vocab"} <= document.keys() else _huggingface(data)
    ranks = _ranks(data)
    return _sentencepiece(data) if ranks is None else _tiktoken(ranks, _pieces(len(ranks)), len(ranks))


def _huggingface(data: bytes) -> Exact:
    tokenizer = _package("tokenizers").Tokenizer.from_buffer(data)
    return Exact(lambda text: len(tokenizer.encode(_sound(text), add_special_tokens=False)), tokenizer.get_vocab_size())


def _sentencepiece(data: bytes) -> Exact:
    package = _package("sentencepiece")
    try:
        processor = package.SentencePieceProcessor(model_proto=data or b"-")
    except RuntimeError:
        raise ValueError("it is no tokenizer.json, tekken.json, tiktoken file or SentencePiece model") from None
    return Exact(lambda text: len(processor.encode(_sound(text))), processor.vocab_size())


def _tekken(document: dict[str, Any]) -> Exact:
    config = document["config"]
    size = int(config["default_vocab_size"])
    vocabulary = document["vocab"][: size - int(config["default_num_special_tokens"])]
    ranks = {base64.b64decode(entry["token_bytes"], validate=True): int(entry["rank"]) for entry in vocabulary}
    return _tiktoken(ranks, config["pattern"], size)


def _tiktoken(ranks: dict[bytes, int], pieces: str, size: int) -> Exact:
    if not all(bytes((byte,)) in ranks for byte in range(256)) or len(set(ranks.values())) < len(ranks):
        raise ValueError("its vocabulary lacks bytes, or has a rank twice")
    encoding = _package("tiktoken").Encoding("kvplan", pat_str=pieces, mergeable_ranks=ranks, special_tokens={})
    return Exact(lambda text: len(encoding.encode_ordinary(text)), size)


def _pieces(tokens: int) -> str:
    return next(pieces for most, pieces in _PIECES if tokens <= most)


def _ranks(data: bytes) -> dict[bytes, int] | None:
    """Token -> rank of a tiktoken file, lines of base64 and number; None where its first line is none."""
    try:
        _rank(data[:1000].splitlines()[0])
    except (ValueError, IndexError):
        return None
    return dict(_rank(line) for line in data.splitlines() if line.strip())


def _rank(line: bytes) -> tuple[bytes, int]:
    token, _, rank = line.partition(b" ")
    try:
        return base64.b64decode(token, validate=True), int(rank)
    except (binascii.Error, ValueError):
        raise ValueError(f"a line is not base64 and a number: {line[:40]!r}") from None


def _sound(text: str) -> str:
    """Without halves of surrogate pairs, which JSON can hold and no tokenizer takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise TraceError(f"this tokenizer needs the package {name}: pip install 'kvplan[tokenizers]'") from None
