"""Sessions drawn from the published ShareGPT-90K distributions.

Turns per session and tokens per message follow the quantile table beside this file (`sharegpt90k.csv`, which names its source).
Message lengths of one session are correlated by a Gaussian copula: a session-wide normal factor has weight
sqrt(length_correlation) and each message's own the rest, so the marginal distributions stay as published. Sessions of more than
`max_turns` turns or `max_tokens` tokens are left out and drawn anew, 3.5 % of them with the defaults.

With the default correlation 0.15 and no cut, 42 % of the sessions pass 2,048 tokens and 25 % pass 4,096 (published: 41.3 % and
24.4 %; independent lengths give 44.0 % and 26.8 %). With the cut: 5.7 turns a session, 69 % multi-turn.

Left out: any relation between the number of turns and their lengths, trends within a session, text.
"""

import numpy as np

from kvplan.traces.generate import tables
from kvplan.traces.generate.limits import Drawn, draw_within
from kvplan.traces.workload import Workload, untimed

SOURCE = "generator sharegpt: ShareGPT-90K quantiles (YitaoYuan/sharegpt-statistics)"
TOKENS = "Llama-3.1 tokens, as published"
_PIECE = 1 << 14
"""Messages whose lengths are drawn at a time."""


def generate(
    sessions: int,
    rng: np.random.Generator,
    max_turns: int = 40,
    max_tokens: int = 32_768,
    length_correlation: float = 0.15,
) -> Workload:
    """`sessions` sessions without times. `length_correlation` is within [0, 1].

    Raises TraceError when the limits leave out nearly everything.
    """
    (turns, prompt, output), redrawn = draw_within(
        lambda count: _draw(count, rng, length_correlation), sessions, max_turns, max_tokens, "ShareGPT"
    )
    return untimed(np.repeat(np.arange(sessions), turns), prompt, output, source=SOURCE, tokens=TOKENS, redrawn_share=redrawn)


def quantiles() -> dict[str, tables.Table]:
    """Quantity -> (cdf, value), both ascending: the embedded table."""
    return tables.read_tables("sharegpt90k")


def _draw(sessions: int, rng: np.random.Generator, correlation: float) -> Drawn:
    """Turns per session; prompt and output tokens per turn."""
    cdf, values = quantiles()["turns"]
    without_any = cdf[0]
    uniform = without_any + (1 - without_any) * rng.random(sessions)
    turns = values[np.minimum(np.searchsorted(cdf, uniform, side="left"), len(values) - 1)].astype(np.int64)
    turns = np.maximum(turns, 1)
    factor = np.repeat(np.sqrt(correlation) * rng.standard_normal(sessions), turns)
    return turns, *(_lengths(name, factor, np.sqrt(1 - correlation), rng) for name in ("human_tokens", "gpt_tokens"))


def _lengths(name: str, factor: np.ndarray, own: float, rng: np.random.Generator) -> np.ndarray:
    """Tokens of messages whose sessions have these factors; each message's own has this weight. A piece at a time: what it takes between
    would be several times what comes of it."""
    cdf, values = quantiles()[name]
    lengths = np.empty(len(factor), np.int32)
    for begin in range(0, len(factor), _PIECE):
        piece = slice(begin, begin + _PIECE)
        normal = factor[piece] + own * rng.standard_normal(len(factor[piece]))
        lengths[piece] = np.maximum(np.rint(np.interp(_normal_cdf(normal), cdf, values)), 1)
    return lengths


def _normal_cdf(x: np.ndarray) -> np.ndarray:
    """Standard normal distribution function, to 1.5e-7. Source: Abramowitz and Stegun 7.1.26."""
    z = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * poly * np.exp(-z * z)
    return np.where(x >= 0, 1 - tail, tail)
