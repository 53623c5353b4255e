"""What servers of InferenceX ran that the rows of a wheel do not say, by InferenceX's own configurations and pull requests.

**Drafted tokens.** Servers that draft tokens (multi-token prediction) stand beside plain ones, and a step of theirs gives more than one
token. Source: github.com/SemiAnalysisAI/InferenceX: nvidia-master.yaml at 83fafdd (keys that end in -mtp) and pull requests 392
(TensorRT-LLM 1.1.0rc2.post2, run on 2026-01-14), 642, 1488 and 1489 (1.2.0rc6.post3; plain ones in .post2), 898 (Qwen3.5 in SGLang's image
v0.5.9-cu130; plain ones in -amd64) and 626 (DeepSeek-R1 in SGLang on B200 in FP8 over 8 GPUs, in the image of the plain server, which
alone is in the lists of configurations, "db-dump").

**Prompts of another length.** With SGLang 0.5.10 the client's tokenizer of DeepSeek-R1 was not the server's, so that a prompt of 7,140
tokens was one of 35,921 there. Source: pull requests 937 and 1502, which measured these servers again.
"""

import pandas as pd

FIGURES = ["silicon_ttft_ms", "silicon_tpot_ms"]
"""Two rows of one server and load with the same ones are one run, listed again."""
_R1 = "deepseek-ai/DeepSeek-R1"
_ONE_MODEL = {"deepseek-ai/DeepSeek-V3": _R1}
"""InferenceX serves R1 (its configurations are named dsr1), whose shapes are those of V3; some lists name the same runs V3."""
_DRAFTING = (
    (_R1, "trtllm", "1.2.0rc6.post3", ""),
    (_R1, "trtllm", "1.1.0rc2.post2", "measured=2026-01-14"),
    ("Qwen/Qwen3.5-397B-A17B", "sglang", "0.5.9", "sglang:v0.5.9-cu130$"),
)
"""Model, engine, version, and what the source says (a pattern) of runs that draft tokens."""


def as_served(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with one name a model, weights with scales by blocks as such, which is said of experts alone, and as many GPUs as there
    were: where experts are split in two ways, both numbers are those of all GPUs, and the table has their product."""
    doubled = (table.moe_ep_size > 1) & (table.moe_tp_size > 1) & (table.tp_size == table.moe_tp_size * table.moe_ep_size)
    gpus = table.tp_size.where(~doubled, table.moe_tp_size)
    weights = table.gemm_quant_mode.where(table.moe_quant_mode != "fp8_block", "fp8_block")
    return table.assign(model_path=table.model_path.replace(_ONE_MODEL), gemm_quant_mode=weights, tp_size=gpus)


def drafts(table: pd.DataFrame) -> pd.Series:
    """Whether a row's server drafted tokens."""
    found = _beside_plain(table)
    for model, engine, version, said in _DRAFTING:
        found |= _of(table, model, engine) & (table.backend_version == version) & table.silicon_data_source.str.contains(said)
    return found


def _beside_plain(table: pd.DataFrame) -> pd.Series:
    """Runs of that server of which only the plain ones are in lists of configurations."""
    server = _of(table, _R1, "sglang") & (table.backend_version == "0.5.9") & (table.system == "b200_sxm")
    server &= table.gemm_quant_mode.isin(["fp8", "fp8_block"]) & (table.tp_size == 8)
    listed = table[table.silicon_data_source.str.startswith("db-dump/")]
    plain = pd.MultiIndex.from_frame(listed[FIGURES])
    return server & ~pd.MultiIndex.from_frame(table[FIGURES]).isin(plain)


def longer_prompts(table: pd.DataFrame) -> pd.Series:
    """Whether a row's server got prompts of other lengths than the row says."""
    return _of(table, _R1, "sglang") & table.backend_version.str.startswith("0.5.10", na=False)


def _of(table: pd.DataFrame, model: str, engine: str) -> pd.Series:
    return (table.model_path == model) & (table.backend == engine)
