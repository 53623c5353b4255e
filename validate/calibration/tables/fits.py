"""Rates of the form of `kvplan.hwmodels.datasheet`, each table of an engine fitted alone; the figure is the median over tables.

A table is of one GPU, so that nothing passes between GPUs in it. Latencies are of calls in a CUDA graph, so overheads are those of
engines that replay graphs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kvplan.hwmodels.datasheet import passed_to_experts
from kvplan.validate.calibration.fit.least_squares import fit_coefficients

_LARGE, _SMALL = 2048, 16
"""Tokens from which a product is bound by arithmetic, and to which by reading."""
_WIDTHS = (1024, 32768)
"""Of products that a layer has."""
_CACHED = 2**27
"""Bytes of which no GPU of the tables keeps more on its chip: a repeated call reads them from HBM, as a step does, in which all other
weights come between."""
_LEAST = 40
"""Rows of a table that is fitted."""
BYTES = {
    **dict.fromkeys(("bfloat16", "float16"), 2.0),
    **dict.fromkeys(("fp8", "fp8_block", "sq"), 1.0),
    "nvfp4": 9 / 16,
    **dict.fromkeys(("int4_wo", "w4a16_mxfp4", "w4a8_mxfp4_mxfp8"), 17 / 32),
}
"""Of a weight with its scales, by the name that tables give its type."""
TYPES = {
    "": ("bfloat16", "float16"),
    "fp8": ("fp8", "fp8_block"),
    "fp8_block": ("fp8_block",),
    "int8": ("sq",),
    "fp4": ("nvfp4",),
    "w4a8": ("w4a8_mxfp4_mxfp8",),
    "w4a16": ("int4_wo", "w4a16_mxfp4"),
}
"""Arithmetic of a GPU entry (none: 16 bits) -> types in tables. `fp8` has those of either kind of scales: tables with one scale a tensor
are few, and one of them is of a kernel five times slower than all others."""


@dataclass(frozen=True)
class Rate:
    """A figure with the number of tables it is the median of, and the mean error of their fits."""

    value: float
    tables: int
    error: float


def gemm(tables: list[pd.DataFrame], types: tuple[str, ...], peak: float, bandwidth: float) -> dict[str, Rate]:
    """Efficiency, reading and overhead of products [m, k] x [k, n]."""
    found = []
    for rows in _of([_of_a_layer(table) for table in tables], "gemm_dtype", types):
        flops, size = 2.0 * rows.m * rows.n * rows.k / peak, rows.n * rows.k * BYTES[rows.gemm_dtype.iloc[0]]
        efficiency = float((flops / rows.seconds)[rows.m >= _LARGE].median())
        overhead, read = _reading(rows[rows.m <= _SMALL], size[rows.m <= _SMALL], bandwidth)
        error = (overhead + size / bandwidth / read + flops / efficiency) / rows.seconds - 1
        found.append((efficiency, read, overhead, float(error.abs().mean())))
    return _medians(("gemm_efficiency", "hbm_efficiency", "gemm_overhead"), found)


def _reading(rows: pd.DataFrame, size: pd.Series, bandwidth: float) -> tuple[float, float]:
    """Seconds of calls that read next to nothing, and the share of bandwidth of those that read more than a GPU keeps on its chip."""
    overhead = float(rows.seconds[size <= _CACHED / 16].median())
    share = (size / bandwidth / (rows.seconds - overhead))[size >= _CACHED].median()
    return overhead, float(share)


def _of_a_layer(table: pd.DataFrame) -> pd.DataFrame:
    """Products that a layer may have."""
    return table[table.n.between(*_WIDTHS) & table.k.between(*_WIDTHS)]


def experts(tables: list[pd.DataFrame], types: tuple[str, ...], peak: float, bandwidth: float) -> dict[str, Rate]:
    """The same of all routed experts of a layer, whose tokens choose as unevenly as a power law says, and how often tokens pass HBM."""
    found = []
    for rows in _of([_uneven(table) for table in tables], "moe_dtype", types):
        weights = _expert_weights(rows)
        touched = rows.num_experts * (1 - (1 - rows.topk / rows.num_experts) ** rows.num_tokens)
        read = touched * weights * BYTES[rows.moe_dtype.iloc[0]] / bandwidth
        flops = 2.0 * rows.num_tokens * rows.topk * weights / peak
        once = rows.num_tokens * passed_to_experts(rows.hidden_size.to_numpy(), rows.topk.to_numpy(), 2) / bandwidth
        fit = fit_coefficients(np.c_[np.ones(len(rows)), read, flops, once], rows.seconds.to_numpy())
        constant, reading, arithmetic, passed = fit.coefficients
        found.append((1 / arithmetic, 1 / reading, constant, passed, fit.mean_error))
    return _medians(("expert_efficiency", "expert_hbm_efficiency", "expert_overhead", "expert_passed"), found)


def _uneven(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of one GPU's share of experts of some size."""
    uneven = table.distribution.str.startswith("power_law") if "distribution" in table else True
    large = (_expert_weights(table) >= 2e6) & (table.num_experts >= 8) & (table.num_tokens <= 16_384)
    return table[uneven & large & (table.moe_ep_size == 1)]


def _expert_weights(table: pd.DataFrame) -> pd.Series:
    """Of one expert on one GPU: gate, up and down."""
    return 3.0 * table.hidden_size * table.inter_size / table.moe_tp_size


def attention(tables: list[pd.DataFrame], peak: float) -> dict[str, Rate]:
    """Of prompts of 256 tokens and more, heads of 128, in 16 bits."""
    found = []
    for table in tables:
        rows = _plain_heads(table)
        rows = rows[(rows.isl >= 256) & (rows.step == 0) & (rows.batch_size <= 4)]
        flops = 2.0 * rows.batch_size * rows.num_heads * 128 * rows.isl * (rows.isl + 1) / peak
        fit = fit_coefficients(np.c_[np.ones(len(rows)), flops, flops / rows.isl], rows.seconds.to_numpy())
        _, arithmetic, half = fit.coefficients
        found.append((1 / arithmetic, half / arithmetic, fit.mean_error))
    return _medians(("attention_efficiency", "attention_half"), found)


def kv(tables: list[pd.DataFrame], bandwidth: float) -> dict[str, Rate]:
    """Of decode steps whose heads share KV; the constant is the kernel's."""
    found = []
    for table in tables:
        rows = _plain_heads(table)
        rows = rows[(rows.num_key_value_heads < rows.num_heads) & (rows.num_heads <= 16 * rows.num_key_value_heads)]
        size = 4.0 * rows.batch_size * (rows.step + rows.isl) * rows.num_key_value_heads * 128
        if len(rows) >= _LEAST:
            overhead, share = _reading(rows, size, bandwidth)
            error = (overhead + size / bandwidth / share) / rows.seconds - 1
            found.append((share, overhead, float(error.abs().mean())))
    return _medians(("kv_efficiency", "attention_overhead"), found)


def indexer(latent: list[pd.DataFrame], indexed: list[pd.DataFrame]) -> dict[str, Rate]:
    """What attention to chosen tokens takes beside attention to a latent, with few requests of some hundred tokens."""
    without, found = ([rows.seconds.median() for table in tables if len(rows := _few_requests(table))] for tables in (latent, indexed))
    if not without or not found:
        return {}
    spread = float(np.ptp(found) / 2 / np.median(found))
    return {"indexer_overhead": Rate(float(np.median(found) - np.median(without)), len(found), spread)}


def _few_requests(table: pd.DataFrame) -> pd.DataFrame:
    """Of 16 heads, in FP8."""
    rows = table.assign(**{name: pd.to_numeric(table[name]) for name in ("num_heads", "batch_size", "step")})
    small = (rows.num_heads == 16) & (rows.batch_size <= 16) & rows.step.between(256, 2048)
    return rows[small & (rows.kv_cache_dtype == "fp8") & (rows.gemm_type == "fp8_block") & ~rows.op_name.str.endswith("skip_indexer")]


def scan(tables: list[pd.DataFrame]) -> dict[str, Rate]:
    """Of a token of one long prompt: what 8,192 tokens take more than 1,024, in all kernels of a layer of 8 to 16 heads."""
    found = []
    for table in tables:
        rows = table.assign(**{name: pd.to_numeric(table[name]) for name in ("batch_size", "seq_len", "num_v_heads")})
        rows = rows[(rows.phase == "context") & (rows.batch_size == 1) & rows.num_v_heads.between(8, 16)]
        if not rows.kernel_source.str.contains("gated_delta").any():
            continue
        by_length = rows.groupby(["model_name", "num_v_heads", "num_k_heads", "seq_len"]).seconds.sum().unstack()
        each = (by_length[8192] - by_length[1024]) / (8192 - 1024)
        found.append((float(each.median()), float((each / each.median() - 1).abs().mean())))
    return _medians(("scan_overhead",), found)


def all_reduce(tables: list[pd.DataFrame], gpus: int) -> dict[str, Rate]:
    """Bus bandwidth of the fastest engine at 64 MB, what messages of 8 KB to 1 MB take beside it at the median; none without tables."""
    if not tables:
        return {}
    rows = pd.concat([_replayed(table) for table in tables])
    rows = rows[rows.num_gpus == gpus]
    moved = 2 * rows.message_size * 2 * (gpus - 1) / gpus
    large, small = 2 * rows.message_size == 2**26, (2 * rows.message_size).between(2**13, 2**20)
    bandwidth = float((moved / rows.seconds)[large].max())
    floor = float((rows.seconds - moved / bandwidth)[small].median())
    error = float(((floor + moved / bandwidth) / rows.seconds - 1)[small | large].abs().mean())
    names = {"interconnect_bandwidth": bandwidth, "interconnect_latency": floor}
    return {name: Rate(value, len(tables), error) for name, value in names.items()}


def _replayed(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of CUDA graphs."""
    return table[~table.backend.str.contains("eager")] if "backend" in table else table


def _of(tables: list[pd.DataFrame], column: str, types: tuple[str, ...]) -> list[pd.DataFrame]:
    """One table for each engine and type."""
    found = [table[table[column] == each] for table in tables for each in types]
    return [table for table in found if len(table) >= _LEAST]


def _plain_heads(table: pd.DataFrame) -> pd.DataFrame:
    windowed = table.window_size > 0 if "window_size" in table else False
    return table[
        (table.head_dim == 128) & ~(table.kv_cache_dtype != "bfloat16") & (table.num_heads >= 4) & ~pd.Series(windowed, table.index)
    ]


def _medians(names: tuple[str, ...], found: Sequence[tuple[float, ...]]) -> dict[str, Rate]:
    """Of every figure; the last of each row is the fit's error."""
    if not found:
        return {}
    error = float(np.mean([row[-1] for row in found]))
    return {name: Rate(float(np.median([row[index] for row in found])), len(found), error) for index, name in enumerate(names)}
