"""Several servers: a batch whose steps all take the same time, as a calibration may say, serves each of its c jobs as if it were alone.

A turn with an answer of m tokens then takes m steps, whoever else is there, and c slots are c servers, but for two things that vanish as
answers grow longer: the prefill of a turn is a step in which the others stand still, and a turn that comes waits for the end of a step.
The first makes service longer in the mean by as many steps as others run when a turn is admitted, and is part of what is expected; the
second, a step at most, is in the margin.

Sources: Erlang 1917 (M/M/c), in Kleinrock, Queueing Systems I, 1975, section 3.5; Kiefer and Wolfowitz, Trans. AMS 78, 1955.
"""

import math
import tempfile
from pathlib import Path

import numpy as np
import yaml

from kvplan.hwmodels import catalogue, kvsize
from kvplan.hwmodels.steptime import COEFFICIENTS
from kvplan.sim import config
from kvplan.sim.config import Config
from kvplan.sim.rng import stream
from kvplan.sim.simulation import simulate
from kvplan.validate.checks.oracles.queues import NO_STORE, kiefer_wolfowitz, single_turns
from kvplan.validate.verdict import Finding, averaged

MODEL, STEP_S, MEAN_STEPS = "llama-3.1-8b", 0.01, 1000
SERVERS, LOADS = 4, (0.5, 0.8)
TURNS, WARM, REPLICATIONS = 12_000, 3_000, 16


def waits_against_erlang() -> list[Finding]:
    """Mean waits and chances to wait against Erlang's formula, and the mean wait against the recursion on the same turns."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        settings = _even(Path(folder))
        for load in LOADS:
            found += _findings(settings, load)
    return found


def _findings(settings: Config, load: float) -> list[Finding]:
    rate = load * SERVERS / (MEAN_STEPS * STEP_S)
    mean_s = STEP_S * (MEAN_STEPS + others_running(SERVERS, load * SERVERS))
    slower = mean_s / (MEAN_STEPS * STEP_S)
    waits, waited, apart = [], [], []
    for replication in range(REPLICATIONS):
        rng = stream(replication, f"servers {load}")
        output = rng.geometric(1 / MEAN_STEPS, TURNS)
        table = single_turns(np.ones(TURNS, dtype=int), output, np.cumsum(rng.exponential(1 / rate, TURNS)))
        wait = (simulate(settings, table).columns["admitted_s"] - table.arrival_s)[WARM:]
        starts = kiefer_wolfowitz(table.arrival_s, output * STEP_S * slower, SERVERS)
        waits.append(float(wait.mean()))
        waited.append(float(np.mean(wait > STEP_S)))
        apart.append(float(wait.mean() - (starts - table.arrival_s)[WARM:].mean()))
    chance = erlang_c(SERVERS, rate * mean_s)
    expected = chance * mean_s / (SERVERS - rate * mean_s)
    name, number = f"M/M/{SERVERS}, load {load}", 3 * len(LOADS)
    return [
        averaged(f"{name}: mean wait, s", expected, "Erlang C", waits, number, STEP_S),
        averaged(f"{name}: share that waits", chance, "Erlang C; Wolff", waited, number, STEP_S / mean_s),
        averaged(f"{name}: mean wait - that of the recursion, s", 0.0, "Kiefer-Wolfowitz", apart, number, STEP_S),
    ]


def erlang_c(servers: int, offered: float) -> float:
    """The chance that a customer of M/M/c waits; `offered` is rate x mean service, less than `servers`."""
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return last / (sum(terms) + last)


def others_running(servers: int, offered: float) -> float:
    """How many others are served, in the mean, when a customer of M/M/c begins: those that it finds, or all but one when it has waited."""
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    found = sum(k * term for k, term in enumerate(terms)) / sum(terms)
    waits = erlang_c(servers, offered)
    return waits * (servers - 1) + (1 - waits) * found


def _even(folder: Path) -> Config:
    """A server of SERVERS slots whose steps all take STEP_S; its catalogue is written to `folder`."""
    model = catalogue.load("model", MODEL)
    node = yaml.safe_load((catalogue.KINDS["node"][1] / "h100-80g-x1.yaml").read_text(encoding="utf-8"))
    fitted = {
        "model": MODEL,
        "torch_dtype": model.torch_dtype,
        "layers": model.num_hidden_layers,
        "decoder_parameters": kvsize.decoder_parameters(model),
        "gpus": 1,
        **dict.fromkeys(COEFFICIENTS, 0.0),
        "fixed": STEP_S,
        **{span: [0, SERVERS * model.max_position_embeddings] for span in ("new", "history", "batch", "context")},
        **dict.fromkeys(("prefill_error", "decode_error"), 0.0),
    }
    entries = {
        "node": {**node, "name": "even"},
        "calibration": {"name": "even", "date": "2026-11", "source": "chosen: all steps take the same time", "steps": [fitted]},
    }
    for kind, entry in entries.items():
        (folder / kind).mkdir()
        (folder / kind / "even.yaml").write_text(yaml.safe_dump(entry), encoding="utf-8")
    chosen = (f"catalogue={folder}", "hardware=even", f"model={MODEL}", "prices=rent-2026")
    size = ("deployment.gpus=1", f"deployment.max_batch={SERVERS}", f"deployment.window_tokens={model.max_position_embeddings}")
    return config.load(None, [*NO_STORE, *chosen, *size])
