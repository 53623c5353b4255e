"""Public end-to-end rows, and the models they ran, out of a wheel of aisimulate; nothing of it is shipped.

`silicon_sample.csv` holds what others measured on real servers. Those of InferenceX are used: closed loops of so many clients, each of
which sends its next request when the last has ended. The other rows say no clients: some would need more arithmetic than their GPU has.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from kvplan import hwmodels
from kvplan.hwmodels import Gpu, Model, Node, kvsize
from kvplan.hwmodels.hfconfig import read_model
from kvplan.hwmodels.quantization import Arithmetic, beside
from kvplan.hwmodels.simplified import unsupported
from kvplan.validate.aisimulate import CORE, Wheel
from kvplan.validate.checks.steptimes import conditions

_ROWS = f"{CORE}/systems/silicon_sample.csv"
_MEASURED_BY = r"source_file=20\d\d-|db-dump/"
"""InferenceX, by how its rows name their source."""
NODES = {
    "h100_sxm": "h100-80g-x8",
    "h200_sxm": "h200-x8",
    "b200_sxm": "b200-x8",
    "b300_sxm": "b300-x8",
    "gb200": "gb200-x4",
    "gb300": "gb300-x4",
}
"""System of a row -> node of the catalogue."""
_CONFIGS = {
    "zhipuai/GLM-5": "zai-org/GLM-5",
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
}
"""Name in a row -> name of its config.json in the wheel, where they differ."""
_FP4_CONFIGS = {
    "deepseek-ai/DeepSeek-R1": "nvidia/DeepSeek-V3.1-NVFP4",
    "deepseek-ai/DeepSeek-V3": "nvidia/DeepSeek-V3.1-NVFP4",
    "MiniMaxAI/MiniMax-M2.5": "nvidia/MiniMax-M2.5-NVFP4",
    "moonshotai/Kimi-K2.5": "nvidia/Kimi-K2.5-NVFP4",
    "zhipuai/GLM-5": "nvidia/GLM-5-NVFP4",
}
"""What was served of a model in NVFP4: the file that says which layers it leaves alone."""
_BITS: dict[str, tuple[Fraction, Arithmetic]] = {
    "fp8": (Fraction(8), "fp8"),
    "fp8_block": (Fraction(8), "fp8-block"),
    "nvfp4": (Fraction(9, 2), "fp4"),
}
"""`gemm_quant_mode` of a row -> bits of all weights and how they are multiplied, where the model's file is in 16 bits."""
_KEY = ["system", "model_path", "backend", "gemm_quant_mode", "isl", "osl", "tp_size", "moe_ep_size", "batch_size"]
"""Of one measurement; repeated ones count once, by their median."""


@dataclass(frozen=True)
class Row:
    """One server and its load. Seconds."""

    model: Model
    node: Node
    gpu: Gpu
    gpus: int
    engine: str
    prompt: int
    answer: int
    clients: int
    tpot_s: float
    runs_s: tuple[float, float]
    """The shortest and the longest of those whose median it is."""
    ranks: int = 1
    """Over which whole experts are split, beside parts of experts."""


class Rows:
    """Those of a wheel. Iterating gives what kvplan can predict; `left_out` counts the others by reason, once it has ended."""

    def __init__(self, wheel: Path):
        """Raises NotAWheel."""
        self._wheel = Wheel(wheel, _ROWS)
        self.left_out: dict[str, int] = {}
        self._table = self._chosen(pd.read_csv(BytesIO(self._wheel.read(_ROWS)), dtype={"backend_version": str}))
        self._model = cache(self._read)

    def _chosen(self, table: pd.DataFrame) -> pd.DataFrame:
        """One a measurement."""
        for why, drop in {
            "prefill and decode on servers apart": table["mode"] != "agg",
            "not of InferenceX": ~table.silicon_data_source.str.contains(_MEASURED_BY, regex=True),
            "several pipeline stages, or attention in parallel by data": (table.pp_size > 1) | (table.attention_dp_size.fillna(1) > 1),
            "GPU not in the catalogue": ~table.system.isin(list(NODES)),
        }.items():
            table = self._without(table, why, drop)
        table = conditions.as_served(table)
        table = self._without(table, "with drafted tokens", conditions.drafts(table))
        table = self._without(table, "prompts of another length at the server", conditions.longer_prompts(table))
        table = self._without(table, "the same run again", table.duplicated([*_KEY, *conditions.FIGURES]))
        tpot = table.silicon_tpot_ms
        groups = table.assign(shortest=tpot, longest=tpot).groupby(_KEY, dropna=False, as_index=False)
        medians = groups.agg({**dict.fromkeys(conditions.FIGURES, "median"), "shortest": "min", "longest": "max"})
        self.left_out["measured again"] = len(table) - len(medians)
        return medians

    def _without(self, table: pd.DataFrame, why: str, drop: pd.Series) -> pd.DataFrame:
        """The rows that are left, with the others counted."""
        gone = drop.reindex(table.index)
        self.left_out[why] = int(gone.sum())
        return table[~gone]

    def __iter__(self) -> Iterator[Row]:
        for said in self._table.to_dict("records"):
            why, row = self._row(said)
            if row is None:
                self.left_out[why] = self.left_out.get(why, 0) + 1
            else:
                yield row

    def _row(self, said: dict) -> tuple[str, Row | None]:
        """The row, or why there is none."""
        node = hwmodels.load("node", NODES[said["system"]])
        gpu, gpus, clients = hwmodels.load("gpu", node.gpu), int(said["tp_size"]), int(said["batch_size"])
        why, model = self._model(said["model_path"], said["gemm_quant_mode"])
        if model is None:
            return why, None
        if gpus > node.max_gpus.value:
            return "more GPUs than a node has", None
        prompt, answer, tpot_s = int(said["isl"]), int(said["osl"]), said["silicon_tpot_ms"] / 1e3
        room = 0.9 * gpus * gpu.hbm.value - kvsize.weight_bytes(model)
        if clients * kvsize.hbm_footprint(model, gpus).of(prompt + answer) > room:
            return "the KV of all clients does not fit: some wait", None
        if said["silicon_ttft_ms"] / 1e3 > 0.5 * answer * tpot_s:
            return "TTFT above half of decoding: clients wait", None
        runs_s = said["shortest"] / 1e3, said["longest"] / 1e3
        return "", Row(model, node, gpu, gpus, said["backend"], prompt, answer, clients, tpot_s, runs_s, int(said["moe_ep_size"]))

    def _read(self, path: str, mode: object) -> tuple[str, Model | None]:
        """The model as it was served, or why kvplan cannot say."""
        name = _FP4_CONFIGS.get(path, path) if mode == "nvfp4" else path
        try:
            data = self._config(_CONFIGS.get(name, name))
            model = read_model({**data, "name": path, "source": "aisimulate", "date": "2026"})
        except (KeyError, ValidationError):
            return f"{path}: its config.json is not read", None
        if unsupported(model):
            return f"{path}: not simulated, it keeps states", None
        if "quantization_config" not in data and mode in _BITS:
            bits, arithmetic = _BITS[str(mode)]
            model = replace(model, bits=replace(model.bits, attention=bits, dense=bits, experts=bits, shared=bits), arithmetic=arithmetic)
        return "", replace(model, kv_bits=Fraction(8))

    def _config(self, name: str) -> dict:
        """A config.json of the wheel, with what stands beside it. Raises KeyError."""
        stem = f"{CORE}/model_configs/{name.replace('/', '--')}"
        data = json.loads(self._wheel.read(f"{stem}_config.json"))
        quantised = f"{stem}_hf_quant_config.json"
        if quantised not in self._wheel.names:
            return data
        return {**data, "quantization_config": beside(json.loads(self._wheel.read(quantised)))}
