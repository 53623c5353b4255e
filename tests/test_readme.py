"""Every command of the README and of docs/ runs as it is printed, from a fresh folder, on small files of the names that they use."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kvplan import traces

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SLOW = ("kvplan plan", "validate paper", "--equal-service", "curve", "store.eviction=lookahead,lru", "h100-80g-x8")
"""Ten seconds and more: run by `make readme`; those of the README in CI as well, for the worked plans of docs/ take minutes."""
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list:
    """The lines of the pages' blocks that call kvplan, without what is said of them."""
    return [*_commands([README], pytest.mark.slow), *_commands(DOCS, pytest.mark.minutes)]


def _commands(pages: list[str], slow: pytest.MarkDecorator) -> list:
    blocks = [block for page in pages for block in re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE)]
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    found = [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?kvplan ", line)]
    return [pytest.param(each, marks=slow if any(word in each for word in SLOW) else ()) for each in found]


@pytest.fixture
def folder(tmp_path):
    """What a user would have: a ShareGPT file, a log, metrics, a configuration, and the policy of the README."""
    chat = [{"from": "human" if turn % 2 == 0 else "gpt", "value": "words " * (20 + turn)} for turn in range(6)]
    (tmp_path / "sharegpt.json").write_text(json.dumps([{"id": str(number), "conversations": chat} for number in range(40)]))
    (tmp_path / "mooncake.jsonl").write_text(traces.known_formats()["mooncake"].EXAMPLE)
    (tmp_path / "generate_multi_turn.json").write_text(traces.known_formats()["vllm-generator"].EXAMPLE)
    (tmp_path / "log.csv").write_text("user,ts,in,out\n" + "".join(f"u{i % 9},{40 * i},{300 + 99 * (i // 9)},80\n" for i in range(90)))
    (tmp_path / "my.yaml").write_text("workload: {sessions: 100}\n")
    (tmp_path / "mine.py").write_text(re.search(r"```python\n(# mine.py.*?)```", README, re.DOTALL).group(1))
    (tmp_path / "vllm.json").write_text(json.dumps(_metrics()))
    return tmp_path


def _metrics() -> dict:
    """Two moments of vLLM's counters, as Prometheus' HTTP API gives them."""
    names = {
        "vllm:request_success_total": (100, 700),
        "vllm:request_prompt_tokens_sum": (1e5, 8e5),
        "vllm:request_prompt_tokens_count": (100, 700),
        "vllm:request_generation_tokens_sum": (2e4, 1.6e5),
        "vllm:request_generation_tokens_count": (100, 700),
    }
    rows = [{"metric": {"__name__": name}, "values": [[0, str(a)], [600, str(b)]]} for name, (a, b) in names.items()]
    return {"status": "success", "data": {"resultType": "matrix", "result": rows}}


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_printed_runs(command, folder):
    for cluster in ("dask", "ray"):
        if f"--cluster {cluster}" in command and find_spec(cluster) is None:
            pytest.skip(f"{cluster} is not installed")
    if command.startswith("kvplan report cmp"):
        first = "kvplan compare --set workload.sessions=20 --vary store.eviction=lru,fifo --replications 1 --out cmp"
        _run(first, folder)
    done = _run(command, folder)
    assert done.returncode == 0, done.stderr


def _run(command: str, folder: Path) -> subprocess.CompletedProcess:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "KVPLAN_GUARDS": "0"}
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_demo_is_the_plan():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/kvplan plan$", makefile, re.MULTILINE)


def test_what_the_text_names_is_there():
    """Commands in running text: `kvplan validate NAME` names a check that there is."""
    from kvplan.validate.__main__ import CHECKS, COMMANDS

    named = set(re.findall(r"kvplan validate\s+([a-z]+)", README))
    assert named and named <= {*CHECKS, *COMMANDS}
