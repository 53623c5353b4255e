"""Checks of what a server computes: turns whose history came from the store, computed again from their tokens alone."""

import torch
from torch import Tensor

from kvplan.validate.calibration.kernels.decoder import Decoder


class Verifier:
    """Takes every `every`-th turn that it is shown (0: none) and compares logits. What was truncated is left out: cutting a saved cache
    is not the same as computing the shorter text (see `kvplan validate truncation`)."""

    def __init__(self, decoder: Decoder, every: int) -> None:
        self._decoder, self._every = decoder, every
        self._shown = 0
        self._truncated: set[int] = set()
        self.compared = 0
        """Turns compared so far."""
        self.largest_error = 0.0
        """Largest difference of two logits, as a share of the largest logit."""

    def truncated(self, session: int) -> None:
        """The session's history has lost its oldest tokens."""
        self._truncated.add(session)

    def compare(self, turn: int, session: int, text: list[int], logits: Tensor) -> None:
        """The turn's prompt ends `text`, and gave these logits, [vocabulary]."""
        if not self._every or session in self._truncated:
            return
        self._shown += 1
        if self._shown % self._every:
            return
        expected = self._decoder.prefill(torch.tensor([text]), self._decoder.room(1, len(text)))[0][0]
        self.compared += 1
        self.largest_error = max(self.largest_error, float((logits - expected).abs().max() / expected.abs().max()))
