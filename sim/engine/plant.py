"""What a configuration means in seconds and bytes for one replica: catalogue entries looked up, budgets worked out, sizes checked."""

import math
from dataclasses import dataclass

from kvplan.hwmodels import (
    CatalogueError,
    Gpu,
    Model,
    Node,
    Prices,
    Ssd,
    StepTime,
    catalogue,
    host_bandwidth,
    kvsize,
    ssd_bandwidth,
    step_time,
)
from kvplan.hwmodels.units import format_bytes, parse_bytes
from kvplan.sim.config import Config, ConfigError
from kvplan.traces import Workload


@dataclass(frozen=True)
class Plant:
    """Numbers of one replica. Bytes and seconds."""

    model: Model
    node: Node
    gpu: Gpu
    ssd: Ssd
    prices: Prices
    steps: StepTime
    gpus: int
    """Of one replica."""
    kv_bytes: int
    """Per token, as DRAM and SSD store it."""
    hbm_kv_bytes: int
    """Per token, in the HBM of all ranks together."""
    window: int
    """Tokens of context at most."""
    hbm_budget: int
    """HBM bytes for the KV of running jobs."""
    tiers: tuple[tuple[str, int, int], ...]
    """(name, capacity, reserve) of the tiers that are switched on, fastest first."""
    host_to_device_bytes_per_s: float
    """Over all host links that the replica's GPUs use together."""
    device_to_host_bytes_per_s: float
    host_link_latency_s: float
    ssd_read_bytes_per_s: float
    """Of all drives together."""
    ssd_write_bytes_per_s: float
    ssd_latency_s: float
    read_buffer: int
    """HBM bytes that are filled before a job starts."""
    write_buffer: int
    piece: int


def plant(config: Config) -> Plant:
    """Looks everything up. Raises ConfigError when an entry is unknown or the model does not fit."""
    try:
        model = catalogue.load("model", config.model, config.catalogue)
        node = catalogue.load("node", config.hardware, config.catalogue)
        gpu = catalogue.load("gpu", node.gpu, config.catalogue)
        link = catalogue.load("link", node.host_link, config.catalogue)
        ssd = catalogue.load("ssd", node.ssd, config.catalogue)
        prices = catalogue.load("prices", config.prices, config.catalogue)
        _check_prices(config, gpu, prices)
        gpus = config.deployment.gpus or int(node.max_gpus.value)
        steps = step_time(model, gpu, node, gpus, config.catalogue)
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
    kv_bytes = kvsize.kv_bytes_per_token(model)
    hbm_kv_bytes = kvsize.hbm_kv_bytes_per_token(model, gpus)
    tiers = tuple(
        (name, size, int(config.store.host_buffer * size))
        for name, size in (
            ("hbm", parse_bytes(store.hbm)),
            ("dram", parse_bytes(store.dram)),
            ("ssd", parse_bytes(store.ssd)),
        )
        if size
    )
    write_buffer = parse_bytes(store.write_buffer) if tiers else 0
    layers = min(store.read_buffer_layers, model.num_hidden_layers)
    reads_ahead = tiers and store.preload == "layerwise"
    read_buffer = window * hbm_kv_bytes * layers // model.num_hidden_layers if reads_ahead else 0
    total = gpus * gpu.hbm.value * config.deployment.hbm_utilization
    budget = int(total - kvsize.weight_bytes(model) - read_buffer - write_buffer - parse_bytes(store.hbm))
    if budget < hbm_kv_bytes:
        raise ConfigError(
            f"{model.name} does not fit: {gpus} x {gpu.name} give {format_bytes(total)} of HBM"
            f" (hbm_utilization {config.deployment.hbm_utilization:g}); weights take {format_bytes(kvsize.weight_bytes(model))},"
            f" the read buffer {format_bytes(read_buffer)}, the write buffer {format_bytes(write_buffer)},"
            f" store.hbm {format_bytes(parse_bytes(store.hbm))}: use more GPUs or smaller buffers"
        )
    to_device, to_host = host_bandwidth(node, link, gpus)
    ssd_read, ssd_write = ssd_bandwidth(node, ssd)
    return Plant(
        model=model,
        node=node,
        gpu=gpu,
        ssd=ssd,
        prices=prices,
        steps=steps,
        gpus=gpus,
        kv_bytes=kv_bytes,
        hbm_kv_bytes=hbm_kv_bytes,
        window=window,
        hbm_budget=budget,
        tiers=tiers,
        host_to_device_bytes_per_s=to_device,
        device_to_host_bytes_per_s=to_host,
        host_link_latency_s=link.latency.value,
        ssd_read_bytes_per_s=ssd_read,
        ssd_write_bytes_per_s=ssd_write,
        ssd_latency_s=ssd.latency.value,
        read_buffer=read_buffer,
        write_buffer=write_buffer,
        piece=max(1, parse_bytes(store.piece)),
    )


def rated_writes(built: Plant) -> float:
    """Bytes/s that the SSD tier may be written on average to last its warranty; infinite without one."""
    capacity = {name: size for name, size, _ in built.tiers}.get("ssd")
    return math.inf if capacity is None else built.ssd.rated_dwpd.value * capacity / 86_400


def _check_prices(config: Config, gpu: Gpu, prices: Prices) -> None:
    """That the price list has the GPU. Raises ConfigError that names the lists that do."""
    if gpu.name in prices.gpus:
        return
    folder = config.catalogue
    others = [name for name in catalogue.names("prices", folder) if gpu.name in catalogue.load("prices", name, folder).gpus]
    hint = f"set prices={' or prices='.join(others)}" if others else "add it to a price list of your own"
    raise ConfigError(f"price list {prices.name} has no {gpu.name}, only {', '.join(prices.gpus)}: {hint}")


def check(config: Config, built: Plant, workload: Workload) -> None:
    """That the workload's longest context can run and be stored, and that the warm-up leaves something. Raises ConfigError."""
    tenants = set() if workload.tenant is None else set(map(str, workload.tenant))
    strangers = sorted(set(config.tenant_weights) - tenants)
    if strangers:
        raise ConfigError(
            f"tenant_weights names {', '.join(strangers)}, but the workload's tenants are {', '.join(sorted(tenants)) or 'not named'}"
        )
    if config.warmup_turns >= workload.turns:
        raise ConfigError(f"warmup_turns is {config.warmup_turns}, but the workload has {workload.turns} turns: nothing is left to measure")
    tokens = min(int(workload.session_tokens.max()), built.window)
    if tokens * built.hbm_kv_bytes > built.hbm_budget:
        raise ConfigError(
            f"a context of {tokens} tokens needs {format_bytes(tokens * built.hbm_kv_bytes)} of HBM, but beside weights and"
            f" buffers there is {format_bytes(built.hbm_budget)}: use more GPUs or a smaller deployment.window_tokens"
        )
    for name, capacity, _ in built.tiers:
        if tokens * built.kv_bytes > capacity:
            raise ConfigError(
                f"the longest session holds {tokens} tokens, {format_bytes(tokens * built.kv_bytes)} of KV, and does not fit into"
                f" store.{name} ({format_bytes(capacity)}): make it larger, or 0GB to switch it off"
            )
