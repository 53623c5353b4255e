"""report.html: one self-contained page, pictures inside."""

import base64
from pathlib import Path

from kvplan.foreign.text import visible
from kvplan.hwmodels import strictyaml
from kvplan.sim.engine.run import Result
from kvplan.sim.report import table
from kvplan.sim.settings import used

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>kvplan: {{ config.model }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 860px; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr { border-bottom: 1px solid #e6e6e6; }
img { width: 100%; } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 13px; }
.warning { background: #fff6e0; padding: .4rem .8rem; border-left: 4px solid #e0a020; margin: .5rem 0; }
</style></head><body>
<h1>{{ config.model }} on {{ gpus }} GPUs of {{ config.hardware }}</h1>
<p>{{ title }}</p>
<table><tr>{% for head in heads %}<th>{{ head }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% for line in words %}<p>{{ line }}</p>{% endfor %}
{% for warning in warnings %}<div class="warning">{{ warning }}</div>{% endfor %}
<h2>Figures</h2>
{% for picture in pictures %}<img alt="{{ picture.name }}" src="data:image/png;base64,{{ picture.data }}">
{% endfor %}
<h2>Configuration</h2><pre>{{ resolved }}</pre>
<h2>Provenance</h2><pre>{{ provenance }}</pre>
</body></html>
"""


def page(result: Result, summary: dict, pictures: list[Path]) -> str:
    """The report as HTML text."""
    baseline = summary.get("recompute")
    return filled(
        _PAGE,
        config=result.config,
        gpus=summary["gpu"]["gpus"],
        title=table.title(summary),
        heads=table.heads(baseline),
        rows=table.rows(summary, baseline),
        words=table.words(summary, baseline),
        warnings=table.warnings(summary, baseline),
        pictures=[{"name": path.stem, "data": as_is(base64.b64encode(path.read_bytes()).decode())} for path in pictures],
        resolved=as_is(strictyaml.dumps(used(result.config, result.workload))),
        provenance=as_is(strictyaml.dumps(summary["provenance"])),
    )


def filled(template: str, **values: object) -> str:
    """The template with the values: every text in one safe line, as `visible` makes it, but those that are `as_is`."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, finalize=lambda value: visible(value) if type(value) is str else value)
    return environment.from_string(template).render(**values)


def as_is(text: str) -> str:
    """Text of ours, whose lines and length stay; escaped for HTML all the same."""
    import markupsafe

    return markupsafe.escape(text)
