"""The store of an engine that drops the KV of every turn at its end."""

from kvplan.sim.store.protocol import ALL, Move, Spills, Store, Useful, always
from kvplan.sim.store.tier import Tier


class Nothing(Store):
    """A store without tiers."""

    def __init__(self) -> None:
        self.tiers: list[Tier] = []
        self.fetch_target: int | None = None
        self.skipped_saves = 0
        self.moved: list[int] = []

    def lookup(self, session: int) -> tuple[int, int]:
        return -1, 0

    def arrived(self, session: int) -> tuple[int, int]:
        return -1, 0

    def bytes_to_come(self, session: int) -> int:
        return 0

    def come(self, session: int, now: float, useful: Useful = ALL) -> None:
        """Nobody is missed."""

    def expect(self, session: int, position: float) -> None:
        """There is nothing to bring."""

    def announce(self, session: int) -> None:
        """There is nothing to bring."""

    def claim(self, session: int, now: float, useful: Useful = ALL) -> tuple[int, int]:
        return -1, 0

    def keep_only(self, session: int, now: float, useful: Useful) -> None:
        """There is nothing to drop."""

    def load(self, session: int, size: int, now: float) -> int | None:
        return None

    def save(self, session: int, size: int, now: float, spills: Spills = always) -> tuple[int, int]:
        return -1, 0

    def release(self, session: int, now: float) -> None:
        """There is nothing to let go."""

    def next_fetch(self, now: float) -> Move | None:
        return None

    def next_demotion(self, source: int, now: float) -> Move | None:
        return None

    def end_move(self, move: Move, now: float, sent: int | None = None) -> None:
        """Nothing moves."""
