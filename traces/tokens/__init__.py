"""Counting tokens of text: exactly with a local tokenizer, else by an estimate that knows script and vocabulary and states its error."""

from kvplan.traces.tokens.counter import Counter
from kvplan.traces.tokens.estimate import Estimate

__all__ = ["Counter", "Estimate"]
