"""What a policy is: an order or a choice, and nothing else.

The store owns bytes, membership, pins and the evict loop; the engine owns time. A policy is told what happens and is asked what should
come next. No call may cost more than O(log n), and no question may change what a caller can see.

A policy is made with a view of what it may look at. `NEEDS` declares what of it the policy uses beyond what is always there; what nobody
needs is not worked out:

- `queue`: places in the job queue, and word of their changes;
- `costs`: seconds to recompute and to load a session's KV;
- `future`: when a session's next turn will come, which no real server knows: for bounds;
- `tenant`: whose session it is;
- `step_tokens`, `prefill_tokens`: the settings of that name, for batching.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, Protocol, get_args

from mypy_extensions import mypyc_attr

Admission = Literal["answer", "prompt", "share"]
"""What of a job must have room in HBM when it enters."""
ADMISSIONS = get_args(Admission)
LIMITS = ("step_tokens", "prefill_tokens")
NEEDS = ("queue", "costs", "future", "tenant", *LIMITS)
OPTIONAL = ("use", "expect", "set_aside", "restore", "patience_s", "update", "done", "wrote")
"""Calls that a policy need not define; all others it must."""


@mypyc_attr(allow_interpreted_subclasses=True)
class View(ABC):
    """What an eviction policy may look at. Sessions are those in its tier."""

    capacity: int
    """Bytes of the tier."""
    is_last: bool
    """Whether what leaves the tier is lost: no tier below takes it."""

    @abstractmethod
    def size(self, session: int) -> int:
        """Bytes that the tier holds of the session."""

    @abstractmethod
    def now_s(self) -> float:
        """Simulated time; in a replay, the time of the access."""

    @abstractmethod
    def position(self, session: int) -> float | None:
        """Place of the session's waiting job in the queue: smaller is sooner; None when no job waits. Needs `queue`."""

    @abstractmethod
    def recompute_s(self, session: int) -> float:
        """Seconds to prefill the tokens whose KV the tier holds. Needs `costs`."""

    @abstractmethod
    def load_s(self, session: int) -> float:
        """Seconds to bring the KV from this tier to the GPU over idle links. Needs `costs`."""

    @abstractmethod
    def next_use_s(self, session: int) -> float:
        """When the session's next turn comes, or came if it waits; infinity when there is none. Needs `future`.

        In a closed loop it is known once the turn before has ended.
        """

    @abstractmethod
    def tenant(self, session: int) -> int:
        """Number of the session's tenant, 0 when there are none. Needs `tenant`."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Eviction(ABC):
    """The order in which a tier's sessions leave it. One instance per tier."""

    NAME: ClassVar[str]
    NEEDS: ClassVar[frozenset[str]] = frozenset()
    MAY_REFUSE: ClassVar[bool] = False
    """Whether the policy may keep all that a tier holds, and name no victim though there are sessions; what is new is not kept then."""

    def __init__(self, view: View) -> None:
        self.view = view

    @abstractmethod
    def insert(self, session: int) -> None:
        """The session was stored in the tier, and joins the order."""

    @abstractmethod
    def remove(self, session: int) -> None:
        """A session of the order has left the tier."""

    @abstractmethod
    def victim(self) -> int | None:
        """The session of the order that should leave the tier next; None when the order is empty (but see MAY_REFUSE). Changes nothing that
        a caller can see."""

    def use(self, session: int) -> None:
        """A turn of a session of the order has ended, and it was in the tier when the turn came: no job of it waits. By default nothing
        changes."""

    def expect(self, session: int) -> None:
        """A job of a session of the order has joined the queue, or has another place in it. For those who need `queue`."""

    def set_aside(self, session: int) -> None:
        """A session of the order is in use just when it should leave: it leaves the order, until `restore`."""
        self.remove(session)

    def restore(self, session: int) -> None:
        """A session that was set aside may leave the tier again."""
        self.insert(session)


@mypyc_attr(allow_interpreted_subclasses=True)
class Queue(ABC):
    """What a policy may see of the job queue."""

    @abstractmethod
    def position_at(self, index: int) -> float | None:
        """Position of the job that is `index` places behind the head, None when fewer wait."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Prefetch(ABC):
    """Which session to bring from SSD to DRAM next, ahead of its job, and how long the job waits for that."""

    NAME: ClassVar[str]
    FETCHES: ClassVar[bool] = True
    """Whether it ever names a session: `next` is asked."""
    LOADS_LATE: ClassVar[bool] = True
    """Whether a job that starts before all its KV has come from SSD loads the rest on its way; else it recomputes the rest."""
    LEAD_S: ClassVar[float] = 0.0
    """Word of a turn comes this many seconds ahead of it (or when the one before has ended, if that is later). 0: with the turn."""
    HOLDS: ClassVar[bool] = False
    """Whether jobs may be held back for their KV: `patience_s` is asked."""

    @abstractmethod
    def want(self, session: int, position: float | None) -> None:
        """The session's KV lies on SSD, and its job waits at this position; None when the job is only announced."""

    @abstractmethod
    def drop(self, session: int) -> None:
        """No longer: the job has started, or the KV has moved or gone. Also called for sessions never wanted."""

    @abstractmethod
    def next(self, queue: Queue, room: float) -> int | None:
        """The session to fetch now, None to wait. `room`: mean-sized sessions that DRAM can hold ahead of their jobs."""

    def patience_s(self, tokens: int) -> float:
        """Seconds that a job is held back for `tokens` tokens that must come from SSD, from its arrival on. 0: not at all.

        For those that set `HOLDS`.
        """
        return 0.0


@mypyc_attr(allow_interpreted_subclasses=True)
class JobView(ABC):
    """What a scheduler may look at."""

    @abstractmethod
    def now_s(self) -> float:
        """Simulated time."""

    @abstractmethod
    def new_tokens(self, turn: int) -> int:
        """Prompt tokens of the turn itself."""

    @abstractmethod
    def history_tokens(self, turn: int) -> int:
        """Tokens of its session's history."""

    @abstractmethod
    def cached_tokens(self, turn: int) -> int:
        """Tokens of the history whose KV the store holds, in whichever tier."""

    @abstractmethod
    def is_ready(self, turn: int) -> bool:
        """Whether all KV that the store holds for the turn is in DRAM or above."""

    @abstractmethod
    def prefill_s(self, turn: int) -> float:
        """Seconds to prefill what is not cached."""

    @abstractmethod
    def tenant(self, turn: int) -> int:
        """Number of the session's tenant, 0 when there are none."""

    @abstractmethod
    def weight(self, turn: int) -> float:
        """Its tenant's weight, 1 when nothing is said."""

    @abstractmethod
    def tenant_rank(self, turn: int) -> int:
        """How many different weights are above its tenant's."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Scheduler(Queue):
    """The queue of waiting jobs (turns), and who is next."""

    NAME: ClassVar[str]
    FOLLOWS_KV: ClassVar[bool] = False
    """Whether `update` is called when the KV of a waiting turn moves between tiers or is lost."""
    LEARNS: ClassVar[bool] = False
    """Whether `done` is called when a turn has ended."""

    def __init__(self, view: JobView) -> None:
        self.view = view

    @abstractmethod
    def push(self, turn: int) -> float:
        """A turn starts to wait; returns its position.

        A scheduler that follows the KV is also given back a turn that it has popped, when it was held for its KV and need not be any more.
        """

    @abstractmethod
    def head(self) -> int | None:
        """The turn to admit next, None when nobody waits."""

    @abstractmethod
    def pop(self) -> int:
        """Removes and returns the head."""

    @abstractmethod
    def __len__(self) -> int:
        """Waiting turns."""

    def update(self, turn: int) -> float:
        """The KV of a waiting turn has moved; returns its position now. For those that set `FOLLOWS_KV`."""
        raise NotImplementedError

    def done(self, turn: int, output_tokens: int) -> None:
        """A turn has ended, with an answer of so many tokens. For those that set `LEARNS`."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Write(ABC):
    """What goes down a tier: at once, when it must make room, or never."""

    NAME: ClassVar[str]

    def __init__(self, rated_bytes_per_s: float) -> None:
        self.rated_bytes_per_s = rated_bytes_per_s
        """What the SSD may be written on average to last its rated life; infinite without SSD."""

    @abstractmethod
    def copies(self, session: int, uses: int) -> bool:
        """A turn of the session has ended and its KV is stored: whether the tier below gets a copy now. `uses`: its turns so far."""

    @abstractmethod
    def demotes(self, session: int, uses: int, size: int, now_s: float) -> bool:
        """The session must make room: whether the `size` bytes that the tier below lacks are written there; else they are lost."""

    def wrote(self, size: int, now_s: float) -> None:
        """`size` bytes begin to be written to a tier below. By default nothing changes."""


@mypyc_attr(allow_interpreted_subclasses=True)
class LoadView(ABC):
    """One job that is about to start, and what its ways to get its history take. Seconds count from now."""

    cached: int
    """Tokens of the history whose KV can be loaded."""
    new: int
    """Tokens that must be prefilled in any case."""
    rest_s: float
    """Seconds to prefill those, after all of the history that can be loaded."""
    block: int = 1
    """Tokens that are loaded together or not at all; `cached` is so many whole ones."""

    @abstractmethod
    def prefill_s(self, new: int, history: int) -> float:
        """Seconds to prefill `new` tokens after `history` tokens whose KV is in HBM."""

    @abstractmethod
    def load_s(self, tokens: int) -> float:
        """Seconds until the KV of so many tokens has been loaded, links as busy as they are."""

    @abstractmethod
    def layerwise_s(self, tokens: int) -> float:
        """Seconds until the job is prefilled when its first `tokens` tokens are loaded under the prefill of the rest."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Load(ABC):
    """How much of the cached history a job loads; it recomputes the rest."""

    NAME: ClassVar[str]

    @abstractmethod
    def loads(self, job: LoadView) -> tuple[int, float, float]:
        """(tokens to load, GPU seconds of prefill, seconds until the prefill is done); 0 <= tokens <= job.cached, in whole blocks."""


class Prefilling(Protocol):
    """A job that is in the batch and has no first token yet."""

    @property
    def turn(self) -> int:
        """Its turn."""

    @property
    def left(self) -> int:
        """Tokens that are still to be prefilled."""


class BatchView(Protocol):
    """The jobs that a replica runs, between two steps."""

    @property
    def prefilling(self) -> Sequence[Prefilling]:
        """In the order in which they entered."""

    @property
    def decoding(self) -> int:
        """Jobs that can get one more token with each step."""

    @property
    def context(self) -> int:
        """Tokens, summed over those."""


Chunks = tuple[tuple[Prefilling, int], ...]
"""(job, tokens) of jobs that are prefilled, or go on being so: from 1 token to all that are left."""


class Step(NamedTuple):
    """What the GPUs do in one step."""

    chunks: Chunks
    decodes: bool
    """Whether every decoding job gets its next token. Steps of nothing else go on until a job ends, or one could enter."""


class Limits(NamedTuple):
    """What a batching policy may know of the server. Of what is None the policy has a default of its own."""

    gpu: str
    """Name of the GPUs."""
    gpu_bytes: int
    """Memory of one of them."""
    step_tokens: int | None = None
    """Tokens of a step."""
    prefill_tokens: int | None = None
    """Tokens up to which prompts share a step."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Batching(ABC):
    """What the next step of a replica holds. Both questions are asked between steps, and change nothing."""

    NAME: ClassVar[str]
    NEEDS: ClassVar[frozenset[str]] = frozenset()
    RESERVES: ClassVar[Admission] = "answer"
    """The HBM that a job must find to enter: of its whole answer; of its prompt alone; or of its answer beside a share of what the others'
    may still take. With the latter two jobs give way where answers outgrow HBM. What `deployment.admission` is, where nobody says it."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    @abstractmethod
    def admits(self, batch: BatchView) -> bool:
        """Whether one more job may enter. Asked again after each, as long as the head of the queue has a place and room in HBM."""

    @abstractmethod
    def step(self, batch: BatchView) -> tuple[Chunks, bool]:
        """The next step, of a batch that is not empty: a `Step`, or its two parts. Not asked where none is to be prefilled: all decode."""


@mypyc_attr(allow_interpreted_subclasses=True)
class RouterView(ABC):
    """What a router may look at. Replicas are numbered from 0."""

    replicas: int
    """How many there are."""

    @abstractmethod
    def now_s(self) -> float:
        """Simulated time."""

    @abstractmethod
    def waiting(self, replica: int) -> int:
        """Turns that wait there."""

    @abstractmethod
    def running(self, replica: int) -> int:
        """Turns that were admitted there and have not ended."""

    @abstractmethod
    def hbm_bytes(self, replica: int) -> int:
        """HBM that these take."""

    @abstractmethod
    def cached_tokens(self, replica: int, session: int) -> int:
        """Tokens of the session's history whose KV the replica's store holds, in whichever tier."""

    @abstractmethod
    def history_tokens(self, session: int) -> int:
        """Tokens of its history, before truncation to the window."""

    @abstractmethod
    def new_tokens(self, turn: int) -> int:
        """Prompt tokens of the turn itself."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Router(ABC):
    """Which replica a turn goes to when it comes. One instance for all replicas."""

    NAME: ClassVar[str]
    STICKY: ClassVar[bool] = False
    """Whether a session is only ever on one replica. If not, each replica's store keeps what KV of the session its own turns left."""
    FIXED: ClassVar[bool] = False
    """Whether the answer follows from the session's number and the number of replicas, so that it is known without a run. STICKY then."""

    def __init__(self, view: RouterView) -> None:
        self.view = view

    @abstractmethod
    def route(self, session: int, turn: int) -> int:
        """The replica for a turn of the session that comes now. Called once for every turn."""
