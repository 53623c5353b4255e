"""Which folder is which package: the rooms stay at the top level, and are imported as `kvplan.<room>`.

The list is computed, so that a new folder needs no line here. All else is in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOMS = ("sim", "hwmodels", "traces", "validate")
NOT_SHIPPED = ("calibration*", "miniserver*", "cases*")
"""Rooms of validate/ that need PyTorch, or real tokenizers, and a clone: the bench, and what was measured with it."""

packages = ["kvplan", "kvplan.foreign"]
for room in ROOMS:
    left_out = NOT_SHIPPED if room == "validate" else ()
    packages += [f"kvplan.{room}", *(f"kvplan.{room}.{name}" for name in find_packages(room, exclude=left_out))]

setup(packages=packages, package_dir={"kvplan": "kvplan", **{f"kvplan.{room}": room for room in ROOMS}})
