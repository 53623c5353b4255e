"""Every command of the README and of docs/ runs as it is printed, from a fresh folder, on small files of the names that they use."""

import re
from importlib.util import find_spec

import printed
import pytest
from printed import GLANCE, README, ROOT

SLOW = (
    "kvplan plan",
    "validate paper",
    "--equal-service",
    "curve",
    "store.eviction=lookahead,lru",
    "h100-80g-x8",
    "engine=vllm",
    "--timeline",
)
"""Ten seconds and more: run by `make readme`; those of the first pages in CI as well, for the worked plans of docs/ take minutes."""
FIRST = [README, GLANCE]
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list:
    """The lines of the pages' blocks that call kvplan, without what is said of them."""
    first = _printed(FIRST)
    others = [command for command in _printed(DOCS) if command not in first]
    return [*_marked(first, pytest.mark.slow), *_marked(others, pytest.mark.minutes)]


def _printed(pages: list[str]) -> list[str]:
    """Once each."""
    return list(dict.fromkeys(command for page in pages for command in printed.commands(page)))


def _marked(commands: list[str], slow: pytest.MarkDecorator) -> list:
    return [pytest.param(each, marks=slow if any(word in each for word in SLOW) else ()) for each in commands]


@pytest.fixture
def folder(tmp_path):
    printed.furnish(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", commands())
def test_a_command_that_is_printed_runs(command, folder):
    for cluster in ("dask", "ray"):
        if f"--cluster {cluster}" in command and find_spec(cluster) is None:
            pytest.skip(f"{cluster} is not installed")
    if command.startswith("kvplan report cmp"):
        first = "kvplan compare --set workload.sessions=20 --vary store.eviction=lru,fifo --replications 1 --out cmp"
        printed.run(first, folder)
    done = printed.run(command, folder)
    assert done.returncode == 0, done.stderr


def test_the_demo_is_the_plan():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^demo:.*\n\t\$\(BIN\)/kvplan plan$", makefile, re.MULTILINE)


def test_what_the_text_names_is_there():
    """Commands in running text: `kvplan validate NAME` names a check that there is."""
    from kvplan.validate.__main__ import CHECKS, COMMANDS

    accuracy = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    named = set(re.findall(r"kvplan validate\s+([a-z]+)", README + accuracy))
    assert named and named <= {*CHECKS, *COMMANDS}


def test_the_readme_counts_what_its_pages_count():
    """Of numbers that others have published, those that hold."""
    pages = [(ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("paper", "published")]
    counts = [re.search(r"\*\*(\d+) of (\d+) published numbers hold", page).groups() for page in pages]
    (hold, of), (others_hold, of_others) = counts
    assert f"Of the paper's {of} numbers {hold} hold, of other systems' {of_others} numbers {others_hold} " in README
