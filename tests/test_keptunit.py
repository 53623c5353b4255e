"""`store.unit: auto`: blocks where servers of blocks are simulated, else whole sessions, and results say why."""

import pytest

from kvplan.sim import enginesets
from kvplan.sim.analytic.explain import explain
from kvplan.sim.build_workload import build_workload
from kvplan.sim.config import load
from kvplan.sim.deployment import resolve
from kvplan.sim.keptunit import unit_of
from kvplan.sim.planner.question import Question, options
from kvplan.sim.settings import unused
from kvplan.sim.simulation import simulate
from kvplan.sim.sweep.axes import Axis
from kvplan.sim.sweep.compare import Question as Compared
from kvplan.sim.sweep.compare import prepare
from kvplan.sim.sweep.curve import prepare_curves

CHAT = ["workload.sessions=40", "warmup_turns=0", "deployment.replicas=2"]
OF_SESSIONS = {
    "store.prefetch=lookahead": "store.prefetch=lookahead is",
    "store.write=back": "store.write=back is",
    "store.save=sync": "store.save=sync is",
    "store.positions=decoupled": "store.positions=decoupled is",
    "store.host_buffer=0.1": "store.host_buffer=0.1 is",
    "store.mode=kvcache-simulator": "store.mode=kvcache-simulator is simulated with whole sessions",
    "store.tiers=[dram, ssd]": "leaves out hbm",
    "model=mistral-7b": "mistral-7b has layers that attend to windows, and not one and the same beside full attention",
}


@pytest.mark.parametrize("preset", ["chat-2026", "agents-2026"])
@pytest.mark.parametrize("engine", ["vllm", "lmcache", "sglang", "hicache"])
def test_servers_of_2026_keep_blocks(preset, engine):
    config = load(preset, [f"engine={engine}"])
    assert config.store.unit == "auto" and unit_of(config) == "block" and resolve(config).pooled
    assert enginesets.described(config.resolved(), "block")["otherwise"].keys() <= {"store.unit"}


@pytest.mark.parametrize(("override", "why"), OF_SESSIONS.items())
def test_what_blocks_are_not_simulated_with_takes_sessions_and_is_said(override, why):
    config = load("chat-2026", [*CHAT, override])
    workload = build_workload(config)
    deployment = resolve(config, workload)
    assert unit_of(config) == "session" and not deployment.pooled
    said = [*simulate(config, workload).summary["warnings"], *explain(config, deployment, workload)["warnings"]]
    assert sum("not one of blocks (store.unit=auto)" in each and why in each for each in said) == 2


def test_a_server_without_tiers_that_recomputes_instead_of_keeping_blocks_says_so():
    """SGLang has windows in its pool; kvplan has not, and whole sessions have no pool to stay in."""
    config = load("chat-2026", [*CHAT, "engine=sglang", "model=gemma-3-27b", "store.dram=0GB", "store.ssd=0GB"])
    workload = build_workload(config)
    deployment = resolve(config, workload)
    assert not deployment.tiers
    for said in simulate(config, workload).summary["warnings"], explain(config, deployment, workload)["warnings"]:
        assert any("not one of blocks (store.unit=auto)" in each and "every turn recomputes its history" in each for each in said)
    assert not any("store.unit" in each for each in simulate(config.recompute(), workload).summary["warnings"])


@pytest.mark.parametrize(
    "override",
    [
        "store.dram=64GB",
        "store.ssd=1TB",
        "store.hbm=20GB",
        "store.load=faster",
        "model=gemma-3-27b",
        "model=qwen3-next-80b-a3b",
        "router=least-loaded",
        "store.threshold=2",
        "store.ttl_s=60",
    ],
)
def test_what_blocks_are_simulated_with_takes_them(override):
    config = load("chat-2026", [*CHAT, override])
    summary = simulate(config).summary
    assert "hbm" in summary["tiers"] and not any("store.unit" in each for each in summary["warnings"])


def test_windows_of_every_token_and_states_take_blocks():
    """Blocks of windows are as large as those of full attention then, and steps read windows as before."""
    loaded = [load("chat-2026", [*CHAT, "model=gemma-3-27b", *more]) for more in ((), ("store.windows=every-token",))]
    apart, every = map(resolve, loaded)
    assert every.hbm_kv.of(5000) == 5000 * apart.hbm_kv.of(1) > apart.hbm_kv.of(5000)
    assert every.attended == apart.attended == apart.hbm_kv
    hybrid = [*CHAT, "model=qwen3-next-80b-a3b", "store.windows=every-token"]
    assert [unit_of(load("chat-2026", [*hybrid, *more])) for more in ([], ["store.dram=0GB", "store.ssd=0GB"])] == ["block"] * 2


def test_other_engines_and_recomputation_keep_what_they_did():
    assert unit_of(load("chat-2026", ["engine=cachedattention"])) == "session"
    bare = load("chat-2026", CHAT).recompute()
    assert not resolve(bare).tiers and bare.store.unit == "session"


def test_settings_of_sessions_are_not_used_by_blocks():
    blocks, sessions = (load("chat-2026", [*CHAT, each]) for each in ("seed=1", "store.save=sync"))
    assert "store.write" in unused(blocks, build_workload(blocks)) and "store.write" not in unused(sessions, build_workload(sessions))


def test_variants_are_compared_with_one_unit():
    sweep = prepare(Compared("chat-2026", tuple(CHAT), (Axis(("store.save",), (("async",), ("sync",))),), replications=1))
    assert [unit_of(run.config) for run in sweep.runs] == ["session"] * 2
    assert any("whole sessions in all variants" in note for note in sweep.notes)
    alike = prepare(Compared("chat-2026", tuple(CHAT), (Axis(("store.dram",), (("64GB",), ("128GB",))),), replications=1))
    assert [unit_of(run.config) for run in alike.runs] == ["block"] * 2 and not any("unit" in note for note in alike.notes)


def test_a_curve_says_that_its_lru_keeps_answers_where_the_server_does_not_save_them():
    saved = prepare_curves(Compared("chat-2026", (*CHAT, "store.saved=all"), replications=1), "dram", ["64GB"], ["lru"])
    assert not any("keeps answers" in each for each in saved.sweep.notes)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (
            ("model=gpt-oss-120b",),
            "whole sessions (windows and states are replayed in HBM alone (--tier hbm)); servers of blocks, which store.unit=auto",
        ),
        (("model=mistral-7b",), "not one of blocks (store.unit=auto): mistral-7b has layers"),
        (("store.unit=session",), None),
    ],
)
def test_a_curve_of_policies_is_of_sessions_and_says_so_where_blocks_would_be_taken(more, why):
    curves = prepare_curves(Compared("chat-2026", (*CHAT, *more), replications=1), "dram", ["64GB"], ["lru", "fifo"])
    assert {unit_of(run.config) for run in curves.sweep.runs} == {"session"}
    said = [each for each in curves.sweep.notes if "store.unit=auto" in each]
    assert any("LRU, clockless, keeps answers as well" in each for each in curves.sweep.notes)
    assert len(said) == (why is not None) and (why or "") in "".join(said)


@pytest.mark.parametrize(
    ("overrides", "axes", "unit"),
    [
        ((), (), "block"),
        (("store.hbm=20GB",), (), "session"),
        (("store.save=sync",), (), "session"),
        ((), (Axis(("store.save",), (("async",), ("sync",))),), "session"),
        ((), (Axis(("store.eviction",), (("lru",), ("fifo",))),), "block"),
        ((), (Axis(("store.dram",), (("64GB",), ("128GB",))),), "block"),
    ],
)
def test_a_plan_has_one_unit(overrides, axes, unit):
    question = Question("chat-2026", (*CHAT, *overrides), axes=axes)
    recompute, *others = (question.config(option) for option in options(question))
    assert unit_of(recompute) == "session" and {unit_of(each) for each in others} == {unit}
