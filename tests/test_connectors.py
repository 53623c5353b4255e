"""Connectors: what moves KV between HBM and the tiers below, as entries, as seconds, and as the KV that is kept."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from kvplan.hwmodels import CatalogueError, catalogue, connect
from kvplan.hwmodels.footprint import Footprint
from kvplan.hwmodels.schema import Unknown
from kvplan.sim import config
from kvplan.sim.analytic.explain import explain
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.deployment import resolve
from kvplan.sim.planner import flags
from kvplan.sim.policies.base import Load
from kvplan.sim.policies.supervise import PolicyError, supervised
from kvplan.sim.replay.bound import best_possible
from kvplan.sim.report import moving as report
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.measures import measure
from kvplan.traces.workload import untimed

H100 = ("model=llama-3.1-8b", "hardware=h100-80g-x1", "prices=rent-2026", "deployment.max_batch=1")
PLAIN = ("store.ssd=0GB", "store.load=always", "store.eviction=lru", "store.prefetch=none")
TOKEN = 131_072
"""Bytes of KV of Llama-3.1-8B."""
LATENCY_S = 10e-6
"""Of a load, which goes over the link at once."""


def deployment(*overrides):
    return resolve(config.load("default", [*H100, *overrides]))


@pytest.fixture
def own(tmp_path):
    """Makes a catalogue with a connector of the user's own: cachedattention's, but for these rows. Returns the settings that name it."""

    def make(**rows):
        said = {"date": "2026", "source": "a test"}
        packaged = catalogue.load("connector", "cachedattention")
        entry = {name: {"value": getattr(getattr(packaged, name), "value", None), **said} for name in type(packaged).model_fields}
        entry |= {
            name: {"value": row[0], "unit": row[1], **said} if isinstance(row, tuple) else {"value": row, **said}
            for name, row in rows.items()
        }
        entry |= {"name": "mine", "description": "", "date": "2026"}
        (tmp_path / "connector").mkdir(exist_ok=True)
        (tmp_path / "connector" / "mine.yaml").write_text(yaml.safe_dump(entry))
        return (f"catalogue={tmp_path}", "store.connector=mine")

    return make


# --- entries ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalogue.names("connector"))
def test_every_figure_has_a_source_and_one_that_is_not_known_says_so(name):
    rows = dict(catalogue.load("connector", name).rows())
    assert [row for row in rows if row != "alone"] == ["per_gpu", "per_server", "request", "loads", "block", "replicated", "saves", "when"]
    assert all(row.source and row.date and row.text for row in rows.values())
    assert not isinstance(rows["loads"], Unknown)


def test_what_is_not_known_bounds_nothing_and_takes_no_time():
    found = connect(catalogue.load("connector", "cachedattention"), 8)
    assert (found.bytes_per_s, found.request_s, found.block, found.replicated, found.saves_answers) == (float("inf"), 0, 1, False, True)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"per_gpu": (-1, "GB/s")}, "per_gpu.*out of range"),
        ({"block": (1.5, "1")}, "block.*not a whole number"),
        ({"saves": "some"}, "saves.*'all' or 'prompt'"),
        ({"loads": None}, "loads"),
        ({"speed": (1, "GB/s")}, "speed: unknown key"),
    ],
)
def test_an_entry_that_means_nothing_is_refused(own, rows, message):
    with pytest.raises(config.ConfigError, match=message):
        deployment(*own(**rows))


def test_a_connector_of_ones_own_is_listed_and_an_unknown_one_is_not_taken(own, tmp_path):
    own(per_gpu=(20, "GB/s"))
    shown = CliRunner().invoke(app, ["list", "connectors", "--catalogue", str(tmp_path)])
    assert shown.exit_code == 0 and re.search(r"mine +per_gpu +20 GB/s +2026 +a test", shown.stdout)
    assert re.search(r"vllm-native +saves +prompt", shown.stdout) and re.search(r"cachedattention +per_gpu +–", shown.stdout)
    with pytest.raises(config.ConfigError, match="unknown connector 'vllm': did you mean 'vllm-native'"):
        deployment("store.connector=vllm")
    (tmp_path / "connector" / "lmcache.yaml").write_text("name: lmcache")
    with pytest.raises(CatalogueError, match="own catalogue has a connector 'lmcache'"):
        catalogue.names("connector", str(tmp_path))


# --- seconds ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connector", "gpus", "gb_per_s"),
    [
        ("cachedattention", 8, 424),
        ("vllm-native", 1, 50),
        ("vllm-native", 8, 400),
        ("sglang-hicache", 2, 9.6),
        ("lmcache-mooncake", 8, 10.3),
        ("mooncake-rdma", 2, 106),
        ("mooncake-rdma", 8, 136),
    ],
)
def test_the_narrowest_of_links_gpus_and_server_decides(connector, gpus, gb_per_s):
    found = deployment("hardware=h100-80g-x8", f"deployment.gpus={gpus}", f"store.connector={connector}")
    assert found.host.read_bytes_per_s == pytest.approx(gb_per_s * 1e9) == found.host.write_bytes_per_s
    half = deployment("hardware=h100-80g-x8", f"deployment.gpus={gpus}", f"store.connector={connector}", "deployment.link_efficiency=0.5")
    assert half.host.read_bytes_per_s == found.host.read_bytes_per_s / 2 and half.wires.read_bytes_per_s == gpus * 53e9 / 2


def test_loading_layer_by_layer_is_refused_where_the_connector_cannot(own):
    assert deployment("store.load_mode=layerwise").connection.layerwise and deployment().connection.layerwise
    assert not deployment("store.load_mode=blocking").connection.layerwise
    assert not deployment("store.load_mode=blocking", "store.connector=vllm-native").connection.layerwise
    with pytest.raises(config.ConfigError, match=r"store\.load_mode is layerwise, but store\.connector vllm-native loads all"):
        deployment("store.load_mode=layerwise", "store.connector=vllm-native")


def loaded_prompt(tokens: int, *overrides):
    """(run, deployment) of a prompt, and long after it another of one token that goes on from it."""
    settings = config.load("default", [*H100, *PLAIN, *overrides])
    table = untimed(np.zeros(2, int), np.array([tokens - 1, 1]), np.array([1, 1])).with_times(np.zeros(1), np.array([0.0, 1000.0]))
    return simulate(settings, table), resolve(settings, table)


PUBLISHED_MS = {1_000: 13, 10_000: 45, 20_000: 75, 40_000: 135, 60_000: 190, 80_000: 250, 100_000: 310}
"""TTFT of one loaded prompt, vLLM native offloading, Llama-3.1-8B on 1 x H100: vLLM's blog, January 2026, read off a figure."""


@pytest.mark.parametrize(("tokens", "published_ms"), PUBLISHED_MS.items())
def test_the_published_prompts_loaded_by_vllm(tokens, published_ms):
    result, found = loaded_prompt(tokens, "store.connector=vllm-native")
    cached = tokens // 16 * 16 - 16 * (tokens % 16 == 0)
    assert result.columns["cached_tokens"][1] == cached
    stall_s = 3.4e-3 + cached * TOKEN / 44e9 + LATENCY_S
    ttft_s = stall_s + found.steps.prefill(tokens + 1 - cached, cached)
    assert result.columns["first_token_s"][1] - result.columns["arrival_s"][1] == pytest.approx(ttft_s)
    assert 1e3 * ttft_s == pytest.approx(published_ms, rel=0.1)


def test_what_a_load_takes_beside_its_links_holds_up_no_other():
    """Ten prompts at once: each has its first token as soon as the link has brought it after the one before, and not the host besides."""
    settings = config.load("default", [*H100, *PLAIN, "store.connector=vllm-native", "deployment.max_batch=10"])
    table = untimed(np.repeat(np.arange(10), 2), np.tile([20_000, 1], 10), np.ones(20, int))
    run = simulate(settings, replace(table, arrival_s=np.tile([0.0, 1000.0], 10), gap_s=np.zeros(20), open_loop=True))
    first_s = np.sort(run.columns["first_token_s"][1::2])
    assert np.diff(first_s) == pytest.approx(20_000 * TOKEN / 50e9 + LATENCY_S, rel=1e-6)
    assert first_s[0] - 1000 > 3.4e-3 + 20_000 * TOKEN / 44e9


MOONCAKE_MS = {20e6: 0.54, 38e6: 0.61, 74e6: 0.92, 146e6: 1.5, 290e6: 2.51, 578e6: 4.75, 1.13e9: 8.84, 2.25e9: 16.43, 4.5e9: 31.65}
"""Bytes -> transfer: kvcache-ai.github.io/Mooncake/performance/vllm-v1-support-benchmark.html."""


def test_the_published_transfers_of_mooncake():
    found = connect(catalogue.load("connector", "mooncake-rdma"), 8)
    for size, published_ms in MOONCAKE_MS.items():
        assert 1e3 * (found.request_s + size / found.bytes_per_s) == pytest.approx(published_ms, rel=0.065)


@pytest.mark.parametrize("read_buffer", [0, 15])
def test_a_request_delays_the_first_byte_and_fills_no_link(own, read_buffer):
    """Layer by layer and with an idle server: the turn starts when it comes, so that nothing is read ahead."""
    options = ("store.connector=cachedattention", f"store.read_buffer_layers={read_buffer}")
    (plain, _), (late, _) = loaded_prompt(20_000, *options), loaded_prompt(20_000, *options, *own(request=(3, "ms")))
    first_token = [float(one.columns["first_token_s"][1] - one.columns["arrival_s"][1]) for one in (plain, late)]
    assert first_token[1] - first_token[0] == pytest.approx(3e-3)
    busy_s = [one.summary["links"]["host_to_device"]["busy_share"] * one.summary["makespan_s"] for one in (plain, late)]
    assert busy_s[0] == pytest.approx(busy_s[1])


def test_loads_from_ssd_wait_for_the_request_too(own):
    tiers = ("store.ssd=1TB", "store.dram=0GB")
    (plain, _), (late, _) = loaded_prompt(20_000, *tiers), loaded_prompt(20_000, *tiers, *own(request=(3, "ms")))
    assert late.columns["first_token_s"][1] - plain.columns["first_token_s"][1] == pytest.approx(3e-3)


# --- which KV -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "cached"),
    [
        ({}, [0, 110, 165]),
        ({"block": (16, "1")}, [0, 96, 160]),
        ({"block": (64, "1")}, [0, 64, 128]),
        ({"block": (256, "1")}, [0, 0, 0]),
        ({"saves": "prompt"}, [0, 100, 160]),
        ({"saves": "prompt", "block": (32, "1")}, [0, 96, 160]),
    ],
)
@pytest.mark.parametrize("save", ["async", "sync"])
def test_whole_blocks_are_saved_and_hit_and_answers_where_they_are_saved(own, workload, rows, cached, save):
    settings = config.load("default", [*H100, *PLAIN, f"store.save={save}", *own(**rows)])
    result = simulate(settings, workload([[(100, 10), (50, 5), (20, 1)], [(1, 1)]], arrivals=[0, 99], gap_s=5.0))
    assert result.columns["cached_tokens"].tolist() == [*cached, 0]
    kept = resolve(settings).connection.saved(186, 1) * TOKEN
    assert kept <= result.summary["tiers"]["dram"]["peak_bytes"] <= kept + 2 * TOKEN
    assert kept <= result.summary["links"]["device_to_host"]["bytes"] <= kept + 2 * TOKEN


@pytest.mark.parametrize(("positions", "cached"), [("decoupled", 96), ("embedded", 0)])
def test_a_block_that_is_cut_into_is_lost(own, workload, positions, cached):
    """230 tokens of history lose their oldest 115 in a window of 300: of the 14 blocks that are kept 8 go."""
    options = (f"store.positions={positions}", "deployment.window_tokens=300", *own(block=(16, "1")))
    result = simulate(config.load("default", [*H100, *PLAIN, *options]), workload([[(200, 30), (60, 40), (10, 1)]], gap_s=5.0))
    assert result.columns["cached_tokens"].tolist()[:2] == [0, cached]


def test_a_block_that_is_cut_into_is_lost_to_hbms_own_tier_too(own, workload):
    """A job has room for all of its context that HBM's tier will not have once the block is gone: guards look."""
    options = ("store.hbm=1GB", "deployment.window_tokens=300", *own(block=(16, "1")))
    result = simulate(config.load("default", [*H100, *PLAIN, *options]), workload([[(200, 30), (60, 40), (10, 1)]], gap_s=5.0))
    assert result.columns["cached_tokens"].tolist()[:2] == [0, 96] and result.summary["hit_rate"]["hbm"] > 0


def test_a_turn_that_drops_history_keeps_the_whole_blocks_of_the_rest(own, workload):
    table = replace(workload([[(200, 30), (60, 4)]], gap_s=5.0), dropped_tokens=np.array([0, 50]))
    result = simulate(config.load("default", [*H100, *PLAIN, *own(block=(16, "1"))]), table)
    assert result.columns["cached_tokens"].tolist() == [0, 176]


def test_loads_that_meet_in_the_middle_are_of_whole_blocks(own, workload):
    options = ("store.load=cake", "store.dram=0GB", "store.ssd=1TB", "deployment.link_efficiency=0.2", *own(block=(64, "1")))
    cached = simulate(config.load("default", [*H100, *PLAIN, *options]), workload([[(9000, 10), (50, 5)]], gap_s=5.0)).columns[
        "cached_tokens"
    ]
    assert 0 < cached[1] < 8960 and cached[1] % 64 == 0


def test_what_hbm_keeps_no_connector_touches(workload):
    table, hbm = workload([[(100, 10), (50, 5), (20, 1)]], gap_s=5.0), ("store.hbm=1GB", "store.dram=0GB")
    runs = [
        simulate(config.load("default", [*H100, *PLAIN, *hbm, f"store.connector={name}"]), table) for name in catalogue.names("connector")
    ]
    assert all(run.columns["cached_tokens"].tolist() == [0, 110, 165] for run in runs)
    assert len({float(run.columns["done_s"][-1]) for run in runs}) == 1


@pytest.mark.parametrize(("model", "copies"), [("deepseek-v3", 8), ("llama-3.1-70b", 1), ("qwen2.5-0.5b", 4)])
def test_copies_of_ranks_fill_the_tiers_and_the_links(own, model, copies):
    base = (f"model={model}", "hardware=h200-x8", "deployment.gpus=8")
    once, each = deployment(*base), deployment(*base, *own(replicated=True))
    assert once.in_hbm(1) == copies * once.kv_bytes and each.kv_bytes == once.kv_bytes
    for plain, copied in zip(once.tiers, each.tiers, strict=True):
        assert copied.taken(copied.capacity) == pytest.approx(plain.size) and copied.capacity == plain.capacity // copies
        assert copied.taken(each.stored(1)) == once.in_hbm(1) and copied.read_bytes_per_s(1e9) == plain.read_bytes_per_s(1e9) / copies


def test_copies_of_ranks_are_of_the_dtype_that_a_tier_has():
    found = deployment("model=deepseek-v3", "hardware=h200-x8", "deployment.gpus=8", "store.connector=vllm-native", "store.kv_dtype=fp8")
    assert [tier.taken(found.stored(1)) for tier in found.tiers] == [8 * 70_272 // 2] * 2


def test_flags_do_not_count_copies_that_the_plan_has_counted(own):
    base = ("model=deepseek-v3", "hardware=h200-x8", "deployment.gpus=8")
    once, each = (flags.Sizes.of(deployment(*base, *more)) for more in ([], own(replicated=True)))
    assert (once.copies, each.copies) == (8, 1) and once.dram == each.dram


class Half(Load):
    """Loads half of what it may."""

    NAME = "half"

    def loads(self, job):
        rest = job.prefill_s(job.new, job.cached)
        return job.cached // 2, rest, rest + job.load_s(job.cached)


def test_a_users_load_policy_is_told_of_blocks_and_held_to_them(own, workload):
    policy = supervised("load", Load, "mine:Half", Half)()
    job = SimpleNamespace(cached=48, new=5, block=16, prefill_s=lambda new, history: 1.0, load_s=lambda tokens: 1.0, rest_s=1.0)
    with pytest.raises(PolicyError, match="blocks of 16 tokens up to 48"):
        policy.loads(job)
    job.cached = 32
    assert policy.loads(job)[0] == 16


@pytest.mark.parametrize("connector", ["vllm-native", "lmcache"])
def test_no_run_hits_more_than_the_bound_on_all_policies(connector):
    """Prompts alone need less room, so that more sessions fit, and less is found of each."""
    options = (f"store.connector={connector}", "store.dram=3GB", "workload.sessions=60", "store.host_buffer=0")
    result = simulate(config.load("default", [*H100, *PLAIN, *options, "deployment.max_batch=24"]))
    found = measure(result)
    found["bound.whole"] = best_possible(result.columns, 3 * 10**9, Footprint(TOKEN).of)["tokens"]
    assert 0.3 < found["hit_rate.tokens"] <= found["bound.tokens"] < found["bound.whole"]


# --- what is said of it -------------------------------------------------------------------------------------------------------------


def test_explain_and_a_run_say_what_links_could_do_and_what_the_connector_does():
    loaded = config.load("default", [*H100, "store.connector=vllm-native", "workload.sessions=20"])
    table = build_workload(loaded)
    run, found = simulate(loaded, table), explain(loaded, resolve(loaded, table), table)
    assert run.summary["moving"] == found["moving"]
    links, connector = report.rows(found["moving"])
    assert links[:4] == ["by the links alone", "53 GB/s", "20.4 GB/s", "–"]
    assert connector[:4] == ["by vllm-native", "50 GB/s", "20.4 GB/s", "3.4 ms"]
    assert connector[-2] == "26.1 ms"
    assert (
        connector[-1]
        == "all of it before the prefill, the GPUs go on meanwhile, blocks of 16 tokens, each rank its copy, answers are not saved"
    )
    assert "moving" not in simulate(loaded.recompute(), table).summary


def test_the_arithmetic_of_a_connector_is_near_the_run():
    """Hits and the time of a prefill, of a server that is nearly idle."""
    options = ("store.connector=vllm-native", "workload.sessions=150", "workload.arrival.rate_per_s=0.02", "deployment.max_batch=24")
    loaded = config.load("default", [*H100, *PLAIN, *options])
    table = build_workload(loaded)
    run, found = simulate(loaded, table).summary, explain(loaded, resolve(loaded, table), table)
    history = 1 - run["gpu"]["prefilled_tokens"] / run["context_tokens"]
    assert found["served"]["dram"] * found["turn"]["history_tokens"] == pytest.approx(
        history * run["context_tokens"] / run["turns"], rel=0.01
    )
