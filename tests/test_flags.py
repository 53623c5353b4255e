"""Flags to paste: the bytes that engines take add up to the option's, never to more, and what they cannot be told is said."""

import json
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kvplan.sim.config import load
from kvplan.sim.deployment import resolve
from kvplan.sim.planner.flags import GB, GIB, Sizes, both, flags, warnings

SIZES = st.builds(
    Sizes,
    dram=st.integers(0, 10**13) | st.just(0),
    ssd=st.integers(0, 10**14) | st.just(0),
    ranks=st.sampled_from([1, 2, 3, 4, 8, 16]),
    hbm=st.integers(1, 10**12),
)


def told(sizes: Sizes) -> dict:
    return {each.engine: each for each in flags(sizes)}


@given(SIZES)
def test_what_an_engine_takes_is_the_option_rounded_down(sizes):
    """By at most one step of its unit on each rank."""
    step = {"vLLM": GIB / 100, "SGLang": GB * sizes.ranks, "LMCache": GIB / 100 * sizes.ranks, "TensorRT-LLM": sizes.ranks}
    for engine, each in told(sizes).items():
        for tier, size in ((tier, size) for line in each.lines for tier, size in line.takes.items()):
            asked = getattr(sizes, tier)
            assert size <= asked and asked - size < step[engine] + sizes.ranks, (engine, tier)


@given(SIZES)
def test_the_number_on_the_line_stands_for_these_bytes(sizes):
    """Read as the engine reads it."""
    read = {
        "vLLM": (r"kv-offloading-size ([\d.]+)", lambda number: float(number) * GIB),
        "SGLang": (r"hicache-size (\d+)", lambda number: int(number) * 1e9 * sizes.ranks),
        "LMCache": (r"CPU_SIZE=([\d.]+)", lambda number: float(number) * 1024**3 * sizes.ranks),
        "TensorRT-LLM": (r"host_cache_size: (\d+)", lambda number: int(number) * sizes.ranks),
    }
    for engine, (pattern, size) in read.items():
        for line in told(sizes)[engine].lines:
            for number in re.findall(pattern, line.text):
                assert size(number) == pytest.approx(line.takes["dram"], rel=1e-9, abs=2 * sizes.ranks) and size(number) <= sizes.dram + 1


@given(SIZES)
def test_lines_can_be_pasted(sizes):
    for engine, each in told(sizes).items():
        for line in each.lines:
            assert "\n" not in line.text
            for text in re.findall(r"'(\{.*\})'", line.text):
                json.loads(text)
            if engine in ("Kubernetes", "TensorRT-LLM"):
                yaml.safe_load(line.text)
        assert each.version and each.source and json.dumps(each.data())


def test_half_a_terabyte_on_eight_gpus():
    sizes = Sizes(dram=512 * GB, ssd=0, ranks=8, hbm=477 * GB)
    engines = told(sizes)
    assert engines["vLLM"].lines[0].text == "--kv-offloading-backend native --kv-offloading-size 476.83"
    assert engines["SGLang"].lines[0].text == "--enable-hierarchical-cache --hicache-size 64"
    assert "LMCACHE_MAX_LOCAL_CPU_SIZE=59.60" in engines["LMCache"].lines[0].text
    assert "host_cache_size: 64000000000" in engines["TensorRT-LLM"].lines[0].text
    assert "memory: 477Gi" in engines["Kubernetes"].lines[0].text
    assert both(512 * GB) == "476.84 GiB = 512.00 GB"
    assert all("GiB" in line.says and "GB" in line.says for name in ("vLLM", "SGLang", "LMCache") for line in engines[name].lines[:1])


def test_an_ssd_is_told_where_an_engine_can_be_told():
    engines = told(
        Sizes(dram=512 * GB, ssd=8000 * GB, ranks=8, drives=8, drive="nvme-tlc, 3.84 TB, 1 DWPD over 5 years", drive_bytes=30720 * GB)
    )
    config = json.loads(re.search(r"'(.*)'", engines["vLLM"].lines[0].text)[1])["kv_connector_extra_config"]
    assert config["cpu_bytes_to_use"] == 512 * GB and config["secondary_tiers"][0]["type"] == "fs"
    assert any("no size limit" in note for note in engines["vLLM"].notes)
    assert sum(line.takes.get("ssd", 0) for line in engines["TensorRT-LLM"].lines) == 8000 * GB
    assert any("storage: 7451Gi" in line.text for line in engines["Kubernetes"].lines)
    assert "8 x nvme-tlc" in engines["Kubernetes"].notes[0] and "DWPD" in engines["Kubernetes"].notes[0]


def test_no_quantity_is_beyond_the_node():
    node = 512 * GB
    memory = told(Sizes(dram=node, ssd=0, ranks=8, node_dram=node))["Kubernetes"].lines[0].text
    assert int(re.search(r"(\d+)Gi", memory)[1]) * GIB <= node
    drives = told(Sizes(dram=0, ssd=node, ranks=8, drive_bytes=node))["Kubernetes"].lines[0].text
    assert int(re.search(r"(\d+)Gi", drives)[1]) * GIB <= node


def test_what_an_engine_cannot_do_is_said():
    assert any("DYN_KVBM" in note for note in told(Sizes(dram=512 * GB, ssd=0, ranks=8))["vLLM"].notes)
    assert all("DYN_KVBM" not in line.text for each in flags(Sizes(512 * GB, 0, 8)) for line in each.lines)
    assert any("add no hits" in each for each in warnings(Sizes(dram=400 * GB, ssd=0, ranks=8, hbm=477 * GB)))
    assert all("add no hits" not in each for each in warnings(Sizes(dram=512 * GB, ssd=0, ranks=8, hbm=477 * GB)))
    assert any("without a CPU pool" in note for note in told(Sizes(dram=0, ssd=800 * GB, ranks=8))["vLLM"].notes)
    assert any("less than 1 GB" in each for each in warnings(Sizes(dram=GB, ssd=0, ranks=8)))


@pytest.mark.parametrize(
    ("model", "gpus", "copies"), [("deepseek-v3", 8, 8), ("qwen2.5-0.5b", 8, 4), ("llama-3.1-70b", 8, 1), ("llama-3.1-70b", 4, 1)]
)
def test_kv_that_ranks_hold_copies_of(model, gpus, copies):
    overrides = [f"model={model}", f"deployment.gpus={gpus}", "hardware=b200-x8", "prices=rent-2026", "store.dram=512GB", "store.ssd=0GB"]
    sizes = Sizes.of(resolve(load(None, overrides)))
    assert (sizes.copies, sizes.ranks, sizes.dram) == (copies, gpus, 512 * GB)
    assert any(f"{copies} times over" in each for each in warnings(sizes)) == (copies > 1)


def test_without_a_store_caches_are_switched_off():
    lines = [line.text for each in flags(Sizes(0, 0, 8, caches=False)) for line in each.lines]
    assert lines == ["--no-enable-prefix-caching", "--disable-radix-cache", "kv_cache_config: {enable_block_reuse: false}"]
    assert any(line.text == "--enable-prefix-caching" for line in told(Sizes(0, 0, 8))["vLLM"].lines)
