"""What is published is told in several files that must agree: no image and no package is built here (`make dist`, `.ci/wheel`)."""

import json
import re
import tomllib
from pathlib import Path

from printed import README, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
LINES = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]


def said(keyword: str) -> list[str]:
    """What follows a word in the Dockerfile, in order."""
    return [rest for word, rest in LINES if word == keyword]


def test_the_stages_of_the_image_have_one_python():
    """A virtual environment that is copied links to the interpreter of the same version, in the same place."""
    assert len({re.fullmatch(r"python:(\d\.\d+)(-slim)?( AS \w+)?", each).group(1) for each in said("FROM")}) == 1


def test_what_the_image_copies_is_there():
    own = [rest.split()[:-1] for rest in said("COPY") if not rest.startswith("--from")]
    assert own == [["."]] and (ROOT / "constraints.txt").is_file() and "-c constraints.txt" in said("RUN")[0]
    (made, used) = next(rest.removeprefix("--from=build ").split() for rest in said("COPY") if rest.startswith("--from=build"))
    assert made == used and f"venv {made} " in said("RUN")[0] and said("ENV")[0].startswith(f"PATH={used}/bin:")


def test_the_image_runs_kvplan():
    assert json.loads(said("ENTRYPOINT")[0]) == list(PROJECT["project"]["scripts"])
    assert "docker build ." in README


def test_nothing_of_a_commit_is_kept_from_the_image():
    """A file of the repository that the image does not get would make its tree a changed one, and its version that of no tag."""
    assert ".git" not in names(".dockerignore") and names(".dockerignore") <= names(".gitignore")


def names(file: str) -> set[str]:
    """What a list of ignored files names, wherever it lies."""
    return {line.removeprefix("**/").rstrip("/") for line in (ROOT / file).read_text(encoding="utf-8").split()}


def test_a_build_without_isolation_has_what_the_build_requires():
    """The compiled one: its environment is set up by the extra, and in CI by name."""
    required = set(PROJECT["build-system"]["requires"])
    assert required <= set(PROJECT["project"]["optional-dependencies"]["compile"])
    assert all(f'"{name}"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8") for name in required)


def test_the_version_is_that_of_the_tag():
    """In a clone by git, in an archive of one by the file whose fields git fills in."""
    assert "version" in PROJECT["project"]["dynamic"] and "setuptools_scm" in PROJECT["tool"]
    archived = dict(line.split(": ", 1) for line in (ROOT / ".git_archival.txt").read_text(encoding="utf-8").splitlines())
    assert set(archived) == {"node", "node-date", "describe-name"}
    assert ".git_archival.txt export-subst" in Path(ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
