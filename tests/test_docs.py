"""The manual: every command in it prints what stands below it; the reference has all that there is; what is linked is there."""

import os
import re
import sys

import printed
import pytest

ROOT = printed.ROOT
sys.path.insert(0, str(ROOT / "docs" / "_build"))
import reference  # noqa: E402

PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md"))
WITH_OUTPUT = [path for path in PAGES if re.search(r"^```(console|python)", path.read_text(encoding="utf-8"), re.MULTILINE)]
names = lambda path: path.relative_to(ROOT / "docs").as_posix()  # noqa: E731


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_OUTPUT, ids=names)
def test_a_page_prints_what_stands_in_it(path, tmp_path):
    printed.furnish(tmp_path)
    text = path.read_text(encoding="utf-8")
    now = printed.as_printed(text, tmp_path)
    if os.environ.get("KVPLAN_RECORD"):
        path.write_text(now, encoding="utf-8")
    else:
        assert now == text


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_what_is_not_run_needs_what_no_test_has(path):
    """A GPU, a shell that is installed into, or the catalogue that one measured with it."""
    for command in printed.not_run(path.read_text(encoding="utf-8")):
        assert re.match(r"kvplan (validate (measure|fit|peers)|--install-completion|simulate --set catalogue=mybox)", command), command


def test_every_page_has_its_place():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    made = [f"reference/{name}.md" for name in reference.NAMES] + [
        f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")
    ]
    missing = [page for page in [*map(names, PAGES), *made] if page not in nav]
    assert not missing


def test_the_policy_of_the_tutorial_is_the_notebooks():
    tutorial, policy = ((ROOT / page).read_text(encoding="utf-8") for page in ("docs/tutorial.md", "notebooks/largest_first.py"))
    assert f'```python title="mine.py"\n{policy}```' in tutorial


def test_the_reference_has_every_setting_and_command():
    from kvplan.sim.settings import settings

    page = reference.page("settings")
    assert all(f"| `{each.path}` |" in page for each in settings())
    assert all(said in reference.page("commands") for said in ("trace from-prometheus", "--equal-service"))


def test_the_reference_lists_checks_as_the_command_does(capsys):
    from kvplan.validate.__main__ import main

    main(["--list"])
    assert capsys.readouterr().out in reference.page("commands")


def test_the_reference_has_every_key_policy_and_format():
    from kvplan.sim.policies.registry import KINDS, policies
    from kvplan.traces import known_formats

    of_policies, of_formats = reference.page("policies"), reference.page("formats")
    assert all(f"### {name} {{ #{kind}-{name} }}" in of_policies for kind in KINDS for name in policies(kind))
    assert all(f"## {name}\n" in of_formats for name in known_formats())
    assert "| `hit_rate.tokens` |" in reference.page("outputs")


def test_columns_of_turns_have_a_meaning():
    import kvplan
    from kvplan.sim.metrics.schema import TURN_COLUMNS

    config = kvplan.load("default", {"workload.sessions": 3, "workload.clients": {"active": 2}})
    assert set(kvplan.simulate(config).columns) <= set(TURN_COLUMNS)
    blocks = kvplan.load("default", {"workload.sessions": 3, "engine": "vllm", "store.hbm": "1MB", "store.dram": "8GB"})
    assert {"hbm_tokens", "deferrals"} <= set(kvplan.simulate(blocks).columns) <= set(TURN_COLUMNS)


def test_a_shell_completes_presets_and_what_is_listed():
    from kvplan.sim.cli.app import _kinds, _presets

    assert _presets("paper-6") == ["paper-65b"] and _kinds("ev") == ["eviction"] and _presets("my.y") == []
