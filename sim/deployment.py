"""What a configuration means in seconds and bytes for one replica: catalogue entries looked up, budgets worked out, sizes checked."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from kvplan.hwmodels import (
    CatalogueError,
    Gpu,
    Model,
    Node,
    Prices,
    Ssd,
    catalogue,
    host_bandwidth,
    kvsize,
    ssd_bandwidth,
    step_time,
)
from kvplan.hwmodels.connector import Connection, connect
from kvplan.hwmodels.cost import usd_per_s
from kvplan.hwmodels.footprint import Footprint, Tokens
from kvplan.hwmodels.hosttime import with_host
from kvplan.hwmodels.ownership import Terms, terms
from kvplan.hwmodels.simplified import unsupported
from kvplan.hwmodels.steptime import StepTime
from kvplan.hwmodels.units import format_bytes, parse, parse_bytes
from kvplan.sim.config import ON_DEVICE, ON_DRIVES, ON_HOST, Config, ConfigError, Store, TierSetting
from kvplan.sim.keptunit import unit_with, why_sessions
from kvplan.sim.policies.base import Limits
from kvplan.sim.tiers import TierSpec, Wires
from kvplan.traces import Workload

LONGEST_S = 1e8
"""Latest arrival: 3 years, where a double still tells 15 ns."""


@dataclass(frozen=True)
class Deployment:
    """Numbers of one replica. Bytes and seconds."""

    model: Model
    node: Node
    gpu: Gpu
    ssd: Ssd
    prices: Prices
    terms: Terms
    """On which what is bought is paid for."""
    steps: StepTime
    gpus: int
    """Of one replica."""
    kv: Footprint
    """Of a session in the store, stored once and as HBM has it; what a tier makes of it says `TierSpec.taken`."""
    hbm_kv: Footprint
    """Of a running job, in the HBM of all ranks together."""
    attended: Footprint
    """What its steps read of that: of layers with windows those alone."""
    window: int
    """Tokens of context at most."""
    hbm_budget: int
    """HBM bytes for the KV of running jobs, and for buffers."""
    tiers: tuple[TierSpec, ...]
    """Those that are switched on, fastest first."""
    copies: Mapping[str, float]
    """`TierSpec.copies` of all, on or off."""
    connection: Connection
    """What moves KV over them."""
    wires: Wires
    """All host links that the replica's GPUs use together."""
    host: Wires
    """The same as the connection uses them."""
    drives: int
    """SSDs of the node; the SSD tier is a part of them."""
    drive_links: Wires
    """Of all drives together."""
    read_buffer: int
    """HBM bytes that are filled before a job starts, at most: so many layers of the workload's longest context."""
    write_buffer: int
    """HBM bytes that hold KV of ended jobs until it is saved, at most. Both buffers are in what running jobs leave of `hbm_budget`."""
    piece: int
    pooled: bool
    """Whether the store's HBM is that of running jobs, `hbm_budget`: one pool of blocks."""

    @property
    def drive_bytes(self) -> int:
        """What all drives of the node hold together."""
        return self.drives * round(self.ssd.capacity.value)

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each tier, fastest first."""
        return {tier.name: tier.size for tier in self.tiers}

    @property
    def aside(self) -> int:
        """Bytes of all tiers, without a pool in HBM that is running jobs'."""
        return sum(size for name, size in self.sizes.items() if not (self.pooled and name == ON_DEVICE))

    @property
    def room(self) -> int:
        """Bytes of KV that all tiers hold together."""
        return sum(tier.capacity for tier in self.tiers)

    @property
    def stored(self) -> Callable[[Tokens], Tokens]:
        """Bytes of the KV of a session of so many tokens, stored once."""
        return self.kv.of

    @property
    def tokens_in(self) -> Callable[[int], int]:
        """Whole tokens of a session of which so many stored bytes are the KV."""
        return self.kv.tokens_in

    @property
    def in_hbm(self) -> Callable[[Tokens], Tokens]:
        """Bytes that the KV of a job of so many tokens takes in the HBM of all ranks together."""
        return self.hbm_kv.of

    def tokens_in_hbm(self, size: int, each: float) -> int:
        """Whole tokens of jobs of `each` of which the KV takes so many bytes there."""
        return self.hbm_kv.among(size, each)

    @property
    def kv_bytes(self) -> int:
        """Of a session's first token, stored once."""
        return self.kv.of(1)

    def window_bytes(self, before: np.ndarray, steps: np.ndarray) -> float:
        """That a decode step reads of a job's windows in the mean, of jobs with so many steps each, after so many tokens."""
        return float(np.sum(self.attended.window_reads(before, steps))) / max(float(steps.sum()), 1.0)

    @property
    def rents(self) -> dict[str, float]:
        """Dollars a second for each tier that no price list has."""
        return {tier.name: tier.size * tier.usd_per_byte_s for tier in self.tiers if tier.usd_per_byte_s is not None}

    @property
    def rates(self) -> dict[str, float]:
        """Dollars a second of what the price list has: GPUs, and tiers beyond what comes with them."""
        dram, ssd = (self.sizes.get(name, 0) for name in (ON_HOST, ON_DRIVES))
        return usd_per_s(self.prices, self.gpu.name, self.gpus, dram, ssd, self.terms)

    @property
    def share_of_drives(self) -> int:
        """Of the node's drives, where replicas beside this one use its other GPUs; one at least."""
        return max(1, int(self.node.ssd_drives.value) * self.gpus // int(self.node.max_gpus.value))

    @property
    def keeps_on_drives(self) -> bool:
        """Whether a tier lies on the node's drives, and wears them."""
        return ON_DRIVES in self.sizes

    @property
    def links(self) -> dict[str, Wires]:
        """The links beside the host's that the node has, by the tier whose own they are; those of its drives come first, used or not."""
        return {ON_DRIVES: self.drive_links} | {tier.name: tier.own for tier in self.tiers if tier.own is not None}


def resolve(config: Config, workload: Workload | None = None) -> Deployment:
    """Looks everything up. With the workload, sizes the read buffer for its longest context (0 without one), and checks that it can run
    and be stored. Raises ConfigError when an entry is unknown or something does not fit.
    """
    try:
        model = kvsize.in_dtype(catalogue.load("model", config.model, config.catalogue), config.deployment.kv_dtype)
        if why := unsupported(model):
            raise ConfigError(why)
        node = catalogue.load("node", config.hardware, config.catalogue)
        gpu = catalogue.load("gpu", node.gpu, config.catalogue)
        link = catalogue.load("link", node.host_link, config.catalogue)
        connector = catalogue.load("connector", config.store.connector, config.catalogue)
        ssd = catalogue.load("ssd", node.ssd, config.catalogue)
        prices = catalogue.load("prices", config.prices, config.catalogue)
        _check_prices(config, gpu, prices)
        gpus = config.deployment.gpus or int(node.max_gpus.value)
        steps = _steps(config, step_time(model, gpu, node, gpus, config.catalogue))
    except CatalogueError as error:
        raise ConfigError(str(error)) from None
    store = config.store
    if gpus > node.max_gpus.value:
        raise ConfigError(f"deployment.gpus is {gpus}, but {node.name} has {node.max_gpus.value:.0f}")
    if node.max_dram is not None and parse_bytes(store.dram) > node.max_dram.value:
        raise ConfigError(f"store.dram is {store.dram}, but {node.name} takes {node.max_dram.text} at most")
    window = config.deployment.window_tokens or model.max_position_embeddings
    if window > model.max_position_embeddings:
        raise ConfigError(f"deployment.window_tokens is {window}, but {model.name} has {model.max_position_embeddings} positions")
    connection = _connection(config, connect(connector, gpus))
    kv, attended = kept(config, model), kvsize.hbm_footprint(model, gpus)
    blocks = unit_with(config, model, attended) == "block"
    hbm_kv = kvsize.hbm_footprint(model, gpus, "every-token") if blocks and store.windows == "every-token" else attended
    drives, reached = _drives(config, node, ssd), config.deployment.link_efficiency
    wires, drive_links = (
        Wires(read, write, entry.latency.value)
        for (read, write), entry in ((host_bandwidth(node, link, gpus), link), (ssd_bandwidth(ssd, drives), ssd))
    )
    host = wires.at_most(connection.bytes_per_s).times(reached)
    wires, drive_links = wires.times(reached), drive_links.times(reached)
    kv, in_hbm = (hbm_kv, Fraction(1)) if blocks and hbm_kv.state else _counted(config, connection, kv, hbm_kv)
    total = gpus * gpu.hbm.value * config.deployment.hbm_utilization
    _check_objects(store, blocks, why_sessions(config, model, attended) if store.unit == "auto" else None)
    aside = 0 if blocks else parse_bytes(store.hbm)
    budget = int(total - kvsize.weight_bytes(model) - aside)
    if budget < hbm_kv.of(1):
        raise ConfigError(
            f"{model.name} does not fit: {gpus} x {gpu.name} give {format_bytes(total)} of HBM"
            f" (hbm_utilization {config.deployment.hbm_utilization:g}); weights take {format_bytes(kvsize.weight_bytes(model))},"
            f" store.hbm {format_bytes(parse_bytes(store.hbm))}: use more GPUs"
        )
    listed = list(_tiers(config, model, in_hbm, connection, drive_links))
    if blocks:
        listed = _one_pool(listed, budget)
    tiers = tuple(tier for tier in listed if tier.capacity)
    write_buffer = parse_bytes(store.write_buffer) if tiers else 0
    layers = min(store.read_buffer_layers, model.num_hidden_layers)
    reads_ahead = tiers and connection.layerwise
    longest = 0 if workload is None else min(int(workload.session_tokens.max()), window)
    read_buffer = hbm_kv.of(longest) * layers // model.num_hidden_layers if reads_ahead else 0
    deployment = Deployment(
        model=model,
        node=node,
        gpu=gpu,
        ssd=ssd,
        prices=prices,
        terms=_terms(config, prices, gpu),
        steps=steps,
        gpus=gpus,
        kv=kv,
        hbm_kv=hbm_kv,
        attended=attended,
        window=window,
        hbm_budget=budget,
        tiers=tiers,
        copies={tier.name: tier.copies for tier in listed},
        connection=connection,
        wires=wires,
        host=host,
        drives=drives,
        drive_links=drive_links,
        read_buffer=read_buffer,
        write_buffer=write_buffer,
        piece=max(1, parse_bytes(store.piece)),
        pooled=blocks,
    )
    if workload is not None:
        _check(config, deployment, workload, longest)
    return deployment


def _connection(config: Config, connection: Connection) -> Connection:
    """The connector's, but for what the store's settings say; of tokens where HBM alone keeps KV, which none moves. Raises ConfigError
    where it cannot."""
    store, loads = config.store, config.store.load_mode
    if loads == "layerwise" and not connection.layerwise:
        raise ConfigError(
            f"store.load_mode is layerwise, but store.connector {connection.name} loads all of a history before its prefill: leave"
            " store.load_mode out (null), or take a connector that is layerwise (kvplan list connectors)"
        )
    if not any(store.size_of(tier) for tier in store.listed if tier.name != ON_DEVICE):
        connection = replace(connection, block=1, replicated=False, saves_answers=True)
    return replace(
        connection,
        loads=loads or connection.loads,
        block=store.block_tokens or connection.block,
        saves_answers=connection.saves_answers if store.saved is None else store.saved == "all",
    )


def kept(config: Config, model: Model) -> Footprint:
    """Of a session in the store. Raises ConfigError where windows cannot be kept alone."""
    asked, windowed = config.store.windows, kvsize.footprint(model, "windowed")
    if windowed.per_token and asked != "every-token":
        return windowed
    if asked == "windowed":
        raise ConfigError(
            f"store.windows is windowed, but every layer of {model.name} has a window: the bytes of a long session do not say how many"
            " tokens it has; set store.windows=every-token"
        )
    return kvsize.footprint(model, "every-token")


def _counted(config: Config, connection: Connection, kv: Footprint, hbm_kv: Footprint) -> tuple[Footprint, Fraction]:
    """What the store counts of a session, and the bytes in HBM of each byte of it. Where that depends on the tokens and all tiers keep what
    all ranks hold, it counts just that. Raises ConfigError where only the tier in HBM does."""
    of_one, of_more = (Fraction(hbm_kv.of(tokens), kv.of(tokens)) for tokens in (1, 10**9))
    on = [tier.name for tier in config.store.listed if config.store.size_of(tier)]
    if not kv.is_checkpoint or of_one == of_more or not (connection.replicated or ON_DEVICE in on):
        return kv, of_one
    if connection.replicated or on == [ON_DEVICE]:
        return hbm_kv, Fraction(1)
    raise ConfigError(
        "store.hbm: ranks hold more copies in some layers than in others, and of states one, so that the same session takes no fixed share"
        f" of bytes here of those that it takes in {' and '.join(on[1:])}: set store.hbm=0GB, or leave the other tiers out"
    )


def _tiers(config: Config, model: Model, in_hbm: Fraction, connection: Connection, drives: Wires) -> Iterator[TierSpec]:
    """The store's tiers. `in_hbm`: bytes in HBM of a byte of KV; so many are below, too, where ranks keep their copies."""
    store, below = config.store, in_hbm if connection.replicated else 1
    for each, (dtype, share) in zip(store.listed, narrowed(store, model), strict=True):
        copies = in_hbm if each.name == ON_DEVICE else below * share
        size = math.floor(store.size_of(each) / copies)
        yield TierSpec(
            name=each.name,
            capacity=size,
            reserve=int(store.host_buffer * size),
            own=drives if each.name == ON_DRIVES else _own(each, config.deployment.link_efficiency),
            on_device=each.name == ON_DEVICE,
            copies=float(copies),
            kv_dtype=dtype if share != 1 else "",
            objects=each.objects,
            usd_per_byte_s=None if each.price is None else parse(each.price, "usd_per_byte_s"),
        )


def _one_pool(listed: list[TierSpec], budget: int) -> list[TierSpec]:
    """Tiers of blocks: HBM is what running jobs leave of all of it, and nothing is kept free below. Raises ConfigError without HBM."""
    if not listed or not listed[0].on_device:
        raise ConfigError(f"store.tiers leaves out {ON_DEVICE}, which blocks are in (store.unit=block): name it first")
    pool, *below = listed
    return [replace(pool, capacity=math.floor(max(0, budget) / pool.copies)), *(replace(tier, reserve=0) for tier in below)]


def narrowed(store: Store, model: Model) -> Iterator[tuple[str, Fraction]]:
    """The dtype of KV in each tier, empty for that of HBM, and its bytes there as a share of those in HBM. Raises ConfigError where they
    would be more than above."""
    plain, dtype, least, above = kvsize.kv_bytes_per_token(model), "", Fraction(1), "HBM"
    if store.kv_dtype is not None and kvsize.state_layers(model):
        raise ConfigError(f"store.kv_dtype: {model.name} keeps states, which have a precision of their own: set deployment.kv_dtype alone")
    for each in store.listed:
        named = store.dtype_of(each)
        if named is not None and store.size_of(each):
            share = Fraction(kvsize.kv_bytes_per_token(kvsize.in_dtype(model, named)), plain)
            if share > least:
                raise ConfigError(
                    f"store.kv_dtype: {each.name} would keep {named}, {share * plain} bytes of a token, below {least * plain} in {above}:"
                    " what KV has lost does not come back on its way down; give it the same dtype, or a narrower one"
                )
            dtype, least, above = named, share, each.name
        yield dtype, least


def _check_objects(store: Store, blocks: bool, why: str | None) -> None:
    """Raises ConfigError for a storage of objects where nobody would put any; `why`: what keeps `store.unit: auto` from blocks."""
    named = [tier.name for tier in store.listed if tier.objects and store.size_of(tier)]
    if named and why is not None:
        raise ConfigError(f"store.tiers: {named[0]} is a storage of objects, which only blocks go to (store.unit=auto): {why}")
    if named and not (blocks and parse_bytes(store.dram)):
        raise ConfigError(
            f"store.tiers: {named[0]} is a storage of objects, which blocks in DRAM go on to: set store.unit=block and store.dram"
        )


def _own(tier: TierSetting, reached: float) -> Wires | None:
    """The links of a tier of the user's own."""
    if tier.read is None or tier.write is None or tier.latency is None:
        return None
    return Wires(reached * parse(tier.read, "bytes_per_s"), reached * parse(tier.write, "bytes_per_s"), parse(tier.latency, "seconds"))


def _steps(config: Config, steps: StepTime) -> StepTime:
    """What the configuration makes of step times."""
    served = config.deployment
    return with_host(steps.times(served.step_time_factor), served.host_step_s, served.host_request_s, served.host_work == "hidden")


def batching_limits(config: Config, deployment: Deployment) -> Limits:
    """What a batching policy may know of the server."""
    gpu, served = deployment.gpu, config.deployment
    return Limits(gpu.name, int(gpu.hbm.value), served.step_tokens, served.prefill_tokens)


def rated_writes(deployment: Deployment) -> float:
    """Bytes/s that the node's drives may be written on average to last their warranty; infinite without an SSD tier."""
    return deployment.ssd.rated_dwpd.value * deployment.drive_bytes / 86_400 if deployment.keeps_on_drives else math.inf


def _drives(config: Config, node: Node, ssd: Ssd) -> int:
    """Of the node: those that the configuration asks for; else those that it has, or as many as the SSD tier needs."""
    asked, needed = config.store.ssd_drives, -(-parse_bytes(config.store.ssd) // round(ssd.capacity.value))
    if asked is None:
        return max(needed, int(node.ssd_drives.value))
    if asked < needed:
        raise ConfigError(
            f"store.ssd is {config.store.ssd}, but store.ssd_drives is {asked}, of {ssd.capacity.text} each ({ssd.name}): it needs {needed}"
        )
    return asked


def _terms(config: Config, prices: Prices, gpu: Gpu) -> Terms:
    """The price list's, but for what the configuration says."""
    cost = config.cost
    electricity = None if cost.usd_per_kwh is None else cost.usd_per_kwh / 3.6e6
    return terms(prices, gpu, interest=cost.interest, electricity=electricity, pue=cost.pue, availability=cost.availability)


def _check_prices(config: Config, gpu: Gpu, prices: Prices) -> None:
    """That the price list has the GPU, and can be paid as asked for. Raises ConfigError that names the lists that have it."""
    if gpu.name in prices.gpus:
        if config.cost.gpu_hours == "busy" and prices.gpus[gpu.name].lifetime is not None:
            raise ConfigError(
                f"cost.gpu_hours is busy, but {prices.name} has prices of purchases, which idle GPUs cost too: set"
                " cost.gpu_hours=provisioned"
            )
        return
    folder = config.catalogue
    others = [name for name in catalogue.names("prices", folder) if gpu.name in catalogue.load("prices", name, folder).gpus]
    hint = f"set prices={' or prices='.join(others)}" if others else "add it to a price list of your own"
    raise ConfigError(f"price list {prices.name} has no {gpu.name}, only {', '.join(prices.gpus)}: {hint}")


def _check(config: Config, deployment: Deployment, workload: Workload, tokens: int) -> None:
    """That the workload's longest context of `tokens` can run, and that the warm-up leaves something. Raises ConfigError."""
    tenants = set() if workload.tenant is None else set(map(str, workload.tenant))
    strangers = sorted(set(config.tenant_weights) - tenants)
    if strangers:
        raise ConfigError(
            f"tenant_weights names {', '.join(strangers)}, but the workload's tenants are {', '.join(sorted(tenants)) or 'not named'}"
        )
    last = 0.0 if not workload.arrivals_known else float(np.nanmax(workload.arrival_s))
    if last > LONGEST_S:
        raise ConfigError(f"the last arrival is at {last:.3g} s: kvplan keeps the precision of times up to {LONGEST_S:.0e} s (3 years)")
    if config.warmup_turns >= workload.turns:
        raise ConfigError(
            f"warmup_turns is {config.warmup_turns}, but the workload has {workload.turns} turns: nothing is left to measure; set"
            f" warmup_turns lower, or simulate more sessions"
        )
    needed = deployment.in_hbm(tokens)
    if needed > deployment.hbm_budget:
        raise ConfigError(
            f"a context of {tokens} tokens needs {format_bytes(needed)} of HBM, but beside weights and"
            f" store.hbm there is {format_bytes(deployment.hbm_budget)}: use more GPUs or a smaller deployment.window_tokens"
        )


def of_sessions(config: Config, deployment: Deployment) -> list[str]:
    """That whole sessions are simulated where blocks are taken if that can be, and why."""
    if config.store.unit != "auto" or deployment.pooled:
        return []
    why = why_sessions(config, deployment.model, deployment.hbm_kv)
    kept = "" if deployment.tiers else "; none has a tier, and every turn recomputes its history: store.hbm=20GB, say, keeps some in HBM"
    return [f"a server of whole sessions is simulated, and not one of blocks (store.unit=auto): {why}{kept}"]
