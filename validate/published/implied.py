"""Which of the paper's claims say the same, and which cannot all hold together: arithmetic on published numbers, beside what a GPU can do.
Of simulations it takes the workload and how long recomputation prefills, which the paper's own 360 ms for 2K tokens bear out."""

from dataclasses import dataclass
from typing import Any

from kvplan import hwmodels
from kvplan.hwmodels import kvsize
from kvplan.sim.config import load
from kvplan.sim.deployment import Deployment, resolve
from kvplan.validate.published import cases
from kvplan.validate.published.cases import Case
from kvplan.validate.published.runs import Figures, key

_STORAGE_USD_PER_H = 128 * 0.0088 + 10_240 * 0.000082
"""Of 128 GB of DRAM and 10 TB of SSD at the paper's prices."""
_GPU_USD_PER_H = 5.0
BUFFER = "02-read-buffer"
BATCH = 24
"""Jobs that decode at once, at most."""


@dataclass(frozen=True)
class Claim:
    """What follows from published numbers, in cells: of what, from what, published, computed, verdict."""

    of: str
    follows: str
    published: str
    computed: str
    verdict: str


def claims(case: Case, figures: Figures) -> list[Claim]:
    """Of the end-to-end figure, and of that of the read buffer."""
    published = {quantity.name: quantity.published for quantity in case.quantities}
    found = []
    for point in case.tried_at:
        one: dict[str, Any] = {name: numbers[point] for name, numbers in published.items() if point in numbers}
        deployment = resolve(load(case.points[point]["preset"]))
        found += _same(point, one, deployment.gpus)
        found += _turns(point, one, figures[key(case.setup(point, "CachedAttention")[0])])
        found += _decoding(point, one, deployment, figures[key(case.setup(point, "recompute")[0])])
    return found + _buffer(cases.load("paper", BUFFER).quantities[0].published, resolve(load("paper-13b", ["deployment.gpus=1"])))


def _same(point: str, one: dict[str, float], gpus: int) -> list[Claim]:
    """TTFT is prefill throughput, and cost is GPU time."""
    faster, shorter, per_hour = one["prefill throughput"], one["GPU time"], _GPU_USD_PER_H * gpus
    ttft = 100 * (1 / faster - 1)
    cost = 100 * ((1 + _STORAGE_USD_PER_H / per_hour) / shorter - 1)
    share = 100 * _STORAGE_USD_PER_H / (_STORAGE_USD_PER_H + per_hour)
    rows = (
        ("TTFT, without queueing", f"prefill throughput {faster:g}x", ttft),
        ("cost", f"GPU time {shorter:g}x, the paper's prices", cost),
        ("storage's share of the cost", f"{gpus} GPUs, the paper's prices, by the busy hour", share),
    )
    return [
        Claim(
            f"{point}: {name}", follows, f"{one[name]:g}%", f"{value:.1f}%", "one claim" if abs(value - one[name]) < 1.5 else "two claims"
        )
        for name, follows, value in rows
    ]


def _turns(point: str, one: dict[str, float], found: Any) -> list[Claim]:
    """First turns cannot hit."""
    most = 100 * found["resumed_turns"] / found["turns"]
    verdict = "all that can hit does" if abs(most - one["hit rate"]) < 1.5 else "below what can hit"
    return [Claim(f"{point}: hit rate", "a session's first turn cannot hit", f"{one['hit rate']:g}%", f"at most {most:.1f}%", verdict)]


def _decoding(point: str, one: dict[str, float], deployment: Deployment, found: Any) -> list[Claim]:
    """GPU time falls by g where prefills fall by x: their share p of recomputation's time solves 1/g = p/x + 1 - p. What is left for decode
    steps is held against reading the weights once, at all of the datasheet's bandwidth."""
    faster, shorter = one["prefill throughput"], one["GPU time"]
    prefills = (1 - 1 / shorter) / (1 - 1 / faster)
    decode_s = found["gpu"]["prefill_s"] * (1 - prefills) / prefills
    step_s = decode_s / (found["output_tokens"] / BATCH)
    floor_s = kvsize.weight_bytes(deployment.model) / (deployment.gpus * deployment.gpu.hbm_bandwidth.value)
    answers = found["output_tokens"] / found["turns"]
    return [
        Claim(
            f"{point}: a decode step",
            f"GPU time {shorter:g}x and prefill throughput {faster:g}x leave decoding {100 * (1 - prefills):.0f}% of recomputation's time",
            f"{1e3 * step_s:.1f} ms",
            f"at least {1e3 * floor_s:.1f} ms",
            f"holds, with answers of {answers:.0f} tokens and {BATCH} at once, only if prefills take {floor_s / step_s:.1f} times as long",
        )
    ]


def _buffer(published: dict[str, Any], deployment: Deployment) -> list[Claim]:
    """PL-B0 says what computing is of loading, c / l = r: it saves 1 - (1 + r/L) / (1 + r). PL-B15 follows."""
    layers, saved = deployment.steps.layers, published["0"] / 100
    ratio = saved / (1 - saved - 1 / layers)
    load_s = 16 * deployment.stored(1024) / deployment.host.read_bytes_per_s
    piped = hwmodels.pipeline_s(layers, ratio / layers, 1 / layers, 15)
    own_s = deployment.steps.step([(100, 1024)] * 16)
    b15, b0 = f"{published['15']:g}%", f"PL-B0 saves {published['0']:g}%"
    return [
        Claim("LLaMA-13B: time saved by PL-B15", b0, b15, f"{100 * (1 - piped / (1 + ratio)):.0f}%", "one claim"),
        Claim(
            "LLaMA-13B: prefill of 16 x 100 tokens on 1K",
            f"{b0}, the link's 26 GB/s",
            f"{1e3 * ratio * load_s:.0f} ms",
            f"{1e3 * own_s:.0f} ms",
            f"prefills {ratio * load_s / own_s:.1f} times as long as a roofline's",
        ),
    ]
