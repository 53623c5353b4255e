"""The command `kvplan`: parses, calls, prints. Results on stdout, talk on stderr, exit codes by contract.

0 done; 1 failed or interrupted; 2 wrong usage, configuration or data.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="kvplan",
    help="Plans DRAM and SSD for multi-turn LLM serving with a tiered KV cache, by simulation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_CONFIG_HELP = "A preset (default, paper-13b, paper-65b, paper-70b) or a YAML file."


def _reports_errors(command: Callable) -> Callable:
    """Bad input becomes one message and exit code 2; Ctrl-C one line and exit code 1."""

    @wraps(command)
    def run(*arguments, **options):
        from hwmodels import CatalogueError
        from sim.config import ConfigError
        from sim.report.rundir import OutputError
        from traces import TraceError

        try:
            return command(*arguments, **options)
        except (ConfigError, CatalogueError, TraceError, OutputError) as error:
            print(f"kvplan: {error}", file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            print("kvplan: interrupted, nothing was written", file=sys.stderr)
            raise typer.Exit(1) from None
        except MemoryError:
            print("kvplan: out of memory: simulate fewer sessions", file=sys.stderr)
            raise typer.Exit(1) from None

    return run


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from sim.provenance import version as number

        print(f"kvplan {number()}")
        raise typer.Exit


@app.command(
    epilog="Examples:  kvplan simulate   |   kvplan simulate paper-13b --set store.eviction=lru --set store.prefetch=none   |  "
    " kvplan simulate --trace sharegpt.json --json   |   kvplan simulate my.yaml --out runs/monday"
)
@_reports_errors
def simulate(
    config: Annotated[str | None, typer.Argument(help=_CONFIG_HELP)] = None,
    trace: Annotated[str | None, typer.Option(help="Replay this file instead of generated sessions.")] = None,
    format: Annotated[str | None, typer.Option(help="Format of the trace; detected when not given.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="PATH=VALUE", help="Override a setting; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a run directory there.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print summary.json to stdout and nothing else.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave bad records of the trace out, and count them.")] = False,
    baseline: Annotated[bool, typer.Option(help="Also run recomputation, to compare with.")] = True,
) -> None:
    """Replay a workload through the simulated server and print what the KV cache gives and saves."""
    from sim.cli.simulate import run

    run(config, _trace_settings(trace, format, skip_bad) + (set or []), out, json, baseline)


def _trace_settings(trace: str | None, format: str | None, skip_bad: bool) -> list[str]:
    """The options about a trace, as overrides of the configuration. Raises ConfigError when they have no trace to go with."""
    from sim.config import ConfigError

    if trace is None and (format is not None or skip_bad):
        raise ConfigError("--format and --skip-bad go with --trace")
    given = {"trace": trace, "format": format}
    settings = ["workload.{}='{}'".format(name, value.replace("'", "''")) for name, value in given.items() if value is not None]
    return settings + ["workload.skip_bad=true"] * skip_bad


@app.command("list", epilog="Examples:  kvplan list models   |   kvplan list eviction")
@_reports_errors
def list_(kind: Annotated[str, typer.Argument(help="models, hardware, gpus, ssds, prices, presets, settings, formats, eviction, …")]) -> None:
    """Show the catalogue: what a configuration can name, with sources."""
    from sim.cli.listing import show

    show(kind)


def main() -> None:
    """Entry point."""
    app()
