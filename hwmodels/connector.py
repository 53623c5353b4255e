"""What a connector makes of one replica's KV: how fast it moves, and which of it is kept.

Effective bandwidth = min(links, per GPU · GPUs, per server), the same each way. What an entry does not know bounds nothing and takes no
time; blocks are of one token, KV is kept once, and all of it is saved. Left out: figures that differ by the way, or with the size of a
load beside its constant part.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kvplan.hwmodels.schema import Connector, Loads, Row, Unknown

Tokens = TypeVar("Tokens", int, np.ndarray)


@dataclass(frozen=True)
class Connection:
    """A connector as a replica has it."""

    name: str
    bytes_per_s: float
    """Each way, of all its GPUs together; infinite where the links decide."""
    request_s: float
    """Of each load, before its first byte moves."""
    byte_s: float
    """Of each of its bytes, before the first moves too: what a load by itself takes beside its links."""
    loads: Loads
    block: int
    """Tokens that are kept and loaded together or not at all."""
    replicated: bool
    """Whether each rank keeps what it holds, copies too."""
    saves_answers: bool

    @property
    def layerwise(self) -> bool:
        """Whether a layer's KV is loaded while those before it are computed."""
        return self.loads == "layerwise"

    @property
    def asynchronous(self) -> bool:
        """Whether the GPUs go on with other jobs meanwhile."""
        return self.loads == "asynchronous"

    @property
    def saves_all(self) -> bool:
        """Whether every token is kept."""
        return self.block == 1 and self.saves_answers

    def ahead_s(self, size: float) -> float:
        """Seconds of a load of so many bytes, before the first moves."""
        return self.request_s + self.byte_s * size

    def transfers(self, layers: int) -> int:
        """Into how many a load is cut, each with the link's latency: one goes on without the GPUs, who take layers as they come."""
        return 1 if self.asynchronous else layers

    def whole(self, tokens: Tokens) -> Tokens:
        """Tokens in the whole blocks of so many."""
        return tokens - tokens % self.block

    def begun(self, tokens: Tokens) -> Tokens:
        """Tokens of the blocks that so many fill or begin."""
        return tokens + -tokens % self.block

    def saved(self, context: Tokens, answer: Tokens) -> Tokens:
        """Tokens that are kept of a context, the last ones of which are the answer."""
        return self.whole(context if self.saves_answers else context - answer)


def connect(connector: Connector, gpus: int) -> Connection:
    """Of a replica of so many GPUs of one server."""
    bytes_per_s = min(gpus * _said(connector.per_gpu, math.inf), _said(connector.per_server, math.inf))
    return Connection(
        name=connector.name,
        bytes_per_s=bytes_per_s,
        request_s=_said(connector.request, 0.0),
        byte_s=max(0.0, 1 / (gpus * _said(connector.alone, math.inf)) - 1 / bytes_per_s),
        loads=connector.loads.value,
        block=int(_said(connector.block, 1)),
        replicated=_said(connector.replicated, False),
        saves_answers=_said(connector.saves, "all") == "all",
    )


def _said(row: Row | None, otherwise):
    return otherwise if row is None or isinstance(row, Unknown) else row.value
