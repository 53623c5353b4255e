"""The jobs that run: their rows in the working caches, and the HBM that is reserved for them."""

from kvplan.validate.miniserver.device import Job
from kvplan.validate.miniserver.texts import Fitted


class Batch:
    """As many jobs as there are rows, and as their KV at its longest fits."""

    def __init__(self, rows: int, hbm_budget: int) -> None:
        self._rows, self._budget = list(range(rows)), hbm_budget
        self._reserved: dict[int, int] = {}
        """HBM bytes by turn."""
        self.running: list[Job] = []
        """Those that decode."""

    @property
    def hbm_used(self) -> int:
        """Bytes of the KV that all jobs will have in the end."""
        return sum(self._reserved.values())

    def has_room(self, fitted: Fitted) -> bool:
        """Whether another job can start."""
        return bool(self._rows) and fitted.hbm_bytes <= self._budget - self.hbm_used

    def enter(self, turn: int, session: int, fitted: Fitted) -> Job:
        """A job starts with its prefill."""
        self._reserved[turn] = fitted.hbm_bytes
        return Job(turn, session, self._rows.pop(), cached=0, left=fitted.output)

    def leave(self, job: Job) -> None:
        """A job has ended."""
        self._rows.append(job.row)
        del self._reserved[job.turn]

    def take_ended(self) -> list[Job]:
        """Those whose answers are complete decode no more."""
        ended = [job for job in self.running if not job.left]
        self.running = [job for job in self.running if job.left]
        return ended
