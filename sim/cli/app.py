"""The command `kvplan`: parses, calls, prints. Results on stdout, talk on stderr, exit codes by contract.

0 done; 1 failed or interrupted; 2 wrong usage, configuration or data.
"""

import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

from kvplan.sim.cli.commands import Commands

app = typer.Typer(
    name="kvplan",
    cls=Commands,
    help="Plans DRAM and SSD for multi-turn LLM serving with a tiered KV cache, by simulation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Cluster(StrEnum):
    """Where else simulations can run."""

    dask = "dask"
    ray = "ray"


class Tier(StrEnum):
    """Tiers whose size a curve can vary."""

    hbm = "hbm"
    dram = "dram"
    ssd = "ssd"


class Unit(StrEnum):
    """What a store keeps."""

    session = "session"
    block = "block"


_CONFIG_HELP = "A preset (`kvplan list presets`) or a YAML file."
_CLUSTER_HELP = "Simulate on the cluster of DASK_SCHEDULER_ADDRESS or RAY_ADDRESS; without one, on one that is started here."
_COLUMNS_HELP = "Read any table, by the columns that hold what: session=user,arrival=ts,prompt=in,output=out. `new` for what a turn adds."
_LIST_HELP = "models, hardware, nodes, gpus, links, ssds, prices, presets, settings, formats, eviction, …"
_SPAN_HELP = "How much of the run the timeline has, up to when the last session comes; 60s when not given."
_EXPORTS_HELP = (
    'Answers of Prometheus\' HTTP API (JSON), for example of query_range for {__name__=~"vllm:.*"}; CSV of Grafana;'
    " or a server's /metrics. Files, or folders of them."
)
_STORES_HELP = "Stores to try, a+b=x+y,z+w for settings that go together. When not given: sizes that the node offers."
_CURVE_REPLICATIONS_HELP = "Runs of each point, each with a seed of its own; 5 when not given."
_FIGURE_HELP = "Also draw a picture there: .png, .svg or .pdf."
_TIER_HELP = "The tier whose size varies: dram when not given; with --unit block the one that the mode's cache is in."
_SIZES_HELP = "Sizes, of blocks also 2048blocks; powers of two when not given."
_POLICIES_HELP = (
    "Eviction policies: of sessions lookahead, lru and fifo when not given; of blocks store.eviction, with --unit block all that the mode"
    " has, and `optimal`, the most that any could hit."
)
_UNIT_HELP = (
    "session, simulated; or block: prefixes that all requests share, by the rules of --mode, without a server. When not given: block where"
    " servers keep blocks (store.unit=auto)."
)
_MODE_HELP = "Whose rules blocks go by: vllm, sglang, lmcache or kvcache-simulator. It goes with --unit block."
_METRIC_HELP = "What to rank by: any number of summary.json. When not given: goodput if slo is set, else ttft_s.p95; and cost."
_VARY_HELP = "Settings to vary, a+b=x+y,z+w for those that go together; may be repeated. When not given: all eviction policies."


def _presets(incomplete: str) -> list[str]:
    """For the shell's completion, which takes files where no preset begins so."""
    from kvplan.sim.config import presets

    return [name for name in presets() if name.startswith(incomplete)]


def _kinds(incomplete: str) -> list[str]:
    """The same, of what `list` shows."""
    from kvplan.sim.cli.listing import KINDS_LISTED

    return [kind for kind in KINDS_LISTED if kind.startswith(incomplete)]


def _examples(*commands: str) -> str:
    """The end of a help page: one example a line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def _reports_errors(command: Callable) -> Callable:
    """Bad input becomes one message and exit code 2; a user's policy that fails, one line and exit code 1."""

    @wraps(command)
    def run(*arguments, **options):
        try:
            command(*arguments, **options)
        except _wrong() as error:
            _say(error)
            raise typer.Exit(2) from None
        except _failed() as error:
            _say(error)
            raise typer.Exit(1) from None
        except MemoryError:
            print("kvplan: out of memory: simulate fewer sessions", file=sys.stderr)
            raise typer.Exit(1) from None
        except OSError as error:
            from kvplan.sim.files import told

            _say(told.line(error))
            raise typer.Exit(told.exit_code(error)) from None

    return run


def _wrong() -> tuple[type[Exception], ...]:
    """Bad input; asked for when something is raised, for a command loads no more than it uses."""
    from kvplan.foreign.files import UnreadableError
    from kvplan.hwmodels import CatalogueError
    from kvplan.sim.config import ConfigError
    from kvplan.sim.files.ours import OutputError
    from kvplan.traces import TraceError

    return ConfigError, CatalogueError, TraceError, OutputError, UnreadableError


def _failed() -> tuple[type[Exception], ...]:
    """What could not be done."""
    from kvplan.sim.files.atomic import WriteError
    from kvplan.sim.policies.supervise import PolicyError
    from kvplan.sim.sweep.pool import SweepError

    return SweepError, PolicyError, WriteError


def _say(what: object) -> None:
    from kvplan.sim.cli.talk import say

    say(f"kvplan: {what}")


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from kvplan.sim import provenance

        print(f"kvplan {provenance.version()} ({provenance.form()})")
        raise typer.Exit


@app.command(
    epilog=_examples(
        "kvplan simulate",
        "kvplan simulate paper-13b --set store.eviction=lru --set store.prefetch=none",
        "kvplan simulate --trace sharegpt.json --json",
        "kvplan simulate my.yaml --out runs/monday",
        "kvplan simulate --equal-service",
        "kvplan simulate --timeline t.json --timeline-span 10min",
    )
)
@_reports_errors
def simulate(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP, autocompletion=_presets)] = None,
    trace: Annotated[str | None, typer.Option(help="Replay this file instead of generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a run directory there.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print summary.json to stdout and nothing else.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records of the trace out, and count them.")] = False,
    baseline: Annotated[bool, typer.Option(help="Also run recomputation, to compare with.")] = True,
    replications: Annotated[int, typer.Option(min=2, max=1000, help="Runs of both that changes are over, each with a seed.")] = 8,
    equal_service: Annotated[
        bool, typer.Option("--equal-service", help="Find how many more sessions have recomputation's TTFT p95.")
    ] = False,
    timeline: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what the run did, for Perfetto or chrome://tracing.")] = None,
    timeline_span: Annotated[str | None, typer.Option(metavar="TIME", help=_SPAN_HELP)] = None,
) -> None:
    """Replay a workload through the simulated server and print what the KV cache gives and saves."""
    from kvplan.sim.cli.simulate import run

    overrides = _trace_settings(trace, format, columns, skip_bad) + (set or [])
    run(config, overrides, out, json, baseline, replications, equal_service, timeline, timeline_span)


@app.command(
    epilog=_examples(
        "kvplan compare",
        "kvplan compare --vary store.eviction=lru,lookahead --vary store.dram=64GB,128GB --out cmp",
        "kvplan compare --vary store.dram+store.ssd=0GB+0GB,128GB+10TB --metric ttft_s.p95",
    )
)
@_reports_errors
def compare(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP, autocompletion=_presets)] = None,
    vary: Annotated[list[str] | None, typer.Option(metavar="PATH=V1,V2,...", help=_VARY_HELP)] = None,
    replications: Annotated[int, typer.Option(min=1, max=1000, help="Runs of each variant, each with a seed of its own.")] = 5,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes at once; all cores when not given.")] = None,
    cluster: Annotated[Cluster | None, typer.Option(help=_CLUSTER_HELP)] = None,
    trace: Annotated[str | None, typer.Option(help="Replay this file instead of generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records of the trace out, and count them.")] = False,
    resample: Annotated[bool, typer.Option(help="Draw the sessions of a trace anew, with replacement, for each replication.")] = True,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    metric: Annotated[str | None, typer.Option(help=_METRIC_HELP)] = None,
    baseline: Annotated[str | None, typer.Option(help="Show differences to this label or path=value; else to the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the comparison there; finished runs are kept, and not done again.")] = None,
    figure: Annotated[Path | None, typer.Option(help=_FIGURE_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """Run variants of a configuration side by side, and say which of them can be told apart."""
    from kvplan.sim.cli.compare import run

    overrides = _trace_settings(trace, format, columns, skip_bad) + (set or [])
    run(config, overrides, vary or [], replications, jobs, cluster, out, figure, json, baseline, metric, resample)


@app.command(
    epilog=_examples(
        "kvplan curve --tier ssd",
        "kvplan curve --unit block --mode vllm --trace mooncake.jsonl --set model=llama-3.1-8b",
        "kvplan curve paper-13b --tier dram --sizes 64GB,128GB,256GB --policies lru,lookahead --figure dram.png",
    )
)
@_reports_errors
def curve(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP, autocompletion=_presets)] = None,
    tier: Annotated[Tier | None, typer.Option(help=_TIER_HELP)] = None,
    sizes: Annotated[str | None, typer.Option(metavar="S1,S2,...", help=_SIZES_HELP)] = None,
    policies: Annotated[str | None, typer.Option(metavar="P1,P2,...", help=_POLICIES_HELP)] = None,
    unit: Annotated[Unit | None, typer.Option(help=_UNIT_HELP)] = None,
    mode: Annotated[str | None, typer.Option(help=_MODE_HELP)] = None,
    replications: Annotated[int | None, typer.Option(min=1, max=1000, help=_CURVE_REPLICATIONS_HELP)] = None,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes at once; all cores when not given.")] = None,
    cluster: Annotated[Cluster | None, typer.Option(help=_CLUSTER_HELP)] = None,
    trace: Annotated[str | None, typer.Option(help="Replay this file instead of generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records of the trace out, and count them.")] = False,
    resample: Annotated[bool, typer.Option(help="Draw the sessions of a trace anew, with replacement, for each replication.")] = True,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the curve there; finished runs are kept, and not done again.")] = None,
    figure: Annotated[Path | None, typer.Option(help=_FIGURE_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """Hit rate against the size of a tier, for several eviction policies; of whole sessions TTFT, too."""
    from kvplan.sim.cli.curve import run

    overrides = _trace_settings(trace, format, columns, skip_bad) + _block_settings(unit, mode) + (set or [])
    run(config, overrides, tier and tier.value, sizes, policies, replications, jobs, cluster, out, figure, json, resample)


@app.command(
    epilog=_examples(
        "kvplan plan",
        "kvplan plan my.yaml --ttft-p95 500ms --sessions-per-s 16",
        "kvplan plan chat-2026 --vary store.dram=512GB,2TB --vary store.ssd=0GB,7.68TB",
        "kvplan plan --set prices=buy-2026 --horizon 3y",
    )
)
@_reports_errors
def plan(
    config: Annotated[str | None, typer.Argument(help=f"{_CONFIG_HELP} When not given: chat-2026.", autocompletion=_presets)] = None,
    ttft_p95: Annotated[str | None, typer.Option(metavar="TIME", help="The target: 95 % of turns have their first token by then.")] = None,
    sessions_per_s: Annotated[float | None, typer.Option(min=1e-6, help="Load of the whole service; else the configuration's.")] = None,
    vary: Annotated[list[str] | None, typer.Option(metavar="PATH=V1,V2,...", help=_STORES_HELP)] = None,
    flags: Annotated[bool, typer.Option("--flags", help="Also print what vLLM, SGLang, LMCache and TensorRT-LLM are told.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Also plan again with eleven inputs lower and higher, and with other loads and GPUs.")
    ] = False,
    horizon: Annotated[str | None, typer.Option(metavar="YEARS", help="Time to count cost and the wear of drives over: 3y, 18mo.")] = None,
    trace: Annotated[str | None, typer.Option(help="Plan for this file instead of generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records of the trace out, and count them.")] = False,
    jobs: Annotated[int | None, typer.Option(min=1, max=1024, help="Processes at once; all cores when not given.")] = None,
    cluster: Annotated[Cluster | None, typer.Option(help=_CLUSTER_HELP)] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan there.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """The fewest GPUs, and the cheapest DRAM and SSD, that meet a target at a load."""
    from kvplan.sim.cli.plan import run

    settings = _trace_settings(trace, format, columns, skip_bad) + (set or [])
    run(config, settings, ttft_p95, sessions_per_s, vary or [], horizon, sensitivity, flags, jobs, cluster, out, json)


@app.command(epilog=_examples("kvplan report runs/1", "kvplan report cmp/compare.json"))
@_reports_errors
def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What a command wrote with --out; or the JSON in it that is meant.")],
) -> None:
    """Make report.html and report.md of a folder anew, from what is in it."""
    from kvplan.sim.cli.report import run

    run(folder)


def _trace_settings(trace: str | None, format: str | None, columns: str | None, skip_bad: bool) -> list[str]:
    """The options about a trace, as overrides of the configuration. Raises ConfigError when they have no trace to go with."""
    from kvplan.sim.config import ConfigError
    from kvplan.traces.columns import parsed

    if trace is None and (format is not None or columns is not None or skip_bad):
        raise ConfigError("--format, --columns and --skip-bad go with --trace")
    try:
        given = {"trace": trace, "format": format, "columns": None if columns is None else parsed(columns)}
    except ValueError as error:
        raise ConfigError(str(error)) from None
    settings = [_setting(f"workload.{name}", value) for name, value in given.items() if value is not None]
    return settings + ["workload.skip_bad=true"] * skip_bad


def _block_settings(unit: Unit | None, mode: str | None) -> list[str]:
    """The options about blocks, as overrides; a mode is of blocks."""
    chosen = "block" if mode is not None and unit is None else unit and unit.value
    return [_setting(f"store.{name}", value) for name, value in (("unit", chosen), ("mode", mode)) if value is not None]


def _setting(path: str, value: object) -> str:
    from kvplan.hwmodels import strictyaml

    return f"{path}={strictyaml.flow(value)}"


@app.command(
    epilog=_examples(
        "kvplan explain",
        "kvplan explain paper-65b",
        "kvplan explain --trace mooncake.jsonl --set model=llama-3.1-8b",
    )
)
@_reports_errors
def explain(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP, autocompletion=_presets)] = None,
    trace: Annotated[str | None, typer.Option(help="Explain for this file instead of generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records of the trace out, and count them.")] = False,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """Say what a configuration means before it runs: sizes, loading against recomputing, windows, what saturates first, cost."""
    from kvplan.sim.cli.explain import run

    run(config, _trace_settings(trace, format, columns, skip_bad) + (set or []), json)


trace_app = typer.Typer(help="Describe, convert and generate workloads.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(trace_app, name="trace")


@trace_app.command(
    epilog=_examples(
        "kvplan trace describe mooncake.jsonl --model llama-3.1-8b",
        "kvplan trace describe sharegpt.json --figure d.png",
        "kvplan trace describe --set workload.sessions=10000",
    )
)
@_reports_errors
def describe(
    trace: Annotated[str | None, typer.Argument(metavar="[TRACE]", help="A file or folder; without one, generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out, and count them.")] = False,
    model: Annotated[str, typer.Option(help="Whose KV bytes and window to count in: a catalogue name or a config.json.")] = "llama-2-13b",
    ttl_s: Annotated[float, typer.Option(min=1e-3, help="How long KV shall be kept, in seconds.")] = 3600.0,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    figure: Annotated[Path | None, typer.Option(help=_FIGURE_HELP)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
) -> None:
    """Say what a workload means to somebody who sizes a KV cache: lengths, gaps, how much is reused, and what holds it."""
    from kvplan.sim.cli import trace as commands

    commands.describe([*_trace_settings(trace, format, columns, skip_bad), _setting("model", model), *(set or [])], ttl_s, json, figure)


@trace_app.command(
    epilog=_examples(
        "kvplan trace convert burst.csv burst.parquet",
        "kvplan trace convert mooncake.jsonl busy.csv --set workload.rescale.rate=2",
    )
)
@_reports_errors
def convert(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="A file or folder in any known format.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The table to write: .parquet, or .csv (without block hashes).")],
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    columns: Annotated[str | None, typer.Option(metavar="ROLE=COLUMN,...", help=_COLUMNS_HELP)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records out, and count them.")] = False,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
) -> None:
    """Turn a trace into kvplan's own table, rescaled or resampled if settings under workload.rescale say so."""
    from kvplan.sim.cli import trace as commands

    commands.convert([*_trace_settings(trace, format, columns, skip_bad), *(set or [])], out)


@trace_app.command(
    epilog=_examples(
        "kvplan trace generate day.parquet --set workload.sessions=50000",
        "kvplan trace generate p.csv paper-13b",
    )
)
@_reports_errors
def generate(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The table to write: .parquet or .csv.")],
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP, autocompletion=_presets)] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
) -> None:
    """Draw the workload of a configuration and write it as a table, times included."""
    from kvplan.sim.cli import trace as commands

    commands.generate(config, set or [], out)


@trace_app.command(
    "from-prometheus",
    epilog=_examples(
        "kvplan trace from-prometheus vllm.json --out mine.yaml",
        "kvplan trace from-prometheus panels/ --label model_name=llama-3.1-70b --turns-per-session 4",
    ),
)
@_reports_errors
def from_prometheus(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=_EXPORTS_HELP)],
    label: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Keep series with this label; may be repeated.")] = None,
    turns_per_session: Annotated[float | None, typer.Option(min=0.1, max=20, help="Mean, if you know it: metrics do not say.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write a configuration there (YAML): simulate and plan take it.")] = None,
) -> None:
    """Say what the metrics of vLLM or SGLang tell of a workload, and what they cannot: load, lengths, hit rates, latencies."""
    from kvplan.sim.cli import trace as commands

    commands.from_prometheus(files, label or [], turns_per_session, json, out)


@app.command(
    "list",
    epilog=_examples(
        "kvplan list models",
        "kvplan list hardware",
        "kvplan list gpus --catalogue mine",
    ),
)
@_reports_errors
def list_(
    kind: Annotated[str, typer.Argument(help=_LIST_HELP, autocompletion=_kinds)],
    catalogue: Annotated[str | None, typer.Option(help="A folder of your own entries, shown with the packaged ones.")] = None,
) -> None:
    """Show the catalogue: what a configuration can name, with units, sources and dates."""
    from kvplan.sim.cli.listing import show

    show(kind, catalogue)


def main() -> None:
    """Entry point."""
    app()
