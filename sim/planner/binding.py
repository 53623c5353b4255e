"""What an option's replicas run out of first: how much of each resource they use, as their runs at the answer saw it.

Jobs that run are counted by Little's law: turns per second times the seconds from admission to the last token. A GPU that is busy is short
of prefill or of decoding, whichever takes more. Left out: peaks; a resource at 60 % in the mean may be short now and then.
"""

from kvplan.sim.planner.plan import Answer

_LINKS = {"host link": ("host_to_device", "device_to_host"), "SSD read": ("ssd_read",), "SSD write": ("ssd_write",)}


def shares(answer: Answer) -> dict[str, float]:
    """Resource -> share of it in use; of drives that wear, rated life that the horizon takes. Empty without an answer."""
    if answer.figure("turns") is None:
        return {}
    found = {**_gpu(answer), **_jobs(answer)}
    for name, links in _LINKS.items():
        busy = [answer.figure(f"links.{link}.busy_share") or 0.0 for link in links]
        found[name] = max(busy)
    if answer.wear is not None and answer.wear.bought and answer.wear.years:
        found["SSD wear"] = answer.wear.horizon_years / answer.wear.years
    return found


def binding(answer: Answer) -> str | None:
    """The resource of which most is used; of a busy GPU what it does most. Drives that are replaced are a cost, and bind nothing."""
    found = shares(answer)
    if answer.config.cost.worn_drives == "replace":
        found.pop("SSD wear", None)
    if not found:
        return None
    busy = found["prefill"] + found["decode"]
    first = max(found, key=lambda name: busy if name in ("prefill", "decode") else found[name])
    return first if first not in ("prefill", "decode") else max(("prefill", "decode"), key=lambda name: found[name])


def _gpu(answer: Answer) -> dict[str, float]:
    span = _known(answer, "makespan_s")
    parts = {name: _known(answer, f"gpu.{name}_s") for name in ("prefill", "decode", "load_stall", "save_stall")}
    stalls = parts["load_stall"] + parts["save_stall"]
    return {"prefill": parts["prefill"] / span, "decode": parts["decode"] / span, "stalls": stalls / span}


def _jobs(answer: Answer) -> dict[str, float]:
    """HBM for KV, and places in the batch."""
    turns = _known(answer, "turns")
    running = turns / _known(answer, "makespan_s") * (_known(answer, "e2e_s.mean") - _known(answer, "queue_s.mean"))
    return {
        "HBM": _held(answer, running, turns) / answer.deployment.hbm_budget,
        "batch": running / answer.config.deployment.max_batch,
    }


def _held(answer: Answer, running: float, turns: float) -> float:
    """Bytes of HBM that so many jobs have; in a pool of blocks they share some."""
    held = answer.figure("hbm.running_bytes")
    if answer.deployment.pooled and held is not None:
        return held
    return running * answer.deployment.in_hbm((_known(answer, "context_tokens") + _known(answer, "output_tokens")) / turns)


def _known(answer: Answer, key: str) -> float:
    """A figure that every run has. Raises KeyError without one."""
    value = answer.figure(key)
    if value is None:
        raise KeyError(key)
    return value
