"""What a result rests on: the figures of the catalogue that a configuration uses, each with its date and source."""

from collections.abc import Iterator

from kvplan.hwmodels import catalogue
from kvplan.hwmodels.schema import Entry, Row
from kvplan.sim.config import Config
from kvplan.sim.deployment import resolve


def assumptions(config: Config) -> list[dict[str, str]]:
    """One entry a figure: `of`, `what`, `value` in the unit of its file, `date` and `source`."""
    return [
        {"of": name, "what": path, "value": row.text, "date": row.date, "source": row.source + (f" ({row.note})" if row.note else "")}
        for name, path, row in _rows(config)
    ]


def _rows(config: Config) -> Iterator[tuple[str, str, Row]]:
    deployment = resolve(config)
    link = catalogue.load("link", deployment.node.host_link, config.catalogue)
    connector = catalogue.load("connector", config.store.connector, config.catalogue)
    entries: list[Entry] = [deployment.gpu, deployment.node, link, *[connector] * any(not tier.on_device for tier in deployment.tiers)]
    entries += [deployment.ssd] * deployment.keeps_on_drives
    yield from ((entry.name, path, row) for entry in entries for path, row in entry.rows())
    yield from ((deployment.prices.name, path, row) for path, row in deployment.prices.rows() if _is_of(path, deployment.gpu.name))


def _is_of(path: str, gpu: str) -> bool:
    """Whether a price is of this GPU, or of none."""
    _, _, name = path.partition(".")
    return name in ("", gpu)
