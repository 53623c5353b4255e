"""Which folder is which package: the rooms stay at the top level, and are imported as `kvplan.<room>`.

The list is computed, so that a new folder needs no line here. All else is in pyproject.toml.

With KVPLAN_COMPILED=1 what runs for every turn is compiled by mypyc, from the same source: that needs a C compiler, and what the extra
`compile` names. Without it, no more than setuptools.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import find_packages, setup

ROOMS = ("sim", "hwmodels", "traces", "validate")
NOT_SHIPPED = ("calibration*", "miniserver*", "cases*")
"""Rooms of validate/ that need PyTorch, or real tokenizers, and a clone: the bench, and what was measured with it."""
COMPILED = (
    "sim/engine/*.py",
    "sim/store/**/*.py",
    "sim/policies/**/*.py",
    "sim/metrics/r*.py",
    "sim/knowledge.py",
    "sim/tiers.py",
    "hwmodels/steptime.py",
    "hwmodels/hosttime.py",
    "hwmodels/footprint.py",
    "hwmodels/connector.py",
    "traces/blockkeys.py",
)
INTERPRETED = ("__init__.py", "clock.py", "guards.py", "blockguards.py", "registry.py", "supervise.py", "sketch.py", "wtinylfu.py")
"""Of those: what inherits from SimPy's classes, makes classes, or looks into any that it is given; and what the compiler fails at."""
HERE = Path(__file__).parent.resolve()
MYPY = """
[mypy]
follow_imports = skip
ignore_missing_imports = True
disable_error_code = annotation-unchecked,return-value
[mypy-kvplan.sim.deployment,kvplan.sim.config,kvplan.sim.metrics.output,kvplan.sim.engine.clock,kvplan.traces.context]
follow_imports = silent
[mypy-numpy.*,pandas.*]
follow_imports = skip
follow_imports_for_stubs = True
"""
"""Types of little more than what is compiled, in seconds: `make lint` checks all, and functions for several types more than once."""


def extensions() -> list:
    """All as one library. The compiler reads names of modules from paths, so it works in a tree of links that has them."""
    if os.environ.get("KVPLAN_COMPILED", "0") == "0" or not {"build_ext", "bdist_wheel"}.intersection(sys.argv):
        return []
    from mypyc.build import mypycify

    chosen = sorted({path for pattern in COMPILED for path in Path().glob(pattern) if path.name not in INTERPRETED})
    with TemporaryDirectory() as links:
        config = Path(links) / "mypy.ini"
        config.write_text(MYPY)
        tree = Path(links) / "kvplan"
        tree.mkdir()
        for name, place in {"__init__.py": "kvplan/__init__.py", **{room: room for room in ROOMS}}.items():
            (tree / name).symlink_to(HERE / place)
        os.chdir(links)
        try:
            return mypycify(
                [f"--config-file={config}", *(f"kvplan/{path}" for path in chosen)],
                opt_level="1",
                debug_level="0",
                multi_file=True,
                group_name="kvplan",
                target_dir=str(HERE / "build" / "compiled"),
            )
        finally:
            os.chdir(HERE)


packages = ["kvplan", "kvplan.foreign"]
for room in ROOMS:
    left_out = NOT_SHIPPED if room == "validate" else ()
    packages += [f"kvplan.{room}", *(f"kvplan.{room}.{name}" for name in find_packages(room, exclude=left_out))]

setup(packages=packages, package_dir={"kvplan": "kvplan", **{f"kvplan.{room}": room for room in ROOMS}}, ext_modules=extensions())
