"""What no store can change, in closed form: how many replicas it takes at least, and whether an empty server would be fast enough.

A turn's prompt must be prefilled and its answer decoded, whatever the store holds. Decoding is cheapest per token in the fullest batch, and
a store spares the history's part of a prefill at most, not its attention. Without a store the history is computed as well. A store of
blocks spares what sessions have in common, too, and jobs that run at once hold it once.
"""

import math

import numpy as np

from kvplan.hwmodels.units import format_seconds
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.planner.objective import Objective, latency
from kvplan.traces import Workload
from kvplan.traces.context import contexts

BUSIEST = 0.9
"""Share of what the GPUs can do at most. Nearer to saturation a queue takes longer to show than a run lasts: its length settles like
1 / (1 - share)² (heavy traffic; Kingman 1961), and no service is run there."""


def least_replicas(config: Config, deployment: Deployment, workload: Workload, sessions_per_s: float) -> int:
    """Replicas whose GPUs would work `BUSIEST` of the time at this load."""
    prefill = _prefills_s(config, deployment, workload)
    decode = _decode_s(config, deployment, workload)
    return max(1, math.ceil(sessions_per_s * float(prefill.sum() + decode) / workload.sessions / BUSIEST))


def likely(least: int) -> int:
    """Where a search begins: so few replicas as these rarely hold a target, and a third more is where it would look next."""
    return round(least * 4 / 3)


def _decode_s(config: Config, deployment: Deployment, workload: Workload) -> float:
    """Seconds of decoding all answers in batches as full as HBM allows: in the mean a job holds its whole context's room for as many steps
    as its answer has tokens, and reads half of its answer more than its prompt."""
    history, prompt, output = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    steps = float(output.sum())
    if not steps:
        return 0.0
    own = history + prompt + output - _common(deployment, workload, history + prompt)
    room = float((output * deployment.in_hbm(own)).sum()) / steps
    read = float((output * (history + prompt + output / 2)).sum()) / steps
    batch = max(1, min(config.deployment.max_batch, int(deployment.hbm_budget / room)))
    windows = deployment.window_bytes(history + prompt, output)
    return steps / batch * deployment.steps.decode(batch, round(batch * read), 1, round(batch * windows))


def unloaded(config: Config, deployment: Deployment, workload: Workload, objective: Objective) -> float:
    """The best that any number of replicas can give of an objective's figure: that of a server with one turn at a time, whose store has
    kept everything."""
    history, prompt, output = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    if objective.measure == "hit_rate":
        return float(_spared(deployment, workload, history, history + prompt).sum() / (history + prompt).sum())
    first = _prefills_s(config, deployment, workload)
    rows = zip((history + prompt).tolist(), np.maximum(output - 1, 0).tolist(), strict=True)
    rest = np.array([deployment.steps.decode(1, context, steps) for context, steps in rows])
    col = {"arrival_s": np.zeros(len(first)), "first_token_s": first, "done_s": first + rest, "output_tokens": output}
    if objective.measure == "goodput":
        return 1 - float(objective.late(col).mean())
    values, counted = latency(objective.measure, col)
    if not counted.any():
        return 0.0
    return float(values[counted].mean() if objective.share is None else np.quantile(values[counted], objective.share))


def out_of_reach(objective: Objective, best: float) -> str | None:
    """Why no number of replicas meets an objective, when `best` is what an unloaded one gives; None when one may."""
    if objective.at_least:
        return None if best >= objective.limit else f"{best:.1%} at best, if everything is kept ({objective})"
    if best <= objective.limit:
        return None
    return f"an empty server already takes {format_seconds(best)} ({objective.measure.upper()} {objective.statistic})"


def _prefills_s(config: Config, deployment: Deployment, workload: Workload) -> np.ndarray:
    """Seconds of GPU that each turn's prefill takes at least."""
    history, prompt, _ = contexts(workload, deployment.window, config.deployment.truncation_ratio)
    spared = _spared(deployment, workload, history, history + prompt)
    rows = zip((history + prompt - spared).tolist(), spared.tolist(), strict=True)
    return np.array([deployment.steps.prefill(new, old) for new, old in rows])


def _spared(deployment: Deployment, workload: Workload, history: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Of each turn's tokens to prefill, those that a store spares at most."""
    return np.maximum(history, _common(deployment, workload, tokens)) if deployment.tiers else np.zeros_like(history)


def _common(deployment: Deployment, workload: Workload, tokens: np.ndarray) -> np.ndarray:
    """Of each turn's tokens to prefill, those that other sessions may have had before, which blocks know: all but one, where a trace
    has hashes."""
    if not deployment.pooled:
        return np.zeros_like(tokens)
    begun = workload.common_tokens[workload.session]
    return np.minimum(tokens - 1, begun if workload.blocks is None else tokens)
