"""One replica: what its GPU does, one step at a time."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.metrics.output import Books
from kvplan.validate.checks.reference.jobs import Jobs
from kvplan.validate.checks.reference.links import Links
from kvplan.validate.checks.reference.loading import Loading
from kvplan.validate.checks.reference.moves import Moves
from kvplan.validate.checks.reference.saving import Saving
from kvplan.validate.checks.reference.spans import Span, done
from kvplan.validate.checks.reference.store import Store
from kvplan.validate.checks.reference.turns import Turn

if TYPE_CHECKING:
    from kvplan.validate.checks.reference.service import Service

SPENT = ("prefill_s", "decode_s", "load_stall_s", "save_stall_s", "prefilled_tokens")


@dataclass(frozen=True)
class Moment:
    """When, and how far the lists were that have no times, or several entries of one time."""

    now: float
    skipped: int
    changes: tuple[int, ...]


class Replica:
    """`doing`: "nothing", "stall", "prefill" or "decode"."""

    def __init__(self, config: Config, deployment: Deployment, service: "Service") -> None:
        self.service, self.max_batch, self.deployment = service, config.deployment.max_batch, deployment
        self.seen: Counter[str] = Counter()
        self.links = Links(deployment)
        self.sizes = service.sizes
        self.jobs = Jobs(config, deployment, self.sizes, service.histories)
        self.store = Store(config.store, deployment, self.jobs, self.seen)
        self.moves = Moves(self.store, self.links)
        self.saving = Saving(deployment, self.store, self.links)
        self.loading = Loading(deployment, self.store, self.links)
        self.doing, self.step_end_s, self.in_step, self.store_changed = "nothing", math.inf, False, False
        self.entered: Turn | None = None  # who is prefilled when the GPU has waited for what is saved
        self.spent: defaultdict[str, list[Span]] = defaultdict(list)

    def arrive(self, turn: Turn, now: float) -> None:
        self.moves.end(now)
        self.store.come(turn, now)
        self.jobs.join(turn, now)
        if self.in_step:
            return
        if self.doing == "nothing":
            self.decide(now)
        if self.store.fetching is None:
            self.moves.start(now)

    def due_s(self) -> float:
        """When the next load ends that the GPU does not wait for."""
        return min((loaded_s for loaded_s, _ in self.jobs.apart), default=math.inf)

    def load_ends(self, now: float) -> None:
        jobs = self.jobs
        jobs.loaded += [turn for loaded_s, turn in jobs.apart if loaded_s == now]
        jobs.apart = [one for one in jobs.apart if one[0] > now]
        self.moves.end(now)
        if self.doing == "nothing":
            self.decide(now)

    def decide(self, now: float) -> None:
        """What comes after a step."""
        jobs, saving = self.jobs, self.saving
        turn, waits = (self.entered, False) if self.entered else self.next(now)
        if saving.stall_until_s > now and (jobs.batch or waits):
            self.entered = turn
            self.do("stall", now, saving.stall_until_s)
        elif turn is not None:
            self.entered = None
            self.prefill(turn, now)
        elif jobs.batch:
            contexts = sum(turn.context for turn in jobs.batch)
            windows = sum(turn.window_bytes for turn in jobs.batch)
            self.do("decode", now, now + self.deployment.steps.decode(len(jobs.batch), contexts, 1, windows))
        else:
            self.doing, self.step_end_s = "nothing", math.inf
        jobs.hbm_in_step = jobs.hbm_used()

    def next(self, now: float) -> tuple[Turn | None, bool]:
        """Who is prefilled now, or whether somebody fits and waits for HBM that is not saved yet. Those whose KV has come go before the
        queue, and who has to wait for it makes way."""
        jobs, saving = self.jobs, self.saving
        while len(jobs.batch) < self.max_batch and (jobs.loaded or jobs.queue):
            if jobs.loaded:
                jobs.batch.append(jobs.loaded.pop(0))
                return jobs.batch[-1], False
            left = jobs.left(jobs.queue[0])
            if 0 <= left < self.deployment.write_buffer:
                saving.wait_for_room(left, now)
            if left < 0 or saving.stall_until_s > now:
                return None, left >= 0
            loaded_s = self.enter(now)
            if loaded_s <= now:
                return jobs.batch[-1], False
            jobs.batch[-1].deferrals += 1
            jobs.apart.append((loaded_s, jobs.batch.pop()))
            self.seen["jobs that wait apart for their KV"] += 1
        return None, False

    def prefill(self, turn: Turn, now: float) -> None:
        new = turn.history_tokens + turn.prompt_tokens - turn.cached_tokens
        compute = self.deployment.steps.prefill(new, turn.cached_tokens)
        end_s = now + (compute + turn.stall_s)
        self.do("prefill", now, end_s)
        self.count(now, end_s, prefill_s=compute, load_stall_s=turn.stall_s, prefilled_tokens=new)

    def do(self, what: str, now: float, end_s: float) -> None:
        self.doing, self.step_end_s = what, end_s
        if what == "stall":
            self.seen["stalls for saving"] += 1
            self.count(now, end_s, save_stall_s=end_s - now)
        if what == "decode":
            self.count(now, end_s, decode_s=end_s - now)

    def count(self, start_s: float, end_s: float, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.spent[name].append(Span(start_s, end_s, amount))

    def end_step(self, now: float) -> None:
        self.moves.end(now)
        self.in_step = True
        if self.doing == "prefill":
            self.jobs.batch[-1].first_token_s = now
            self.saving.save_early(self.jobs.batch[-1], now)
        advanced = {"stall": [], "prefill": self.jobs.batch[-1:], "decode": self.jobs.batch}[self.doing]
        for turn in sorted(advanced, key=self.service.turns.index):
            if turn.left:
                turn.context, turn.left = turn.context + 1, turn.left - 1
            if not turn.left:
                self.complete(turn, now)
        self.in_step = False
        self.decide(now)
        if self.store_changed:
            self.store_changed = False
            self.moves.start(now)

    def enter(self, now: float) -> float:
        """The head of the queue starts; returns when it can be prefilled."""
        self.store_changed = True
        turn, since = self.jobs.start(now)
        history, prompt, output = self.jobs.trimmed(turn)
        cut = self.jobs.context[turn.session] - history
        cached = self.store.claim(turn.session, cut, now)
        turn.admitted_s = turn.since_s = now
        turn.overflow = cut > 0
        turn.prompt_tokens, turn.output_tokens, turn.history_tokens, turn.cached_tokens = prompt, output, history, cached
        turn.context, turn.left = history + prompt, output
        turn.window_bytes = self.sizes.window_bytes(history, prompt, output)
        if cached:
            self.load(turn, since, now)
        return turn.since_s

    def load(self, turn: Turn, since: float, now: float) -> None:
        compute = self.deployment.steps.prefill(turn.context - turn.cached_tokens, turn.cached_tokens)
        turn.tier = self.store.tiers.index(self.store.home[turn.session])
        loaded_s, seconds = self.loading.load(turn.session, self.sizes.stored[turn.cached_tokens], compute, since, now)
        if self.deployment.connection.asynchronous:
            turn.since_s = loaded_s
        else:
            turn.stall_s = seconds - compute

    def complete(self, turn: Turn, now: float) -> None:
        """The answer is out: its KV is saved, and the session goes on."""
        turn.done_s, self.jobs.context[turn.session], self.store_changed = now, turn.context, True
        if self.store.tiers:
            self.saving.save(turn, now)
        self.jobs.batch.remove(turn)
        self.store.ended(turn.session, now)
        self.service.ended(turn, self, now)

    # --- what is told of it ---------------------------------------------------------------------------------------------------

    def moment(self, now: float) -> Moment:
        self.moves.end(now)  # nothing may have come here since they did
        return Moment(now, self.saving.skipped, tuple(len(tier.changes) for tier in self.store.tiers))

    def sample(self, now: float) -> dict[str, float]:
        """A row of the series."""
        jobs, held = self.jobs, {f"{tier.name}_bytes": tier.sent(sum(tier.held.values())) for tier in self.store.tiers}
        counts = {"waiting": len(jobs.queue), "running": len(jobs.batch), "hbm_running_bytes": jobs.hbm_used()}
        return {"time_s": now, "replica": self.service.replicas.index(self), **counts, **held}

    def books(self, at: Moment, since: Moment | None) -> Books:
        """All that was done by a moment; peaks since another."""
        sums = {name: done(self.spent[name], at.now) for name in SPENT}
        for link in self.links.all:
            sums |= {f"{link.name}.bytes": link.bytes(at.now), f"{link.name}.busy_s": link.busy_s(at.now)}
        sums["skipped_saves"] = at.skipped
        for tier in self.store.tiers:
            sums |= tier.sums(at.now)
        first = [0] * len(self.store.tiers) if since is None else since.changes
        return Books(sums, {tier.name: tier.peak(start) for tier, start in zip(self.store.tiers, first, strict=True)})
