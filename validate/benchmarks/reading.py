"""Megabytes per second and peak memory of reading traces, and that every turn was read.

ShareGPT-like text with the published lengths, and request logs in three formats; each is written to a temporary file and read in a process
of its own.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kvplan.sim.rng import stream
from kvplan.traces.generate import sharegpt
from kvplan.traces.workload import Workload
from kvplan.validate.show import show
from kvplan.validate.verdict import fail

SESSIONS = 25_000
_WORDS = "the model keeps its cache in memory and loads it layer by layer while the prompt is computed, 42 tokens at a time.\n"
_LETTERS_PER_TOKEN = 4


def measure(path: str) -> dict:
    """Reads one file in this process: turns, processor seconds without those of loading the readers, peak memory in bytes."""
    from kvplan import traces

    traces.known_formats()
    started = time.process_time()
    table = traces.read_trace(Path(path))
    seconds = time.process_time() - started
    return {"turns": table.turns, "seconds": seconds, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def run() -> None:
    """Prints the table; fails when a reader lost turns."""
    table = sharegpt.generate(SESSIONS, stream(1, "lengths"))
    code = "import sys, json; from kvplan.validate.benchmarks.reading import measure; print(json.dumps(measure(sys.argv[1])))"
    cells, lost = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, write in FILES.items():
            path = Path(folder) / name
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(write(table))
            size = path.stat().st_size
            out = subprocess.run([sys.executable, "-c", code, str(path)], env={**os.environ}, capture_output=True, text=True, check=True)
            one = json.loads(out.stdout)
            cells.append(
                [
                    name,
                    f"{size / 1e6:,.0f}",
                    f"{one['turns']:,}",
                    f"{size / 1e6 / one['seconds']:.0f}",
                    f"{one['turns'] / one['seconds']:,.0f}",
                    f"{one['peak_bytes'] / 2**20:,.0f}",
                ]
            )
            if one["turns"] != table.turns:
                lost.append(f"{name}: {one['turns']} turns, {table.turns} written")
            path.unlink()
    show("reading traces", ["file", "MB", "turns", "MB/s", "turns/s", "peak MiB"], cells)
    fail(lost, "turns were lost")


def _sharegpt(table: Workload) -> Iterator[str]:
    text = _WORDS * 2000
    comma = "["
    for first, after in zip(table.first_turn, table.first_turn[1:], strict=False):
        messages = []
        for turn in range(first, after):
            for role, tokens in (("human", table.prompt_tokens[turn]), ("gpt", table.output_tokens[turn])):
                messages.append({"from": role, "value": text[: _LETTERS_PER_TOKEN * int(tokens)]})
        yield comma + json.dumps({"id": f"s{first}", "conversations": messages})
        comma = ",\n"
    yield "]"


def _requests(table: Workload) -> Iterator[tuple[int, int, int, int]]:
    """(turn, session, context, answer) in order of time: the n-th turns of all sessions together."""
    context = table.history_tokens + table.prompt_tokens
    for turn in np.argsort(table.turn, kind="stable"):
        yield int(turn), int(table.session[turn]), int(context[turn]), int(table.output_tokens[turn])


def _mooncake(table: Workload) -> Iterator[str]:
    for place, (_, session, context, answer) in enumerate(_requests(table)):
        blocks = [session * 1000 + block for block in range(-(-context // 512))]
        yield json.dumps({"timestamp": place * 500, "input_length": context, "output_length": answer, "hash_ids": blocks}) + "\n"


def _burstgpt(table: Workload) -> Iterator[str]:
    yield "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    for place, (_, session, context, answer) in enumerate(_requests(table)):
        yield f"{place / 2},{session},{answer / 50},m,{context},{answer},{context + answer},Conversation log\n"


def _canonical(table: Workload) -> Iterator[str]:
    yield "session,prompt_tokens,output_tokens,arrival_s\n"
    for place, (turn, session, _, answer) in enumerate(_requests(table)):
        yield f"{session},{table.prompt_tokens[turn]},{answer},{place / 2}\n"


FILES: dict[str, Callable[[Workload], Iterator[str]]] = {
    "sharegpt.json": _sharegpt,
    "mooncake.jsonl": _mooncake,
    "burstgpt.csv": _burstgpt,
    "canonical.csv": _canonical,
}
