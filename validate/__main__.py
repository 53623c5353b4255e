"""`kvplan validate --list | NAME ... | COMMAND ...`: named checks, each printing quantity, source, published and simulated figures;
and commands with arguments of their own (`kvplan validate measure --help`)."""

import argparse
import ast
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from kvplan.sim.cli import process
from kvplan.validate.ending import FAILED, ended

CHECKS = {
    "micro": "kvplan.validate.checks.micro",
    "bench": "kvplan.validate.benchmarks.bench",
    "reading": "kvplan.validate.benchmarks.reading",
    "policycost": "kvplan.validate.benchmarks.policycost",
    "truncation": "kvplan.validate.calibration.kernels.truncation",
    "reference": "kvplan.validate.checks.agreement",
    "explain": "kvplan.validate.checks.explained",
    "plans": "kvplan.validate.checks.plans",
    "planbench": "kvplan.validate.benchmarks.planbench",
    "oracles": "kvplan.validate.checks.oracles",
}
"""Name -> module with a `run()`. Imported when asked for: a GPU box may have PyTorch and little else."""
COMMANDS = {
    "paper": "kvplan.validate.published.paper",
    "published": "kvplan.validate.published.systems",
    "blockbench": "kvplan.validate.benchmarks.blockbench.command",
    "against": "kvplan.validate.benchmarks.against.command",
    "models": "kvplan.validate.models.command",
    "blocks": "kvplan.validate.checks.blocks.command",
    "measure": "kvplan.validate.calibration.measure.command",
    "fit": "kvplan.validate.calibration.fit.command",
    "serve": "kvplan.validate.miniserver.command",
    "fidelity": "kvplan.validate.miniserver.fidelity.command",
    "tokens": "kvplan.validate.calibration.tokens.command",
    "kerneltables": "kvplan.validate.calibration.tables.command",
    "peers": "kvplan.validate.peers.command",
    "steptimes": "kvplan.validate.checks.steptimes.command",
}
"""Name -> module with a `main(arguments)` that gives the exit code."""


def main(argv: list[str]) -> int:
    """Runs the named checks or a command, or lists them."""
    absent = next((name for name in argv if not name.startswith("-") and not _is_here(name)), None)
    if absent is not None:
        return ended("", f"{absent!r} is not installed with kvplan: it needs a clone of the repository, and PyTorch")
    if argv and argv[0] in COMMANDS:
        return import_module(COMMANDS[argv[0]]).main(argv[1:])
    known = _known()
    parser = argparse.ArgumentParser(prog="kvplan validate", description=__doc__)
    parser.add_argument("--list", action="store_true", help="list checks and commands")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(known))
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in CHECKS]
    if unknown:
        return ended("", f"unknown check {unknown[0]!r}; known are {', '.join(known)}")
    if arguments.list or not arguments.names:
        print("\n".join(listed()))
        return 0
    return max(_check(name) for name in arguments.names)


def listed() -> list[str]:
    """A line for each check and command that is here: its name, and what it is about."""
    known = _known()
    width = max(map(len, known))
    return [f"{name:{width}} {_about((CHECKS | COMMANDS)[name])}" for name in known]


def _known() -> list[str]:
    return [name for name in (*CHECKS, *COMMANDS) if _is_here(name)]


def _is_here(name: str) -> bool:
    """Whether a check or command, if it is one, is installed: the wheel leaves out those that need PyTorch."""
    module = (CHECKS | COMMANDS).get(name)
    try:
        return module is None or find_spec(module) is not None
    except ModuleNotFoundError:  # its folder is not here
        return False


def _check(name: str) -> int:
    """Runs one check: 0 when it holds, else 1."""
    from kvplan.validate.verdict import Failed  # needs more than a GPU box has

    try:
        import_module(CHECKS[name]).run()
    except Failed as failure:
        return ended(name, failure, FAILED)
    return 0


def _about(module: str) -> str:
    """First line of a module's docstring, read without running it."""
    spec = find_spec(module)
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


if __name__ == "__main__":
    sys.exit(process.run_command(lambda: main(sys.argv[1:])))
