"""Prints what pyproject.toml requires, the extras named included; with `oldest` each at the lowest version that it allows, for pip's `-c`.

python .ci/requirements.py newest > newest.txt
python .ci/requirements.py oldest test > oldest.txt
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main(age: str, *extras: str) -> None:
    """One line a dependency; those that are pinned in pyproject.toml stay as they are."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"] + [item for extra in extras for item in project["optional-dependencies"][extra]]:
        print(re.sub(r"\[.*\]", "", requirement).replace(">=", "==") if age == "oldest" else requirement)


if __name__ == "__main__":
    main(*sys.argv[1:])
