"""What one request takes, the layer pipeline and the generated population against published figures; under two seconds.

Single requests and the pipeline are the small ones of the cases that `kvplan validate paper` and `published` run.
"""

import numpy as np

from kvplan.sim.rng import stream
from kvplan.traces.generate import sharegpt
from kvplan.validate.published import cases, command
from kvplan.validate.published.page import Results
from kvplan.validate.show import show

CASES = {"paper": ("01-anchors", "02-read-buffer"), "published": ("gpt-fast", "splitwise")}
"""By group."""


def population() -> list[tuple[str, float, float]]:
    """(quantity, published, generated) of ShareGPT-90K, cut. Source: CachedAttention (USENIX ATC 2024)."""
    table = sharegpt.generate(90_000, stream(1, "lengths"))
    turns, tokens = np.diff(table.first_turn), table.session_tokens
    return [
        ("turns per session", 5.6, float(turns.mean())),
        ("multi-turn sessions, %", 69.0, 100 * float((turns > 1).mean())),
        ("sessions over 2K tokens, %", 41.0, 100 * float((tokens > 2048).mean())),
        ("sessions over 4K tokens, %", 23.0, 100 * float((tokens > 4096).mean())),
    ]


def small_cases(group: str) -> Results:
    """Those of a group, simulated."""
    return command.simulated(group, {name: cases.load(group, name) for name in CASES[group]}, {}, jobs=1)


def run() -> None:
    """Prints the tables."""
    rows = [[name, f"{published:.4g}", f"{ours:.4g}", f"{ours / published - 1:+.1%}"] for name, published, ours in population()]
    show("The generated population against ShareGPT-90K, cut", ["quantity", "published", "kvplan", "difference"], rows)
    for group in CASES:
        command.print_results(small_cases(group))
