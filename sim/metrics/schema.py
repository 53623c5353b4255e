"""summary.json as types: every key, what it means and its unit. Keys only get added; SCHEMA_VERSION would rise if one went or changed.

Times are in seconds, sizes in bytes, money in US dollars. Definitions are in `kvplan.sim.metrics.summary`. What has no value is None.
"""

from typing import NotRequired, TypedDict

from kvplan.hwmodels.cost import Paid

SCHEMA_VERSION = 1


class HitRates(TypedDict):
    """Shares between 0 and 1."""

    turns: float
    """Turns that found KV, of all turns."""
    resumed: float
    """The same, of the resumed turns: those that are not their session's first."""
    tokens: float
    """History tokens served from cache, of all prompt tokens with history."""
    dram: float
    """Resumed turns served from DRAM."""
    ssd: float
    """Resumed turns served from SSD, those whose KV was still on its way up included."""
    hbm: NotRequired[float]
    """Resumed turns served from HBM, where KV is kept there."""


class Statistics(TypedDict):
    """Of one latency over turns, in seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


class NoStatistics(TypedDict):
    """Of a latency that no turn has."""

    mean: None
    p50: None
    p90: None
    p95: None
    p99: None
    max: None


class ByTurn(TypedDict):
    """Of all turns that have one place within their sessions."""

    turn: int
    """The place, from 0, as in turns.parquet."""
    and_later: bool
    """The row is of all later turns, too."""
    turns: int
    ttft_s: dict[str, float]
    """`mean`, `p50` and `p95`."""
    hit_rate: dict[str, float]
    """Of these turns: `turns` that found KV; `tokens` served from cache, of all their prompt tokens with history."""
    token_hits: NotRequired[dict[str, float]]
    """The latter by the tier that they come from, where a turn can have several: a store of blocks."""


class GpuUse(TypedDict):
    """GPUs of all replicas."""

    busy_s: float
    """Seconds in which a replica works, summed over replicas."""
    busy_h: float
    """GPU hours: the same times its GPUs, in hours."""
    prefill_h: float
    """Of these, prefilling and waiting for KV."""
    utilization: float
    prefill_s: float
    decode_s: float
    load_stall_s: float
    """Waiting for KV that a prefill needs."""
    save_stall_s: float
    """Waiting for KV to leave HBM."""
    prefilled_tokens: int
    """Tokens that were computed and not loaded."""
    gpus: int
    replicas: int


class TierUse(TypedDict):
    """One tier of the store, over all replicas."""

    capacity_bytes: int
    peak_bytes: int
    mean_bytes: float
    written_bytes: int
    read_bytes: int


class LinkUse(TypedDict):
    """One link, over all replicas."""

    bytes: int
    busy_share: float


class LinksAlone(TypedDict):
    """What the links would do."""

    read_bytes_per_s: dict[str, float]
    """Towards the GPUs, by tier, copies of ranks included."""
    request_s: float
    """Of a load, beside its bytes."""
    byte_s: NotRequired[float]
    """Of each of its bytes, beside the links."""


class ByConnector(LinksAlone):
    """What the connector does."""

    name: str
    layerwise: bool
    loads: str
    block_tokens: int
    replicated: bool
    saves_answers: bool


class Moving(TypedDict):
    """KV between HBM and the tiers below."""

    links: LinksAlone
    connector: ByConnector


class Cost(TypedDict):
    """US dollars of the whole run, all replicas together."""

    gpu: float
    """GPUs, by the hours that `gpu_hours` names."""
    dram: float
    """For the whole run, without what comes with rented GPUs; so is the next."""
    ssd: float
    total: float
    """gpu + dram + ssd, and each tier of the user's own, which stands beside them by its name."""
    gpu_provisioned: float
    """GPUs for the whole run."""
    gpu_busy: float
    """GPUs by the busy hour."""
    gpu_hours: Paid
    """Which of the two is paid."""
    included_dram_bytes: int
    """What comes with the rented GPUs; so is the next."""
    included_ssd_bytes: int
    per_million_output_tokens: float | None
    """None when nothing was answered."""
    per_million_input_tokens: float


class SsdWear(TypedDict):
    """What the writes do to the SSD."""

    bytes_per_day: float
    dwpd: float
    """Drive writes per day."""
    lifetime_years: float | None
    """To the rated bytes written; None when nothing is written."""
    drives: int
    """Drives of all replicas, used wholly or in part."""
    drive_bytes: int
    """Their capacity."""


class Summary(TypedDict):
    """One run in numbers."""

    schema_version: int
    turns: int
    """Turns measured: those of the warm-up are cut from everything."""
    sessions: int
    resumed_turns: int
    makespan_s: float
    """From the first arrival (or the end of the warm-up) to the end of the last turn."""
    hit_rate: HitRates
    token_hits: NotRequired[dict[str, float]]
    """Of all prompt tokens with history, those that each tier served, HBM among them; with a store of blocks."""
    ttft_s: Statistics
    """Arrival to first token."""
    prefill_s: Statistics
    """The same without queueing: waiting for KV, and computation."""
    queue_s: Statistics
    tpot_s: Statistics | NoStatistics
    """Per output token after the first; of answers with several."""
    e2e_s: Statistics
    client_wait_s: NotRequired[Statistics]
    """With `workload.clients`: from when a turn is ready until it is sent. No other latency contains it."""
    by_turn: list[ByTurn]
    """Rows by place within the session: the rounds of a load test."""
    prefill_tokens_per_s: float
    """Context tokens per second of prefill and waiting for KV."""
    output_tokens_per_s: float
    output_tokens: int
    context_tokens: int
    """Prompt tokens with history."""
    goodput_per_s: float
    """Turns per second that are within every objective."""
    gpu: GpuUse
    tiers: dict[str, TierUse]
    links: dict[str, LinkUse]
    moving: NotRequired[Moving]
    """How the KV of one replica moves; not where none does."""
    overflow_turns: int
    """Turns whose history was cut to fit into the window."""
    skipped_saves: int
    """KV that found no room and was not kept."""
    preempted_turns: NotRequired[int]
    """Turns that gave way because answers had outgrown HBM, and were computed again; where any did."""
    preemptions: NotRequired[int]
    """How often they did."""
    deferred_turns: NotRequired[int]
    """Turns whose time had come, that waited for their KV while others passed them: it was loaded asynchronously, or was on its way up
    where the prefetch policy holds turns back for it; where any did. vLLM counts these as waiting because `deferred`, others for
    `capacity`."""
    deferrals: NotRequired[int]
    """How often they did."""
    cost_usd: Cost
    ssd_wear: SsdWear
    provenance: dict[str, object]
    """Versions, seed, digest of the configuration, loop, where the turns come from."""
    warnings: list[str]
    intervals: NotRequired[dict[str, dict[str, list[float]] | None]]
    """Of the command: low and high end for each figure of each latency, by bootstrap over sessions."""
    unused_settings: NotRequired[list[str]]
    """Of the command: paths of settings that the run did not read."""
    assumptions: NotRequired[list[dict[str, str]]]
    """Of the command: the catalogue's figures that the run rests on, with their dates and sources."""
    equal_service: NotRequired[dict[str, object]]
    """Of the command, on request: `load`, times the present one, at which TTFT p95 is recomputation's at the present one, and `cost`."""
    recompute: NotRequired[dict[str, object]]
    """Of the command: the summary of the same run without a store, and under `difference` what tells the two apart."""


TURN_COLUMNS = {
    "session": "The session's number, from 0.",
    "turn": "Its place within the session, from 0.",
    "ready_s": "With `workload.clients`: when it could have been sent. `arrival_s` is then when it was.",
    "arrival_s": "When it came.",
    "admitted_s": "When it entered the batch.",
    "first_token_s": "When its prefill ended. Less `arrival_s` it is the TTFT.",
    "done_s": "When its answer ended.",
    "stall_s": "Seconds that its prefill waited for KV to load.",
    "prompt_tokens": "New tokens of its prompt.",
    "history_tokens": "Tokens of the turns before it that fit into the window beside it.",
    "cached_tokens": "Of these, tokens that were loaded and not computed again.",
    "output_tokens": "Tokens of its answer.",
    "order": "Its place in the order in which turns ended, from 0.",
    "hbm_tokens": "Of its prompt tokens with history, those that blocks in HBM served, where blocks are kept; so are the next.",
    "dram_tokens": "Those that chunks in DRAM served.",
    "ssd_tokens": "Those that came up from chunks on SSD.",
    "tier": "The tier that served it, from 0 for the fastest of the store; −1 when nothing was found.",
    "overflow": "1 where history was cut to fit into the window.",
    "replica": "The replica that served it.",
    "preemptions": "How often it gave way because answers had outgrown HBM, where any turn did.",
    "deferrals": "How often it waited for its KV while others passed it, where any turn did.",
}
"""turns.parquet: every column that a run may have, with its meaning; seconds are since the start of the trace."""
