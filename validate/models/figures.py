"""What is compared of a model: kvplan's figures and the independent ones, in 16 bits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kvplan.hwmodels import hfconfig, kvsize
from kvplan.hwmodels.schema import Model
from kvplan.validate.models.reference import Counted, IncomparableError, count

SESSION = 8192
"""Tokens of a session that is compared beside one as long as the model's window."""


@dataclass(frozen=True)
class Figure:
    """One number, twice. `theirs` is None where it could not be counted, for the reason that `why` gives."""

    what: str
    ours: int
    theirs: int | None
    why: str = ""

    @property
    def differs(self) -> bool:
        """Whether both are known and are not the same."""
        return self.theirs not in (None, self.ours)

    @property
    def cells(self) -> list[str]:
        """As a row of the table."""
        ours, theirs = ("–" if number is None else f"{number:,}" for number in (self.ours, self.theirs))
        if self.theirs is None:
            return [self.what, ours, theirs, "not compared"]
        return [self.what, ours, theirs, f"{self.ours / self.theirs - 1:+.3%}" if self.differs and self.theirs else "none"]


def compared(data: dict[str, Any]) -> list[Figure]:
    """All figures of a `config.json`, or of a catalogue file. Raises ValueError where kvplan refuses it."""
    model = hfconfig.read_model(data | {"torch_dtype": "bfloat16", "quantization_config": None})
    try:
        counted, why = count(data), ""
    except IncomparableError as error:
        counted, why = None, str(error)
    return [_weights(model, counted, why), *_kv(model, counted, why)]


def _weights(model: Model, counted: Counted | None, why: str) -> Figure:
    what, theirs = "parameters but norms and biases", counted.matrices if counted else None
    return Figure(what, kvsize.parameters(model), theirs, why)


def _kv(model: Model, counted: Counted | None, why: str) -> Iterator[Figure]:
    """Bytes of a token, of states, and of sessions; figures that another one contains are left out."""
    seen = counted if counted and not counted.unseen else None
    why = why or (counted.unseen if counted else "")

    def figure(what: str, tokens: int, keeps: kvsize.Keeps) -> Figure:
        theirs = seen.session_bytes(tokens, keeps == "windowed") if seen else None
        return Figure(what, kvsize.kv_bytes(model, tokens, keeps), theirs, why)

    state, token = figure("", 0, "windowed"), figure("", 1, "every-token")
    yield Figure("KV bytes a token", token.ours - state.ours, _less(token.theirs, state.theirs), why)
    if state.ours or state.theirs:
        yield Figure("state bytes", state.ours, state.theirs, why)
    for tokens in sorted({SESSION, model.max_position_embeddings}):
        yield figure(f"bytes of {tokens:,} tokens, all kept", tokens, "every-token")
        if kvsize.windows(model):
            yield figure(f"bytes of {tokens:,} tokens, windows", tokens, "windowed")


def _less(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None else whole - part
