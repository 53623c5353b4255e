"""The real kernels: equal to a plain second computation, with reused, truncated and fully recomputed KV."""

import json

import pytest

torch = pytest.importorskip("torch")

from kvplan.validate.calibration.kernels import kvcache, shape  # noqa: E402
from kvplan.validate.calibration.kernels.decoder import DTYPES, Decoder  # noqa: E402
from kvplan.validate.calibration.kernels.linear import Linear  # noqa: E402
from kvplan.validate.calibration.kernels.rope import rotate  # noqa: E402
from kvplan.validate.calibration.kernels.shape import ModelShape, ShapeError  # noqa: E402
from kvplan.validate.calibration.kernels.truncation import truncation_errors  # noqa: E402

SHAPES = {
    "MHA": ModelShape("mha", 3, 48, 4, 4, 12, 96, 61, 128, "float32", True, 1e4),
    "GQA": ModelShape("gqa", 3, 64, 4, 2, 16, 96, 61, 128, "float32", True, 1e4),
    "MQA, wide heads, no gate": ModelShape("mqa", 3, 48, 3, 1, 32, 96, 61, 128, "float32", False, 5e5),
}
TIGHT = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 0.05, "float16": 0.01}
"""Largest norm of a difference relative to the norm, for results of the same arithmetic in another order."""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(params=SHAPES)
def decoder(request):
    return Decoder(SHAPES[request.param], 3, "float64")


def tokens_of(decoder, batch, number, seed=1):
    return torch.randint(decoder.shape.vocab_size, (batch, number), generator=torch.Generator().manual_seed(seed))


def difference(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm())


def prefill(decoder, tokens, saved=None, room=8):
    """Logits and what to save, with history loaded from `saved`; and the working cache afterwards."""
    history = saved[0].shape[1] if saved else 0
    working = decoder.room(len(tokens), history + tokens.shape[1] + room)
    for kv, layer in zip(working, saved or [], strict=False):
        kvcache.load_(kv, layer)
    return (*decoder.prefill(tokens, working, history), working)


def plainly(decoder, tokens, kept=None):
    """Logits of one sequence, by the textbook: loops over heads and tokens, a softmax written out, RoPE as complex numbers.

    `kept` holds K before RoPE and V of a history, per layer [tokens, 2, kv_heads, head_dim]; new tokens come after it.
    """
    sizes = decoder.shape
    history = len(kept[0]) if kept else 0

    def norm(x):
        return x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()

    def turned(vector, position):
        half = sizes.head_dim // 2
        angles = position * sizes.rope_theta ** (-torch.arange(half, dtype=torch.float64) / half)
        turned = torch.complex(vector[:half], vector[half:]) * torch.polar(torch.ones(half, dtype=torch.float64), angles)
        return torch.cat((turned.real, turned.imag))

    x = decoder._embedding[tokens]
    for index, layer in enumerate(decoder.layers):
        queries, keys, values = (layer._qkv(norm(x))).split(
            [count * sizes.head_dim for count in (sizes.num_attention_heads, sizes.num_key_value_heads, sizes.num_key_value_heads)],
            dim=-1,
        )
        keys, values = (part.unflatten(-1, (-1, sizes.head_dim)) for part in (keys, values))
        if kept:
            keys, values = torch.cat((kept[index][:, 0], keys)), torch.cat((kept[index][:, 1], values))
        found = torch.zeros_like(queries)
        for head in range(sizes.num_attention_heads):
            kv_head = head * sizes.num_key_value_heads // sizes.num_attention_heads
            span = slice(head * sizes.head_dim, (head + 1) * sizes.head_dim)
            for token in range(len(tokens)):
                seen = history + token + 1
                query = turned(queries[token, span], history + token)
                scores = torch.stack([query @ turned(keys[place, kv_head], place) for place in range(seen)]) / sizes.head_dim**0.5
                found[token, span] = (scores.exp() / scores.exp().sum()) @ values[:seen, kv_head]
        x = x + layer._out(found)
        wide = layer._up(norm(x))
        if sizes.gated_mlp:
            gate, up = wide.chunk(2, dim=-1)
            wide = gate * torch.sigmoid(gate) * up
        else:
            wide = wide * torch.sigmoid(wide)
        x = x + layer._down(wide)
    return decoder._head(norm(x[-1]))


# --- equalities -------------------------------------------------------------------------------------------------------------------


def test_prefill_is_the_textbooks(decoder):
    tokens = tokens_of(decoder, 2, 9)
    logits, _, _ = prefill(decoder, tokens)
    for row in range(2):
        assert difference(logits[row], plainly(decoder, tokens[row])) < 1e-12


@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("history", [1, 7, 19])
def test_prefill_with_reused_kv_is_full_recomputation(dtype, history):
    for sizes in SHAPES.values():
        decoder = Decoder(sizes, 3, dtype)
        tokens = tokens_of(decoder, 2, 20)
        everything, full, _ = prefill(decoder, tokens)
        _, saved, _ = prefill(decoder, tokens[:, :history])
        reused, fresh, _ = prefill(decoder, tokens[:, history:], saved)
        assert difference(reused, everything) < TIGHT[dtype]
        for layer, whole in zip(kvcache.append(saved, fresh), full, strict=True):
            assert difference(layer, whole) < TIGHT[dtype]


@pytest.mark.parametrize("dtype", TIGHT)
def test_decode_steps_are_a_longer_prefill(dtype):
    decoder = Decoder(SHAPES["GQA"], 3, dtype)
    tokens = tokens_of(decoder, 2, 16)
    _, saved, working = prefill(decoder, tokens[:, :10])
    for length in range(10, 16):
        logits, fresh = decoder.decode(tokens[:, length], working, [length, length])
        saved = kvcache.append(saved, fresh)
        longer, whole, _ = prefill(decoder, tokens[:, : length + 1])
        assert difference(logits, longer) < TIGHT[dtype]
    assert all(difference(*pair) < TIGHT[dtype] for pair in zip(saved, whole, strict=True))


def test_decode_with_unequal_contexts_is_each_sequence_by_itself(decoder):
    lengths, capacity = [3, 11, 7], 16
    tokens = tokens_of(decoder, 3, capacity)
    together = decoder.room(3, capacity)
    expected = []
    for row, length in enumerate(lengths):
        alone = decoder.room(1, capacity)
        decoder.prefill(tokens[row : row + 1, :length], alone)
        for kv, one in zip(together, alone, strict=True):
            kv[row] = one[0]
        expected.append(decoder.decode(tokens[row : row + 1, length], alone, [length])[0][0])
    for kv in together:
        kv[0, lengths[0] + 1 :] = 7.0  # what is behind a sequence's end is not looked at
    logits, _ = decoder.decode(torch.stack([tokens[row, length] for row, length in enumerate(lengths)]), together, lengths)
    assert difference(logits, torch.stack(expected)) < 1e-12


def test_the_causal_bias_of_gpus_is_the_mask_of_cpus(decoder, monkeypatch):
    tokens, history = tokens_of(decoder, 2, 13), 8
    _, saved, _ = prefill(decoder, tokens[:, :history])
    found = []
    for device in ("cpu", "cuda"):
        working = decoder.room(2, 16)
        for kv, layer in zip(working, saved, strict=True):
            kvcache.load_(kv, layer)
        with monkeypatch.context() as patch:
            patch.setattr(decoder, "device", device)
            place = decoder.place_prefill(history, tokens.shape[1] - history)
        found.append(decoder.stack(decoder.embed(tokens[:, history:]), working, place))
    assert difference(*found) < 1e-12


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 2, 7, 64])
def test_packed_weights_give_the_plain_product(dtype, rows):
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(size, dtype=torch.float64, generator=generator) for size in ((2, rows, 48), (48, 80)))
    product = Linear(weight.to(DTYPES[dtype]))(x.to(DTYPES[dtype]))
    assert product.shape == (2, rows, 80)
    assert (product - x @ weight).abs().max() < 200 * torch.finfo(DTYPES[dtype]).eps


# --- truncation -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 6, 11])
def test_a_truncated_cache_is_attention_over_what_was_kept_at_new_positions(decoder, cut):
    tokens = tokens_of(decoder, 1, 17)
    _, saved, _ = prefill(decoder, tokens[:, :12])
    kept = kvcache.truncate(saved, cut)
    assert all(layer.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr() for layer, whole in zip(kept, saved, strict=True))
    logits, _, _ = prefill(decoder, tokens[:, 12:], kept)
    expected = plainly(decoder, tokens[0, 12:], [layer[0] for layer in kept])
    assert difference(logits[0], expected) < 1e-12


def test_embedded_positions_are_not(decoder):
    tokens, cut = tokens_of(decoder, 1, 17), 6
    _, saved, _ = prefill(decoder, tokens[:, :12])
    kept = kvcache.truncate(saved, cut)
    embedded = [layer.clone() for layer in kept]
    for layer in embedded:
        old, new = decoder.rope.span(cut, 12), decoder.rope.span(0, 6)
        layer[:, :, 0] = rotate(rotate(layer[:, :, 0], old), (new[0], -new[1]))  # use will turn them by `new` again
    right, wrong = (prefill(decoder, tokens[:, 12:], each)[0] for each in (kept, embedded))
    assert difference(wrong, right) > 1e-3


def test_truncation_errs_in_all_layers_but_the_first(decoder):
    errors = truncation_errors(decoder, tokens_of(decoder, 2, 40), cut=16, new=8)
    assert errors["decoupled"].by_layer[0] < 1e-12 < 1e-4 < errors["decoupled"].by_layer[1] < errors["decoupled"].by_layer[2] < 0.5
    assert errors["embedded"].by_layer[0] > 1e-3
    assert errors["embedded"].cosine < errors["decoupled"].cosine < 1


# --- shapes -----------------------------------------------------------------------------------------------------------------------


def test_shapes_are_those_of_the_catalogue():
    from kvplan.hwmodels import catalogue, kvsize

    refused = []
    for name in catalogue.names("model"):
        model = catalogue.load("model", name)
        try:
            found = shape.read_shape(name)
        except ShapeError as error:
            refused.append(name)
            assert any(why in str(error) for why in ("MLA", "experts", "not one that the kernels run"))
            mixed = model.num_experts > 0 or model.kv_lora_rank is not None
            assert mixed or model.model_type not in shape.FAMILIES, f"{name} is dense, and of a family that the kernels run"
            continue
        for field in (
            "name",
            "num_hidden_layers",
            "hidden_size",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "intermediate_size",
        ):
            assert getattr(found, field) == getattr(model, field), (name, field)
        for field in ("vocab_size", "max_position_embeddings", "torch_dtype", "gated_mlp"):
            assert getattr(found, field) == getattr(model, field), (name, field)
        assert found.weights_per_layer * found.num_hidden_layers == kvsize.decoder_parameters(model)
    assert {"deepseek-v3", "mixtral-8x7b", "qwen3-8b"} <= set(refused)


def test_weights_are_as_many_as_the_shape_says():
    for sizes in SHAPES.values():
        layer = Decoder(sizes, 1, "float32").layers[0]
        assert sum(weight.parameters for weight in (layer._qkv, layer._out, layer._up, layer._down)) == sizes.weights_per_layer


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"num_attention_heads": None}, "num_attention_heads is None"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"head_dim": 7}, "even"),
        ({"num_local_experts": 8}, "experts"),
        ({"kv_lora_rank": 512}, "MLA"),
    ],
)
def test_what_the_kernels_do_not_run_is_refused(tmp_path, change, reason):
    good = {
        "model_type": "llama",
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "vocab_size": 100,
        "max_position_embeddings": 64,
    }
    path = tmp_path / "mine" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(good))
    assert shape.read_shape(str(path)).name == "mine"
    path.write_text(json.dumps(good | change))
    with pytest.raises(ShapeError, match=reason) as error:
        shape.read_shape(str(path))
    assert str(path) in str(error.value)


def test_an_unknown_model_is_refused_with_those_that_are_known():
    with pytest.raises(ShapeError, match=r"unknown model 'llama-9'.*llama-2-13b"):
        shape.read_shape("llama-9")
