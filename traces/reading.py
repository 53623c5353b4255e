"""How a trace is read, where the user says so: what a file does not say, or says in another unit than its format has."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

_UNITS_S = {"s": 1.0, "ms": 1e-3}


@dataclass(frozen=True)
class Reading:
    """Names and defaults are those of the configuration's `workload`, but for `model`."""

    tokenizer: Path | None = None
    """Counts the tokens of text; None estimates them."""
    vocabulary: str | None = None
    """Family of vocabularies that tokens are estimated for; None: the model's."""
    model: tuple[str, int] | None = None
    """Architecture and size of the vocabulary of the model that the trace is for, such as ("qwen2", 151936)."""
    skip_bad: bool = False
    """Bad records are left out and counted, not refused."""
    records: Literal["conversations", "requests", "increments"] | None = None
    """What one record is: a whole conversation, a request with all of its history, or only what a request adds; None finds out."""
    times: Literal["s", "ms", "exact"] | None = None
    """Unit of the times; `exact`: the format's own, however odd what they imply; None: the format's own, if that can be."""
    block_tokens: int | None = None
    """Tokens of a block of the file's hashes; None takes the file's word, or else the format's."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Which column or key of a table holds what: `{session: user, arrival: ts}`."""
    answer_tokens: int = 250
    """Tokens of an answer that the file leaves to the server: the default median of `workload.output_tokens`."""
    picture_tokens: int = 1000
    """Tokens of a picture in a prompt."""
    reasoning: Literal["dropped", "kept"] | None = None
    """Whether what a record marks as reasoning stays in the history; None: it does not. See also `kvplan.traces.answers`."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1), compare=False)
    """Draws what a file states as a law; not of the configuration, whose seed gives it a stream of its own."""

    def of_turns(self) -> "Reading":
        """The same for the turns of conversations, which a record of some formats is."""
        return replace(self, records=None) if self.records == "conversations" else self

    def unit(self, own: str) -> str:
        """The unit of the times, `own` being the format's: s or ms."""
        return own if self.times in (None, "exact") else self.times

    def unit_s(self, own: str) -> float:
        """Its seconds."""
        return _UNITS_S[self.unit(own)]
