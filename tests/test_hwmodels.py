"""Units, strict YAML, the catalogue, KV sizes, step times and cost."""

import dataclasses
import doctest
import json
import math
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvplan import hwmodels
from kvplan.hwmodels import catalogue, cost, hfconfig, kvsize, strictyaml, units
from kvplan.hwmodels.schema import YEAR_S, Model

NODE = hwmodels.load("node", "a100-80g-pcie4")
GPU = hwmodels.load("gpu", NODE.gpu)
LINK = hwmodels.load("link", NODE.host_link)
MODELS = catalogue.names("model")


# --- units and YAML ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "dimension", "number"),
    [("64GiB", "bytes", 64 * 2**30), ("1.92TB", "bytes", 1.92e12), ("25GB/s", "bytes_per_s", 25e9), ("80us", "seconds", 80e-6)],
)
def test_quantities_parse(text, dimension, number):
    assert units.parse(text, dimension) == pytest.approx(number, rel=1e-15)


@pytest.mark.parametrize("text", ["128", "12 parsecs", "", "GB", "1e400GB", "--1GB", 128, None])
def test_quantities_without_sense_are_refused(text):
    with pytest.raises(ValueError, match=r"."):
        units.parse(text, "bytes")


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="negative"):
        units.parse_bytes("-1GB")


@pytest.mark.parametrize(
    ("text", "value"),
    [("3.35e12", 3.35e12), ("1:30", "1:30"), ("no", "no"), ("true", True), ("null", None), ("0", 0), ("-7", -7), ("1e3", 1000.0)],
)
def test_yaml_has_no_traps(text, value):
    assert strictyaml.loads(f"a: {text}") == {"a": value}


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: &x 1\nb: *x", "a: [", "1: 2", "a: !!python/object:os.system x", "\x00"])
def test_yaml_refuses_what_is_unsafe_or_doubtful(text):
    with pytest.raises(strictyaml.YamlError):
        strictyaml.loads(text)


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 5000, "- " * 5000, "".join(f"{' ' * depth}a:\n" for depth in range(2000))])
def test_yaml_refuses_deep_nesting_at_once(text):
    """Text twice as long takes no more work."""
    assert _calls(text) == _calls(text * 2)


def _calls(text):
    """How many functions of the YAML reader are called to refuse it."""
    found = []
    sys.setprofile(lambda frame, event, _: found.append(event) if event == "call" and "yaml" in frame.f_code.co_filename else None)
    try:
        with pytest.raises(strictyaml.YamlError, match="nested more than 100 levels deep"):
            strictyaml.loads(text)
    finally:
        sys.setprofile(None)
    return len(found)


@given(st.text(max_size=60))
def test_yaml_never_fails_otherwise(text):
    try:
        strictyaml.loads(text)
    except strictyaml.YamlError as error:
        assert str(error)


# --- catalogue --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in catalogue.KINDS if kind != "calibration"])
def test_every_entry_loads_and_is_named_as_its_file(kind):
    assert catalogue.names(kind)
    for name in catalogue.names(kind):
        assert catalogue.load(kind, name).name == name


def test_what_huggingface_calls_a_model_names_the_nearest():
    with pytest.raises(hwmodels.CatalogueError, match=r"no such file, and nothing is fetched by its name: did you mean 'llama-3.1-8b'\?"):
        catalogue.load("model", "meta-llama/Llama-3.1-8B")
    with pytest.raises(hwmodels.CatalogueError, match=r"my/config.json: no such file$"):
        catalogue.load("model", "my/config.json")


def test_an_unknown_entry_names_the_nearest():
    with pytest.raises(hwmodels.CatalogueError, match="did you mean 'llama-2-13b'"):
        hwmodels.load("model", "llama2-13b")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("hbm: 80", "hbm"),
        ("hbm: {value: 80, unit: GB/s, source: mine}", "unit"),
        ("hbm: {value: -80, unit: GiB, source: mine}", "range"),
        ("hbm: {value: 80, unit: GiB}", "source"),
        ("hmb: {value: 80, unit: GiB, source: mine}", "unknown key"),
        ("hbm: {value: 80, unit: GiB, source: mine, date: May}", "hbm.date"),
        ("hbm: {value: 1e12, unit: GiB, source: mine}", "range"),
    ],
)
def test_catalogue_files_are_strict(tmp_path, change, reason):
    good = (catalogue.KINDS["gpu"][1] / "a100-80g.yaml").read_text()
    lines = [line for line in good.splitlines() if not line.startswith("hbm:")]
    path = tmp_path / "gpu.yaml"
    path.write_text("\n".join([*lines, change]))
    with pytest.raises(hwmodels.CatalogueError, match=reason):
        hwmodels.load("gpu", str(path))


def test_a_file_without_a_date_is_refused(tmp_path):
    good = (catalogue.KINDS["gpu"][1] / "a100-80g.yaml").read_text()
    path = tmp_path / "gpu.yaml"
    path.write_text("".join(line for line in good.splitlines(keepends=True) if not line.startswith("date:")))
    with pytest.raises(hwmodels.CatalogueError, match="date: Field required"):
        hwmodels.load("gpu", str(path))


@pytest.mark.parametrize("kind", [kind for kind in catalogue.KINDS if kind not in ("model", "calibration", "connector")])
def test_every_row_has_a_unit_a_source_and_a_date(kind):
    for name in catalogue.names(kind):
        rows = dict(hwmodels.load(kind, name).rows())
        assert rows
        for path, row in rows.items():
            assert row.unit and len(row.source) >= 3 and row.date, (name, path)
            assert float(row.text.split()[0]) > 0 and "e" not in row.text.split()[0]


def test_a_row_may_be_older_than_its_file():
    prices = hwmodels.load("prices", "buy-2026")
    assert (prices.date, prices.dram.date, prices.ssd.date, prices.dram.lifetime.date) == ("2026-02", "2025-12", "2026-02", "2026-02")


@pytest.mark.parametrize(("kind", "name"), [("gpu", "a100-80g"), ("ssd", "nvme-tlc"), ("link", "pcie4-x16"), ("prices", "buy-2026")])
def test_numbers_come_back_in_the_unit_of_their_file(kind, name):
    written = strictyaml.load(catalogue.KINDS[kind][1] / f"{name}.yaml")
    for path, row in hwmodels.load(kind, name).rows():
        data = written
        for key in path.split(".", 1):
            data = data[key]
        assert float(row.text.split()[0]) == data["value"]


def test_every_gpu_has_a_node_and_every_node_its_parts():
    nodes = [hwmodels.load("node", name) for name in catalogue.names("node")]
    for node in nodes:
        assert hwmodels.load("gpu", node.gpu) and hwmodels.load("link", node.host_link) and hwmodels.load("ssd", node.ssd)
        assert node.host_links.value <= node.max_gpus.value
    assert {node.gpu for node in nodes} == set(catalogue.names("gpu"))


def test_every_gpu_with_a_public_price_is_priced():
    """Those without one run with a price list of the user's own."""
    priced = {gpu for name in catalogue.names("prices") for gpu in hwmodels.load("prices", name).gpus}
    assert set(catalogue.names("gpu")) - priced == {"a100-80g-pcie", "gb200", "gb300", "h20", "h800", "mi325x", "mi355x"}
    assert priced <= set(catalogue.names("gpu"))


def test_hbm_is_what_the_driver_reports():
    """What is sold as 141 and 192 GB. Source: nvidia-smi; 192 GB of HBM3 are eight stacks of 24 GiB."""
    assert hwmodels.load("gpu", "h200").hbm.value == 150_754_820_096 and hwmodels.load("gpu", "mi300x").hbm.value == 192 * 2**30


@pytest.mark.parametrize("name", [name for name in catalogue.names("node") if name.startswith("aws-")])
def test_the_rent_of_a_shape_contains_all_that_it_has(name):
    """A store that fits costs nothing more than the GPUs."""
    node, prices = hwmodels.load("node", name), hwmodels.load("prices", "aws-2026")
    gpus, drives = int(node.max_gpus.value), node.ssd_drives.value * hwmodels.load("ssd", node.ssd).capacity.value
    assert gpus * prices.included_dram[node.gpu].value == node.max_dram.value
    assert gpus * prices.included_ssd[node.gpu].value == pytest.approx(drives, rel=0.07)
    assert cost.usd_per_s(prices, node.gpu, gpus, node.max_dram.value, 0)["dram"] == 0


def _hbm_token_bytes(model, gpus):
    """Of one token, in every layer that keeps it."""
    found = kvsize.hbm_footprint(model, gpus)
    return found.of(1) - found.state


@pytest.mark.parametrize("name", MODELS)
def test_every_model_fits_somewhere(name):
    """Weights and the KV of one context of 8K tokens (or the model's window) in 90 % of some node's HBM."""
    model = hwmodels.load("model", name)
    tokens = min(8192, model.max_position_embeddings)

    def fits(node):
        gpus = int(node.max_gpus.value)
        room = 0.9 * gpus * hwmodels.load("gpu", node.gpu).hbm.value - kvsize.weight_bytes(model)
        return room > tokens * _hbm_token_bytes(model, gpus)

    assert any(fits(hwmodels.load("node", node)) for node in catalogue.names("node"))


@pytest.mark.parametrize("node", catalogue.names("node"))
def test_every_node_runs(node, tmp_path):
    """A small model on one GPU of the node, with a price list of the user's own."""
    from kvplan.sim import config
    from kvplan.sim.deployment import resolve

    prices = (catalogue.KINDS["prices"][1] / "paper-2024.yaml").read_text().replace("paper-2024", "own")
    (tmp_path / "prices").mkdir()
    (tmp_path / "prices" / "own.yaml").write_text(prices.replace("a100-80g:", f"{hwmodels.load('node', node).gpu}:"))
    overrides = ["model=qwen2.5-0.5b", f"hardware={node}", "deployment.gpus=1", "prices=own", f"catalogue={tmp_path}"]
    deployment = resolve(config.load(None, overrides))
    assert deployment.hbm_budget > 0 and deployment.host.read_bytes_per_s > 1e10


# --- nodes ------------------------------------------------------------------------------------------------------------------------


def _node(**values) -> hwmodels.Node:
    row = {"unit": "1", "source": "test"}
    data = strictyaml.load(catalogue.KINDS["node"][1] / "a100-80g-x8.yaml")
    data["host_links"] = {"value": values.get("host_links", 1), **row}
    data["ssd_drives"] = {"value": values.get("ssd_drives", 1), **row}
    data["dram_bandwidth"] = {"value": values.get("dram_gb_per_s", 1000), "unit": "GB/s", "source": "test"}
    return hwmodels.Node.model_validate(data)


@pytest.mark.parametrize(
    ("host_links", "gpus", "dram_gb_per_s", "expected"),
    [(1, 1, 1000, 26), (1, 8, 1000, 26), (8, 1, 1000, 26), (8, 4, 1000, 104), (4, 8, 1000, 104), (8, 8, 100, 100)],
)
def test_host_bandwidth(host_links, gpus, dram_gb_per_s, expected):
    node = _node(host_links=host_links, dram_gb_per_s=dram_gb_per_s)
    assert hwmodels.host_bandwidth(node, LINK, gpus) == (expected * 1e9, expected * 1e9)


def test_ssd_bandwidth():
    ssd = hwmodels.load("ssd", "nvme-mixed-use")
    assert hwmodels.ssd_bandwidth(ssd, 4) == (56e9, 40e9)


def test_the_papers_node_is_one_shared_link():
    assert [hwmodels.host_bandwidth(NODE, LINK, gpus)[0] for gpus in (1, 2, 4)] == [26e9] * 3
    assert hwmodels.ssd_bandwidth(hwmodels.load("ssd", NODE.ssd), 1) == (4.5e9, 2.5e9)


def test_half_a_link_is_refused():
    with pytest.raises(ValueError, match="whole number"):
        _node(host_links=1.5)


# --- a user's own catalogue -------------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """A function that copies a packaged entry into a user's folder under another name, with one word replaced."""

    def copy(kind: str, name: str, new: str, word: str = "", put: str = "") -> str:
        packaged = catalogue.KINDS[kind][1]
        text = (packaged / f"{name}.yaml").read_text().replace(f"name: {name}\n", f"name: {new}\n")
        text = text.replace(word, put) if word else text
        target = tmp_path / packaged.name / f"{new}.yaml"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
        return str(tmp_path)

    return copy


def test_a_users_entries_stand_beside_the_packaged_ones(own):
    from kvplan.sim import config
    from kvplan.sim.deployment import resolve

    own("node", "a100-80g-x8", "ours", "gpu: a100-80g", "gpu: our-gpu")
    folder = own("gpu", "h100-80g", "our-gpu")
    assert {"our-gpu", "a100-80g"} <= set(catalogue.names("gpu", folder))
    assert "our-gpu" not in catalogue.names("gpu")
    overrides = [f"catalogue={folder}", "hardware=ours", "model=llama-2-7b"]
    with pytest.raises(config.ConfigError, match="paper-2024 has no our-gpu, only a100-80g: add it to a price list of your own"):
        resolve(config.load(None, overrides))
    own("prices", "paper-2024", "our-prices", "a100-80g", "our-gpu")
    with pytest.raises(config.ConfigError, match="set prices=our-prices"):
        resolve(config.load(None, overrides))
    deployment = resolve(config.load(None, [*overrides, "prices=our-prices"]))
    assert (deployment.gpu.name, deployment.gpu.peak_flops.value) == ("our-gpu", 989e12)


def test_a_user_cannot_redefine_what_is_packaged(own):
    folder = own("gpu", "h100-80g", "a100-80g")
    with pytest.raises(hwmodels.CatalogueError, match="has a gpu 'a100-80g': give yours another name"):
        hwmodels.load("gpu", "a100-80g", folder)


def test_a_name_is_that_of_its_file(own, tmp_path):
    folder = own("gpu", "h100-80g", "mine")
    (tmp_path / "gpu" / "mine.yaml").rename(tmp_path / "gpu" / "yours.yaml")
    with pytest.raises(hwmodels.CatalogueError, match="name is 'mine', but the file is 'yours'"):
        hwmodels.load("gpu", "yours", folder)


@pytest.mark.parametrize("folder", ["/no/such/folder", "/etc/passwd", "", "\0", "x" * 5000])
def test_a_catalogue_that_is_no_folder(folder):
    with pytest.raises(hwmodels.CatalogueError, match="there is no catalogue folder"):
        catalogue.names("gpu", folder)


def test_a_subfolder_that_nothing_reads_is_refused(tmp_path):
    (tmp_path / "gpus").mkdir()
    with pytest.raises(hwmodels.CatalogueError, match="did you mean 'gpu'"):
        catalogue.names("gpu", str(tmp_path))


@pytest.mark.parametrize("kind", ["models", "hardware", "nodes", "gpus", "links", "ssds", "connectors", "prices"])
def test_list_is_a_table_of_every_entry(kind):
    from typer.testing import CliRunner

    from kvplan.sim.cli.app import app

    lines = CliRunner().invoke(app, ["list", kind]).stdout.splitlines()
    assert max(map(len, lines)) <= 200
    entries = {"hardware": "node", "prices": "prices"}.get(kind, kind.removesuffix("s"))
    assert {line.split()[0] for line in lines if not line.startswith(" ")} >= set(catalogue.names(entries))


def _listed(kind):
    from typer.testing import CliRunner

    from kvplan.sim.cli.app import app

    return CliRunner().invoke(app, ["list", kind]).stdout


def test_hardware_fits_a_line_of_120():
    assert max(len(line.rstrip()) for line in _listed("hardware").splitlines()) <= 120
    assert "4 x GB200 and two Grace CPUs" in _listed("nodes")


def test_list_says_which_layers_keep_something_else():
    shown = _listed("models")
    assert "18 of window 128" in shown and "36 of state, 77.3 MB" in shown


def test_list_shows_a_users_entries(own):
    from typer.testing import CliRunner

    from kvplan.sim.cli.app import app

    folder = own("gpu", "h100-80g", "our-gpu")
    shown = CliRunner().invoke(app, ["list", "gpus", "--catalogue", folder])
    assert shown.exit_code == 0 and "our-gpu" in shown.stdout and "989 TFLOP/s" in shown.stdout
    missing = CliRunner().invoke(app, ["list", "gpus", "--catalogue", "/no/such"])
    assert missing.exit_code == 2 and missing.stderr == "kvplan: there is no catalogue folder /no/such\n"


# --- models -----------------------------------------------------------------------------------------------------------------------

DENSE = {
    "model_type": "qwen2",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "torch_dtype": "bfloat16",
    "vocab_size": 152064,
    "use_cache": True,
    "rope_scaling": None,
}
"""Qwen2.5-7B."""
QWEN_MOE = {
    **DENSE,
    "model_type": "qwen2_moe",
    "num_key_value_heads": 28,
    "intermediate_size": 18944,
    "moe_intermediate_size": 2560,
    "shared_expert_intermediate_size": 20480,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "vocab_size": 151936,
}
"""Qwen2-57B-A14B, with its KV heads left at 28."""
DEEPSEEK_V2 = {
    "model_type": "deepseek_v2",
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 60,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "n_routed_experts": 160,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "moe_layer_freq": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 102400,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}
OLD_FALCON = {
    "model_type": "RefinedWebModel",
    "hidden_size": 4544,
    "n_head": 71,
    "n_layer": 32,
    "multi_query": True,
    "vocab_size": 65024,
    "torch_dtype": "bfloat16",
}
"""Falcon-7B as it was first published."""
NEW_FALCON = {
    "model_type": "falcon",
    "hidden_size": 8192,
    "num_attention_heads": 128,
    "num_hidden_layers": 60,
    "num_kv_heads": 8,
    "multi_query": True,
    "new_decoder_architecture": True,
    "vocab_size": 65024,
    "torch_dtype": "bfloat16",
}
NESTED = {
    "model_type": "some_vision_model",
    "dtype": "bfloat16",
    "vision_config": {"hidden_size": 1152},
    "text_config": {key: value for key, value in DENSE.items() if key != "torch_dtype"},
}
LLAMA_4 = {
    "model_type": "llama4",
    "text_config": {
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "interleave_moe_layer_step": 1,
        "max_position_embeddings": 10485760,
        "num_attention_heads": 40,
        "num_experts_per_tok": 1,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "num_local_experts": 16,
        "torch_dtype": "bfloat16",
        "vocab_size": 202048,
    },
}
"""Llama 4 Scout."""
CONFIGS = [DENSE, QWEN_MOE, DEEPSEEK_V2, OLD_FALCON, NEW_FALCON, NESTED, LLAMA_4]
OURS = {"name": "m", "source": "test", "date": "2026"}


def _read(config: dict) -> Model:
    return hfconfig.read_model({**OURS, **config})


def test_a_local_config_json_is_a_model(tmp_path):
    path = tmp_path / "Qwen2.5-7B" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(DENSE, indent="\t"))
    model = hwmodels.load("model", str(path))
    assert (model.name, kvsize.kv_bytes_per_token(model)) == ("Qwen2.5-7B", 57_344)
    packaged = hwmodels.load("model", "qwen2.5-7b")
    assert dataclasses.replace(packaged, name="", source="", date="") == dataclasses.replace(model, name="", source="", date="")


@pytest.mark.parametrize(
    "text", ['{"hidden_size": 1, "hidden_size": 2}', "{", "[]", "", '{"a": NaN}', "\ufeff{}", "[" * 100_000, "9" * 5000]
)
def test_a_config_json_without_sense_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(hwmodels.CatalogueError, match=r"config\.json"):
        hwmodels.load("model", str(path))


@pytest.mark.parametrize(
    ("config", "billions", "active", "kv_bytes"),
    [
        (DENSE, 7.62, 7.62, 57_344),
        ({**QWEN_MOE, "num_key_value_heads": 4}, 57.4, 14.2, 57_344),
        (DEEPSEEK_V2, 236, 21.4, 69_120),
        (OLD_FALCON, 6.92, 6.92, 8_192),
        (NEW_FALCON, 41.3, 41.3, 122_880),
        (NESTED, 7.62, 7.62, 57_344),
        (LLAMA_4, 107.8, 17.2, 196_608),
    ],
)
def test_families_of_config_json(config, billions, active, kv_bytes):
    """Published sizes, of the language model alone. Llama 4 Scout: 109 B with its vision part."""
    model = _read(config)
    assert kvsize.parameters(model) / 1e9 == pytest.approx(billions, rel=0.01)
    assert kvsize.active_parameters(model) / 1e9 == pytest.approx(active, rel=0.01)
    assert kvsize.kv_bytes_per_token(model) == kv_bytes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
        ({"num_key_value_heads": 5}, "multiple"),
        ({"num_attention_heads": 24, "num_key_value_heads": 24}, "no head_dim"),
        ({"torch_dtype": "int3"}, "torch_dtype"),
        ({"kv_lora_rank": 512}, "kv_lora_rank: may say"),
        ({"num_experts": 4}, "num_experts_per_tok"),
        ({"num_experts": 4, "num_experts_per_tok": 5}, "num_experts_per_tok"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "bits of a weight"),
        ({"mamba_d_state": 16}, "mamba_d_state: may say what layers keep"),
        ({"is_encoder_decoder": True}, "decoder-only"),
    ],
)
def test_models_that_cannot_be_sized_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        _read({**DENSE, **changes})


def test_experts_stand_in_the_layers_that_the_config_says():
    assert _read(DENSE).moe_layers == 0
    assert _read(QWEN_MOE).moe_layers == 28
    assert _read({**QWEN_MOE, "mlp_only_layers": [0, 3, 99]}).moe_layers == 26
    assert _read({**QWEN_MOE, "decoder_sparse_step": 4}).moe_layers == 7
    assert _read(DEEPSEEK_V2).moe_layers == 59


def test_a_quantised_model_takes_less_hbm_and_the_same_kv():
    plain = _read(DEEPSEEK_V2)
    fp8 = _read({**DEEPSEEK_V2, "quantization_config": {"quant_method": "fp8", "fmt": "e4m3"}})
    awq = _read({**DEEPSEEK_V2, "quantization_config": {"quant_method": "awq", "bits": 4}})
    assert (plain.weight_bits, fp8.weight_bits, awq.weight_bits) == (16, 8, 4)
    assert kvsize.kv_bytes_per_token(fp8) == kvsize.kv_bytes_per_token(plain)
    assert kvsize.weight_bytes(plain) - kvsize.weight_bytes(fp8) == kvsize.decoder_parameters(plain)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-2, 300),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["falcon", "fp8", 10**30]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*sorted(hfconfig.KEYS), "quant_method", "bits"]), inner, max_size=3)
    ),
    max_leaves=4,
)
KEYS = st.sampled_from(sorted(hfconfig.KEYS | {"text_config", "mamba_d_state", "is_encoder_decoder"}))


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(CONFIGS), st.dictionaries(KEYS, JSON, max_size=4), st.integers(1, 64))
def test_a_mutated_config_json_is_a_model_or_a_clear_error(config, changes, gpus):
    try:
        model = _read({**config, **changes})
    except ValueError as error:
        assert str(error)
        return
    steps = hwmodels.roofline(model, GPU, NODE, gpus)
    sizes = [size(model) for size in (kvsize.kv_bytes_per_token, kvsize.active_parameters, kvsize.parameters, kvsize.weight_bytes)]
    sizes.append(_hbm_token_bytes(model, gpus))
    times = [steps.prefill(1000, 1000), steps.decode(8, 8000)]
    assert all(isinstance(size, int) and size > 0 for size in sizes)
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in times)
    assert kvsize.active_parameters(model) <= kvsize.parameters(model)


def _mutated(text: bytes, rng: random.Random) -> bytes:
    """One to four bytes changed, taken out, or a piece repeated."""
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            text = text[:place] + bytes([rng.randrange(256)]) + text[place + 1 :]
        elif kind == 1:
            text = text[:place] + text[place + rng.randint(1, 8) :]
        elif kind == 2:
            text = text[:place] + rng.choice(b"{}[]:,#&*!|>'\"%@`-?\n\t 09eE.~".decode()).encode() + text[place:]
        else:
            text = text[:place] + text[place : place + 12] + text[place:]
    return text


FILES = [(kind, path) for kind, (_, folder) in catalogue.KINDS.items() for path in sorted(folder.glob("*.yaml"))]


def test_mutated_catalogue_files_load_or_fail_clearly(tmp_path):
    rng = random.Random(7)
    path = tmp_path / "mutated.yaml"
    loaded = refused = 0
    for _ in range(400):
        kind, source = rng.choice(FILES)
        path.write_bytes(_mutated(source.read_bytes(), rng))
        try:
            catalogue.load(kind, str(path))
            loaded += 1
        except hwmodels.CatalogueError as error:
            assert str(path) in str(error)
            refused += 1
    assert loaded > 20 and refused > 200


def test_mutated_lines_parse_or_fail_clearly():
    rng = random.Random(8)
    lines = [line for _, path in FILES for line in path.read_bytes().splitlines(keepends=True)]
    parsed = refused = 0
    for _ in range(10_000):
        try:
            strictyaml.loads(_mutated(rng.choice(lines)[:120], rng).decode("utf-8", "replace"))
            parsed += 1
        except strictyaml.YamlError as error:
            assert str(error).startswith("<text>")
            refused += 1
    assert parsed > 1000 and refused > 1000


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("llama-1-65b", 2_621_440),
        ("llama-2-7b", 524_288),
        ("llama-2-13b", 819_200),
        ("llama-2-70b", 327_680),
        ("llama-3.1-8b", 131_072),
        ("llama-3.1-70b", 327_680),
        ("llama-3.1-405b", 516_096),
        ("falcon-40b", 122_880),
        ("mistral-7b", 131_072),
        ("mixtral-8x7b", 131_072),
        ("qwen2.5-7b", 57_344),
        ("deepseek-v3", 70_272),
    ],
)
def test_kv_bytes_per_token(name, size):
    assert kvsize.kv_bytes_per_token(hwmodels.load("model", name)) == size


def _model(**changes) -> Model:
    base = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 512,
        "num_attention_heads": 8,
        "intermediate_size": 1024,
        "vocab_size": 1000,
        "max_position_embeddings": 1024,
    }
    return _read({**base, **changes})


LATENT = {"q_lora_rank": None, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}


def test_kv_bytes_of_mha_gqa_mqa_and_mla():
    assert kvsize.kv_bytes_per_token(_model()) == 2 * 2 * 8 * 64 * 2
    assert kvsize.kv_bytes_per_token(_model(num_key_value_heads=2)) == 2 * 2 * 2 * 64 * 2
    assert kvsize.kv_bytes_per_token(_model(multi_query=True)) == 2 * 2 * 1 * 64 * 2
    assert kvsize.kv_bytes_per_token(_model(model_type="minicpm3", num_hidden_layers=61, **LATENT)) == 70_272


@pytest.mark.parametrize(
    ("heads", "stored"),
    [
        (1, {1: 1, 2: 2, 4: 4, 8: 8}),
        (2, {1: 2, 2: 2, 4: 4, 8: 8}),
        (3, {1: 3, 2: 4, 4: 4, 8: 8}),
        (4, {1: 4, 2: 4, 4: 4, 8: 8}),
        (6, {1: 6, 2: 6, 4: 8, 8: 8}),
        (8, {1: 8, 2: 8, 4: 8, 8: 8}),
        (12, {1: 12, 2: 12, 4: 12, 8: 16}),
        (71, {1: 71, 2: 72, 4: 72, 8: 72}),
    ],
)
def test_kv_heads_over_the_ranks(heads, stored):
    """Heads that all ranks together hold: copied where there are fewer than ranks, padded where they do not divide."""
    model = _model(num_attention_heads=heads, num_key_value_heads=heads, head_dim=64)
    for gpus, count in stored.items():
        assert _hbm_token_bytes(model, gpus) == count * 2 * 2 * 64 * 2


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_a_latent_is_copied_to_every_rank(gpus):
    assert _hbm_token_bytes(hwmodels.load("model", "deepseek-v3"), gpus) == gpus * 70_272


PUBLISHED_BILLIONS = {
    "deepseek-v3.2": 671,
    "gemma-3-12b": 11.77,
    "gemma-3-27b": 27.0,
    "gemma-3-4b": 3.88,
    "glm-5": 744,
    "gpt-oss-120b": 117,
    "gpt-oss-20b": 20.9,
    "llama-4-maverick": 401,
    "llama-4-scout": 109,
    "nemotron-3-nano-30b-a3b": 31.6,
    "nemotron-3-super-120b-a12b": 120,
    "qwen3-next-80b-a3b": 80,
    "qwen3.5-122b-a10b": 122,
    "qwen3.5-27b": 27,
    "qwen3.5-35b-a3b": 35,
    "qwen3.5-397b-a17b": 397,
    "llama-3.2-1b": 1.23,
    "llama-3.2-3b": 3.21,
    "llama-3.3-70b": 70.6,
    "mistral-7b-v0.3": 7.25,
    "mistral-small-24b": 23.6,
    "mistral-large-123b": 123,
    "phi-4": 14.7,
    "qwen3-0.6b": 0.6,
    "qwen3-1.7b": 1.7,
    "qwen3-32b": 32.8,
    "qwen3-30b-a3b": 30.5,
    "qwen3-235b-a22b": 235,
    "qwen3-coder-480b-a35b": 480,
    "glm-4.5": 355,
    "glm-4.5-air": 106,
    "deepseek-r1": 671,
    "kimi-k2": 1030,
    "minimax-m2.5": 230,
    "deepseek-v3": 671,
    "falcon-180b": 180,
    "falcon-40b": 41.3,
    "falcon-7b": 6.92,
    "gemma-2-27b": 27.2,
    "gemma-2-9b": 9.24,
    "gemma-7b": 8.54,
    "llama-1-13b": 13.0,
    "llama-1-33b": 32.5,
    "llama-1-65b": 65.2,
    "llama-1-7b": 6.7,
    "llama-2-13b": 13.0,
    "llama-2-70b": 69.0,
    "llama-2-7b": 6.74,
    "llama-3.1-405b": 405,
    "llama-3.1-70b": 70.6,
    "llama-3.1-8b": 8.03,
    "mistral-7b": 7.24,
    "mixtral-8x22b": 141,
    "mixtral-8x7b": 46.7,
    "qwen2.5-0.5b": 0.49,
    "qwen2.5-1.5b": 1.54,
    "qwen2.5-14b": 14.7,
    "qwen2.5-32b": 32.5,
    "qwen2.5-3b": 3.09,
    "qwen2.5-72b": 72.7,
    "qwen2.5-7b": 7.61,
    "qwen3-8b": 8.19,
}
"""As the model cards and papers give them."""


@pytest.mark.parametrize("name", MODELS)
def test_parameter_counts(name):
    assert kvsize.parameters(hwmodels.load("model", name)) / 1e9 == pytest.approx(PUBLISHED_BILLIONS[name], rel=0.02)


@pytest.mark.parametrize(
    ("name", "matrices"),
    [
        ("deepseek-v3.2", 671_876_907_008),
        ("glm-5", 743_910_014_976),
        ("gpt-oss-120b", 116_788_838_400),
        ("llama-4-maverick", 400_711_352_320),
        ("nemotron-3-nano-30b-a3b", 31_577_554_944),
        ("nemotron-3-super-120b-a12b", 120_667_570_176),
        ("qwen3-next-80b-a3b", 79_674_179_584),
        ("qwen3.5-27b", 26_895_319_040),
        ("qwen3.5-397b-a17b", 396_345_835_520),
    ],
)
def test_parameters_to_the_weight(name, matrices):
    """As `transformers` 5.24 builds them (`kvplan validate models`); the language model, without norms and biases."""
    assert kvsize.parameters(hwmodels.load("model", name)) == matrices


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.9),
        ("mixtral-8x22b", 39),
        ("deepseek-v3", 37),
        ("qwen3-30b-a3b", 3.3),
        ("qwen3-235b-a22b", 22),
        ("qwen3-coder-480b-a35b", 35),
        ("deepseek-r1", 37),
    ],
)
def test_active_parameters(name, billions):
    """Source: Mixtral (arXiv 2401.04088); Mistral's Mixtral 8x22B announcement; DeepSeek-V3 (arXiv 2412.19437);
    Qwen3's and DeepSeek-R1's model cards.
    """
    assert kvsize.active_parameters(hwmodels.load("model", name)) / 1e9 == pytest.approx(billions, rel=0.02)


# --- step time --------------------------------------------------------------------------------------------------------------------


def _steps(name: str, gpus: int) -> hwmodels.StepTime:
    return hwmodels.roofline(hwmodels.load("model", name), GPU, NODE, gpus)


def test_published_prefill_of_65b():
    """360 ms for 2K tokens on four A100s. Source: CachedAttention section 2.3."""
    assert _steps("llama-1-65b", 4).prefill(2048) == pytest.approx(0.360, rel=0.10)


def test_published_load_of_65b():
    """192 ms for the KV of 2K tokens. Source: CachedAttention section 2.3."""
    size = 2000 * kvsize.kv_bytes_per_token(hwmodels.load("model", "llama-1-65b"))
    assert size / LINK.host_to_device.value == pytest.approx(0.192, rel=0.06)


@pytest.mark.parametrize(("buffer_layers", "published"), [(0, 0.35), (15, 0.61)])
def test_published_layer_pipeline_of_13b(buffer_layers, published):
    """One GPU, batch 16, 1K history, 100 new tokens, against NO-PL. Source: CachedAttention figure 18.

    The model gives 28 % and 55 %: its A100 prefills faster than theirs, so less is hidden. Seven points are granted.
    """
    steps, batch = _steps("llama-2-13b", 1), 16
    one = steps.prefill(100, 1024) - steps.fixed
    compute = steps.fixed + batch * one
    load = batch * 1024 * 819_200 / LINK.host_to_device.value
    layers = steps.layers
    pipelined = hwmodels.pipeline_s(layers, compute / layers, load / layers, buffer_layers)
    assert 1 - pipelined / (compute + load) == pytest.approx(published, abs=0.07)


def _recurrence(layers, compute, load, preloaded, delay):
    end = 0.0
    for layer in range(1, layers + 1):
        available = delay + (layer - preloaded) * load if layer > preloaded else 0.0
        end = max(end, available) + compute
    return end


@given(
    st.integers(1, 100),
    st.floats(0, 10),
    st.floats(0, 10),
    st.floats(0, 120),
    st.floats(0, 10),
)
def test_the_layer_pipeline_equals_its_recurrence(layers, compute, load, preloaded, delay):
    closed = hwmodels.pipeline_s(layers, compute, load, preloaded, delay)
    assert closed == pytest.approx(_recurrence(layers, compute, load, preloaded, delay), rel=1e-9, abs=1e-12)


@given(st.integers(1, 80), st.integers(0, 80), st.floats(0.001, 1), st.floats(0.001, 1))
def test_the_layer_pipeline_is_the_papers_closed_form(layers, buffer_layers, c, load):
    b = min(buffer_layers, layers)
    published = layers * c if b == layers else max(layers * c, (layers - b) * load + c, load + (layers - b) * c)
    assert hwmodels.pipeline_s(layers, c, load, b) == pytest.approx(published)


@given(st.integers(1, 64), st.integers(0, 200_000), st.integers(1, 500))
def test_decode_runs_are_the_sum_of_their_steps(batch, context, steps):
    model = _steps("llama-2-13b", 2)
    single = sum(model.decode(batch, context + step * batch) for step in range(steps))
    assert model.decode(batch, context, steps) == pytest.approx(single, rel=1e-12)


@given(st.integers(1, 64), st.integers(0, 200_000), st.floats(0, 100))
def test_steps_until_is_the_inverse_of_decode(batch, context, seconds):
    model = _steps("llama-2-13b", 2)
    steps = model.steps_until(batch, context, seconds)
    assert model.decode(batch, context, steps) >= seconds
    assert steps == 0 or model.decode(batch, context, steps - 1) < seconds


def test_prefill_in_two_parts_does_the_same_arithmetic():
    """Attention over history costs what it costs at once: only a step's base and the reading of history come on top."""
    steps = _steps("llama-2-13b", 2)
    at_once = steps.prefill(1000)
    parts = steps.prefill(600) + steps.prefill(400, 600)
    assert parts == pytest.approx(at_once + steps.prefill(0) + 600 * steps.per_history, rel=1e-12)


# --- cost -------------------------------------------------------------------------------------------------------------------------


def test_cost_doctest():
    assert doctest.testmod(cost).failed == 0


def test_the_papers_storage_share():
    """16.4 % for 13B: storage over total when two GPUs are always busy. Source: CachedAttention section 4.4."""
    prices = hwmodels.load("prices", "paper-2024")
    hour = cost.run_cost_usd(prices, "a100-80g", 2, 3600, 3600, 128 * 10**9, 10_240 * 10**9, 1, 1, "busy")
    assert (hour["dram"] + hour["ssd"]) / hour["total"] == pytest.approx(0.164, abs=0.001)


def test_the_papers_rents_are_many_times_what_buying_costs():
    """About 12 times for DRAM over 3 years, 18 times for SSD over 5. Source: conventions of this project, prices of 2025 and 2026."""
    rent, buy = hwmodels.load("prices", "paper-2024"), hwmodels.load("prices", "buy-2026")
    assert rent.dram.value / buy.dram.value == pytest.approx(12.3, abs=0.1)
    assert rent.ssd.value / buy.ssd.value == pytest.approx(18.0, abs=0.1)


def test_a_purchase_is_written_off_in_a_straight_line():
    buy = hwmodels.load("prices", "buy-2026")
    assert buy.dram.value * 3 * YEAR_S * 1e9 == pytest.approx(18.8)
    assert buy.dram.text == "18.8 USD/GB over 3 years"
    assert buy.gpus["h100-80g"].value * 3600 == pytest.approx(27_000 / (4 * 8760))
    assert hwmodels.load("prices", "paper-2024").gpus["a100-80g"].text == "5 USD/h"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"value": 18.8, "unit": "USD/GB"}, "needs a lifetime"),
        ({"value": 1, "unit": "USD/GB/h", "lifetime": {"value": 3, "unit": "years", "source": "test"}}, "a lifetime goes with"),
        ({"value": 1, "unit": "USD/h"}, "is not one of"),
        ({"value": -1, "unit": "USD/GB/h"}, "range"),
    ],
)
def test_prices_without_sense_are_refused(row, reason):
    data = strictyaml.load(catalogue.KINDS["prices"][1] / "paper-2024.yaml")
    with pytest.raises(ValueError, match=reason):
        hwmodels.Prices.model_validate({**data, "dram": {"source": "test", **row}})


def test_a_gpu_without_a_price_names_the_lists_that_have_it():
    from kvplan.sim import config
    from kvplan.sim.deployment import resolve

    lists = " or ".join(f"prices={name}" for name in ("aws-2026", "buy-2026", "lambda-2026", "rent-2026"))
    words = f"price list paper-2024 has no h100-80g, only a100-80g: set {lists}"
    with pytest.raises(config.ConfigError, match=words):
        resolve(config.load(None, ["hardware=h100-80g-x8"]))


def test_more_dram_than_the_node_takes_is_refused():
    from kvplan.sim import config
    from kvplan.sim.deployment import resolve

    with pytest.raises(config.ConfigError, match=r"store\.dram is 3TB, but a100-80g-x8 takes 2 TiB at most"):
        resolve(config.load(None, ["hardware=a100-80g-x8", "store.dram=3TB"]))
