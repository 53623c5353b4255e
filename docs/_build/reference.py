"""Reference pages that say what the code says: settings, commands, outputs, formats, policies and the catalogue."""

import inspect
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, get_args, get_type_hints, is_typeddict

import typer

from kvplan.commands import app
from kvplan.sim.cli.listing import KINDS_LISTED, table
from kvplan.sim.config import TierSetting
from kvplan.sim.metrics.schema import TURN_COLUMNS, Summary
from kvplan.sim.policies.registry import KINDS, policies
from kvplan.sim.settings import POLICY_PATHS, meanings, settings
from kvplan.traces import known_formats
from kvplan.traces.generate.laws import Law


def pages() -> Iterator[tuple[str, str]]:
    """(path in the site, Markdown) of each."""
    for name in NAMES:
        yield f"reference/{name}.md", page(name)


def page(name: str) -> str:
    """One of them."""
    return _PAGES[name]()


def _settings() -> str:
    """One table for each section of a configuration."""
    parts = [
        "# Settings",
        "Every path that a configuration may have, that `--set PATH=VALUE` takes and that `--vary` varies. The same list: "
        "`kvplan list settings`. The default is that of the preset `default`; `null` leaves a thing out, or to the model or the engine.",
        "Units belong to a value: sizes `128GB`, `64GiB`, bandwidths `30GB/s`; numbers whose setting ends in `_s`, `_per_s` or `_tokens` "
        "are seconds, per second, and tokens. Distributions and tiers are [described below](#values-with-parts-of-their-own).",
    ]
    sections: dict[str, list] = {}
    for each in settings():
        sections.setdefault(each.path.rpartition(".")[0].partition(".")[0] or "At the top", []).append(each)
    for section, rows in sections.items():
        parts += [f"## {section}", _table(("path", "default", "one of", "meaning"), map(_setting, rows))]
    return "\n\n".join([*parts, *_parts_of_values()]) + "\n"


def _setting(each) -> tuple[str, ...]:
    kind = POLICY_PATHS.get(each.path)
    choices = f"[{kind}](policies.md#{kind}), or one's own" if kind else each.choices
    return f"`{each.path}`", f"`{each.default}`", choices, each.meaning


def _parts_of_values() -> Iterator[str]:
    yield "## Values with parts of their own"
    for model in (TierSetting, *get_args(Law)):
        kind = model.model_fields.get("distribution")
        yield f"### `distribution: {get_args(kind.annotation)[0]}`" if kind else "### A tier of `store.tiers`"
        yield inspect.cleandoc(model.__doc__ or "")
        said = meanings(model)
        rows = [(f"`{name}`", _default(info), said.get(name, "")) for name, info in model.model_fields.items() if name != "distribution"]
        yield _table(("key", "default", "meaning"), rows)


def _default(info: Any) -> str:
    return "needed" if info.is_required() else f"`{info.default}`"


def _commands() -> str:
    """What `--help` says, of every command."""
    parts = ["# Commands", "What `--help` prints. Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage or input."]
    for names, command in _walk((), typer.main.get_command(app)):
        text = "kvplan validate --list" if names == ("validate",) else " ".join(("kvplan", *names, "--help"))
        parts += [f"## {' '.join(('kvplan', *names))}", f"```text title=\"{text}\"\n{_help(names, command)}\n```"]
    return "\n\n".join(parts) + "\n"


def _walk(names: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _walk((*names, name), inner)


def _help(names: tuple[str, ...], command: Any) -> str:
    if names == ("validate",):
        from kvplan.validate.__main__ import listed

        return "\n".join(listed())
    context = command.make_context(" ".join(("kvplan", *names)), [], resilient_parsing=True, max_content_width=100)
    return command.get_help(context).rstrip()


def _outputs() -> str:
    """Every key of summary.json, and every column of turns.parquet."""
    return "\n\n".join(
        (
            "# Outputs",
            "`kvplan simulate --json` prints what `--out` writes as `summary.json`, and `kvplan.simulate(...).summary` is. Times are in "
            "seconds, sizes in bytes, money in US dollars; what has no value is `null`. Keys are only ever added.",
            "## summary.json",
            _table(("key", "type", "meaning"), list(_keys(Summary))),
            "## turns.parquet",
            "A row a turn, as `kvplan.simulate(...).to_frame()` gives it; seconds since the start of the trace.",
            _table(("column", "meaning"), [(f"`{name}`", said) for name, said in TURN_COLUMNS.items()]),
            "## plan.json, compare.json, curve.json",
            "[The keys of plan.json](../plans.md#the-keys-of-planjson). `compare.csv` and `curve.csv` hold the rows of "
            "`kvplan.compare(...).to_frame()` and `kvplan.curve(...).to_frame()`.",
        )
    )


def _keys(schema: Any, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    said = meanings(schema)
    for name, kind in get_type_hints(schema).items():
        key, inner = prefix + name, next(filter(is_typeddict, (kind, *get_args(kind))), None)
        if inner is None:
            yield f"`{key}`", f"`{_type(kind)}`", said.get(name, "")
        elif not meanings(inner):  # what its parts are, their names say
            parts = ", ".join(f"`{part}`" for part in get_type_hints(inner))
            yield f"`{key}`", parts, said.get(name, "") or inspect.cleandoc(inner.__doc__ or "")
        else:
            yield f"`{key}`", "", said.get(name, "") or inspect.cleandoc(inner.__doc__ or "")
            yield from _keys(inner, f"{key}.")


def _type(kind: Any) -> str:
    return getattr(kind, "__name__", "") if not get_args(kind) else str(kind).replace("typing.", "")


def _formats() -> str:
    parts = [
        "# Trace formats",
        "`--trace FILE` finds the format by itself; `--format NAME` names it. `kvplan trace describe FILE` says what was understood, "
        "and what was left out. A table in another shape is read by `--columns`.",
    ]
    for name, module in known_formats().items():
        parts += [f"## {name}", _documented(module), f"Holds: {', '.join(sorted(module.OFFERS))}."]
        parts += [f"```text title=\"An example\"\n{module.EXAMPLE.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _documented(module: ModuleType) -> str:
    return inspect.cleandoc(module.__doc__ or "").replace("<", "&lt;")


def _policies() -> str:
    parts = [
        "# Policies",
        "What decides who leaves, what is fetched, written and loaded, and who is served. Each says where it is from. "
        "A class of your own goes beside them as `module:Class` or `file.py:Class`.",
    ]
    for kind, base in KINDS.items():
        path = next(path for path, named in POLICY_PATHS.items() if named == kind)
        parts += [f"## {kind}", f"Setting `{path}`. {inspect.cleandoc(base.__doc__ or '')}"]
        for name, policy in policies(kind).items():
            needs = ", ".join(sorted(getattr(policy, "NEEDS", ())))
            parts += [f"### {name} {{ #{kind}-{name} }}", _documented(sys.modules[policy.__module__])]
            parts += [f"Needs to know: {needs}."] if needs else []
    return "\n\n".join(parts) + "\n"


def _catalogue() -> str:
    parts = [
        "# Catalogue",
        "What comes with kvplan, each figure with its source and date. A HuggingFace `config.json` is a model by its path, and a folder "
        "of one's own entries is named by the setting `catalogue` (`kvplan list gpus --catalogue FOLDER`).",
    ]
    for kind in filter(lambda kind: kind not in (*KINDS, "settings", "formats"), KINDS_LISTED):
        columns, rows = table(kind)
        parts += [f"## {kind}", _table(columns, rows)]
    return "\n\n".join(parts) + "\n"


def _table(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [columns, ("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


_PAGES = {
    "settings": _settings,
    "commands": _commands,
    "outputs": _outputs,
    "formats": _formats,
    "policies": _policies,
    "catalogue": _catalogue,
}
NAMES = tuple(_PAGES)
"""Of the pages, without folder and ending."""
