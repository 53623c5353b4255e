"""`kvplan list`: one table per kind of thing that a configuration can name."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from hwmodels import catalogue, kvsize
from sim import config as configuration
from sim.policies.registry import KINDS, policies
from traces import known_formats


def show(kind: str) -> None:
    """Prints the table of a kind. Raises ConfigError for an unknown one."""
    if kind not in _TABLES:
        raise configuration.ConfigError(f"nothing to list under {kind!r}: one of {', '.join(_TABLES)}")
    columns, rows = _TABLES[kind]()
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    (console if console.is_terminal else Console(highlight=False, width=200)).print(table)


def _models():
    entries = [catalogue.load("model", name) for name in catalogue.names("model")]
    return ("model", "parameters", "KV per token", "positions", "source"), [
        (
            m.name,
            f"{kvsize.parameters(m) / 1e9:.1f} B",
            f"{kvsize.kv_bytes_per_token(m):,} B",
            f"{m.max_position_embeddings:,}",
            m.source,
        )
        for m in entries
    ]


def _rows_of(kind: str):
    def table():
        rows = []
        for name in catalogue.names(kind):
            entry = catalogue.load(kind, name)
            for field in type(entry).model_fields:
                row = getattr(entry, field)
                if hasattr(row, "source"):
                    rows.append((name, field, _si(row.value), row.source + (f" ({row.note})" if row.note else "")))
                elif field not in ("name", "description"):
                    rows.append((name, field, str(row), ""))
        return ("name", "field", "value (SI)", "source"), rows

    return table


def _si(value: float) -> str:
    return f"{value:.6g}"


def _policies_of(kind: str):
    def table():
        rows = []
        for name, policy in policies(kind).items():
            module = __import__(policy.__module__, fromlist=["_"])
            rows.append((name, (module.__doc__ or "").strip().splitlines()[0]))
        return (kind, "what it does"), rows

    return table


def _formats():
    rows = [(name, ", ".join(sorted(m.OFFERS)), (m.__doc__ or "").strip().splitlines()[0]) for name, m in known_formats().items()]
    return ("format", "offers", "what it is"), rows


def _presets():
    rows = []
    for name in configuration.presets():
        loaded = configuration.load(name)
        store = loaded.store
        rows.append((name, loaded.model, loaded.hardware, str(loaded.deployment.gpus), store.dram, store.ssd))
    return ("preset", "model", "hardware", "GPUs", "DRAM", "SSD"), rows


def _settings():
    defaults = configuration.load("default").resolved()
    rows = []
    for path in configuration.paths():
        value = defaults
        for key in path.split("."):
            value = value[key]
        if path.startswith(("workload.arrival", "workload.think_time")) or not isinstance(value, dict):
            rows.append((path, "null" if value is None else str(value)))
    return ("path", "default"), rows


_TABLES: dict[str, Callable] = {
    "models": _models,
    "hardware": _rows_of("node"),
    "gpus": _rows_of("gpu"),
    "ssds": _rows_of("ssd"),
    "prices": _rows_of("prices"),
    "presets": _presets,
    "settings": _settings,
    "formats": _formats,
    **{kind: _policies_of(kind) for kind in KINDS},
}
