"""What batching policies share that pack prefills into steps of a number of tokens."""

from collections.abc import Iterable

from kvplan.sim.policies.base import Chunks, Prefilling


def packed(jobs: Iterable[Prefilling], room: int) -> Chunks:
    """As many of the jobs' tokens as there is room for, in their order: all of some, and a part of the one after them."""
    chunks = []
    for job in jobs:
        if room <= 0:
            break
        tokens = min(job.left, room)
        chunks.append((job, tokens))
        room -= tokens
    return tuple(chunks)


def unpacked(jobs: Iterable[Prefilling]) -> int:
    """Tokens that are still to be prefilled."""
    left = 0
    for job in jobs:
        left += job.left
    return left
