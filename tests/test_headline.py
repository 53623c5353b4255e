"""The first screen of `kvplan simulate`: differences with intervals, a default that does not lose, and runs that cannot be trusted."""

import math

import pytest

from kvplan.sim import config
from kvplan.sim.engine.run import simulate
from kvplan.sim.engine.workload import build_workload

SEEDS = (1, 2, 3)
PLACES = {
    "as it is": (),
    "small DRAM": ("store.dram=16GB",),
    "SSD alone": ("store.dram=0GB",),
    "busy": ("workload.arrival.rate_per_s=0.25",),
    "70B": ("model=llama-2-70b", "hardware=h100-80g-x8", "deployment.gpus=8", "prices=rent-2026"),
    "short prompts": (
        "workload.kind=synthetic",
        "workload.prompt_tokens={distribution: lognormal, median: 20, sigma: 0.5}",
        "workload.output_tokens={distribution: lognormal, median: 60, sigma: 0.5}",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_defaults_make_a_store_no_worse_than_none(place):
    """Mean TTFT, prefill and its tail, over the seeds; within 2 %, for a store takes a little HBM and the seeds are few."""
    ratios: dict[tuple[str, str], float] = {}
    for seed in SEEDS:
        settings = config.load(None, ["workload.sessions=200", f"seed={seed}", *PLACES[place]])
        workload = build_workload(settings)
        ours, theirs = simulate(settings, workload).summary, simulate(settings.recompute(), workload).summary
        for key in (("ttft_s", "mean"), ("ttft_s", "p95"), ("prefill_s", "mean"), ("prefill_s", "p95")):
            one, other = (summary[key[0]][key[1]] for summary in (ours, theirs))
            ratios[key] = ratios.get(key, 0.0) + math.log(one / other) / len(SEEDS)
    assert max(ratios.values()) <= math.log(1.02), ratios


def test_the_papers_presets_load_always():
    assert {name: config.load(name).store.load for name in config.presets()} == {
        "default": "faster",
        "paper-13b": "always",
        "paper-65b": "always",
        "paper-70b": "always",
    }
