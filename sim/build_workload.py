"""The turns of a configuration: read or generated, rescaled, and with times."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from kvplan import traces
from kvplan.hwmodels import catalogue
from kvplan.sim.config import Clients, Config, WorkloadConfig
from kvplan.sim.deployment import Deployment, resolve
from kvplan.sim.rng import stream
from kvplan.traces import TraceError, Workload, rescale
from kvplan.traces.answers import prefilled_again
from kvplan.traces.generate import population, sharegpt, synthetic
from kvplan.traces.generate.arrivals import Replayed
from kvplan.traces.generate.steady import cut_from_stream
from kvplan.traces.reading import Reading


def build_workload(
    config: Config,
    progress: Callable[[int, int], None] | None = None,
    any_length: bool = False,
    timed: bool = True,
    recorded: Workload | None = None,
) -> Workload:
    """The workload of a configuration. `progress(done, total)` is called in bytes while a trace is read, unless `recorded` is what
    `recorded_workload` gave before.

    With `any_length`, answers of a trace may be longer than the model's window. Without `timed`, times that a trace lacks stay unknown.
    Raises ConfigError and TraceError.
    """
    settings = config.workload
    if settings.trace is None:
        workload = _generated(config)
    elif any_length:
        workload = _read(config, settings.trace, progress)
    else:
        workload = _recorded(config, settings.trace, progress) if recorded is None else recorded
    workload = _answered(_rescaled(_populated(workload, config), config), settings)
    if settings.clients is not None and timed:
        return _sent_by(settings.clients, workload)
    workload = _looped(workload, settings.loop)
    if timed and not workload.arrivals_known:
        workload = _drawn(workload.with_arrivals(_arrivals(config, len(workload.roots))), "arrivals")
    if timed and not workload.open_loop and not workload.gaps_known:
        workload = _with_think_times(workload, config)
    if timed and settings.rescale.think != 1:
        workload = rescale.scaled_think_times(workload, settings.rescale.think)
    workload = _rated(workload, settings.rescale.rate)
    return _steady(workload, config) if timed and settings.steady else workload


def _sent_by(clients: Clients, workload: Workload) -> Workload:
    """The turns for a client that sends them: all sessions are there at the start, and go on after its pauses. What a trace has of times
    is not used."""
    timed = workload.with_times(np.zeros(workload.sessions), np.full(workload.turns, clients.pause_s))
    return replace(timed, origin={**workload.origin, "clients": clients.named})


def _steady(workload: Workload, config: Config) -> Workload:
    """A cut out of an endless stream."""
    deployment, ratio = resolve(config), config.deployment.truncation_ratio
    step_s = token_s(config, deployment, workload)
    return cut_from_stream(workload, deployment.window, ratio, step_s, stream(config.seed, "under way"))


def token_s(config: Config, deployment: Deployment, workload: Workload) -> float:
    """About how long a token of an answer takes: in batches half as full as HBM allows."""
    context = float(np.minimum(workload.session_tokens, deployment.window).mean()) / 2
    batch = max(1, min(config.deployment.max_batch, int(deployment.hbm_budget / deployment.in_hbm(context))) // 2)
    return deployment.steps.decode(batch, round(batch * context))


def recorded_workload(config: Config, progress: Callable[[int, int], None] | None = None) -> Workload | None:
    """The sessions of a configuration's trace as they are recorded; None where it has no trace. Raises ConfigError and TraceError."""
    trace = config.workload.trace
    return None if trace is None else _recorded(config, trace, progress)


def _recorded(config: Config, trace: str, progress: Callable[[int, int], None] | None) -> Workload:
    window = resolve(config).window  # a configuration that cannot run is refused before a long file is read
    return _within(_read(config, trace, progress), window, config)


def _read(config: Config, trace: str, progress: Callable[[int, int], None] | None) -> Workload:
    settings, read_elsewhere = config.workload, {"tokenizer", "model", "rng"}
    said = {each.name: getattr(settings, each.name) for each in fields(Reading) if each.name not in read_elsewhere}
    said["tokenizer"] = Path(settings.tokenizer) if settings.tokenizer else None
    model = catalogue.load("model", config.model, config.catalogue)
    said["model"] = model.model_type, model.vocab_size
    said["rng"] = stream(config.seed, "trace")
    return traces.read_trace(Path(trace), settings.format, progress, **said)


def _generated(config: Config) -> Workload:
    settings, rng = config.workload, stream(config.seed, "lengths")
    limits = settings.max_turns, settings.max_tokens
    if settings.kind == "sharegpt":
        return sharegpt.generate(settings.sessions, rng, *limits, settings.length_correlation)
    laws = settings.turns, settings.prompt_tokens, settings.output_tokens
    return synthetic.generate(settings.sessions, rng, *laws, *limits, settings.first_prompt_tokens, settings.first_prompt_correlation)


def _populated(workload: Workload, config: Config) -> Workload:
    settings = config.workload
    for name, texts in (("documents", settings.documents), ("applications", settings.applications)):
        if texts is not None:
            rng = stream(config.seed, name)
            workload = population.with_texts(workload, name, texts.count, texts.tokens, texts.zipf, rng)
    if settings.system_prompt_tokens:
        workload = population.with_system_prompt(workload, settings.system_prompt_tokens)
    if settings.tenants:
        workload = population.with_tenants(workload, settings.tenants, stream(config.seed, "tenants"))
    if settings.forks:
        workload = population.with_forks(workload, settings.forks, stream(config.seed, "forks"))
    return population.with_tenants_apart(workload) if settings.tenants_apart else workload


def _arrivals(config: Config, sessions: int) -> np.ndarray:
    """Start times of the configuration's arrival process, in seconds; those of another trace when it says so."""
    arrival = config.workload.arrival
    if not isinstance(arrival, Replayed):
        return arrival.sample(sessions, stream(config.seed, "arrivals"))
    recorded = traces.read_trace(Path(arrival.trace))
    return arrival.sample_from(recorded.arrival_s[recorded.first_turn[:-1]], sessions)


def _within(workload: Workload, window: int, config: Config) -> Workload:
    """Refuses, or leaves out, sessions with an answer that the model cannot have given."""
    long = np.flatnonzero(workload.output_tokens >= window)
    if not long.size:
        return workload
    if not config.workload.skip_bad:
        raise TraceError(
            f"{config.workload.trace}, {workload.place(long[0])}: its answer of {workload.output_tokens[long[0]]:,} tokens does not fit"
            f" into the window of {config.model}, {window:,} tokens: another model, or --skip-bad to leave such sessions out"
        )
    good = np.setdiff1d(np.arange(workload.sessions), workload.session[long])
    left_out = {**workload.origin.get("left_out", {}), "sessions_with_an_answer_longer_than_the_window": workload.sessions - len(good)}
    return replace(workload.select(good), origin={**workload.origin, "left_out": left_out})


def _rescaled(workload: Workload, config: Config) -> Workload:
    wanted = config.workload.rescale
    if wanted.context != 1:
        workload = rescale.scaled_context(workload, wanted.context)
    if wanted.output != 1:
        workload = rescale.scaled_output(workload, wanted.output)
    if wanted.sessions != 1:
        workload = rescale.scaled_sessions(workload, wanted.sessions, stream(config.seed, "more sessions"))
    if wanted.resample is not None:
        workload = rescale.resampled(workload, wanted.resample, stream(config.seed, "resample"))
    changed = {name: value for name, value in wanted.model_dump().items() if value not in (1, None)}
    return replace(workload, origin={**workload.origin, "rescaled": changed}) if changed else workload


def _answered(workload: Workload, settings: WorkloadConfig) -> Workload:
    """The workload without the KV of answers, where it is of no use."""
    if not settings.answers_reused:
        return prefilled_again(workload, "workload.answers_reused: false")
    return prefilled_again(workload, "workload.reasoning: dropped") if settings.reasoning == "dropped" else workload


def _looped(workload: Workload, loop: str) -> Workload:
    """The loop that the configuration asks for. Raises TraceError when the source lacks the times for it."""
    if loop == "open":
        return workload.opened()
    if loop == "closed" or not workload.open_loop:
        return workload.closed()
    return workload


def _with_think_times(workload: Workload, config: Config) -> Workload:
    """The workload with think times drawn where it has none."""
    known, resumed = int(workload.gap_known.sum()), workload.turns - workload.sessions
    drawn = config.workload.think_time.sample(workload.turns, stream(config.seed, "think time"))
    return _drawn(workload.filled(drawn), f"{resumed - known:,} of {resumed:,} think times" if known else "think times")


def _drawn(workload: Workload, what: str) -> Workload:
    """The workload, whose origin says that this was drawn."""
    before = workload.origin.get("drawn")
    return replace(workload, origin={**workload.origin, "drawn": f"{before} and {what}" if before else what})


def _rated(workload: Workload, factor: float) -> Workload:
    """Sessions arriving faster. Raises TraceError when it is not known when they arrive."""
    if factor == 1:
        return workload
    if not workload.arrivals_known:
        raise TraceError(
            f"workload.rescale.rate is {factor:g}, but the trace has no times to rescale: set workload.arrival when it is replayed"
        )
    return rescale.scaled_rate(workload, factor)
