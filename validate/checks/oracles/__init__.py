"""The simulator against theory: queues, caches and the layer pipeline, each figure with its source; a minute.

Exact where theory gives every value (Lindley, Mattson, Belady, the pipeline's recurrence), else means over replications with intervals.
"""

from kvplan.validate.checks.oracles import caches, pipeline, queues, servers
from kvplan.validate.verdict import fail, report

ORACLES = {
    "Queues: every turn": queues.recursions,
    "Queues: means": queues.means,
    "Several servers": servers.waits_against_erlang,
    "Caches: every access": caches.orders,
    "Caches: hit rates": caches.rates,
    "Layer pipeline": pipeline.closed_forms,
}
"""Title of a table -> the function that works its findings out."""


def run() -> None:
    """Prints the tables; fails when a figure does not hold."""
    fail([failure for title, figures in ORACLES.items() for failure in report(title, figures())])
