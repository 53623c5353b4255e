"""A result says what it came of: the same things say the same, other things of the same name do not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from kvplan.hwmodels import catalogue
from kvplan.sim import config, provenance
from kvplan.sim.build_workload import build_workload
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.digest import digest

HEAD = "session,prompt_tokens,output_tokens,arrival_s,gap_s\n"
POLICY = '''
from kvplan.sim.policies.eviction.lru import Lru

class Mine(Lru):
    """{words}"""
    NAME = "mine"
'''


def told(*overrides) -> dict:
    return simulate(config.load(None, ["workload.sessions=5", *overrides])).summary["provenance"]


def differing(one: dict, other: dict) -> set[str]:
    return {key for key in one if one[key] != other[key]}


def test_two_runs_of_the_same_thing_are_the_same_to_the_byte():
    first, second = (json.dumps(simulate(config.load(None, ["workload.sessions=20"])).summary) for _ in range(2))
    assert first == second


def test_two_traces_of_one_name(tmp_path):
    path = tmp_path / "t.csv"
    found = []
    for tokens in (11, 12, 11):
        path.write_text(f"{HEAD}0,{tokens},10,0.0,0.0\n")
        found.append(told(f"workload.trace={path}"))
    assert differing(*found[:2]) == {"files_sha256", "turns_sha256"} and found[0] == found[2]
    path.write_text(f"{HEAD}0,11,10,0.0,0.0\n\n")
    assert differing(found[0], told(f"workload.trace={path}")) == {"files_sha256"}  # other bytes, the same turns


def test_two_policies_of_one_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for words in ("One.", "Another."):
        (tmp_path / "policy_that_changes.py").write_text(POLICY.format(words=words))
        found.append(told("store.eviction=policy_that_changes:Mine"))
    assert differing(*found) == {"policies_sha256"} and set(found[0]["policies_sha256"]) == {"store.eviction"}


def test_two_catalogue_entries_of_one_name(tmp_path):
    folder = tmp_path / "prices"
    folder.mkdir()
    text = (catalogue.KINDS["prices"][1] / "paper-2024.yaml").read_text().replace("paper-2024", "ours")
    found = []
    for usd in ("value: 5,", "value: 6,"):
        (folder / "ours.yaml").write_text(text.replace("value: 5,", usd))
        found.append(told(f"catalogue={tmp_path}", "prices=ours"))
    assert differing(*found) == {"catalogue_sha256"}


def test_two_tokenizers_of_one_name(tmp_path):
    """Its content counts, whether or not the tokens come out differently."""
    (tmp_path / "t.csv").write_text(f"{HEAD}0,11,10,0.0,0.0\n")
    loaded = config.load(None, [f"workload.trace={tmp_path / 't.csv'}"])
    workload = build_workload(loaded)
    loaded = loaded.model_copy(update={"workload": loaded.workload.model_copy(update={"tokenizer": str(tmp_path / "tokenizer.json")})})
    found = []
    for text in ("{}", "{ }"):
        (tmp_path / "tokenizer.json").write_text(text)
        found.append(provenance.provenance(loaded, workload))
    assert differing(*found) == {"files_sha256"}


def test_turns_that_are_given_count_by_their_content(workload):
    loaded = config.load(None, [])
    tables = [workload([[(10, 10), (20, 10)]]), workload([[(10, 10)], [(20, 10)]]), workload([[(10, 10), (20, 10)]], gap_s=1.0)]
    assert len({provenance.provenance(loaded, table)["turns_sha256"] for table in tables}) == 3


def test_a_file_that_is_gone_spoils_no_result(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"{HEAD}0,11,10,0.0,0.0\n")
    loaded = config.load(None, [f"workload.trace={path}"])
    workload = build_workload(loaded)
    path.unlink()
    found = simulate(loaded, workload).summary["provenance"]
    assert "files_sha256" not in found and found["turns_sha256"]


def test_a_sweep_names_its_runs_by_the_same_content(tmp_path):
    path = tmp_path / "t.csv"
    names = set()
    for tokens in (11, 12, 11):
        path.write_text(f"{HEAD}0,{tokens},10,0.0,0.0\n")
        names.add(digest(config.load(None, [f"workload.trace={path}"])))
    assert len(names) == 2


@pytest.mark.parametrize(
    ("url", "commit"),
    [('{"url": "…", "vcs_info": {"vcs": "git", "commit_id": "abc"}}', "abc"), ('{"url": "…", "dir_info": {}}', None), (None, None)],
)
def test_the_commit_of_what_pip_installed(tmp_path, monkeypatch, url, commit):
    monkeypatch.setattr(provenance, "hwmodels", SimpleNamespace(__file__=str(tmp_path / "kvplan" / "hwmodels" / "__init__.py")))
    monkeypatch.setattr(provenance.metadata, "distribution", lambda name: SimpleNamespace(read_text=lambda file: url))
    assert provenance.commit.__wrapped__() == commit


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "hwmodels", SimpleNamespace(__file__=str(tmp_path / "hwmodels" / "__init__.py")))
    assert provenance.commit.__wrapped__() is None  # no repository
    monkeypatch.setenv("PATH", "")
    assert provenance.commit.__wrapped__() is None  # no git


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("report/plan.py", False),
        ("cli/app.py", False),
        ("engine/replica.py", True),
        ("sweep/measures.py", True),
        ("planner/probe.py", True),
    ],
)
def test_a_word_in_a_report_or_in_help_makes_no_other_run(file, counts, tmp_path, monkeypatch):
    own = Path(provenance.sim.__file__).parent
    shutil.copytree(own, tmp_path / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(provenance, "sim", SimpleNamespace(__file__=str(tmp_path / "sim" / "__init__.py")))
    before = provenance.code.__wrapped__()
    with (tmp_path / "sim" / file).open("a") as changed:
        changed.write("# another word\n")
    assert (provenance.code.__wrapped__() != before) == counts


def test_no_run_imports_what_only_prints_or_is_slow_to_load():
    code = (
        "import sys, kvplan, kvplan.sim.sweep.runs, kvplan.sim.planner.probe, kvplan.sim.sweep.pool;"
        "kvplan.simulate(kvplan.load('default', ['workload.sessions=5']));"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    printing = tuple(f"kvplan.sim.{name.removesuffix('.py')}" for name in provenance.WORDS)
    assert "kvplan.sim.simulation" in loaded and not [name for name in loaded if name.startswith(printing)]
    assert not {"scipy", "pandas", "pyarrow", "joblib", "matplotlib", "rich", "typer", "asyncio"} & set(loaded)
