"""Named engines: what each sets, who says so, and what of a configuration wins over it."""

import pytest
from typer.testing import CliRunner

from kvplan.sim import config, enginesets
from kvplan.sim.cli.app import app
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.deployment import resolve
from kvplan.sim.report import engine as words
from kvplan.sim.simulation import simulate

NAMES = enginesets.names()
SMALL = ("workload.sessions=6", "workload.max_tokens=800")


def said(loaded, path):
    value = loaded.resolved()
    for key in path.split("."):
        value = value[key]
    return value


def test_the_engines_are_there():
    assert NAMES == ["cachedattention", "hicache", "lmcache", "sglang", "vllm"]


@pytest.mark.parametrize("name", NAMES)
def test_an_engine_says_what_all_say_and_the_configuration_takes_it(name):
    """The same settings in each, with a source, so that one can take another's place; loaded, nothing is otherwise."""
    found = enginesets.engine(name)
    assert found.name == name and list(found.settings) == list(enginesets.engine(enginesets.DEFAULT).settings)
    loaded = config.load(None, {"engine": name})
    assert loaded.engine == name and enginesets.described(loaded.resolved(), "session")["otherwise"] == {}
    assert {path: said(loaded, path) for path in found.settings} == {path: choice.value for path, choice in found.settings.items()}


def test_the_default_engine_is_the_defaults():
    """A configuration that says nothing is CachedAttention's, with or without its name."""
    assert config.load("default") == config.load("default", ["engine=cachedattention"])
    bare = Config().resolved()
    assert enginesets.described(bare, "session")["otherwise"] == {}


@pytest.mark.parametrize("name", ["hicache", "lmcache", "sglang", "vllm"])
def test_what_sessions_leave_out_is_not_said_of_blocks(name):
    """What they share, which only blocks have."""
    resolved = config.load(None, {"engine": name}).resolved()
    of_blocks, of_sessions = (enginesets.described(resolved, unit)["left_out"] for unit in ("block", "session"))
    assert (
        of_sessions[: len(of_blocks)] == of_blocks and "sessions share" in of_sessions[-1] and "sessions share" not in " ".join(of_blocks)
    )


@pytest.mark.parametrize("override", [["store.eviction=fifo", "engine=vllm"], ["engine=vllm", "store.eviction=fifo"]])
def test_what_the_user_says_wins_over_the_engine(override):
    loaded = config.load("default", override)
    assert (loaded.batching, loaded.store.eviction) == ("chunked", "fifo")
    assert enginesets.described(loaded.resolved(), "session")["otherwise"] == {"store.eviction": "fifo"}


def test_a_file_says_the_rest_on_top_of_its_engine(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("engine: vllm\nstore: {eviction: lookahead, dram: 64GB}\n")
    loaded = config.load(path)
    assert (loaded.store.eviction, loaded.store.connector, loaded.deployment.max_batch) == ("lookahead", "vllm-native", 1024)
    assert config.load(path, ["store.connector=lmcache"]).store.connector == "lmcache"


def test_another_engine_takes_what_the_first_one_said_and_leaves_what_the_file_said(tmp_path):
    """Of a file, a preset and a whole configuration alike: what it has as its own engine has it follows the new engine."""
    path = tmp_path / "mine.yaml"
    path.write_text("engine: vllm\nstore: {eviction: fifo, prefetch: none}\ndeployment: {max_batch: 7}\n")
    for source in (path, config.load(path)):
        loaded = config.load(source, {"engine": "hicache"})
        assert loaded.batching == "prefill-first" and loaded.store.prefetch == "timeout"
        assert (loaded.store.eviction, loaded.deployment.max_batch) == ("fifo", 7)
    assert config.load("default", {"engine": "vllm"}).store.eviction == "lru", "the preset's lookahead is its engine's"
    assert config.load("paper-13b", {"engine": "vllm"}).store.read_buffer_layers == 35, "which is no engine's"


def test_what_is_written_of_a_configuration_is_taken_back(tmp_path):
    first = config.load("default", {"engine": "vllm", "store.eviction": "fifo"})
    assert config.validated(first.resolved()) == first == config.load(first, {"seed": 1})


@pytest.mark.parametrize("value", ["vlm", "{}", "null", "[vllm]", "3"])
def test_an_engine_that_is_none(value):
    with pytest.raises(ConfigError, match="engine"):
        config.load(None, [f"engine={value}"])


def test_a_wrong_name_names_the_nearest():
    found = CliRunner().invoke(app, ["simulate", "--set", "engine=vlm"])
    assert found.exit_code == 2 and "did you mean 'vllm'?" in found.stderr


def test_a_section_that_is_none_is_refused_and_not_filled(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("engine: vllm\nstore: nothing\n")
    with pytest.raises(ConfigError, match="store"):
        config.load(path)


def test_a_result_names_its_engine_and_what_is_left_out_of_it():
    loaded = config.load("default", [*SMALL, "engine=vllm", "batching=iteration"])
    found = simulate(loaded).summary["provenance"]["engine"]
    assert found["name"] == "vllm" and found["otherwise"] == {"batching": "iteration"} and found["left_out"]
    first, second = words.words(found)
    assert first.startswith("Engine vllm: vLLM 0.33") and first.endswith("; but batching=iteration.")
    assert "left out" in second and "max_batch=256" in second


def test_engines_are_listed_with_their_sources():
    found = CliRunner().invoke(app, ["list", "engines"])
    assert found.exit_code == 0 and all(f"{name} " in found.stdout for name in NAMES)
    assert "gpu-memory-utilization" in found.stdout and "left out" in found.stdout


@pytest.mark.parametrize("name", ["vllm", "cachedattention"])
def test_what_is_saved_is_open_beside_the_connector(name):
    """Answers or prompts alone, in whole blocks or token by token."""
    connection = resolve(config.load("default", {"engine": name})).connection
    assert (connection.saved(130, 30), connection.block) == ((96, 16) if name == "vllm" else (130, 1))
    for settings, tokens in (
        ({"store.saved": "all", "store.block_tokens": 1}, 130),
        ({"store.saved": "all", "store.block_tokens": 16}, 128),
        ({"store.saved": "prompt", "store.block_tokens": 1}, 100),
        ({"store.saved": "prompt", "store.block_tokens": 64}, 64),
    ):
        assert resolve(config.load("default", {"engine": name, **settings})).connection.saved(130, 30) == tokens


def test_prompts_saved_alone_are_found_and_answers_computed_again(workload):
    """The second turn finds the first one's prompt in its whole blocks, and no token of the answer."""
    for settings, cached in ({}, 250), ({"store.saved": "prompt"}, 100), ({"store.saved": "prompt", "store.block_tokens": 64}, 64):
        loaded = config.load("default", {"store.load": "always", **settings})
        assert simulate(loaded, workload([[(100, 150), (10, 5)]], gap_s=60)).columns["cached_tokens"].tolist() == [0, cached]
