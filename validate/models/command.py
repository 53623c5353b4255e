"""Parameters and KV of all known models beside an independent count (`transformers`): `kvplan validate models --help`.

Known are those of the catalogue, and with `--configs` every `*config.json` below a folder. What kvplan refuses is listed with its
reason; what cannot be compared says why.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kvplan.hwmodels import catalogue, strictyaml
from kvplan.hwmodels.catalogue import KINDS
from kvplan.validate.models.figures import Figure, compared
from kvplan.validate.show import show

_COLUMNS = ["model", "figure", "ours", "theirs", "difference"]


def main(argv: list[str]) -> int:
    """Prints the table; 1 when a figure differs, 2 for a folder that is none."""
    parser = argparse.ArgumentParser(prog="kvplan validate models", description=__doc__)
    parser.add_argument("--configs", type=Path, metavar="PATH", help="a folder of config.json files, beside the catalogue")
    parser.add_argument("--only", metavar="TEXT", default="", help="models whose name contains this")
    arguments = parser.parse_args(argv)
    if arguments.configs is not None and not arguments.configs.is_dir():
        print(f"kvplan validate models: there is no folder {arguments.configs}", file=sys.stderr)
        return 2
    found = [_Model.of(name, data) for name, data in _files(arguments.configs) if arguments.only in name]
    show("parameters, and KV in 16 bits", _COLUMNS, [row for model in found for row in model.rows])
    for model in found:
        for remark in model.remarks:
            print(f"{model.name}: {remark}")
    differing = sum(model.differs for model in found)
    refused = sum(bool(model.refused) for model in found)
    print(f"{len(found) - refused} models read, {differing} of them with a difference, {refused} refused.")
    return 1 if differing else 0


@dataclass(frozen=True)
class _Model:
    """One model, compared or refused."""

    name: str
    figures: tuple[Figure, ...] = ()
    refused: str = ""

    @classmethod
    def of(cls, name: str, data: dict[str, Any]) -> "_Model":
        """Compared now."""
        try:
            return cls(name, tuple(compared(data)))
        except ValidationError as error:
            return cls(name, refused=catalogue.explain(error))

    @property
    def differs(self) -> bool:
        """In any figure."""
        return any(figure.differs for figure in self.figures)

    @property
    def rows(self) -> list[list[str]]:
        """Its name stands in the first."""
        return [["" if index else self.name, *figure.cells] for index, figure in enumerate(self.figures)]

    @property
    def remarks(self) -> list[str]:
        """Why it was refused, or something not compared, each once."""
        reasons = dict.fromkeys(figure.why for figure in self.figures if figure.why)
        return [f"refused: {self.refused}"] if self.refused else [f"not compared: {why}" for why in reasons]


def _files(folder: Path | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, content) of every model."""
    for path in sorted(KINDS["model"][1].glob("*.yaml")):
        yield path.stem, strictyaml.load(path)
    if folder is None:
        return
    for path in sorted(folder.rglob("*config.json")):
        content = strictyaml.load(path)
        if isinstance(content, dict) and "quantization" not in content:
            yield str(path.relative_to(folder)), content | {"name": path.stem, "source": str(path), "date": "2026"}
