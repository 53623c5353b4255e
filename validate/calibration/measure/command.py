"""`kvplan validate measure`: times one model's layers, the host link and the SSD of this machine, into a folder.

Points come coarse first; what time is left refines them. Points that the folder already has are kept, so a second model, or the same
command with more time, adds to it. `kvplan validate fit` makes a calibration of the folder.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from pathlib import Path

import torch

from kvplan.sim.files import told
from kvplan.sim.files.atomic import WriteError
from kvplan.sim.files.ours import OutputError, check_folder
from kvplan.sim.files.workshop import scratch
from kvplan.validate.arguments import positive
from kvplan.validate.calibration.clock import CLOCKS, Clock, maker
from kvplan.validate.calibration.datapath.ssdfile import has_direct_io
from kvplan.validate.calibration.datapath.streams import Streams, streams
from kvplan.validate.calibration.kernels import shape
from kvplan.validate.calibration.kernels.decoder import DTYPES, Decoder
from kvplan.validate.calibration.measure import machine
from kvplan.validate.calibration.measure.budget import Budget
from kvplan.validate.calibration.measure.copies import CopyBench
from kvplan.validate.calibration.measure.drives import DriveBench
from kvplan.validate.calibration.measure.overlap import SMALL, Job, OverlapBench
from kvplan.validate.calibration.measure.record import KIND, Record, RecordError
from kvplan.validate.calibration.measure.steps import StepBench
from kvplan.validate.calibration.measure.task import LEVELS, Task
from kvplan.validate.calibration.speed import Speed
from kvplan.validate.ending import FAILED, ended


def main(argv: list[str]) -> int:
    """Measures; 0 when done or out of time, 1 when interrupted or not written, 2 for what cannot be measured."""
    arguments = _parser().parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        return ended("measure", "PyTorch finds no CUDA device here: use --device cpu")
    try:
        return _measure(arguments)
    except (shape.ShapeError, RecordError, OutputError) as error:
        return ended("measure", error)
    except WriteError as error:
        return ended("measure", error, FAILED)
    except OSError as error:
        return ended("measure", told.line(error), told.exit_code(error))
    except KeyboardInterrupt:
        print("\ninterrupted; what was measured is kept, and the same command goes on", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvplan validate measure", description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--model", required=True, help="a catalogue name, or a path to a config.json")
    parser.add_argument("--layers", type=positive, help="decoder layers to run, all alike; default: those of the model")
    parser.add_argument("--budget", type=float, default=240.0, metavar="SECONDS", help="time that measuring may take, building included")
    parser.add_argument("--dtype", choices=tuple(DTYPES), help="default: the model's own")
    parser.add_argument("--window", type=positive, default=8192, help="context of at most so many tokens, or the model's")
    parser.add_argument("--max-batch", type=positive, default=32, help="decode batches up to this")
    parser.add_argument("--threads", type=positive, help="CPU threads that compute; default on cpu: all cores but one, which moves data")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="on cpu; `steady` on a shared machine, 1 thread")
    parser.add_argument("--out", type=Path, default=Path("runs/measured"), metavar="DIR")
    parser.add_argument("--ssd", type=Path, metavar="DIR", help="where the drive's test file goes; default: --out")
    return parser


def _measure(arguments: argparse.Namespace) -> int:
    budget = Budget(arguments.budget)
    check_folder(arguments.out, KIND)
    sizes = shape.read_shape(arguments.model)
    dtype = arguments.dtype or sizes.torch_dtype
    if dtype not in DTYPES:
        raise shape.ShapeError(f"{sizes.name} has dtype {dtype}: give --dtype {' or '.join(DTYPES)}")
    if arguments.device == "cpu":
        torch.set_num_threads(arguments.threads or max(1, torch.get_num_threads() - 1))
    if arguments.clock == "steady" and (arguments.device != "cpu" or torch.get_num_threads() > 1):
        raise RecordError("--clock steady counts one thread: it goes with --device cpu --threads 1")
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(arguments.ssd or arguments.out))
        direct = has_direct_io(folder)
        identity = machine.identity(arguments.device, folder, direct) | {"clock": arguments.clock}
        record = Record(arguments.out, identity, machine.this_run())
        record.add_model(sizes.name, asdict(sizes))
        ticking = _clock(arguments.clock, record)
        three = stack.enter_context(streams(arguments.device, ticking))
        benches: list[Callable] = [
            *_benches_of(arguments, sizes, dtype, three, ticking),
            cache(lambda: CopyBench(arguments.device, three)),
            cache(lambda: DriveBench(folder, direct)),
        ]
        return _run(_tasks(benches), record, budget)


def _clock(name: str, record: Record) -> Clock:
    """A clock of that name; all steady ones of a record mean the same speed."""
    usual_s = record.settle("probe_s", lambda: Speed().usual_s) if name == "steady" else None
    return maker(name, usual_s)()


def _benches_of(arguments: argparse.Namespace, sizes: shape.ModelShape, dtype: str, three: Streams, clock: Clock) -> list[Callable]:
    """What makes the benches of the model, which share one decoder; it is made when the first point of it is due."""
    window = min(arguments.window, sizes.max_position_embeddings)
    job = Job() if arguments.device == "cuda" else SMALL
    positions = max(window, job.history + job.new, job.prompt + job.steps) + 1
    layers = arguments.layers or sizes.num_hidden_layers

    @cache
    def decoder() -> Decoder:
        return Decoder(sizes, layers, dtype, arguments.device, positions)

    return [
        cache(lambda: StepBench(decoder(), dtype, window, arguments.max_batch, clock)),
        cache(lambda: OverlapBench(decoder(), dtype, three, job, clock)),
    ]


def _tasks(benches: list[Callable]) -> Iterator[Task]:
    """All points of all benches, level by level."""
    for level in range(LEVELS):
        for bench in benches:
            yield from bench().tasks(level)


def _run(tasks: Iterator[Task], record: Record, budget: Budget) -> int:
    """Measures what is new and fits into the budget. A point that did not fit is asked for again at every finer level."""
    measured, left_out = 0, set()
    for task in tasks:
        point = (task.quantity, *task.parameters.values())
        if record.has(task):
            continue
        if not budget.allows(task):
            left_out.add(point)
            continue
        try:
            timing = task.measure(budget.per_point_s)
        except torch.OutOfMemoryError:
            print(f"{task.quantity:8} {_place(task):44} does not fit into GPU memory: left out", file=sys.stderr)
            continue
        record.add(task, timing)
        budget.learn(task, timing.median_s)
        left_out.discard(point)
        measured += 1
        spread = (timing.q75_s - timing.q25_s) / timing.median_s
        found = f"{timing.median_s * 1e3:10.3f} ms  spread {spread:5.1%}"
        print(f"{task.quantity:8} {_place(task):44} {found}  {budget.left_s:4.0f} s left", file=sys.stderr)
    print(f"{measured} points measured, {len(left_out)} left out for time", file=sys.stderr)
    return 0


def _place(task: Task) -> str:
    """What tells a point from the others of its quantity."""
    return " ".join(f"{name}={value}" for name, value in task.parameters.items() if name not in ("model", "dtype", "layers"))
