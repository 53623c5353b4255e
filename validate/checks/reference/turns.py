"""What comes, and what becomes of it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from kvplan.traces import Workload

COLUMNS = (
    *("arrival_s", "admitted_s", "first_token_s", "done_s", "stall_s"),
    *("prompt_tokens", "history_tokens", "cached_tokens", "output_tokens", "tier", "overflow"),
)


@dataclass(eq=False)
class Turn:
    """One turn, under the names of `Result.columns`."""

    session: int
    prompt_tokens: int
    output_tokens: int
    arrival_s: float
    gap_s: float
    dropped: int
    """Tokens of its session's history, the newest, that it does not go on from."""
    place: int
    """In its session, from 0."""
    following: "Turn | None" = None
    ready_s: float = math.nan
    """When a client could send it."""
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    done_s: float = math.nan
    stall_s: float = 0.0
    since_s: float = math.nan
    """When it started with all that it had to load, or to load that while it computes."""
    waits_s: float = 0.0
    """What its first step takes longer for what is loaded; `stall_s`, but for one that gave way and starts again."""
    loaded: int = 0
    """Tokens that it did not have to compute, since it started or started again."""
    computed: int = 0
    """Tokens that are in HBM of those that it has before its next one, which are `context`."""
    decodes: bool = False
    """Whether all of these were, and it goes on token by token."""
    preemptions: int = 0
    history_tokens: int = 0
    cached_tokens: int = 0
    hbm_tokens: int = 0
    """Of these, those in blocks of HBM; what follows, in chunks below."""
    dram_tokens: int = 0
    ssd_tokens: int = 0
    tier: int = -1
    replica: int = 0
    overflow: bool = False
    deferrals: int = 0
    """How often others passed it while its KV came."""
    window_bytes: int = 0
    """That a decode step reads of its windows."""
    context: int = 0
    """Tokens so far, `left` those of the answer to come."""
    left: int = 0

    @property
    def to_prefill(self) -> int:
        return 0 if self.decodes else self.context - self.computed

    @property
    def made(self) -> int:
        """Tokens of its answer that are out."""
        return self.output_tokens - self.left


def turns_of(table: Workload) -> list[Turn]:
    """In the workload's order."""
    dropped = np.zeros(table.turns, int) if table.dropped_tokens is None else table.dropped_tokens
    columns = (table.session, table.prompt_tokens, table.output_tokens, table.arrival_s, table.gap_s, dropped, table.turn)
    turns = [Turn(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
    for turn, following in pairwise(turns):
        turn.following = following if following.session == turn.session else None
    return turns


def columns_of(turns: Sequence[Turn], answered: Sequence[Turn], more: Sequence[str]) -> dict[str, np.ndarray]:
    """A row per turn, with `more` columns than all have; `answered` has them in the order of their answers."""
    found = {name: np.array([getattr(turn, name) for turn in turns]) for name in (*COLUMNS, *more)}
    return found | {"order": np.array([answered.index(turn) for turn in turns])}
