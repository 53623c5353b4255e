"""Caches of blocks beside what vLLM's own classes and kvcache-simulator hit on a public trace: `kvplan validate blocks --help`.

The figures are in `validate/checks/blocks/figures.py`, with their sources. Where vLLM is installed its classes run here, too.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from kvplan.traces import TraceError, read_trace
from kvplan.traces.blockpaths import BlockContexts, block_contexts
from kvplan.validate.checks.blocks import real
from kvplan.validate.checks.blocks.figures import BLOCK_TOKENS, ORACLES, PROMPT_TOKENS, REQUESTS, Case
from kvplan.validate.checks.blocks.ours import ours
from kvplan.validate.ending import FAILED, ended
from kvplan.validate.show import show

_ROUNDING = 1e-6


def main(argv: list[str]) -> int:
    """Prints a table an oracle; 1 when a figure differs by more than it may, 2 for another trace."""
    parser = argparse.ArgumentParser(prog="kvplan validate blocks", description=__doc__)
    parser.add_argument(
        "--trace", type=Path, required=True, help="conversation_trace.jsonl of github.com/kvcache-ai/Mooncake, FAST25-release"
    )
    parser.add_argument("--only", metavar="TEXT", default="", help="cases whose oracle or cache contains this: A, 8,192, arc, …")
    arguments = parser.parse_args(argv)
    try:
        contexts = _contexts(arguments.trace)
    except TraceError as error:
        return ended("blocks", error)
    drive, why_not = real.driver()
    differing = [name for oracle in ORACLES for name in _shown(oracle, arguments.only, contexts, drive)]
    print(why_not or f"real: vLLM {real.version()}, driven here.")
    return ended("blocks", f"{len(differing)} figures differ: {'; '.join(differing)}", FAILED) if differing else 0


def _contexts(path: Path) -> BlockContexts:
    """Raises TraceError for another trace."""
    contexts = block_contexts(read_trace(path), BLOCK_TOKENS)
    found = len(contexts.tokens), sum(contexts.tokens)
    if found != (REQUESTS, PROMPT_TOKENS):
        raise TraceError(
            f"{path} has {found[0]:,} requests of {found[1]:,} tokens: the figures are of Mooncake's conversation_trace.jsonl,"
            f" {REQUESTS:,} requests of {PROMPT_TOKENS:,}"
        )
    return contexts


def _shown(oracle: str, only: str, contexts: BlockContexts, drive: real.Drive | None) -> Iterator[str]:
    """Prints an oracle's cases; gives those that differ."""
    cases = [case for case in ORACLES[oracle] if only in f"{oracle} {case.cache}"]
    rows = [(case, *row) for case in cases for row in _rows(case, contexts, drive)]
    if rows:
        heads = ["cache", "figure", "published", "ours", "difference", "may be off", *["real"] * (drive is not None)]
        show(oracle, heads, [cells for _, _, cells in rows])
        print()
    yield from (f"{oracle[0]}: {case.cache}: {cells[1]}" for case, differs, cells in rows if differs)


def _rows(case: Case, contexts: BlockContexts, drive: real.Drive | None) -> Iterator[tuple[bool, list[str]]]:
    """Whether it differs, and the cells of each figure."""
    found, theirs = ours(case.cache, contexts), drive(case.cache, contexts) if drive else {}
    for number, (what, published, within) in enumerate(case.figures):
        off = found[what] - published
        run = [_shown_as(theirs[what], published) if what in theirs else "–"] * (drive is not None)
        cells = [_shown_as(value, published) for value in (published, found[what], off)]
        yield (
            abs(off) > within,
            ["" if number else str(case.cache), what, *cells, "rounding" if 0 < within < _ROUNDING else _shown_as(within, published), *run],
        )


def _shown_as(value: float, published: float) -> str:
    """Whole numbers as such, shares to six digits."""
    return f"{value:,.0f}" if published == int(published) else f"{round(value, 6) + 0:.6f}"
