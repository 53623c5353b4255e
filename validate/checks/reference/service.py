"""One run: its turns, who sends them, and the replicas that they come to."""

import math
from collections.abc import Sequence

import numpy as np

from kvplan.sim.config import Clients
from kvplan.sim.metrics.output import Books, RunInput, RunOutput
from kvplan.sim.rng import stream
from kvplan.sim.routing import replica_of
from kvplan.validate.checks.reference.blocks import BlockReplica
from kvplan.validate.checks.reference.hashes import Hashes
from kvplan.validate.checks.reference.histories import Histories
from kvplan.validate.checks.reference.replica import Moment, Replica
from kvplan.validate.checks.reference.senders import Arrivals, Client
from kvplan.validate.checks.reference.sizes import Sizes
from kvplan.validate.checks.reference.states import StatesReplica
from kvplan.validate.checks.reference.tree import TreeReplica
from kvplan.validate.checks.reference.turns import Turn, columns_of, turns_of
from kvplan.validate.checks.reference.windows import WindowsReplica


class Service:
    """Runs it, and tells of it."""

    def __init__(self, given: RunInput) -> None:
        self.given, clients = given, given.config.workload.clients
        self.turns = turns_of(given.workload)
        self.source: Arrivals | Client = Arrivals(self, given.workload.open_loop) if clients is None else self._client(clients)
        self.sizes = Sizes(given.deployment)
        kept, pooled = given.deployment.hbm_kv, given.deployment.pooled
        of_blocks = TreeReplica if given.config.store.mode == "sglang" else BlockReplica
        in_blocks = StatesReplica if kept.state else WindowsReplica if kept.windows else of_blocks
        kind = in_blocks if pooled else Replica
        self.histories, self.hashes = Histories(), Hashes(given.workload, self.turns)
        self.replicas = [kind(given.config, given.deployment, self) for _ in range(given.config.deployment.replicas)]
        self.stays = given.config.router == "session"
        self.place = replica_of(given.config, given.workload.sessions, "sessions stay") if self.stays else np.empty(0, np.int64)
        self.answered: list[Turn] = []
        self.samples: list[dict[str, float]] = []
        self.warm: list[Moment] = []  # per replica, when the warm-up has ended
        self.events = 0

    def _client(self, settings: Clients) -> Client:
        return Client(self, settings, stream(self.given.config.seed, "clients").random)

    def run(self) -> "Service":
        while True:
            coming_s, loading = self.source.due_s(), min(self.replicas, key=lambda one: one.due_s())
            replica = min(self.replicas, key=lambda one: one.step_end_s)
            first_s = min(coming_s, loading.due_s(), replica.step_end_s)
            if first_s == math.inf:
                return self
            self.events += 1
            if loading.due_s() == first_s:
                loading.load_ends(first_s)
            elif coming_s == first_s:
                self.source.happen(first_s)
            else:
                replica.end_step(replica.step_end_s)

    def arrive(self, turn: Turn, now: float) -> None:
        least = min(self.replicas, key=lambda replica: len(replica.jobs.queue) + len(replica.jobs.started()))
        turn.replica = self.place[turn.session] if self.stays else self.replicas.index(least)
        self.replica_of(turn).arrive(turn, now)

    def replica_of(self, turn: Turn) -> Replica:
        return self.replicas[turn.replica]

    def ended(self, turn: Turn, replica: Replica, now: float) -> None:
        self.answered.append(turn)
        self.samples.append(replica.sample(now))
        if self.given.progress is not None:
            self.given.progress(len(self.answered), len(self.turns))
        if len(self.answered) == self.given.config.warmup_turns:
            self.warm = [one.moment(now) for one in self.replicas]
        self.source.ended(turn, now)

    def output(self) -> RunOutput:
        """Of the finished run."""
        lengths = self.given.workload.prompt_tokens + self.given.workload.output_tokens
        end_s = max(turn.done_s for turn in self.turns)
        config = self.given.config
        more = ["replica"] + ["ready_s"] * (config.workload.clients is not None) + self._found()
        more += ["deferrals"] * any(turn.deferrals for turn in self.turns)
        more += ["preemptions"] * any(turn.preemptions for turn in self.turns)
        return RunOutput(
            columns=columns_of(self.turns, self.answered, more),
            series={name: np.array([sample[name] for sample in self.samples]) for name in self.samples[0]},
            links=tuple(link.name for link in self.replicas[0].links.all),
            ended=self._books([replica.moment(end_s) for replica in self.replicas]),
            warm_s=self.warm[0].now if self.warm else None,
            warm=self._books(self.warm),
            clipped=sum(turn.prompt_tokens + turn.output_tokens < length for turn, length in zip(self.turns, lengths, strict=True)),
            events=self.events,
        )

    def _found(self) -> list[str]:
        """Columns of the tokens that blocks in each tier have served."""
        blocks = self.given.deployment.pooled
        return [f"{tier.name}_tokens" for tier in self.given.deployment.tiers if blocks]

    def _books(self, moments: Sequence[Moment]) -> tuple[Books, ...]:
        """Per replica at those; none for no moments."""
        since: Sequence[Moment | None] = self.warm or [None] * len(moments)
        return tuple(replica.books(at, first) for replica, at, first in zip(self.replicas, moments, since, strict=False))
