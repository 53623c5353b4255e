"""Sizes of models beside an independent count. Where `transformers` is installed (extra `oracle`), every family is held against it."""

from importlib.util import find_spec

import pytest
from conftest import SHARED

from kvplan.hwmodels import hfconfig, kvsize
from kvplan.hwmodels.families import FAMILIES
from kvplan.validate.models import command, figures, reference

LLAMA = "llama-3.1-8b"
needs_transformers = pytest.mark.skipif(find_spec("transformers") is None, reason="needs the extra oracle")
FIELD = SHARED.parent / "field"


def _counted(matrices, token_bytes):
    return lambda data: reference.Counted(matrices, (reference.Kept(token_bytes, None, 0),) * 32)


def test_figures_that_agree(monkeypatch, capsys):
    monkeypatch.setattr(figures, "count", _counted(8_029_995_008, 4096))
    assert command.main(["--only", LLAMA]) == 0
    shown = capsys.readouterr().out
    assert "131,072  131,072  none" in " ".join(shown.split()).replace(" ", "  ") and "1 models read, 0 of them with a difference" in shown


def test_a_difference_is_shown_and_fails(monkeypatch, capsys):
    monkeypatch.setattr(figures, "count", _counted(8_029_995_008, 2048))
    assert command.main(["--only", LLAMA]) == 1
    assert "+100.000%" in capsys.readouterr().out


def test_what_is_not_compared_says_why(monkeypatch, capsys):
    def count(data):
        raise reference.IncomparableError("transformers is not installed")

    monkeypatch.setattr(figures, "count", count)
    assert command.main(["--only", LLAMA]) == 0
    assert f"{LLAMA}: not compared: transformers is not installed" in capsys.readouterr().out


def test_refused_files_are_listed(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "mamba3"}')
    (tmp_path / "torn_config.json").write_text("{")
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    assert command.main(["--only", "config.json", "--configs", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "config.json: refused: model_type 'mamba3' is not known" in shown and "torn_config.json: refused" in shown
    assert "0 models read, 0 of them with a difference, 2 refused" in shown
    assert command.main(["--configs", str(tmp_path / "none")]) == 2


def test_windows_of_the_independent_count():
    counted = reference.Counted(0, (reference.Kept(10, None, 0), reference.Kept(10, 100, 7)))
    assert counted.session_bytes(1000, windowed=False) == 20_007 and counted.session_bytes(1000, windowed=True) == 11_007


_EXPERTS = {"num_experts_per_tok": 4}
_LISTED = {"full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "kda_layers": [n for n in range(1, 28) if n % 4 and n != 27]}
WRITTEN = {
    "falcon_h1": {"head_dim": 128, "mamba_d_ssm": 4096, "mamba_d_head": 32, "mamba_n_heads": 128},
    "gemma4_text": {"global_head_dim": 512, "num_global_key_value_heads": 2, "attention_k_eq_v": True},
    "kimi_linear": {
        "linear_attn_config": {**_LISTED, "num_heads": 32, "head_dim": 128, "short_conv_kernel_size": 4},
        "q_lora_rank": None,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    "mimo_v2_flash": {
        "n_shared_experts": None,
        "sliding_window_size": 128,
        "moe_layer_freq": [0] + [1] * 47,
        "swa_num_key_value_heads": 8,
        "hybrid_layer_pattern": [int(n % 6 != 5 and n != 0) for n in range(48)],
    },
    "bamba": {"attn_layer_indices": [9, 18, 27]},
    "deepseek_v2": {**_EXPERTS, "first_k_dense_replace": 1},
    "dots1": {**_EXPERTS, "n_routed_experts": 16, "n_shared_experts": 2},
    "glm4_moe": {"head_dim": 128},
    "granitemoehybrid": {"layer_types": ["mamba"] * 30 + ["attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv"] * 24 + ["full_attention"] * 8, "num_dense_layers": 2},
    "minimax": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
    "nemotron_h": {"moe_latent_size": 256, "moe_shared_expert_intermediate_size": 512},
    "qwen3_moe": {"head_dim": 64},
}
"""What no file leaves out of those whose classes do, so that kvplan does not read their defaults."""


def _by_class(family):
    """A file with all values of a family's class."""
    from transformers import AutoConfig

    try:
        data = AutoConfig.for_model(family, **WRITTEN.get(family, {})).to_dict()
    except ValueError:
        pytest.skip("its code comes with its weights")
    own = {"per_layer_config", "dtype", *OWN.get(family, ())}
    return {key: value for key, value in data.items() if value is not None and key not in own} | WRITTEN.get(family, {})


def _sizes(config):
    model = hfconfig.read_model({**config, "name": "m", "source": "test", "date": "2026"})
    return kvsize.kv_bytes(model, 100_000), kvsize.kv_bytes_per_token(model), kvsize.parameters(model), kvsize.active_parameters(model)


@needs_transformers
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_missing_key_means_what_its_class_says(family):
    """Without any one key a file is refused, or read as its class reads it."""
    written = _by_class(family)
    right = _sizes(written)
    for key in set(written) - {"moe_latent_size"}:  # which WRITTEN adds: the class has none
        try:
            found = _sizes({name: value for name, value in written.items() if name != key})
        except ValueError:
            continue
        assert found == right, key


@needs_transformers
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_family_by_its_class(family):
    """Every family, with the values of its class, and again with others in their place."""
    written = _by_class(family)
    tied = not written.get("tie_word_embeddings") and family not in NEVER_TIED
    for changes in ({}, {"vocab_size": 300_000, "tie_word_embeddings": tied}):
        found = figures.compared({**written, **changes, "name": "m", "source": "test", "date": "2026"})
        assert not [figure for figure in found if figure.differs]
        assert found[0].theirs is not None or family in UNBUILT


OWN = {"kimi_linear": ("linear_conv_kernel_dim", "linear_head_dim", "linear_num_heads")}
"""What a class writes in place of what files say."""
UNBUILT = {"hunyuan_v1_dense", "ministral", "mllama_text_model"}
"""Whose class cannot be built alone."""
NEVER_TIED = {"kimi_linear", "nemotron_h"}
"""Whose class has two embeddings, whatever a file says."""


@needs_transformers
@pytest.mark.skipif(not FIELD.is_dir(), reason="needs the shared inputs")
def test_files_of_the_field(capsys):
    assert command.main(["--configs", str(FIELD), "--only", ".config.json"]) == 0
    assert "5 models read, 0 of them with a difference, 0 refused" in capsys.readouterr().out
