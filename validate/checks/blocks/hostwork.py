"""What vLLM's scheduler and native connector take of the host for each request, on this machine's CPU, where vLLM 0.13 is installed.

    python -m kvplan.validate.checks.blocks.hostwork [REQUESTS [SHARE ...]]

Requests of 512 tokens with one token of answer, handed over at once, mixed evenly; a share of them was served before and is loaded, the
others are computed and stored. GPUs and transfers take no time: a transfer is there after a step. vLLM 0.13.0 was the latest when its blog
had the throughput of `validate/cases/published/vllm-throughput.yaml`; it schedules a step after the one before has ended, if it is not
told otherwise. Left out: the worker's own work, what its driver takes for copies, and processes that send requests.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from kvplan.validate.checks.blocks.real import version
from kvplan.validate.ending import ended

VLLM = "0.13"
TOKENS, BLOCK, POOL = 512, 16, 27_000
"""Of a prompt, of a block; blocks of HBM beside the weights of Llama-3.1-8B on 80 GB."""
BUDGET = 8192
"""Tokens of a step: a server's."""
_MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
}


class Host:
    """A scheduler, and the seconds of processor time that it has taken."""

    def __init__(self, requests: int) -> None:
        from vllm import SamplingParams
        from vllm.utils.hashing import get_hash_fn_by_name
        from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash

        digest = get_hash_fn_by_name("sha256")
        init_none_hash(digest)
        self._hasher = get_request_block_hasher(BLOCK, digest)
        self._answer = SamplingParams(max_tokens=1, ignore_eos=True)
        self._scheduler = _scheduler(requests)
        self.seconds = 0.0

    def add(self, name: str, tokens: list[int]) -> None:
        """A request, with the hashes of its blocks."""
        from vllm.v1.request import Request

        with self._timed():
            request = Request(name, tokens, self._answer, None, eos_token_id=None, arrival_time=0.0, block_hasher=self._hasher)
            self._scheduler.add_request(request)

    def run(self) -> None:
        """Steps until all are answered and stored."""
        loading: set[str] = set()
        saved: set[str] = set()
        saving: set[str] = set()
        while self._scheduler.has_requests():
            with self._timed():
                step = self._scheduler.schedule()
            names = list(step.num_scheduled_tokens)
            there = self._scheduler.requests
            saved |= saving
            ended = {name for name in saved if name in there and there[name].is_finished()}
            saved -= ended
            output = _output(names, there, loading, ended)
            loading, saving = set(step.kv_connector_metadata.reqs_to_load), set(step.kv_connector_metadata.reqs_to_store)
            with self._timed():
                self._scheduler.update_from_output(step, output)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds += time.process_time() - start


def _output(names: list[str], requests: Any, loaded: set[str], saved: set[str]) -> Any:
    """What a worker says after a step: a token for each prompt that is whole."""
    from vllm.v1.outputs import KVConnectorOutput, ModelRunnerOutput

    whole = [requests[name].num_computed_tokens >= requests[name].num_prompt_tokens for name in names]
    return ModelRunnerOutput(
        req_ids=names,
        req_id_to_index={name: place for place, name in enumerate(names)},
        sampled_token_ids=[[7] if each else [] for each in whole],
        logprobs=None,
        prompt_logprobs_dict={},
        pooler_output=[],
        kv_connector_output=KVConnectorOutput(finished_sending=saved or None, finished_recving=loaded or None),
    )


def _scheduler(requests: int) -> Any:
    from vllm import config as of
    from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE
    from vllm.v1.core.sched.scheduler import Scheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
    from vllm.v1.structured_output import StructuredOutputManager

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(_MODEL), encoding="utf-8")
        model = of.ModelConfig(model=folder, tokenizer=folder, skip_tokenizer_init=True, dtype="bfloat16", max_model_len=4096)
        extra = {"num_cpu_blocks": 2 * requests * TOKENS // BLOCK}
        config = of.VllmConfig(
            model_config=model,
            scheduler_config=of.SchedulerConfig(
                max_num_seqs=1024, max_num_batched_tokens=BUDGET, max_model_len=4096, is_encoder_decoder=False
            ),
            cache_config=of.CacheConfig(block_size=BLOCK, enable_prefix_caching=False),
            kv_transfer_config=of.KVTransferConfig(kv_connector="OffloadingConnector", kv_role="kv_both", kv_connector_extra_config=extra),
            device_config=of.DeviceConfig("cpu"),
        )
    config.cache_config.num_gpu_blocks = POOL
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=8, head_size=128, dtype=STR_DTYPE_TO_TORCH_DTYPE["bfloat16"])
    groups = [KVCacheGroupSpec([f"layer.{layer}" for layer in range(32)], spec)]
    with of.set_current_vllm_config(config):
        return Scheduler(config, KVCacheConfig(POOL, [], groups), StructuredOutputManager(config), BLOCK)


def measured(requests: int, share: float) -> float:
    """Seconds of processor time a request, where this share of them was served before."""
    known = round(share * requests)
    prompts = [random.Random(each).choices(range(100_000), k=TOKENS) for each in range(requests)]
    host = Host(requests)
    for number in range(known):
        host.add(f"before {number}", prompts[number])
    host.run()
    host.seconds = 0.0
    for number in random.Random(1).sample(range(requests), requests):
        host.add(str(number), list(prompts[number]))
    host.run()
    return host.seconds / requests


def _there() -> bool:
    """Whether the vLLM that is installed is one that this drives."""
    try:
        return version().startswith(VLLM)
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    if not _there():
        sys.exit(ended("hostwork", f"vLLM {VLLM} is needed here, whose scheduler is timed: pip install vllm=={VLLM}.0"))
    count, *shares = sys.argv[1:] or ["3000"]
    for share in map(float, shares or (0, 0.5, 0.9, 1)):
        print(f"{share:.0%} loaded: {measured(int(count), share) * 1e3:.2f} ms a request")
