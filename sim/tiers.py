"""What a tier of the store is: a name, room, and the links that KV in it goes over beside the host link. Names say nothing else."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Wires:
    """Both directions of a link, or of all links that work as one."""

    read_bytes_per_s: float
    """Towards the GPU."""
    write_bytes_per_s: float
    latency_s: float
    """Per transfer."""

    def seconds(self, size: int) -> float:
        """Of a transfer towards the GPU."""
        return size / self.read_bytes_per_s + self.latency_s

    def times(self, share: float) -> "Wires":
        """With so much of the bandwidth."""
        return Wires(share * self.read_bytes_per_s, share * self.write_bytes_per_s, self.latency_s)

    def at_most(self, bytes_per_s: float) -> "Wires":
        """With no more bandwidth than that, either way."""
        return Wires(min(self.read_bytes_per_s, bytes_per_s), min(self.write_bytes_per_s, bytes_per_s), self.latency_s)


@dataclass(frozen=True)
class TierSpec:
    """One tier of one replica's store."""

    name: str
    capacity: int
    """Bytes of KV, as HBM has it and stored once; so is what is counted of it everywhere, but where it says so."""
    reserve: int
    """Bytes that demotion keeps free."""
    own: Wires | None = None
    """Its own links, read beside the host link (drives); None for what the host link reaches at once (DRAM), and for HBM."""
    on_device: bool = False
    """KV here is where the GPU reads it: no link is in between (HBM)."""
    copies: float = 1.0
    """Bytes that it takes for a byte of KV: in HBM, ranks hold copies of what they do not split; below, its dtype may be narrower, and
    connectors may keep the copies too."""
    kv_dtype: str = ""
    """Of KV here, where it is not that of HBM."""
    objects: bool = False
    """Whether it knows chunks of blocks one by one, and no contexts."""
    usd_per_byte_s: float | None = None
    """What it costs, where that is no matter of the price list."""

    @property
    def size(self) -> int:
        """Its own bytes."""
        return self.taken(self.capacity)

    def taken(self, size: int) -> int:
        """Bytes that so many bytes of KV take here, and over the links to here and from here."""
        return size if self.copies == 1.0 else round(self.copies * size)

    @property
    def over_host_link_alone(self) -> bool:
        """Whether KV comes from here over the host link and no other."""
        return self.own is None and not self.on_device

    def read_bytes_per_s(self, host_bytes_per_s: float) -> float:
        """How fast the GPU reads KV from here over idle links, of which the host's gives `host_bytes_per_s`."""
        if self.on_device:
            return math.inf
        return (host_bytes_per_s if self.own is None else min(host_bytes_per_s, self.own.read_bytes_per_s)) / self.copies


def fetch_target(tiers: Sequence[TierSpec]) -> int | None:
    """Index of the tier that KV is fetched into ahead of its job: the last one that the host link reaches at once, if any tier is below."""
    staging = [index for index, tier in enumerate(tiers[:-1]) if tier.over_host_link_alone]
    return staging[-1] if staging else None
