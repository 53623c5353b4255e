"""Step times, the layer pipeline and the generated population against published figures; under a second."""

import numpy as np

import hwmodels
from hwmodels import kvsize
from sim.rng import stream
from traces.generate import sharegpt
from validate.show import show


def rows() -> list[tuple[str, float, float, str]]:
    """(quantity, published, simulated, source)."""
    node = hwmodels.load("node", "a100-80g-pcie4")
    gpu = hwmodels.load("gpu", node.gpu)
    big, small = hwmodels.load("model", "llama-1-65b"), hwmodels.load("model", "llama-2-13b")
    found = [
        ("65B prefill of 2,048 tokens, 4 GPUs, ms", 360.0, 1e3 * hwmodels.roofline(big, gpu, node, 4).prefill(2048), "section 2.3"),
        (
            "65B load of 2,000 tokens of KV, ms",
            192.0,
            1e3 * 2000 * kvsize.kv_bytes_per_token(big) / node.host_to_device.value,
            "section 2.3",
        ),
    ]
    steps = hwmodels.roofline(small, gpu, node, 1)
    compute = steps.fixed + 16 * (steps.prefill(100, 1024) - steps.fixed)
    load = 16 * 1024 * kvsize.kv_bytes_per_token(small) / node.host_to_device.value
    for layers, published in ((0, 35.0), (15, 61.0)):
        pipelined = hwmodels.pipeline_s(steps.layers, compute / steps.layers, load / steps.layers, layers)
        found.append((f"13B prefill saved by PL-B{layers}, %", published, 100 * (1 - pipelined / (compute + load)), "figure 18"))
    table = sharegpt.generate(90_000, stream(1, "lengths"))
    turns, tokens = np.diff(table.first_turn), table.session_tokens
    population = "ShareGPT-90K, cut"
    found += [
        ("turns per session", 5.6, float(turns.mean()), population),
        ("multi-turn sessions, %", 69.0, 100 * float((turns > 1).mean()), population),
        ("sessions over 2K tokens, %", 41.0, 100 * float((tokens > 2048).mean()), population),
        ("sessions over 4K tokens, %", 23.0, 100 * float((tokens > 4096).mean()), population),
    ]
    return found


def run() -> None:
    """Prints the table."""
    cells = [[name, f"{published:.4g}", f"{simulated:.4g}", f"{simulated / published - 1:+.1%}", source] for name, published, simulated, source in rows()]
    show("kvplan against published figures", ["quantity", "published", "kvplan", "difference", "source"], cells)
