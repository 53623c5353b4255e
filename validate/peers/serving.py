"""A whole server beside AISimulate's: the same requests at the same times on one GPU with one pool of blocks, by vLLM's rules in both.

Source: aisimulate 0.13.0.dev202610270000000085 as it is on PyPI. Its step times are its own kernel tables; kvplan's are its roofline, whose
efficiencies were fitted to tables of the same wheel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kvplan.hwmodels import catalogue
from kvplan.hwmodels.kvsize import kv_bytes_per_token
from kvplan.sim.config import Config, load
from kvplan.sim.simulation import simulate
from kvplan.validate.peers.requests import BLOCK_TOKENS, Request, write_requests
from kvplan.validate.peers.timing import timed

NAME, MODULE = "AISimulate", "aisimulate"
ENTRY = "aisimulate.predict"
"""What is called: it needs psutil, too."""
MODEL = {"kvplan": "llama-3.1-8b", MODULE: "meta-llama/Meta-Llama-3.1-8B"}
GPU = {"kvplan": "h200-x8", MODULE: "h200_sxm"}
STEP_TOKENS = 8192
MAX_BATCH = 256
CHATS = 300
"""Few, for what a server does takes longer to say than what a cache hits."""


@dataclass(frozen=True)
class Load:
    """How the requests come, and onto what."""

    faster: float
    """The times of the requests are divided by this."""
    hbm_utilization: float
    """Share of HBM for weights and the pool of blocks."""
    dram_gb: int = 0
    """Of a tier of blocks below it."""


LOADS = (Load(1, 0.92), Load(4, 0.92), Load(4, 0.3), Load(4, 0.3, 20), Load(4, 0.3, 64), Load(9, 0.92))
"""Idle, busy, short of memory, with some DRAM, with enough of it, and near what the GPU can do."""


@dataclass(frozen=True)
class Served:
    """What a simulator says of one load; times in seconds."""

    hit_rate: float
    """Over all prompt tokens."""
    ttft_mean_s: float
    ttft_p95_s: float
    tpot_mean_s: float | None
    """None where every answer is one token."""
    seconds: float
    """What it took to say so."""


def configuration(trace: Path, case: Load) -> Config:
    """Of kvplan."""
    return load(
        "default",
        {
            "engine": "vllm",
            "store.unit": "block",
            "store.block_tokens": BLOCK_TOKENS,
            "store.dram": f"{case.dram_gb}GB",
            "store.ssd": "0GB",
            "model": MODEL["kvplan"],
            "hardware": GPU["kvplan"],
            "prices": "rent-2026",
            "deployment.gpus": 1,
            "deployment.step_tokens": STEP_TOKENS,
            "deployment.max_batch": MAX_BATCH,
            "deployment.hbm_utilization": case.hbm_utilization,
            "workload.trace": str(trace),
            "workload.loop": "open",
        },
    )


def prediction(trace: Path, blocks: int, host_blocks: int = 0) -> dict[str, Any]:
    """Of AISimulate, in the words of its `predict`: all it is told beside its defaults. `blocks` of HBM, and of a tier below it."""
    worker = {
        "kv_cache": {"block_size": BLOCK_TOKENS, "capacity": {"type": "fixed", "blocks": blocks}, **_offloaded(host_blocks)},
        "scheduler": {"max_sequences": MAX_BATCH, "max_batched_tokens": STEP_TOKENS},
    }
    engine = {"mode": "aggregated", "model": MODEL[MODULE], "hardware": GPU[MODULE], "backend": "vllm", "workers": {"aggregated": worker}}
    source = {"type": "trace", "paths": [str(trace)], "format": "mooncake", "block_size": BLOCK_TOKENS}
    return {"engine": engine, "traffic": {"source": source, "load": {"type": "trace_timestamps"}}}


def _offloaded(host_blocks: int) -> dict[str, Any]:
    """The tier in DRAM, over a link as fast as the connector that kvplan takes."""
    if not host_blocks:
        return {}
    gb_per_s = catalogue.load("connector", "vllm-native").per_gpu.value / 1e9
    return {"host_offload": {"num_host_blocks": host_blocks, "d2h_bandwidth_gbps": gb_per_s, "h2d_bandwidth_gbps": gb_per_s}}


def kvplans(trace: Path, case: Load) -> tuple[Served, int]:
    """What kvplan says, and the bytes of its pool."""
    with timed() as spent:
        found = simulate(configuration(trace, case)).summary
    ttft, tpot = found["ttft_s"], found["tpot_s"]
    return Served(found["hit_rate"]["tokens"], ttft["mean"], ttft["p95"], tpot["mean"], spent[0]), found["tiers"]["hbm"]["capacity_bytes"]


def aisimulates(trace: Path, blocks: int, host_blocks: int) -> Served:
    """What AISimulate says of so many blocks of HBM and of DRAM."""
    from aisimulate.config.cli import CorePredictionConfig
    from aisimulate.predict import run_prediction
    from aisimulate.stack import resolve_runner_factory

    with timed() as spent:
        config = CorePredictionConfig.model_validate(prediction(trace, blocks, host_blocks))
        found: Mapping[str, float] = run_prediction(config, stack="engine", runner_factory=resolve_runner_factory("engine")).summary
    mean_s, p95_s, tpot_s = (found[key] / 1e3 for key in ("mean_ttft_ms", "p95_ttft_ms", "mean_tpot_ms"))
    return Served(found["prefix_cache_reused_ratio"], mean_s, p95_s, tpot_s, spent[0])


def beside(requests: list[Request], case: Load) -> dict[str, Served]:
    """Both, by name."""
    with TemporaryDirectory() as folder:
        trace = Path(folder) / "requests.jsonl"
        write_requests(requests, trace, case.faster)
        ours, hbm_bytes = kvplans(trace, case)
        blocks = (int(each // _block_bytes()) for each in (hbm_bytes, 1e9 * case.dram_gb))
        return {NAME: aisimulates(trace, *blocks), "kvplan": ours}


def _block_bytes() -> int:
    return BLOCK_TOKENS * kv_bytes_per_token(catalogue.load("model", MODEL["kvplan"]))
