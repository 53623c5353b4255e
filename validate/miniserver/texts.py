"""Token numbers of each session's context. Prompts are random, answers are what the decoder says."""

from typing import NamedTuple

import numpy as np

from kvplan.sim.metrics.output import RunInput
from kvplan.traces.context import fit


class Fitted(NamedTuple):
    """A turn after truncation to the window. Tokens."""

    history: int
    prompt: int
    output: int
    hbm_bytes: int


class Texts:
    """Those of all sessions; `words` are as many as the model knows."""

    def __init__(self, given: RunInput, words: int) -> None:
        self._deployment, self._ratio = given.deployment, given.config.deployment.truncation_ratio
        self._session = given.workload.session.tolist()
        self._prompt, self._output = given.workload.prompt_tokens.tolist(), given.workload.output_tokens.tolist()
        self._words, self._rng = words, np.random.default_rng(given.config.seed)
        self._of: list[list[int]] = [[] for _ in range(given.workload.sessions)]

    def fitted(self, turn: int) -> Fitted:
        """A turn that waits, after truncation to the window."""
        kept, deployment = len(self._of[self._session[turn]]), self._deployment
        history, prompt, output = fit(kept, self._prompt[turn], self._output[turn], deployment.window, self._ratio)
        return Fitted(history, prompt, output, deployment.in_hbm(history + prompt + output))

    def ask(self, turn: int, fitted: Fitted) -> tuple[list[int], int]:
        """The turn's prompt follows what is left of its history; returns the text, and how many tokens were cut from its beginning."""
        text = self._of[self._session[turn]]
        cut = len(text) - fitted.history
        del text[:cut]
        text += self._rng.integers(self._words, size=fitted.prompt).tolist()
        return text, cut

    def answer(self, session: int, token: int) -> None:
        """The session's next token is out."""
        self._of[session].append(token)

    def tokens(self, session: int) -> int:
        """Of the session's context."""
        return len(self._of[session])
