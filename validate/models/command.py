"""Parameters and KV of all known models beside an independent count (`transformers`): `kvplan validate models --help`.

Known are those of the catalogue, and with `--configs` every `*config.json` below a folder. What kvplan refuses is listed with its
reason; what cannot be compared says why.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kvplan.hwmodels import catalogue, strictyaml
from kvplan.hwmodels.catalogue import KINDS
from kvplan.validate.ending import ended
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
        return ended("models", f"there is no folder {arguments.configs}")
    each = (_Model.of(name, path) for name, path in _files(arguments.configs) if arguments.only in name)
    found = [model for model in each if model is not None]
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
    def of(cls, name: str, path: Path) -> "_Model | None":
        """Compared now; None for a file that is of no model."""
        try:
            data = _read(path)
            return None if data is None else cls(name, tuple(compared(data)))
        except strictyaml.YamlError as error:
            return cls(name, refused=str(error).removeprefix(f"{path}: "))
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


def _files(folder: Path | None) -> Iterator[tuple[str, Path]]:
    """(name, file) of every model."""
    yield from ((path.stem, path) for path in sorted(KINDS["model"][1].glob("*.yaml")))
    if folder is not None:
        yield from ((str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*config.json")))


def _read(path: Path) -> dict[str, Any] | None:
    """What it says of a model; None for a file beside one, which says how it is quantised. Raises YamlError."""
    content = strictyaml.load(path)
    if not isinstance(content, dict) or "quantization" in content:
        return None
    return content if path.suffix == ".yaml" else content | {"name": path.stem, "source": str(path), "date": "2026"}
