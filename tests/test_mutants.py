"""The list of mutants: each still fits the code, and the tests that must kill it exist. Run them by `make mutants`."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _runner():
    spec = importlib.util.spec_from_file_location("run_mutants", ROOT / "tests" / "mutants" / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RUNNER = _runner()
MUTANTS = RUNNER.listed()


def test_there_are_many_and_each_has_its_name():
    assert len(MUTANTS) >= 40 and len({mutant["name"] for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant["file"].split("/")[1] for mutant in MUTANTS} >= {"engine", "store", "metrics", "policies", "cost.py", "analytic"}


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant["name"] for mutant in MUTANTS])
def test_each_fits_the_code_and_names_tests_that_exist(mutant):
    source = (ROOT / mutant["file"]).read_text(encoding="utf-8")
    faulty = ast.parse(RUNNER.mutated(mutant, source))
    assert ast.dump(faulty) != ast.dump(ast.parse(source))
    for name in mutant["tests"]:
        path, _, test = name.partition("::")
        if path.startswith("tests/"):
            assert test in (ROOT / path).read_text(encoding="utf-8")


def test_a_text_that_is_not_there_once_is_refused():
    for source in ("", "x = 1; x = 1"):
        with pytest.raises(ValueError, match="not once"):
            RUNNER.mutated({"name": "twice", "file": "f", "old": "x = 1", "new": "x = 2"}, source)


def test_fates():
    assert [RUNNER._judged(code) for code in (1, None, 0)] == ["killed", "killed", "survived"]
    assert RUNNER._judged(4) == "error: pytest ended with 4"
