"""The engine against a second, plain simulator (`validate/checks/reference/`), event by event, on random small cases; half an hour.

Times must agree to 1e-9 of themselves, which is what is left of rounding; tokens and tiers must be the same, and so must the whole summary,
key by key, bytes to one a replica. The cases are small and tight: a few sessions whose KV does not fit, so that in hundreds of them
everything happens that can; the second table counts it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kvplan.hwmodels import catalogue, kvsize
from kvplan.hwmodels.connector import connect
from kvplan.sim import config
from kvplan.sim.config import Config
from kvplan.sim.deployment import resolve
from kvplan.sim.metrics.output import RunInput, RunOutput
from kvplan.sim.rng import stream
from kvplan.sim.simulation import Result, simulate
from kvplan.traces import Workload
from kvplan.traces.beginnings import Beginnings
from kvplan.traces.workload import Blocks, untimed
from kvplan.validate.checks.reference import NOT_JUDGED, Service, served
from kvplan.validate.show import show
from kvplan.validate.verdict import Finding, fail, report

CASES = 200
TOLERANCE = 1e-9
ROUGH = 0.1
"""Of a figure that the engine gives roughly."""
_LONGER, _OF_STATES = 8, 528
"""Prompts, where blocks have so many tokens."""
NAMED = 10
"""Cases that differ are named up to this number."""
FAMILIES = {
    "no store": ("store.dram=0GB", "store.ssd=0GB"),
    "DRAM": ("store.dram={dram}B", "store.ssd=0GB"),
    "SSD": ("store.dram=0GB", "store.ssd={ssd}B"),
    "DRAM and SSD": ("store.dram={dram}B", "store.ssd={ssd}B", "store.prefetch=none"),
    "DRAM and SSD, prefetching": ("store.dram={dram}B", "store.ssd={ssd}B", "store.prefetch=lookahead"),
}
FAMILIES |= {f"{name}; more": tiers for name, tiers in FAMILIES.items() if name != "no store"}
FAMILIES |= {f"{name}; clients": tiers for name, tiers in FAMILIES.items() if "more" not in name}
FAMILIES |= {f"{name}; connectors": tiers for name, tiers in FAMILIES.items() if name != "no store" and ";" not in name}
FAMILIES |= {
    "HBM; blocks": ("store.unit=block", "store.dram=0GB", "store.ssd=0GB"),
    "HBM and DRAM; blocks": ("store.unit=block", "store.dram={dram}B", "store.ssd=0GB"),
    "HBM and SSD; blocks": ("store.unit=block", "store.dram=0GB", "store.ssd={ssd}B"),
    "HBM, DRAM and SSD; blocks": ("store.unit=block", "store.dram={dram}B", "store.ssd={ssd}B"),
}
OF_BLOCKS = [name for name in FAMILIES if name.endswith("; blocks")]
FAMILIES |= {name.replace("blocks", kept): FAMILIES[name] for kept in ("tree", "windows", "states") for name in OF_BLOCKS}
FAMILIES |= {f"{name}; batching": tiers for name, tiers in FAMILIES.items() if ";" not in name}
_IN_BLOCKS = {name: tiers for name, tiers in FAMILIES.items() if name.endswith(("; blocks", "; tree", "; windows", "; states"))}
FAMILIES |= {f"{name}, batching": tiers for name, tiers in _IN_BLOCKS.items()}
FAMILIES |= {f"{name}, hashes": tiers for name, tiers in _IN_BLOCKS.items()}
_OFFERED = "HBM and DRAM; blocks", "HBM and SSD; blocks", "HBM and DRAM; tree", "HBM and DRAM; states"
FAMILIES |= {f"{name}, threshold": FAMILIES[name] for name in _OFFERED}
FAMILIES |= {f"{name}, fetching": FAMILIES[name] for name in ("HBM, DRAM and SSD; blocks", "HBM, DRAM and SSD; tree")}
"""Those with `more` also switch on what `_more` says, those with `clients` that and what `_clients` says, and those with `connectors` what
`_more` and `_connectors` say; those with `blocks` what `_blocks` says alone, those with `tree` that of SGLang's, and those with `windows`
or `states` that of a model which has them; those with `batching` beside that what `_connectors` and `_batching` say, those with
`threshold` that chunks are stored when two jobs have offered them, or three, those with `fetching` that chunks come up ahead of jobs."""


def random_case(family: str, seed: int) -> tuple[Config, Workload]:
    """A random configuration and workload: LLaMA-2-13B with a short window, a few sessions, and tiers that hold half a session of
    the longest to six or twelve."""
    rng = stream(seed, "agreement")
    window = min(4000, int(rng.integers(60, 1500 if rng.random() < 0.5 else 400)) * (3 if family.endswith(", fetching") else 1))
    largest = window * 819_200
    sizes = {"dram": int(largest * rng.uniform(0.5, 6)), "ssd": int(largest * rng.uniform(0.5, 12))}
    loaded = config.load(
        None,
        [
            *(setting.format(**sizes) for setting in FAMILIES[family]),
            f"deployment.window_tokens={window}",
            f"deployment.max_batch={rng.integers(1, 9)}",
            f"deployment.hbm_utilization={rng.choice([0.16, 0.165, 0.2, 0.9])}",
            f"deployment.truncation_ratio={rng.choice([0.3, 0.5, 1.0])}",
            f"store.eviction={rng.choice(['lru', 'fifo', 'lookahead'])}",
            f"store.host_buffer={rng.choice([0.0, 0.1, 0.3])}",
            f"store.read_buffer_layers={rng.choice([0, 3, 15, 40])}",
            f"store.write_buffer={rng.choice(['0GB', '50MB', '1GB'])}",
            f"store.piece={rng.choice(['1MiB', '8MiB', '64MiB'])}",
            "store.load=always",
        ],
    )
    table = _workload(rng, window)
    if "batching" in family:
        table = _with_long_answers(table, rng)
    kind, _, last = family.partition("; ")[2].partition(", ")
    if not kind:
        return loaded, table
    if kind == "states":
        table = replace(table, prompt_tokens=_LONGER * table.prompt_tokens - rng.integers(0, _LONGER, table.turns))
    if kind in ("blocks", "tree", "windows", "states"):
        loaded, table = _blocks(loaded, rng), _with_beginnings(_with_edits(table, rng), rng, 200 * (_LONGER if kind == "states" else 1))
        loaded = loaded if family.startswith("HBM;") else _chunks(loaded, rng)
        loaded = config.load(loaded, ["store.mode=sglang"]) if kind == "tree" else loaded
    else:
        loaded, table = _more(family, loaded, table, rng)
    for mechanism in MECHANISMS.get(last or kind, ()):
        loaded = mechanism(loaded, rng)
    if kind in ("blocks", "tree"):
        loaded = config.load(loaded, [f"store.ttl_s={rng.choice(['null', 'null', '0.3', '3'])}"])
        loaded = _fetching(loaded, rng) if last == "fetching" else _deferred(loaded, rng)
    if kind == "windows":
        loaded = _windows(loaded, window, rng)
        loaded = loaded if family.startswith("HBM;") else _deferred(config.load(loaded, WITH_WINDOWS), rng)
    if kind == "states":
        loaded = _states(loaded, _LONGER * window, rng)
        loaded = loaded if family.startswith("HBM;") else _deferred(_chunks_of_states(loaded, rng), rng)
    return loaded, _with_hashes(loaded, table, rng) if last == "hashes" else table


def _more(family: str, loaded: Config, table: Workload, rng: np.random.Generator) -> tuple[Config, Workload]:
    """The case with more mechanisms, each in a third of the cases."""
    chosen = [
        f"deployment.replicas={rng.choice([1, 1, 2])}",
        f"store.save={rng.choice(['async', 'async', 'sync'])}",
        f"store.positions={rng.choice(['decoupled', 'decoupled', 'embedded'])}",
        f"store.ssd_write={rng.choice(['delta', 'delta', 'whole'])}",
        f"store.ttl_s={rng.choice(['null', 'null', '0.3'])}",
    ]
    table = _with_edits(table, rng)
    narrower = ["null", "null", "fp8", "{dram: fp8, ssd: nvfp4}" if family.startswith("DRAM and SSD") else "nvfp4"]
    return config.load(loaded, [*chosen, f"store.kv_dtype={rng.choice(narrower)}"]), table


def _with_edits(table: Workload, rng: np.random.Generator) -> Workload:
    """In a third of the cases turns drop some of what the turn before added."""
    if rng.random() >= 1 / 3:
        return table
    grown = np.roll(table.prompt_tokens + table.output_tokens, 1)
    return replace(table, dropped_tokens=np.where(table.is_first, 0, np.minimum(rng.integers(0, 40, table.turns), grown)))


def _with_long_answers(table: Workload, rng: np.random.Generator) -> Workload:
    """In two thirds of the cases answers are as long as prompts, and grow into much of the window."""
    longest = int(table.prompt_tokens.max() * rng.choice([0, 0.5, 1.5]))
    return replace(table, output_tokens=rng.integers(1, longest, table.turns) if longest > 1 else table.output_tokens)


def _with_beginnings(table: Workload, rng: np.random.Generator, longest: int = 200) -> Workload:
    """Some sessions begin alike: with a text or its start, or with all of that and another, up to a place in the first prompt or later."""
    common, whole = int(rng.integers(1, longest)), rng.random(table.sessions) < 0.3
    parts = []
    for tokens in np.where(whole, table.session_tokens, table.prompt_tokens[table.first_turn[:-1]]).tolist():
        begun = int(rng.integers(0, tokens + 1)) if rng.random() < 0.7 else 0
        ends = [(0, min(begun, common)), (int(rng.integers(1, 3)), begun if begun > common else 0)]
        parts.append([(key, end) for key, end in ends if end])
    return replace(table, beginnings=Beginnings.of(parts))


def _with_hashes(loaded: Config, table: Workload, rng: np.random.Generator) -> Workload:
    """The case with prompts that are known by hashes, of blocks of the pool's tokens, of more, or of half as many; of unfull blocks in half
    of the traces. What sessions have in common has the same."""
    size = _size(loaded)
    size = rng.choice([size, size // 2 if size % 2 == 0 else size, *[2 * size, 3 * size] * (loaded.store.block_tokens is not None)])
    whole, numbers = rng.random() < 0.5, dict[object, int]()
    dropped = np.zeros(table.turns, int) if table.dropped_tokens is None else table.dropped_tokens
    parts = [] if table.beginnings is None else table.beginnings.parts()
    lists, context = list[list[int]](), list[object]()
    for turn, session in enumerate(table.session.tolist()):
        context = [] if table.is_first[turn] else context[: len(context) - int(dropped[turn])]
        context += [_token(parts[session], turn, len(context) + at) for at in range(table.prompt_tokens[turn])]
        ids = [0]
        for start in range(0, len(context) - (size - 1) * whole, size):
            ids.append(numbers.setdefault((ids[-1], *context[start : start + size]), len(numbers) + 1))
        lists.append(ids[1:])
        context += [_token(parts[session], turn, len(context) + at) for at in range(table.output_tokens[turn])]
    first = np.append(0, np.cumsum([len(ids) for ids in lists]))
    return replace(table, beginnings=None, blocks=Blocks(int(size), first, np.array([each for ids in lists for each in ids], np.int64)))


def _token(begun: Sequence[tuple[int, int]], turn: int, place: int) -> tuple[object, int]:
    """Of what sessions have in common, or the turn's own."""
    return next(((("text", key), place) for key, end in begun if place < end), (turn, place))


def _blocks(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with blocks of some size, in HBM that may keep only so much."""
    choices = {
        "deployment.replicas": [1, 1, 2],
        "router": ["session", "least-loaded"],
        "store.block_tokens": [7, 16, 50],
        "deployment.hbm_utilization": [0.163, 0.166, 0.18],
        "store.hbm": ["0GB", "0GB", "100MB"],
    }
    return config.load(loaded, _drawn(choices, rng))


def _windows(loaded: Config, longest: int, rng: np.random.Generator) -> Config:
    """The case with a model of which every second layer has a window of 128 tokens, and HBM for one to two of the longest prompts."""
    apart = config.load(loaded, ["model=gpt-oss-20b", "deployment.hbm_utilization=0.5"])
    deployment = resolve(apart)
    total = deployment.gpus * deployment.gpu.hbm.value
    step = longest if loaded.batching == "iteration" else loaded.deployment.step_tokens or longest
    of_window = min(longest, 128 + step)
    size = (longest + of_window + 4 * (loaded.store.block_tokens or 16)) * deployment.hbm_kv.per_token * rng.uniform(1, 2)
    return config.load(apart, [f"deployment.hbm_utilization={0.5 - (deployment.hbm_budget - size) / total:.6f}"])


WITH_WINDOWS = ["store.mode=vllm", "store.eviction=lru", "store.prefetch=none", "store.read_buffer_layers=0"]
"""What chunks of windows and states are simulated with, and the reference knows."""


def _states(loaded: Config, longest: int, rng: np.random.Generator) -> Config:
    """The case with a model of which three layers in four keep a state, each in blocks of 528 tokens, and HBM for a long prompt or two."""
    more = ["model=qwen3.5-35b-a3b", "deployment.gpus=4", f"deployment.window_tokens={longest}", "deployment.hbm_utilization=0.5"]
    apart = config.load(loaded, more)
    deployment = resolve(apart)
    total = deployment.gpus * deployment.gpu.hbm.value
    size = (longest + 11 * _OF_STATES) * deployment.hbm_kv.per_token * rng.uniform(1, 1.5)
    return config.load(apart, [f"deployment.hbm_utilization={0.5 - (deployment.hbm_budget - size) / total:.6f}"])


def _chunks_of_states(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with chunks of some blocks, and a connector that keeps all copies of ranks."""
    replicated = [name for name in catalogue.names("connector") if connect(catalogue.load("connector", name), gpus=1).replicated]
    return config.load(loaded, [*WITH_WINDOWS, *_drawn({"store.chunk_blocks": [1, 1, 2, 3], "store.connector": replicated}, rng)])


def _drawn(choices: Mapping[str, Any], rng: np.random.Generator) -> list[str]:
    """Settings, each one of a list of values."""
    return [f"{path}={rng.choice(values)}" for path, values in choices.items()]


def _chunks(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with some connector, loads of all kinds, and tiers of less than a chunk, too."""
    choices = {
        "store.connector": catalogue.names("connector"),
        "store.mode": ["vllm", "lmcache"],
        "store.load_mode": ["null", "blocking", "asynchronous"],
        "store.saved": ["null", "all", "prompt"],
        "store.chunk_blocks": [1, 2, 5],
        "store.hbm": ["0GB", "10MB", "100MB"],
    }
    chosen = _drawn(choices, rng)
    if rng.random() < 0.3:
        chosen.append("store.block_tokens=null")
    on = [tier for tier in loaded.store.listed[1:] if loaded.store.size_of(tier)]
    if rng.random() < 0.3:
        chosen += [f"store.{tier.name}={int(loaded.store.size_of(tier) * rng.uniform(0.01, 0.3))}B" for tier in on]
    return config.load(loaded, chosen)


def _deferred(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with jobs that others pass until chunks under way have come, in half of the cases, over links of some speed."""
    choices = {
        "store.defers": ["true", "false"],
        "deployment.link_efficiency": [0.02, 0.2, 1.0],
        "store.hbm": [loaded.store.hbm] * 3 + ["1B"],
    }
    return config.load(loaded, _drawn(choices, rng))


def _clients(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with turns that a client sends."""
    barrier = rng.random() < 1 / 3
    chosen = {
        "outstanding": rng.choice(["null", "1", "2", "5"]),
        "active": "null" if barrier else rng.choice(["null", "1", "3"]),
        "order": rng.choice(["fifo", "random"]),
        "barrier": str(barrier).lower(),
        "rate_per_s": rng.choice(["null", "null", "7.3", "23.7"]),  # no pause is a multiple of the pace: such ties are left to rounding
        "pause_s": rng.choice(["0", "0", "0.1", "1"]),
    }
    return config.load(loaded, [f"workload.clients.{name}={value}" for name, value in chosen.items()])


def _connectors(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with a connector of the catalogue, or with loads that end before the prefill over the links as they are."""
    choices = {"store.connector": catalogue.names("connector"), "store.load_mode": ["null", "blocking", "asynchronous"]}
    return config.load(loaded, _drawn(choices, rng))


def _batching(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with steps of some tokens, and HBM of little more than the longest context."""
    choices = {
        "batching": ["chunked", "chunked", "prefill-first", "prefill-first", "iteration"],
        "deployment.step_tokens": [9, 20, 64, 300, 5000],
        "deployment.prefill_tokens": ["null", "20", "100", "700"],
        "deployment.admission": ["null", "null", "answer", "prompt", "share"],
    }
    chosen = _drawn(choices, rng)
    return config.load(loaded, [*chosen, f"deployment.hbm_utilization={_utilization(loaded, 1 + rng.exponential(0.5))!r}"])


def _size(loaded: Config) -> int:
    """Tokens of a block, where the trace has no hashes."""
    return loaded.store.block_tokens or (64 if loaded.store.mode == "sglang" else 16)


def _utilization(loaded: Config, contexts: float) -> float:
    """That leaves HBM for so many contexts as long as the window, and a block more of each, beside weights."""
    found = resolve(loaded)
    tokens = found.window + 2 * _size(loaded)
    missing = contexts * found.hbm_kv.of(tokens) - found.hbm_budget
    return float(loaded.deployment.hbm_utilization + missing / (found.gpus * found.gpu.hbm.value))


def _workload(rng: np.random.Generator, window: int) -> Workload:
    """Up to 24 sessions of up to 11 turns, open or closed loop, with or without think times; times coincide in half of the cases."""
    turns = rng.integers(1, 12, rng.integers(3, 25))
    total, span_s = int(turns.sum()), rng.choice([0.2, 1.0, 5.0])
    prompt = rng.integers(1, max(2, window // rng.choice([2, 3, 8])), total)
    output = rng.integers(1, rng.choice([2, 10, 60]), total)
    table = untimed(np.repeat(np.arange(len(turns)), turns), prompt, output)
    starts = np.round(np.sort(rng.uniform(0, span_s, len(turns))), rng.choice([1, 6]))
    if rng.random() < 0.3:
        gaps = np.round(rng.exponential(span_s / 4, total), 1)
        since = np.cumsum(np.where(table.is_first, 0.0, gaps))
        arrivals = (starts - since[table.first_turn[:-1]])[table.session] + since
        return replace(table, arrival_s=np.round(arrivals, 6), open_loop=True)
    return table.with_times(starts, rng.choice([0.0, 0.1, 0.5]) * rng.exponential(1, total))


def _fetching(loaded: Config, rng: np.random.Generator) -> Config:
    """The case with little DRAM, to which chunks come up ahead of jobs. These have HBM to their end: who comes while a run of decode steps
    goes on finds in the engine's pool what that is about to take."""
    choices = {
        "store.prefetch": ["best-effort", "timeout", "wait-complete"],
        "batching": ["chunked", "prefill-first", "iteration"],
        "deployment.link_efficiency": [0.02, 0.2, 1.0],
        "store.hbm": [loaded.store.hbm] * 3 + ["1B"],
    }
    dram = int(loaded.store.size_of(loaded.store.listed[1]) * rng.uniform(0.1, 0.5))
    hbm = _utilization(loaded, 1 + rng.exponential(0.5))
    more = [f"store.dram={dram}B", f"deployment.hbm_utilization={hbm!r}", "deployment.admission=answer"]
    return config.load(loaded, [*_drawn(choices, rng), *more])


def _threshold(loaded: Config, rng: np.random.Generator) -> Config:
    return config.load(loaded, [f"store.threshold={rng.integers(2, 4)}"])


MECHANISMS = {"threshold": (_threshold,), "clients": (_clients,), "connectors": (_connectors,), "batching": (_connectors, _batching)}


def differences(ours: Result, theirs: Result) -> list[str]:
    """What the engine and the reference do not agree on, in words."""
    found, nobody = [], np.zeros(len(ours.columns["order"]), int)
    for name in sorted((ours.columns.keys() | theirs.columns.keys()) - {"order"}):  # replicas may answer in one instant, but for rounding
        engine, reference = ours.columns.get(name, nobody), theirs.columns.get(name, nobody)
        close = np.isclose(engine, reference, rtol=TOLERANCE, atol=TOLERANCE)
        if not close.all():
            turn = int(np.argmin(close))
            found.append(f"{name} of {np.sum(~close)} turns, the first is row {turn}: engine {engine[turn]}, reference {reference[turn]}")
    left, right, rough = dict(_leaves(ours.summary)), dict(_leaves(theirs.summary)), _rough(ours.config)
    return found + [
        f"{name}: engine {left.get(name)}, reference {right.get(name)}"
        for name in sorted(left.keys() | right.keys())
        if not _same(left.get(name), right.get(name), ours.config.deployment.replicas if name.endswith("_bytes") else TOLERANCE)
        and not (name in rough and _same(left.get(name), right.get(name), ROUGH * right[name]))
    ]


def _rough(settings: Config) -> set[str]:
    """What the engine gives roughly: in a run of decode steps it has answers grow into blocks, windows leave them, and states take others
    for a step, at an even pace, and at its end when others expire meanwhile."""
    grows = settings.deployment.admission or ("answer" if settings.batching == "iteration" else "")
    model = catalogue.load("model", settings.model)
    changes = grows != "answer" or bool(kvsize.windows(model)) or kvsize.state_layers(model) > 0
    return {"tiers.hbm.mean_bytes", "tiers.hbm.peak_bytes"} if settings.store.unit == "block" and changes else set()


def _leaves(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(key, value) of all that a summary says, but for where it comes from."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key != "provenance":
                yield from _leaves(value, f"{name}.{key}" if name else key)
    elif isinstance(data, list):
        for place, value in enumerate(data):
            yield from _leaves(value, f"{name}.{place}")
    else:
        yield name, data


def _same(left: Any, right: Any, allowed: float) -> bool:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    return math.isclose(left, right, rel_tol=TOLERANCE, abs_tol=allowed) if numbers else left == right


def compare(loaded: Config, table: Workload) -> tuple[list[str], Counter]:
    """(differences, what the case exercised)."""
    runs: list[Service] = []

    def reference(given: RunInput) -> RunOutput:
        runs.append(served(given))
        return runs[0].output()

    slow = simulate(loaded, table, engine=reference)
    return differences(simulate(loaded, table), slow), exercised(runs[0])


def exercised(run: Service) -> Counter:
    """How often each thing happened in a run."""
    last = run.replicas[-1]
    seen = sum((one.seen for one in run.replicas), Counter())
    seen["turns"] = len(run.turns)
    seen["turns on the second of two replicas"] = sum(run.replica_of(turn) is last for turn in run.turns) if run.replicas[1:] else 0
    seen["truncations"] = sum(turn.overflow for turn in run.turns)
    seen["turns that wait in the client"] = sum(turn.arrival_s > turn.ready_s for turn in run.turns)
    return seen


def run() -> None:
    """Prints both tables; fails when a case differs, and names it."""
    findings, failures = [], []
    seen: dict[str, Counter[str]] = {}
    for family in FAMILIES:
        seen[family], different = Counter(), 0
        for seed in range(CASES):
            found, happened = compare(*random_case(family, seed))
            seen[family].update(happened)
            if found:
                different += 1
                failures.append(f"{family}, seed {seed}: {found[0]}")
        findings.append(Finding(f"{family}: cases that differ, of {CASES}", 0, "reference", different, 0))
    report("Engine against reference", findings)
    show("What happened in these cases", ["", "times", f"families, of {len(FAMILIES)}"], _happened(seen))
    print(f"Not judged: {'; '.join(NOT_JUDGED)}.")
    fail(failures[:NAMED] + [f"and {len(failures) - NAMED} more"] * (len(failures) > NAMED))


def _happened(seen: Mapping[str, Counter[str]]) -> list[list[str]]:
    """What happened, how often, and in how many families."""
    total = sum(seen.values(), Counter())
    return [[what, f"{times:,}", f"{sum(one[what] > 0 for one in seen.values())}"] for what, times in sorted(total.items())]
