"""`kvplan trace describe | convert | generate | from-prometheus`."""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from kvplan.hwmodels import Model, catalogue, kvsize, strictyaml
from kvplan.hwmodels.footprint import Footprint
from kvplan.hwmodels.simplified import every_token, simplified, unsupported
from kvplan.sim import config as configuration
from kvplan.sim.cli.deliver import deliver
from kvplan.sim.cli.progress import progress, turns_of
from kvplan.sim.cli.talk import say
from kvplan.sim.config import Config, ConfigError, without_clients
from kvplan.sim.counted import counted
from kvplan.sim.deployment import kept, narrowed, resolve
from kvplan.sim.files.atomic import write_file, write_text
from kvplan.sim.files.ours import begins, check_file
from kvplan.sim.files.strictjson import dumps
from kvplan.sim.inputs import inputs
from kvplan.sim.report import picture, prometheus, trace
from kvplan.traces import Workload, origin
from kvplan.traces.describe import describe as described
from kvplan.traces.formats import canonical
from kvplan.traces.prometheus import observed, read_series
from kvplan.traces.prometheus.settings import Setting
from kvplan.traces.prometheus.settings import workload as workload_settings


def describe(overrides: list[str], ttl_s: float, json: bool, figure: Path | None) -> None:
    """Prints what a trace, or a generated workload, means to a planner."""
    loaded = _loaded(None, overrides)
    model = kvsize.in_dtype(catalogue.load("model", loaded.model, loaded.catalogue), loaded.deployment.kv_dtype)
    if figure is not None:
        picture.check_picture(figure, inputs(None, loaded, runs=False))
    workload = turns_of(loaded, any_length=True)
    window = loaded.deployment.window_tokens or model.max_position_embeddings
    with progress("describing") as report:
        ratio, footprint = loaded.deployment.truncation_ratio, kept(loaded, model)
        found = described(workload, footprint.per_token, window, ttl_s, report, ratio, footprint.of, loaded.store.block_tokens or 16)
    found["kv"] |= {"bytes_of_windows": footprint.windows_bytes, "state_bytes": footprint.state}
    found["kv"]["kept"] = {
        tier.name: {"dtype": dtype, "bytes_per_token": int(share * found["kv"]["bytes_per_token"])}
        for tier, (dtype, share) in zip(loaded.store.listed, narrowed(loaded.store, model), strict=True)
        if share != 1
    }
    if left_out := [*filter(None, [unsupported(model)]), *_uncut(model, footprint), *simplified(model)]:
        found["kv"]["left_out"] = left_out

    def show() -> None:
        if json:
            sys.stdout.write(dumps(found))
        else:
            trace.print_description(found, model.name)

    deliver(show, (figure, partial(write_file, write=partial(trace.draw, workload, found))))


def _uncut(model: Model, footprint: Footprint) -> Iterator[str]:
    """Windows that are counted as if all before them were kept."""
    return iter(()) if footprint.windows else every_token(model, "every token of them is counted here (store.windows)")


def convert(overrides: list[str], out: Path) -> None:
    """Reads a trace, rescales it as the configuration says, and writes it as kvplan's own table."""
    loaded = _loaded(None, overrides)
    _check_table(out, inputs(None, loaded, runs=False))
    _write(turns_of(loaded, any_length=True, timed=False), out)


def generate(config: str | None, overrides: list[str], out: Path) -> None:
    """Writes the workload of a configuration."""
    loaded = _loaded(config, overrides)
    resolve(loaded)
    _check_table(out, inputs(config, loaded, runs=False))
    _write(turns_of(loaded), out)


def from_prometheus(files: Sequence[Path], labels: Sequence[str], turns_per_session: float | None, json: bool, out: Path | None) -> None:
    """Prints what metrics of servers say of their workload, and writes a configuration of it."""
    if out is not None:
        check_file(out, begins(prometheus.HEAD.encode()), files)
    found = observed(read_series(files, [_label(text) for text in labels]))
    settings = workload_settings(found, turns_per_session)
    where = ", ".join(map(str, files))
    model = _catalogued(found.model)
    text = prometheus.configuration(found, settings, model, where)
    configuration.validated(strictyaml.loads(text, where), f"{where}: the configuration that comes of it")

    def show() -> None:
        if json:
            sys.stdout.write(dumps({**found.data(), "workload": _plain(settings)}))
        else:
            prometheus.print_observed(found, where)

    deliver(show, (out, partial(write_text, text=text)))


def _loaded(config: str | None, overrides: list[str]) -> Config:
    """Raises ConfigError."""
    return without_clients(configuration.load(config, overrides), "a trace says when turns come")


def _plain(settings: dict[str, Setting]) -> dict:
    return {name: {"value": each.value, "assumed": each.assumed, "remark": each.remark} for name, each in settings.items()}


def _label(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ConfigError(f"--label {text}: write it as name=value, for example model_name=llama")
    return name, value


def _catalogued(name: str | None) -> str | None:
    """The entry of the catalogue that a served model is: its name without owner, and without what tuned it for chats."""
    short = re.sub(r"(?i)^meta-|[-_](instruct|chat|hf|it|fp8|awq|gptq).*$", "", (name or "").rpartition("/")[2]).lower()
    return short if short in catalogue.names("model") else None


def _check_table(out: Path, read: Iterable[Path]) -> None:
    """Before long work: that the table can be written there. Raises OutputError and TraceError."""
    check_file(out, canonical.is_written, read)
    canonical.check_name(out)


def _write(workload: Workload, out: Path) -> None:
    write_file(out, lambda path: canonical.write_canonical(workload, path))
    say(f"wrote {out}: {counted(workload.turns, 'turn')} of {counted(workload.sessions, 'session')}, {_times(workload)}")
    for warning in origin.warnings(workload.origin):
        say(f"! {warning}")


def _times(workload: Workload) -> str:
    if not workload.arrivals_known:
        return "untimed: what is missing is drawn when it is replayed"
    return "open loop" if workload.open_loop else "closed loop"
