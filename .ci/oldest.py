"""Prints constraints: every dependency of pyproject.toml, and of the extras named, at the lowest version that it allows.

python .ci/oldest.py test > oldest.txt
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main(extras: list[str]) -> None:
    """One line a dependency; those that are pinned in pyproject.toml stay as they are."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [item for extra in extras for item in project["optional-dependencies"][extra]]
    for requirement in wanted:
        print(re.sub(r"\[.*\]", "", requirement).replace(">=", "=="))


if __name__ == "__main__":
    main(sys.argv[1:])
