"""What sessions have had so far, wherever their turns went."""

import math
from collections import Counter, defaultdict
from collections.abc import Hashable

Token = tuple[Hashable, int]
"""The turn that wrote it, and its place in the context then; or a text that sessions have in common, or the hash of its block, and its
place there."""


class Histories:
    """Of all sessions, by number."""

    def __init__(self) -> None:
        self.tokens: Counter[int] = Counter()  # of history
        self.written: dict[int, list[Token]] = {}  # the same one by one, where blocks are shared
        self.common: defaultdict[int, float] = defaultdict(lambda: math.inf)  # up to where it can be what others have, too
