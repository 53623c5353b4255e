"""What fits: models, budgets, the mean turn, and how many jobs and sessions each tier holds."""

import numpy as np

from kvplan.hwmodels import kvsize
from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.tiers import fetch_target
from kvplan.traces import Workload


def model_of(config: Config, deployment: Deployment) -> dict:
    return {
        "name": deployment.model.name,
        "hardware": deployment.node.name,
        "gpus": deployment.gpus,
        "replicas": config.deployment.replicas,
        "window_tokens": deployment.window,
        "kv_bytes_per_token": deployment.kv.per_token,
        "hbm_kv_bytes_per_token": deployment.hbm_kv.per_token,
        "kv_bytes_of_windows": deployment.kv.windows_bytes,
        "hbm_kv_bytes_of_windows": deployment.hbm_kv.windows_bytes,
        "state_bytes": deployment.kv.state,
        "kv_bytes_at_full_window": deployment.stored(deployment.window),
        "weight_bytes": kvsize.weight_bytes(deployment.model),
        "step_times": deployment.steps.source,
    }


def mean_turn(deployment: Deployment, workload: Workload, history: np.ndarray, prompt: np.ndarray, output: np.ndarray) -> dict:
    """Tokens of the mean turn, and of the mean session at its end; of all turns these are left after truncation to the window."""
    context = history + prompt + output
    last = workload.first_turn[1:] - 1
    resumed = ~workload.is_first
    return {
        "resumed_share": float(resumed.mean()),
        "resumed_history_tokens": float(history[resumed].mean()) if resumed.any() else 0.0,
        "history_tokens": float(history.mean()),
        "prompt_tokens": float(prompt.mean()),
        "output_tokens": float(output.mean()),
        "context_tokens": float(context.mean()),
        "session_tokens": float(context[last].mean()),
        "session_bytes": float(deployment.stored(context[last]).mean()),
        "all_bytes": float(deployment.stored(context[last]).sum()),
        "turns_per_session": workload.turns / workload.sessions,
    }


def hbm_of(config: Config, deployment: Deployment, turn: dict, block_tokens: int = 1) -> dict:
    """Jobs have whole blocks of so many tokens, the last of them half full in the mean."""
    tokens, at_most = (deployment.tokens_in_hbm(deployment.hbm_budget, each) for each in (turn["context_tokens"], deployment.window))
    context, window = turn["context_tokens"] + (block_tokens - 1) / 2, deployment.window + -deployment.window % block_tokens
    return {
        "installed_bytes": int(deployment.gpus * deployment.gpu.hbm.value),
        "kv_bytes": deployment.hbm_budget,
        "kv_tokens": tokens,
        "read_buffer_bytes": deployment.read_buffer,
        "write_buffer_bytes": deployment.write_buffer,
        "jobs": float(min(config.deployment.max_batch, max(tokens / context, 1))),
        "jobs_at_full_window": float(min(config.deployment.max_batch, at_most / window)),
    }


def tiers_of(deployment: Deployment, turn: dict) -> dict:
    return {
        tier.name: {
            "capacity_bytes": tier.size,
            "kept_free_bytes": tier.taken(tier.reserve),
            "kv_bytes_per_token": tier.taken(deployment.kv.per_token),
            "kv_dtype": tier.kv_dtype,
            "sessions": tier.capacity / turn["session_bytes"],
            "sessions_at_full_window": tier.capacity / deployment.stored(deployment.window),
        }
        for tier in deployment.tiers
    }


def windows_of(deployment: Deployment, turn: dict) -> dict:
    """L_pw = C_mem / S_kv and the eviction window (C_mem + C_disk) / S_kv, in waiting jobs; running jobs' pins make C_mem smaller. C_mem is
    what fetches fill, C_disk all below it."""
    target, rooms = fetch_target(deployment.tiers), [tier.capacity - tier.reserve for tier in deployment.tiers]
    outside = [room for tier, room in zip(deployment.tiers, rooms, strict=True) if not tier.on_device]
    return {
        "s_kv_bytes": turn["session_bytes"],
        "prefetch_jobs": 0.0 if target is None else rooms[target] / turn["session_bytes"],
        "eviction_jobs": sum(outside) / turn["session_bytes"],
    }
