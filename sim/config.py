"""The configuration: strict, frozen, complete. Paths are stable (`store.dram`), unknown ones are errors that name the nearest.

A configuration is a packaged preset (`sim/presets/*.yaml`) or a YAML file, on top of what its engine has (`sim/enginesets.py`) and of the
defaults below, then `--set` on top of that. Sizes keep the unit that they were written with.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from kvplan.hwmodels import strictyaml, units
from kvplan.hwmodels.catalogue import explain, nearest
from kvplan.hwmodels.cost import Paid
from kvplan.hwmodels.kvsize import Keeps, KvDtype
from kvplan.hwmodels.schema import Loads
from kvplan.sim import enginesets
from kvplan.sim.policies import registry
from kvplan.sim.policies.base import Admission
from kvplan.sim.policies.registry import PolicyError
from kvplan.traces.columns import checked
from kvplan.traces.generate import laws
from kvplan.traces.generate.arrivals import Arrival, Poisson
from kvplan.traces.generate.distributions import LogNormal, ThinkTime


class ConfigError(ValueError):
    """The configuration cannot be run; the message lists every finding."""


_LARGEST_SIZE = 10**18


def _with_unit(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"{value} has no unit: write {value}GB, or {value}GiB")
    return value


def _size(text: str) -> str:
    if units.parse_bytes(text) > _LARGEST_SIZE:
        raise ValueError(f"{text!r} is more than {units.format_bytes(_LARGEST_SIZE)}")
    return text


def _policy(kind: str):
    def check(name: str) -> str:
        try:
            registry.check_name(kind, name)
        except PolicyError as error:
            raise ValueError(str(error)) from None
        return name

    return check


Size = Annotated[str, BeforeValidator(_with_unit), AfterValidator(_size)]
"""`"128GB"`: text with a unit, kept as written; `units.parse_bytes` gives the bytes."""


def _quantity(dimension: str, example: str) -> BeforeValidator:
    """Text with a unit of that dimension, kept as written, of 0 or more."""

    def check(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError(f"{value} has no unit: write it like {example!r}")
        if units.parse(value, dimension) < 0:
            raise ValueError(f"{value!r} is negative")
        return value

    return BeforeValidator(check)


def _dtypes(value: object) -> object:
    """A dtype of KV, or dtypes by tier."""
    known = get_args(KvDtype)
    for each in value.values() if isinstance(value, dict) else [value]:
        if each is not None and each not in known:
            raise ValueError(f"{each!r} is not one of {', '.join(known)}: give one for all tiers, or by tier, {{dram: fp8, ssd: nvfp4}}")
    return value


class _Section(BaseModel):
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True, validate_default=True, allow_inf_nan=False)


class DeploymentConfig(_Section):
    """How the model is served."""

    gpus: Annotated[int, Field(ge=1, le=1024)] | None = None
    """GPUs of one replica, tensor parallel; null takes all of the node's."""
    max_batch: Annotated[int, Field(ge=1, le=100_000)] = 24
    """Most jobs that run at once on one replica."""
    step_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Most tokens of a step, for a `batching` that packs them: vLLM's max_num_batched_tokens, SGLang's chunked_prefill_size; null takes the
    engine's default for the GPU."""
    prefill_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Tokens of the prompts that share a step, for `batching: prefill-first`: SGLang's max_prefill_tokens; null takes its default."""
    admission: Admission | None = None
    """HBM that a job must find to enter: of its whole `answer`; of its `prompt` alone, as in vLLM; of its answer beside a `share` of what
    those of others may still take, as in SGLang; with these two jobs give way, and are computed again, when answers have outgrown HBM.
    null: what `batching` does."""
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Independent replicas, each on its own node with its own store; `router` says which turn goes where."""
    hbm_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of HBM for weights, KV and buffers; the rest is for activations and the runtime (vLLM's gpu_memory_utilization)."""
    window_tokens: Annotated[int, Field(ge=2)] | None = None
    """Context window; null takes the model's."""
    truncation_ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the history, oldest first, that is cut off when prompt, history and answer do not fit into the window."""
    step_time_factor: Annotated[float, Field(ge=1e-3, le=100)] = 1.0
    """Every step of the GPU takes this many times as long as calibration or roofline say: their error, as a what-if."""
    host_step_s: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Seconds that the host works on each step, scheduling it, preparing its inputs and dealing with its outputs, beside the little that
    step times have in them."""
    host_request_s: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same for each request in the step."""
    host_work: Literal["hidden", "added"] = "added"
    """Whether the host works a step ahead, so that a step takes as long as the longer of GPUs and host (`hidden`), or they wait for it."""
    link_efficiency: Annotated[float, Field(ge=1e-6, le=1)] = 1.0
    """Share of what `store.connector` and the links give that KV is moved with: the error of their figures, as a what-if."""
    kv_dtype: KvDtype | None = None
    """KV in HBM, as attention reads it; null takes that of the model's file."""


_Rate = Annotated[str, _quantity("bytes_per_s", "30GB/s")]
ON_DEVICE, ON_HOST, ON_DRIVES = "hbm", "dram", "ssd"
"""The tiers that lie in the GPUs' memory, in the node's and on its drives."""
SHORTHANDS = (ON_DEVICE, ON_HOST, ON_DRIVES)
"""Tiers of a name alone, fastest first: the node has them, and `store` has a size for each."""
_TAKEN = ("turns", "resumed", "tokens", "gpu", "total", "prompt", "history", "cached", "output")
"""What results name beside tiers: in hit rates, in costs, and in columns of tokens."""


class TierSetting(_Section):
    """A tier of the store: a shorthand, or one of the user's own, which the node reaches over the host link and over links of its own."""

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9]*$")]
    """`hbm`, `dram` or `ssd`, whose sizes are those of the store; or a new name, with all of the following."""
    size: Size | None = None
    """Bytes for KV; 0GB switches the tier off."""
    read: _Rate | None = None
    """Bandwidth of its own links, towards the GPU."""
    write: _Rate | None = None
    """The same, into the tier."""
    latency: Annotated[str, _quantity("seconds", "2us")] | None = None
    """Of a transfer over its own links."""
    price: Annotated[str, _quantity("usd_per_byte_s", "0.001USD/GB/h")] | None = None
    """A rent, which no price list has: 0USD/GB/h when another price contains it."""
    objects: bool = False
    """Whether it is a storage of objects, as Mooncake's store, that knows no contexts; with store.unit=block, below DRAM."""

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _whole(self) -> Self:
        said = {name: getattr(self, name) for name in ("size", "read", "write", "latency", "price")}
        given, lacks = ([name for name, value in said.items() if (value is None) is missing] for missing in (False, True))
        if self.name in SHORTHANDS and given:
            raise ValueError(f"{self.name} takes no {', '.join(given)} here: its size is store.{self.name}, and the node has the rest")
        if self.name not in SHORTHANDS and lacks:
            raise ValueError(f"tier {self.name} lacks {', '.join(lacks)}: only {', '.join(SHORTHANDS)} are known by name alone")
        if self.name in SHORTHANDS and self.objects:
            raise ValueError(
                f"{self.name} is no storage of objects: give one of your own, such as {{name: pool, objects: true, size: ...}}"
            )
        if self.name in _TAKEN:
            raise ValueError(f"a tier cannot be called {self.name}: results say something else by that name")
        if any(value is not None and not units.parse(value, "bytes_per_s") for value in (self.read, self.write)):
            raise ValueError(f"tier {self.name} has links of no bandwidth: give the tier 0GB to switch it off")
        return self


class Store(_Section):
    """The KV store of one replica's node."""

    hbm: Size = "0GB"
    """HBM set aside to keep KV across turns; CachedAttention keeps none. With blocks, the most that is kept of what jobs leave, 0GB: all
    of it."""
    dram: Size = "128GB"
    """Host memory for KV; 0GB switches the tier off."""
    ssd: Size = "10TB"
    """Drives for KV; 0GB switches the tier off. With no tier at all the server recomputes."""
    tiers: list[TierSetting] | None = None
    """Order of the tiers, fastest first, with tiers of one's own: `[hbm, dram, {name: cxl, size: 512GB, read: 30GB/s, write: 30GB/s,
    latency: 2us, price: 0.001USD/GB/h}, ssd]`; null is `[hbm, dram, ssd]`."""
    ssd_drives: Annotated[int, Field(ge=1, le=1000)] | None = None
    """SSDs of the node, of which `ssd` is a part; null takes those that the node has, or as many as `ssd` needs."""
    eviction: Annotated[str, AfterValidator(_policy("eviction"))] = "lookahead"
    """What leaves a tier that needs room."""
    prefetch: Annotated[str, AfterValidator(_policy("prefetch"))] = "lookahead"
    """Which waiting sessions' KV is fetched from SSD before their jobs start; with blocks best-effort, timeout and wait-complete do."""
    load: Annotated[str, AfterValidator(_policy("load"))] = "faster"
    """How much of a cached history a job loads, and how much it recomputes: `faster` never waits for longer than recomputing takes."""
    connector: str = "cachedattention"
    """What moves KV between HBM and the tiers below, see `kvplan list connectors`: its bandwidth, the time of a request, whether it loads
    layer by layer, the blocks that it keeps, copies of ranks, and whether answers are saved."""
    write: Annotated[str, AfterValidator(_policy("write"))] = "back"
    """When KV goes down a tier: `back` on demotion, `through` at once, `second-hit` only that of sessions that came back."""
    ssd_write: Literal["delta", "whole"] = "delta"
    """`delta` keeps the SSD copy of a fetched session and writes only what it lacks; `whole` moves sessions."""
    save: Literal["async", "sync"] = "async"
    """`async` saves layer by layer while the GPU computes; `sync` when the turn has ended, and the GPU waits."""
    saved: Literal["all", "prompt"] | None = None
    """What of a turn is saved: its prompt with `all` of its answer, or the `prompt` alone; null does what `connector` does."""
    load_mode: Loads | None = None
    """`layerwise` loads a layer's KV while those before it are computed; `blocking` loads all of it first, and the GPUs wait;
    `asynchronous` too, and the GPUs go on with other jobs, while the job waits with its HBM reserved; null does what `connector` does."""
    read_buffer_layers: Annotated[int, Field(ge=0, le=10_000)] = 15
    """Layers of KV that are loaded into HBM before a job starts."""
    write_buffer: Size = "1GB"
    """HBM for KV that is not yet saved when its job ends."""
    positions: Literal["decoupled", "embedded"] = "decoupled"
    """`decoupled` KV stays valid when the oldest history is cut off; `embedded` KV does not."""
    unit: Literal["session", "block", "auto"] = "session"
    """What is kept: whole `session`s, or `block`s that all requests with the same prefix share, by the rules of `mode`, in HBM that running
    requests leave and below it (modes vllm and lmcache; `curve`); `auto` is blocks, or whole sessions where some windows or states of a
    model, or a setting that is of whole sessions need them, and results say so."""
    mode: Literal["vllm", "sglang", "lmcache", "kvcache-simulator"] = "vllm"
    """Whose rules a cache of blocks goes by: what a lookup finds, what goes first."""
    block_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Tokens that are kept and found together or not at all; null takes, of whole sessions, the connector's, and of blocks those of the
    trace's block hashes, or the mode's own; more where a model keeps states, as one lies in a block (mode vllm)."""
    chunk_blocks: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Blocks of HBM that are one chunk in DRAM (mode vllm)."""
    retention: Literal["boundary", "dense"] = "boundary"
    """Which blocks of layers with a window or a state a pool of blocks keeps for others: those before the end of a prompt, and before
    where it parts from others, or of windows all (mode vllm, `curve`)."""
    threshold: Annotated[int, Field(ge=1, le=1000)] = 1
    """A chunk is stored in DRAM when it is offered for this many-th time, as by vLLM's store_threshold (mode vllm)."""
    defers: bool = False
    """Of blocks: others pass a job that would load chunks which are on their way to the tier that jobs load from, or to another job, until
    they have come; else it loads what is there, and computes the rest."""
    ttl_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which KV that nobody used is dropped: from a turn's end to the next one's arrival, of blocks to the start of a next one
    that shares them; null keeps it."""
    windows: Keeps | None = None
    """What is kept of layers that attend to a window of tokens: `windowed` keeps those in it, as vLLM does since May 2026 and SGLang, and
    `every-token` all, as before; of blocks HBM then holds all, too, as in vLLM without its hybrid manager, and else blocks of layers in
    groups, as with it. null: `windowed`, unless every
    layer has a window."""
    kv_dtype: Annotated[KvDtype | dict[str, KvDtype] | None, BeforeValidator(_dtypes)] = None
    """KV below HBM, in all tiers (`fp8`) or by tier (`{dram: fp8, ssd: nvfp4}`): bf16, fp8 or nvfp4. null keeps it as HBM has it; a tier
    not named keeps what the tier above has."""
    host_buffer: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a tier that demotion keeps free."""
    piece: Size = "64MiB"
    """Background transfers are booked a piece of this size at a time."""

    @model_validator(mode="after")
    def _each_tier_in_its_place(self) -> Self:
        names = [tier.name for tier in self.listed]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tiers has {', '.join(twice)} more than once")
        ahead = [
            name for name in SHORTHANDS[:2] if name in names and any(each not in SHORTHANDS[:2] for each in names[: names.index(name)])
        ]
        if ahead or ON_DEVICE in names[1:]:
            raise ValueError(f"tiers is {', '.join(names)}: hbm comes first, then dram, and then what has links of its own")
        unnamed = [name for name in SHORTHANDS if name not in names and units.parse_bytes(getattr(self, name))]
        if unnamed:
            raise ValueError(f"tiers leaves out {', '.join(unnamed)}: name it, or set {', '.join(f'store.{name}=0GB' for name in unnamed)}")
        return self

    @model_validator(mode="after")
    def _dtypes_of_tiers(self) -> Self:
        if not isinstance(self.kv_dtype, dict):
            return self
        below = [tier.name for tier in self.listed if tier.name != ON_DEVICE]
        if ON_DEVICE in self.kv_dtype:
            raise ValueError(f"kv_dtype has {ON_DEVICE}, where KV lies as the GPUs read it: set deployment.kv_dtype")
        if strangers := sorted(set(self.kv_dtype) - set(below)):
            raise ValueError(f"kv_dtype names {', '.join(strangers)}, but the tiers are {', '.join(below)}")
        return self

    @property
    def listed(self) -> list[TierSetting]:
        """Fastest first, those of no size too."""
        return [TierSetting(name=name) for name in SHORTHANDS] if self.tiers is None else self.tiers

    def dtype_of(self, tier: TierSetting) -> KvDtype | None:
        """Of KV in a tier, where it is named; None for what is above it."""
        named = self.kv_dtype.get(tier.name) if isinstance(self.kv_dtype, dict) else self.kv_dtype
        return None if tier.name == ON_DEVICE else named

    def size_of(self, tier: TierSetting) -> int:
        """Bytes."""
        return units.parse_bytes(getattr(self, tier.name) if tier.size is None else tier.size)


class Rescale(_Section):
    """What-if: a denser, larger or longer workload than the one recorded or generated."""

    rate: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    """Sessions arrive this many times as fast."""
    sessions: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """This many times as many sessions in the same time."""
    context: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    """Prompts and answers this many times as long."""
    output: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    """Answers alone this many times as long."""
    think: Annotated[float, Field(gt=0, le=1e4)] = 1.0
    """Think times this many times as long."""
    resample: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """A run of this many sessions, drawn with replacement from those of the trace."""


class Clients(_Section):
    """A load test's client, which sends turns as answers come: a closed population, one for the whole service."""

    outstanding: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """A load test's client instead of arrivals and think times: most turns that are sent and not yet answered, over all replicas; null
    sends every turn that is ready."""
    active: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Most sessions that are open at once: the next one begins when one has ended; null opens all at the start."""
    order: Literal["fifo", "random"] = "fifo"
    """Which of the turns that are ready is sent: the first that became ready, or any."""
    barrier: bool = False
    """Rounds: no session's next turn is ready before all sessions have had the answers to their turns of this round."""
    rate_per_s: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    """Pace: a turn is sent 1/rate after the one before at the earliest; null sends at once."""
    pause_s: Annotated[float, Field(ge=0, le=1e7)] = 0.0
    """From an answer to when its session's next turn is ready; with a barrier, from the last answer of the round."""

    @model_validator(mode="after")
    def _rounds_are_of_all(self) -> Self:
        if self.barrier and self.active is not None:
            raise ValueError("barrier keeps all sessions in step, active lets some begin when others have ended: take one of them")
        return self

    @property
    def most(self) -> int | None:
        """Turns that can be outstanding, as far as these settings say."""
        return min((limit for limit in (self.outstanding, self.active) if limit is not None), default=None)

    @property
    def named(self) -> str:
        """In a few words."""
        return ("all at once" if self.most is None else f"closed population of {self.most:,}") + ", in rounds" * self.barrier


def _constant(found: object) -> object:
    """A number is one distribution."""
    return {"distribution": "constant", "value": found} if type(found) is int else found


class Texts(_Section):
    """Texts that sessions begin with and share."""

    count: Annotated[int, Field(ge=1, le=10_000_000)] = 20
    """How many there are."""
    tokens: Annotated[laws.Length, BeforeValidator(_constant)] = laws.Constant(distribution="constant", value=3000)
    """Tokens of each: a number, or a distribution of them."""
    zipf: Annotated[float, Field(ge=0, le=10)] = 0.0
    """How uneven they are used: the n-th as often as 1/n to this power; 0 is all alike."""


class WorkloadConfig(_Section):
    """Sessions from a generator, or from a trace file."""

    kind: Literal["sharegpt", "synthetic"] = "sharegpt"
    """`sharegpt` draws from the published ShareGPT-90K distributions, `synthetic` from `turns`, `prompt_tokens` and `output_tokens`."""
    sessions: Annotated[int, Field(ge=1, le=100_000_000)] = 2000
    """Sessions to generate; a trace file has its own."""
    max_turns: Annotated[int, Field(ge=1)] = 40
    """Turns at which a generated session ends."""
    max_tokens: Annotated[int, Field(ge=2)] = 32_768
    """Tokens at which a generated session ends."""
    length_correlation: Annotated[float, Field(ge=0, le=1)] = 0.15
    """How much the lengths of one session's turns are alike (kind sharegpt)."""
    turns: laws.Length = laws.Exponential(distribution="exponential", mean=5.0)
    """Turns per session (kind synthetic), like the two below rounded to whole numbers of at least 1."""
    prompt_tokens: laws.Length = laws.LogNormal(distribution="lognormal", median=30.0, sigma=1.5)
    """Tokens of a prompt, without history (kind synthetic)."""
    first_prompt_tokens: Annotated[laws.Law | None, Field(discriminator="distribution")] = None
    """Tokens of a session's first prompt, of an agent that begins with files and tools; null is like the others (kind synthetic)."""
    first_prompt_correlation: Annotated[float, Field(ge=-1, le=1)] = 0.0
    """Of a session's first prompt with its turns: below 0, long first prompts begin short sessions (kind synthetic)."""
    output_tokens: laws.Length = laws.LogNormal(distribution="lognormal", median=250.0, sigma=1.0)
    """Tokens of an answer (kind synthetic)."""
    system_prompt_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """A system prompt that begins every session; a store of sessions does not share it."""
    applications: Texts | None = None
    """Applications, each with instructions and tools of its own that its sessions begin with, after the system prompt; null: none."""
    documents: Texts | None = None
    """Documents that sessions ask about, each with one of them at its start, after its application's text; null: none."""
    forks: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the sessions that go on from the history of an earlier one up to one of its answers, each in its own way."""
    tenants: dict[str, float] = {}
    """Shares of the sessions by tenant, `{free: 0.8, pro: 0.2}`; empty keeps what a trace says."""
    tenants_apart: bool = False
    """Whether tenants share no prefixes, as with a cache salt for each; false: they do where their texts are the same."""
    trace: Annotated[str, Field(min_length=1)] | None = None
    """A file, or a folder of files, to replay instead of generated sessions."""
    format: str | None = None
    """Of the trace, see `kvplan list formats`; null finds out."""
    tokenizer: str | None = None
    """Counts a trace's text: a `tokenizer.json`, SentencePiece or tiktoken file, `tekken.json`, or a model's folder; null estimates it."""
    vocabulary: str | None = None
    """Family of vocabularies that text is estimated for, such as llama-3 or qwen; null: the model's."""
    skip_bad: bool = False
    """Leave bad records of a trace out and count them, instead of refusing it."""
    records: Literal["conversations", "requests", "increments"] | None = None
    """What a record of a trace is: a whole conversation, a request with all of its history, or only what a request adds; null finds out."""
    times: Literal["s", "ms", "exact"] | None = None
    """Unit of a trace's times; `exact`: its format's own, however odd what they imply; null: its format's own, if that can be."""
    block_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens of a block of a trace's hashes; null takes the file's word, or else its format's."""
    columns: Annotated[dict[str, str], AfterValidator(checked)] = {}
    """Which column or key of a trace holds what, `{session: user, arrival: ts, prompt: in, output: out}`; any table is read so."""
    answer_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 250
    """Tokens of an answer that a trace leaves to the server, as AIPerf's sessions may."""
    picture_tokens: Annotated[int, Field(ge=0, le=1_000_000)] = 1000
    """Tokens of a picture in a prompt of a trace."""
    reasoning: Literal["dropped", "kept"] | None = None
    """Whether reasoning stays in the history; null: what a trace marks as such does not, and other answers hold none; `dropped`: all do."""
    answers_reused: bool = True
    """False: clients send answers back tokenised anew, so that the KV of an answer is of no use and its text is prefilled again."""
    loop: Literal["recorded", "open", "closed"] = "recorded"
    """`open` replays the times of a trace, `closed` its think times, `recorded` what the trace has."""
    steady: bool = False
    """A cut out of an endless stream: sessions are under way at the start, and break off when the last one has arrived. Without it every
    session runs from its first turn to its last, and the load rises and falls."""
    rescale: Rescale = Rescale()
    arrival: Arrival = Poisson(rate_per_s=0.2)
    """Arrivals of sessions; a trace with times has its own."""
    think_time: ThinkTime = LogNormal(median_s=30.0, sigma=1.0)
    """From an answer to the next prompt; a trace with times has its own."""
    clients: Clients | None = None
    """A closed population sends the turns, as load tests do: no arrival times and no think times. null: sessions come by themselves."""

    @model_validator(mode="after")
    def _one_clock(self) -> Self:
        """Settings of when sessions come, which somebody means who has changed them, beside clients that decide it."""
        meant = {
            "loop": self.loop == "open",
            "steady": self.steady,
            "rescale.rate": self.rescale.rate != 1,
            "rescale.think": self.rescale.think != 1,
        }
        named = [name for name, is_meant in meant.items() if is_meant]
        if self.clients is not None and named:
            raise ValueError(
                f"clients decide when turns are sent, so {', '.join(named)} would say nothing: leave it out, or set clients to null"
            )
        return self


class Cost(_Section):
    """How a run is paid for, at the prices of a list."""

    gpu_hours: Paid = "provisioned"
    """`provisioned`: for the whole run, busy or not; `busy`: by the busy hour, the measure of CachedAttention."""
    interest: Annotated[float, Field(ge=0, le=1)] | None = None
    """A year, on what is bought, 0.08 for 8 %; null takes the price list's, like the next three. A rent contains them."""
    usd_per_kwh: Annotated[float, Field(ge=0, le=10)] | None = None
    """Price of electricity."""
    pue: Annotated[float, Field(ge=1, le=10)] | None = None
    """Power of the hall over that of its servers."""
    availability: Annotated[float, Field(gt=0, le=1)] | None = None
    """Hours in service of all hours."""
    horizon_years: Annotated[float, Field(gt=0, le=30)] = 3.0
    """Years that `plan` counts costs and the wear of drives over."""
    write_amplification: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Bytes that wear a drive per byte written, against those of its rating; 1 for large pieces, as ratings are of small random writes."""
    worn_drives: Literal["replace", "refuse"] = "replace"
    """What `plan` does with bought drives that wear out within the horizon: `replace` adds their price, `refuse` rules the store out."""


_Limit = Annotated[float, Field(gt=0, le=1e6)] | None
_Share = Annotated[float, Field(gt=0, lt=1)] | None


class Slo(_Section):
    """Service-level objectives. `plan` meets all of them. Goodput counts the turns that are within every limit on a 95th percentile."""

    ttft_mean_s: _Limit = None
    """Seconds from arrival to first token, in the mean."""
    ttft_p50_s: _Limit = None
    """Of half of the turns at most."""
    ttft_p95_s: _Limit = None
    """Of 95 % of the turns at most."""
    ttft_p99_s: _Limit = None
    """Of 99 % of the turns at most."""
    tpot_mean_s: _Limit = None
    """Seconds per output token after the first, in the mean."""
    tpot_p95_s: _Limit = None
    """Of 95 % of the turns at most."""
    tpot_p99_s: _Limit = None
    """Of 99 % of the turns at most."""
    e2e_mean_s: _Limit = None
    """Seconds from arrival to the last token, in the mean."""
    e2e_p95_s: _Limit = None
    """Of 95 % of the turns at most."""
    e2e_p99_s: _Limit = None
    """Of 99 % of the turns at most."""
    goodput_share: _Share = None
    """Share of the turns that must be within `ttft_p95_s` and `tpot_p95_s`, both at once."""
    hit_rate: _Share = None
    """Share of the prompt tokens, history included, that must come from the store."""


class Config(_Section):
    """Everything that a run depends on."""

    engine: Annotated[str, AfterValidator(enginesets.check_name)] = enginesets.DEFAULT
    """Whose server it is, see `kvplan list engines`: what that has for batching, memory and store, where nothing else is said."""
    model: str = "llama-2-13b"
    """A name of `kvplan list models`, or the path of a HuggingFace config.json."""
    hardware: str = "a100-80g-pcie4"
    """The node of one replica, a name of `kvplan list hardware`."""
    deployment: DeploymentConfig = DeploymentConfig()
    workload: WorkloadConfig = WorkloadConfig()
    scheduler: Annotated[str, AfterValidator(_policy("scheduling"))] = "fcfs"
    """Which waiting turn goes next."""
    batching: Annotated[str, AfterValidator(_policy("batching"))] = "iteration"
    """What a step of the GPUs holds: prefills, decodes or both."""
    router: Annotated[str, AfterValidator(_policy("routing"))] = "session"
    """Which replica a turn goes to; with `session` a session stays with one."""
    tenant_weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = {}
    """Weights of tenants by name, `{pro: 4, free: 1}`: shares under `fair-share`, precedence under `priority`; 1 for those not named."""
    store: Store = Store()
    prices: str = "paper-2024"
    """A price list, see `kvplan list prices`."""
    cost: Cost = Cost()
    catalogue: str | None = None
    """A folder of the user's own GPUs, links, SSDs, nodes, models and price lists, beside the packaged ones."""
    slo: Slo = Slo()
    warmup_turns: Annotated[int, Field(ge=0)] = 0
    """Turns that end before measuring begins."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Of everything that is drawn at random."""

    def recompute(self) -> "Config":
        """The same run without any store: the RE baseline."""
        off = {**dict.fromkeys(SHORTHANDS, "0GB"), "tiers": None, "kv_dtype": None, "unit": "session"}
        return self.model_copy(update={"store": self.store.model_copy(update=off)})

    def resolved(self) -> dict[str, Any]:
        """Every setting as plain data; `load` takes it back."""
        return self.model_dump(mode="json")


def without_clients(config: Config, why: str) -> Config:
    """The same, for what knows only sessions that come by themselves; `why` says what it needs. Raises ConfigError."""
    if config.workload.clients is not None:
        raise ConfigError(f"{why}, and workload.clients sends turns as answers come: leave it out, or set workload.clients=null")
    return config


_CUTOFF = 0.5
_OLDER = {"store.preload": ("store.load_mode", {"none": "blocking"})}
"""Paths that are still taken -> what they are called now, and values that have another name."""
_PRESETS = Path(__file__).parent / "presets"


def presets() -> list[str]:
    """Names of the packaged configurations."""
    return sorted(path.stem for path in _PRESETS.glob("*.yaml"))


Overrides = Iterable[str | tuple[str, Any]] | Mapping[str, Any]
"""`path=value` texts, as after `--set`, or pairs of path and value; or values by path, `{"store.dram": "256GB", "deployment.gpus": 4}`."""


def load(source: "Config | str | PathLike[str] | None" = None, overrides: Overrides = ()) -> Config:
    """The configuration of a preset name or a file, or one that is there already, with overrides. Raises ConfigError."""
    settings = list(_settings(overrides))
    if isinstance(source, Config) and not settings:
        return source
    data, where = (source.resolved(), "configuration") if isinstance(source, Config) else _read(source)
    if not isinstance(source, Config) and _name(source) in presets() and any(path == "hardware" for _, path, _ in settings):
        data.get("deployment", {}).pop("gpus", None)  # the preset's count is for the preset's node
    given = data.get("engine", enginesets.DEFAULT)
    enginesets.apply(data, given, next((value for _, path, value in reversed(settings) if path == "engine"), given))
    for text, path, value in settings:
        _override(data, text, path, value)
    _complete(data)
    return validated(data, f"{where} and --set" if settings else where)


def _name(source: str | PathLike[str] | None) -> str:
    return "default" if source is None else fspath(source)


def _read(source: str | PathLike[str] | None) -> tuple[dict[str, Any], str]:
    """The settings of a preset or a file, and what to call it. Raises ConfigError."""
    name = _name(source)
    preset = name in presets()
    path = _PRESETS / f"{name}.yaml" if preset else Path(name)
    if not (os.path.lexists(path) or os.sep in name or name.endswith((".yaml", ".yml"))):
        raise ConfigError(
            f"no configuration {name!r}: {nearest(name, presets(), _CUTOFF)}give a YAML file or one of {', '.join(presets())}"
        )
    try:
        data = strictyaml.load(path)
    except strictyaml.YamlError as error:
        raise ConfigError(str(error)) from None
    if data is None:
        raise ConfigError(f"{path} has no settings: write some, or {{}} for all defaults")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of settings, this is not")
    _rename(data)
    return data, f"preset {name}" if preset else str(path)


def validated(data: dict[str, Any], where: str = "configuration") -> Config:
    """A Config from plain data. Raises ConfigError with every finding, each with its path."""
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        unknown = [".".join(map(str, item["loc"])) for item in error.errors() if item["type"] == "extra_forbidden"]
        hints = "".join(f"; {path}: {hint.strip()}" for path in unknown if (hint := nearest(path, paths(), _CUTOFF)))
        raise ConfigError(f"{where}: {explain(error)}{hints}") from None


def paths(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every configuration path, sections included."""
    found = []
    for name, info in section.model_fields.items():
        found.append(prefix + name)
        inner = section_of(info.annotation)
        if inner is not None:
            found += paths(inner, prefix + name + ".")
    return found


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a setting is, or can be beside null; None for a setting with a value."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, _Section)), None)


FREE_FORM = (
    *(
        f"workload.{name}"
        for name in ("arrival", "think_time", "turns", "prompt_tokens", "first_prompt_tokens", "output_tokens", "tenants", "columns")
    ),
    "workload.applications.tokens",
    "workload.documents.tokens",
    "tenant_weights",
    "store.kv_dtype",
)
"""Settings that are mappings whose keys depend on what they say."""


def _settings(overrides: Overrides) -> Iterator[tuple[str, str, Any]]:
    """(text for messages, path, value) of each override. Raises ConfigError."""
    for override in overrides.items() if isinstance(overrides, Mapping) else overrides:
        if isinstance(override, tuple):
            path, value = override
            yield f"override {path}: {value}", str(path), plain(value)
            continue
        path, equals, text = _text(override).partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: write it as path=value, for example store.dram=256GB")
        try:
            yield f"--set {override}", path.strip(), strictyaml.loads(text, f"--set {override}")
        except strictyaml.YamlError as error:
            raise ConfigError(str(error)) from None


def named(overrides: Overrides) -> list[str]:
    """The paths that overrides name, as they are called now. Raises ConfigError."""
    return [_OLDER.get(path, (path,))[0] for _, path, _ in _settings(overrides)]


def _text(given: str) -> str:
    """The same. Raises ConfigError for bytes that the locale cannot read, which Python keeps as lone surrogates."""
    if any("\ud800" <= char <= "\udfff" for char in given):
        raise ConfigError(f"{given} is no text in {sys.getfilesystemencoding()}: take a UTF-8 locale, or another name")
    return given


def plain(value: Any) -> Any:
    """A copy in the types that YAML has: paths, tuples and NumPy's numbers are taken too."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, Real) and not isinstance(value, bool) else value


def _rename(data: dict[str, Any]) -> None:
    """Older paths of a file."""
    for older in _OLDER:
        section, leaf = older.split(".")
        if isinstance(data.get(section), dict) and leaf in data[section]:
            _override(data, older, older, data[section].pop(leaf))


def _override(data: dict[str, Any], text: str, path: str, value: Any) -> None:
    path, values = _OLDER.get(path, (path, dict[str, str]()))
    value = values.get(value, value) if isinstance(value, str) else value
    if path not in paths() and not path.startswith(tuple(f"{name}." for name in FREE_FORM)):
        raise ConfigError(f"{text}: unknown path {path!r}: {nearest(path, paths(), _CUTOFF)}`kvplan list settings` shows all")
    if isinstance(value, str):
        _text(f"{path}={value}")
    *sections, leaf = path.split(".")
    for section in sections:
        if data.get(section) is None:
            data[section] = {}
        data = data[section]
        if not isinstance(data, dict):
            raise ConfigError(f"{text}: {section} is not a section in the configuration")
    data[leaf] = value


def _complete(data: dict[str, Any]) -> None:
    """Settings of a kind that is not said belong to the default's kind: `turns: {mean: 3}` is an exponential with the mean 3."""
    workload = data.get("workload")
    if not isinstance(workload, dict):
        return
    for name, info in WorkloadConfig.model_fields.items():
        given = workload.get(name)
        if info.discriminator is not None and info.default is not None and isinstance(given, dict) and info.discriminator not in given:
            workload[name] = {**info.default.model_dump(mode="json", exclude_none=True), **given}
