"""The mini server: real KV in memory and in files follows the simulator's store, gives the right logits, and survives faults."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import yaml

torch = pytest.importorskip("torch")

from kvplan.hwmodels import catalogue as catalogue_of  # noqa: E402
from kvplan.hwmodels.steptime import StepTime  # noqa: E402
from kvplan.sim import config  # noqa: E402
from kvplan.sim.build_workload import build_workload  # noqa: E402
from kvplan.sim.config import ConfigError  # noqa: E402
from kvplan.sim.files.ours import OutputError  # noqa: E402
from kvplan.sim.simulation import simulate  # noqa: E402
from kvplan.traces import Workload  # noqa: E402
from kvplan.validate.calibration.clock import SteadyClock, Stuck, WallClock  # noqa: E402
from kvplan.validate.calibration.datapath.ssdfile import SsdFile  # noqa: E402
from kvplan.validate.calibration.kernels.decoder import Decoder  # noqa: E402
from kvplan.validate.calibration.kernels.shape import ModelShape  # noqa: E402
from kvplan.validate.calibration.speed import Speed  # noqa: E402
from kvplan.validate.miniserver import chunk as kv  # noqa: E402
from kvplan.validate.miniserver.chunk import Layout  # noqa: E402
from kvplan.validate.miniserver.drive import DamagedFile, Drive  # noqa: E402
from kvplan.validate.miniserver.fidelity import command as fidelity  # noqa: E402
from kvplan.validate.miniserver.fidelity import output, training  # noqa: E402
from kvplan.validate.miniserver.fidelity.compare import Row  # noqa: E402
from kvplan.validate.miniserver.ledger import Step  # noqa: E402
from kvplan.validate.miniserver.server import MiniServer, serve  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CASE = ROOT / "validate" / "cases" / "cascade-lake-2c"
SHAPE = ModelShape("tiny", 3, 32, 4, 2, 8, 48, 61, 1024, "float32", True, 1e4)
SPEED = Speed()
LONG_S = 60
"""For what would otherwise wait for ever."""
LAYOUT = Layout(3, 2, 8, torch.float32)
TINY = {
    "name": "tiny",
    "source": "a test",
    "date": "2026-11",
    "model_type": "llama",
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 61,
    "max_position_embeddings": 1024,
    "torch_dtype": "float32",
}

pytestmark = pytest.mark.usefixtures("one_thread")


def steady() -> SteadyClock:
    return SteadyClock(SPEED)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """The measured machine with a tiny model."""
    folder = tmp_path_factory.mktemp("catalogue")
    for kind in ("gpu", "link", "ssd", "node", "prices"):
        shutil.copytree(CASE / kind, folder / kind)
    (folder / "models").mkdir()
    (folder / "models" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return folder


@pytest.fixture(scope="module")
def decoder():
    return Decoder(SHAPE, SHAPE.num_hidden_layers, "float32")


@pytest.fixture
def settings(catalogue):
    """A function from overrides to a configuration: 7 sessions that overlap, two tiers that hold a few of them each."""

    def make(*overrides: str):
        base = (
            f"catalogue={catalogue}",
            "model=tiny",
            "hardware=cascade-lake-2c",
            "prices=cascade-lake-2c",
            "deployment.gpus=1",
            "deployment.max_batch=3",
            "workload.kind=synthetic",
            "workload.sessions=7",
            "workload.max_turns=5",
            "workload.max_tokens=250",
            "workload.turns={distribution: exponential, mean: 4}",
            "workload.prompt_tokens={distribution: lognormal, median: 14, sigma: 0.6}",
            "workload.output_tokens={distribution: lognormal, median: 7, sigma: 0.6}",
            "workload.arrival={process: poisson, rate_per_s: 60}",
            "workload.think_time={distribution: constant, value_s: 0.02}",
            "store.dram=100KB",
            "store.ssd=200KB",
            "store.write_buffer=1MB",
            "store.read_buffer_layers=0",
            "store.load=always",
        )
        return config.load(None, (*base, *overrides))

    return make


@pytest.fixture
def served(decoder, tmp_path):
    """A function that serves a configuration, checks what must hold of any run, and returns the result."""

    def run(chosen, workload: Workload | None = None, clock=steady, verify_every=0):
        workload = workload or build_workload(chosen)
        threads = threading.active_count()
        found = serve(chosen, workload, MiniServer(decoder, tmp_path, clock, verify_every))
        assert not list(tmp_path.iterdir()) and threading.active_count() == threads
        columns = found.columns
        order = np.stack([columns[name] for name in ("arrival_s", "admitted_s", "first_token_s", "done_s")])
        assert np.all(np.diff(order, axis=0) >= 0)
        assert sorted(columns["order"]) == list(range(workload.turns))
        assert np.all(columns["cached_tokens"] <= columns["history_tokens"])
        follows = ~workload.is_first[1:]
        assert np.all(columns["admitted_s"][1:][follows] >= columns["done_s"][:-1][follows])
        return found

    return run


ON_SSD = (
    "deployment.window_tokens=128",
    "store.dram=50KB",
    "workload.sessions=10",
    "store.eviction=lru",
    "workload.arrival={process: poisson, rate_per_s: 1000}",
    "workload.think_time={distribution: constant, value_s: 0}",
)
"""DRAM holds two sessions or so and all come back at once, so that most histories come from files."""


# --- a run ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("store.eviction=lru", "store.prefetch=none", "store.ssd_write=whole"),
        ("store.eviction=fifo", "store.prefetch=none", "store.write=through", "store.save=sync"),
        ("store.ssd=0GB", "store.load_mode=blocking"),
        ("store.dram=10MB", "scheduler=hit-first"),
        ("deployment.window_tokens=64",),
        ("deployment.window_tokens=64", "store.positions=embedded", "store.ttl_s=0.05"),
    ],
)
def test_what_the_store_served_gives_the_logits_of_recomputation(settings, served, overrides):
    found = served(settings(*overrides), verify_every=1)
    assert found.verifier.compared > 0
    assert found.verifier.largest_error < 1e-5
    assert found.faults.failed_writes == found.faults.damaged_sessions == 0


@pytest.mark.parametrize("every", [1, 2])
def test_turns_without_an_answer_are_served_and_kept(settings, served, every):
    chosen = settings("store.dram=10MB")
    workload = build_workload(chosen)
    output = np.maximum(workload.output_tokens, 8)
    output[::every] = 0
    found = served(chosen, replace(workload, output_tokens=output), verify_every=1)
    assert found.verifier.compared > 0 and found.verifier.largest_error < 1e-5
    assert found.summary["output_tokens"] == output.sum()


def test_server_and_simulator_account_alike(settings, served):
    """All that is saved is on the host by the last answer, with which the measured span ends: no answer is shorter than its save."""
    chosen = settings("store.dram=10MB")
    workload = build_workload(chosen)
    workload = replace(workload, output_tokens=np.maximum(workload.output_tokens, 8))
    found, said = served(chosen, workload), simulate(chosen, workload)
    for name in ("history_tokens", "cached_tokens", "prompt_tokens", "output_tokens", "tier", "overflow"):
        assert np.array_equal(found.columns[name], said.columns[name]), name
    assert found.summary.keys() == said.summary.keys()
    assert found.summary["hit_rate"] == said.summary["hit_rate"]
    assert found.summary["links"]["device_to_host"]["bytes"] == said.summary["links"]["device_to_host"]["bytes"]


def test_the_mini_server_is_an_engine(settings, decoder, tmp_path):
    chosen, seen = settings("warmup_turns=3"), []
    found = simulate(chosen, progress=lambda done, _: seen.append(done), engine=MiniServer(decoder, tmp_path, steady).run)
    assert found.summary["turns"] == len(found.columns["turn"]) - 3 and seen[-1] == len(found.columns["turn"])
    assert found.summary["gpu"]["busy_s"] > 0 and found.series["dram_bytes"].max() > 0


def test_an_observer_is_refused(settings, decoder, tmp_path):
    with pytest.raises(ConfigError, match="observer"):
        simulate(settings(), observer=object(), engine=MiniServer(decoder, tmp_path, steady).run)


def test_kv_comes_back_from_ssd(settings, served):
    found = served(settings(*ON_SSD, "store.prefetch=none"))
    links = found.summary["links"]
    assert found.summary["hit_rate"]["ssd"] > 0
    assert links["ssd_read"]["bytes"] > 0 and links["ssd_write"]["bytes"] > 0


def test_truncated_turns_are_counted_as_the_simulator_does(settings, served):
    chosen = settings("deployment.window_tokens=64", "store.dram=10MB")
    found, said = served(chosen), simulate(chosen)
    assert found.summary["overflow_turns"] == said.summary["overflow_turns"] > 0
    assert np.array_equal(found.columns["history_tokens"], said.columns["history_tokens"])


def test_without_a_store_nothing_is_cached(settings, served):
    found = served(settings("store.dram=0GB", "store.ssd=0GB"))
    assert found.summary["hit_rate"]["turns"] == 0
    assert all(link["bytes"] == 0 for link in found.summary["links"].values())


def test_open_loop_in_real_time(settings, served):
    closed = build_workload(settings("workload.sessions=4"))
    arrivals = 0.01 * np.arange(closed.turns)
    workload = Workload(closed.session, closed.prompt_tokens, closed.output_tokens, arrivals, np.full(closed.turns, np.nan), open_loop=True)
    found = served(settings(), workload, clock=WallClock)
    assert np.array_equal(found.columns["arrival_s"], arrivals)


def test_busy_time_is_the_sum_of_steps_and_stalls(settings, served):
    found = served(settings())
    gpu = found.summary["gpu"]
    assert sum(step.seconds for step in found.steps) == pytest.approx(gpu["prefill_s"] + gpu["decode_s"])
    assert gpu["busy_s"] + found.idle_s == pytest.approx(found.summary["makespan_s"], abs=0.01)
    assert sum(step.is_prefill for step in found.steps) == found.workload.turns


def test_what_it_does_not_do_is_refused_with_all_findings(settings, served):
    deployment = ("deployment.replicas=2", "batching=mine.py:Whole")
    with pytest.raises(ConfigError, match=r"gpus.*hbm.*wait-complete.*read_buffer.*always.*batching"):
        served(settings(*deployment, "store.hbm=1MB", "store.prefetch=wait-complete", "store.load=cake", "store.read_buffer_layers=2"))


# --- faults -----------------------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_survived(settings, served, monkeypatch):
    write, calls = SsdFile.write, []

    def full(self, *arguments):
        calls.append(1)
        if len(calls) > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, *arguments)

    monkeypatch.setattr(SsdFile, "write", full)
    found = served(settings(*ON_SSD), verify_every=1)
    assert found.faults.failed_writes > 0 and "No space left" in found.faults.messages[0]
    assert found.verifier.largest_error < 1e-5


def test_a_failed_copy_leaves_dram_alone(settings, served, monkeypatch):
    def full(self, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(SsdFile, "write", full)
    found = served(settings("store.dram=10MB", "store.write=through"))
    assert found.faults.failed_writes > 0
    assert found.summary["hit_rate"]["dram"] == 1


@pytest.mark.parametrize(("damage", "prefetch"), [("missing", "none"), ("corrupt", "lookahead"), ("short", "none")])
def test_damaged_files_are_computed_again_and_counted(settings, served, monkeypatch, damage, prefetch):
    read, damaged = Drive.read, []

    def harm(self, session, files):
        if files and len(damaged) < 3:
            self._writer.submit(_DAMAGE[damage], files[-1].path).result()
            damaged.append(session)
        return read(self, session, files)

    monkeypatch.setattr(Drive, "read", harm)
    found = served(settings(*ON_SSD, f"store.prefetch={prefetch}"), verify_every=1)
    assert found.faults.damaged_sessions == len(damaged) > 0
    assert found.verifier.largest_error < 1e-5


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


_DAMAGE = {"missing": Path.unlink, "corrupt": _flip, "short": lambda path: os.truncate(path, 4096)}


def test_an_interrupt_ends_threads_and_removes_files(settings, decoder, tmp_path):
    def interrupt(done, _):
        if done == 15:
            assert list(tmp_path.iterdir())
            raise KeyboardInterrupt

    chosen, threads = settings(*ON_SSD), threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        serve(chosen, build_workload(chosen), MiniServer(decoder, tmp_path, steady), progress=interrupt)
    assert not list(tmp_path.iterdir())
    assert threading.active_count() == threads


def test_ctrl_c_leaves_nothing_behind(catalogue, tmp_path):
    overrides = ["model=tiny", f"catalogue={catalogue}", "hardware=cascade-lake-2c", "prices=cascade-lake-2c", "deployment.gpus=1"]
    overrides += ["workload.max_tokens=250", "workload.sessions=7", "store.dram=1MB", "store.ssd=2MB", "workload.kind=synthetic"]
    overrides += ["workload.arrival={process: poisson, rate_per_s: 0.5}", "store.write_buffer=1MB", "store.read_buffer_layers=0"]
    overrides += ["store.load=always"]
    command = [sys.executable, "-m", "kvplan.validate", "serve", "--ssd", str(tmp_path)]
    command += [word for override in overrides for word in ("--set", override)]
    hears = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 - a background job would not
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hears)
    while process.poll() is None and not list(tmp_path.iterdir()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=LONG_S)
    assert process.returncode == 1 and "interrupted" in said
    assert not list(tmp_path.iterdir())


# --- its parts --------------------------------------------------------------------------------------------------------------------


def chunks_of(*tokens: int) -> list[kv.Chunk]:
    found = [kv.empty(LAYOUT, count) for count in tokens]
    for chunk in found:
        chunk.raw.zero_()
        chunk.kv.copy_(torch.rand(chunk.kv.shape))
    return found


def joined(chunks: list[kv.Chunk]) -> torch.Tensor:
    return torch.cat([chunk.kv for chunk in chunks], dim=1)


@pytest.mark.parametrize("tokens", [0, 1, 4, 5, 9, 14, 16])
def test_the_newest_tokens_of_chunks(tokens):
    chunks = chunks_of(7, 5, 4)
    newest = kv.newest(chunks, tokens)
    assert kv.count(newest) == tokens
    if tokens:
        assert torch.equal(joined(newest), joined(chunks)[:, 16 - tokens :])
        assert all(chunk.compact().is_whole for chunk in newest)
        assert torch.equal(joined([chunk.compact() for chunk in newest]), joined(newest))


@pytest.fixture
def drive(tmp_path):
    made = Drive(tmp_path, LAYOUT, SimpleQueue())
    yield made
    made.close()


@pytest.mark.parametrize("tokens", [16, 12, 9, 3])
def test_files_give_back_what_was_written_even_when_cut(drive, tokens):
    chunks = chunks_of(7, 5, 4)
    drive.write(0, chunks)
    written = drive._posted.get(timeout=LONG_S)
    drive.read(0, kv.newest(written.files, tokens))
    reading = drive._posted.get(timeout=LONG_S)
    assert reading.error is None
    assert torch.equal(joined(reading.chunks), joined(chunks)[:, 16 - tokens :])


def test_a_flipped_bit_is_found(drive):
    drive.write(0, chunks_of(6))
    files = drive._posted.get(timeout=LONG_S).files
    _flip(files[0].path)
    drive.read(0, files)
    assert isinstance(drive._posted.get(timeout=LONG_S).error, DamagedFile)


def test_a_file_is_deleted_after_the_reads_before_it(drive, tmp_path):
    drive.write(0, chunks_of(6))
    files = drive._posted.get(timeout=LONG_S).files
    drive.read(0, files)
    drive.delete(files)
    assert drive._posted.get(timeout=LONG_S).error is None
    drive.read(0, files)
    assert isinstance(drive._posted.get(timeout=LONG_S).error, FileNotFoundError)


def test_a_failed_write_leaves_no_file(drive, tmp_path, monkeypatch):
    monkeypatch.setattr(SsdFile, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    drive.write(0, chunks_of(6, 2))
    assert drive._posted.get(timeout=LONG_S).error.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("clock", [WallClock, steady], ids=["wall", "steady"])
def test_clocks_wait_count_and_refuse_to_wait_forever(clock):
    posted, made = SimpleQueue(), clock()
    assert made.until(made.now + 0.02, posted, moving=False) is None
    assert made.now >= 0.02
    with ThreadPoolExecutor(1) as other:
        other.submit(posted.put, "done")
        assert made.until(float("inf"), posted, moving=True) == "done"
    before = made.now
    made.stopped(lambda: sum(range(300_000)))
    assert made.now - before < 0.005
    with pytest.raises(Stuck):
        made.until(float("inf"), posted, moving=False)


# --- fidelity ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case(catalogue, tmp_path_factory):
    """A measured folder of the tiny model, as `measure` and `fit` leave it."""
    folder = tmp_path_factory.mktemp("case")
    shutil.copytree(catalogue, folder, dirs_exist_ok=True)
    header = yaml.safe_load((CASE / "header.yaml").read_text())
    (folder / "header.yaml").write_text(yaml.safe_dump({**header, "models": {"tiny": asdict(SHAPE)}}))
    entry = yaml.safe_load((CASE / "calibration" / "cascade-lake-2c.yaml").read_text())
    sizes = {"model": "tiny", "layers": 3, "decoder_parameters": 3 * SHAPE.weights_per_layer, "fixed": 1e-3, "per_token": 1e-5}
    (folder / "calibration").mkdir()
    (folder / "calibration" / "cascade-lake-2c.yaml").write_text(yaml.safe_dump({**entry, "steps": [{**entry["steps"][0], **sizes}]}))
    return folder


def test_fidelity_end_to_end(case, tmp_path, capsys):
    out, name = tmp_path / "out", "tight, look-ahead, 1.5"
    command = ["--case", str(case), "--only", name, "--budget", "1", "--clock", "steady", "--out", str(out), "--ssd", str(tmp_path)]
    assert fidelity.main(command) == 0
    printed = capsys.readouterr().out
    assert "hit rate, resumed turns" in printed and "server against itself" in printed and "steady" in printed
    found = json.loads((out / "fidelity.json").read_text())
    (scenario,) = found["scenarios"]
    rows = scenario["training"]["quantities"]
    assert rows["busy time"]["served"] > 0 and rows["busy time"]["noise"] is not None
    why = scenario["training"]["busy_time_explained"]
    assert why["step_times"] + why["other_steps"] == pytest.approx(rows["busy time"]["error"])
    assert scenario["own"]["busy_time_explained"]["own_work"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"out"}
    assert {path.name for path in out.iterdir()} == {"catalogue", *(f"fidelity.{kind}" for kind in ("csv", "html", "json", "png"))}
    assert "data:image/png" in (out / "fidelity.html").read_text()
    again = config.load(None, [f"catalogue={out / 'catalogue'}", "model=tiny", "hardware=cascade-lake-2c", "deployment.gpus=1"])
    assert catalogue_of.load("calibration", again.hardware, again.catalogue).steps[0].model == "tiny"


def test_fidelity_refuses_what_it_cannot_do(case, tmp_path, capsys):
    (tmp_path / "letter").write_text("mine")
    assert fidelity.main(["--case", str(case), "--out", str(tmp_path)]) == 2
    assert fidelity.main(["--case", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert fidelity.main(["--only", "nothing"]) == 2
    said = capsys.readouterr().err
    assert "will not replace" in said and "header.yaml" in said and "no scenario 'nothing'" in said


def test_an_entry_that_a_user_put_into_our_catalogue_is_kept(tmp_path):
    (tmp_path / "catalogue" / "gpu").mkdir(parents=True)
    (tmp_path / "catalogue" / "gpu" / "ours.yaml").write_text("x")
    (tmp_path / output.JSON).write_text('{"about": {"command": "kvplan validate fidelity"}, "catalogue": ["catalogue/gpu/ours.yaml"]}')
    output.check_out(tmp_path, tmp_path.parent / "case")
    (tmp_path / "catalogue" / "gpu" / "mine.yaml").write_text("x")
    with pytest.raises(OutputError, match="will not replace"):
        output.check_out(tmp_path, tmp_path.parent / "case")


def test_the_packaged_fidelity_is_ours():
    assert not output.KIND.foreign(fidelity.CASE.with_name("cascade-lake-2c-fidelity"))


def test_steps_of_a_known_form_give_it_back():
    form = StepTime(3, 2e-3, 3e-5, 1e-8, 2e-6, 4e-6)
    rng = np.random.default_rng(1)
    sizes = [(True, new, history) for new, history in rng.integers(1, 400, (150, 2))]
    sizes += [(False, batch, 90 * batch) for batch in rng.integers(1, 9, 300)]
    steps = [Step(kind, int(tokens), int(context), 0.0) for kind, tokens, context in sizes]
    steps = [replace(step, seconds=training.seconds_of(form, step)) for step in steps]
    found = training.fit_steps(steps)
    assert found.largest_error < 1e-6
    priced = StepTime(3, *found.coefficients)
    assert all(training.seconds_of(priced, step) == pytest.approx(step.seconds, rel=1e-6) for step in steps)
    assert sum(len(group) for group in training.groups(steps)) == len(steps)


def test_errors_are_points_for_hit_rates_and_shares_for_the_rest():
    hits, busy = Row("hits in DRAM", 80.0, 84.0, 83.0), Row("busy time", 10.0, None, 11.0)
    assert (hits.error, hits.noise) == (1.0, 4.0)
    assert busy.error == pytest.approx(0.1) and busy.noise is None
    assert Row("busy time", 0.0, None, 1.0).error is None
