"""The report: one page for every command, made from a folder alone; its numbers are those of the JSON; it is what it says in a browser."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import chromium
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_plan import SMALL
from typer.testing import CliRunner

from kvplan.sim.cli.app import app
from kvplan.sim.planner.plan import plan
from kvplan.sim.planner.question import Question
from kvplan.sim.report import plan as plan_report
from kvplan.sim.report import plandir
from kvplan.sim.report.page import charts, render, svg
from kvplan.sim.report.page.charts import Axis, Level, Mark, Part, Row, Series
from kvplan.sim.report.page.content import Page, Section, Table
from kvplan.sim.report.page.place import Cell, Place, percent, plain, seconds, total, usd
from kvplan.sim.sweep.axes import Axis as Varied

KINDS = {"run": "summary.json", "plan": "plan.json", "compare": "compare.json", "curve": "curve.json"}
TINY = ["--set", "workload.sessions=60", "--set", "store.ssd=200GB", "--set", "store.dram=4GB"]


def kvplan(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """What the four commands write, and a plan with its sensitivity."""
    root = tmp_path_factory.mktemp("reports")
    found = {kind: root / kind for kind in KINDS}
    several = ["--replications", "2", "--jobs", "1"]
    assert kvplan("simulate", *TINY, "--replications", "2", "--out", str(found["run"])).exit_code == 0
    vary = ["--vary", "store.eviction=lru,fifo", "--vary", "store.dram=2GB,8GB"]
    assert kvplan("compare", *TINY, *vary, *several, "--out", str(found["compare"])).exit_code == 0
    sizes = ["--sizes", "2GB,4GB,8GB", "--policies", "lru,fifo"]
    assert kvplan("curve", *TINY, *sizes, *several, "--out", str(found["curve"])).exit_code == 0
    axes = (Varied.parse("store.dram+store.ssd=64GB+0GB,64GB+200GB"),)
    answered = plan(Question("default", (*SMALL, "slo.ttft_p95_s=0.5"), 2.0, axes, 32, 400, 300, 2))
    plandir.write_plan(answered, plan_report.data(answered), found["plan"])
    found["robust"] = root / "robust"
    found["robust"].mkdir()
    data = json.loads((found["plan"] / "plan.json").read_text())
    (found["robust"] / "plan.json").write_text(json.dumps({**data, "robust": robust(data)}))
    assert kvplan("report", str(found["robust"])).exit_code == 0
    return found


def robust(data: dict) -> dict:
    """What `plan --sensitivity` adds, for ten inputs and six what-ifs."""
    best = next(option for option in data["options"] if option["option"] == data["cheapest"])

    def outcome(name: str, change: str, factor: float | None) -> dict:
        usd = factor and factor * best["usd_per_month"]
        known = {"cheapest": factor and data["cheapest"], "gpus": factor and best["gpus"], "usd_per_month": usd, "saved_share": None}
        baseline = {"baseline": None, "baseline_gpus": None, "baseline_usd_per_month": None}
        return {"input": name, "change": change, **known, **baseline, "reason": None if factor else "too slow"}

    ends = {"load": (0.8, 1.2), "context": (0.9, None), "price of SSD": (1.0, 1.0), "links": (1.1, 1.3)}
    ends |= {f"input {number}": (0.9, 1.05) for number in range(6)}
    sensitivity = [
        {"input": name, "low": outcome(name, "× 0.8", low), "high": outcome(name, "× 1.2", high), "swing_usd_per_month": 1.0}
        for name, (low, high) in ends.items()
    ]
    sensitivity[3]["high"] = None
    more = [outcome(f"what {number}", "× 2", 1.5) for number in range(6)]
    return {"unchanged": outcome("as planned", "", 1.0), "sensitivity": sensitivity, "what_if": more, "simulations": 7}


class Numbers(HTMLParser):
    """(source, value, text) of everything that says where its number comes from."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, float, str]] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        known = dict(attrs)
        if "data-from" in known:
            self.found.append((known["data-from"], float(known["data-value"]), ""))
            self._open = tag

    def handle_data(self, data):
        if self._open in ("td", "b", "span"):
            self.found[-1] = (*self.found[-1][:2], data)
        self._open = ""


def looked_up(data, pointer: str):
    for key in pointer.split("/")[1:]:
        key = unquote(key).replace("~1", "/").replace("~0", "~")
        data = data[int(key)] if isinstance(data, list) else data[key]
    return data


UNITS = {
    "ms": 1e-3,
    "us": 1e-6,
    "s": 1,
    "h": 3600,
    "days": 86400,
    "%": 0.01,
    "B": 1,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "points": 0.01,
}


def agrees(text: str, value: float) -> bool:
    """Whether a number as it is shown is the value, to its last digit."""
    if text == "none":
        return value == 1
    first = re.match(r"(?:recompute: )?([+-]?)\$?([\d,]*\.?\d+)( ± [\d.,]+)?\s*(\S*)", text)
    number = float(first[2].replace(",", "")) * (-1 if first[1] == "-" else 1)
    half = 0.51 * 10.0 ** -len(first[2].partition(".")[2])
    if first[4] in ("ms", "s", "h", "GB", "TB", "tok/s", "") and "$" not in text:
        half = max(half, 0.006 * abs(number))  # three significant digits
    wanted = [value / UNITS.get(first[4].rstrip(","), 1), value, 100 * value, 1e3 * value, 1e-12 * value]
    wanted += [100 * (value - 1)] * ("%" in text)
    return any(abs(number - each) <= half for each in wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_is_the_one_in_the_json(folders, kind):
    data = json.loads((folders[kind] / KINDS[kind]).read_text())
    found = Numbers((folders[kind] / "report.html").read_text(encoding="utf-8")).found
    assert len(found) > 30
    for source, value, text in found:
        assert sum(looked_up(data, pointer) for pointer in source.split()) == value, source
        assert not text or agrees(text, value), (source, value, text)


def test_a_wrong_number_would_be_noticed():
    assert agrees("122 ms", 0.1222) and not agrees("122 ms", 0.1242)
    assert agrees("$71,540", 71540.4) and not agrees("$71,540", 71641)
    assert agrees("-51% ± 5", 0.492) and not agrees("-51% ± 5", 0.6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_folder_alone_makes_the_report(folders, kind):
    folder = folders[kind]
    before = {name: (folder / name).read_bytes() for name in ("report.html", "report.md")}
    for name in before:
        (folder / name).unlink()
    done = kvplan("report", str(folder))
    assert done.exit_code == 0 and done.stdout == "" and "report.html" in done.stderr
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_that_needs_nothing(folders, kind):
    page = (folders[kind] / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 1_000_000 and page.startswith("<!doctype html>")
    assert not re.search(r"(src|href)=|@import|https?://[^\"<> ]*\.(js|css|png|woff)", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page and "default-src 'none'" in page


def test_the_baseline_is_in_every_figure_of_a_run(folders):
    page = (folders["run"] / "report.html").read_text(encoding="utf-8")
    figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(figures) == 8
    for figure in figures:
        assert "recompute" in figure, figure[:200]


def test_a_plan_says_what_was_asked_and_what_came_out(folders):
    page, text = ((folders["plan"] / name).read_text(encoding="utf-8") for name in ("report.html", "report.md"))
    data = json.loads((folders["plan"] / "plan.json").read_text())
    titles = re.findall(r"<h[23]>(.*?)</h[23]>", page)
    assert {"GPUs that it takes", "What it costs a month", "Options", "TTFT against load", "Hit rate by tier", "DRAM: how full"} <= set(
        titles
    )
    assert "target 500 ms" in page and "TTFT p95 within 500 ms" in page
    for option in data["options"]:
        assert option["option"] in page and option["option"] in text
    assert all(point["ttft_p95_s"] or point["ended_early"] for option in data["options"] for point in option["points"])
    assert f"{data['simulations']} simulations" in page and f"**Cheapest: {data['cheapest']}" in text and "To paste" in page
    settings = page[page.index("Settings that the runs used") :]
    assert "skip_bad" not in settings and "sigma" in settings
    assert "sources" in page and "assumption" in page


def test_what_else_may_be_true_is_shown_where_it_was_asked(folders):
    data = json.loads((folders["robust"] / "plan.json").read_text())
    page = (folders["robust"] / "report.html").read_text(encoding="utf-8")
    assert "If it is otherwise" in page and "too slow" in page and "What the cost hangs on" in page and "no plan" in page
    for source, value, _ in Numbers(page).found:
        assert sum(looked_up(data, pointer) for pointer in source.split()) == value
    assert "If it is otherwise" not in (folders["plan"] / "report.html").read_text(encoding="utf-8")


def test_a_plan_is_written_whole_beside_nothing_of_others(folders, tmp_path):
    assert {path.name for path in folders["plan"].iterdir()} == {
        "plan.json",
        "plan.csv",
        "config.resolved.yaml",
        "report.html",
        "report.md",
    }
    (tmp_path / "precious.txt").write_text("x")
    refused = kvplan("plan", "default", *(part for each in SMALL for part in ("--set", each)), "--out", str(tmp_path))
    assert refused.exit_code == 2 and "not a folder of a plan" in refused.stderr


def test_what_is_no_folder_of_ours_is_one_message(folders, tmp_path):
    for path, said in (
        (tmp_path, "nothing to report on"),
        (tmp_path / "gone", "cannot read"),
        (tmp_path / "gone" / "plan.json", "cannot read"),
    ):
        failed = kvplan("report", str(path))
        assert failed.exit_code == 2 and said in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr
    for text in ("{", "[]", "{}", '{"options": 3}', '{"options": [{}]}'):
        (tmp_path / "plan.json").write_text(text)
        failed = kvplan("report", str(tmp_path))
        assert failed.exit_code == 2 and "plan.json" in failed.stderr and failed.stderr.count("\n") == 1, failed.stderr
    (tmp_path / "plan.json").write_bytes((folders["plan"] / "plan.json").read_bytes())
    (tmp_path / "compare.json").write_bytes((folders["compare"] / "compare.json").read_bytes())
    assert "name the one that is meant" in kvplan("report", str(tmp_path)).stderr
    assert kvplan("report", str(tmp_path / "compare.json")).exit_code == 0 and (tmp_path / "report.md").exists()


# --- in a browser -----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if chromium.PATH is None:
        pytest.skip("there is no Chromium")
    with chromium.browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.mark.parametrize("kind", [*KINDS, "robust"])
def test_it_opens_without_a_word_and_draws_all(folders, kind, tab):
    path = folders[kind] / "report.html"
    pictures = {}
    for width in (390, 1280):
        for dark in (False, True):
            tab.open(path, width, dark)
            assert tab.run("document.documentElement.scrollWidth") <= width, "nothing sticks out"
            sizes = tab.run(
                "[...document.querySelectorAll('figure > svg')].map(e => [e.getBoundingClientRect().width, e.querySelectorAll('*').length])"
            )
            assert sizes and all(150 < across <= 481 and parts > 5 for across, parts in sizes)
            outside = tab.run(
                "[...document.querySelectorAll('figure > svg')].flatMap(s => [...s.querySelectorAll('text')].filter(t => {"
                "const a = s.getBoundingClientRect(), b = t.getBoundingClientRect();"
                "return b.left < a.left - 1 || b.right > a.right + 1 || b.bottom > a.bottom + 1; }).map(t => t.textContent))"
            )
            assert outside == [], "texts are within their figures"
            pictures[width, dark] = tab.screenshot()
            assert tab.happened("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
            asked = [each["request"]["url"] for each in tab.happened("Network.requestWillBeSent")]
            assert asked == [path.as_uri()]
    assert len(set(pictures.values())) == 4


@pytest.mark.parametrize("page", sorted((Path(__file__).parents[1] / "docs" / "figures").glob("*.html")), ids=lambda path: path.stem)
def test_pages_of_the_manual_show_their_tables_whole(page, tab):
    tab.open(page, 1200)
    cut = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 60))"
    assert tab.run(cut) == []


@pytest.mark.parametrize("kind", ["plan", "compare"])
def test_tables_sort_by_click(folders, kind, tab):
    tab.open(folders[kind] / "report.html")
    column = (
        "(() => { const t = [...document.querySelectorAll('section table')].find(t => t.tHead.rows[0].cells.length > 5);"
        " const b = t.tHead.rows[0].cells[4].querySelector('button'); if (%s) b.click();"
        " return [...t.tBodies[0].rows].map(r => r.cells[4].dataset.value ?? null); })()"
    )
    for descending in (False, True):
        found = [float(value) for value in tab.run(column % "true") if value is not None]
        assert found and found == sorted(found, reverse=descending)


@pytest.mark.parametrize("kind", [*KINDS, "robust"])
def test_it_prints_on_two_pages(folders, kind, tab):
    tab.open(folders[kind] / "report.html")
    assert 1 <= len(re.findall(rb"/Type /Page\b", tab.pdf())) <= 2


def test_only_our_script_runs(tmp_path, tab):
    (tmp_path / "p.html").write_text(
        render.html(Page("x", "y", ["z"])).replace(
            "</h1>", "<script>document.title = 'taken'</script><img src=x onerror='document.title=1'></h1>"
        )
    )
    tab.open(tmp_path / "p.html")
    assert tab.run("document.title") == "kvplan: x"


# --- parts ------------------------------------------------------------------------------------------------------------------------

FOREIGN = "<script>alert(1)</script>\x1b[31m\u202e|`*_[x](y) \"'&"


def test_foreign_text_is_shown_and_nothing_else():
    bars = charts.bars([Row(FOREIGN, [Part(FOREIGN, Cell(FOREIGN, 1.0, FOREIGN), 1)], FOREIGN)], Axis(FOREIGN, plain), FOREIGN)
    series = [Series(FOREIGN, [Mark(Cell("1", 1.0), Cell("2", 2.0, FOREIGN)), Mark(Cell("2", 2.0), Cell("–"), said=FOREIGN)], 1, FOREIGN)]
    plot = charts.plot(series, Axis(FOREIGN, plain), Axis(FOREIGN, plain), FOREIGN, [Level(1, FOREIGN)])
    table = Table([FOREIGN], [[Cell(FOREIGN, 1.0, FOREIGN)]])
    page = Page(FOREIGN, FOREIGN, [FOREIGN], sections=[Section(FOREIGN, [FOREIGN], table, text=FOREIGN)], warnings=[FOREIGN])
    html, markdown = render.html(page), render.markdown(page)
    for text in (bars, plot, html):
        assert "<script>alert" not in text and not set(text) & set("\x1b\u202e")
    assert html.count("<script>") == 1 and html.count("&lt;script&gt;") > 5
    body = "\n".join(line for line in markdown.splitlines() if not line.startswith("    "))
    assert "<script>" not in body.replace("\\<script\\>", "") and "\x1b" not in markdown and "](" not in body.replace("\\](", "")


def test_places_know_their_pointer():
    found = Place({"a/b": [{"m~": 2.5}, {"m~": 1.5}], "none": None})
    assert found.at("a/b", 0, "m~").pointer == "/a~1b/0/m~0"
    assert found.at("a/b", 7, "x").value is None and found.at("none").cell(plain) == Cell("–")
    both = total([each.at("m~") for each in found.at("a/b").each()], plain)
    assert both.value == 4.0 and [looked_up(found.value, pointer) for pointer in both.source.split()] == [2.5, 1.5]
    assert (usd(1234567), usd(8.051), usd(0), percent(0.5), seconds(0.25)) == ("$1,234,567", "$8.05", "$0", "50.0%", "250 ms")


@given(st.floats(1e-6, 1e12), st.floats(1.5, 1e6), st.booleans())
def test_scales_keep_order_and_have_round_ticks(low, factor, log):
    scale = svg.fitted([low, low * factor], 50.0, 390.0, log)
    assert 50 <= scale(low) < scale(low * factor) <= 390
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 8 and ticks == sorted(ticks)
    assert all(scale.low * 0.999 <= tick <= scale.high * 1.001 for tick in ticks)
    for tick in ticks:
        digits = f"{tick:.9e}".split("e")[0].rstrip("0")
        assert len(digits) <= 4, tick


def test_styles_differ_without_colour():
    lines = {svg.polyline([(0, 0), (1, 1)], style).replace(f"s{style}", "") for style in range(svg.STYLES)}
    marks = {re.search(r'points="([^"]*)"', svg.marker(0, 0, style))[1] for style in range(svg.STYLES)}
    assert len(lines) == len(marks) == svg.STYLES
    page = render.html(Page("x", "y", []))
    patterns = {re.sub(r'id="p\d"', "", found) for found in re.findall(r"<pattern .*?</pattern>", page, re.DOTALL)}
    assert len(patterns) >= 6


def test_values_that_are_nearly_one_are_not_spread_over_an_axis():
    scale = Axis("", plain, near=True).scale([22.910, 22.911], 0.0, 100.0)
    assert scale(22.911) - scale(22.910) < 1 and 0 < scale.low < 22.1


def test_there_is_no_quarter_of_a_gpu():
    drawn = charts.bars([Row("a", [Part("x", Cell("1", 1.0), 1)], "1")], Axis("GPUs", lambda value: f"{value:.0f}", whole=True), "GPUs")
    assert re.findall(r'class="tick">(.*?)<', drawn) == ["0", "1"]


def test_a_question_without_an_answer_has_a_page_too(tmp_path):
    arguments = ["default", *(part for each in SMALL for part in ("--set", each)), "--ttft-p95", "1ms", "--jobs", "1"]
    assert kvplan("plan", *arguments, "--out", str(tmp_path / "none")).exit_code == 3
    page = (tmp_path / "none" / "report.html").read_text(encoding="utf-8")
    assert "no plan" in page and "Nothing that was tried" in page and "Nearest" in page and "<figure>" not in page


def test_bars_are_as_long_as_their_numbers():
    drawn = charts.bars(
        [Row("a", [Part("x", Cell("1", 1.0), 1)], "1"), Row("b", [Part("x", Cell("2", 2.0), 1)], "2")], Axis("", plain), "bars"
    )
    one, other = [float(width) for width in re.findall(r'width="([\d.]+)" height="14" class', drawn)]
    assert math.isclose(other, 2 * one, rel_tol=0.01)
