"""`kvplan validate fidelity`: one trace through the real mini server and through the simulator, side by side, with errors.

Loads below and above saturation, tight and roomy tiers, look-ahead, LRU and FIFO, open and closed loops. The simulator runs by three
calibrations: by the server's steps and transfers on other traces, served before and after (`training`: the one that counts); by those of
the very run that it is compared with (`own`: what is off then is no matter of timings); and by the case's kernels and transfers timed
alone (`case`). Some scenarios run on the server twice, which shows its noise. Writes fidelity.json, .csv, .png and .html, and the first
calibration as a catalogue, whole or not at all.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from kvplan.sim.config import ConfigError
from kvplan.sim.files import told
from kvplan.sim.files.atomic import WriteError
from kvplan.sim.files.workshop import scratch
from kvplan.sim.simulation import simulate
from kvplan.traces import TraceError
from kvplan.validate.calibration.clock import CLOCKS, maker
from kvplan.validate.calibration.kernels.decoder import Decoder
from kvplan.validate.calibration.kernels.shape import ModelShape
from kvplan.validate.calibration.measure import machine
from kvplan.validate.calibration.measure.record import RecordError, read_header
from kvplan.validate.ending import FAILED, ended
from kvplan.validate.miniserver.fidelity import output, training
from kvplan.validate.miniserver.fidelity.compare import CALIBRATIONS, Pair, explain
from kvplan.validate.miniserver.fidelity.scenarios import SCENARIOS, TEST_SEED, TRAINING_SEED, Bench, Scenario
from kvplan.validate.miniserver.server import MiniServer, Served, serve

CASE = Path(__file__).parents[2] / "cases" / "cascade-lake-2c"
TRAINING = (SCENARIOS[0], SCENARIOS[2])
"""Scenarios on whose configurations, with another seed, the step times and transfers are fitted: before all others, and after."""
_PROBE_SESSIONS = 200
_SLACK = 2.0
"""How much longer a run takes than the simulated server is busy at load 1: smaller batches below saturation, other programs."""


def main(argv: list[str]) -> int:
    """Compares; 0 when done, whatever the errors are; 1 when interrupted, 2 for what cannot be compared."""
    arguments = _parser().parse_args(argv)
    unknown = sorted(set(arguments.only or ()) - {scenario.name for scenario in SCENARIOS})
    if unknown:
        return ended("fidelity", f"no scenario {unknown[0]!r}: see --list")
    if arguments.list:
        print("\n".join(scenario.name for scenario in SCENARIOS))
        return 0
    try:
        _run(arguments, "kvplan validate fidelity " + " ".join(argv))
    except (ConfigError, TraceError, RecordError, ValueError) as error:
        return ended("fidelity", error)
    except WriteError as error:
        return ended("fidelity", error, FAILED)
    except OSError as error:
        return ended("fidelity", told.line(error), told.exit_code(error))
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kvplan validate fidelity", description=__doc__.partition("\n")[0])
    parser.add_argument("--case", type=Path, default=CASE, metavar="DIR", help="measured and fitted machine; default: the packaged one")
    parser.add_argument("--budget", type=float, default=900.0, metavar="SECONDS", help="about so long may it take, on an idle machine")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="`steady` on a shared machine: computing at its usual speed")
    parser.add_argument("--only", action="append", metavar="SCENARIO", help="this one; may come several times")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("--out", type=Path, default=Path("runs/fidelity"), metavar="DIR")
    parser.add_argument("--ssd", type=Path, metavar="DIR", help="where KV files go meanwhile; default: the system's temporary folder")
    return parser


def _run(arguments: argparse.Namespace, command: str) -> None:
    import torch

    output.check_out(arguments.out, arguments.case)
    torch.set_num_threads(1)
    chosen = [scenario for scenario in SCENARIOS if not arguments.only or scenario.name in arguments.only]
    sessions = _sessions(arguments, chosen)
    about = {"command": command, **machine.this_run(), "clock": arguments.clock, "sessions": sessions}
    with scratch(arguments.ssd or Path(tempfile.gettempdir())) as folder:
        catalogue = folder / "catalogue"
        server = _Machine(arguments.case, folder / "kv", arguments.clock)
        trained = server.train(Bench(arguments.case, sessions), 1)
        training.write_catalogue(arguments.case, folder / "first", trained, command)
        bench = Bench(arguments.case, sessions, folder / "first")
        about["capacity_per_s"] = bench.capacity_per_s
        served = [(scenario, [server.run(bench, scenario) for _ in range(1 + scenario.repeated)]) for scenario in chosen]
        trained += server.train(bench, 2)
        about["training_error"] = training.write_catalogue(arguments.case, catalogue, trained, command).mean_error
        pairs = [_pair(bench, scenario, runs, catalogue, folder / f"own-{place}") for place, (scenario, runs) in enumerate(served)]
        about["load_1_min_at_end"] = machine.this_run()["load_1_min"]
        about["direct_io"] = pairs[0].served.direct_io
        output.show(pairs, about)
        output.write_pairs(arguments.out, pairs, about, catalogue)


def _pair(bench: Bench, scenario: Scenario, runs: list[Served], trained: Path, own: Path) -> Pair:
    """Simulates what was served, by each of CALIBRATIONS; `own` gets the catalogue of these very runs."""
    training.write_catalogue(bench.case, own, runs, "these very runs")
    configs = {"training": bench.config(scenario, catalogue=trained), "own": bench.config(scenario, catalogue=own), "case": runs[0].config}
    simulated = {name: simulate(configs[name], runs[0].workload) for name in CALIBRATIONS}
    explained = {name: explain(runs, result) for name, result in simulated.items()}
    return Pair(scenario, runs[0], runs[1] if scenario.repeated else None, simulated, explained)


class _Machine:
    """Serves configurations of one case; the decoder is made once. `files` is made."""

    def __init__(self, case: Path, files: Path, clock: str) -> None:
        header = read_header(case)
        sizes = ModelShape(**next(iter(header["models"].values())))
        decoder = Decoder(sizes, sizes.num_hidden_layers, sizes.torch_dtype)
        self._server = MiniServer(decoder, files, maker(clock, header.get("probe_s")))
        files.mkdir()

    def train(self, bench: Bench, round_: int) -> list[Served]:
        """Serves traces for the fit, others in each round."""
        return [self.run(bench, scenario, TRAINING_SEED + round_) for scenario in TRAINING]

    def run(self, bench: Bench, scenario: Scenario, seed: int = TEST_SEED) -> Served:
        """Serves a scenario's workload."""
        workload, started = bench.workload(scenario, seed), time.monotonic()
        served = serve(bench.config(scenario, seed), workload, self._server)
        about = scenario.name if seed == TEST_SEED else "training"
        print(f"{about}: {workload.turns} turns in {time.monotonic() - started:.0f} s", file=sys.stderr)
        return served


def _sessions(arguments: argparse.Namespace, chosen: list[Scenario]) -> int:
    """Sessions per run, so that all runs together take about the budget."""
    busy_s = Bench(arguments.case, _PROBE_SESSIONS).busy_s / _PROBE_SESSIONS
    loads = [scenario.load for scenario in chosen for _ in range(1 + scenario.repeated)]
    loads += [scenario.load for scenario in 2 * TRAINING]
    idle = [1.0 if arguments.clock == "steady" else max(1.0, 1 / load) for load in loads]
    return max(8, int(arguments.budget / (_SLACK * busy_s * sum(idle))))
