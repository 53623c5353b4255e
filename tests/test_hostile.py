"""Names that others chose reach terminal, CSV, HTML and pictures as harmless text, from every command."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import traces
from kvplan.foreign.text import CELL, LINE, cell, guarded, unguarded, visible
from kvplan.hwmodels import catalogue
from kvplan.traces.formats import canonical
from kvplan.traces.workload import TraceError, untimed

ESCAPES = "\x1b[31m\x1b]8;;http://evil\x07\u202e\u2066\r\n\x85\u2028<script>alert(1)</script>$x$[bold]"
HOSTILE = "=@" + ESCAPES + "A" * 3000


@given(st.text(st.characters()))
def test_what_is_visible_is_one_printable_line_of_bounded_length(text):
    for longest in (CELL, LINE):
        assert visible(text, longest).isprintable() and len(visible(text, longest)) <= longest
    assert visible(text) == text or not text.isprintable() or len(text) > LINE


def test_long_text_keeps_its_ends():
    said = visible("x" * 5000 + ": no such file")
    assert said.startswith("xxx") and said.endswith(": no such file") and "more characters" in said and len(said) < LINE


@pytest.mark.parametrize("value", [-2.5, 3, 0.0, "-3", "-1e5", "+7", "", "free", "128GB", "it's"])
def test_cells_that_do_no_harm_stay(value):
    assert cell(value) == value


@pytest.mark.parametrize("value", ["=1+1", "@SUM(A1)", "+x", "-x", "- 3 points", "-1-1"])
def test_cells_that_would_be_formulas_become_text(value):
    assert cell(value) == "'" + value


@given(st.text(st.sampled_from("=+-@\t\r' a1")))
def test_guarded_names_come_back(name):
    assert unguarded(guarded(name)) == name and not guarded(name).startswith(("=", "+", "-", "@", "\t", "\r", " "))


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8) | st.sampled_from(
    ["=1", " x", "'=", "\t", "-", '"', "a,b", "\n", "'"]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=3))
def test_tables_give_back_the_tenants_that_were_written(tmp_path_factory, names):
    turns = len(names)
    table = untimed(range(turns), [5] * turns, [5] * turns).with_times(np.arange(turns, dtype=float), np.zeros(turns))
    object.__setattr__(table, "tenant", np.array(names))
    for suffix in canonical._WRITERS:
        path = tmp_path_factory.getbasetemp() / f"names{suffix}"
        canonical.write_canonical(table, path)
        assert traces.read_trace(path).tenant.tolist() == table.tenant.tolist()


def test_a_name_that_tables_cut_off_is_refused(tmp_path):
    table = untimed([0], [5], [5]).with_times(np.zeros(1), np.zeros(1))
    object.__setattr__(table, "tenant", np.array(["a\0b"]))
    with pytest.raises(TraceError, match="NUL"):
        canonical.write_canonical(table, tmp_path / "t.csv")
    assert not list(tmp_path.iterdir())


# --- every command ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A configuration, a model, a price list, a catalogue and a trace whose names are hostile."""
    root = tmp_path_factory.mktemp("hostile")
    home = root / ("=" + ESCAPES.replace("/", "|") + "A" * 100)
    home.mkdir()
    (home / "config.json").write_text(_config_json())
    settings = {
        "model": str(home / "config.json"),
        "workload": {"sessions": 30, "tenants": {HOSTILE: 0.5, "-x": 0.5}},
        "store": {"dram": "40GB", "ssd": "1TB"},
    }
    (home / "c.yaml").write_text(yaml.safe_dump(settings))
    prices = yaml.safe_load((catalogue._ROOT / "prices" / "paper-2024.yaml").read_text())
    (root / "-x.yaml").write_text(yaml.safe_dump({**prices, "name": "-x"}))
    own = root / "own" / "prices"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(yaml.safe_dump(_noted({**prices, "name": "mine"})))
    table = untimed([0, 0, 1], [5, 5, 5], [5, 5, 5], requests=HOSTILE, answers=ESCAPES, first_bad_record=HOSTILE)
    canonical.write_canonical(table.with_times(np.array([0.0, 9.0]), np.full(3, 2.0)), home / "t.parquet")
    (home / "bad.jsonl").write_text(json.dumps({"session_id": HOSTILE, "timestamp": HOSTILE}) + "\n")
    (home / "key.yaml").write_text(yaml.safe_dump({"store": {HOSTILE: 1, "evictoin": "lru"}}))
    return root


def _config_json():
    sizes = {"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008}
    return json.dumps({**sizes, "vocab_size": 32000, "max_position_embeddings": 4096})


def _noted(tree):
    """A price list, every row with a hostile note."""
    if not isinstance(tree, dict):
        return tree
    found = {key: _noted(value) for key, value in tree.items()}
    return {**found, "note": HOSTILE} if "unit" in found and "lifetime" not in found else found


COMMANDS = {
    "simulate": (["simulate", "{home}/c.yaml", "--out", "{root}/run"], 0),
    "explain": (["explain", "{home}/c.yaml"], 0),
    "explain a trace": (["explain", "{home}/c.yaml", "--set", "workload.tenants={{}}", "--trace", "{home}/t.parquet"], 0),
    "describe": (["trace", "describe", "{home}/t.parquet", "--model", "{home}/config.json"], 0),
    "convert": (["trace", "convert", "{home}/t.parquet", "{home}/t.csv"], 0),
    "generate": (["trace", "generate", "{home}/g.csv", "{home}/c.yaml"], 0),
    "compare": (
        ["compare", "{home}/c.yaml", "--vary", "prices=-x.yaml,paper-2024", "--replications", "2", "--jobs", "1", "--out", "cmp"],
        0,
    ),
    "curve": (
        ["curve", "{home}/c.yaml", "--sizes", "40GB,60GB", "--policies", "lru", "--replications", "1", "--jobs", "1", "--out", "crv"],
        0,
    ),
    "list": (["list", "prices", "--catalogue", "{root}/own"], 0),
    "a missing file": (["simulate", "{home}/none.yaml"], 2),
    "a bad record": (["trace", "describe", "{home}/bad.jsonl"], 2),
    "a bad key": (["simulate", "{home}/key.yaml"], 2),
    "a bad value": (["simulate", "--set", "store.eviction='" + ESCAPES.replace("\x1b", "").replace("\x07", "") + "'"], 2),
    "a missing model": (["explain", "--set", "model={home}"], 2),
}


WRITERS = "simulate", "compare", "generate"
"""Commands whose files are looked into as well."""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WRITERS])
def test_no_command_shows_what_a_terminal_acts_on(folder, name):
    run(folder, name)


def run(folder, name):
    """Runs a command, and looks at all that it prints."""
    arguments, code = COMMANDS[name]
    home = next(path for path in folder.iterdir() if path.name.startswith("=") and path.is_dir())
    given = [word.replace("{home}", str(home)).replace("{root}", str(folder)).replace("{{}}", "{}") for word in arguments]
    given = [
        f"{path}={json.dumps(value)}" if (path := word.partition("=")[0]) == "model" and (value := word[6:]) else word for word in given
    ]
    done = subprocess.run(
        [sys.executable, "-m", "kvplan", *given],
        capture_output=True,
        cwd=folder,
        timeout=300,
        env={"PATH": "", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == code, done.stderr.decode()
    for stream in (done.stdout, done.stderr):
        for line in stream.decode().split("\n"):
            assert line.isprintable() and len(line) < LINE + 200, line
    if code == 2:
        assert done.stderr.count(b"\n") == 1


def test_pages_and_tables_of_a_run_hold_harmless_text(folder):
    for name in WRITERS:
        run(folder, name)
    for page in (folder / name / file for name in ("run", "cmp") for file in ("report.html", "report.md")):
        text = page.read_text(encoding="utf-8")
        assert not set(text) & set("\x1b\x07\u202e\u2066\x85\u2028")
        shown = [line for line in text.splitlines() if page.suffix == ".html" or not line.startswith("    ")]  # a block of code in Markdown
        assert not any("<script>alert" in line for line in shown)
    rows = list(csv.DictReader(io.StringIO((folder / "cmp" / "compare.csv").read_text())))
    assert {row["variant"] for row in rows} == {"'-x.yaml", "paper-2024"} and all(float(row["seed"]) for row in rows)
    converted = next(folder.glob("=*/g.csv"))
    assert "-x" in traces.read_trace(converted).tenant.tolist() and "'-x" in converted.read_text()
