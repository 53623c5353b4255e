"""Tokens of text without a tokenizer: a weighted count of its letters, words, digits and signs, by script.

The weights of a family, and the errors that are stated, come from `kvplan validate tokens`, which counts texts of a hundred languages and
code with the real tokenizers. They are facts about those; no vocabulary is copied.
"""

import csv
from functools import cache
from operator import mul
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kvplan.traces.tokens import scripts
from kvplan.traces.tokens.families import FAMILIES

WEIGHTS, ERRORS = (Path(__file__).with_name(name) for name in ("weights.csv", "errors.csv"))
_MENTIONED_SHARE = 0.05
"""Of the tokens; kinds of text below it are not named in the label."""
_BEYOND = 1 + len(scripts.ASCII)


class Error(NamedTuple):
    """Of an estimate, measured on texts that the fit had not seen."""

    of_a_text: float
    """Median."""
    of_a_source: float
    """Of the total of a source (a program's messages, a manual, a kind of file): median of the sources."""
    at_worst: float
    """Of the total of the worst source."""


class Estimate:
    """A function from text to tokens of one family of vocabularies, that keeps account of the kinds of text it saw."""

    def __init__(self, family: str) -> None:
        weights = weights_of(family)
        self.family = family
        self._constant, *self._ascii = weights[:_BEYOND].tolist()
        self._classes = weights[_BEYOND:].reshape(3, -1)
        self.tokens: dict[str, float] = dict.fromkeys(scripts.KINDS, 0.0)
        """Kind of text -> tokens counted."""

    def __call__(self, text: str) -> int:
        """Tokens of a text; at least 1 unless it is empty."""
        if not text:
            return 0
        counts = scripts.ascii_counts(text)
        tokens = self._constant + sum(map(mul, self._ascii, counts))
        if text.isascii():
            kind = scripts.kind(counts)
        else:
            classes = scripts.class_counts(text)
            tokens += float(np.vdot(classes, self._classes))
            kind = scripts.kind(counts, classes[0])
        self.tokens[kind] += tokens
        return max(round(tokens), 1)

    @property
    def label(self) -> str:
        """How tokens are counted, and how far off that is for the kinds of text that were seen."""
        total, errors = sum(self.tokens.values()), errors_of(self.family)
        seen = sorted((kind for kind, count in self.tokens.items() if count > _MENTIONED_SHARE * total), key=self.tokens.__getitem__)
        return f"estimated for {FAMILIES[self.family].label}: " + "; ".join(
            f"{kind} ({self.tokens[kind] / total:.0%} of the tokens) off by {errors[kind].of_a_text:.0%} a text (median),"
            f" {errors[kind].of_a_source:.0%} in total ({errors[kind].at_worst:.0%} at worst)"
            for kind in reversed(seen)
        )


@cache
def weights_of(family: str) -> np.ndarray:
    """Tokens for each of `scripts.FEATURES`."""
    rows = {row["feature"]: float(row[family]) for row in _rows(WEIGHTS)}
    return np.array([rows[name] for name in scripts.FEATURES])


@cache
def errors_of(family: str) -> dict[str, Error]:
    """Kind of text -> what was measured."""
    return {
        row["kind"]: Error(float(row["text"]), float(row["total"]), float(row["worst"])) for row in _rows(ERRORS) if row["family"] == family
    }


def _rows(path: Path) -> list[dict[str, str]]:
    lines = path.read_text("utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))
