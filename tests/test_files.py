"""What is written where: nothing that is not ours goes, nothing old goes before the new is in place, nothing is left behind."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from kvplan.sim.cli.app import app
from kvplan.sim.files import atomic, ours, told, workshop
from kvplan.sim.files.atomic import WriteError, replacing, write_text
from kvplan.sim.files.ours import Kind, OutputError, begins, check_file, check_folder, says
from kvplan.sim.report import rundir, sweepdir
from kvplan.sim.sweep.kept_runs import KeptRuns
from kvplan.sim.sweep.runs import Outcome

ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--set", "workload.sessions=5"]
SWEEP = [*SMALL, "--replications", "1", "--jobs", "1"]
PAIR = Kind("pair", lambda folder: says(folder / "a", lambda found: found["pair"]), ("a", "deep/b"))


def kvplan(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def write_pair(out: Path, content: str) -> None:
    with replacing(out, PAIR) as folder:
        (folder / "a").write_text(json.dumps({"pair": content}))
        (folder / "deep").mkdir()
        (folder / "deep" / "b").write_text(content)


def pair(folder: Path) -> str | None:
    """What a whole pair says; None for none. Fails for half of one."""
    if not folder.exists():
        return None
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) == ["a", "deep", "deep/b"]
    content = (folder / "deep" / "b").read_text()
    assert json.loads((folder / "a").read_text()) == {"pair": content}
    return content


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


# --- ours, and not ours -----------------------------------------------------------------------------------------------------------


def own_summary(**more: object) -> str:
    return json.dumps({"turns": 1, "provenance": {"kvplan": "0.1.0"}, **more})


FOREIGN = {
    "a coverage file": {"summary.json": '{"total": {"lines": 80}}'},
    "no JSON": {"summary.json": "{"},
    "a list": {"summary.json": "[]"},
    "text where an object belongs": {"summary.json": '{"provenance": "kvplan"}'},
    "nested too deep": {"summary.json": "[" * 100_000},
    "our names without a summary": {"turns.parquet": "x"},
    "one more file": {"summary.json": own_summary(), "notes.txt": "x"},
    "one more folder": {"summary.json": own_summary(), "src/main.py": "x"},
    "a folder of our file's name": {"summary.json": own_summary(), "latency.png/precious": "x"},
    "a summary that is a folder": {"summary.json/x": "x"},
    "a working folder with other things": {"summary.json": own_summary(), ".kvplan-12345678/precious": "x"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_only_what_is_wholly_ours_is_replaced(tmp_path, files):
    out = tmp_path / "run"
    for name, text in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(text)
    result = kvplan("simulate", *SMALL, "--out", out)
    assert result.exit_code == 2 and result.stdout == "" and f"will not replace {out}" in result.stderr
    assert {name: (out / name).read_text() for name in files} == files
    with pytest.raises(WriteError, match="will not replace"), replacing(out, rundir.KIND):
        """What has become foreign while a run was under way is left alone, too."""
    assert {name: (out / name).read_text() for name in files} == files and names(tmp_path) == {"run"}


def test_a_pipe_is_no_summary(tmp_path):
    os.mkfifo(tmp_path / "summary.json")
    assert rundir.KIND.foreign(tmp_path)


@pytest.mark.parametrize("summary", [own_summary(), own_summary(schema_version=1)])
def test_runs_of_every_version_are_ours(tmp_path, summary):
    (tmp_path / "summary.json").write_text(summary)
    assert not rundir.KIND.foreign(tmp_path)


def test_the_working_directory_and_what_holds_it_stay(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "link").symlink_to(tmp_path / "here")
    for command, word in ((("simulate", *SMALL), "replace"), (("compare", *SWEEP), "write into"), (("curve", *SWEEP), "write into")):
        for out in (".", "..", "../here", "../link", tmp_path, "/"):
            result = kvplan(*command, "--out", out)
            assert result.exit_code == 2 and f"will not {word} {out}: " in result.stderr, result.stderr
    assert names(tmp_path / "here") == set()


def test_an_output_never_takes_the_place_of_an_input(tmp_path, monkeypatch):
    import yaml

    from kvplan.sim import config

    monkeypatch.chdir(tmp_path)
    assert kvplan("simulate", *SMALL, "--out", "run").exit_code == 0
    assert kvplan("trace", "generate", "turns.csv", *SMALL).exit_code == 0
    Path("policy_of_mine.py").write_text("from kvplan.sim.policies.eviction.lru import Lru\nclass Mine(Lru):\n    NAME = 'mine'\n")
    monkeypatch.syspath_prepend(tmp_path)
    Path("c.yaml").write_text(yaml.safe_dump(config.load(None, SMALL[1:]).resolved()))
    Path("cat/node").mkdir(parents=True)
    for link, source in (("link.csv", "turns.csv"), ("t.png", "turns.csv"), ("c.png", "c.yaml"), ("p.png", "policy_of_mine.py")):
        Path(link).symlink_to(source)
    before = _files(tmp_path)
    trace = ["--trace", "turns.csv"]
    for arguments in (
        ["simulate", "run/config.resolved.yaml", "--out", "run"],
        ["simulate", "c.yaml", "--out", "c.yaml"],
        ["simulate", *trace, "--out", "turns.csv"],
        ["simulate", *SMALL, "--set", "catalogue=cat", "--out", "cat"],
        ["compare", "run/config.resolved.yaml", *SWEEP, "--out", "run"],
        ["curve", "c.yaml", *SWEEP, "--figure", "c.png"],
        ["curve", *trace, *SWEEP, "--figure", "t.png"],
        ["curve", *SWEEP, "--set", "catalogue=cat", "--figure", "cat/x.png"],
        ["curve", *SWEEP, "--set", "store.eviction=policy_of_mine:Mine", "--figure", "p.png"],
        ["trace", "describe", "turns.csv", "--figure", "t.png"],
        ["trace", "convert", "turns.csv", "link.csv"],
        ["trace", "generate", "c.yaml", "c.yaml"],
        ["trace", "generate", "turns.csv", *SMALL, "--set", "workload.trace=turns.csv"],
    ):
        result = kvplan(*arguments)
        assert result.exit_code == 2 and result.stdout == "" and "will not" in result.stderr, (arguments, result.stderr)
    assert _files(tmp_path) == before


def _files(folder):
    """What is in them, but for what Python keeps of a policy that it has read."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}


def test_a_name_of_the_catalogue_is_no_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("llama-2-13b", "default"):
        assert kvplan("simulate", *SMALL, "--no-baseline", "--out", name).exit_code == 0


def test_symbolic_links_are_followed(tmp_path):
    write_pair(tmp_path / "seven", "old")
    (tmp_path / "latest").symlink_to("seven")
    write_pair(tmp_path / "latest", "new")
    assert (tmp_path / "latest").is_symlink() and pair(tmp_path / "seven") == "new"
    (tmp_path / "dangling").symlink_to("deep/file.txt")
    write_text(tmp_path / "dangling", "x")
    assert (tmp_path / "deep" / "file.txt").read_text() == "x" and (tmp_path / "dangling").is_symlink()
    (tmp_path / "round").symlink_to("round")
    for check in (lambda path: check_file(path, begins(b"x")), lambda path: check_folder(path, PAIR)):
        with pytest.raises(OutputError, match="round in a circle"):
            check(tmp_path / "round")


def test_a_mount_point_is_written_into_but_not_replaced(tmp_path, monkeypatch):
    volume = tmp_path / "a volume"
    volume.mkdir()
    (tmp_path / "mounts").write_text(f"1 2 0:3 / {str(volume).replace(' ', chr(92) + '040')} rw - ext4 /dev/x rw\n")
    monkeypatch.setattr(ours, "_MOUNTS", tmp_path / "mounts")
    assert "mount point" in kvplan("simulate", *SMALL, "--out", volume).stderr
    check_folder(volume / "run", rundir.KIND)
    check_folder(volume, sweepdir.KIND)
    with pytest.raises(OutputError, match="mount point"):
        check_folder(volume, PAIR)


@pytest.mark.parametrize("name", ["x" * 300, f"{'x' * 300}/y", f"new/{'x' * 300}"])
def test_a_name_that_is_too_long_is_known_before(tmp_path, name):
    for check in (
        lambda path: check_file(path, begins(b"x")),
        lambda path: check_folder(path, PAIR),
        lambda path: check_folder(path, sweepdir.KIND),
    ):
        with pytest.raises(OutputError, match="File name too long"):
            check(tmp_path / name)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("files", "accepted"),
    [
        ({}, True),
        ({"compare.json": own_summary()}, True),
        ({"compare.json": own_summary(), "notes.txt": "x"}, True),
        ({"curve.json": json.dumps({"comparison": {"provenance": {"kvplan": "1"}}})}, True),
        ({"runs/0123456789abcdef.json": '{"result_sha256": "x"}'}, True),
        ({"runs/1/summary.json": own_summary()}, False),
        ({"compare.json": "{}"}, False),
        ({"compare.json": own_summary(), "curve.json": "{}"}, False),
        ({"compare.csv": "x"}, False),
    ],
)
def test_a_sweep_goes_to_a_folder_of_a_sweep(tmp_path, files, accepted):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert (not sweepdir.KIND.foreign(tmp_path)) is accepted


# --- whole or not at all ----------------------------------------------------------------------------------------------------------

_DIES = """
import os, sys
os.fsync = lambda descriptor: None
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_files import write_pair

def child(out, last):
    steps = 0
    def step(event, arguments):
        nonlocal steps
        if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "fcntl.flock"):
            steps += 1
            if steps > last:
                os._exit(9)
    sys.addaudithook(step)
    write_pair(out, "new")
    os._exit(0)

last, status = 0, 9
while status:
    out = Path(sys.argv[1]) / str(last) / "pair"
    if sys.argv[3] == "old":
        write_pair(out, "old")
    else:
        out.parent.mkdir()
    process = os.fork()
    if not process:
        child(out, last)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status in (0, 9), status
    last += 1
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked on this system")
@pytest.mark.parametrize("before", ["old", None])
def test_a_death_at_any_step_leaves_the_old_or_the_new(tmp_path, before):
    """A process that dies before its n-th call of the operating system, for every n."""
    command = [sys.executable, "-c", _DIES, str(tmp_path), str(ROOT / "tests"), str(before)]
    subprocess.run(command, cwd=ROOT, check=True)
    left = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(left) > 20
    found = []
    for folder in left:
        aside = [path for path in folder.glob(".kvplan-*/old/pair") if not (folder / "pair").exists()]
        found.append(pair(folder / "pair") or (pair(aside[0]) if aside else None))
        workshop.clear_leftovers(folder)
        assert pair(folder / "pair") == found[-1] and names(folder) == ({"pair"} if found[-1] else set())
        write_pair(folder / "pair", "newer")
        assert pair(folder / "pair") == "newer" and names(folder) == {"pair"}
    assert found == sorted(found, key=["old", None, "new"].index) and set(found) == {before, "new"}


def _counted(monkeypatch, fails_at: int) -> list[str]:
    """Lets the n-th call of the functions that change the disk fail; gives the list of calls."""
    calls: list[str] = []

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments, **options):
            calls.append(name)
            if len(calls) == fails_at:
                raise OSError(errno.EIO, "Input/output error", arguments[0])
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "replace", "mkdir", "fsync", "listdir"):
        wrap(name)
    return calls


@pytest.mark.parametrize("before", ["old", None])
def test_a_failure_at_any_step_is_told_and_leaves_the_old_or_the_new(tmp_path, monkeypatch, before):
    outcomes = set()
    for step in range(1, 100):
        folder = tmp_path / str(step)
        folder.mkdir()
        if before:
            write_pair(folder / "pair", before)
        with monkeypatch.context() as patch:
            calls = _counted(patch, step)
            try:
                write_pair(folder / "pair", "new")
                outcomes.add("new")
            except WriteError as error:
                assert "Input/output error" in str(error) and str(folder / "pair") in str(error)
                outcomes.add("failed")
        kept = pair(folder / "pair")
        if kept is None and before:
            (aside,) = folder.glob(".kvplan-*/old/pair")
            assert pair(aside) == before, "it could not be given back, and is where the message says"
        else:
            assert kept in (before, "new")
        workshop.clear_leftovers(folder)
        assert names(folder) <= {"pair"} and pair(folder / "pair") in (before, "new")
        if len(calls) < step:
            assert kept == "new" and outcomes == {"new", "failed"}
            return
    raise AssertionError("it never ended")


def test_two_writers_of_one_folder_do_not_disturb_each_other(tmp_path):
    out = tmp_path / "pair"
    write_pair(out, "old")
    with replacing(out, PAIR) as first:
        write_pair(out, "quick")
        assert first.exists(), "the working folder of a process that lives is none of another's business"
        (first / "a").write_text('{"pair": "slow"}')
        (first / "deep").mkdir()
        (first / "deep" / "b").write_text("slow")
        assert pair(out) == "quick"
    assert pair(out) == "slow" and names(tmp_path) == {"pair"}


def test_many_writers_at_once(tmp_path):
    """Processes that replace one folder again and again: it is whole at the end, and nothing else is there."""
    code = (
        "import os, sys; os.fsync = print; sys.path.insert(0, sys.argv[2]); from pathlib import Path; from test_files import write_pair\n"
        "for n in range(10): write_pair(Path(sys.argv[1]), sys.argv[3])"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "pair", ROOT / "tests", name], cwd=ROOT, stdout=subprocess.DEVNULL)
        for name in "abc"
    ]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert pair(tmp_path / "pair") in "abc" and names(tmp_path) == {"pair"}


def test_only_leftovers_are_cleared(tmp_path):
    dead, foreign, named, file = (tmp_path / name for name in (".kvplan-dead_123", ".kvplan-foreign1", ".kvplan-x", ".kvplan-abcdefgh"))
    for folder in (dead / "new" / "run", dead / "old" / "run", foreign / "src", named / "new"):
        folder.mkdir(parents=True)
    (dead / "old" / "run" / "x").write_text("kept")
    file.write_text("a file")
    write_text(tmp_path / "other", "x")
    assert names(tmp_path) == {foreign.name, named.name, file.name, "other", "run"}
    assert (tmp_path / "run" / "x").read_text() == "kept", "it had lost its place to nothing"


def test_commands_clear_what_is_left_where_they_write(tmp_path):
    for folder in (tmp_path, tmp_path / "c", tmp_path / "c" / "runs"):
        (folder / ".kvplan-dead_123" / "new").mkdir(parents=True)
    assert kvplan("simulate", *SMALL, "--no-baseline", "--out", tmp_path / "run").exit_code == 0
    assert names(tmp_path) == {"run", "c"}
    assert kvplan("compare", *SWEEP, "--vary", "store.eviction=lru", "--out", tmp_path / "c").exit_code == 0
    assert not list(tmp_path.rglob(".kvplan-*"))


@settings(max_examples=25)
@given(st.text(min_size=1, max_size=40).filter(lambda text: "/" not in text and "\0" not in text and text not in (".", "..")))
def test_a_file_of_any_name_is_written(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return
    if len(os.fsencode(name)) <= 255:
        write_text(folder / name, "x")
        write_text(folder / name, "y")
        assert names(folder) == {name} and (folder / name).read_text() == "y"


# --- printed, then written --------------------------------------------------------------------------------------------------------

WRITING = [
    (["simulate", *SMALL, "--out", "{}"], "total cost"),
    (["simulate", *SMALL, "--json", "--out", "{}"], '"turns"'),
    (["compare", *SWEEP, "--vary", "store.eviction=lru,fifo", "--out", "{}"], "variants of"),
    (["curve", *SWEEP, "--sizes", "64GB", "--policies", "lru", "--out", "{}"], "hit rates of resumed turns"),
    (["compare", *SWEEP, "--vary", "store.eviction=lru,fifo", "--figure", "{}.svg"], "variants of"),
    (["curve", *SWEEP, "--sizes", "64GB", "--policies", "lru", "--figure", "{}.png"], "hit rates of resumed turns"),
    (["trace", "describe", *SMALL, "--figure", "{}.png"], "sessions"),
    (["trace", "generate", "{}.csv", *SMALL], ""),
]


@pytest.mark.parametrize(("arguments", "words"), WRITING)
def test_what_cannot_be_written_is_printed_all_the_same(tmp_path, monkeypatch, arguments, words):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    out = tmp_path / "deep" / "x"
    result = kvplan(*(argument.replace("{}", str(out)) for argument in arguments))
    assert result.exit_code == 1, result.output
    assert words in result.stdout and "No space left on device" in result.stderr and "Traceback" not in result.stderr
    assert all(path.is_dir() for path in tmp_path.rglob("*")) and not list(tmp_path.rglob(".kvplan-*"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_what_cannot_be_printed_is_written_all_the_same(tmp_path):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "kvplan", "simulate", *SMALL, "--no-baseline", "--out", str(tmp_path / "run")]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "cannot print the result: No space left on device" in done.stderr
    assert not rundir.KIND.foreign(tmp_path / "run") and (tmp_path / "run" / "summary.json").exists()


def test_a_sweep_goes_on_when_a_run_cannot_be_kept(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise WriteError("cannot write it: No space left on device")

    monkeypatch.setattr("kvplan.sim.sweep.kept_runs.write_text", fail)
    result = kvplan("compare", *SWEEP, "--vary", "store.eviction=lru,fifo", "--out", tmp_path / "c")
    assert result.exit_code == 1 and "variants of" in result.stdout and "No space left on device" in result.stderr


def test_without_a_folder_no_run_is_kept(monkeypatch):
    monkeypatch.setattr(atomic, "workshop", None)
    assert KeptRuns(None, Outcome).count([]) == 0
    assert kvplan("compare", *SWEEP, "--vary", "store.eviction=lru").exit_code == 0


# --- errors of the operating system -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), "a/b: Permission denied", 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), "a: File name too long", 2),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), "a: No such file or directory", 2),
        (OSError(errno.EMFILE, "Too many open files", "a"), "a: Too many open files", 1),
        (OSError(errno.EIO, "Input/output error"), "Input/output error", 1),
        (OSError("odd"), "odd", 1),
    ],
)
def test_an_error_is_told_as_what_it_is(monkeypatch, error, line, code):
    assert (told.line(error), told.exit_code(error)) == (line, code)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("kvplan.sim.cli.simulate.simulate", fail)
    result = kvplan("simulate", *SMALL)
    assert (result.exit_code, result.stderr) == (code, f"kvplan: {line}\n")


def test_another_file_that_fails_while_one_is_written_is_named(tmp_path):
    with pytest.raises(WriteError, match=r"cannot write .*/pair: Too many open files \(/fonts/a.ttf\)"), replacing(tmp_path / "pair", PAIR):
        raise OSError(errno.EMFILE, "Too many open files", "/fonts/a.ttf")
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("trace", "generate", *SMALL), "turns.csv"),
        (("trace", "generate", *SMALL), "turns.parquet"),
        (("simulate", *SMALL, "--no-baseline", "--timeline"), "run.json"),
        (("trace", "describe", *SMALL, "--figure"), "lengths.png"),
    ],
)
def test_a_file_of_somebody_else_is_not_replaced_and_ours_is(tmp_path, command, name):
    there = tmp_path / name
    there.write_text("user,prompt,answer\nthe only copy,1,2\n")
    refused = kvplan(*command, there)
    assert refused.exit_code == 2 and "is not what kvplan writes, and would be lost" in refused.stderr
    assert there.read_text() == "user,prompt,answer\nthe only copy,1,2\n"
    there.write_text("")
    assert [kvplan(*command, there).exit_code for _ in range(2)] == [0, 0], "what is empty, and what we wrote"
