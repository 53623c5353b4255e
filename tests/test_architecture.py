"""The import rules: traces and hwmodels know nothing of the rest; inside sim only the engine knows SimPy;
in validate, the mini server is built on calibration, and the other rooms on neither."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "kvplan/foreign": {"kvplan.hwmodels", "kvplan.traces", "kvplan.sim", "kvplan.validate"},
    "traces": {"kvplan.hwmodels", "kvplan.sim", "kvplan.validate", "simpy"},
    "hwmodels": {"kvplan.traces", "kvplan.sim", "kvplan.validate", "simpy"},
    "sim": {"kvplan.validate"},
    "sim/store": {"simpy", "kvplan.sim.engine", "kvplan.hwmodels", "kvplan.traces"},
    "sim/policies": {"simpy", "kvplan.sim.engine", "kvplan.sim.store", "kvplan.hwmodels", "kvplan.traces"},
    "sim/deployment.py": {"simpy", "kvplan.sim.engine"},
    "sim/build_workload.py": {"simpy", "kvplan.sim.engine"},
    "sim/metrics": {"simpy", "typer", "rich"},
    "sim/analytic": {"simpy", "kvplan.sim.engine", "kvplan.sim.store", "typer", "rich"},
    "sim/replay": {"simpy", "kvplan.sim.engine", "typer", "rich"},
    "sim/planner": {"simpy", "typer", "rich"},
    "sim/sweep": {"simpy", "typer", "rich"},
    "sim/report": {"simpy", "typer"},
    "sim/cli": {"simpy"},
    "validate/calibration": {
        "kvplan.validate.miniserver",
        "kvplan.validate.checks",
        "kvplan.validate.benchmarks",
        "kvplan.validate.verdict",
    },
    "validate/miniserver": {"kvplan.validate.checks", "kvplan.validate.benchmarks"},
    "validate/checks": {"kvplan.validate.calibration", "kvplan.validate.miniserver", "kvplan.validate.benchmarks", "torch"},
    "validate/benchmarks": {"kvplan.validate.calibration", "kvplan.validate.miniserver", "kvplan.validate.checks", "torch"},
    "validate/models": {f"kvplan.validate.{room}" for room in ("calibration", "miniserver", "checks", "benchmarks")},
    "validate/published": {f"kvplan.validate.{room}" for room in ("calibration", "miniserver", "checks", "benchmarks", "models")},
    "validate/peers": {f"kvplan.validate.{room}" for room in ("calibration", "miniserver", "checks", "benchmarks", "models", "published")},
    "validate/models/reference.py": {"kvplan"},
    "validate/arguments.py": {"kvplan"},
    "validate/show.py": {"kvplan"},
    "validate/aisimulate.py": {"kvplan"},
    "validate/verdict.py": {f"kvplan.validate.{room}" for room in ("calibration", "miniserver", "checks", "benchmarks")},
}
"""What a room may not import. The wheel has checks, benchmarks, models, peers and published cases of validate/, but neither calibration nor
mini server, nor PyTorch. What `transformers` counts is independent of kvplan."""


def imported(path: Path) -> set[str]:
    return named(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def named(nodes: Iterable[ast.AST]) -> set[str]:
    """The modules that import statements name."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_one_way(room):
    files = [ROOT / room] if room.endswith(".py") else list((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        for module in imported(path):
            for banned in FORBIDDEN[room]:
                assert module != banned and not module.startswith(banned + "."), f"{path} imports {module}"


@pytest.mark.parametrize("room", ["engine", "store", "policies", "metrics", "replay", "analytic", "sweep", "planner"])
def test_what_is_found_does_not_need_the_words_for_it(room):
    """Only objects that a notebook shows load the report, and when they are shown."""
    for path in (ROOT / "sim" / room).rglob("*.py"):
        loaded = named(ast.parse(path.read_text(encoding="utf-8")).body)
        assert not [module for module in loaded if module.startswith(("kvplan.sim.report", "kvplan.sim.cli"))], path


def test_help_does_not_load_heavy_libraries():
    code = (
        "import sys, kvplan.sim.cli.app; "
        "print([m for m in ('pandas', 'matplotlib', 'pyarrow', 'scipy', 'torch', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.strip() == "[]"


def test_explain_loads_what_it_uses():
    """An instant command: half of its time is what it loads."""
    code = (
        "import sys; from kvplan.sim.cli.app import app; "
        "app(['explain', 'agents-2026', '--set', 'workload.sessions=100'], standalone_mode=False); "
        "print([m for m in ('scipy', 'pandas', 'simpy', 'kvplan.sim.simulation', 'kvplan.traces.registry') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def test_pydantic_builds_a_class_when_it_is_first_used():
    """Most commands use few of them, and what is inside another is built with that one."""
    from pydantic import BaseModel

    from kvplan.hwmodels import hfconfig
    from kvplan.sim import config
    from kvplan.validate.published import cases

    own: list[type[BaseModel]] = []
    left: list[type[BaseModel]] = [BaseModel]
    while left:
        own += (found := [each for each in left.pop().__subclasses__() if each.__module__.startswith("kvplan.")])
        left += found
    assert {config.Store, hfconfig.HfConfig, cases.Quantity} <= set(own)
    assert [each.__name__ for each in own if not each.model_config.get("defer_build")] == []


def test_what_the_wheel_leaves_out_is_not_listed_and_says_what_it_needs(monkeypatch, capsys):
    from kvplan.validate import __main__ as validate

    monkeypatch.setitem(validate.COMMANDS, "measure", "kvplan.validate.gone.command")
    assert validate.main(["--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert "micro" in listed
    assert "measure" not in listed
    assert validate.main(["measure", "--device", "cuda"]) == 2
    assert "needs a clone" in capsys.readouterr().err


def test_every_dependency_and_its_licence_is_listed():
    listed = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8").lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in project["dependencies"]:
        name = re.match(r"[\w-]+", requirement).group()
        row = re.search(rf"^\| {name} \|.*\| (.+) \|$", listed, re.MULTILINE)
        assert row and row.group(1) != "unknown", f"{name}: run .ci/licences.py"


def own_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, from its `def` on, without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is None:
        return lines
    docstring = function.body[0]
    return lines - (docstring.end_lineno - docstring.lineno + 1)


def test_functions_stay_short():
    paths = [path for room in ("sim", "traces", "hwmodels", "validate", "kvplan") for path in (ROOT / room).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    lengths = sorted(own_lines(node) for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    assert lengths[len(lengths) * 95 // 100] < 25
    made = {node.name: own_lines(part) for node in nodes if isinstance(node, ast.ClassDef) for part in node.body if is_constructor(part)}
    assert {name: lines for name, lines in made.items() if lines >= 25} == {}


def is_constructor(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def test_no_class_knows_too_much():
    """Of what a class sets in its methods. Tables of names, such as settings or a format's keys, are as long as what they mirror."""
    for room in ("sim", "traces", "hwmodels", "validate", "kvplan"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    known = {part.attr for part in ast.walk(node) if sets_an_attribute(part)}
                    assert len(known) <= 20, f"{path}: {node.name} has {len(known)} attributes"


def sets_an_attribute(node: ast.AST) -> bool:
    is_target = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    return is_target and isinstance(node.value, ast.Name) and node.value.id == "self"


DESIGN = (ROOT / "DESIGN.md").read_text(encoding="utf-8")
_PLACED = re.findall(r"`([\w/<>.-]+\.py):\s+([\w.]+)`", DESIGN)
"""File and name: `sim/simulation.py: simulate`. Files without a folder are in sim/engine/."""
_METHODS = re.findall(r"`(Store|Move|Clock|Eviction|Prefetch|Scheduler|Batching|Router|Write|Load)\.(\w+)`", DESIGN)
_OWNERS = {"Store": "sim/store/protocol.py", "Move": "sim/store/protocol.py"}


def _names(path: Path) -> set[str]:
    """What a module defines: functions, classes, their methods and fields (`Class.name`), and what it assigns."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        found |= _bound(node)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{name}" for each in ast.walk(node) for name in _bound(each)}
    return found


def _bound(node: ast.AST) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _file(name: str) -> Path:
    return ROOT / name if "/" in name else ROOT / "sim" / "engine" / name


def test_the_design_names_what_there_is():
    assert len(_PLACED) > 60 and len(_METHODS) > 15
    methods = [(_OWNERS.get(kind, "sim/policies/base.py"), f"{kind}.{name}") for kind, name in _METHODS]
    assert [f"{file}: {name}" for file, name in [*_PLACED, *methods] if name not in _names(_file(file))] == []


@pytest.mark.parametrize("page", ["DESIGN.md", "docs/decisions.md", "docs/results.md"])
def test_pages_name_files_that_there_are(page):
    text, folder = (ROOT / page).read_text(encoding="utf-8"), (ROOT / page).parent
    paths = re.findall(r"`((?:sim|traces|hwmodels|validate|kvplan|tests|docs)/[\w/<>.-]*)", text)
    assert [path for path in paths if not list(ROOT.glob(re.sub(r"<\w+>", "*", path)))] == []
    assert [link for link in re.findall(r"\]\(([\w./]+)", text) if not (folder / link).exists()] == []


def test_the_design_is_short_and_its_lines_are():
    lines = DESIGN.splitlines()
    assert len(lines) <= 300
    assert [line for line in lines if len(line) >= 120] == []


_SAY_LITTLE = {"read", "write", "run", "main", "get", "check", "do", "process", "handle", "execute"}
_PROTOCOLS = {
    "read": ["traces/formats/*.py"],  # `traces/registry.py` calls each by this name
    "run": [
        "sim/cli/*.py",  # what the command of this name does; `sim/cli/app.py` has its options
        "validate/*.py",  # one for each of `validate/__main__.py: CHECKS`
    ],
    "main": ["validate/*/command.py", "*/__main__.py", "sim/cli/app.py"],  # `validate/__main__.py: COMMANDS`, and where a process begins
}
"""Names that say little, and the files in which the caller asks for just this name."""


def test_a_function_is_found_by_its_name():
    """Except where one name in each of several files is what their caller asks for."""
    found = [
        (path.relative_to(ROOT).as_posix(), node.name)
        for room in ("sim", "traces", "hwmodels", "validate", "kvplan")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name in _SAY_LITTLE
    ]
    assert [f"{path}: {name}" for path, name in found if not any(fnmatch(path, each) for each in _PROTOCOLS.get(name, ()))] == []


def test_only_the_deployment_reckons_with_bytes_of_a_token():
    """Others ask it, or pass them on to what knows no deployment. The reference is independent on purpose."""
    apart = {ROOT / "sim" / "deployment.py", *(ROOT / "validate" / "checks" / "reference").glob("*.py")}
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
        for room in ("sim", "validate")
        for path in sorted({*(ROOT / room).rglob("*.py")} - apart)
        for parent in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if not isinstance(parent, ast.Call | ast.keyword | ast.Dict)
        for node in ast.iter_child_nodes(parent)
        if isinstance(node, ast.Attribute) and node.attr in ("kv_bytes", "hbm_kv_bytes")
    ]
    assert found == [], "ask Deployment.stored, tokens_in, in_hbm or tokens_in_hbm"
