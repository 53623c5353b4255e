"""Whether a wheel holds all that the source tree has for users, and nothing else: `python .ci/wheel_content.py kvplan-*.whl`."""

import ast
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parents[1]
CLONE_ONLY = ("calibration", "miniserver")
"""Rooms of validate/ that need PyTorch, or real tokenizers."""
DATA = (
    "sim/presets/*.yaml",
    "sim/presets/engines/*.yaml",
    "sim/report/page/page.*",
    "sim/report/page/*.js",
    "validate/cases/paper/**/*.yaml",
    "validate/cases/published/**/*.yaml",
    "hwmodels/hardware/*/*.yaml",
    "hwmodels/models/*.yaml",
    "hwmodels/prices/*.yaml",
    "traces/generate/*.csv",
    "traces/tokens/*.csv",
)


def rooms() -> tuple[str, ...]:
    """Those that setup.py maps."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    return next(ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "ROOMS")


def expected() -> set[str]:
    """The files of the package, as they are named in a wheel."""
    left_out = tuple(f"validate/{room}/" for room in CLONE_ONLY)
    files = {path for room in rooms() for path in (ROOT / room).rglob("*.py")} | {path for pattern in DATA for path in ROOT.glob(pattern)}
    names = {path.relative_to(ROOT).as_posix() for path in files}
    face = {path.relative_to(ROOT).as_posix() for path in (ROOT / "kvplan").rglob("*.py")} | {"kvplan/py.typed"}
    return face | {f"kvplan/{name}" for name in names if not name.startswith(left_out)}


def main(wheel: str) -> int:
    """Prints what is missing and what should not be there. Exit code 1 when there is any."""
    there = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = expected()
    for name in sorted(wanted - there):
        print(f"{wheel}: {name} is missing", file=sys.stderr)
    for name in sorted(there - wanted):
        print(f"{wheel}: {name} should not be there", file=sys.stderr)
    return int(there != wanted)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
