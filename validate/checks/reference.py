"""A second simulator, slow and plain: one decode step at a time, scanning queue and store for every decision.

It is written from the specification (DESIGN.md and the CachedAttention paper) and shares no code with `sim`'s engine, store and policies:
no event heap, no closed forms, no orders kept up to date. What a configuration means in seconds and bytes (`StepTime`, `Deployment`) is
common to both. `kvplan validate reference` compares the two, event by event, on random small cases.

It covers DRAM and SSD, each of which can be off; first come, first served; eviction `lru`, `fifo`, `lookahead`; prefetch `none`,
`lookahead`; layer-wise pre-loading; asynchronous and synchronous saving; write-back of deltas and of whole sessions; truncation with
decoupled and embedded positions; TTLs; turns that drop history; several replicas; clients of load tests. `NOT_JUDGED` is what it does not
know, so that nothing here speaks for that. What the specification leaves open:

- *Equal times.* Moves end first (the fetch before the demotion), then turns arrive (in the order in which that became known; a session
  becomes known when the one before it comes), then the GPU's step ends. Turns that end in one step end in the order of the workload. A turn
  whose time has come when its predecessor ends joins the queue within that step. Steps of several replicas: the first replica's first.
- *A client's turns.* An answer makes turns ready (a round's in the order of the answers), and then what may be sent is, before the next
  answer of that step. Of n turns that are ready in a row, random order takes the one at n times the next number drawn, rounded down, and
  the last one takes its place. Turns that become ready by themselves, and a pace that allows one, are arrivals as far as equal times go.
- *Moves start*, the fetch first and one of each at a time, when a move ends; when a turn joins the queue and nothing is being fetched; and
  after a step, when a turn was admitted or has ended since the last one.
- *A fetch* is of the foremost of the first L_pw = C_mem / S_kv waiting jobs whose KV is on SSD and fits beside DRAM's reserve, if there
  is room. C_mem is DRAM less its reserve less what running sessions hold there; S_kv is the mean of all sizes offered for saving. What is
  fetched for waiting jobs stays within C_mem. A fetch whose KV becomes void on the way goes on, for nobody.
- *Room* for a save, a fetch or KV that was loaded from SSD is free, or is given up at once from the head of the order: in DRAM by sessions
  of which SSD has all; it ends at the first that cannot, and those before it have left. In the last tier any can, but none does when all
  together are not enough. For a fetch, and for a demotion that only a fetch asks for, it also ends at a session whose job comes sooner than
  the one fetched for.
- *A demotion* is due when less than the reserve is free, or less than a fetch waits for. Where SSD cannot make room, what it lacks of the
  session is lost.
- *A save larger than DRAM* goes to SSD. So does one without room in DRAM, unless the GPU would have to wait for longer than computing
  that KV again takes; then it is skipped. The reserve of a tier that had no room grows to what was missing, up to half of the tier.
- *Order.* A session is used when its turn ends, in each tier that holds some of it, and in SSD when it is demoted and nothing of it was
  there. It came to a tier at the first of these. What moves, runs, or was fetched for a waiting job does not leave.
- *Links* take their latency once per transfer, and per layer for a load. KV that a job must have from SSD waits for the piece of a fetch
  that is under way, and delays the rest of it; it takes the slower link's time per layer, and the faster one's for one layer more. KV that
  is being fetched when its job starts comes in even layers until the fetch ends.
- *Synchronous saving* copies what is new after the prefill, and the answer's KV at its end; what waits or runs stalls until then. Where the
  save goes to another tier than the first, its links have had nothing yet.
- *A TTL* counts from a turn's end to the next one's arrival, over when more has passed. KV leaves when any turn comes or starts after
  that; what moves, once it has arrived, and when its own turn comes.
- *A turn that drops history* cuts every copy to what it goes on from when it comes.
- *Saving* starts when the job is admitted and ends a token's transfer after its last step at the earliest. The GPU then stalls until the
  write buffer can hold what is left of all saves.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kvplan.sim.config import Clients, Config
from kvplan.sim.deployment import Deployment
from kvplan.traces import Workload

NOBODY = -1
NOT_JUDGED = (
    "an HBM tier",
    "schedulers other than fcfs",
    "evictions other than lru, fifo and lookahead",
    "prefetching other than lookahead",
    "write policies other than back",
    "load policies other than always",
    "preload: none",
    "the warm-up cut",
)
"""What the engine does and the reference does not."""


@dataclass(eq=False)
class Turn:
    """What comes, and what becomes of it, under the names of `Result.columns`."""

    session: int
    prompt: int
    output: int
    arrival_s: float
    gap_s: float
    dropped: int
    """Tokens of its session's history, the newest, that it does not go on from."""
    place: int
    """In its session, from 0."""
    following: "Turn | None" = None
    ready_s: float = math.nan
    """When a client could send it."""
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    done_s: float = math.nan
    stall_s: float = 0.0
    history_tokens: int = 0
    cached_tokens: int = 0
    tier: int = -1
    overflow: bool = False
    context: int = 0
    """Tokens so far, `left` those of the answer to come."""
    left: int = 0


class Tier:
    """Bytes by session, and the stamps that they leave by: of their last use, or of when they came."""

    def __init__(self, name: str, capacity: int, reserve: int) -> None:
        self.name, self.capacity, self.reserve = name, capacity, reserve
        self.held: Counter[int] = Counter()
        self.stamp: Counter[int] = Counter()
        self.written = 0
        self.saves: list[tuple[float, float, int]] = []

    def free(self) -> int:
        return self.capacity - sum(self.held.values())

    def put(self, session: int, size: int) -> None:
        self.held[session] += size
        self.written += size

    def cut(self, session: int, size: int) -> None:
        self.held[session] = max(0, self.held[session] - size)
        if not self.held[session]:
            del self.held[session], self.stamp[session]


class Wire:
    """One direction of a link: transfers that jobs wait for, one after the other, and a slow one in between."""

    def __init__(self, bandwidth: float, latency_s: float, piece: int) -> None:
        self.bandwidth, self.latency_s, self.piece_s = bandwidth, latency_s, piece / bandwidth
        self.free_s = self.slow_start_s = self.slow_end_s = 0.0
        self.bytes = self.slow_size = 0
        self.sent: list[tuple[float, float, int]] = []  # start, end and bytes of what jobs waited for

    def start_s(self, ready_s: float) -> float:
        start = max(ready_s, self.free_s)
        if max(self.free_s, self.slow_start_s) < start < self.slow_end_s:
            boundary = self.slow_start_s
            while boundary < start:
                boundary += self.piece_s
            start = min(boundary, self.slow_end_s)
        return start

    def send(self, ready_s: float, size: int) -> float:
        start, seconds = self.start_s(ready_s), self.latency_s + size / self.bandwidth
        if start < self.slow_end_s:
            late = seconds if start >= self.slow_start_s else max(0.0, start + seconds - self.slow_start_s)
            self.slow_start_s += late
            self.slow_end_s += late
        self.free_s = start + seconds
        self.sent.append((start, self.free_s, size))
        self.bytes += size
        return self.free_s

    def send_slowly(self, now: float, size: int) -> None:
        self.slow_start_s = max(now, self.free_s)
        self.slow_end_s = self.slow_start_s + self.latency_s + size / self.bandwidth
        self.slow_size = size
        self.bytes += size

    def slow_left(self, now: float) -> float:
        """Bytes of the slow transfer that are still to come."""
        seconds, left_s = self.slow_end_s - self.slow_start_s, self.slow_end_s - max(now, self.free_s)
        return self.slow_size * max(0.0, min(seconds, left_s)) / seconds if seconds else 0.0

    def done(self, now: float) -> float:
        """Bytes that have gone over the link."""
        return self.bytes - to_come(self.sent, now) - self.slow_left(now)


def to_come(transfers: list[tuple[float, float, int]], now: float) -> float:
    """Bytes of transfers, each at an even pace, that are still to come."""
    return sum(size * min(1.0, (end - now) / (end - start)) for start, end, size in transfers if end > now)


class Service:
    """One run: its turns, who sends them, and the replicas that they come to. `draw()`: the next number of the client's own stream."""

    def __init__(self, config: Config, deployment: Deployment, table: Workload, draw: Callable[[], float] = lambda: 0.0) -> None:
        dropped = np.zeros(table.turns, int) if table.dropped_tokens is None else table.dropped_tokens
        columns = (table.session, table.prompt_tokens, table.output_tokens, table.arrival_s, table.gap_s, dropped, table.turn)
        self.turns = [Turn(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]
        for turn, following in zip(self.turns, self.turns[1:], strict=False):
            turn.following = following if following.session == turn.session else None
        clients = config.workload.clients
        self.source = Arrivals(self, table.open_loop) if clients is None else Client(self, clients, draw)
        self.replicas = [Reference(config, deployment, self) for _ in range(config.deployment.replicas)]

    def run(self) -> "Service":
        while True:
            coming_s, replica = self.source.due_s(), min(self.replicas, key=lambda one: one.step_end_s)
            if min(coming_s, replica.step_end_s) == math.inf:
                return self
            if coming_s <= replica.step_end_s:
                self.source.happen(coming_s)
            else:
                replica.end_step(replica.step_end_s)

    def arrive(self, turn: Turn, now: float) -> None:
        self.replica_of(turn).arrive(turn, now)

    def replica_of(self, turn: Turn) -> "Reference":
        return self.replicas[turn.session % len(self.replicas)]


class Arrivals:
    """Sessions that come by themselves."""

    def __init__(self, service: Service, open_loop: bool) -> None:
        self.service, self.open_loop = service, open_loop
        self.firsts = sorted((turn for turn in service.turns if not turn.place), key=lambda turn: turn.arrival_s)
        self.coming = [self.firsts.pop(0)]  # known, but not yet here

    def due_s(self) -> float:
        return min((turn.arrival_s for turn in self.coming), default=math.inf)

    def happen(self, now: float) -> None:
        turn = min(self.coming, key=lambda turn: turn.arrival_s)
        self.coming.remove(turn)
        if not turn.place and self.firsts:
            self.coming.append(self.firsts.pop(0))
        self.service.arrive(turn, now)

    def ended(self, turn: Turn, now: float) -> None:
        following = turn.following
        if following is not None:
            following.arrival_s = following.arrival_s if self.open_loop else now + following.gap_s
            if following.arrival_s > now:
                self.coming.append(following)
            else:
                self.service.arrive(following, now)


class Client:
    """A closed population."""

    def __init__(self, service: Service, settings: Clients, draw: Callable[[], float]) -> None:
        self.service, self.settings, self.draw = service, settings, draw
        firsts = [turn for turn in service.turns if not turn.place]
        active = len(firsts) if settings.active is None else settings.active
        self.unopened = firsts[active:]
        self.ready: list[Turn] = []
        self.held: list[Turn] = []  # until their round begins
        self.sent: list[Turn] = []
        self.events = [(0.0, firsts[:active])]  # when, and who is ready then; nobody: the pace allows another turn

    def due_s(self) -> float:
        return min((when for when, _ in self.events), default=math.inf)

    def happen(self, now: float) -> None:
        event = next(event for event in self.events if event[0] == now)
        self.events.remove(event)
        self.be_ready(event[1], now)
        self.send(now)

    def ended(self, turn: Turn, now: float) -> None:
        if turn.following is not None:
            self.held.append(turn.following)
        elif self.unopened:
            self.be_ready([self.unopened.pop(0)], now)
        if not self.settings.barrier or all(one.done_s <= now for one in self.service.turns if one.place == turn.place):
            if self.settings.pause_s and self.held:
                self.events.append((now + self.settings.pause_s, self.held))
            else:
                self.be_ready(self.held, now)
            self.held = []
        self.send(now)

    def be_ready(self, turns: list[Turn], now: float) -> None:
        for turn in turns:
            turn.ready_s = now
            self.ready.append(turn)

    def send(self, now: float) -> None:
        while self.ready and self.may_send():
            allowed_s = self.sent[-1].arrival_s + 1 / self.settings.rate_per_s if self.sent and self.settings.rate_per_s else now
            if allowed_s > now:
                if (allowed_s, []) not in self.events:
                    self.events.append((allowed_s, []))
                return
            turn = self.next()
            turn.arrival_s = now
            self.sent.append(turn)
            self.service.arrive(turn, now)

    def may_send(self) -> bool:
        unanswered = sum(math.isnan(turn.done_s) for turn in self.sent)
        return self.settings.outstanding is None or unanswered < self.settings.outstanding

    def next(self) -> Turn:
        if self.settings.order == "random":
            place = int(self.draw() * len(self.ready))
            self.ready[place], self.ready[-1] = self.ready[-1], self.ready[place]
            return self.ready.pop()
        return self.ready.pop(0)


class Reference:
    """One replica. `seen` counts what happened, so that it can be shown that it did."""

    def __init__(self, config: Config, deployment: Deployment, service: Service) -> None:
        self.service, self.in_step = service, False
        self.config, self.deployment, self.steps = config, deployment, deployment.steps
        self.queue: list[Turn] = []
        self.batch: list[Turn] = []  # the last one may be in its prefill
        self.context: Counter[int] = Counter()  # per session: tokens of history
        self.ready_s: defaultdict[int, float] = defaultdict(float)  # per session: when its KV is complete where it is
        self.tiers = [Tier(*tier) for tier in deployment.tiers]
        self.home: dict[int, Tier] = {}  # per session: where its newest KV is
        self.idle_since: dict[int, float] = {}  # per session: the end of its last turn, until the next one comes
        self.early: dict[int, int] = {}  # per session: bytes that synchronous saving copied after its prefill
        self.h2d = Wire(deployment.host_to_device_bytes_per_s, deployment.host_link_latency_s, deployment.piece)
        self.d2h = Wire(deployment.device_to_host_bytes_per_s, deployment.host_link_latency_s, deployment.piece)
        self.ssd_read = Wire(deployment.ssd_read_bytes_per_s, deployment.ssd_latency_s, deployment.piece)
        self.ssd_write = Wire(deployment.ssd_write_bytes_per_s, deployment.ssd_latency_s, deployment.piece)
        self.fetching: int | None = None
        self.demoting: int | None = None
        self.starved: int | None = None  # waits for room to be fetched to
        self.fetched: list[int] = []  # sessions with KV that came, or comes, for a job that waits
        self.offered: list[int] = []  # bytes of each save, done or skipped
        self.doing, self.step_end_s, self.stall_until_s, self.head_since_s = "nothing", math.inf, 0.0, 0.0
        self.hbm_in_step = 0
        self.store_changed, self.stamps = False, 0
        self.seen: Counter[str] = Counter()

    def arrive(self, turn: Turn, now: float) -> None:
        self.end_moves(now)
        self.join(turn, now)
        if self.in_step:
            return
        if self.doing == "nothing":
            self.decide(now)
        if self.fetching is None:
            self.start_moves(now)

    def join(self, turn: Turn, now: float) -> None:
        self.expire(now, turn.session)
        self.idle_since.pop(turn.session, None)
        if turn.dropped:
            self.context[turn.session] = max(0, self.context[turn.session] - turn.dropped)
            self.keep_first(turn.session, self.context[turn.session] * self.deployment.kv_bytes)
            self.seen["turns that drop history"] += 1
        self.head_since_s = self.head_since_s if self.queue else now
        self.queue.append(turn)

    # --- the GPU --------------------------------------------------------------------------------------------------------------

    def decide(self, now: float) -> None:
        """What comes after a step."""
        self.doing, self.step_end_s = "nothing", math.inf
        admits = self.queue and len(self.batch) < self.config.deployment.max_batch and self.left(self.queue[0]) >= 0
        if admits and self.left(self.queue[0]) < self.deployment.write_buffer:
            links = [self.d2h] if self.tiers[-1].name == "dram" else [self.d2h, self.ssd_write]
            room_s = max(link.free_s - self.left(self.queue[0]) / link.bandwidth for link in links)
            self.seen["waits for room that unsaved KV takes"] += room_s > max(now, self.stall_until_s)
            self.stall_until_s = max(self.stall_until_s, room_s)
        if self.stall_until_s > now and (self.batch or self.queue):
            self.doing, self.step_end_s = "stall", self.stall_until_s
            self.seen["stalls for saving"] += 1
        elif admits:
            self.doing, self.step_end_s = "prefill", now + self.admit(self.queue.pop(0), now)
        elif self.batch:
            contexts = sum(turn.context for turn in self.batch)
            self.doing, self.step_end_s = "decode", now + self.steps.decode(len(self.batch), contexts)
        self.hbm_in_step = self.hbm_used()

    def end_step(self, now: float) -> None:
        self.end_moves(now)
        self.in_step = True
        if self.doing == "prefill":
            self.batch[-1].first_token_s = now
            self.save_early(self.batch[-1], now)
        advanced = {"stall": [], "prefill": self.batch[-1:], "decode": self.batch}[self.doing]
        for turn in sorted(advanced, key=self.service.turns.index):
            if turn.left:
                turn.context, turn.left = turn.context + 1, turn.left - 1
            if not turn.left:
                self.complete(turn, now)
        self.in_step = False
        self.decide(now)
        if self.store_changed:
            self.store_changed = False
            self.start_moves(now)

    def trimmed(self, turn: Turn) -> tuple[int, int, int]:
        """(history, prompt, output) that fit into the window: what is too much is cut from the history, its oldest share at a time."""
        history, prompt, output, window = self.context[turn.session], turn.prompt, turn.output, self.deployment.window
        if history + prompt + output > window:
            prompt = min(prompt, window - 1)
            output = min(output, window - prompt)
        while history + prompt + output > window:
            history -= math.ceil(history * self.config.deployment.truncation_ratio)
        return history, prompt, output

    def hbm_used(self) -> int:
        """Bytes of the KV that those that run will have in the end."""
        return sum(turn.context + turn.left for turn in self.batch) * self.deployment.hbm_kv_bytes

    def left(self, turn: Turn) -> int:
        """Bytes of HBM that are free beside this turn and those that run; negative when it does not fit."""
        return self.deployment.hbm_budget - self.hbm_used() - sum(self.trimmed(turn)) * self.deployment.hbm_kv_bytes

    def admit(self, turn: Turn, now: float) -> float:
        """The turn starts; returns the seconds of its prefill."""
        session, kept, kv = turn.session, self.context[turn.session], self.deployment.kv_bytes
        history, prompt, output = self.trimmed(turn)
        since, self.head_since_s, self.store_changed = self.head_since_s, now, True
        self.batch.append(turn)
        self.fetched = [other for other in self.fetched if other != session]
        self.expire(now)
        voids = history < kept and self.config.store.positions == "embedded"
        for tier in self.tiers:
            tier.cut(session, tier.held[session] if voids else (kept - history) * kv)
        if session in self.home and not self.home[session].held[session]:
            del self.home[session]
        if session not in self.home and self.fetching == session:
            self.fetching = NOBODY
        cached = self.home[session].held[session] // kv if session in self.home else 0
        compute = seconds = self.steps.prefill(prompt + history - cached, cached)
        if cached:
            turn.tier = self.tiers.index(self.home[session])
            seconds = self.load(session, cached * kv, compute, since, now)
        turn.admitted_s, turn.stall_s, turn.overflow = now, seconds - compute, history < kept
        turn.history_tokens, turn.cached_tokens, turn.context, turn.left = history, cached, history + prompt, output
        return seconds

    def load(self, session: int, size: int, compute: float, since: float, now: float) -> float:
        """Loads KV layer by layer under its prefill, from DRAM as early as the job headed the queue; returns the seconds to the prefill's
        end."""
        layers, ready = self.steps.layers, max(self.h2d.free_s, self.ready_s[session])
        each, delay, early = size / layers / self.h2d.bandwidth + self.h2d.latency_s, max(0.0, ready - now), 0.0
        if self.home[session].name == "dram":
            free = (
                (self.deployment.hbm_budget - self.hbm_in_step) * layers / (size // self.deployment.kv_bytes * self.deployment.hbm_kv_bytes)
            )
            early = min(self.config.store.read_buffer_layers, layers, max(0.0, now - max(ready, since)) / each)
            self.seen["preloads that full HBM cuts short"] += free < early
            early = min(early, free)
            self.seen["partial preloads"] += 0 < early < layers
        elif self.fetching == session:
            each = max(each, (self.ssd_read.slow_end_s - now) / layers)
            self.seen["loads of what was being fetched"] += 1
        else:
            start = self.ssd_read.start_s(now)
            from_ssd = (self.ssd_read.send(now, size) - start) / layers
            each, delay = max(each, from_ssd), max(start, ready) - now + min(each, from_ssd)
            self.seen["loads from SSD"] += 1
            if len(self.tiers) == 2 and self.make_room(self.tiers[0], size):
                self.tiers[0].put(session, size)
                self.arrived(session)
        self.h2d.free_s = now + delay + (layers - early) * each
        self.h2d.bytes += size
        self.h2d.sent.append((now + delay - early * each, self.h2d.free_s, size))
        end = 0.0
        for layer in range(1, layers + 1):
            end = max(end, delay + (layer - early) * each if layer > early else 0.0) + compute / layers
        return end

    def complete(self, turn: Turn, now: float) -> None:
        """The answer is out: its KV is saved, and the session goes on."""
        turn.done_s, self.context[turn.session], self.store_changed = now, turn.context, True
        if self.tiers:
            self.save(turn, turn.context * self.deployment.kv_bytes, now)
        self.idle_since[turn.session] = now
        self.batch.remove(turn)
        self.use(turn.session, [tier for tier in self.tiers if tier.held[turn.session]])
        self.service.source.ended(turn, now)

    # --- the store ------------------------------------------------------------------------------------------------------------

    def save(self, turn: Turn, size: int, now: float) -> None:
        session = turn.session
        self.offered.append(size)
        for tier in self.tiers:
            missing = size - tier.held[session]
            if size > tier.capacity:
                continue
            spills = size <= self.tiers[0].capacity and tier is not self.tiers[0] and self.config.store.save == "async"
            if spills and self.wait_s(turn, missing, now) > self.again_s(missing):
                break
            if self.make_room(tier, missing):
                self.keep(turn, tier, missing, now)
                self.seen["saves into SSD below DRAM"] += tier is not self.tiers[0]
                return
            tier.reserve = max(tier.reserve, min(missing, tier.capacity // 2))
        self.seen["skipped saves"] += 1

    def keep(self, turn: Turn, tier: Tier, missing: int, now: float) -> None:
        session = turn.session
        tier.put(session, missing)
        self.home[session] = tier
        for above in self.tiers[: self.tiers.index(tier)]:
            above.cut(session, above.held[session])
        if self.config.store.ssd_write == "whole":
            self.leave_below(session, tier)
        links = self.down_to(tier)
        if self.config.store.save == "sync":
            self.save_rest(session, links, missing, now)
            tier.saves.append((now, max(link.free_s for link in links), missing))
            return
        self.ready_s[session] = 0.0
        for link in links:
            end = link.send(turn.admitted_s, missing)
            self.ready_s[session] = max(self.ready_s[session], end, now + self.deployment.kv_bytes / link.bandwidth)
            self.stall_until_s = max(self.stall_until_s, end - self.deployment.write_buffer / link.bandwidth)
        tier.saves.append(max((link.sent[-1] for link in links), key=lambda sent: sent[1]))

    def down_to(self, tier: Tier) -> list[Wire]:
        return [self.d2h] if tier.name == "dram" else [self.d2h, self.ssd_write]

    def save_early(self, turn: Turn, now: float) -> None:
        """Synchronous saving, after a prefill: the GPU waits until the first tier has what is new."""
        if self.tiers and self.config.store.save == "sync":
            self.early[turn.session] = (turn.context - turn.cached_tokens) * self.deployment.kv_bytes
            self.wait_for(self.down_to(self.tiers[0]), self.early[turn.session], now)

    def save_rest(self, session: int, links: list[Wire], missing: int, now: float) -> None:
        """Synchronous saving, after the answer: links that have had the prompt's KV take the answer's, others take all."""
        for link in links:
            had = self.early[session] if link in self.down_to(self.tiers[0]) else 0
            self.wait_for([link], max(0, missing - had), now)

    def wait_for(self, links: list[Wire], size: int, now: float) -> None:
        self.stall_until_s = max(self.stall_until_s, *(link.send(now, size) for link in links))
        self.seen["copies that the GPU waits for"] += 1

    def expire(self, now: float, coming: int | None = None) -> None:
        """Drops what has been idle for longer than the TTL; what moves, once it does not, and at the latest when its turn comes."""
        ttl_s = self.config.store.ttl_s
        for session in [one for one, since in sorted(self.idle_since.items()) if ttl_s is not None and since + ttl_s < now]:
            if session != self.demoting or session == coming:
                self.seen["sessions that expire"] += session in self.home
                del self.idle_since[session]
                self.keep_first(session, 0)

    def keep_first(self, session: int, size: int) -> None:
        """What any tier holds of a session beyond its first bytes is dropped."""
        for tier in self.tiers:
            tier.cut(session, max(0, tier.held[session] - size))
        if not size:
            self.home.pop(session, None)

    def arrived(self, session: int) -> None:
        """All that there is of a session is in DRAM now."""
        self.home[session] = self.tiers[0]
        if self.config.store.ssd_write == "whole":
            self.leave_below(session, self.tiers[0])

    def leave_below(self, session: int, tier: Tier) -> None:
        for below in self.tiers[self.tiers.index(tier) + 1 :]:
            self.seen["sessions moved whole"] += bool(below.held[session])
            below.cut(session, below.held[session])

    def written(self, tier: Tier, now: float) -> float:
        """Bytes that have come into a tier."""
        moving = {"dram": self.fetching, "ssd": self.demoting}[tier.name] is not None
        link = {"dram": self.ssd_read, "ssd": self.ssd_write}[tier.name]
        return tier.written - to_come(tier.saves, now) - (link.slow_left(now) if moving else 0.0)

    def wait_s(self, turn: Turn, size: int, now: float) -> float:
        """How long the GPU would have to wait for a save of so many bytes to SSD."""
        seconds = [
            link.start_s(turn.admitted_s) + link.latency_s + (size - self.deployment.write_buffer) / link.bandwidth - now
            for link in (self.d2h, self.ssd_write)
        ]
        return max(seconds)

    def again_s(self, size: int) -> float:
        """How long the GPU would compute KV of so many bytes."""
        return self.steps.prefill(size // self.deployment.kv_bytes, 0)

    def use(self, session: int, tiers: list[Tier]) -> None:
        self.stamps += 1
        for tier in tiers:
            if self.config.store.eviction != "fifo" or not tier.stamp[session]:
                tier.stamp[session] = self.stamps

    def staying(self) -> set[int | None]:
        """Who leaves no tier."""
        return {*(turn.session for turn in self.batch), *self.fetched, self.demoting}

    def victim(self, tier: Tier, wanted_by: int | None = None) -> int | None:
        """Who leaves a tier next; None also when its job comes sooner than that of the session that wants the room."""
        waiting = [turn.session for turn in self.queue]

        def order(session: int) -> tuple[int, int]:
            if self.config.store.eviction == "lookahead" and session in waiting:
                return 1, -waiting.index(session)
            return 0, tier.stamp[session]

        first = min((session for session in tier.held if session not in self.staying()), key=order, default=None)
        sooner = waiting[: waiting.index(wanted_by)] if wanted_by is not None else []
        return None if first in sooner else first

    def make_room(self, tier: Tier, size: int, wanted_by: int | None = None) -> bool:
        """Whether so many bytes are free in a tier, after those have left that can at once."""
        last = self.tiers[-1]
        if tier is last and size > tier.free() + sum(tier.held[session] for session in tier.held if session not in self.staying()):
            return False
        while tier.free() < size:
            session = self.victim(tier, wanted_by)
            if session is None or (tier is not last and tier.held[session] > last.held[session]):
                return False
            self.leave(session, tier)
        return True

    def leave(self, session: int, tier: Tier) -> None:
        self.seen["evictions"] += 1
        tier.cut(session, tier.held[session])
        if not self.home[session].held[session]:
            del self.home[session]
            if self.tiers[-1].held[session]:
                self.home[session] = self.tiers[-1]

    def start_moves(self, now: float) -> None:
        if len(self.tiers) == 2:
            if self.fetching is None and self.config.store.prefetch == "lookahead":
                self.start_fetch(self.tiers[0], self.tiers[1], now)
            if self.demoting is None:
                self.start_demotion(self.tiers[0], self.tiers[1], now)

    def start_fetch(self, dram: Tier, ssd: Tier, now: float) -> None:
        self.starved = None
        free = dram.capacity - dram.reserve - sum(dram.held[turn.session] for turn in self.batch)
        window = max(0, free * len(self.offered) // max(1, sum(self.offered)))
        waiting = [turn.session for turn in self.queue[:window]]
        below = [session for session in waiting if self.home.get(session) is ssd and session not in self.fetched]
        wanted = [session for session in below if ssd.held[session] <= dram.capacity - dram.reserve]
        if not wanted or sum(dram.held[session] for session in self.fetched) + ssd.held[wanted[0]] > free:
            return
        session, size = wanted[0], ssd.held[wanted[0]]
        if not self.make_room(dram, size, session):
            self.starved = session
            return
        self.fetching = session
        self.fetched.append(session)
        dram.put(session, size)
        self.ssd_read.send_slowly(now, size)
        self.seen["fetches"] += 1

    def start_demotion(self, dram: Tier, ssd: Tier, now: float) -> None:
        wanted = 0 if self.starved is None else ssd.held[self.starved]
        while dram.free() < max(dram.reserve, wanted):
            session = self.victim(dram, self.starved if dram.free() >= dram.reserve else None)
            if session is None:
                return
            self.demoting = session
            missing = dram.held[session] - ssd.held[session]
            has_room = self.make_room(ssd, missing)
            if missing and has_room:
                if self.config.store.ssd_write == "whole":
                    ssd.cut(session, ssd.held[session])
                    missing = dram.held[session]
                if not ssd.held[session]:
                    self.use(session, [ssd])
                ssd.put(session, missing)
                self.ssd_write.send_slowly(now, missing)
                self.seen["demotions"] += 1
                return
            self.demoting = None
            self.seen["demotions without room that leave a prefix"] += ssd.held[session] and not has_room
            self.leave(session, dram)

    def end_moves(self, now: float) -> None:
        """Ends what is due by now, each at its own time, and starts what follows from it."""
        while True:
            fetched_s = math.inf if self.fetching is None else self.ssd_read.slow_end_s
            demoted_s = math.inf if self.demoting is None else self.ssd_write.slow_end_s
            end = min(fetched_s, demoted_s)
            if end > now:
                return
            if self.fetching is not None and fetched_s == end:
                session, self.fetching = self.fetching, None
                self.ready_s[session] = end
                if session != NOBODY:
                    self.arrived(session)
            elif self.demoting is not None:
                session, self.demoting, (dram, ssd) = self.demoting, None, self.tiers
                self.ssd_write.free_s = max(self.ssd_write.free_s, self.ssd_write.slow_end_s)
                stays = session in self.staying()
                if not stays and 0 < dram.held[session] <= ssd.held[session]:
                    self.leave(session, dram)
            self.start_moves(end)
