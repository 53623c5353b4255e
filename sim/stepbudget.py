"""How many tokens one step of a batch may have: what blocks that are computed together, and guards of steps, go by."""

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment, batching_limits
from kvplan.sim.policies.registry import find


def step_budget(config: Config, deployment: Deployment) -> int | None:
    """Tokens, the policy's default where nobody sets them; None where its batching has no such budget."""
    policy = find("batching", config.batching)
    if "step_tokens" not in policy.NEEDS:
        return None
    return getattr(policy(batching_limits(config, deployment)), "tokens", config.deployment.step_tokens)
