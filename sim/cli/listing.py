"""`kvplan list`: one table per kind of thing that a configuration can name."""

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from kvplan.hwmodels import catalogue, host_bandwidth, kvsize, ssd_bandwidth, strictyaml
from kvplan.hwmodels.schema import Model
from kvplan.hwmodels.simplified import unsupported
from kvplan.hwmodels.units import format_bytes
from kvplan.sim import config as configuration
from kvplan.sim import enginesets
from kvplan.sim.policies.registry import KINDS, policies
from kvplan.sim.report.console import shown
from kvplan.sim.settings import settings
from kvplan.traces import known_formats


def show(kind: str, folder: str | None = None) -> None:
    """Prints the table of a kind, with the entries of the user's `folder`. Raises ConfigError for an unknown kind, CatalogueError."""
    columns, rows = table(kind, folder)
    *fixed, last = columns
    drawn = Table(*(Column(name, no_wrap=True) for name in fixed), Column(last, overflow="fold"), box=None, pad_edge=False)
    for row in rows:
        drawn.add_row(*map(shown, row))
    console = Console(highlight=False)
    available = console.width if console.is_terminal else _FILE_WIDTH
    Console(highlight=False, width=max(available, _least_width([columns, *rows]))).print(drawn)


def table(kind: str, folder: str | None = None) -> tuple[tuple[str, ...], list[tuple]]:
    """Columns and rows of a kind. Raises as `show` does."""
    if kind not in _TABLES:
        raise configuration.ConfigError(f"nothing to list under {kind!r}: one of {', '.join(_TABLES)}")
    return _TABLES[kind](folder)


_FILE_WIDTH = 200
_LAST_COLUMN = 30


def _least_width(rows: list) -> int:
    """Characters that keep every column but the last on one line; a narrower terminal wraps whole lines, not cells."""
    *fixed, _ = zip(*rows, strict=True)
    return sum(max(map(len, cells)) + 2 for cells in fixed) + _LAST_COLUMN


def _entries(kind: str, folder: str | None) -> list:
    return [catalogue.load(kind, name, folder) for name in catalogue.names(kind, folder)]


def _models(folder: str | None):
    return ("model", "parameters", "active", "KV per token", "other layers", "positions", "date", "source"), [
        (
            m.name,
            *(f"{count(m) / 1e9:.1f} B" for count in (kvsize.parameters, kvsize.active_parameters)),
            f"{kvsize.kv_bytes_per_token(m):,} B",
            "; ".join(_other_layers(m)) or "–",
            f"{m.max_position_embeddings:,}",
            m.date,
            m.source,
        )
        for m in _entries("model", folder)
    ]


def _other_layers(model: Model) -> Iterator[str]:
    """Those that do not keep the KV of every token: in `KV per token` layers with a window count as others, states not at all."""
    yield from (f"{layers} of window {tokens:,}" for tokens, layers in kvsize.windows(model).items())
    if kvsize.state_layers(model):
        yield f"{kvsize.state_layers(model)} of state, {format_bytes(kvsize.state_bytes(model))}"
    if unsupported(model):
        yield "sized, not simulated"


def _hardware(folder: str | None):
    """What a whole node has; `nodes` says what it is, and where each number is from."""
    columns = ("node", "GPUs", "HBM", "all-reduce", "to device", "max DRAM", "SSDs", "read, write")
    rows = []
    for node in _entries("node", folder):
        gpu, link, ssd = (catalogue.load(*each, folder) for each in (("gpu", node.gpu), ("link", node.host_link), ("ssd", node.ssd)))
        gpus = int(node.max_gpus.value)
        to_device, _ = host_bandwidth(node, link, gpus)
        speeds = ssd_bandwidth(ssd, int(node.ssd_drives.value))
        rows.append(
            (
                node.name,
                f"{gpus} x {gpu.name}",
                format_bytes(gpus * gpu.hbm.value),
                node.interconnect_bandwidth.text,
                format_bytes(to_device) + "/s",
                node.max_dram.text if node.max_dram is not None else "–",
                f"{node.ssd_drives.text} x {ssd.name}",
                ", ".join(f"{speed / 1e9:.3g}" for speed in speeds) + " GB/s",
            )
        )
    return columns, rows


def _nodes(folder: str | None):
    """A row that says what a node is made of, before those of its numbers."""
    columns, rows = _rows_of("node")(folder)
    first = {
        node.name: (node.name, "is", f"{node.max_gpus.text} x {node.gpu}, {node.host_links.text} x {node.host_link}", "", node.description)
        for node in _entries("node", folder)
    }
    return columns, sorted([*first.values(), *rows], key=lambda row: row[0])


def _rows_of(kind: str):
    def listed(folder: str | None):
        rows = []
        for entry in _entries(kind, folder):
            for path, row in entry.rows():
                note = f" ({row.note})" if row.note else ""
                rows.append((entry.name, path, row.text, row.date, row.source + note))
        return (kind, "what", "value", "date", "source"), rows

    return listed


def _says(policy: type) -> str:
    """The first line of its module, as it is written: a compiled one has no docstring."""
    file = Path(inspect.getfile(policy))
    source = file.with_name(f"{file.name.partition('.')[0]}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "–").splitlines()[0]


def _policies_of(kind: str):
    def listed(_folder: str | None):
        rows = []
        for name, policy in policies(kind).items():
            rows.append((name, ", ".join(sorted(getattr(policy, "NEEDS", ()))) or "–", _says(policy)))
        return (kind, "needs", "what it does"), rows

    return listed


def _formats(_folder: str | None):
    rows = [(name, ", ".join(sorted(m.OFFERS)), (m.__doc__ or "").strip().splitlines()[0]) for name, m in known_formats().items()]
    return ("format", "offers", "what it is"), rows


def _presets(_folder: str | None):
    rows = []
    for name in configuration.presets():
        loaded = configuration.load(name)
        store = loaded.store
        gpus = str(loaded.deployment.gpus or "all")
        rows.append((name, loaded.engine, loaded.model, loaded.hardware, gpus, store.dram, store.ssd))
    return ("preset", "engine", "model", "hardware", "GPUs", "DRAM", "SSD"), rows


def _engines(_folder: str | None):
    """A row that says what an engine is, and those of what is left out of it, around those of its settings."""
    rows = []
    for found in map(enginesets.engine, enginesets.names()):
        rows.append((found.name, "is", "", found.date, found.description))
        rows += [(found.name, path, strictyaml.flow(choice.value), found.date, choice.source) for path, choice in found.settings.items()]
        rows += [(found.name, "left out", "", found.date, words) for words in found.left_out]
        rows += [(found.name, "left out", "with sessions", found.date, words) for words in found.left_out_of_sessions]
    return ("engine", "what", "value", "date", "source"), rows


def _settings(_folder: str | None):
    rows = [(each.path, each.default, each.choices, each.meaning) for each in settings()]
    return ("path", "default", "one of", "meaning"), rows


_TABLES: dict[str, Callable] = {
    "models": _models,
    "hardware": _hardware,
    "nodes": _nodes,
    "gpus": _rows_of("gpu"),
    "links": _rows_of("link"),
    "connectors": _rows_of("connector"),
    "ssds": _rows_of("ssd"),
    "prices": _rows_of("prices"),
    "presets": _presets,
    "engines": _engines,
    "settings": _settings,
    "formats": _formats,
    **{kind: _policies_of(kind) for kind in KINDS},
}
KINDS_LISTED = tuple(_TABLES)
"""What `show` takes."""
