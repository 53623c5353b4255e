"""Commands as the manual prints them: found in its blocks, run in a user's folder, held against what stands there.

A `console` block has commands after `$ ` with what it prints below each; `...` stands for lines that are not shown. A block with a title is
a file of that name. Blocks of a page are done in order, in one folder. `KVPLAN_RECORD=1` writes what is printed into the page instead.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from kvplan import traces

ROOT = Path(__file__).resolve().parents[1]
README, GLANCE = ((ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/glance.md"))
_PROMPT = re.compile(r"^\$ (?=kvplan |head )", re.MULTILINE)
"""Programs that are called: `$ per million output tokens` is no command."""
_BLOCK = re.compile(r'^```(?P<kind>\w*)(?: title="(?P<title>[^"]*)")?\n(?P<body>.*?)^```', re.DOTALL | re.MULTILINE)


def furnish(folder: Path) -> None:
    """What a user would have: chats, logs, metrics, a configuration, and the policy of tutorial and notebook."""
    chat = [{"from": "human" if turn % 2 == 0 else "gpt", "value": "words " * (20 + turn)} for turn in range(6)]
    (folder / "sharegpt.json").write_text(json.dumps([{"id": str(number), "conversations": chat} for number in range(40)]))
    (folder / "mooncake.jsonl").write_text(traces.known_formats()["mooncake"].EXAMPLE)
    (folder / "generate_multi_turn.json").write_text(traces.known_formats()["vllm-generator"].EXAMPLE)
    (folder / "log.csv").write_text("user,ts,in,out\n" + "".join(f"u{i % 9},{40 * i},{300 + 99 * (i // 9)},80\n" for i in range(90)))
    (folder / "my.yaml").write_text("workload: {sessions: 100}\n")
    shutil.copy(ROOT / "notebooks" / "largest_first.py", folder / "mine.py")
    (folder / "vllm.json").write_text(json.dumps(_metrics()))
    shutil.copy(ROOT / "notebooks" / "requests.csv", folder)


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


def run(command: str, folder: Path) -> subprocess.CompletedProcess:
    """In a shell, with `kvplan` on its path."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "KVPLAN_GUARDS": "0"}
    return subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


def as_printed(text: str, folder: Path) -> str:
    """A page with all its blocks done, in which each command is followed by what it printed now."""
    return _BLOCK.sub(lambda block: _done(block, folder), text)


def _done(block: re.Match, folder: Path) -> str:
    kind, title, body = block["kind"], block["title"], block["body"]
    if kind == "console":
        return f"```console\n{''.join(_answered(body, folder))}```"
    if title and kind != "text":
        (folder / title).parent.mkdir(parents=True, exist_ok=True)
        (folder / title).write_text(body, encoding="utf-8")
    elif kind == "python":
        done = subprocess.run([sys.executable, "-c", body], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return block[0]


def _answered(body: str, folder: Path):
    before, *entries = _PROMPT.split(body)
    assert not before, f"no command: {before}"
    for entry in entries:
        command, _, said = entry.partition("\n")
        done = run(command, folder)
        assert done.returncode == 0, (command, done.stderr)
        printed = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())
        yield f"$ {command}\n{said if _fits(said, printed) else printed}"


def _fits(said: str, printed: str) -> bool:
    """Whether that is what was printed, with `...` for lines left out."""
    pattern = "".join("(?:.*\n)*?" if line == "..." else f"{re.escape(line)}\n" for line in said.splitlines())
    return re.fullmatch(pattern, printed) is not None


def commands(text: str) -> list[str]:
    """Those of plain blocks, without what is said of them."""
    lines = [line.split("  #")[0].strip() for block in _BLOCK.finditer(text) if not block["kind"] for line in block["body"].splitlines()]
    return [line.removeprefix(".venv/bin/") for line in lines if re.match(r"(\.venv/bin/)?kvplan ", line)]


def not_run(text: str) -> list[str]:
    """Commands of kvplan in `sh` blocks: what takes a GPU, a network, or a shell of one's own."""
    return [
        line.strip()
        for block in _BLOCK.finditer(text)
        if block["kind"] == "sh"
        for line in block["body"].splitlines()
        if line.strip().startswith("kvplan ")
    ]
