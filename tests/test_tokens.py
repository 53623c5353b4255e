"""Tokens of text: the estimate by script and vocabulary, the errors it states, and real tokenizers of every kind."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st

from kvplan import traces
from kvplan.sim import config as configuration
from kvplan.sim.build_workload import build_workload
from kvplan.traces import TraceError, origin
from kvplan.traces.tokens import Counter, Estimate, families, scripts
from kvplan.traces.tokens.estimate import errors_of, weights_of
from kvplan.traces.tokens.exact import load
from kvplan.traces.tokens.families import FAMILIES

TEXTS = json.loads(Path(__file__).with_name("texts.json").read_text("utf-8"))["texts"]
"""Texts of every large script, and their tokens by the real tokenizers."""
each_text = pytest.mark.parametrize("case", TEXTS, ids=lambda case: case["name"])
each_family = pytest.mark.parametrize("family", FAMILIES)


def write(tmp_path, data, name="t.json"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def chat(*texts):
    sides = ("human", "gpt") * len(texts)
    return json.dumps([{"id": "a", "conversations": [{"from": side, "value": text} for side, text in zip(sides, texts, strict=False)]}])


# --- the estimate -----------------------------------------------------------------------------------------------------------------


@each_text
def test_every_script_is_near_in_every_vocabulary(case):
    """A text of 300 characters is small: a quarter at most, and less in the mean of the families."""
    errors = [abs(Estimate(family)(case["text"]) / tokens - 1) for family, tokens in case["tokens"].items()]
    assert set(case["tokens"]) == set(FAMILIES)
    assert max(errors) < 0.25 and np.mean(errors) < 0.18


@each_family
def test_all_scripts_together_are_near(family):
    total = sum(case["tokens"][family] for case in TEXTS)
    assert sum(map(Estimate(family), (case["text"] for case in TEXTS))) == pytest.approx(total, rel=0.05)


@each_text
def test_the_kind_of_a_text_is_found(case):
    estimate = Estimate("qwen")
    estimate(case["text"])
    assert [kind for kind, count in estimate.tokens.items() if count] == [case["kind"]]
    assert f"{case['kind']} (100% of the tokens) off by" in estimate.label


def test_counts_of_a_small_text():
    counts = dict(zip(scripts.ASCII, scripts.ascii_counts("If x1 = 42:\n    go on\n"), strict=True))
    assert counts["capitals"] == 1 and counts["digits"] == 3 and counts["numbers"] == 2 and counts["newlines"] == 2
    assert counts["punctuation"] == 2 and counts["fourfold_spaces"] == 1 and counts["double_spaces"] == 0
    assert counts["letters"] + counts["english_letters"] == 6
    assert counts["spaces"] + counts["english_spaces"] == 4
    assert scripts.ascii_counts("если 12 à") == scripts.ascii_counts(" 12 "), "what is not ASCII is counted by class"
    found = dict(zip(scripts.FEATURES, scripts.features("a если б, 讠河河 𠮷").tolist(), strict=True))
    assert (found["cyrillic_characters"], found["cyrillic_runs"]) == (5, 2)
    assert (found["han_characters"], found["han_rare_characters"]) == (2, 2)
    assert scripts.features("приветствие")[scripts.FEATURES.index("cyrillic_late_characters")] == 5


@each_family
@given(text=st.text(alphabet=st.characters(), min_size=1))
def test_any_text_has_tokens_and_more_text_has_more(family, text):
    """Halves of surrogate pairs too, which JSON can hold."""
    estimate = Estimate(family)
    assert 1 <= estimate(text) <= estimate(text * 2) <= estimate(text * 40)
    assert estimate("") == 0 and len(estimate.label) > 30


@each_family
def test_the_tables_are_whole(family):
    weights = weights_of(family)
    assert len(weights) == len(scripts.FEATURES) and (weights >= 0).all() and np.isfinite(weights).all()
    assert set(errors_of(family)) == set(scripts.KINDS)
    assert all(0 <= each < 1 for error in errors_of(family).values() for each in error)


def test_the_estimate_has_its_stated_error(sharegpt_sample):
    counts = sharegpt_sample.with_name("sharegpt_v3_sample_300_llama_tokens.jsonl")
    real = {row["id"]: row["tokens"] for row in map(json.loads, counts.read_text().splitlines())}
    estimate, estimated, true = Estimate("llama-2"), [], []
    for record in json.loads(sharegpt_sample.read_text()):
        estimated.append([estimate(message["value"]) for message in record["conversations"]])
        true.append(real[record["id"]])
    sessions = np.array([sum(each) for each in estimated]) / np.array([sum(each) for each in true]) - 1
    messages = np.concatenate(estimated) / np.maximum(np.concatenate(true), 1) - 1
    assert sum(map(sum, estimated)) / sum(map(sum, true)) - 1 == pytest.approx(0, abs=0.01)
    assert np.median(np.abs(sessions)) < 0.05 and np.median(np.abs(messages)) < 0.065


RATIOS = {"chinese": (1.06, 2.00, 2.41, 1.73), "russian": (2.27, 2.67, 2.33, 2.71)}
"""What an estimate for English in LLaMA-2 (letters 0.245, other bytes 0.533, ...) was over the exact counts of these families."""


@pytest.mark.parametrize("language", RATIOS)
def test_chats_in_other_scripts_are_within_a_tenth(language):
    path = SHARED.parent / "field" / f"sharegpt_{language}.json"
    if not path.exists():
        pytest.skip("the field files are not on this machine")
    english = {"chinese": 18_230, "russian": 21_900}[language]
    for family, ratio in zip(("llama-2", "llama-3", "qwen", "tekken"), RATIOS[language], strict=True):
        table = traces.read_trace(path, vocabulary=family)
        assert table.prompt_tokens.sum() + table.output_tokens.sum() == pytest.approx(english / ratio, rel=0.1)


# --- which vocabulary -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "family"),
    [
        (None, "llama-2"),
        (("llama", 32_000), "llama-2"),
        (("mistral", 32_000), "mistral"),
        (("mixtral", 32_768), "mistral"),
        (("llama", 128_256), "llama-3"),
        (("mistral", 131_072), "tekken"),
        (("qwen2", 152_064), "qwen"),
        (("qwen3_moe", 151_936), "qwen"),
        (("gpt_oss", 201_088), "o200k"),
        (("phi3", 100_352), "cl100k"),
        (("deepseek_v3", 129_280), "deepseek"),
        (("gemma3_text", 262_208), "gemma"),
    ],
)
def test_the_family_of_a_model(model, family):
    assert families.chosen(None, model) == (family, "")
    assert families.chosen("gemma", model) == ("gemma", "")


def test_a_vocabulary_that_was_not_measured_is_taken_for_the_nearest_and_said():
    family, doubt = families.chosen(None, ("glm4", 151_552))
    assert family == "qwen" and "151,552" in doubt and "glm4" in doubt
    with pytest.raises(TraceError, match="unknown vocabulary 'llama3': known are llama-2, "):
        Counter(vocabulary="llama3")


def test_the_models_vocabulary_counts_the_trace(tmp_path):
    """As `simulate`, `describe` and all others read it."""
    text = next(case["text"] for case in TEXTS if case["name"] == "Korean")
    path = write(tmp_path, chat(text, text))
    found = {}
    for model in ("llama-2-13b", "llama-3.1-8b", "qwen2.5-7b", "mistral-7b"):
        table = build_workload(configuration.load(None, [f"workload.trace={path}", f"model={model}"]), any_length=True)
        found[model] = int(table.prompt_tokens.sum())
        assert any("Korean (100% of the tokens)" in warning for warning in origin.warnings(table.origin))
    assert found["llama-2-13b"] > found["mistral-7b"] > found["qwen2.5-7b"] > found["llama-3.1-8b"]
    forced = build_workload(configuration.load(None, [f"workload.trace={path}", "workload.vocabulary=qwen"]), any_length=True)
    assert forced.prompt_tokens.sum() == found["qwen2.5-7b"]


def test_a_file_of_counts_says_nothing_of_text(tmp_path):
    path = write(tmp_path, json.dumps({"timestamp": 0, "input_length": 10, "output_length": 5, "hash_ids": [1]}), "t.jsonl")
    assert "tokens" not in traces.read_trace(path, vocabulary="qwen").origin


# --- real tokenizers --------------------------------------------------------------------------------------------------------------


def huggingface():
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"hello": 0, "[U]": 1}, unk_token="[U]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return tokenizer.to_str().encode()


def sentencepiece():
    package, out = pytest.importorskip("sentencepiece"), io.BytesIO()
    lines = iter(["hello cat and hello dog", "a log and a fog"] * 20)
    package.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=out, vocab_size=40, model_type="bpe", minloglevel=2)
    return out.getvalue()


def ranks():
    pytest.importorskip("tiktoken")
    return [*(bytes((byte,)) for byte in range(256)), b"he", b"ll", b"hell", b"hello"]


def tiktoken():
    return b"".join(base64.b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate(ranks()))


def tekken():
    vocabulary = [{"rank": rank, "token_bytes": base64.b64encode(token).decode()} for rank, token in enumerate(ranks())]
    config = {"pattern": r"\w+|[^\w]", "default_vocab_size": len(vocabulary) + 10, "default_num_special_tokens": 10}
    return json.dumps({"config": config, "vocab": vocabulary}).encode()


KINDS = {"tokenizer.json": huggingface, "tokenizer.model": sentencepiece, "qwen.tiktoken": tiktoken, "tekken.json": tekken}
each_kind = pytest.mark.parametrize("name", KINDS)


@each_kind
def test_a_tokenizer_counts_exactly(tmp_path, name):
    path = write(tmp_path, KINDS[name](), name)
    expected = load(path).count("hello"), load(path).count("hello hello")
    assert expected[0] < expected[1] <= 4
    assert load(path).count("\ud800 hello") >= 1, "half a surrogate pair"
    trace = write(tmp_path, chat("hello", "hello hello"))
    for given_path in (path, tmp_path / "model"):
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / name).write_bytes(path.read_bytes())
        table = traces.read_trace(trace, tokenizer=given_path)
        assert (table.prompt_tokens[0], table.output_tokens[0]) == expected
        assert table.origin["tokens"] == f"counted with {given_path}"


def test_llamas_tokenizer_model_may_be_of_two_kinds(tmp_path):
    """Llama-3's is a tiktoken file, LLaMA-2's a SentencePiece model."""
    assert load(write(tmp_path, tiktoken(), "tokenizer.model")).tokens == 260
    assert load(write(tmp_path, sentencepiece(), "tokenizer.model")).tokens == 40


@each_kind
@given(data=st.data())
def test_damaged_tokenizers_are_refused_in_one_line(tmp_path_factory, name, data):
    whole = bytearray(_KEPT.setdefault(name, KINDS[name]()))
    for _ in range(data.draw(st.integers(1, 3))):
        place, length = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, 8))
        whole[place : place + length] = data.draw(st.sampled_from([b"", b"-1", b"9" * 30, b"\xff", b"{"]))
    path = tmp_path_factory.getbasetemp() / f"damaged-{name}"
    path.write_bytes(bytes(whole)[: data.draw(st.integers(0, len(whole)))])
    try:
        assert load(path).count("hello wörld 12") >= 0
    except TraceError as error:
        assert str(path) in str(error) and str(error).count("\n") < 3


_KEPT: dict[str, bytes] = {}


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("tokenizer.json", b"{}", "cannot use the tokenizer"),
        ("tokenizer.json", b"hello", "is no tokenizer.json, tekken.json, tiktoken file or SentencePiece model"),
        ("tokenizer.model", b"", "is no tokenizer.json"),
        ("a.tiktoken", b"aGVsbG8= 0\n", "lacks bytes"),
        ("a.tiktoken", b"aGVsbG8= 0\nnonsense\n", "a line is not base64 and a number"),
    ],
)
def test_what_is_no_tokenizer_is_named(tmp_path, name, data, words):
    pytest.importorskip("sentencepiece")
    with pytest.raises(TraceError, match=words):
        load(write(tmp_path, data, name))


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"holds no tokenizer: looked for tokenizer\.json, tekken\.json"):
        load(tmp_path)
    with pytest.raises(TraceError, match="cannot read"):
        load(tmp_path / "nothing")


@each_kind
def test_a_missing_package_is_told_with_the_command(tmp_path, name, monkeypatch):
    path = write(tmp_path, KINDS[name](), name)
    for package in ("tokenizers", "sentencepiece", "tiktoken"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(TraceError, match=r"needs the package \w+: pip install 'kvplan\[tokenizers\]'"):
        load(path)


def test_another_models_tokenizer_is_doubted(tmp_path):
    tokenizer, trace = write(tmp_path, huggingface(), "tokenizer.json"), write(tmp_path, chat("hello", "hello"))
    found = traces.read_trace(trace, tokenizer=tokenizer, model=("llama", 32_000)).origin
    assert "the tokenizer has 2 tokens, and the model 32,000" in found["doubtful_vocabulary"]
    assert any("another model's" in warning for warning in origin.warnings(found))
    assert "doubtful_vocabulary" not in traces.read_trace(trace, tokenizer=tokenizer, model=("llama", 2)).origin


def test_the_command_says_whose_tokens_it_counts(tmp_path):
    path = write(tmp_path, chat(*(case["text"] for case in TEXTS)))
    command = [sys.executable, "-m", "kvplan", "trace", "describe", str(path), "--model", "qwen2.5-7b"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    said = " ".join((done.stdout + done.stderr).split())
    assert "estimated for Qwen's vocabulary: " in said and "Devanagari" in said
    refused = subprocess.run([*command, "--set", "workload.vocabulary=x"], capture_output=True, text=True)
    assert refused.returncode == 2 and "unknown vocabulary 'x'" in refused.stderr and "Traceback" not in refused.stderr


# --- the fit ----------------------------------------------------------------------------------------------------------------------


def test_a_fit_finds_the_weights_that_made_the_counts():
    from kvplan.validate.calibration.tokens import token_weights
    from kvplan.validate.calibration.tokens.corpus import Text

    texts = [Text(source, "", case["text"][cut:]) for case in TEXTS for source, cut in (("one", 0), ("two", 20), ("three", 90))]
    kinds = [scripts.kind(scripts.ascii_counts(text.text), scripts.class_counts(text.text)[0]) for text in texts]
    counts = np.array([scripts.features(text.text) for text in texts])
    tokens = counts @ weights_of("tekken")
    found = token_weights.weights(counts, tokens, token_weights.importance(texts, kinds))
    assert counts @ found == pytest.approx(tokens, rel=1e-3)
    errors = token_weights.errors(texts, kinds, token_weights.held_out(texts, kinds, counts, tokens), tokens)
    assert set(errors) == set(kinds) and max(error.of_a_text for error in errors.values()) < 0.05
