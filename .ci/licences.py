"""Writes docs/licences.md: what kvplan needs at run time, what that needs, and under which licences, as the installed packages say.

.venv/bin/python .ci/licences.py
"""

import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs" / "licences.md"
HEAD = """# Licences of what kvplan needs

kvplan itself is under Apache-2.0. Written by `.ci/licences.py` from what the installed packages say of themselves; extras and tools for
development are not in it.

| package | version tried | licence |
|---|---|---|
"""

TAIL = """
## Data

| from | licence | what of it is here |
|---|---|---|
| AISimulate 0.13 (NVIDIA), kernel tables | Apache-2.0 | rates in `hwmodels/hardware/` are fitted to them (`NOTICE`) |
| AISimulate 0.13, `silicon_sample.csv` | none said | nothing: `kvplan validate steptimes` reads it from a wheel that the user fetched |
"""


def required(name: str, found: dict) -> dict:
    """Distribution by normalised name, of a package's requirements and theirs, extras left out."""
    for requirement in distribution(name).requires or ():
        other = re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
        if (";" in requirement and "extra" in requirement.partition(";")[2]) or other in found:
            continue
        try:
            found[other] = distribution(other)
        except PackageNotFoundError:  # for another platform
            continue
        required(other, found)
    return found


def licence(package) -> str:
    """SPDX expression, else classifiers, else the first line of the licence field."""
    facts = package.metadata
    classifiers = [text.rpartition(" :: ")[2] for text in facts.get_all("Classifier") or () if text.startswith("License ::")]
    lines = (facts.get("License") or "").strip().splitlines()
    return facts.get("License-Expression") or ", ".join(classifiers) or (lines[0] if lines else "unknown")


def main() -> None:
    """Writes the page anew."""
    rows = [f"| {name} | {package.version} | {licence(package)} |\n" for name, package in sorted(required("kvplan", {}).items())]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(HEAD + "".join(rows) + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
