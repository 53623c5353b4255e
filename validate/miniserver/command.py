"""`kvplan validate serve`: serves a configuration's workload with the real mini server on this machine's CPU, in real time.

The configuration is kvplan's own; the model must be small enough for a CPU. Results go to stdout, progress to stderr.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from kvplan.hwmodels.units import format_bytes
from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.files import told
from kvplan.sim.files.workshop import scratch
from kvplan.sim.inputs import load_policies
from kvplan.sim.report import table
from kvplan.traces import TraceError
from kvplan.validate.calibration import clock
from kvplan.validate.calibration.kernels import shape
from kvplan.validate.calibration.kernels.decoder import DTYPES, Decoder
from kvplan.validate.calibration.measure import machine
from kvplan.validate.ending import ended
from kvplan.validate.miniserver.limits import refuse
from kvplan.validate.miniserver.server import MiniServer, Served, serve


def main(argv: list[str]) -> int:
    """Serves; 0 when done, 1 when interrupted, 2 for what cannot be served."""
    arguments = _parser().parse_args(argv)
    try:
        served = _serve(arguments)
    except (ConfigError, TraceError, shape.ShapeError) as error:
        return ended("serve", error)
    except OSError as error:
        return ended("serve", told.line(error), told.exit_code(error))
    except KeyboardInterrupt:
        print("\ninterrupted: threads are joined, KV files are removed", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(served.summary, indent=1))
        return 0
    table.print_comparison(served.summary, None)
    for line in lines(served):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvplan validate serve", description=__doc__.partition("\n")[0])
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a preset or a file, as for kvplan simulate")
    parser.add_argument("--set", action="append", default=[], metavar="path=value", dest="overrides")
    parser.add_argument("--clock", choices=clock.CLOCKS, default="wall", help="`steady` on a shared machine: computing at its usual speed")
    parser.add_argument("--check", type=int, default=0, metavar="N", help="recompute every N-th turn that loaded KV, and compare logits")
    parser.add_argument("--ssd", type=Path, metavar="DIR", help="where KV files go meanwhile; default: the system's temporary folder")
    parser.add_argument("--json", action="store_true", help="print summary.json and nothing else")
    return parser


def _serve(arguments: argparse.Namespace) -> Served:
    import torch

    torch.set_num_threads(1)
    settings = config.load(arguments.config, arguments.overrides)
    load_policies(settings)
    workload = build_workload(settings)
    refuse(settings, workload, resolve(settings, workload))
    sizes = shape.read_shape(_model(settings))
    _check_memory(sizes)
    decoder = Decoder(sizes, sizes.num_hidden_layers, sizes.torch_dtype)
    with scratch(arguments.ssd or Path(tempfile.gettempdir())) as folder:
        return serve(settings, workload, MiniServer(decoder, folder, clock.maker(arguments.clock), arguments.check), _progress)


def _model(settings: Config) -> str:
    """Where the kernels find the model: in the user's catalogue, or among the packaged ones."""
    own = Path(settings.catalogue or "", "models", f"{settings.model}.yaml")
    return str(own) if settings.catalogue and own.exists() else settings.model


def _check_memory(sizes: shape.ModelShape) -> None:
    """Raises ConfigError when the weights would not leave half of the memory free."""
    weights = sizes.num_hidden_layers * sizes.weights_per_layer + 2 * sizes.vocab_size * sizes.hidden_size
    needed, free = weights * DTYPES[sizes.torch_dtype].itemsize, machine.host_free_bytes()
    if needed > free / 2:
        raise ConfigError(
            f"{sizes.name} has {format_bytes(needed)} of weights, and {format_bytes(free)} of memory are free: take a small model"
        )


def _progress(done: int, turns: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} of {turns} turns", end="" if done < turns else "\n", file=sys.stderr)


def lines(served: Served) -> list[str]:
    """What a simulation does not have to say."""
    faults, verifier = served.faults, served.verifier
    busy_s = served.summary["gpu"]["busy_s"]
    found = [
        f"{served.clock} clock; SSD files {'past' if served.direct_io else 'through'} the page cache;"
        f" the server's own work is {served.own_s / busy_s:.1%} of the busy time"
    ]
    if verifier.compared:
        found.append(f"{verifier.compared} turns computed again: logits differ by {verifier.largest_error:.1e} of the largest at most")
    if faults.failed_writes or faults.damaged_sessions:
        found.append(f"survived {faults.failed_writes} failed writes and {faults.damaged_sessions} damaged sessions: {faults.messages[0]}")
    return found
