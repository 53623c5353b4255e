"""A page as HTML and as Markdown, by one template each. Every text of others is shown in one line and escaped; nothing is loaded, and only
the script that sorts tables may run: the page says so itself, by its digest."""

import base64
import hashlib
from functools import cache
from pathlib import Path

from kvplan.foreign.text import visible
from kvplan.sim.report.page.charts import swatch
from kvplan.sim.report.page.content import Page
from kvplan.sim.report.page.svg import STYLES

_HERE = Path(__file__).parent
_SPECIAL = frozenset("\\`*_|<>[]#")


def html(page: Page) -> str:
    """One file, with all that it needs inside."""
    import markupsafe

    script = (_HERE / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    own = {"style": style, "script": script, "digest": digest}
    return _environment(True).get_template("page.html.j2").render(page=page, styles=range(STYLES), **_as_is(own), ours=markupsafe.Markup)


def markdown(page: Page) -> str:
    """The same without pictures: their numbers as tables."""
    return _environment(False).get_template("page.md.j2").render(page=page)


def _as_is(texts: dict[str, str]) -> dict[str, str]:
    import markupsafe

    return {name: markupsafe.Markup(text) for name, text in texts.items()}


@cache
def _environment(is_html: bool):
    import jinja2

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.finalize = _in_html if is_html else _in_markdown
    environment.globals["swatch"] = swatch
    environment.filters["lines"] = _lines if is_html else _code
    return environment


def _in_html(value: object) -> object:
    """Text in one line, to be escaped; what is markup or no text stays."""
    return visible(value) if type(value) is str else value


def _in_markdown(value: object) -> object:
    """Text in one line, with what would be markup there escaped."""
    import markupsafe

    if type(value) is not str:
        return value
    return markupsafe.Markup("".join(f"\\{char}" if char in _SPECIAL else char for char in visible(value)))


def _lines(text: str) -> object:
    """Text of ours whose lines stay."""
    import markupsafe

    return markupsafe.escape("\n".join(map(visible, text.splitlines())))


def _code(text: str) -> object:
    """The same as a block of code in Markdown."""
    import markupsafe

    return markupsafe.Markup("\n".join(f"    {visible(line)}" for line in text.splitlines()))
