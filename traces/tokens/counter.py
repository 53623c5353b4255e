"""The function that formats count tokens with."""

from collections.abc import Callable
from pathlib import Path

from kvplan.traces.tokens import families
from kvplan.traces.tokens.estimate import Estimate
from kvplan.traces.tokens.exact import load


class Counter:
    """A function from text to its number of tokens, that remembers whether it was used and says how it counts."""

    def __init__(self, tokenizer: Path | None = None, vocabulary: str | None = None, model: tuple[str, int] | None = None) -> None:
        """`tokenizer` is anything that `exact.load` takes; without it tokens are estimated for the `vocabulary` named, else for that of a
        `model`: its type and the size of its vocabulary. Raises TraceError."""
        self._count: Callable[[str], int]
        self._said: Callable[[], str]
        if tokenizer is not None:
            exact = load(tokenizer)
            self._count, self._said = exact.count, lambda: f"counted with {tokenizer}"
            self._doubt = _other_model(exact.tokens, model)
        else:
            family, self._doubt = families.chosen(vocabulary, model)
            estimate = Estimate(family)
            self._count, self._said = estimate, lambda: estimate.label
        self.used = False
        """Whether any text was counted."""

    def __call__(self, text: str) -> int:
        """Tokens of a text."""
        self.used = True
        return self._count(text)

    def origin(self) -> dict[str, str]:
        """How tokens were counted, and what is doubtful about it; empty where no text was."""
        if not self.used:
            return {}
        return {"tokens": self._said(), **({"doubtful_vocabulary": self._doubt} if self._doubt else {})}


def _other_model(tokens: int, model: tuple[str, int] | None) -> str:
    if model is None or families.fits(model[1], tokens):
        return ""
    return f"the tokenizer has {tokens:,} tokens, and the model {model[1]:,}: it is another model's"
