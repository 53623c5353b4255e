"""Sessions whose turns, prompts and answers each follow a distribution of one's own.

Values are rounded to whole numbers, at least 1, so the mean of small ones differs from what the distribution states. Sessions of
more than `max_turns` turns or `max_tokens` tokens are left out and drawn anew, which makes both shorter than their distributions say; the
origin has the share of them.

Left out: any other relation between a session's turns, prompts and answers, trends within a session, text.
"""

from statistics import NormalDist

import numpy as np

from kvplan.traces.generate.laws import Law
from kvplan.traces.generate.limits import Drawn, draw_within
from kvplan.traces.workload import MAX_TOKENS, Workload, untimed


def generate(
    sessions: int,
    rng: np.random.Generator,
    turns: Law,
    prompt_tokens: Law,
    output_tokens: Law,
    max_turns: int = 40,
    max_tokens: int = 32_768,
    first_prompt_tokens: Law | None = None,
    first_prompt_correlation: float = 0.0,
) -> Workload:
    """`sessions` sessions without times, from distributions of turns per session, of tokens per prompt, and per answer; first prompts may
    have one of their own, whose values go with many turns (`first_prompt_correlation` up to 1) or with few (down to -1).

    Raises TraceError when the limits leave out nearly everything.
    """

    longest = min(max_turns, max_tokens // 2)  # a turn has two tokens or more

    def draw(count: int) -> Drawn:
        drawn = np.minimum(_whole(turns, count, rng), longest + 1)  # one turn more than allowed is enough to be left out
        rows = int(drawn.sum())
        prompt, output = _whole(prompt_tokens, rows, rng), _whole(output_tokens, rows, rng)
        if first_prompt_tokens is not None:
            first = _whole(first_prompt_tokens, count, rng)
            prompt[np.cumsum(drawn) - drawn] = _beside(first, drawn, first_prompt_correlation, rng)
        return drawn, prompt, output

    (turns_drawn, prompt, output), redrawn = draw_within(draw, sessions, max_turns, max_tokens, "synthetic")
    settings = {"turns": turns, "prompt_tokens": prompt_tokens, "first_prompt_tokens": first_prompt_tokens, "output_tokens": output_tokens}
    return untimed(
        np.repeat(np.arange(sessions), turns_drawn),
        prompt,
        output,
        source="generator synthetic",
        tokens="drawn, not counted",
        redrawn_share=redrawn,
        distributions={name: law.model_dump(mode="json", exclude_none=True) for name, law in settings.items() if law is not None},
    )


def _beside(values: np.ndarray, others: np.ndarray, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """The same values in an order in which their normal scores have this correlation with those of `others`: a Gaussian copula."""
    score = _normal_scores(others + rng.random(len(others)) - 0.5)  # equal ones in any order
    mixed = correlation * score + np.sqrt(1 - correlation**2) * rng.standard_normal(len(others))
    return np.sort(values)[np.argsort(np.argsort(mixed))]


def _normal_scores(values: np.ndarray) -> np.ndarray:
    shares = (np.argsort(np.argsort(values)) + 0.5) / len(values)
    return np.array([NormalDist().inv_cdf(share) for share in shares.tolist()])


def _whole(law: Law, count: int, rng: np.random.Generator) -> np.ndarray:
    return np.clip(np.rint(law.sample(count, rng)), 1, MAX_TOKENS).astype(np.int64)
