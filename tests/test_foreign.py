"""Files that others wrote: every reader says what is wrong with them, with the path, and takes nothing without end."""

import gzip
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import traces
from kvplan.foreign import files
from kvplan.hwmodels import CatalogueError, catalogue
from kvplan.sim import config as configuration
from kvplan.sim.config import ConfigError
from kvplan.sim.files.ours import OutputError
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.runs import Outcome
from kvplan.traces import TraceError, known_formats
from kvplan.traces.tokens import Counter


def _record(path):
    """A sweep's record of a run at `path`."""
    records = KeptRuns(path.parent, Outcome)
    records.folder = path.parent
    assert records.load(path.stem) is not None


READERS = {
    "configuration": (lambda path: configuration.load(path), ConfigError, ".yaml"),
    "catalogue entry": (lambda path: catalogue.load("node", str(path)), CatalogueError, ".yaml"),
    "prices": (lambda path: catalogue.load("prices", str(path)), CatalogueError, ".yaml"),
    "calibration": (lambda path: catalogue.load("calibration", str(path)), CatalogueError, ".yaml"),
    "model": (lambda path: catalogue.load("model", str(path)), CatalogueError, ".json"),
    "tokenizer": (Counter, TraceError, ".json"),
    "trace": (traces.read_trace, TraceError, ".json"),
    "record": (_record, OutputError, ".json"),
}
"""Kind of input -> what reads it, what it raises, the suffix of its files."""

each_reader = pytest.mark.parametrize("kind", READERS)


def refused(kind, path):
    """The message of a reader that refuses a file."""
    read, error, _ = READERS[kind]
    with pytest.raises(error) as caught:
        read(path)
    return str(caught.value)


@each_reader
@pytest.mark.parametrize("name", ["a folder", "a pipe", "a device", "a loop", "a long name", "bytes that are no text"])
def test_what_is_no_readable_file_is_told_as_what_it_is(tmp_path, kind, name):
    path = tmp_path / f"x{READERS[kind][2]}"
    if name == "a folder":
        (path / "sub").mkdir(parents=True)
    elif name == "a pipe":
        os.mkfifo(path)
    elif name == "a device":
        path.symlink_to("/dev/zero")
    elif name == "a loop":
        path.symlink_to(path)
    elif name == "a long name":
        path = tmp_path / ("x" * 300 + path.suffix)
    else:
        path.write_bytes(b"\xff\xfe\x00" * 50)
    if (kind, name) == ("record", "a long name"):
        return  # names of records are ours
    said = refused(kind, path)
    assert str(path) in said or path.name in said
    words = {"a folder": "folder", "a pipe": "pipe or device", "a device": "pipe or device", "a loop": "circle", "a long name": "too long"}
    assert words.get(name, "") in said


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "record"])
def test_a_missing_file_is_told(tmp_path, kind):
    path = tmp_path / f"none{READERS[kind][2]}"
    assert refused(kind, path) == f"cannot read {path}: no such file"


@each_reader
def test_files_that_may_not_be_read_and_too_many_of_them(tmp_path, monkeypatch, kind):
    path = tmp_path / f"x{READERS[kind][2]}"
    path.write_text("{}")
    for number, words in ((13, "no permission to read it"), (24, "too many open files")):

        def fail(*arguments, number=number):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patched:
            patched.setattr(files.os, "open", fail)
            assert words in refused(kind, path)


@pytest.mark.parametrize("kind", [kind for kind in READERS if kind != "trace"])
def test_files_that_are_read_whole_are_bounded(tmp_path, monkeypatch, kind):
    for name in ("YAML_BYTES", "JSON_BYTES", "TABLE_BYTES"):
        monkeypatch.setattr(files, name, 1 << 12)
    path = tmp_path / f"x{READERS[kind][2]}"
    path.write_text(" " * 5000)
    assert "larger than 4 KiB" in refused(kind, path)


def test_a_record_of_a_trace_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("kvplan.traces.source._RECORD_BYTES", 1 << 17)
    long = '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1], "x": "' + "a" * (1 << 18) + '"}'
    for text in (f"[{long}]", long, f"{long}\n{long}\n"):
        path = tmp_path / "t.json"
        path.write_text(text)
        with pytest.raises(TraceError, match="record is longer than"):
            traces.read_trace(path, "mooncake")
    short = '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1]}\n'
    path.write_text(short * 10_000)
    assert traces.read_trace(path, "mooncake").turns


def test_numbers_in_json_are_bounded(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"hidden_size": ' + "9" * 5000 + "}")
    assert "a number of 5,000 digits" in refused("model", path)


PACKED = {
    "gzip": gzip.compress,
    "zstd": lambda data: __import__("pyarrow").compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("name", known_formats())
def test_damaged_packed_files_are_refused(tmp_path, packing, name):
    whole = PACKED[packing](known_formats()[name].EXAMPLE.encode())
    path = tmp_path / "t.gz"
    for place in range(4, len(whole)):
        for data in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            path.write_bytes(data)
            readable_or_refused("trace", path)
    path.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused("trace", path) and str(path) in refused("trace", path)


def readable_or_refused(kind, path):
    read, error, _ = READERS[kind]
    try:
        read(path)
    except error as caught:
        assert str(caught)


EXAMPLES = {
    "trace": [module.EXAMPLE.encode() for module in known_formats().values()],
    "model": [json.dumps({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}).encode()],
    "record": [b'{"result": {"a": 1.0}, "result_sha256": "00"}'],
    "tokenizer": [b'{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'],
    "configuration": [b"store: {dram: 1GB, ttl_s: 1e3}\nseed: 12\n"],
}


@st.composite
def damaged(draw, kind):
    """Bytes of an example with some of them changed, packed or not; or any bytes."""
    data = draw(st.sampled_from(EXAMPLES.get(kind, [b"name: x\nsource: y\n"])))
    data = draw(st.sampled_from([bytes, *PACKED.values()]))(data)
    for _ in range(draw(st.integers(0, 4))):
        place, length = draw(st.integers(0, len(data))), draw(st.integers(0, 8))
        data = data[:place] + draw(st.binary(max_size=8)) + data[place + length :]
    return draw(st.sampled_from([data, draw(st.binary(max_size=200))]))


@each_reader
@settings(max_examples=int(os.environ.get("KVPLAN_FUZZ", "40")), deadline=None)
@given(data=st.data())
def test_readers_survive_any_bytes(tmp_path_factory, kind, data):
    path = tmp_path_factory.getbasetemp() / f"fuzz{READERS[kind][2]}"
    path.write_bytes(data.draw(damaged(kind)))
    readable_or_refused(kind, path)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "{pipe}"], "pipe or device"),
        (["simulate", "--set", "model={pipe}"], "pipe or device"),
        (["explain", "--set", "catalogue={pipe}"], "there is no catalogue folder"),
        (["trace", "describe", "{torn}"], "damaged"),
        (["simulate", "./" + "y" * 300], "name is too long"),
        (["simulate", "{pipe}/x.yaml"], "is no folder"),
    ],
)
def test_commands_say_it_in_one_line(tmp_path, arguments, words):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "torn.json.gz").write_bytes(gzip.compress(b"[" + os.urandom(500))[:-20])
    places = {"pipe": tmp_path / "pipe.yaml", "torn": tmp_path / "torn.json.gz"}
    done = subprocess.run(
        [sys.executable, "-m", "kvplan", *(word.format(**places) for word in arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and done.stdout == "" and words in done.stderr and done.stderr.count("\n") == 1
