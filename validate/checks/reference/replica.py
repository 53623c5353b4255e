"""One replica: what its GPU does, one step at a time."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvplan.sim.config import Config
from kvplan.sim.deployment import Deployment
from kvplan.sim.metrics.output import Books
from kvplan.validate.checks.reference.batching import BATCHINGS, RESERVES, Chunks
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
    """`doing`: "nothing", "stall" or "step"."""

    def __init__(self, config: Config, deployment: Deployment, service: "Service") -> None:
        self.service, self.max_batch, self.deployment = service, config.deployment.max_batch, deployment
        self.seen: Counter[str] = Counter()
        self.links = Links(deployment)
        self.sizes = service.sizes
        self.batching = BATCHINGS[config.batching](config, deployment)
        self.reserves = config.deployment.admission or RESERVES[config.batching]
        self.jobs = Jobs(config, deployment, self.sizes, service.histories, self.reserves)
        self.store = Store(config.store, deployment, self.jobs, self.seen)
        self.moves = Moves(self.store, self.links)
        self.saving = Saving(deployment, self.store, self.links)
        self.loading = Loading(deployment, self.store, self.links)
        self.doing, self.step_end_s, self.in_step, self.store_changed = "nothing", math.inf, False, False
        self.chunks: Chunks = ()  # of the step under way, which computes so many tokens of these
        self.decoding: list[Turn] = []  # and one of each of these
        self.spent: defaultdict[str, list[Span]] = defaultdict(list)

    def arrive(self, turn: Turn, now: float) -> None:
        self.moves.end(now)
        self.come(turn, now)
        self.jobs.join(turn, now)
        if self.in_step:
            return
        if self.doing == "nothing":
            self.decide(now)
        if self.store.fetching is None:
            self.moves.start(now)

    def come(self, turn: Turn, now: float) -> None:
        """What a turn drops of its session's history is gone."""
        self.store.come(turn, now)

    def due_s(self) -> float:
        """When the next load ends that the GPU does not wait for, or something that a job waits for has come."""
        return min([*(loaded_s for loaded_s, _ in self.jobs.apart), *self.jobs.aside.values()], default=math.inf)

    def load_ends(self, now: float) -> None:
        jobs = self.jobs
        for turn in [turn for loaded_s, turn in jobs.apart if loaded_s == now]:
            jobs.loaded.append(turn)
            self.loaded(turn, now)
        jobs.apart = [one for one in jobs.apart if one[0] > now]
        jobs.come_back(now)
        self.moves.end(now)
        if self.doing == "nothing":
            self.decide(now)

    def decide(self, now: float) -> None:
        """What comes after a step."""
        jobs, saving = self.jobs, self.saving
        waits = self.fill(now)
        chunks, decodes = self.batching.step(jobs)
        if saving.stall_until_s > now and (jobs.batch or waits):
            self.chunks, self.decoding = (), []
            self.do("stall", now, saving.stall_until_s)
        elif decodes and jobs.short():
            self.make_way(now)
            self.decide(now)
        elif jobs.batch:
            self.chunks, self.decoding = chunks, jobs.decoding() if decodes else []
            self.step(now)
        else:
            self.doing, self.step_end_s = "nothing", math.inf
        jobs.hbm_in_step = jobs.hbm_used()

    def fill(self, now: float) -> bool:
        """All that can start; whether somebody fits and waits for HBM that is not saved yet. Those whose KV has come go before the queue,
        unless somebody is to give way, and who has to wait for it makes way."""
        jobs = self.jobs
        while jobs.loaded and not jobs.short() and self.has_place():
            jobs.batch.append(jobs.loaded.pop(0))
        while self.has_place() and (turn := jobs.first()) is not None:
            left = jobs.left(turn)
            if self.steps_aside(turn, left, now):
                continue
            if 0 <= left < self.deployment.write_buffer:
                self.saving.wait_for_room(left, now)
            if left < 0 or self.saving.stall_until_s > now:
                return left >= 0
            jobs.asked = None
            self.enter(turn, now)
            if turn.since_s > now:
                turn.deferrals += 1
                jobs.batch.remove(turn)
                jobs.apart.append((turn.since_s, turn))
                self.seen["jobs that wait apart for their KV"] += 1
        return False

    def steps_aside(self, turn: Turn, left: int, now: float) -> bool:
        """Whether others pass the first, since something that it would load is under way. It asks when it comes to be the first, and again
        when it fits."""
        if left < 0 and turn is self.jobs.asked:
            return False
        self.jobs.asked, until_s = turn, self.comes_s(turn, now)
        if until_s <= now:
            return False
        self.jobs.asked = None
        turn.deferrals += 1
        self.jobs.steps_aside(turn, until_s, now)
        return True

    def comes_s(self, turn: Turn, now: float) -> float:
        """When all has come that it would load."""
        return now

    def loaded(self, turn: Turn, now: float) -> None:
        """What a job loads asynchronously has come."""

    def has_place(self) -> bool:
        return len(self.jobs.batch) < self.max_batch and self.batching.admits(self.jobs)

    def make_way(self, now: float) -> None:
        """Jobs give way until a step fits."""
        given_way = 0
        while (turn := self.jobs.next_to_give_way(given_way)) is not None:
            self.seen["jobs that give way"] += 1
            self.seen["jobs that give way in their prefill"] += not turn.decodes
            self.give_back(turn, now)
            self.jobs.gives_way(turn)
            given_way += 1
        self.jobs.cleared()

    def give_back(self, turn: Turn, now: float) -> None:
        """A job gives back its HBM before its end."""

    def step(self, now: float) -> None:
        """It computes parts of prompts, or a token of each that decodes, or both; a prompt's first part waits for what is loaded."""
        steps = self.deployment.steps
        batch, contexts = len(self.decoding), sum(turn.context for turn in self.decoding)
        windows = sum(turn.window_bytes for turn in self.decoding)
        compute = steps.step([(tokens, turn.computed) for turn, tokens in self.chunks], batch, contexts, windows)
        stall = max((turn.waits_s for turn, _ in self.chunks if turn.computed == turn.loaded), default=0.0)
        alone = steps.step([], batch, contexts, windows) if batch else 0.0
        self.do("step", now, end_s := now + (compute + stall))
        new = sum(tokens for _, tokens in self.chunks)
        self.count(now, end_s, prefill_s=compute - alone, decode_s=alone, load_stall_s=stall, prefilled_tokens=new)
        self.seen["steps that prefill and decode"] += bool(self.chunks and batch)
        self.seen["steps of several prompts"] += len(self.chunks) > 1
        self.seen["prompts in parts"] += any(tokens < turn.to_prefill for turn, tokens in self.chunks)

    def do(self, what: str, now: float, end_s: float) -> None:
        self.doing, self.step_end_s = what, end_s
        if what == "stall":
            self.seen["stalls for saving"] += 1
            self.count(now, end_s, save_stall_s=end_s - now)

    def count(self, start_s: float, end_s: float, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.spent[name].append(Span(start_s, end_s, amount))

    def end_step(self, now: float) -> None:
        self.moves.end(now)
        self.in_step = True
        for turn in self.decoding:
            turn.context, turn.left = turn.context + 1, turn.left - 1
        if self.decoding:
            self.jobs.stepped()
            self.grew(now)
        for turn in sorted(self.decoding, key=self.service.turns.index):
            if not turn.left:
                self.complete(turn, now)
        for turn, tokens in self.chunks:
            turn.computed += tokens
            if not turn.to_prefill:
                self.prefilled(turn, now)
        self.in_step = False
        self.decide(now)
        if self.store_changed:
            self.store_changed = False
            self.moves.start(now)

    def grew(self, now: float) -> None:
        """Each that decodes has a token more."""

    def prefilled(self, turn: Turn, now: float) -> None:
        """All that a job has before its next token is computed, and that is out."""
        if math.isnan(turn.first_token_s):
            turn.first_token_s = now
            self.saving.save_early(turn, now)
        if turn.left:
            turn.context, turn.left = turn.context + 1, turn.left - 1
        turn.decodes = True
        if not turn.left:
            self.complete(turn, now)

    # --- a job starts, and ends -----------------------------------------------------------------------------------------------

    def enter(self, turn: Turn, now: float) -> None:
        """A job starts, or starts again; `since_s` is when it can be prefilled."""
        again = turn in self.jobs.preempted
        since = self.jobs.start(turn, now)
        if not again:
            self.begin(turn, now)
        turn.since_s, turn.loaded, turn.waits_s = turn.admitted_s, 0, 0.0
        tier = self.take(turn, since, now)
        turn.computed = turn.loaded
        if not again:
            turn.cached_tokens, turn.stall_s, turn.tier = turn.loaded, turn.waits_s, tier

    def begin(self, turn: Turn, now: float) -> None:
        """A turn is admitted, as much of it as fits into the window."""
        self.store_changed = True
        history, prompt, output = self.jobs.trimmed(turn)
        cut, clipped = self.jobs.context[turn.session] - history, prompt < turn.prompt_tokens
        turn.admitted_s, turn.overflow = now, cut > 0
        turn.prompt_tokens, turn.output_tokens, turn.history_tokens = prompt, output, history
        turn.context, turn.left = history + prompt, output
        turn.window_bytes = self.sizes.window_bytes(history, prompt, output)
        self.claim(turn, cut, clipped, now)

    def claim(self, turn: Turn, cut: int, clipped: bool, now: float) -> None:
        """What is kept of its session stays, without the oldest tokens that were cut; its prompt may have been, too."""
        self.store.claim(turn.session, cut, now)

    def take(self, turn: Turn, since: float, now: float) -> int:
        """Loads what there is of a job's context; returns the tier, −1 for none."""
        home = self.store.home.get(turn.session)
        turn.loaded = 0 if home is None else self.sizes.tokens(home.held[turn.session])
        if home is None or not turn.loaded:
            return -1
        compute = self.deployment.steps.prefill(turn.context - turn.loaded, turn.loaded)
        loaded_s, seconds = self.loading.load(turn.session, self.sizes.stored[turn.loaded], compute, since, now)
        if self.deployment.connection.asynchronous:
            turn.since_s = loaded_s
        else:
            turn.waits_s = seconds - compute
        return self.store.tiers.index(home)

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
        counts = {"waiting": len(jobs.queue) + len(jobs.preempted), "running": len(jobs.decoding()), "hbm_running_bytes": jobs.hbm_used()}
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
