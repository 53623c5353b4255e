"""Links: transfers that jobs wait for, one after the other, and a slow one in between."""

from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.spans import Span, done


class Wire:
    """One direction of a link."""

    def __init__(self, name: str, bandwidth: float, latency_s: float, piece: int) -> None:
        self.name, self.bandwidth, self.latency_s, self.piece_s = name, bandwidth, latency_s, piece / bandwidth
        self.free_s = self.slow_start_s = 0.0
        self.sent: list[Span] = []  # what jobs waited for
        self.slow: list[Span] = []  # the others, of which the last one may be under way

    @property
    def slow_end_s(self) -> float:
        return self.slow[-1].end_s if self.slow else 0.0

    def start_s(self, ready_s: float) -> float:
        start = max(ready_s, self.free_s)
        if max(self.free_s, self.slow_start_s) < start < self.slow_end_s:
            boundary = self.slow_start_s
            while boundary < start:
                boundary += self.piece_s
            start = min(boundary, self.slow_end_s)
        return start

    def send(self, ready_s: float, size: int) -> Span:
        start, seconds = self.start_s(ready_s), self.latency_s + size / self.bandwidth
        if start < self.slow_end_s:
            late = seconds if start >= self.slow_start_s else max(0.0, start + seconds - self.slow_start_s)
            self.slow_start_s += late
            self.slow[-1].end_s += late
        return self.take(Span(start, start + seconds, size))

    def take(self, transfer: Span) -> Span:
        """A transfer whose times are known."""
        self.free_s = transfer.end_s
        self.sent.append(transfer)
        return transfer

    def send_slowly(self, now: float, size: int) -> Span:
        self.slow_start_s = start = max(now, self.free_s)
        self.slow.append(Span(start, start + self.latency_s + size / self.bandwidth, size, self.sent))
        return self.slow[-1]

    def bytes(self, now: float) -> float:
        """Those that have gone over it."""
        return done([*self.sent, *self.slow], now)

    def busy_s(self, now: float) -> float:
        """What its transfers take at its own pace, of those that have gone over it."""
        return sum((self.latency_s + one.amount / self.bandwidth) * one.share(now) for one in [*self.sent, *self.slow])


class Links:
    """The four of a replica."""

    def __init__(self, deployment: Deployment) -> None:
        host_s, ssd_s, piece = deployment.host.latency_s, deployment.drive_links.latency_s, deployment.piece
        self.h2d = Wire("host_to_device", deployment.host.read_bytes_per_s, host_s, piece)
        self.d2h = Wire("device_to_host", deployment.host.write_bytes_per_s, host_s, piece)
        self.ssd_read = Wire("ssd_read", deployment.drive_links.read_bytes_per_s, ssd_s, piece)
        self.ssd_write = Wire("ssd_write", deployment.drive_links.write_bytes_per_s, ssd_s, piece)
        self.all = [self.h2d, self.d2h, self.ssd_read, self.ssd_write]

    def down_to(self, tier: str) -> list[Wire]:
        """What a save goes over."""
        return [self.d2h] if tier == "dram" else [self.d2h, self.ssd_write]
