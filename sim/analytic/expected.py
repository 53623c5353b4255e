"""All of it together: the turns, what each asks for, and how busy that makes the server, bin by bin of its time."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kvplan.sim.analytic.inblocks import error_of, serve_blocks, some_replicas
from kvplan.sim.analytic.prefilling import each_s, prefill_alone
from kvplan.sim.analytic.queueing import Server
from kvplan.sim.analytic.turns import Turns, serve, served_bytes
from kvplan.sim.analytic.work import Work, server, work
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.traces import Workload

_TURNS_PER_BIN = 40
_BINS = 50
"""At most. Sessions come, go on and end: the rate of turns is no constant."""


@dataclass(frozen=True)
class Expected:
    """What the arithmetic expects of a run."""

    turns: Turns
    walked: Turns
    """Those that `work` is of: all, or of some replicas where many turns would go through blocks."""
    work: Work
    server: Server
    recomputing_s: float
    """Of the mean turn's prefill without any store."""
    busy: dict[str, float]
    """Shares of the run's time in which GPUs and links work, by name."""
    jobs: float
    """In the batch, in the mean while there are any."""
    load: float
    """What turns ask of the GPUs at the busiest time, as a share of what full batches can do."""
    pinned: list[float]
    """Bytes per tier that running jobs were served, and which stay as long as they run."""
    most_share: float | None
    """Of all prompt tokens, that blocks could serve if none ever left; None of sessions."""
    error: float
    """Two standard errors of what is found, as a share of all prompt tokens, where not all turns are walked."""


def expected(
    config: Config, deployment: Deployment, workload: Workload, turns: Turns, most: int, report: Callable[[int, int], None]
) -> Expected:
    """For batches of at most `most` jobs. How long answers take depends on how full batches are, and the other way round: first they are
    taken to be full, then they are what comes of it. `report(done, total)` is called while distances are worked out."""
    token_s = _token_s(config, deployment, workload, turns, most)
    turns = turns.timed(workload, token_s)
    rates, span_s = _rates(turns, config.deployment.replicas, token_s)
    here = some_replicas(turns) if deployment.pooled else np.ones(len(turns.time_s), bool)
    recomputing = prefill_alone(config, deployment)(turns.history + turns.prompt, np.zeros_like(turns.history))
    recomputing_s = float(recomputing.mean())
    roughly = server(deployment, turns, recomputing_s, most)
    mean = len(turns.time_s) / config.deployment.replicas / span_s
    if deployment.pooled:
        walked = turns.of(here)
        served, most_share = serve_blocks(config, deployment, workload, walked, _answers_s(walked, token_s), report)
    else:
        walked = turns = turns.measured(deployment, workload, token_s, report)
        served, most_share = serve(config, deployment, turns, mean * token_s * float(turns.output.mean())), None
    done = work(config, deployment, walked, served, _waits_s(roughly, rates))
    of_all = recomputing_s / float(recomputing[here].mean())  # those walked tell what is saved, not how long prompts are
    found = server(deployment, turns, (done.prefill_s + done.stall_s + done.save_s) * of_all, most)
    jobs = float(np.mean([found.running(rate) for rate in rates[rates > 0].tolist()]))
    return Expected(
        turns=turns,
        walked=walked,
        work=done,
        server=found,
        recomputing_s=recomputing_s,
        busy={"GPU": float(found.busy(rates).mean())} | {name: seconds * mean for name, seconds in done.links_s.items()},
        jobs=jobs,
        load=float(rates.max()) / found.most_per_s,
        pinned=[jobs * size for size in served_bytes(deployment, walked, done.served)],
        most_share=most_share,
        error=0.0 if here.all() else error_of(walked, done.served),
    )


def _answers_s(turns: Turns, token_s: float) -> np.ndarray:
    """Seconds of each turn, which ends before its session's next one starts."""
    after = np.append(np.where(turns.is_first, np.inf, turns.time_s)[1:], np.inf) - turns.time_s
    return np.minimum(turns.output * token_s, after)


def _token_s(config: Config, deployment: Deployment, workload: Workload, turns: Turns, most: int) -> float:
    """Seconds per token of an answer, from a turn's arrival to its end (Little: what is there, by what comes), where batches are not full
    all the time; of full batches where they are."""
    contexts = np.minimum(workload.history_tokens + workload.prompt_tokens + workload.output_tokens / 2, deployment.window)
    full_s = deployment.steps.decode(most, most * float(contexts.mean()))
    rates, _ = _rates(turns.timed(workload, full_s), config.deployment.replicas, full_s)
    found = server(deployment, turns, float(each_s(deployment.steps.prefill, turns.prompt, turns.history).mean()), most)
    bearable = rates[(rates > 0) & (rates < found.most_per_s)]
    if not len(bearable):
        return full_s
    jobs = sum(found.jobs(rate) for rate in bearable.tolist())
    return jobs / float(bearable.sum()) / max(float(turns.output.mean()), 1.0)


def _rates(turns: Turns, replicas: int, token_s: float) -> tuple[np.ndarray, float]:
    """(turns/s of one replica in each of several parts of the run, seconds of the whole run)."""
    start, end = float(turns.time_s.min()), float((turns.time_s + np.maximum(turns.output, 1) * token_s).max())
    bins = int(np.clip(len(turns.time_s) // (_TURNS_PER_BIN * replicas), 1, _BINS))
    counts = np.histogram(turns.time_s, bins, (start, end))[0]
    return counts * bins / (end - start) / replicas, end - start


def _waits_s(found: Server, rates: np.ndarray) -> float:
    """What a turn waits in the mean, when the GPUs are busy, for the step under way."""
    rate = float(rates.mean())
    return float(found.busy(np.array([rate]))[0]) * found.step_s(found.running(rate)) / 2
