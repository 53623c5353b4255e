"""What a step holds: tokens of prompts, one of each job that decodes, or both; and whether one more job may start for it."""

import math
from collections.abc import Sequence

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.turns import Turn

Chunks = Sequence[tuple[Turn, int]]
"""Jobs, and tokens of each that are computed."""
GIB = 2**30


class Iteration:
    """One prompt, whole, or a decode."""

    def __init__(self, config: Config, deployment: Deployment) -> None:
        self.budget = self.together = math.inf  # tokens of a step, and of the prompts in it

    def admits(self, jobs: Jobs) -> bool:
        return not jobs.prefilling()

    def step(self, jobs: Jobs) -> tuple[Chunks, bool]:
        chunks = self.pack(jobs.prefilling(), self.budget)
        return chunks, not chunks

    def pack(self, prefilling: Sequence[Turn], room: float) -> Chunks:
        """As much of the prompts, in order, as there is room for. One of as many tokens as those before it leave, or of more, waits for a
        step that it is the first in."""
        chunks: list[tuple[Turn, int]] = []
        together = self.together
        for turn in prefilling:
            if room <= 0 or (chunks and turn.to_prefill >= together):
                break
            tokens = int(min(turn.to_prefill, room))
            chunks.append((turn, tokens))
            room, together = room - tokens, together - tokens
        return chunks


class Chunked(Iteration):
    """vLLM: decodes first, and prompts in what they leave of the budget."""

    def __init__(self, config: Config, deployment: Deployment) -> None:
        super().__init__(config, deployment)
        gpu = deployment.gpu
        default = 8_192 if gpu.hbm.value >= 70 * GIB and "a100" not in gpu.name.lower() else 2_048
        self.budget = config.deployment.step_tokens or (16_384 if gpu.hbm.value >= 160 * GIB else default)

    def admits(self, jobs: Jobs) -> bool:
        return len(jobs.decoding()) + sum(turn.to_prefill for turn in jobs.prefilling()) < self.budget

    def step(self, jobs: Jobs) -> tuple[Chunks, bool]:
        decoding = len(jobs.decoding())
        return self.pack(jobs.prefilling(), self.budget - decoding), decoding > 0


class PrefillFirst(Iteration):
    """SGLang: prompts, or decodes where there are none."""

    def __init__(self, config: Config, deployment: Deployment) -> None:
        super().__init__(config, deployment)
        defaults = [(160, 16_384), (60, 8_192), (35, 4_096), (0, 2_048)]
        default = next(tokens for gib, tokens in defaults if deployment.gpu.hbm.value >= gib * GIB)
        self.budget = config.deployment.step_tokens or default
        self.together = config.deployment.prefill_tokens or 16_384

    def admits(self, jobs: Jobs) -> bool:
        return sum(turn.to_prefill for turn in jobs.prefilling()) < min(self.budget, self.together)


BATCHINGS = {"iteration": Iteration, "chunked": Chunked, "prefill-first": PrefillFirst}
RESERVES = {"iteration": "answer", "chunked": "prompt", "prefill-first": "share"}
"""What a job must find HBM for, where nothing else is asked for."""
