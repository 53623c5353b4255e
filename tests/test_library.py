"""kvplan as a library: the public names, overrides by path, results as tables, and the summary as typed."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np
import pytest
from typer.testing import CliRunner

import kvplan
from kvplan.sim.cli.app import app
from kvplan.sim.metrics import schema
from kvplan.sim.metrics.intervals import intervals

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"workload.sessions": 30, "store.dram": "8GB"}
FLAGS = [part for path, value in SMALL.items() for part in ("--set", f"{path}={value}")]


# --- the face ----------------------------------------------------------------------------------------------------------------------


def test_every_public_name_is_there_and_known_to_type_checkers():
    tree = ast.parse((ROOT / "kvplan" / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.asname or alias.name for node in block.body for alias in node.names}
    assert typed == set(kvplan.__all__) == set(dir(kvplan))
    assert all(getattr(kvplan, name) is not None for name in kvplan.__all__)
    with pytest.raises(AttributeError, match="simulat"):
        kvplan.simulat  # noqa: B018


def test_importing_kvplan_loads_nothing_heavy():
    code = "import sys, kvplan; print({'numpy', 'pandas', 'pydantic', 'typer'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "set()"


def test_the_lines_in_the_readme_run(capsys):
    block = re.search(r"```python\n(import kvplan\n.*?)```", (ROOT / "docs" / "glance.md").read_text(encoding="utf-8"), re.DOTALL).group(1)
    exec(block.replace('"lookahead"]}', '"lookahead"]}, jobs=1, replications=1').replace("200", "20"), {})
    assert "lookahead" in capsys.readouterr().out


# --- overrides ---------------------------------------------------------------------------------------------------------------------


def test_overrides_by_path_are_those_written_as_text():
    by_path = kvplan.load("default", {**SMALL, "warmup_turns": np.int64(3), "workload.think_time": {"median_s": 9}, "store.ttl_s": None})
    texts = ["workload.sessions=30", "store.dram=8GB", "warmup_turns=3", "workload.think_time={median_s: 9}", "store.ttl_s=null"]
    assert by_path == kvplan.load("default", texts)


def test_overrides_by_path_keep_their_types():
    assert kvplan.load(None, {"workload.trace": "007"}).workload.trace == "007"
    assert kvplan.load(None, {"workload.trace": Path("a") / "b"}).workload.trace == str(Path("a") / "b")
    with pytest.raises(kvplan.ConfigError, match=r"store\.dram"):
        kvplan.load(None, {"store.dram": 128})
    with pytest.raises(kvplan.ConfigError, match=r"override store\.drum: 8GB: unknown path .*did you mean 'store\.dram'"):
        kvplan.load(None, {"store.drum": "8GB"})


def test_overrides_by_path_leave_what_they_were_made_of():
    arrival = {"process": "poisson", "rate_per_s": 1.0}
    kvplan.load(None, {"workload.arrival": arrival, "workload.arrival.rate_per_s": 2.0})
    assert arrival["rate_per_s"] == 1.0


def test_a_configuration_is_taken_where_a_name_is():
    config = kvplan.load("paper-13b")
    assert kvplan.load(config) is config
    assert kvplan.load(config, {"seed": 7}) == kvplan.load("paper-13b", ["seed=7"])


# --- results -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result():
    return kvplan.simulate(kvplan.load("default", SMALL))


def test_a_run_is_what_the_command_gives(result):
    printed = CliRunner().invoke(app, ["simulate", "--no-baseline", "--json", *FLAGS])
    found = json.loads(printed.stdout)
    warnings = found.pop("warnings")  # the command adds those of `kvplan explain`
    assert {"unused_settings", "assumptions"} < found.keys(), "what a report says beside"
    found = {key: value for key, value in found.items() if key not in ("unused_settings", "assumptions")}
    assert found == {key: value for key, value in result.summary.items() if key != "warnings"} | {"intervals": intervals(result)}
    assert set(result.summary["warnings"]) <= set(warnings)


def test_a_run_as_a_table_has_a_row_per_turn(result):
    table = result.to_frame()
    assert len(table) == result.summary["turns"]
    ttft = table["first_token_s"] - table["arrival_s"]
    assert ttft.mean() == pytest.approx(result.summary["ttft_s"]["mean"])


def test_results_show_themselves_briefly_and_as_html(result):
    assert len(repr(result)) < 200
    assert f"{result.summary['turns']:,} turns" in repr(result)
    assert result._repr_html_().startswith("<pre")
    assert "hit rate" in result._repr_html_()


def test_comparing_is_what_the_command_gives():
    given = kvplan.compare(kvplan.load("default", SMALL), {"store.eviction": ["lru", "fifo"], "seed": [1, 2]}, replications=2, jobs=1)
    command = ["compare", "--vary", "store.eviction=lru,fifo", "--vary", "seed=1,2", "--replications", "2", "--jobs", "1", "--json", *FLAGS]
    assert json.loads(CliRunner().invoke(app, command).stdout) == given.data
    table = given.to_frame()
    assert len(table) == 8
    mean = table[table["variant"] == given.data["variants"][0]["label"]]["ttft_s.mean"].mean()
    assert mean == pytest.approx(given.data["variants"][0]["mean"]["ttft_s.mean"])
    assert len(repr(given)) < 200
    assert "<pre " in given._repr_html_()


def test_settings_that_go_together_are_given_in_pairs():
    given = kvplan.compare(kvplan.load(None, SMALL), {"store.dram+store.ssd": [("8GB", "0GB"), ("0GB", "0GB")]}, replications=1, jobs=1)
    assert [variant["settings"]["store.ssd"] for variant in given.data["variants"]] == ["0GB", "0GB"]
    with pytest.raises(kvplan.ConfigError, match="1 values for 2 paths"):
        kvplan.compare(None, {"store.dram+store.ssd": [("8GB",)]})
    with pytest.raises(kvplan.ConfigError, match="no values"):
        kvplan.compare(None, {"store.dram": []})


def test_finished_runs_are_kept_where_asked(tmp_path):
    done = []
    for _ in range(2):
        kvplan.compare(kvplan.load(None, SMALL), {"store.eviction": ["lru"]}, replications=2, jobs=1, keep=tmp_path,
                       progress=lambda *count: done.append(count))  # fmt: skip
    assert done == [(0, 2), (1, 2), (2, 2), (2, 2)]


def test_a_curve_is_what_the_command_gives():
    given = kvplan.curve(kvplan.load("default", SMALL), "dram", ["8GB", "16GB"], ["lru"], replications=2, jobs=1)
    command = [
        "curve",
        "--tier",
        "dram",
        "--sizes",
        "8GB,16GB",
        "--policies",
        "lru",
        "--replications",
        "2",
        "--jobs",
        "1",
        "--json",
        *FLAGS,
    ]
    assert json.loads(CliRunner().invoke(app, command).stdout) == given.data
    assert given.to_frame()["bytes"].tolist() == [8e9, 16e9]
    assert given.figure()._repr_png_().startswith(b"\x89PNG")
    assert len(repr(given)) < 200
    assert "<pre " in given._repr_html_()


# --- the summary -------------------------------------------------------------------------------------------------------------------


def faults(value, kind, where="summary"):
    """Where a value is not what its type says, key by key."""
    if is_typeddict(kind):
        hints = get_type_hints(kind)
        yield from (f"{where}: no {key}" for key in kind.__required_keys__ - value.keys())
        yield from (f"{where}.{key} is not in the schema" for key in value.keys() - hints.keys())
        for key in value.keys() & hints.keys():
            yield from faults(value[key], hints[key], f"{where}.{key}")
    elif get_origin(kind) is dict:
        for key, item in value.items():
            yield from faults(item, get_args(kind)[1], f"{where}.{key}")
    elif get_origin(kind) is list:
        for item in value:
            yield from faults(item, get_args(kind)[0], where)
    elif get_origin(kind) is Literal:
        if value not in get_args(kind):
            yield f"{where} is {value!r}, not {kind}"
    elif get_origin(kind) in (Union, UnionType):
        if all(list(faults(value, each, where)) for each in get_args(kind)):
            yield f"{where} is {value!r}, not {kind}"
    elif not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        yield f"{where} is {value!r}, not {kind}"


@pytest.mark.parametrize("tiers", [{}, {"store.ssd": "0GB"}, {"store.dram": "0GB", "store.ssd": "0GB"}, {"store.hbm": "4GB"}])
def test_the_summary_is_what_its_type_says(tiers):
    summary = kvplan.simulate(kvplan.load("default", {**SMALL, **tiers})).summary
    assert next(iter(summary)) == "schema_version"
    assert summary["schema_version"] == schema.SCHEMA_VERSION == 1
    assert list(faults(summary, schema.Summary)) == []


def test_the_schema_test_finds_what_is_wrong(result):
    summary = {**result.summary, "turns": "many", "new": 1}
    del summary["sessions"]
    assert len(list(faults(summary, schema.Summary))) == 3


def test_values_of_an_axis_are_those_that_python_has():
    """They are not written as text and read again: a float stays what it is to the last digit, and text that looks like a number text."""
    from kvplan.sim.sweep.axes import Axis, points

    for path, value in (("store.ttl_s", 0.1 + 0.2), ("store.ttl_s", 1e22), ("workload.trace", "007"), ("deployment.max_batch", 8)):
        (point,) = points([Axis.of(path, [value])])
        assert point.overrides() == [(path, value)] and type(point.overrides()[0][1]) is type(value)
    assert kvplan.load(None, points([Axis.of("store.ttl_s", [0.1 + 0.2])])[0].overrides()).store.ttl_s == 0.1 + 0.2
