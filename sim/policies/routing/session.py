"""By session: each replica gets every n-th session, with all its turns."""

from mypy_extensions import mypyc_attr

from kvplan.sim.policies.base import Router


@mypyc_attr(allow_interpreted_subclasses=True)
class BySession(Router):
    """O(1). The hash of a session key in front of real servers; here sessions are numbered, and dealt out evenly."""

    NAME = "session"
    STICKY = True
    FIXED = True

    def route(self, session: int, turn: int) -> int:
        return session % self.view.replicas
