"""What eviction policies share that keep sessions in several lists with bounds in bytes, or remember those that left (ghosts)."""

from collections import OrderedDict

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Eviction, View


class Segment:
    """Sessions in order, with their bytes as they were when the policy last heard of them. O(1) per call, trimming amortised.

    Sessions that are set aside are out of the order, but their bytes count. They are first again when they are restored, since first they
    were when they should have left.
    """

    def __init__(self) -> None:
        self.bytes = 0
        """Bytes of all its sessions."""
        self._order: OrderedDict[int, int] = OrderedDict()
        self._aside: dict[int, int] = {}

    def append(self, session: int, size: int) -> None:
        """Adds a session at the end."""
        self._order[session] = size
        self.bytes += size

    def remove(self, session: int) -> int:
        """Removes a session of the order; returns its bytes."""
        size = self._order.pop(session)
        self.bytes -= size
        return size

    def resize(self, session: int, size: int) -> None:
        """A session of the order has `size` bytes now; its place stays."""
        self.bytes += size - self._order[session]
        self._order[session] = size

    def trim(self, limit: float) -> None:
        """Removes the first ones until no more than `limit` bytes are left."""
        while self._order and self.bytes > limit:
            self.bytes -= self._order.popitem(last=False)[1]

    def first(self) -> int | None:
        """The first session of the order."""
        return next(iter(self._order), None)

    def set_aside(self, session: int) -> None:
        """Takes a session out of the order."""
        self._aside[session] = self._order.pop(session)

    def restore(self, session: int) -> None:
        """Takes a session that was set aside back into the order."""
        self._order[session] = self._aside.pop(session)
        self._order.move_to_end(session, last=False)

    def __contains__(self, session: int) -> bool:
        return session in self._order


@mypyc_attr(allow_interpreted_subclasses=True)
class Segmented(Eviction):
    """Each session of the tier is in one segment, and stays there while it is set aside."""

    def __init__(self, view: View) -> None:
        super().__init__(view)
        self._segment: dict[int, Segment] = {}

    def _put(self, session: int, segment: Segment) -> None:
        """Moves a session to the end of a segment, with the bytes that it has now."""
        if session in self._segment:
            self._segment[session].remove(session)
        segment.append(session, self.view.size(session))
        self._segment[session] = segment

    def set_aside(self, session: int) -> None:
        self._segment[session].set_aside(session)

    def restore(self, session: int) -> None:
        self._segment[session].restore(session)
