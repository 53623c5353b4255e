"""What a block hash is: a value that means nothing but itself, and what it holds within.

Two blocks are the same when their hashes are, and everything that an engine keeps them apart by: another model, another adapter, another
salt give other KV for the same text, so the same hash there is another block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np

NAMESPACES = (
    "model", "model_name", "cache_salt", "salt", "lora", "lora_id", "lora_int_id", "lora_name", "lora_path", "lora_request",
    "adapter", "adapter_id", "adapter_name", "tenant", "tenant_id", "tenant_name", "namespace",
)  # fmt: skip
"""Fields of a record that its block hashes hold within: engines share no KV across them."""
OWNERS = ("user", "user_id")
"""Fields of a record that keep sessions apart, but not blocks: engines share a prompt that two users have in common."""

_SIGN = 1 << 63


@dataclass(frozen=True)
class Scope:
    """Names and values of what block hashes and sessions hold within, as a record has them."""

    blocks: tuple[tuple[str, str], ...] = ()
    """Of NAMESPACES, or of the format's own."""
    sessions: tuple[tuple[str, str], ...] = ()
    """Of OWNERS."""


ANYWHERE = Scope()


def apart(scopes: Iterable[Scope]) -> dict[str, dict[str, int]]:
    """For an origin: what keeps blocks and sessions apart, and how many values it has; what has one for all does not."""
    distinct = set(scopes)
    found = {
        "blocks_apart_by": _values([dict(scope.blocks) for scope in distinct]),
        "sessions_apart_by": _values([dict(scope.sessions) for scope in distinct]),
    }
    return {name: values for name, values in found.items() if values}


def _values(held: list[dict[str, str]]) -> dict[str, int]:
    counts = {name: len({each.get(name) for each in held}) for name in sorted({name for each in held for name in each})}
    return {name: count for name, count in counts.items() if count > 1}


def is_hash(block: object) -> bool:
    """Whether this can be a block hash: a whole number, or text."""
    return type(block) is int or (isinstance(block, str) and block != "")


def identity(block: int | str) -> int:
    """A block hash as a signed number of 64 bits: itself where it is one, else a digest of how it is written.

    Negative, longer and textual hashes keep their identity: no two of a file's become one, but for the 2^-64 of any hash.
    """
    return block if isinstance(block, int) and -_SIGN <= block < _SIGN else _digest(str(block))


def within(blocks: Sequence[int], namespace: tuple[tuple[str, str], ...]) -> Sequence[int]:
    """The identities of blocks in a namespace: the same only for the same block in the same one. None at all changes nothing."""
    if not namespace:
        return blocks
    mask = _digest(repr(namespace))
    return [block ^ mask for block in blocks]


def spread(number: np.ndarray, seed: int) -> np.ndarray:
    """uint64 per number: splitmix64, whose outputs are spread evenly. Source: Steele, Lea and Flood, OOPSLA 2014."""
    step = 0x9E3779B97F4A7C15
    mixed = number.astype(np.uint64) * np.uint64(step) + np.uint64((seed + 1) * step % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


@lru_cache(maxsize=1 << 16)
def _digest(text: str) -> int:
    """The same in every process. Source: BLAKE2, RFC 7693."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True)
