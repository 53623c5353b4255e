"""TPOT of a closed loop of clients, by the step times alone.

All clients decode together, at a context that is the prompt and half of the answer in the mean. While one decodes its answer, each of the
others ends once and sends a prompt, which is prefilled in chunks beside the decodes: its steps take so much longer.
"""

from kvplan import hwmodels
from kvplan.hwmodels import kvsize
from kvplan.validate.checks.steptimes.rows import Row

BUDGET = 8192
"""Tokens of a step at most."""


def tpot_s(row: Row) -> float:
    """Seconds."""
    steps = hwmodels.roofline(row.model, row.gpu, row.node, row.gpus)
    context, others = row.prompt + row.answer // 2, row.clients - 1
    windows = kvsize.hbm_footprint(row.model, row.gpus).window_reads(context, 1)
    decode = steps.decode(row.clients, row.clients * context, 1, row.clients * windows)
    if not others:
        return decode
    beside = steps.decode(others, others * context)
    chunks = [(min(BUDGET, row.prompt - done), done) for done in range(0, row.prompt, BUDGET)]
    prefill = sum(steps.step([chunk], others, others * context) - beside for chunk in chunks)
    return decode + others * prefill / row.answer
