"""Queues with known answers: recursions that give every start, and formulas that give means.

With one slot (`max_batch: 1`) and no store, the server is a single-server FCFS queue: a turn of p prompt and m answer tokens takes
S = prefill(p) + decode(1, p + 1, m − 1) seconds, whoever else waits. Any law of S comes from a law of m.

Lindley's recursion is that of Kiefer and Wolfowitz with one server. A batch is not c servers, as its steps take longer the more it holds,
and prefills stop it (`oracles.servers` makes one that nearly is). What holds of it: turns that are nothing but a prefill
(answers of one token) are served one at a time, however many slots there are; and Little's law, which asks for nothing.

Sources: Lindley, Proc. Cambridge Phil. Soc. 48, 1952; Kiefer and Wolfowitz, Trans. AMS 78, 1955; Pollaczek 1930 and Khinchine 1932, in
Kleinrock, Queueing Systems I, 1975, sections 3.2 (M/M/1) and 5.6 (M/G/1); Little, Operations Research 9, 1961; Wolff, Operations
Research 30, 1982 (Poisson arrivals see time averages).
"""

import numpy as np

from kvplan.hwmodels import StepTime
from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.rng import stream
from kvplan.sim.simulation import simulate
from kvplan.traces import Workload
from kvplan.traces.workload import untimed
from kvplan.validate.verdict import Finding, averaged

NO_STORE = ("store.dram=0GB", "store.ssd=0GB")
PROMPT = 64
LONGEST = 3500
TURNS, WARM, REPLICATIONS = 12_000, 3_000, 24
LOADS = (0.4, 0.7)
MEAN_S = 5.0


def single_turns(prompt: np.ndarray, output: np.ndarray, arrival_s: np.ndarray) -> Workload:
    """Sessions of one turn each."""
    return untimed(np.arange(len(prompt)), prompt, output).with_times(arrival_s, np.zeros(len(prompt)))


# --- every turn -------------------------------------------------------------------------------------------------------------------


def kiefer_wolfowitz(arrival_s: np.ndarray, service_s: np.ndarray, servers: int) -> np.ndarray:
    """float64 per customer: when its service starts, FCFS, on the server that is free first; `servers` = 1 is Lindley's recursion."""
    free_s, starts = [0.0] * servers, []
    for arrival, service in zip(arrival_s.tolist(), service_s.tolist(), strict=True):
        start = max(arrival, free_s[0])
        starts.append(start)
        free_s = sorted([start + service, *free_s[1:]])
    return np.array(starts)


def recursions() -> list[Finding]:
    """The engine's starts against the recursion, the largest difference in seconds."""
    rows = ((1, LONGEST, 0.5), (1, LONGEST, 0.9), (1, LONGEST, 1.5), (1, 1, 0.9), (24, 1, 0.9))
    return [_recursion(slots, longest, load) for slots, longest, load in rows]


def _recursion(slots: int, longest: int, load: float) -> Finding:
    settings = config.load(None, [*NO_STORE, f"deployment.max_batch={slots}"])
    steps, rng = resolve(settings).steps, stream(slots, "recursions")
    prompt, output = rng.integers(1, 500, 3000), rng.integers(1, longest + 1, 3000)
    turns = zip(prompt.tolist(), output.tolist(), strict=True)
    service_s = np.array([steps.prefill(new) + steps.decode(1, new + 1, answer - 1) for new, answer in turns])
    arrival_s = np.cumsum(rng.exponential(float(service_s.mean()) / load, 3000))
    started = simulate(settings, single_turns(prompt, output, arrival_s)).columns["admitted_s"]
    off = float(np.abs(started - kiefer_wolfowitz(arrival_s, service_s, 1)).max())
    quantity = f"{slots} slots, answers to {longest:,}, load {load}: starts off, s"
    return Finding(quantity, 0, "Lindley; K.-W. with c=1", off, 1e-12 * arrival_s[-1])


# --- means ------------------------------------------------------------------------------------------------------------------------


def _service_s(steps: StepTime) -> np.ndarray:
    """float64: seconds of a turn with 1, 2, … tokens of answer, in a batch of its own."""
    return steps.prefill(PROMPT) + np.array([steps.decode(1, PROMPT + 1, after) for after in range(LONGEST)])


def _laws(service_s: np.ndarray) -> dict[str, np.ndarray]:
    """Probabilities of each length of answer such that service is constant, about exponential, and about lognormal, with a mean of 5 s."""
    from scipy import special  # takes a moment to import

    middle = np.append((service_s[1:] + service_s[:-1]) / 2, np.inf)
    sigma = 1.0
    below = {
        "M/D/1": (middle > MEAN_S).astype(float),
        "M/M/1": 1 - np.exp(-middle / MEAN_S),
        "M/G/1, lognormal": special.ndtr((np.log(middle / MEAN_S) + sigma**2 / 2) / sigma),
    }
    return {name: np.diff(share, prepend=0.0) for name, share in below.items()}


def _waits(law: np.ndarray, load: float, name: str) -> tuple[list[float], list[float], list[float]]:
    """Per replication, after the warm-up: mean wait, share that does not wait, and mean wait of the second half less that of the first."""
    settings = config.load(None, [*NO_STORE, "deployment.max_batch=1"])
    mean_s = float(law @ _service_s(resolve(settings).steps))
    waits, idle, drift = [], [], []
    for replication in range(REPLICATIONS):
        rng = stream(replication, f"{name} {load}")
        output = rng.choice(len(law), TURNS, p=law) + 1
        table = single_turns(np.full(TURNS, PROMPT), output, np.cumsum(rng.exponential(mean_s / load, TURNS)))
        columns = simulate(settings, table).columns
        wait = (columns["admitted_s"] - columns["arrival_s"])[WARM:]
        first, second = np.split(wait, 2)
        waits.append(float(wait.mean()))
        idle.append(float(np.mean(wait == 0)))
        drift.append(float(second.mean() - first.mean()))
    return waits, idle, drift


def means() -> list[Finding]:
    """Mean waits and chances not to wait, that the warm-up is over, and Little's law on a full batch."""
    service_s = _service_s(resolve(config.load(None, [*NO_STORE, "deployment.max_batch=1"])).steps)
    laws = _laws(service_s)
    figures, found = 5 * len(laws) + 1, []
    for name, law in laws.items():
        mean, square = float(law @ service_s), float(law @ service_s**2)
        for load in LOADS:
            formula = {"M/M/1": ("rho E[S] / (1 - rho)", load * mean / (1 - load))}
            pollaczek = "Pollaczek-Khinchine", load / mean * square / (2 * (1 - load))
            source, expected = formula.get(name, pollaczek)
            waits, idle, drift = _waits(law, load, name)
            found += [
                averaged(f"{name}, load {load}: mean wait, s", expected, source, waits, figures),
                averaged(f"{name}, load {load}: share that does not wait", 1 - load, "1 - rho; Wolff", idle, figures),
            ]
        found.append(averaged(f"{name}, load {load}: mean wait, 2nd half - 1st, s", 0.0, "the warm-up is over", drift, figures))
    return [*found, averaged("batch of 24: jobs left behind - rate x mean stay", 0.0, "Little; Wolff", _little(), figures)]


def _little() -> list[float]:
    """Per replication: mean number of jobs that the engine's counters show when one has left, less arrival rate times mean stay.

    In the long run a job that leaves finds as many as one that comes, and Poisson arrivals find the time average.
    """
    settings = config.load(None, NO_STORE)
    found = []
    for replication in range(REPLICATIONS):
        rng = stream(replication, "little")
        prompt, output = rng.integers(1, 2000, TURNS), rng.integers(1, 400, TURNS)
        result = simulate(settings, single_turns(prompt, output, np.cumsum(rng.exponential(0.28, TURNS))))
        columns, series = result.columns, result.series
        arrival, stay = columns["arrival_s"][WARM:], (columns["done_s"] - columns["arrival_s"])[WARM:]
        rate = (len(arrival) - 1) / (arrival[-1] - arrival[0])
        counted = (series["time_s"] > arrival[0]) & (series["time_s"] < arrival[-1])
        found.append(float((series["waiting"] + series["running"])[counted].mean() - rate * stay.mean()))
    return found
