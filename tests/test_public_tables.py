"""What reads the public wheel of kernel tables and end-to-end rows: on small wheels written here, of known rates."""

from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

from kvplan import hwmodels
from kvplan.validate.__main__ import main
from kvplan.validate.aisimulate import NotAWheel, Wheel
from kvplan.validate.calibration.tables import fits
from kvplan.validate.calibration.tables.engines import ANY, tables
from kvplan.validate.checks.steptimes import command, conditions
from kvplan.validate.checks.steptimes.predict import tpot_s
from kvplan.validate.checks.steptimes.rows import Row, Rows

DATA = "aisimulate_core/systems/data/h100_sxm"
PEAK, BANDWIDTH = 989e12, 3.35e12


def _wheel(path, files: dict):
    with ZipFile(path, "w") as archive:
        archive.writestr("aisimulate-0.13.0.dist-info/METADATA", "")
        for name, content in files.items():
            if isinstance(content, pd.DataFrame):
                buffer = BytesIO()
                content.to_parquet(buffer)
                content = buffer.getvalue()
            archive.writestr(name, content)
    return path


def _gemm(efficiency=0.7, read=0.8, overhead_s=5e-6) -> pd.DataFrame:
    grid = [(m, n, k) for m in (1, 8, 16, 4096, 8192) for n in (1024, 2048, 16384) for k in (1024, 2048, 16384)]
    m, n, k = map(np.array, zip(*grid, strict=True))
    small = n * k * 2 < 2**24
    seconds = overhead_s + np.where(small & (m <= 16), 0, n * k * 2 / BANDWIDTH / read)
    seconds = np.where(m > 16, 2.0 * m * n * k / PEAK / efficiency, seconds)
    return pd.DataFrame({"gemm_dtype": "bfloat16", "m": m, "n": n, "k": k, "latency": 1e3 * seconds})


def _moe(efficiency=0.4, read=0.9, overhead_s=40e-6, passed=2.5) -> pd.DataFrame:
    grid = [(t, w) for t in (1, 2, 4, 8, 16, 64, 256, 1024, 4096, 16384) for w in (768, 1024, 1536, 2048, 4096)]
    tokens, width = map(np.array, zip(*grid, strict=True))
    weights, touched = 3.0 * 4096 * width, 128 * (1 - (1 - 8 / 128) ** tokens)
    seconds = overhead_s + touched * weights / BANDWIDTH / read + 2 * tokens * 8 * weights / PEAK / efficiency
    seconds += passed * tokens * (1 + 8 + 8 + 1) * 4096 * 2 / BANDWIDTH
    table = {"moe_dtype": "fp8", "num_tokens": tokens, "hidden_size": 4096, "inter_size": width, "topk": 8, "num_experts": 128}
    return pd.DataFrame({**table, "moe_tp_size": 1, "moe_ep_size": 1, "distribution": "power_law_1.2", "latency": 1e3 * seconds})


def test_fits_give_the_rates_that_tables_were_made_of():
    dense = fits.gemm([_gemm().assign(seconds=lambda rows: rows.latency / 1e3)], ("bfloat16",), PEAK, BANDWIDTH)
    assert {name: rate.value for name, rate in dense.items()} == pytest.approx(
        {"gemm_efficiency": 0.7, "hbm_efficiency": 0.8, "gemm_overhead": 5e-6}, rel=1e-3
    )
    mixed = fits.experts([_moe().assign(seconds=lambda rows: rows.latency / 1e3)], ("fp8",), PEAK, BANDWIDTH)
    assert {name: rate.value for name, rate in mixed.items()} == pytest.approx(
        {"expert_efficiency": 0.4, "expert_hbm_efficiency": 0.9, "expert_overhead": 40e-6, "expert_passed": 2.5}, rel=1e-3
    )
    assert max(rate.error for rate in mixed.values()) < 1e-6


def test_attention_and_all_reduce_are_fitted_by_their_forms():
    isl = np.repeat([256, 512, 1024, 4096, 16384], 10)
    flops = 2.0 * 32 * 128 * isl * (isl + 1) / PEAK
    prompts = pd.DataFrame({"isl": isl, "batch_size": 1, "num_heads": 32, "head_dim": 128, "kv_cache_dtype": "bfloat16", "step": 0})
    prompts["seconds"] = 1e-5 + flops / 0.6 * (1 + 900 / isl)
    found = fits.attention([prompts], PEAK)
    assert (found["attention_efficiency"].value, found["attention_half"].value) == pytest.approx((0.6, 900), rel=1e-3)
    sizes = 2 ** np.arange(10, 27)
    reduce = pd.DataFrame({"num_gpus": 8, "message_size": sizes, "backend": "graph", "seconds": 4e-6 + 2 * sizes * 1.75 / 400e9})
    slow = reduce.assign(backend="x_eager", seconds=1.0)
    found = fits.all_reduce([pd.concat([reduce, slow])], 8)
    assert found["interconnect_bandwidth"].value == pytest.approx(400e9, rel=0.02)
    assert found["interconnect_latency"].value == pytest.approx(4e-6, rel=0.02)


def test_an_indexer_costs_what_its_attention_takes_more_and_a_scan_what_each_token_does():
    heads = {"num_heads": "16", "kv_cache_dtype": "fp8", "gemm_type": "fp8_block", "step": "1024", "op_name": "x", "seconds": 50e-6}
    latent = pd.DataFrame([heads | {"batch_size": size} for size in ("1", "8", "64")])
    indexed = latent.assign(seconds=[80e-6, 80e-6, 1.0])
    assert fits.indexer([latent], [indexed])["indexer_overhead"].value == pytest.approx(30e-6)
    assert fits.indexer([latent], []) == {} == fits.indexer([latent], [indexed.assign(num_heads="8")])
    kernels = {"causal_conv1d_fn": 1e-9, "chunk_gated_delta_rule": 40e-9}
    rows = [
        {
            "phase": "context",
            "batch_size": "1",
            "seq_len": size,
            "num_v_heads": 8,
            "num_k_heads": 2,
            "model_name": "m",
            "kernel_source": name,
        }
        | {"seconds": 20e-6 + each * size}
        for name, each in kernels.items()
        for size in (1024, 8192)
    ]
    assert fits.scan([pd.DataFrame(rows)])["scan_overhead"].value == pytest.approx(41e-9)
    assert fits.scan([pd.DataFrame(rows[:2])]) == {}, "no scan is in the table"


def test_a_wheel_gives_one_table_an_engine_the_fullest_and_of_equals_the_newest(tmp_path):
    versions = {"vllm/0.9.0": 40, "vllm/0.24.0": 40, "vllm/0.30.0": 10, "sglang/0.5.10": 5, "sglang/dev-1": 99}
    files = {f"{DATA}/gemm/{name}/gemm_perf.parquet": pd.DataFrame({"latency": [float(n)] * n}) for name, n in versions.items()}
    wheel = Wheel(_wheel(tmp_path / "x.whl", files), ANY)
    found = tables(wheel, "h100_sxm", "gemm", "gemm_perf.parquet")
    assert sorted(len(table) for table in found) == [5, 40]
    assert tables(wheel, "h100_sxm", "moe", "moe_perf.parquet") == []


def test_what_is_no_wheel_is_refused_with_where_to_get_one(tmp_path, capsys):
    (tmp_path / "no.whl").write_text("no")
    empty = _wheel(tmp_path / "empty.whl", {})
    for path in (tmp_path / "no.whl", tmp_path / "absent.whl", empty):
        with pytest.raises(NotAWheel, match="pip download"):
            Wheel(path, ANY)
        with pytest.raises(NotAWheel, match="pip download"):
            Rows(path)
        assert main(["steptimes", "--rows", str(path)]) == main(["kerneltables", str(path)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_what_a_wheel_has_no_tables_of_is_left_out(tmp_path, capsys):
    wheel = _wheel(tmp_path / "x.whl", {f"{DATA}/gemm/vllm/0.24.0/gemm_perf.parquet": _gemm()})
    assert main(["kerneltables", str(wheel), "--gpu", "h100-80g", "--gpu", "b200"]) == 0
    printed = capsys.readouterr().out
    assert "gemm_efficiency" in printed and "b200: this wheel has no kernel tables of it" in printed
    assert "interconnect" not in printed and "layer_overhead" not in printed


def test_a_damaged_wheel_is_refused_when_it_is_read(tmp_path, capsys):
    files = {"aisimulate_core/systems/silicon_sample.csv": "one of 1569", f"{DATA}/gemm/vllm/0.24.0/gemm_perf.parquet": "one of 1569"}
    torn = _wheel(tmp_path / "torn.whl", files)
    torn.write_bytes(torn.read_bytes().replace(b"one of", b"two of"))
    assert main(["steptimes", "--rows", str(torn)]) == main(["kerneltables", str(torn), "--gpu", "h100-80g"]) == 2
    assert capsys.readouterr().err.count("cannot be read as a wheel (Bad CRC-32") == 2


def _row(model="llama-3.1-8b", clients=8, prompt=1024, answer=1024) -> Row:
    node = hwmodels.load("node", "h100-80g-x8")
    return Row(hwmodels.load("model", model), node, hwmodels.load("gpu", node.gpu), 1, "vllm", prompt, answer, clients, 0.01, (0.01, 0.01))


def test_one_client_alone_only_decodes_and_others_add_their_prefills():
    alone = _row(clients=1)
    steps = hwmodels.roofline(alone.model, alone.gpu, alone.node, 1)
    assert tpot_s(alone) == steps.decode(1, 1024 + 512)
    assert tpot_s(_row()) > steps.decode(8, 8 * (1024 + 512))
    assert tpot_s(_row(answer=128)) > tpot_s(_row(answer=1024)), "prompts come more often"


CONFIG = """{"model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
"intermediate_size": 14336, "vocab_size": 128256, "max_position_embeddings": 131072, "torch_dtype": "bfloat16"}"""
COLUMNS = (
    "silicon_data_source,backend,backend_version,model_path,system,mode,isl,osl,gemm_quant_mode,moe_quant_mode,batch_size,tp_size,pp_size,"
    "attention_dp_size,moe_tp_size,moe_ep_size,silicon_ttft_ms,silicon_tpot_ms"
)


def _line(source="db-dump/2026", system="h100_sxm", mode="agg", quantised="fp8", clients=8, tp=1, ttft=50, tpot=6.0, model="a/Small"):
    return f"{source},vllm,0.19,{model},{system},{mode},1024,1024,{quantised},,{clients},{tp},1,1,{tp},1,{ttft},{tpot}"


def test_rows_are_those_of_closed_loops_once_each_and_the_others_are_counted(tmp_path, capsys):
    lines = [
        _line(tpot=5.0),
        _line(tpot=7.0),
        _line(tpot=7.0, source="source_file=2026-04-06.csv"),
        _line(clients=16, quantised=""),
        _line(mode="disagg"),
        _line(source="source_file=/somebody"),
        _line(system="tpu"),
        _line(tp=16),
        _line(clients=5000),
        _line(clients=32, ttft=90_000),
        _line(model="b/Unknown"),
    ]
    files = {
        "aisimulate_core/systems/silicon_sample.csv": "\n".join([COLUMNS, *lines]),
        "aisimulate_core/model_configs/a--Small_config.json": CONFIG,
    }
    rows = Rows(_wheel(tmp_path / "rows.whl", files))
    found = sorted(rows, key=lambda row: row.clients)
    assert [(row.clients, row.tpot_s, row.model.arithmetic) for row in found] == [(8, 0.006, "fp8"), (16, 0.006, "16-bit")]
    assert [row.runs_s for row in found] == [(0.005, 0.007), (0.006, 0.006)]
    assert sum(rows.left_out.values()) == len(lines) - 2 and rows.left_out["measured again"] == rows.left_out["the same run again"] == 1
    assert main(["steptimes", "--rows", str(tmp_path / "rows.whl")]) in (0, 1)
    printed = capsys.readouterr().out
    assert "dense up to 8 clients" in printed and "1 measured again" in printed and "5.0 to 7.0" in printed
    assert "Measured again, 1 of the rows: the longest run took 40.0% more than the shortest" in printed


@pytest.mark.parametrize("line", [_line(mode="disagg"), _line(model="b/Unknown")], ids=["none judged", "none known"])
def test_a_wheel_without_a_row_that_can_be_predicted_is_told_so(line, tmp_path, capsys):
    wheel = _wheel(tmp_path / "rows.whl", {"aisimulate_core/systems/silicon_sample.csv": f"{COLUMNS}\n{line}"})
    assert main(["steptimes", "--rows", str(wheel)]) == 2
    assert "has no row that can be predicted" in capsys.readouterr().err


def _served(**other) -> dict:
    """A row of DeepSeek-R1 in TensorRT-LLM over 8 B200."""
    row = {
        "silicon_data_source": "source_file=2026-03-25.csv; measured=2026-02-05",
        "backend": "trtllm",
        "backend_version": "1.2.0rc6.post2",
    }
    row |= {"model_path": "deepseek-ai/DeepSeek-V3", "system": "b200_sxm", "gemm_quant_mode": "fp8", "moe_quant_mode": "fp8", "tp_size": 8}
    return row | {"moe_tp_size": 8, "moe_ep_size": 1, "silicon_ttft_ms": 200.0, "silicon_tpot_ms": 10.0} | other


def test_conditions_that_rows_do_not_say_are_read():
    rows = [
        _served(),
        _served(backend_version="1.2.0rc6.post3"),
        _served(backend_version="1.1.0rc2.post2", silicon_data_source="source_file=2026-03-25.csv; measured=2026-01-14T22:26:21Z"),
        _served(backend="sglang", backend_version="0.5.9", silicon_data_source="db-dump/2026-04-27; config_id=87"),
        _served(backend="sglang", backend_version="0.5.9"),
        _served(backend="sglang", backend_version="0.5.9", silicon_tpot_ms=7.0),
        _served(backend="sglang", backend_version="0.5.10.post1"),
        _served(tp_size=64, moe_ep_size=8, moe_quant_mode="fp8_block"),
    ]
    table = conditions.as_served(pd.DataFrame(rows))
    assert set(table.model_path) == {"deepseek-ai/DeepSeek-R1"} and set(table.tp_size) == {8}
    assert list(conditions.drafts(table)) == [False, True, True, False, False, True, False, False]
    assert list(conditions.longer_prompts(table)) == [False] * 6 + [True, False]
    assert table.gemm_quant_mode.iloc[-1] == "fp8_block"


def test_a_server_that_takes_longer_with_fewer_clients_contradicts_itself():
    server = {"kind": "dense", "gpu": "h200", "model": "a", "bits": "8-bit", "engine": "vllm", "load": "TP1"}
    table = command.with_neighbours(pd.DataFrame([server | {"clients": n, "ms": ms} for n, ms in [(32, 22), (8, 12), (16, 40), (64, 30)]]))
    assert dict(zip(table.clients, table.contradicts, strict=True)) == {8: False, 16: True, 32: False, 64: False}
    assert table[table.clients == 16][["fewer", "more"]].to_numpy().tolist() == [[12, 22]]


def test_missed_aims_are_said():
    table = pd.DataFrame({"kind": "dense", "clients": [4, 8, 16, 32], "ratio": [0.9, 1.0, 1.3, 2.5], "contradicts": False})
    said = list(command.missed_aims(table))
    assert len(said) == 3 and "2.50x" in said[1] and "0 of which took longer" in said[1] and "changes by 178%" in said[2]
    assert not list(command.missed_aims(table.assign(ratio=[0.9, 0.95, 1.0, 1.02])))
