"""Measuring, keeping and fitting: points survive interruptions, known coefficients are found again, nothing heavy is imported."""

import doctest
import json
import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from kvplan import hwmodels  # noqa: E402
from kvplan.hwmodels import catalogue, steptime  # noqa: E402
from kvplan.hwmodels.steptime import COEFFICIENTS, StepTime, pipeline_s  # noqa: E402
from kvplan.validate import __main__ as validate_main  # noqa: E402
from kvplan.validate.calibration import clock as clock_module  # noqa: E402
from kvplan.validate.calibration.clock import SteadyClock, WallClock  # noqa: E402
from kvplan.validate.calibration.fit import pipeline  # noqa: E402
from kvplan.validate.calibration.fit.links import fastest, fit_links  # noqa: E402
from kvplan.validate.calibration.measure import command, record  # noqa: E402
from kvplan.validate.calibration.measure import task as task_module  # noqa: E402
from kvplan.validate.calibration.measure.budget import Budget  # noqa: E402
from kvplan.validate.calibration.measure.record import Record, RecordError  # noqa: E402
from kvplan.validate.calibration.measure.task import LEVELS, Task, grid  # noqa: E402
from kvplan.validate.calibration.measure.timing import REPETITIONS, Timing, once, repeated  # noqa: E402
from kvplan.validate.calibration.speed import Speed  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 8,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 61,
    "max_position_embeddings": 128,
    "torch_dtype": "float32",
}
IDENTITY = {
    "device": "cpu",
    "machine": {"cpu": "a CPU", "dram_bytes": 2**34, "direct_io": True},
    "versions": {"torch": "2.13.0"},
    "threads": 1,
}
TRUTH = StepTime(8, fixed=4e-3, per_token=3e-5, per_pair=2e-9, per_history=5e-8, per_context=7e-8)
"""Of the whole model, head included."""
HEAD_S, HEAD_ROW_S = 3e-4, 1e-5


@pytest.fixture
def config(tmp_path):
    """A small model's config.json, in a folder that gives it its name."""
    path = tmp_path / "tiny" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    return str(path)


def measure(config, out, *more):
    return command.main(["--device", "cpu", "--model", config, "--out", str(out), "--threads", "1", *more])


def task(quantity, **parameters):
    return Task(quantity, parameters, 1.0, quantity, lambda _: Timing(1.0, 1.0, 1.0, 3))


def run(command):
    return {"command": command, "date": "2026-11-21"}


def timing(seconds):
    return Timing(seconds, 0.9 * seconds, 1.1 * seconds, 5)


# --- grids, budgets, repetitions --------------------------------------------------------------------------------------------------


def test_finer_grids_hold_the_coarser_ones():
    for low, high in ((16, 4096), (1, 32), (3, 1000), (7, 7)):
        for level in range(LEVELS - 1):
            coarse, fine = grid(low, high, level), grid(low, high, level + 1)
            assert set(coarse) <= set(fine) and (fine[0], fine[-1]) == (low, high)


def test_examples_in_docstrings():
    for module in (task_module, steptime):
        results = doctest.testmod(module)
        assert results.attempted and not results.failed


def test_a_point_that_would_not_end_in_time_is_left_out():
    now = [0.0]
    budget = Budget(120.0, clock=lambda: now[0])
    small, large = (Task("prefill", {}, work, "prefill", None) for work in (1.0, 100.0))
    assert budget.allows(large), "nothing is known yet"
    budget.learn(small, 0.5)
    assert budget.allows(small) and not budget.allows(large)
    budget.learn(large, 5.0)
    assert budget.allows(large)
    now[0] = 119.0
    assert not budget.allows(small) and budget.left_s == 1.0


def test_repetitions_are_counted_and_turn():
    turns = []
    found = repeated(lambda turn: turns.append(turn) or float(turn), may_take_s=0.0)
    assert found.repetitions == REPETITIONS[0] and turns == list(range(len(turns)))
    assert found.q25_s <= found.median_s <= found.q75_s and found.median_s == turns[-2]
    assert repeated(lambda _: 1.0, may_take_s=5.0).repetitions == REPETITIONS[1]


class _Machine:
    """Seconds that pass only when told, and a probe that finds a machine of a given slowness."""

    def __init__(self, slowness):
        self.slowness, self.next = slowness, slowness
        self.computed = self.real = 0.0

    def compute(self, seconds):
        self.computed += seconds
        self.real += seconds

    def look(self):
        self.slowness = self.next

    def probe(self):
        self.compute(0.1)
        self.look()


@pytest.fixture
def machine(monkeypatch):
    found = _Machine(slowness=2.0)
    times = SimpleNamespace(thread_time=lambda: found.computed, perf_counter=lambda: found.real)
    monkeypatch.setattr(clock_module, "time", times)
    return found


def test_time_is_that_of_the_work(machine):
    assert once(lambda: machine.compute(3), "cpu", WallClock()) == 3


def test_steady_time_of_work_is_what_it_computes(machine):
    def work():
        machine.real += 7
        machine.compute(4)

    assert once(work, "cpu", SteadyClock(machine)) == 2


def test_a_steady_clock_counts_computing_at_the_usual_speed_and_no_probes(machine):
    clock = SteadyClock(machine)
    machine.compute(4)
    assert clock.now == 2
    machine.next = 1.0
    clock.tick()
    assert clock.now == pytest.approx(2)
    machine.compute(3)
    assert clock.now == pytest.approx(5)
    clock.stopped(lambda: machine.compute(1))
    assert clock.now == pytest.approx(5)


def test_a_steady_clock_looks_now_and_then_only(machine):
    clock = SteadyClock(machine)
    machine.next = 1.0
    machine.compute(0.001)
    clock.tick()
    assert machine.slowness == 2
    machine.compute(0.01)
    clock.tick()
    assert machine.slowness == 1


def test_a_steady_clock_counts_waits_as_they_are(machine):
    clock = SteadyClock(machine)

    def wait():
        machine.real += 7
        machine.compute(2)

    clock.blocked(wait)
    assert clock.now == 7 + 2 / 2
    assert clock.until(20, SimpleQueue(), moving=False) is None
    assert clock.now == 20
    assert clock.pace == pytest.approx(8 / 9)


def test_slowness_is_what_the_latest_probes_took(monkeypatch):
    took = iter([3.0] * 400 + [6.0] * 4 + [12.0] * 4)
    monkeypatch.setattr(Speed, "_probed_s", lambda self: next(took))
    speed = Speed()
    assert (speed.usual_s, speed.slowness) == (3, 2)
    speed.probe()
    assert 2 < speed.slowness < 4
    for _ in range(3):
        speed.probe()
    assert speed.slowness == 4


# --- the folder -------------------------------------------------------------------------------------------------------------------


def test_points_are_kept_over_runs(tmp_path):
    point = task("copy", direction="to_host", memory="pageable", bytes=4096)
    first = Record(tmp_path, IDENTITY, run("first"))
    assert not first.has(point)
    first.add(point, timing(0.25))
    again = Record(tmp_path, IDENTITY, run("second"))
    assert first.has(point) and again.has(point)
    assert not again.has(task("copy", direction="to_host", memory="pageable", bytes=8192))
    (row,) = record.read_rows(tmp_path, "copy")
    assert (row["bytes"], row["median_s"], row["repetitions"]) == ("4096", "0.25", "5")
    assert [run["command"] for run in record.read_header(tmp_path)["runs"]] == ["first", "second"]


@pytest.mark.parametrize("torn", ["to_host,pageable,81", "to_host,pageable,8192,0.5,0.4,0.6,5"])
def test_a_line_without_its_end_is_dropped(tmp_path, torn):
    point = task("copy", direction="to_host", memory="pageable", bytes=4096)
    Record(tmp_path, IDENTITY, run("first")).add(point, timing(0.25))
    path = tmp_path / "copy.csv"
    whole = path.read_text()
    path.write_text(whole + torn)
    assert len(record.read_rows(tmp_path, "copy")) == 1
    again = Record(tmp_path, IDENTITY, run("second"))
    assert path.read_text() == whole and again.has(point)
    path.write_text(torn)
    Record(tmp_path, IDENTITY, run("third")).add(point, timing(0.5))
    assert record.read_rows(tmp_path, "copy")[0]["median_s"] == "0.5"


def test_what_a_folder_has_settled_stays(tmp_path):
    assert Record(tmp_path, IDENTITY, {}).settle("probe_s", lambda: 0.25) == 0.25
    assert Record(tmp_path, IDENTITY, {}).settle("probe_s", lambda: 0.5) == 0.25


def test_a_folder_is_of_one_machine_and_one_model_of_a_name(tmp_path):
    Record(tmp_path, IDENTITY, run("first")).add_model("tiny", {"hidden_size": 64})
    with pytest.raises(RecordError, match="threads 1, now it is 2: give another --out"):
        Record(tmp_path, {**IDENTITY, "threads": 2}, run("second"))
    with pytest.raises(RecordError, match="another 'tiny'"):
        Record(tmp_path, IDENTITY, run("second")).add_model("tiny", {"hidden_size": 65})


def test_a_folder_of_others_is_left_alone(config, tmp_path, capsys):
    (tmp_path / "copy.csv").write_text("a,b\n1,2")
    assert measure(config, tmp_path) == 2
    assert "will not write into" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {"copy.csv": "a,b\n1,2"}


def test_a_file_with_other_columns_is_refused(tmp_path):
    (tmp_path / "copy.csv").write_text("direction,bytes\nto_host,7\n")
    with pytest.raises(RecordError, match="columns are not direction, memory, bytes"):
        Record(tmp_path, IDENTITY, run("first"))


# --- the command ------------------------------------------------------------------------------------------------------------------


QUICK = {
    "command.LEVELS": 1,
    "timing.WARM_UP_S": 0.0,
    "timing.REPETITIONS": (1, 1),
    "drives.SIZES": (2**16, 2**18),
    "drives.FILE_BYTES": 2**20,
    "copies.SIZES": (2**12, 2**16),
}
"""What makes measuring quick, so that it is over within any budget."""


def test_measuring_needs_pytorch_numpy_and_pyyaml_only(config, tmp_path):
    banned = ("pydantic", "scipy", "pandas", "pyarrow", "rich", "typer", "simpy", "matplotlib", "jinja2", "ijson")
    code = (
        "import sys\n"
        f"for name in {banned}: sys.modules[name] = None\n"
        "from kvplan.validate.__main__ import main\n"
        "from kvplan.validate.calibration.measure import command, copies, drives, machine, timing\n"
        + "".join(f"{name} = {value}\n" for name, value in QUICK.items())
        + "machine.cache_bytes = lambda _: 2**16\n"
        + f"sys.exit(main(['measure', '--device', 'cpu', '--model', {config!r}, '--layers', '1', '--window', '64', '--max-batch', '2',"
        f" '--budget', '600', '--threads', '1', '--out', {str(tmp_path / 'out')!r}]))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    assert found.returncode == 0, found.stderr
    header = record.read_header(tmp_path / "out")
    assert header["models"]["tiny"]["head_dim"] == 16 and header["threads"] == 1 and header["machine"]["cpu_cores"] >= 1
    assert all(record.read_rows(tmp_path / "out", quantity) for quantity in ("prefill", "decode"))
    assert not list((tmp_path / "out").glob(".*")) and not list((tmp_path / "out").glob("*.tmp"))


def test_a_finished_folder_has_nothing_left_to_measure(config, tmp_path, monkeypatch, capsys):
    for name, value in QUICK.items():
        monkeypatch.setattr(f"kvplan.validate.calibration.measure.{name}", value)
    monkeypatch.setattr("kvplan.validate.calibration.measure.machine.cache_bytes", lambda _: 2**16)
    out = tmp_path / "out"
    assert measure(config, out, "--layers", "2", "--window", "64", "--max-batch", "2", "--budget", "600") == 0
    first = {quantity: record.read_rows(out, quantity) for quantity in record.COLUMNS}
    assert all(first.values()) and " 0 left out" in capsys.readouterr().err
    assert {row["loading"] for row in first["overlap"]} == {"none", "no-pl", "pl-b0", "pl-b2"}
    assert measure(config, out, "--layers", "2", "--window", "64", "--max-batch", "2", "--budget", "600") == 0
    assert capsys.readouterr().err.startswith("0 points measured")
    assert {quantity: record.read_rows(out, quantity) for quantity in record.COLUMNS} == first


def test_an_interruption_keeps_what_was_measured_and_leaves_no_other_file(config, tmp_path, monkeypatch, capsys):
    added = Record.add

    def interrupted(self, point, found):
        added(self, point, found)
        raise KeyboardInterrupt

    monkeypatch.setattr(Record, "add", interrupted)
    assert measure(config, tmp_path / "out", "--layers", "1", "--budget", "20") == 1
    assert "is kept" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["header.yaml", "prefill.csv"]
    assert len(record.read_rows(tmp_path / "out", "prefill")) == 1


@pytest.mark.parametrize(("model", "reason"), [("mixtral-8x7b", "mixtures of experts"), ("deepseek-v3", "MLA"), ("nope", "unknown model")])
def test_models_without_kernels_are_refused(tmp_path, capsys, model, reason):
    assert measure(model, tmp_path / "out") == 2
    assert reason in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_steady_time_is_that_of_one_thread_on_the_cpu(config, tmp_path, capsys):
    arguments = ["--device", "cpu", "--model", config, "--out", str(tmp_path / "out"), "--threads", "2", "--clock", "steady"]
    assert command.main(arguments) == 2
    assert "--threads 1" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_said(config, capsys):
    assert validate_main.main(["measure", "--device", "cuda", "--model", config]) == 2
    assert "no CUDA device" in capsys.readouterr().err


# --- the fit ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(config, tmp_path):
    """A folder named `lab` with points that follow TRUTH exactly, timed on 2 of the 8 layers."""
    from dataclasses import asdict

    from kvplan.validate.calibration.kernels import shape

    folder = tmp_path / "lab"
    kept = Record(folder, IDENTITY, run("made up for a test"))
    kept.add_model("tiny", asdict(shape.read_shape(config)))
    of_model = {"model": "tiny", "dtype": "float32"}

    def layers(seconds, rows):
        return timing((seconds - HEAD_S - HEAD_ROW_S * rows) * 2 / 8)

    for new in (16, 64, 128):
        for history in (0, 64, 512):
            point = task("prefill", **of_model, layers=2, new=new, history=history)
            kept.add(point, layers(TRUTH.prefill(new, history), 1))
    for batch in (1, 4, 16):
        kept.add(task("head", **of_model, rows=batch), timing(HEAD_S + HEAD_ROW_S * batch))
        for context in (64, 512):
            point = task("decode", **of_model, layers=2, batch=batch, context=context)
            kept.add(point, layers(TRUTH.decode(batch, batch * context), batch))
    kept.add(task("head", **of_model, rows=8), timing(HEAD_S + HEAD_ROW_S * 8))
    for size in (2**18, 2**20, 2**22, 2**24):
        for direction, bandwidth in (("to_device", 20e9), ("to_host", 16e9)):
            for memory, slower in (("pinned", 1), ("pageable", 3)):
                kept.add(task("copy", direction=direction, memory=memory, bytes=size), timing(1e-5 + slower * size / bandwidth))
        for direction, bandwidth in (("read", 5e9), ("write", 2e9)):
            for depth in (1, 4):
                point = task("ssd", direction=direction, bytes=size, queue_depth=depth)
                kept.add(point, timing(8e-5 + size / bandwidth * 2 / depth**0.5))
    return folder


def test_known_coefficients_are_found_again(measured, config):
    assert validate_main.main(["fit", str(measured), "--usd-per-h", "1.5"]) == 0
    model, node = hwmodels.load("model", config), hwmodels.load("node", "lab", str(measured))
    gpu, link, ssd = (hwmodels.load(kind, "lab", str(measured)) for kind in ("gpu", "link", "ssd"))
    steps = hwmodels.step_time(model, gpu, node, 1, str(measured))
    for name in COEFFICIENTS:
        assert getattr(steps, name) == pytest.approx(getattr(TRUTH, name), rel=1e-3), name
    assert steps.measured.prefill_error < 1e-3 > steps.measured.decode_error
    assert steps.source.startswith("measured: tiny on 1 x lab, kvplan validate fit")
    assert link.host_to_device.value == pytest.approx(20e9, rel=1e-4) and link.device_to_host.value == pytest.approx(16e9, rel=1e-4)
    assert ssd.read_bandwidth.value == pytest.approx(5e9, rel=1e-4) and ssd.latency.value == pytest.approx(8e-5, rel=1e-3)
    assert hwmodels.load("prices", "lab", str(measured)).gpus["lab"].value == pytest.approx(1.5 / 3600)
    assert hwmodels.roofline(model, gpu, node, 1).per_token == pytest.approx(TRUTH.per_token, rel=1e-3)


def test_what_lies_outside_the_measured_span_is_told(measured, config):
    assert validate_main.main(["fit", str(measured)]) == 0
    model, node, gpu = hwmodels.load("model", config), *(hwmodels.load(kind, "lab", str(measured)) for kind in ("node", "gpu"))
    steps = hwmodels.step_time(model, gpu, node, 1, str(measured))
    assert steps.outside(new=64, history=512) == steps.outside(batch=16, context=8192) == []
    assert steps.outside(new=8, history=513) == ["new 8 (measured: 16 to 128)", "history 513 (measured: 0 to 512)"]
    other = hwmodels.load("model", "llama-2-7b")
    guessed = hwmodels.step_time(other, gpu, node, 1, str(measured))
    assert guessed.source.startswith("roofline") and guessed.outside(new=10**9) == []


def test_a_calibration_is_of_one_model_only(measured, config):
    import dataclasses

    assert validate_main.main(["fit", str(measured)]) == 0
    model = hwmodels.load("model", config)
    (fitted,) = catalogue.load("calibration", "lab", str(measured)).steps
    assert fitted.is_for(model, 1) and not fitted.is_for(model, 2)
    narrower = dataclasses.replace(model.weights, dense=model.weights.dense // 2)
    for change in ({"torch_dtype": "float16"}, {"weights": narrower}, {"num_hidden_layers": 9}, {"name": "other"}):
        assert not fitted.is_for(dataclasses.replace(model, **change), 1)


def test_a_machine_may_have_a_gpu_of_the_catalogue(measured):
    assert validate_main.main(["fit", str(measured), "--gpu", "h100-80g", "--name", "our-h100"]) == 0
    assert hwmodels.load("node", "our-h100", str(measured)).gpu == "h100-80g"
    assert not (measured / "gpu").exists()


@pytest.mark.parametrize(
    ("line", "reason"), [("fixed: -1.0", "fixed"), ("fixed: .inf", "fixed"), ("fixd: 1.0", "unknown key"), ("new: [1]", "new")]
)
def test_a_calibration_is_read_strictly(measured, line, reason):
    assert validate_main.main(["fit", str(measured)]) == 0
    path = measured / "calibration" / "lab.yaml"
    key = line.partition(":")[0]
    lines = [text for text in path.read_text().splitlines() if not text.strip().startswith(key + ":")]
    path.write_text("\n".join([*lines, f"  {line}"]))
    with pytest.raises(hwmodels.CatalogueError, match=reason):
        catalogue.load("calibration", "lab", str(measured))


def test_too_few_points_are_not_fitted(tmp_path, capsys):
    assert validate_main.main(["fit", str(tmp_path)]) == 2
    Record(tmp_path, IDENTITY, run("made up"))
    assert validate_main.main(["fit", str(tmp_path)]) == 2
    assert "header.yaml" in (errors := capsys.readouterr().err) and "measure first" in errors


def test_a_link_that_was_hardly_measured_is_no_link():
    rows = [{"direction": "read", "queue_depth": "1", "bytes": str(size), "median_s": "1"} for size in (1, 2)]
    links = fit_links(rows, "direction", "queue_depth")
    assert links == {}
    with pytest.raises(ValueError, match="too few points of read"):
        fastest(links, "read")


def test_the_pipeline_is_compared_between_its_two_ends():
    compute, load, layers = 0.8, 0.4, 8
    job = {"model": "tiny", "dtype": "float32", "layers": str(layers), "batch": "1", "history": "64", "new": "8"}
    times = {"none": compute, "no-pl": compute + load}
    times |= {f"pl-b{ahead}": pipeline_s(layers, compute / layers, load / layers, ahead) for ahead in (0, 4)}
    rows = [{**job, "loading": loading, "median_s": str(seconds)} for loading, seconds in times.items()]
    found = list(pipeline.compared(rows))
    assert [name for name, _, _ in found] == ["tiny pl-b0", "tiny pl-b4"]
    assert all(predicted == pytest.approx(seen) for _, seen, predicted in found)
