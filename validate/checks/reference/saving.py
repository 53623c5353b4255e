"""The KV of ended jobs goes to the store, and the GPU waits for it where it must."""

from kvplan.sim.deployment import Deployment
from kvplan.validate.checks.reference.links import Links, Wire
from kvplan.validate.checks.reference.spans import Span
from kvplan.validate.checks.reference.store import Store, Tier
from kvplan.validate.checks.reference.turns import Turn


class Saving:
    """That of one replica."""

    def __init__(self, deployment: Deployment, store: Store, links: Links) -> None:
        self.deployment, self.store, self.links = deployment, store, links
        self.sizes = store.sizes
        self.early: dict[int, int] = {}  # per session: bytes that synchronous saving copied after its prefill
        self.stall_until_s = 0.0
        self.skipped = 0

    def save(self, turn: Turn, now: float) -> None:
        """The answer is out."""
        store, size = self.store, self._kept(turn)
        if not size:
            return
        store.offered.append(size)
        for tier in store.tiers:
            missing, new = size - tier.held[turn.session], self.sizes.written(tier.held[turn.session], size)
            if size > tier.capacity:
                continue
            if self._below(tier, size) and self._wait_s(turn, tier.sent(new), now) > self._again_s(new):
                break
            if store.make_room(tier, missing, now):
                self._keep(turn, tier, missing, new, now)
                store.seen["saves into SSD below DRAM"] += tier is not store.tiers[0]
                return
            tier.reserve = max(tier.reserve, min(missing, tier.capacity // 2))
        self.skipped += 1
        store.seen["skipped saves"] += 1

    def _kept(self, turn: Turn) -> int:
        """Bytes that are saved of all that there is: whole blocks, and of the answer nothing where that is the connector's way."""
        connection = self.deployment.connection
        tokens = turn.context if connection.saves_answers else turn.context - turn.output_tokens
        return self.sizes.stored[tokens // connection.block * connection.block]

    def _below(self, tier: Tier, size: int) -> bool:
        """Whether an asynchronous save has come to this tier for want of room above."""
        first = self.store.tiers[0]
        return size <= first.capacity and tier is not first and self.store.settings.save == "async"

    def _keep(self, turn: Turn, tier: Tier, missing: int, new: int, now: float) -> None:
        """`new` bytes come, `missing` more than go."""
        session, store = turn.session, self.store
        tier.put(session, missing, now)
        store.home[session] = tier
        for above in store.tiers[: store.tiers.index(tier)]:
            above.cut(session, above.held[session], now)
        if store.settings.ssd_write == "whole":
            store.leave_below(session, tier, now)
        links = self.links.down_to(tier.name)
        if not missing:
            return
        if store.settings.save == "sync":
            self._save_rest(session, tier, links, new, now)
            tier.came.append((Span(now, max(link.free_s for link in links), tier.sent(new)), new))
        else:
            tier.came.append((self._save_behind(turn, tier, links, new, now), new))

    def _save_behind(self, turn: Turn, tier: Tier, links: list[Wire], missing: int, now: float) -> Span:
        """Asynchronous: since the job was admitted; returns the transfer that ends last."""
        transfers = [link.send(turn.since_s, tier.sent(missing)) for link in links]
        token = tier.sent(self.sizes.stored[1])
        self.store.ready_s[turn.session] = max(
            *(transfer.end_s for transfer in transfers), *(now + token / link.bandwidth for link in links)
        )
        for link, transfer in zip(links, transfers, strict=True):
            self.stall_until_s = max(self.stall_until_s, transfer.end_s - self.deployment.write_buffer / link.bandwidth)
        return max(transfers, key=lambda transfer: transfer.end_s)

    def save_early(self, turn: Turn, now: float) -> None:
        """Synchronous saving, after a prefill: the GPU waits until the first tier has what is new."""
        if self.store.tiers and self.store.settings.save == "sync":
            first, block = self.store.tiers[0], self.deployment.connection.block
            self.early[turn.session] = self.sizes.stored[turn.context // block * block - turn.loaded]
            if self.early[turn.session]:
                self._wait_for(self.links.down_to(first.name), first.sent(self.early[turn.session]), now)

    def _save_rest(self, session: int, tier: Tier, links: list[Wire], missing: int, now: float) -> None:
        """Synchronous saving, after the answer: links that have had the prompt's KV take the answer's, others take all."""
        for link in links:
            had = self.early[session] if link in self.links.down_to(self.store.tiers[0].name) else 0
            self._wait_for([link], tier.sent(self.sizes.written(had, missing)), now)

    def _wait_for(self, links: list[Wire], size: int, now: float) -> None:
        self.stall_until_s = max(self.stall_until_s, *(link.send(now, size).end_s for link in links))
        self.store.seen["copies that the GPU waits for"] += 1

    def wait_for_room(self, left: int, now: float) -> None:
        """A job that fits leaves so many bytes of HBM to KV that is not saved yet; the GPU waits until they are enough."""
        links = self.links.down_to(self.store.tiers[-1].name)
        room_s = max(link.free_s - left / link.bandwidth for link in links)
        self.store.seen["waits for room that unsaved KV takes"] += room_s > max(now, self.stall_until_s)
        self.stall_until_s = max(self.stall_until_s, room_s)

    def _wait_s(self, turn: Turn, size: int, now: float) -> float:
        """How long the GPU would have to wait for a save of so many bytes to SSD."""
        seconds = [
            link.start_s(turn.since_s) + link.latency_s + (size - self.deployment.write_buffer) / link.bandwidth - now
            for link in self.links.down_to("ssd")
        ]
        return max(seconds)

    def _again_s(self, size: int) -> float:
        """How long the GPU would compute KV of so many bytes."""
        return self.deployment.steps.prefill(self.sizes.tokens(size), 0)
