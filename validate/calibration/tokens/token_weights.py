"""Weights of an estimate, and its error on what it has not seen."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import nnls

from kvplan.traces.tokens import scripts
from kvplan.traces.tokens.estimate import Error
from kvplan.validate.calibration.tokens.corpus import Text

_FEWEST_TOKENS = 20
"""A shorter text weighs as one of this length: its relative error says little."""
_FEWEST_OF_A_SOURCE = 3000
"""Tokens of a kind that a source must have for its total to say anything."""
_WEIGHT_OF_CHATS = 3.0
"""Chats and English are what most traces hold."""


def weights(counts: np.ndarray, tokens: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Non-negative weights of the features, shape (texts, features), by least squares of the relative error."""
    scale = importance / np.maximum(tokens, _FEWEST_TOKENS)
    return nnls(counts * scale[:, None], tokens * scale, maxiter=100 * counts.shape[1])[0]


def importance(texts: Sequence[Text], kinds: Sequence[str]) -> np.ndarray:
    """Weight of each text: a language of a source weighs the same however much there is of it."""
    pieces = Counter((text.source, text.language) for text in texts)
    common = np.array([kind == scripts.ENGLISH for kind in kinds])
    return np.where(common, _WEIGHT_OF_CHATS, 1.0) / np.sqrt([pieces[text.source, text.language] for text in texts])


def held_out(texts: Sequence[Text], kinds: Sequence[str], counts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Estimates by fits that lack the whole source; of a kind that no other source has, half of its texts."""
    sources, kind = np.array([text.source for text in texts]), np.array(kinds)
    weight, odd = importance(texts, kinds), np.arange(len(texts)) % 2 == 1
    found = np.empty(len(texts))
    for source in dict.fromkeys(sources):
        ours = sources == source
        alone = ours & ~np.isin(kind, kind[~ours])
        for half in (odd, ~odd):
            train = ~ours | (alone & ~half)
            test = ours & half
            found[test] = counts[test] @ weights(counts[train], tokens[train], weight[train])
    return np.maximum(np.round(found), 1)


def errors(texts: Sequence[Text], kinds: Sequence[str], estimates: np.ndarray, tokens: np.ndarray) -> dict[str, Error]:
    """Kind -> its errors."""
    sources, kind = np.array([text.source for text in texts]), np.array(kinds)
    found = {}
    for each in dict.fromkeys(kinds):
        ours = kind == each
        parts = [ours & (sources == source) for source in dict.fromkeys(sources[ours])]
        large = [part for part in parts if tokens[part].sum() >= _FEWEST_OF_A_SOURCE]
        totals = [abs(estimates[part].sum() / tokens[part].sum() - 1) for part in large or parts]
        found[each] = Error(float(np.median(abs(estimates[ours] / tokens[ours] - 1))), float(np.median(totals)), max(totals))
    return found
