"""What no store can change, in closed form: how many replicas it takes at least, and whether an empty server would be fast enough.

A turn's prompt must be prefilled and its answer decoded, whatever the store holds. Decoding is cheapest per token in the fullest batch, and
a store spares the history's part of a prefill at most, not its attention. Without a store the history is computed as well.
"""

import math

import numpy as np

from kvplan.sim.config import Config
from kvplan.sim.engine.plant import Plant
from kvplan.sim.planner.objective import Objective
from kvplan.traces import Workload
from kvplan.traces.context import contexts

BUSIEST = 0.9
"""Share of what the GPUs can do at most. Nearer to saturation a queue takes longer to show than a run lasts: its length settles like
1 / (1 - share)² (heavy traffic; Kingman 1961), and no service is run there."""


def least_replicas(config: Config, built: Plant, workload: Workload, sessions_per_s: float) -> int:
    """Replicas whose GPUs would work `BUSIEST` of the time at this load."""
    prefill = _prefills_s(config, built, workload)
    decode = _decode_s(config, built, workload)
    return max(1, math.ceil(sessions_per_s * float(prefill.sum() + decode) / workload.sessions / BUSIEST))


def _decode_s(config: Config, built: Plant, workload: Workload) -> float:
    """Seconds of decoding all answers in batches as full as HBM allows: in the mean a job holds its whole context's room for as many steps
    as its answer has tokens, and reads half of its answer more than its prompt."""
    history, prompt, output = contexts(workload, built.window, config.deployment.truncation_ratio)
    steps = float(output.sum())
    room = float((output * (history + prompt + output)).sum()) / steps * built.hbm_kv_bytes
    read = float((output * (history + prompt + output / 2)).sum()) / steps
    batch = max(1, min(config.deployment.max_batch, int(built.hbm_budget / room)))
    return steps / batch * built.steps.decode(batch, round(batch * read))


def too_slow_when_empty(config: Config, built: Plant, workload: Workload, objective: Objective) -> str | None:
    """Why an objective on TTFT cannot be met by any number of replicas: the prefill alone takes too long for too many turns."""
    if objective.measure != "ttft":
        return None
    prefill = _prefills_s(config, built, workload)
    value = float(prefill.mean() if objective.share is None else np.quantile(prefill, objective.share))
    if value <= objective.limit:
        return None
    return f"an empty server already takes {value:.2f} s ({objective.statistic} of the prefills)"


def _prefills_s(config: Config, built: Plant, workload: Workload) -> np.ndarray:
    """Seconds of GPU that each turn's prefill takes at least."""
    history, prompt, _ = contexts(workload, built.window, config.deployment.truncation_ratio)
    rows = zip(prompt.tolist(), history.tolist(), strict=True)
    if not built.tiers:
        return np.array([built.steps.prefill(new + old, 0) for new, old in rows])
    return np.array([built.steps.prefill(new, old) for new, old in rows])
