"""The engine against the plain reference, the oracles that are exact, and that both would notice."""

import ast
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kvplan.hwmodels import catalogue
from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.engine import replica as engine
from kvplan.sim.policies.eviction.lru import Lru
from kvplan.sim.simulation import simulate
from kvplan.validate import __main__ as validate_main
from kvplan.validate.checks import agreement, reference
from kvplan.validate.checks.oracles import caches, pipeline, queues, servers
from kvplan.validate.checks.reference import spans
from kvplan.validate.checks.reference.replica import Replica
from kvplan.validate.verdict import Failed, Finding, averaged, fail

SEEDS = range(15)
MORE_SEEDS = range(24)
"""Where more can happen: until each connector has come, and copies that spill while the GPU waits for them."""
MECHANISMS = ("copies that the GPU waits for", "sessions that expire", "turns that drop history", "turns on the second of two replicas")


def agreed(family: str, seeds=SEEDS) -> Counter:
    """What happened in cases of a family, in all of which engine and reference agreed."""
    happened = Counter()
    for seed in seeds:
        found, seen = agreement.compare(*agreement.random_case(family, seed))
        assert not found, f"{family}, seed {seed}"
        happened += seen
    return happened


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("more")])
def test_engine_and_reference_agree_on_all_that_the_reference_knows(family):
    happened = agreed(family, MORE_SEEDS)
    assert min(happened[what] for what in MECHANISMS)
    assert bool(happened["sessions moved whole"]) == family.startswith("DRAM and SSD")


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if "prefetching" not in family and ";" not in family])
def test_engine_and_reference_agree_event_by_event(family):
    happened = agreed(family)
    assert happened["truncations"]
    assert bool(happened["evictions"]) == (family != "no store")
    assert bool(happened["demotions"]) == bool(happened["saves into SSD below DRAM"]) == (family == "DRAM and SSD")
    assert happened["demotions without room that leave a prefix"] or family != "DRAM and SSD"


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("clients")])
def test_engine_and_reference_agree_on_turns_that_clients_send(family):
    happened = agreed(family)
    assert happened["turns that wait in the client"] and happened["turns on the second of two replicas"]


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("; blocks") and " and " in family])
def test_engine_and_reference_agree_on_chunks_below_blocks(family):
    happened = agreed(family, (2, 10))
    assert min(
        happened[what]
        for what in (
            "turns that load chunks",
            "jobs that wait apart for their KV",
            "jobs that others pass",
            "chunks without room",
            "chunks that expire",
        )
    )
    assert bool(happened["chunks that come up"]) == ("DRAM and SSD" in family)


def test_engine_and_reference_agree_on_chunks_in_the_order_of_sessions():
    """Also of those whose next job waits when their chunks come, which look-ahead keeps."""
    happened = agreed("HBM, DRAM and SSD; blocks", (5, 55)) + agreed("HBM and DRAM; blocks", [95])
    assert min(happened[what] for what in ("chunks that a turn has not used", "chunks of nobody", "sessions that run and leave"))


def test_engine_and_reference_agree_on_jobs_that_others_pass():
    """Also on those that gave way."""
    happened = agreed("HBM, DRAM and SSD; blocks, batching", [10])
    assert min(happened[what] for what in ("jobs that others pass", "jobs that gave way and others pass", "chunks that come up"))


def test_engine_and_reference_agree_on_blocks():
    happened = agreed("HBM; blocks", range(8))
    assert min(
        happened[what]
        for what in (
            "blocks in use by several",
            "first turns that hit blocks",
            "blocks that expire",
            "truncations",
            "turns that drop history",
        )
    )


@pytest.mark.parametrize(("kept", "seeds"), [("windows", range(8)), ("states", (10, 57, 58))])
def test_engine_and_reference_agree_on_windows_and_states(kept, seeds):
    happened = agreed(f"HBM; {kept}", seeds)
    assert min(
        happened[what] for what in ("blocks in use by several", "first turns that hit blocks", "truncations", "turns that drop history")
    )


@pytest.mark.parametrize(
    "family", [family for family in agreement.FAMILIES if family.endswith(("; windows", "; states")) and " and " in family]
)
def test_engine_and_reference_agree_on_chunks_of_windows_and_states(family):
    happened = agreed(family, (4, 12, 20, 53) if "windows" in family else (22, 23))
    assert min(happened[what] for what in ("turns that load chunks", "windows cut a hit", "jobs that others pass"))
    assert bool(happened["chunks that come up"]) == ("DRAM and SSD" in family)


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("hashes")])
def test_engine_and_reference_agree_on_contexts_known_by_hashes(family):
    happened = agreed(family, (16, 36) if "states" in family else (55, 56))
    assert min(happened[what] for what in ("turns that hit blocks", "first turns that hit blocks"))


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("threshold")])
def test_engine_and_reference_agree_on_chunks_that_several_have_to_offer(family):
    happened = agreed(family, (3, 18, 23))
    assert min(happened[what] for what in ("chunks that too few have offered", "chunks stored", "turns that load chunks"))


FETCHING = {"HBM, DRAM and SSD; blocks, fetching": (3, 21, 23), "HBM, DRAM and SSD; tree, fetching": (1, 12)}


@pytest.mark.parametrize("family", FETCHING)
def test_engine_and_reference_agree_on_chunks_that_come_up_ahead_of_jobs(family):
    happened = agreed(family, FETCHING[family])
    what = ("turns that chunks come up ahead of", "jobs held back for what comes up", "jobs that start before all has come")
    assert min(happened[each] for each in what)


TREES = {"HBM; tree": (10, 12), "HBM and DRAM; tree": (17, 18), "HBM; tree, batching": (17,), "HBM, DRAM and SSD; tree, batching": (16,)}


@pytest.mark.parametrize("family", TREES)
def test_engine_and_reference_agree_on_a_radix_tree(family):
    happened = agreed(family, TREES[family])
    what = ("nodes that are cut", "nodes that go", "blocks that were there when they were computed", "blocks in use by several")
    assert min(happened[each] for each in what)


def test_engine_and_reference_agree_on_what_a_radix_tree_holds_while_answers_take_its_nodes():
    """Its mean would be a tenth more if a node went only when a run of steps ends."""
    loaded, table = agreement.random_case("HBM; tree, batching", 46)
    differences, happened = agreement.compare(loaded, table.select(np.arange(2)))
    assert happened["nodes that go"] and not differences


CASES_OF_STEPS = {
    "DRAM; batching": (10, 21, 39),
    "HBM; blocks, batching": (13, 26),
    "HBM, DRAM and SSD; blocks, batching": (10, 19, 24),
    "HBM; tree, batching": (27, 40),
    "HBM; windows, batching": (6, 40, 55),
    "HBM; states, batching": (25, 26),
    "HBM and DRAM; states, batching": (26, 30),
    "HBM and SSD; states, batching": (6, 8, 39),
    "HBM, DRAM and SSD; states, batching": (26, 30),
}
"""Where several things meet; of other families fewer are enough."""
STEPS = ("steps that prefill and decode", "steps of several prompts", "prompts in parts")


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("batching")])
def test_engine_and_reference_agree_on_steps_that_hold_several_jobs(family):
    happened = agreed(
        family, CASES_OF_STEPS.get(family, (10, 16, 40) if "windows" in family else (10, 24) if "blocks" in family else (10, 28, 39))
    )
    assert min(happened[what] for what in (*STEPS, "jobs that give way"))
    in_blocks = any(kept in family for kept in ("blocks", "tree", "windows", "states"))
    assert family == "no store; batching" or happened["turns that hit blocks" if in_blocks else "jobs that wait apart for their KV"]


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if family.endswith("connectors")])
def test_engine_and_reference_agree_under_every_connector(family):
    used = {agreement.random_case(family, seed)[0].store.connector for seed in MORE_SEEDS}
    assert used == set(catalogue.names("connector"))
    assert agreed(family, MORE_SEEDS)["jobs that wait apart for their KV"]


def test_engine_and_reference_agree_on_copies_of_ranks():
    """Two heads of KV on four GPUs, in tiers of a few sessions."""
    for seed in (2, 5):
        loaded, table = agreement.random_case("DRAM and SSD; more", seed)
        sizes = [f"store.{tier.name}={tier.size // 16}B" for tier in resolve(loaded).tiers]
        options = [
            "model=qwen2.5-0.5b",
            "deployment.gpus=4",
            "store.connector=vllm-native",
            "store.load_mode=blocking",
            "store.kv_dtype=null",
            *sizes,
        ]
        copied = config.load(loaded, options)
        assert [tier.copies for tier in resolve(copied).tiers] == [2, 2]
        assert not agreement.compare(copied, table)[0], f"seed {seed}"


def test_engine_and_reference_agree_with_prefetching():
    happened = agreed("DRAM and SSD, prefetching")
    assert min(
        happened[what] for what in ("fetches", "loads of what was being fetched", "loads from SSD", "skipped saves", "partial preloads")
    )


@pytest.mark.parametrize(
    ("family", "seed", "what"), [("SSD", 46, "waits for room that unsaved KV takes"), ("DRAM", 18, "preloads that full HBM cuts short")]
)
def test_engine_and_reference_agree_on_buffers_in_full_hbm(family, seed, what):
    differences, happened = agreement.compare(*agreement.random_case(family, seed))
    assert happened[what] and not differences


def test_the_check_says_what_happened_and_in_how_many_families(monkeypatch, capsys):
    monkeypatch.setattr(agreement, "CASES", 1)
    monkeypatch.setattr(agreement, "FAMILIES", {name: agreement.FAMILIES[name] for name in ("no store", "DRAM and SSD")})
    agreement.run()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["turns", str(2 * agreement.random_case("no store", 0)[1].turns), "2"] in rows
    assert [row[-1] for row in rows if row[:1] == ["demotions"]] == ["1"]


def test_another_order_of_eviction_is_noticed(monkeypatch):
    monkeypatch.setattr(Lru, "use", lambda self, session: None)
    cases = [agreement.random_case("DRAM", seed) for seed in SEEDS]
    assert any(agreement.compare(*one)[0] for one in cases if one[0].store.eviction == "lru")


def test_a_little_time_is_noticed(monkeypatch):
    loaded, table = agreement.random_case("DRAM and SSD", 1)
    do = Replica.do
    monkeypatch.setattr(Replica, "do", lambda self, what, now, end_s: do(self, what, now, end_s + 1e-6 * (end_s - now)))
    assert "first_token_s" in "".join(agreement.compare(loaded, table)[0])


def test_the_reference_shares_nothing_with_the_engine_but_what_a_configuration_means():
    imported = set()
    for path in Path(reference.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    theirs = {module for module in imported if module.split(".")[0] in ("kvplan", "simpy", "heapq") and "checks.reference" not in module}
    assert theirs == {
        "kvplan.hwmodels",
        "kvplan.sim.config",
        "kvplan.sim.deployment",
        "kvplan.sim.metrics.output",
        "kvplan.sim.rng",
        "kvplan.sim.routing",
        "kvplan.traces",
    }


@pytest.mark.parametrize("family", [family for family in agreement.FAMILIES if "DRAM and SSD" not in family])
def test_engine_and_reference_agree_on_what_the_warmup_cuts(family):
    for seed in (
        (19, 20) if "batching" in family else SEEDS[: 6 if family == "HBM; blocks" else 2] if family.startswith("HBM") else SEEDS[:10]
    ):
        loaded, table = agreement.random_case(family, seed)
        assert not agreement.compare(config.load(loaded, [f"warmup_turns={table.turns // 3}"]), table)[0], f"{family}, seed {seed}"


@pytest.mark.parametrize(
    ("wrong", "by"),
    [
        ("decode_s", -1e-4),
        ("load_stall_s", -1e-4),
        ("save_stall_s", -1e-4),
        ("prefilled_tokens", 1),
        ("device_to_host.busy_s", -1e-4),
        ("dram.byte_seconds", 1e6),
        ("ssd.written", 1e3),
        ("dram.read", 1e3),
        ("skipped_saves", 1),
    ],
)
def test_a_wrong_sum_is_noticed(monkeypatch, wrong, by):
    def books(self, now):
        found = honest(self, now)
        return replace(found, sums={**found.sums, wrong: found.sums[wrong] + by})

    honest = engine.Replica.books
    monkeypatch.setattr(engine.Replica, "books", books)
    assert agreement.compare(*agreement.random_case("DRAM and SSD", 1))[0]


def test_the_reference_is_an_engine():
    loaded = config.load("default", ["workload.sessions=12", "store.load=always", "warmup_turns=10"])
    ours, theirs = simulate(loaded), simulate(loaded, engine=reference.run_reference)
    assert not agreement.differences(ours, theirs) and theirs.summary["turns"] == len(theirs.columns["turn"]) - 10 and theirs.events


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("store.hbm=1GB", "sessions in HBM"),
        ("scheduler=shortest-prefill", "schedulers"),
        ("batching=mine.py:Whole", "batching"),
        ("router=least-loaded", "routers"),
        ("store.eviction=belady", "evictions"),
        ("store.prefetch=hint", "prefetching"),
        ("store.prefetch=timeout", "prefetching"),
        ("store.write=through", "write policies"),
        ("store.load=faster", "load policies"),
    ],
)
def test_the_reference_refuses_what_it_does_not_know_by_name(setting, what):
    loaded = config.load("default", ["workload.sessions=2", "store.load=always", *setting.split()])
    with pytest.raises(config.ConfigError, match=f"the reference does not know {what}"):
        simulate(loaded, engine=reference.run_reference)


def test_what_gives_way_goes_on_in_the_gaps():
    first = [spans.Span(1, 2, 0), spans.Span(4, 6, 0)]
    slow = spans.Span(0, 8, 50, first)
    assert [slow.share(now) for now in (0, 1, 2, 3, 6, 7, 8)] == [0, 0.2, 0.2, 0.4, 0.6, 0.8, 1]
    assert spans.done([*first, slow], 3) == 20


@pytest.mark.parametrize("figures", [queues.recursions, caches.orders, pipeline.closed_forms], ids=["recursions", "orders", "pipeline"])
def test_exact_oracles_hold(figures):
    assert not [finding for finding in figures() if not finding.holds]


def test_a_batch_of_even_steps_is_several_servers(monkeypatch):
    monkeypatch.setattr(servers, "REPLICATIONS", 4)
    figures = servers.waits_against_erlang()
    assert len(figures) == 6 and not [finding for finding in figures if not finding.holds]


def test_erlangs_formula_where_the_answer_is_plain():
    assert servers.erlang_c(1, 0.7) == pytest.approx(0.7)
    assert servers.erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert servers.erlang_c(3, 1e-9) == pytest.approx(0, abs=1e-20)
    assert servers.others_running(1, 0.7) == 0
    assert servers.others_running(2, 1.0) == pytest.approx(1 / 3 + 2 / 3 * 1 / 2)


def test_kiefer_wolfowitz_by_hand():
    starts = queues.kiefer_wolfowitz(np.array([0.0, 1.0, 2.0, 3.0]), np.array([5.0, 5.0, 1.0, 1.0]), 2)
    assert starts.tolist() == [0, 1, 5, 6]


def test_formulas_where_the_answer_is_plain():
    even = np.full(5, 0.2)
    for formula in (caches.king, caches.gelenbe):
        assert formula(even, 3) == pytest.approx(3 / 5)
        assert formula(caches.FEW, len(caches.FEW)) == pytest.approx(1)
        assert formula(caches.FEW, 1) == pytest.approx(caches.FEW @ caches.FEW)
    assert caches.king(caches.FEW, 3) > caches.gelenbe(caches.FEW, 3)
    assert caches.most_hits(np.array([0, 1, 2, 0, 1, 2]), 2) == 2
    assert caches.lru_distance(np.array([0, 1, 0, 0, 1])) == [-1, -1, 2, 1, 2]


def test_service_laws_have_the_mean_that_they_say():
    for law in queues._laws(service := np.linspace(0.02, 80, queues.LONGEST)).values():
        assert law.sum() == pytest.approx(1) and law @ service == pytest.approx(queues.MEAN_S, rel=0.01)


def test_a_finding_holds_within_its_interval_only():
    assert Finding("", 1.0, "", 1.1, 0.2).holds and not Finding("", 1.0, "", 1.3, 0.2).holds
    assert Finding("", 0, "", 0, 0).holds and not Finding("", 0, "", 1, 0).holds
    one, three = averaged("", 0, "", [1, 2, 3]), averaged("", 0, "", [1, 2, 3], figures=3)
    assert one.margin == pytest.approx(4.303 / 3**0.5, rel=1e-3) and three.margin > one.margin
    fail([])
    with pytest.raises(Failed, match="mean wait"):
        fail(["mean wait"])


def test_a_failed_check_does_not_stop_the_others(monkeypatch, capsys):
    ran = []

    def bad():
        ran.append("bad")
        fail(["mean wait"])

    modules = {"bad": SimpleNamespace(run=bad), "good": SimpleNamespace(run=lambda: ran.append("good"))}
    monkeypatch.setattr(validate_main, "CHECKS", {name: name for name in modules})
    monkeypatch.setattr(validate_main, "import_module", modules.get)
    monkeypatch.setattr(validate_main, "_is_here", modules.__contains__)
    assert validate_main.main(["bad", "good"]) == 1 and ran == ["bad", "good"]
    assert "validate bad: does not hold:\nmean wait" in capsys.readouterr().err
    assert validate_main.main(["good"]) == 0
