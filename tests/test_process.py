"""Commands as processes: how they end, whatever ends them, and where what they print goes. No test waits for a time: a policy says on
stderr that it is reached and then goes round for ever, so that a signal always finds the same state."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kvplan.sim.cli.app import app

STUCK = """
import os, pathlib
from kvplan.sim.policies.eviction.lru import Lru

class Stuck(Lru):
    def __init__(self, view):
        super().__init__(view)
        if not pathlib.Path("go").exists():
            os.write(2, b"reached\\n")  # in one piece: two processes do
            while True:  # not asleep: a signal just before a lock blocks would wait as long
                pass
"""
HEARS = """
import os, signal, sys
from pydantic import TypeAdapter
from pydantic_core import core_schema
from kvplan.sim.cli import process

class Kind:
    def __hash__(self):  # asked for by pydantic's C code, which makes an interrupt here another error
        os.kill(os.getpid(), signal.SIGINT)
        return 1

    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        return core_schema.literal_schema([cls()])

def built():
    TypeAdapter(Kind)
    while True:
        pass

def made_another():
    try:
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            pass
    except KeyboardInterrupt:
        raise ImportError("half of it") from None

sys.exit(process.run_command(globals()[sys.argv[1]]))
"""
SMALL = ["--set", "workload.sessions=40"]
ENDS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
NOTHING = ["kvplan: interrupted, nothing was written"]


@pytest.fixture
def start(tmp_path):
    """A function that starts kvplan in a folder with the policy above; what still runs at the end is killed."""
    (tmp_path / "stuck.py").write_text(STUCK)
    started = []

    def begin(*arguments, python=(), **more):
        environment = {**os.environ, "KVPLAN_GUARDS": "0", **more.pop("env", {})}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True} | more
        command = [sys.executable, *python, "-m", "kvplan", *map(str, arguments)]
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, preexec_fn=_hears_all, **options)
        started.append(process)
        return process

    yield begin
    for process in started:
        with process:  # closes its pipes, and waits
            process.kill()


def _hears_all():
    """A shell's background job ignores SIGINT, and so do its children, unless they say otherwise."""
    for number in ENDS:
        signal.signal(number, signal.SIG_DFL)


def _until(process, word, times=1):
    """Reads stderr up to a line with the word."""
    for _ in range(times):
        while word not in (line := process.stderr.readline()):
            assert line, f"it ended before {word}"


# --- signals ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ENDS)
def test_what_ends_a_command_leaves_nothing(number, start, tmp_path):
    process = start("simulate", "--no-baseline", *SMALL, "--set", "store.eviction=stuck:Stuck", "--out", "run")
    _until(process, "reached")
    process.send_signal(number)
    process.send_signal(number)  # closing a terminal sends it more than once
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1 and stdout == "" and stderr.splitlines() == NOTHING
    assert {path.name for path in tmp_path.iterdir()} <= {"stuck.py", "__pycache__"}


@pytest.mark.parametrize(("send", "number"), [(os.killpg, signal.SIGINT), (os.killpg, signal.SIGHUP), (os.kill, signal.SIGTERM)])
def test_workers_end_when_their_parent_is_told_to(send, number, start):
    process = start("compare", *SMALL, "--vary", "store.eviction=stuck:Stuck", "--replications", "2", "--jobs", "2")
    _until(process, "reached", times=2)
    send(process.pid, number)
    _, stderr = process.communicate(timeout=300)  # until the last process that holds the pipe, which all workers do, has ended
    assert process.returncode == 1 and len(stderr.splitlines()) == 1 and "nothing is kept" in stderr


def test_workers_end_after_a_killed_parent(start):
    process = start("compare", *SMALL, "--vary", "store.eviction=stuck:Stuck", "--replications", "2", "--jobs", "2")
    _until(process, "reached", times=2)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("module", "times"), [("typer", 1), ("numpy", 1), ("joblib", 1), ("numpy", 2)])
def test_ctrl_c_while_modules_load_is_one_line(module, times, start):
    """With -X importtime Python says on stderr what it has loaded; the second time it is a worker that does."""
    command = ["compare", *SMALL, "--vary", "store.eviction=stuck:Stuck", "--replications", "2", "--jobs", "2"]
    process = start(*command, python=["-X", "importtime"])
    _until(process, f" {module}\n", times)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=300)
    said = [line for line in stderr.splitlines() if not line.startswith("import time:") and line != "reached"]
    assert process.returncode == 1 and stdout == "" and len(said) == 1 and said[0].startswith("kvplan: interrupted")


@pytest.mark.parametrize("command", ["built", "made_another"])
def test_an_interrupt_that_others_would_make_an_error_is_one_line(command):
    ran = subprocess.run([sys.executable, "-c", HEARS, command], capture_output=True, text=True, preexec_fn=_hears_all, timeout=300)
    assert (ran.returncode, ran.stdout, ran.stderr.splitlines()) == (1, "", NOTHING)


def test_what_is_kept_is_said(start, tmp_path):
    command = ["compare", *SMALL, "--vary", "store.eviction=lru,fifo,stuck:Stuck", "--replications", "2", "--jobs", "1", "--out", "c"]
    process = start(*command)
    _until(process, "reached")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=300)
    kept = tmp_path.resolve() / "c" / "runs"
    assert process.returncode == 1 and "2 of 6 runs are kept in" in stderr and len(list(kept.iterdir())) == 2


def test_a_killed_comparison_goes_on_where_it_was(start, tmp_path):
    command = ["compare", *SMALL, "--vary", "store.eviction=lru,fifo,stuck.py:Stuck", "--replications", "2", "--jobs", "1", "--out", "c"]
    command += ["--json"]
    process = start(*command)
    _until(process, "reached")
    process.kill()
    assert process.communicate()[0] == ""
    assert len(list((tmp_path / "c" / "runs").glob("[!.]*.json"))) == 2
    (tmp_path / "go").touch()
    again = start(*command)
    stdout, stderr = again.communicate()
    assert again.returncode == 0 and "2 of 6 runs were done before" in stderr
    assert json.loads(stdout) == json.loads((tmp_path / "c" / "compare.json").read_text())


def test_an_early_end_is_no_warning(start):
    process = start("compare", *SMALL, "--vary", "store.eviction=lru,fifo", "--replications", "12", "--jobs", "2", "--metric", "nonsense")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2 and len(stderr.splitlines()) == 1 and "no run has such a measure" in stderr


# --- streams ----------------------------------------------------------------------------------------------------------------------

LOCALES = [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]


@pytest.mark.parametrize("locale", LOCALES, ids=["ioencoding", "C"])
def test_what_the_locale_cannot_show_is_replaced(locale, start, tmp_path):
    process = start("simulate", "--no-baseline", *SMALL, "--out", "run", env=locale)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0 and stderr == "wrote run\n"
    assert "hit rate, all turns" in stdout and stdout.isascii()
    assert "–" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    process = start("validate", "micro", env=locale)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0 and stdout.isascii() and "Traceback" not in stderr


@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_a_closed_stream_stops_nothing(closed, start, tmp_path):
    def close():
        for number in closed.split():
            os.close(int(number))

    command = [sys.executable, "-m", "kvplan", "simulate", "--no-baseline", *SMALL, "--out", "run"]
    process = subprocess.run(command, cwd=tmp_path, preexec_fn=close, capture_output=True, text=True)
    assert process.returncode == 0 and "Traceback" not in process.stderr
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["turns"] > 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_full_disk_is_one_message_and_what_was_asked_for_is_written(json_too, start, tmp_path):
    with open("/dev/full", "w") as full:
        process = start("simulate", "--no-baseline", *SMALL, "--out", "run", *json_too, stdout=full)
        _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1 and "kvplan: cannot print the result: No space left on device" in stderr.splitlines()
    assert len(stderr.splitlines()) <= 2 and (tmp_path / "run" / "summary.json").exists()
    with open("/dev/full", "w") as full:
        process = start("simulate", "--no-baseline", *SMALL, stderr=full)
    assert "hit rate" in process.communicate()[0] and process.returncode == 0


def test_a_reader_that_is_gone_is_no_traceback(start, tmp_path):
    read, write = os.pipe()
    os.close(read)
    process = start("simulate", "--no-baseline", *SMALL, "--json", "--out", "run", stdout=write)
    os.close(write)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 1 and stderr in ("", "wrote run\n") and (tmp_path / "run" / "summary.json").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_names_that_are_no_text_work_or_are_one_message(start, tmp_path):
    (tmp_path / "b\udcff.yaml").write_text("workload: {sessions: 30}")
    for command in (["simulate", "--no-baseline"], ["compare", "--vary", "store.eviction=lru", "--replications", "1"]):
        process = start(*command, "b\udcff.yaml", "--out", f"{command[0]}\udcff")
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0 and f"wrote {command[0]}" in stderr
    assert (tmp_path / "simulate\udcff" / "turns.parquet").exists() and (tmp_path / "compare\udcff" / "compare.json").exists()
    process = start("trace", "generate", "b\udcff.parquet", *SMALL)
    assert process.communicate() and process.returncode == 0 and (tmp_path / "b\udcff.parquet").exists()
    process = start("simulate", "--trace", "b\udcff.parquet")
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2 and "is no text in" in stderr and len(stderr.splitlines()) == 1


# --- users' own policies ----------------------------------------------------------------------------------------------------------


LOUD = "import pathlib\npathlib.Path('imported').touch()\n"


@pytest.mark.parametrize("command", [["explain"], ["trace", "describe"], ["trace", "generate", "t.csv"], ["simulate"]])
def test_code_of_a_configuration_is_imported_by_a_run_alone(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "loud", raising=False)
    (tmp_path / "loud.py").write_text(LOUD)
    settings = [f"{path}=loud:X" for path in ("scheduler", *(f"store.{kind}" for kind in ("eviction", "prefetch", "write", "load")))]
    done = CliRunner().invoke(app, [*command, *SMALL, *(word for setting in settings for word in ("--set", setting))])
    assert (tmp_path / "imported").exists() == (command == ["simulate"]), done.output
    assert done.exit_code == (2 if command == ["simulate"] else 0)


def test_an_own_policy_is_found_from_the_working_directory(start, tmp_path):
    """By modules and by a file, in processes too, with what they import: from the working directory, and from a file's folder."""
    (tmp_path / "sub").mkdir()
    own = "from {helper} import nothing\nfrom kvplan.sim.policies.eviction.lru import Lru\n\n\nclass Own(Lru):\n    NAME = 'own'\n"
    for place in ("mine.py", "sub/module.py"):
        (tmp_path / place).write_text(own.format(helper="helper_of_mine"))
    (tmp_path / "sub" / "file.py").write_text(own.format(helper="beside_it"))
    for helper in ("helper_of_mine.py", "sub/beside_it.py"):
        (tmp_path / helper).write_text("nothing = None\n")
    names = ["mine:Own", "sub/file.py:Own", "sub.module:Own"]
    process = start(
        "compare", *SMALL, "--vary", f"store.eviction={','.join(['lru', *names])}", "--replications", "2", "--jobs", "2", "--json"
    )
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    lru, *mine = json.loads(stdout)["variants"]
    assert [each["label"] for each in mine] == names and all(each["mean"] == lru["mean"] for each in mine)


def test_a_run_is_another_when_code_of_its_policy_is(start, tmp_path):
    source = "import helper_of_it\nfrom kvplan.sim.policies.eviction.lru import Lru\n\n\nclass Own(Lru):\n    NAME = 'own'\n"
    (tmp_path / "own.py").write_text(source)
    command = ["compare", *SMALL, "--vary", "store.eviction=own.py:Own", "--replications", "1", "--json"]
    runs = []
    for path, text in (("helper_of_it.py", ""), ("helper_of_it.py", "x = 1\n"), ("own.py", source + "\n"), ("unused.py", "")):
        (tmp_path / path).write_text(text)
        runs += json.loads(start(*command).communicate()[0])["variants"][0]["runs"]
    assert len(set(runs)) == 3 and runs[2] == runs[3]


def test_two_files_of_one_name_are_two_policies(tmp_path, monkeypatch):
    from kvplan.sim.policies import registry

    for name in ("one", "other"):
        Path(tmp_path / name).mkdir()
        text = f"from kvplan.sim.policies.eviction.lru import Lru\n\n\nclass Own(Lru):\n    SAID = {name!r}\n"
        (tmp_path / name / "random.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = [registry.find("eviction", f"{tmp_path}/{name}/random.py:Own").SUPERVISED.SAID for name in ("one", "other")]
    assert found == ["one", "other"]
    import random

    assert random.Random is not None


@pytest.mark.parametrize("name", ["mine x:Y", "a:b:c", ":X", "mine:", "a..b:X", "mine:1"])
def test_what_names_no_class_is_refused_before_anything_is_imported(name):
    from kvplan.sim import config

    with pytest.raises(config.ConfigError, match=r"write package\.module:Class, or path/to/file\.py:Class"):
        config.load(None, [f"store.eviction='{name}'"])
