"""`kvplan validate kerneltables WHEEL [--gpu NAME]`: fits the rates of the catalogue's GPUs to public kernel tables; prints their rows.

The tables come with the wheel of aisimulate (Apache-2.0, NVIDIA). It is read where it lies; nothing of it is installed or run.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from kvplan import hwmodels
from kvplan.hwmodels import Gpu
from kvplan.hwmodels.units import from_si
from kvplan.validate.aisimulate import FETCH, NotAWheel, Wheel
from kvplan.validate.calibration.tables import fits
from kvplan.validate.calibration.tables.engines import ANY, of_system, tables
from kvplan.validate.ending import ended

SYSTEMS = {
    "a100-80g": "a100_sxm",
    "h100-80g": "h100_sxm",
    "h200": "h200_sxm",
    "b200": "b200_sxm",
    "b300": "b300_sxm",
    "gb200": "gb200",
    "gb300": "gb300",
    "l40s": "l40s",
    "rtx-pro-6000": "rtx_pro_6000_server",
}
"""GPU of the catalogue -> the name of its tables."""
NODES = {
    "a100-80g": 8,
    "h100-80g": 8,
    "h200": 8,
    "b200": 8,
    "b300": 8,
    "gb200": 4,
    "gb300": 4,
    "l40s": 4,
    "rtx-pro-6000": 8,
}
"""GPUs among which its all-reduce was measured."""
SMALL_KERNELS_S = 12e-6
"""Six of a layer (norms, positions, writing KV, activation, residuals) at 2 us each in a CUDA graph: an assumption."""
_UNITS = {"overhead": "us", "latency": "us", "bandwidth": "GB/s"}
_CEILING = 1.0
"""Of a share: experts that a table's tokens leave alone make reads of the others look faster than HBM is."""
_UNBOUNDED = ("attention_half", "expert_passed")
"""Figures of no unit that are no shares."""


def main(arguments: list[str]) -> int:
    """Exit code of the command."""
    parser = argparse.ArgumentParser(prog="kvplan validate kerneltables", description=__doc__, epilog=f"Fetch the wheel with: {FETCH}")
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--gpu", choices=sorted(SYSTEMS), action="append", help="one of the catalogue's; all of them by default")
    asked = parser.parse_args(arguments)
    try:
        wheel = Wheel(asked.wheel, ANY)
        lines = [line for name in asked.gpu or SYSTEMS for line in rows(wheel, name)]
    except NotAWheel as error:
        return ended("kerneltables", error)
    print("\n".join(lines))
    return 0


def rows(wheel: Wheel, name: str) -> Iterator[str]:
    """Lines of YAML for a GPU's file, and for that of its node; what the wheel has no tables of is left out."""
    gpu, system = hwmodels.load("gpu", name), SYSTEMS[name]
    if not wheel.has(of_system(system)):
        yield f"# {name}: this wheel has no kernel tables of it"
        return
    yield f"# {name}"
    for arithmetic, types in fits.TYPES.items():
        found = products(wheel, gpu, system, arithmetic, types)
        if found and arithmetic:
            yield f"{arithmetic}:"
        yield from _lines(found, wheel, "  " if arithmetic else "")
    yield from _lines(attention(wheel, gpu, system), wheel)
    yield f"# a node of {NODES[name]} {name}"
    yield from _lines(fits.all_reduce(tables(wheel, system, "comm", "custom_allreduce_perf.parquet"), NODES[name]), wheel)


def _lines(found: dict[str, fits.Rate], wheel: Wheel, indent: str = "") -> list[str]:
    """One for each figure but those of nothing, which an entry leaves out."""
    return [f"{indent}{field}: {_row(field, rate, wheel)}" for field, rate in found.items() if rate.value > 1e-9]


def products(wheel: Wheel, gpu: Gpu, system: str, arithmetic: str, types: tuple[str, ...]) -> dict[str, fits.Rate]:
    """Of one arithmetic, against its own peak; nothing where the entry does not say one, or no table has it."""
    own = (getattr(gpu, arithmetic) if arithmetic else gpu) or {"fp8_block": gpu.fp8, "w4a8": gpu.fp8, "w4a16": gpu}.get(arithmetic)
    if own is None:
        return {}
    peak, bandwidth = own.peak_flops.value, gpu.hbm_bandwidth.value
    dense = fits.gemm(tables(wheel, system, "gemm", "gemm_perf.parquet"), types, peak, bandwidth)
    return dense | fits.experts(tables(wheel, system, "moe", "moe_perf.parquet"), types, peak, bandwidth)


def attention(wheel: Wheel, gpu: Gpu, system: str) -> dict[str, fits.Rate]:
    """Of prompts and of decoding, as far as there are tables; a layer's overhead is that of the decoding kernel and of the small ones."""
    prompts = tables(wheel, system, "attention", "context_attention_perf.parquet")
    found = fits.attention(prompts, gpu.peak_flops.value)
    found |= fits.kv(tables(wheel, system, "attention", "generation_attention_perf.parquet"), gpu.hbm_bandwidth.value)
    if kernel := found.pop("attention_overhead", None):
        found["layer_overhead"] = fits.Rate(kernel.value + SMALL_KERNELS_S, kernel.tables, kernel.error)
    latent = tables(wheel, system, "mla", "mla_generation_module_perf.parquet")
    found |= fits.indexer(latent, tables(wheel, system, "sparse_attention", "dsa_generation_module_perf.parquet"))
    return found | fits.scan(tables(wheel, system, "linear_attention", "gdn_perf.parquet"))


def _row(field: str, rate: fits.Rate, wheel: Wheel) -> str:
    unit = _UNITS.get(field.rpartition("_")[2], "1")
    value = rate.value if field in _UNBOUNDED else min(rate.value, _CEILING) if unit == "1" else from_si(rate.value, unit)
    number = f"{value:.0f}" if field == "attention_half" else f"{value:.2g}" if value < 100 else f"{value:.3g}"
    small = ", and 12 us of small kernels (assumption)" if field == "layer_overhead" else ""
    source = f"aisimulate {wheel.version} (Apache-2.0), fit to {rate.tables} kernel tables, mean error {rate.error:.0%}{small}"
    return f'{{value: {number}, unit: "{unit}", source: "{source}"}}'
