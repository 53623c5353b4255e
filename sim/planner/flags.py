"""What to paste: an option's DRAM and SSD in the words of the engines, exact in their units, and what an engine cannot be told.

The number on a line stands for a whole number of bytes on the node; sizes are rounded down, so that no engine takes more than the option
has. Engines differ in what a number counts:

- vLLM 0.33: GiB of all ranks together (`cpu_bytes_to_use = size · 2³⁰`), or bytes; its SSD tier `fs` has no limit.
- SGLang 0.5.23: GB (1e9) of each rank (`size · 1e9 // bytes per token`), whole numbers; its file backend is given no limit.
- LMCache 0.5.6: "GB" of each worker in its documentation, times 1024³ in its code (`local_cpu_backend.py`, `local_disk_backend.py`).
- TensorRT-LLM 1.4: bytes of each rank.

A plan counts KV once. Engines whose ranks each save their own shard hold it once per rank that has a copy (MLA; fewer KV heads than ranks).
All of them copy downwards: a tier below holds what the tier above holds, so their sizes do not add up as those of a plan with whole
sessions do.

Left out: memory of the engine itself, fragments of blocks, file systems' own share of a drive.
"""

from dataclasses import dataclass, field, replace

from kvplan.hwmodels.units import format_bytes
from kvplan.sim.config import ON_DEVICE, ON_DRIVES, ON_HOST
from kvplan.sim.deployment import Deployment

GIB = 2**30
GB = 10**9
_HUNDREDTH = 100
"""Sizes that may have a fraction are written to two digits, rounded down."""
_FOLDER = "/kv"


@dataclass(frozen=True)
class Sizes:
    """What the flags of one replica are made of: bytes, and how its ranks share them."""

    dram: int
    ssd: int
    ranks: int
    copies: float = 1.0
    """How many times all ranks together hold the same KV, beside what the plan has counted: more than once with MLA, and with fewer KV
    heads than ranks."""
    hbm: int = 0
    """Of all ranks, for KV of running jobs and for prefixes."""
    pooled: bool = False
    """Whether prefixes are blocks in what running jobs leave of it, and tiers below are written through: as the engines do it."""
    caches: bool = True
    """Whether anything is kept between turns, if in HBM alone."""
    node_dram: int | None = None
    drives: int = 0
    drive: str = ""
    """Class, capacity and endurance of one, in words."""
    rated_dwpd: float = 0.0
    """Of a drive, within its warranty."""
    drive_bytes: int = 0
    """Of all drives."""
    kv_bits: float = 16
    """Of an element of KV in HBM."""
    narrower: tuple[tuple[str, str, float], ...] = ()
    """(tier, dtype of KV there, bytes for a byte in HBM)."""

    @staticmethod
    def of(deployment: Deployment) -> "Sizes":
        """Of a replica."""
        tiers, ssd = deployment.sizes, deployment.ssd
        counted = deployment.in_hbm(1) / deployment.stored(1) if deployment.connection.replicated else 1.0
        copies = deployment.in_hbm(1) / deployment.stored(1) / counted
        return Sizes(
            dram=tiers.get(ON_HOST, 0),
            ssd=tiers.get(ON_DRIVES, 0),
            ranks=deployment.gpus,
            copies=copies,
            hbm=deployment.hbm_budget + (0 if deployment.pooled else tiers.get(ON_DEVICE, 0)),
            pooled=deployment.pooled,
            caches=bool(tiers),
            node_dram=None if deployment.node.max_dram is None else round(deployment.node.max_dram.value),
            drives=deployment.drives,
            drive=f"{ssd.name}, {ssd.capacity.text}, {ssd.rated_dwpd.value:g} DWPD over {ssd.warranty.value:g} years",
            rated_dwpd=ssd.rated_dwpd.value,
            drive_bytes=deployment.drive_bytes,
            kv_bits=float(deployment.model.kv_bits),
            narrower=tuple((tier.name.upper(), tier.kv_dtype, tier.copies / counted) for tier in deployment.tiers if tier.kv_dtype),
        )


@dataclass(frozen=True)
class Flag:
    """One line to paste."""

    text: str
    says: str = ""
    """What its numbers mean, in GiB and GB."""
    takes: dict[str, int] = field(default_factory=dict)
    """Tier -> bytes of the node that it makes the engine take."""


@dataclass(frozen=True)
class Flags:
    """What one engine is told, and what it cannot be told."""

    engine: str
    version: str
    lines: tuple[Flag, ...]
    notes: tuple[str, ...]
    source: str

    def data(self) -> dict:
        """Plain, for JSON."""
        lines = [
            {"text": line.text, "says": line.says, **{f"{tier}_bytes": size for tier, size in line.takes.items()}} for line in self.lines
        ]
        return {"engine": self.engine, "version": self.version, "lines": lines, "notes": list(self.notes), "source": self.source}


def flags(sizes: Sizes) -> list[Flags]:
    """Of every engine, and of Kubernetes. Tiers of less than 1 GB a rank, the smallest number that all take, are left out."""
    least = sizes.ranks * GB
    sizes = replace(sizes, dram=sizes.dram if sizes.dram >= least else 0, ssd=sizes.ssd if sizes.ssd >= least else 0)
    return [_vllm(sizes), _sglang(sizes), _lmcache(sizes), _tensorrt(sizes), _kubernetes(sizes)]


def both(size: int) -> str:
    """A size in GiB and in GB."""
    return f"{size / GIB:,.2f} GiB = {size / GB:,.2f} GB"


def warnings(sizes: Sizes) -> list[str]:
    """What holds for all of these engines."""
    found = [
        f"{name} of {format_bytes(size)} is less than 1 GB a rank, the smallest size that all of these engines take: left out"
        for name, size in (("DRAM", sizes.dram), ("SSD", sizes.ssd))
        if 0 < size < sizes.ranks * GB
    ]
    if sizes.pooled and sizes.caches:
        found.append(
            "its hits are those of vLLM's pool, with vLLM's or LMCache's tiers below: SGLang and TensorRT-LLM have rules of their own"
        )
    elif sizes.dram or sizes.ssd:
        found.append(
            "these engines copy downwards and cache prefixes in HBM as well: sizes of their tiers do not add up, as the plan's do"
            + (
                f"; {format_bytes(sizes.dram)} of DRAM below {format_bytes(sizes.hbm)} of HBM add no hits"
                if 0 < sizes.dram <= sizes.hbm
                else ""
            )
        )
    if sizes.kv_bits < 16:
        found.append(
            f"KV has {sizes.kv_bits:g} bits an element: tell the engine too (--kv-cache-dtype of vLLM and SGLang, kv_cache_config.dtype of"
            " TensorRT-LLM), where its default is not that of the model's file"
        )
    found += [
        f"{name} is planned with KV in {dtype}, {share:.3g} of its bytes in HBM: no flag here says so, and an engine that keeps it there as"
        f" in HBM has the same hits with {1 / share:.3g} times the size"
        for name, dtype, share in sizes.narrower
    ]
    if sizes.copies > 1 and (sizes.dram or sizes.ssd):
        larger = format_bytes(sizes.copies * (sizes.dram or sizes.ssd))
        found.append(
            f"{sizes.ranks} ranks hold this model's KV {sizes.copies:g} times over, and each saves its own: the plan counts it once,"
            f" so its hits take {sizes.copies:g} times its sizes with these engines ({larger})"
        )
    return found


def _hundredths(size: int, parts: int) -> tuple[str, int]:
    """GiB of each of so many parts to two digits, rounded down, and the bytes of all parts that this is at most."""
    number = size * _HUNDREDTH // (parts * GIB)
    return _floored(number), parts * (number * GIB // _HUNDREDTH)


def _floored(hundredths: int) -> str:
    return f"{hundredths // _HUNDREDTH}.{hundredths % _HUNDREDTH:02d}"


def _each(total: int, sizes: Sizes, unit: str = "rank") -> str:
    return f"{both(total // sizes.ranks)} a {unit}, {sizes.ranks} of them: {both(total)}" if sizes.ranks > 1 else both(total)


def _vllm(sizes: Sizes) -> Flags:
    notes = ["DYN_KVBM_* variables of Dynamo are no longer read for vLLM"] if sizes.caches else []
    if not sizes.caches:
        lines = [Flag("--no-enable-prefix-caching")]
    elif sizes.ssd and sizes.dram:
        tiers = f'"secondary_tiers":[{{"type":"fs","root_dir":"{_FOLDER}"}}]'
        extra = f'{{"spec_name":"TieringOffloadingSpec","cpu_bytes_to_use":{sizes.dram},{tiers}}}'
        config = f'{{"kv_connector":"OffloadingConnector","kv_role":"kv_both","kv_connector_extra_config":{extra}}}'
        lines = [Flag(f"--kv-transfer-config '{config}'", f"DRAM: {both(sizes.dram)} over all ranks", {ON_HOST: sizes.dram})]
        notes.append(
            f"its SSD tier (fs) has no size limit and evicts nothing: give {_FOLDER} a file system of {both(sizes.ssd)}, and empty it"
        )
    elif sizes.dram:
        number, total = _hundredths(sizes.dram, 1)
        lines = [Flag(f"--kv-offloading-backend native --kv-offloading-size {number}", f"{both(total)} over all ranks", {ON_HOST: total})]
    else:
        lines = [Flag("--enable-prefix-caching")]
        notes.append("prefixes have what running requests leave of --gpu-memory-utilization: no size of their own")
    if sizes.ssd and not sizes.dram:
        notes.append("it has no SSD tier without a CPU pool above it")
    return Flags("vLLM", "0.33", tuple(lines), tuple(notes), "vllm/config/cache.py (kv_offloading_size), vllm/v1/kv_offload/tiering")


def _sglang(sizes: Sizes) -> Flags:
    if not sizes.caches:
        return Flags("SGLang", "0.5.23", (Flag("--disable-radix-cache"),), (), "docs.sglang.io, server arguments")
    lines, notes, source = [], [], "docs.sglang.io/advanced_features/hicache_best_practices, memory_pool_host.py"
    if sizes.dram:
        each = sizes.dram // (sizes.ranks * GB)
        total = each * GB * sizes.ranks
        ratio = f"; or --hicache-ratio {_floored(sizes.dram * _HUNDREDTH // sizes.hbm)} of the HBM pool" if sizes.hbm else ""
        lines.append(Flag(f"--enable-hierarchical-cache --hicache-size {each}", _each(total, sizes) + ratio, {ON_HOST: total}))
    else:
        notes.append("its radix tree has what running requests leave of --mem-fraction-static: no size of its own")
    if sizes.ssd and sizes.dram:
        lines.append(Flag("--hicache-storage-backend file"))
        lines.append(Flag(f"export SGLANG_HICACHE_FILE_BACKEND_STORAGE_DIR={_FOLDER}"))
        notes.append(f"its file backend is given no size here: give {_FOLDER} a file system of {both(sizes.ssd)}")
    return Flags("SGLang", "0.5.23", tuple(lines), tuple(notes), source)


def _lmcache(sizes: Sizes) -> Flags:
    lines, notes = [], []
    if sizes.dram:
        number, total = _hundredths(sizes.dram, sizes.ranks)
        lines.append(
            Flag(f"export LMCACHE_LOCAL_CPU=True LMCACHE_MAX_LOCAL_CPU_SIZE={number}", _each(total, sizes, "worker"), {ON_HOST: total})
        )
    if sizes.ssd:
        number, total = _hundredths(sizes.ssd, sizes.ranks)
        text = f"export LMCACHE_LOCAL_DISK=file://{_FOLDER}/ LMCACHE_MAX_LOCAL_DISK_SIZE={number}"
        lines.append(Flag(text, _each(total, sizes, "worker"), {ON_DRIVES: total}))
    if lines:
        notes.append("its documentation says GB, its code multiplies by 1024³: these numbers are GiB")
        lines.append(Flag("""--kv-transfer-config '{"kv_connector":"LMCacheConnectorV1","kv_role":"kv_both"}'""", "for vLLM"))
        notes.append("answers are not saved unless LMCACHE_SAVE_DECODE_CACHE=True")
        notes.append("vLLM's --kv-offloading-backend lmcache is for a server of its own, which is given the size instead")
    return Flags("LMCache", "0.5.6", tuple(lines), tuple(notes), "docs.lmcache.ai/api_reference/configurations, local_cpu_backend.py")


def _tensorrt(sizes: Sizes) -> Flags:
    keys, takes, notes = {"enable_block_reuse": "true" if sizes.caches else "false"}, {}, []
    if sizes.dram:
        takes[ON_HOST] = sizes.dram // sizes.ranks * sizes.ranks
        keys["host_cache_size"] = str(sizes.dram // sizes.ranks)
    if sizes.ssd:
        takes[ON_DRIVES] = sizes.ssd // sizes.ranks * sizes.ranks
        keys |= {"disk_cache_size": str(sizes.ssd // sizes.ranks), "disk_cache_path": _FOLDER}
        notes.append("disk_cache_size needs its KV cache manager V2, new in 1.4; 1.3 has the host tier only")
    text = f"kv_cache_config: {{{', '.join(f'{key}: {value}' for key, value in keys.items())}}}"
    says = "; ".join(f"{tier.upper()} {_each(size, sizes)}" for tier, size in takes.items())
    return Flags("TensorRT-LLM", "1.4", (Flag(text, says, takes),), tuple(notes), "nvidia.github.io/TensorRT-LLM, KvCacheConfig")


def _kubernetes(sizes: Sizes) -> Flags:
    lines, notes = [], []
    if sizes.dram:
        quantity, total = _quantity(sizes.dram, sizes.node_dram)
        lines.append(Flag(f"resources: {{limits: {{memory: {quantity}}}}}", f"{both(total)}: the pinned pool alone; add the engine's own"))
    if sizes.ssd:
        quantity, total = _quantity(sizes.ssd, sizes.drive_bytes)
        claim = f"resources: {{requests: {{storage: {quantity}}}}}"
        lines.append(Flag(claim, f"{both(total)}: of a PVC on local NVMe, mounted at {_FOLDER}"))
        notes.append(f"drives of a node: {sizes.drives} x {sizes.drive}")
    return Flags("Kubernetes", "1.30", tuple(lines), tuple(notes), "kubernetes.io/docs/concepts/configuration/manage-resources-containers")


def _quantity(size: int, most: int | None) -> tuple[str, int]:
    """Whole Gi that hold the size, and not more than the node has."""
    number = -(-size // GIB)
    if most is not None and number * GIB > most >= size:
        number = most // GIB
    return f"{number}Gi", number * GIB
