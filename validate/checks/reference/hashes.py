"""What block hashes of prompts say of contexts, token by token: a token of a block is its hash, and its place.

A hash says what its block holds after what is before it, and one of an unfull block says nothing. What follows a prompt's last full block
other prompts of its session say, as far as one goes on from the other. A context is the one that was hashed where all is there that was
before it.
"""

from itertools import pairwise

from kvplan.traces import Workload
from kvplan.validate.checks.reference.histories import Token
from kvplan.validate.checks.reference.turns import Turn


class Hashes:
    """Those of a workload; of one without, none."""

    def __init__(self, workload: Workload, turns: list[Turn]) -> None:
        self.history = dict(zip(turns, workload.history_tokens.tolist(), strict=True))
        self.prompt = {turn: turn.prompt_tokens for turn in turns}
        self.of: dict[Turn, list[Token]] = {}
        if (blocks := workload.blocks) is not None:
            bounds = pairwise(blocks.first.tolist())
            self.read(turns, [blocks.ids[start:stop].tolist() for start, stop in bounds], blocks.block_tokens)

    def read(self, turns: list[Turn], hashes: list[list[int]], size: int) -> None:
        for turn, ids in zip(turns, hashes, strict=True):
            full = range(min(len(ids), (self.history[turn] + turn.prompt_tokens) // size) * size)
            self.of[turn] = [(("hash", ids[place // size]), place) for place in full]
        pairs = [(turn, turn.following) for turn in turns if turn.following]
        for turn, later in reversed(pairs):
            self.goes_on(turn, self.of[later][: self.history[later]])
        for turn, later in pairs:
            self.goes_on(later, self.of[turn][: self.history[later]])

    def goes_on(self, turn: Turn, said: list[Token]) -> None:
        """A turn before or after it has the same text so far, and more; one that has another has not gone on from it."""
        own = self.of[turn]
        if said[: len(own)] == own:
            self.of[turn] = own + said[len(own) :]

    def said(self, turn: Turn, history: int, prompt: int) -> list[Token]:
        """The first tokens of a turn's context, with its answer."""
        if history != self.history[turn]:
            return []
        said = self.of.get(turn, [])
        return said if prompt == self.prompt[turn] else said[: history + prompt]
