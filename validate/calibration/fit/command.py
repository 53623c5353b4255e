"""`kvplan validate fit`: a calibration from the folder that `measure` wrote, and how far it is off.

Writes into the folder a catalogue that `kvplan simulate --set catalogue=DIR --set hardware=NAME` takes, and prints the
cross-validated error of every quantity over the span that was measured.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from kvplan.sim.files.atomic import WriteError
from kvplan.validate.calibration.fit import pipeline
from kvplan.validate.calibration.fit.entries import Entries, write_entry
from kvplan.validate.calibration.fit.links import FittedLink, fastest, fit_links
from kvplan.validate.calibration.fit.steps import FittedModel, Rows, fit_model
from kvplan.validate.calibration.measure.record import RecordError, read_header, read_rows
from kvplan.validate.ending import FAILED, ended


def main(argv: list[str]) -> int:
    """Fits; 0 when done, 1 when the result cannot be written, 2 when the folder does not hold what is needed."""
    parser = argparse.ArgumentParser(prog="kvplan validate fit", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `kvplan validate measure --out` wrote")
    parser.add_argument("--name", help="of the hardware entry; default: the folder's name")
    parser.add_argument("--gpu", help="the catalogue's GPU that this machine has; default: an entry made of what was measured")
    parser.add_argument("--usd-per-h", type=float, help="rent of the machine; writes a price list of the machine's name")
    arguments = parser.parse_args(argv)
    try:
        _fit(arguments, "kvplan validate fit " + " ".join(argv))
    except (ValueError, RecordError) as error:
        return ended("fit", f"{arguments.folder}: {error}")
    except WriteError as error:
        return ended("fit", error, FAILED)
    return 0


def _fit(arguments: argparse.Namespace, source: str) -> None:
    from kvplan.validate.show import show

    folder, name = arguments.folder, arguments.name or arguments.folder.resolve().name
    header = read_header(folder)
    models = [_model(folder, header, *key) for key in _measured_models(folder)]
    if not models:
        raise ValueError("there are no prefill and decode points: measure first")
    copies = fit_links(read_rows(folder, "copy"), "direction", "memory")
    drives = fit_links(read_rows(folder, "ssd"), "direction", "queue_depth")
    (_, memory), to_device = fastest(copies, "to_device")
    to_host = copies["to_host", memory]
    (_, read_depth), reading = fastest(drives, "read")
    (_, write_depth), writing = fastest(drives, "write")
    gpu = arguments.gpu or name
    entries = Entries(name, header, source, header["runs"][-1]["date"][:7])
    made = {
        "calibration": entries.calibration(models),
        "link": entries.link(to_device, to_host, memory),
        "ssd": entries.ssd(reading, writing, read_depth, write_depth),
        "node": entries.node(gpu),
    }
    if arguments.gpu is None:
        made["gpu"] = entries.gpu(max(models, key=lambda fitted: fitted.coefficients["per_token"]))
    if arguments.usd_per_h is not None:
        made["prices"] = entries.prices(gpu, arguments.usd_per_h)
    columns = ["quantity", "points", "measured", "mean error", "largest error"]
    show(f"{name}: cross-validated errors", columns, [*_step_rows(models), *_link_rows(copies, "copy"), *_link_rows(drives, "ssd")])
    _show_overlap(read_rows(folder, "overlap"), read_rows(folder, "saving"))
    for kind, entry in made.items():
        print(f"wrote {write_entry(folder, kind, entry)}", file=sys.stderr)


def _measured_models(folder: Path) -> list[tuple[str, str]]:
    """(model, dtype) of everything that has decode points, in the order of measuring."""
    return list(dict.fromkeys((row["model"], row["dtype"]) for row in read_rows(folder, "decode")))


def _model(folder: Path, header: dict, model: str, dtype: str) -> FittedModel:
    def rows(quantity: str) -> Rows:
        return [row for row in read_rows(folder, quantity) if (row["model"], row["dtype"]) == (model, dtype)]

    layers = header["models"][model]["num_hidden_layers"]
    return fit_model(model, dtype, layers, rows("prefill"), rows("decode"), rows("head"))


def _step_rows(models: list[FittedModel]) -> Iterator[list[str]]:
    for fitted in models:
        for quantity, spans in (("prefill", ("new", "history")), ("decode", ("batch", "context"))):
            errors = fitted.errors[quantity]
            measured = ", ".join(f"{span} {fitted.spans[span][0]:,} to {fitted.spans[span][1]:,}" for span in spans)
            yield [f"{fitted.model} {fitted.dtype} {quantity}", str(len(errors.errors)), measured, *_errors(errors)]


def _link_rows(links: dict[tuple[str, ...], FittedLink], quantity: str) -> Iterator[list[str]]:
    for key, link in links.items():
        speed = f"{link.bandwidth / 1e9:.3g} GB/s + {link.latency_s * 1e6:.3g} us"
        yield [f"{quantity} {' '.join(key)}", str(len(link.fit.errors)), speed, *_errors(link.fit)]


def _errors(fit) -> list[str]:
    return [f"{fit.mean_error:.1%}", f"{fit.largest_error:.1%}"]


def _show_overlap(overlap: Rows, saving: Rows) -> None:
    from kvplan.validate.show import show

    cells = [[name, f"{1e3 * seen:.4g}", f"{1e3 * said:.4g}", f"{said / seen - 1:+.1%}"] for name, seen, said in pipeline.compared(overlap)]
    if cells:
        show(
            "Prefill with layer-wise loading, ms, and the pipeline in closed form",
            ["read buffer", "measured", "predicted", "error"],
            cells,
        )
    cells = [[f"{row['model']} {row['saving']}", f"{1e3 * float(row['median_s']):.4g}"] for row in saving]
    if cells:
        show("Prefill and decode steps by how KV is saved, ms", ["saving", "measured"], cells)
