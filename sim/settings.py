"""What each setting means, what it can be, and which ones a run does not use: read off the schema, so that nothing is said twice."""

import ast
import copy
import inspect
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kvplan.sim import config as configuration
from kvplan.sim.config import SHORTHANDS, Config
from kvplan.sim.keptunit import fetches_ahead, unit_of
from kvplan.sim.policies.base import LIMITS
from kvplan.sim.policies.registry import KINDS, is_users_own, policies
from kvplan.traces import Workload

_ELSEWHERE = {"scheduling": "scheduler", "batching": "batching", "routing": "router"}
POLICY_PATHS = {_ELSEWHERE.get(kind, f"store.{kind}"): kind for kind in KINDS}
"""Setting -> kind of policy that it names."""


@dataclass(frozen=True)
class Setting:
    """One path of the configuration."""

    path: str
    default: str
    choices: str
    """What it can be, where that is a list."""
    meaning: str


def settings() -> list[Setting]:
    """Every setting, with the default preset's value."""
    defaults = configuration.load("default").resolved()
    return [
        Setting(path, _shown(_default(defaults, path, info)), _choices(path, info), _sentence(meaning))
        for path, info, meaning in _fields(Config)
    ]


def unused(config: Config, workload: Workload) -> list[str]:
    """Paths of settings that this run does not read: what belongs to another kind of workload, to a store that is switched off, or
    to another policy."""
    return sorted(set(_unused_by_workload(config, workload)) | set(_unused_by_store(config)) | set(_unused_by_batching(config)))


def used(config: Config, workload: Workload) -> dict[str, Any]:
    """The resolved configuration without those."""
    return without(config.resolved(), unused(config, workload))


def in_vain(named: Iterable[str], unread: Collection[str]) -> list[str]:
    """The warning that settings which somebody names (`config.named`) are among those that nothing reads, where there are any."""
    found = dict.fromkeys(path for path in named if any(path == each or path.startswith(f"{each}.") for each in unread))
    return [f"set, but nothing here reads it: {', '.join(found)}"] if found else []


def without(resolved: dict[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """A resolved configuration without the settings of these paths; what it lacks already is no matter."""
    found = copy.deepcopy(resolved)
    for path in paths:
        *sections, leaf = path.split(".")
        section = _value(found, ".".join(sections))
        if isinstance(section, dict):
            section.pop(leaf, None)
    return found


def _unused_by_workload(config: Config, workload: Workload) -> Iterator[str]:
    synthetic, generated = (
        ("turns", "prompt_tokens", "first_prompt_tokens", "first_prompt_correlation", "output_tokens"),
        ("kind", "sessions", "max_turns", "max_tokens"),
    )
    drawn = str(workload.origin.get("drawn", "")) if config.workload.trace is not None else "arrivals and think times"
    names = []
    if config.workload.clients is not None:
        drawn, names = "", ["loop", "steady", "rescale.rate", "rescale.think"]
    names += [] if "arrivals" in drawn else ["arrival"]
    names += [] if "think times" in drawn else ["think_time"]
    if config.workload.trace is None:
        names += ["format", "tokenizer", "vocabulary", "skip_bad", "records", "times"]
        names += ["block_tokens", "columns", "answer_tokens", "picture_tokens"]
        names += synthetic if config.workload.kind == "sharegpt" else ["length_correlation"]
    else:
        names += [*generated, *synthetic, "length_correlation"]
    yield from (f"workload.{name}" for name in names)
    if config.scheduler not in ("fair-share", "priority") and ":" not in config.scheduler:
        yield "tenant_weights"
    if config.deployment.replicas == 1:
        yield "router"


def _unused_by_store(config: Config) -> Iterator[str]:
    store = config.store
    yield "store.retention"  # of curves of blocks alone
    if unit_of(config) == "block":
        names = "write", "ssd_write", "write_buffer", "positions", "host_buffer", "piece"
        unread = {"prefetch": not fetches_ahead(store), "eviction": not any(map(store.size_of, store.listed[1:]))}
        yield from (f"store.{name}" for name in (*names, *(name for name in unread if unread[name])))
        return
    yield from ("store.mode", "store.chunk_blocks", "store.threshold")
    on = [tier.name for tier in store.listed if store.size_of(tier)]
    if not on:
        yield from (f"store.{name}" for name in type(store).model_fields if name not in (*SHORTHANDS, "tiers"))
    elif set(on) <= set(SHORTHANDS[:2]):
        yield from ("store.ssd_write", "store.prefetch")


def _unused_by_batching(config: Config) -> Iterator[str]:
    if not config.deployment.host_step_s and not config.deployment.host_request_s:
        yield "deployment.host_work"
    if not is_users_own(config.batching):
        yield from (f"deployment.{name}" for name in LIMITS if name not in policies("batching")[config.batching].NEEDS)


def _fields(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    said = meanings(section)
    for name, info in section.model_fields.items():
        inner = configuration.section_of(info.annotation)
        if inner is None:
            yield prefix + name, info, said.get(name, "")
        else:
            yield from _fields(inner, f"{prefix}{name}.")


def meanings(section: type) -> dict[str, str]:
    """The docstring below each field of a section or a typed dictionary. Pydantic collects them as well, but at every start."""
    (written,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(written, ast.ClassDef)
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in pairwise(written.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
    }


def _default(defaults: dict, path: str, info: FieldInfo) -> Any:
    """The default preset's value; the setting's own in a section that the preset leaves off."""
    *sections, leaf = path.split(".")
    section = _value(defaults, ".".join(sections))
    return info.get_default() if section is None else section[leaf]


def _value(tree: dict, path: str) -> Any:
    for key in filter(None, path.split(".")):
        tree = tree[key]
    return tree


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        return _shown(value.model_dump())
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shown(each)}" for key, each in value.items() if each is not None) + "}"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _choices(path: str, info: FieldInfo) -> str:
    if path in POLICY_PATHS:
        return f"kvplan list {POLICY_PATHS[path]}, module:Class, or file.py:Class"
    if info.discriminator is not None:
        kinds = [
            get_args(each.model_fields[info.discriminator].annotation)[0] for each in get_args(info.annotation) if each is not NoneType
        ]
        return f"{info.discriminator}: {', '.join(kinds)}"
    return ", ".join(dict.fromkeys(_literals(info.annotation)))


def _literals(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(each) for each in get_args(annotation)]
    if annotation is bool:
        return ["true", "false"]
    return [text for part in get_args(annotation) if part is not NoneType for text in _literals(part)]


def _sentence(text: str) -> str:
    return " ".join(text.split())
