"""The links of a replica, and which of them KV goes over between the GPU and each tier, and from tier to tier."""

import itertools
from collections.abc import Callable, Sequence

from kvplan.sim.deployment import Deployment
from kvplan.sim.engine.flow import Flow
from kvplan.sim.engine.link import Link


class Paths:
    """One replica's. `tiers` are the names of those that are switched on, fastest first."""

    def __init__(self, deployment: Deployment, tiers: Sequence[str], make_link: Callable[..., Link]) -> None:
        self.to_device = make_link(
            "host_to_device", deployment.host_to_device_bytes_per_s, deployment.host_link_latency_s, deployment.piece
        )
        self.to_host = make_link("device_to_host", deployment.device_to_host_bytes_per_s, deployment.host_link_latency_s, deployment.piece)
        self.ssd_read = make_link("ssd_read", deployment.ssd_read_bytes_per_s, deployment.ssd_latency_s, deployment.piece)
        self.ssd_write = make_link("ssd_write", deployment.ssd_write_bytes_per_s, deployment.ssd_latency_s, deployment.piece)
        self.links = [self.to_device, self.to_host, self.ssd_read, self.ssd_write]
        into = {"hbm": [], "dram": [self.to_host], "ssd": [self.to_host, self.ssd_write]}
        self.saves = [into[name] for name in tiers]
        """What a save into each tier goes over."""
        self.demotions = [
            sorted((link for link in into[below] if link not in into[above]), key=lambda link: link.bandwidth)
            for above, below in itertools.pairwise(tiers)
        ]
        """What a demotion from each tier goes over, the slowest first: it decides when the demotion ends."""
        self.saved, self.loaded = ([Flow() for _ in tiers] for _ in range(2))
        """What jobs save into each tier and load from it."""

    def begin(self, now: float) -> None:
        """The measured span begins."""
        measured: tuple[Link | Flow, ...] = (*self.links, *self.saved, *self.loaded)
        for each in measured:
            each.begin(now)
