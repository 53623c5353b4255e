"""Mutants: each a small fault in a copy of the package, which the tests named beside it must find. `python tests/mutants/run.py [NAME …]`.

`mutants.yaml` is the list: a file, a text that is in it exactly once, what stands there instead, and the tests. A mutant that lives is a
gap in the tests. By hand, not in CI: some minutes on two cores. Exit code 1 when one lives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import yaml

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("sim", "hwmodels", "traces", "validate")
WORKERS = 2
LONGEST_S = 180
"""A mutant may make a run endless; that is found too."""
_PASSED, _FAILED = 0, 1
"""Exit codes of pytest."""


def listed() -> list[dict]:
    """All mutants: name, file, old, new, tests."""
    return yaml.safe_load((Path(__file__).parent / "mutants.yaml").read_text(encoding="utf-8"))


def mutated(mutant: dict, source: str) -> str:
    """The faulty file. Raises ValueError when the text to replace is not in it exactly once."""
    found = source.count(mutant["old"])
    if found != 1:
        raise ValueError(f"{mutant['name']}: its text is {found} times in {mutant['file']}, not once")
    return source.replace(mutant["old"], mutant["new"])


def copy(folder: Path) -> Path:
    """The package and its tests, as links to folders of copies; nothing of the working tree is ever changed."""
    package = folder / "kvplan"
    shutil.copytree(ROOT / "kvplan", package, ignore=shutil.ignore_patterns("__pycache__"))
    for room in ROOMS:
        shutil.copytree(ROOT / room, package / room, ignore=shutil.ignore_patterns("__pycache__", "cases"))
    (folder / "run").mkdir()
    shutil.copytree(ROOT / "tests", folder / "run" / "tests", ignore=shutil.ignore_patterns("__pycache__", "mutants"))
    shutil.copy(ROOT / "pyproject.toml", folder / "run")
    return folder


def fate(mutant: dict, folder: Path) -> str:
    """`killed`, `survived`, or what went wrong."""
    path = folder / "kvplan" / mutant["file"]
    source = path.read_text(encoding="utf-8")
    path.write_text(mutated(mutant, source), encoding="utf-8")
    try:
        return _judged(_tests(mutant["tests"], folder))
    finally:
        path.write_text(source, encoding="utf-8")


def _tests(names: list[str], folder: Path) -> int | None:
    """Exit code of pytest; None when it took too long. Without bytecode of the copy, which is told apart by seconds only."""
    command = [sys.executable, "-P", "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *names]
    settings = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        done = subprocess.run(command, cwd=folder / "run", env=settings, capture_output=True, timeout=LONGEST_S, check=False)
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


def _judged(code: int | None) -> str:
    if code in (_FAILED, None):
        return "killed"
    return "survived" if code == _PASSED else f"error: pytest ended with {code}"


def main(names: list[str]) -> int:
    """Runs the mutants of these names, or all; prints each and its fate."""
    chosen = [mutant for mutant in listed() if not names or mutant["name"] in names]
    with tempfile.TemporaryDirectory() as place:
        folders = SimpleQueue()
        for worker in range(WORKERS):
            folders.put(copy(Path(place) / str(worker)))

        def one(mutant: dict) -> str:
            folder = folders.get()
            try:
                return fate(mutant, folder)
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(WORKERS) as pool:
            fates = []
            for mutant, found in zip(chosen, pool.map(one, chosen), strict=True):
                fates.append(found)
                print(f"{found:9} {mutant['name']}", flush=True)
    living = sum(found != "killed" for found in fates)
    print(f"{len(fates)} mutants, {living} not killed")
    return 1 if living or not fates else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
