"""The links of a replica, and which of them KV goes over between the GPU and each tier, and from tier to tier."""

import itertools
from collections.abc import Sequence
from typing import Any

from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.flow import Flow
from kvplan.sim.engine.link import Link
from kvplan.sim.tiers import TierSpec, Wires


class Paths:
    """One replica's. `tiers`: those of its store, fastest first."""

    def __init__(self, deployment: Deployment, tiers: Sequence[TierSpec], watch: Any = None) -> None:
        def both(read: str, write: str, wires: Wires) -> tuple[Link, Link]:
            return (
                Link(read, wires.read_bytes_per_s, wires.latency_s, deployment.piece, watch),
                Link(write, wires.write_bytes_per_s, wires.latency_s, deployment.piece, watch),
            )

        self.to_device, self.to_host = both("host_to_device", "device_to_host", deployment.host)
        own = {name: both(f"{name}_read", f"{name}_write", wires) for name, wires in deployment.links.items()}
        self.links = [self.to_device, self.to_host, *itertools.chain(*own.values())]
        reads, writes = ({name: links[way] for name, links in own.items()} for way in (0, 1))
        self.reads = [reads.get(tier.name) for tier in tiers]
        """Each tier's own link towards the GPU, if it has one."""
        self.taken = [int if tier.copies == 1.0 else tier.taken for tier in tiers]
        """What bytes of KV are on the way to each tier and from it: as many, but where ranks keep copies."""
        self.saves = [[] if tier.on_device else [self.to_host, *filter(None, [writes.get(tier.name)])] for tier in tiers]
        """What a save into each tier goes over."""
        self.demotions = [
            sorted((link for link in below if link not in above), key=lambda link: link.bandwidth)
            for above, below in itertools.pairwise(self.saves)
        ]
        """What a demotion from each tier goes over, the slowest first: it decides when the demotion ends."""
        self.saved, self.loaded = ([Flow() for _ in tiers] for _ in range(2))
        """What jobs save into each tier and load from it."""

    def begin(self, now: float) -> None:
        """The measured span begins."""
        measured: tuple[Link | Flow, ...] = (*self.links, *self.saved, *self.loaded)
        for each in measured:
            each.begin(now)
