"""Streams, buffers, layer-wise loading and saving, and files: what comes out is what went in, in the right order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

from kvplan.validate.calibration.datapath import pipeline  # noqa: E402
from kvplan.validate.calibration.datapath.buffers import ALIGNMENT, host_buffer, host_cache  # noqa: E402
from kvplan.validate.calibration.datapath.pipeline import Preload, Saver  # noqa: E402
from kvplan.validate.calibration.datapath.ssdfile import REQUEST_BYTES, SsdFile, has_direct_io  # noqa: E402
from kvplan.validate.calibration.datapath.streams import streams  # noqa: E402
from kvplan.validate.calibration.kernels import kvcache  # noqa: E402
from kvplan.validate.calibration.kernels.decoder import Decoder  # noqa: E402
from kvplan.validate.calibration.kernels.shape import ModelShape  # noqa: E402

SHAPE = ModelShape("tiny", 6, 64, 4, 2, 16, 96, 61, 128, "float32", True, 1e4)
LAYERS, BATCH, HISTORY, NEW, CAPACITY = 6, 3, 20, 5, 32
LONG_S = 60
"""For what would otherwise wait for ever."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def decoder():
    return Decoder(SHAPE, LAYERS, "float32")


@pytest.fixture
def job(decoder):
    """(new tokens, saved history, logits without any of the data path)."""
    tokens = torch.randint(SHAPE.vocab_size, (BATCH, HISTORY + NEW), generator=torch.Generator().manual_seed(2))
    _, saved = decoder.prefill(tokens[:, :HISTORY], decoder.room(BATCH, HISTORY))
    logits, _ = decoder.prefill(tokens, decoder.room(BATCH, HISTORY + NEW))
    return tokens[:, HISTORY:], saved, logits


def poisoned(decoder):
    """A working cache in which a layer that was not loaded shows."""
    working = decoder.room(BATCH, CAPACITY)
    for kv in working:
        kv.fill_(float("nan"))
    return working


def in_host(saved):
    host = host_cache(SHAPE, LAYERS, BATCH, CAPACITY, torch.float32)
    for layer, into in zip(saved, host, strict=True):
        into[:, :HISTORY] = layer
    return host


# --- loading ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_buffer", range(LAYERS + 1))
def test_preloading_changes_nothing_but_time(decoder, job, read_buffer):
    tokens, saved, expected = job
    with streams("cpu") as three:
        preload = Preload(three, poisoned(decoder), saved)
        working = [kv for kv, _ in preload._ahead]
        preload.send(read_buffer)
        preload.await_sent()
        preload.send_all()
        logits = pipeline.prefill(decoder, tokens, working, preload)
    torch.testing.assert_close(logits, expected)


def test_no_layer_is_computed_before_its_history_is_there(decoder, job, monkeypatch):
    """Each layer is loaded only when the one before is being computed, so that one that waits for more than its own never starts."""
    tokens, saved, expected = job
    happened, begun = [], [threading.Event() for _ in range(LAYERS)]

    def late(into, history):
        loaded = happened.count("loaded")
        assert not loaded or begun[loaded - 1].wait(LONG_S)
        begun[loaded].wait(0.02)  # a layer that does not wait begins meanwhile
        kvcache.load_(into, history)
        happened.append("loaded")

    computed = decoder.layer

    def recorded(index, *arguments):
        happened.append(index)
        begun[index].set()
        return computed(index, *arguments)

    monkeypatch.setattr(decoder, "layer", recorded)
    with streams("cpu") as three:
        working = poisoned(decoder)
        preload = Preload(three, working, saved, late)
        preload.send_all()
        logits = pipeline.prefill(decoder, tokens, working, preload)
    torch.testing.assert_close(logits, expected)
    assert happened == [each for index in range(LAYERS) for each in ("loaded", index)]


def test_a_load_that_fails_is_not_silent(decoder, job):
    tokens, saved, _ = job

    def failing(into, history):
        raise OSError("no such layer")

    with streams("cpu") as three:
        working = poisoned(decoder)
        preload = Preload(three, working, saved, failing)
        preload.send_all()
        with pytest.raises(OSError, match="no such layer"):
            pipeline.prefill(decoder, tokens, working, preload)


# --- saving -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers_of_buffer", [0, 1, 2.5, LAYERS])
def test_what_is_saved_is_what_was_computed(decoder, job, layers_of_buffer):
    tokens, saved, _ = job
    host = in_host(saved)
    one_layer = BATCH * NEW * SHAPE.kv_values_per_token * 4
    with streams("cpu") as three:
        working = decoder.room(BATCH, CAPACITY)
        preload = Preload(three, working, [layer[:, :HISTORY] for layer in host])
        preload.send_all()
        saver = Saver(three, int(layers_of_buffer * one_layer))
        logits = pipeline.prefill(decoder, tokens, working, preload, saver, host)
        length = HISTORY + NEW
        for _ in range(3):
            logits = pipeline.decode(decoder, logits.argmax(-1), working, length, saver, host)
            length += 1
        saver.drain()
    again = decoder.room(BATCH, CAPACITY)
    for kv, layer in zip(again, host, strict=True):
        kvcache.load_(kv, layer[:, : length - 1])
    decoder.prefill(torch.zeros(BATCH, 1, dtype=torch.long), again, length - 1)  # gives what was loaded its positions
    for kv, then in zip(again, working, strict=True):
        torch.testing.assert_close(kv[:, : length - 1], then[:, : length - 1])


def test_a_full_write_buffer_holds_compute_up(decoder, job):
    tokens, _, _ = job
    held, waited = [], []
    gate = threading.Event()
    with streams("cpu") as three:
        three.save.run(gate.wait)
        wait = three.compute.wait

        def opening(event):
            waited.append(len(held))
            gate.set()
            wait(event)

        three.compute.wait = opening
        one_layer = BATCH * NEW * SHAPE.kv_values_per_token * 4
        saver = Saver(three, 2 * one_layer)
        host = host_cache(SHAPE, LAYERS, BATCH, CAPACITY, torch.float32)
        save = saver.save

        def watched(into, fresh):
            save(into, fresh)
            held.append(saver.held_bytes)

        saver.save = watched
        pipeline.prefill(decoder, tokens, decoder.room(BATCH, CAPACITY), None, saver, host)
        saver.drain()
    assert max(held) <= 2 * one_layer
    assert waited[0] == 2, "the third layer finds the buffer full"


def test_saving_that_fails_is_not_silent(decoder, job):
    tokens, _, _ = job
    too_small = host_cache(SHAPE, LAYERS, BATCH, NEW - 1, torch.float32)
    with streams("cpu") as three:
        saver = Saver(three, 10**9)
        with pytest.raises(RuntimeError):  # noqa: PT012 - in either of the two, by the threads' order
            pipeline.prefill(decoder, tokens, decoder.room(BATCH, CAPACITY), None, saver, too_small)
            saver.drain()


# --- files ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queue_depth", [1, 4])
@pytest.mark.parametrize("direct", [False, True])
def test_files_give_back_what_they_got(tmp_path, queue_depth, direct):
    if direct and not has_direct_io(tmp_path):
        pytest.skip("this file system has no O_DIRECT")
    size = 3 * REQUEST_BYTES + 2 * ALIGNMENT
    written, read = host_buffer(size), host_buffer(size)
    written.random_(256)
    with ThreadPoolExecutor(queue_depth) as io, SsdFile(tmp_path / "kv", io, direct) as file:
        file.write(written)
        file.read(read)
        assert torch.equal(written, read)
        file.read(read[:ALIGNMENT], offset=REQUEST_BYTES)
        assert torch.equal(read[:ALIGNMENT], written[REQUEST_BYTES : REQUEST_BYTES + ALIGNMENT])
        with pytest.raises(OSError, match="too early"):
            file.read(read, offset=ALIGNMENT)
        with pytest.raises(ValueError, match="host_buffer"):
            file.read(read[:100])


def test_direct_io_is_looked_for_in_the_folder_itself(tmp_path):
    assert has_direct_io(tmp_path) in (True, False)
    assert not list(tmp_path.iterdir())


def test_host_memory_is_aligned_and_large_enough():
    for size in (1, 4096, 5000):
        buffer = host_buffer(size)
        assert buffer.data_ptr() % ALIGNMENT == 0 and size <= len(buffer) < size + ALIGNMENT
