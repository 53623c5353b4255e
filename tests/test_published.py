"""`kvplan validate paper` and `published`: the cases, what is taken of runs and how far off it is, and what would reconcile it."""

import re
from pathlib import Path

import pytest

from kvplan.hwmodels import pipeline_s
from kvplan.sim import config
from kvplan.sim.deployment import resolve
from kvplan.sim.sweep.pool import Failed
from kvplan.validate.published import cases, command, drawn, implied, measures, reconcile, runs
from kvplan.validate.published.cases import Assumption, Case, CaseError, Quantity
from kvplan.validate.published.page import short, verdict

ROOT = Path(__file__).resolve().parents[1]
GROUPS = tuple(command.GROUPS)
ALL = [(group, name) for group in GROUPS for name in cases.names(group)]


def quantity(**said) -> Quantity:
    return Quantity(**{"name": "it", "kind": "hits", "run": "ours", "take": ["a"], **said})


def made(*quantities: Quantity, **said) -> Case:
    """A case with two runs at two points."""
    plain = {
        "title": "t",
        "source": "s",
        "axis": "x",
        "points": {"1": {"at": 1}, "2": {"at": 2}},
        "runs": {"ours": {}, "re": {"off": True}},
    }
    return Case(**plain | said, quantities=list(quantities))


def simulated(case: Case, of, more=()):
    """Figures of a simulator that answers with `of(settings)`."""
    wanted = [*measures.wanted(case), *(settings for each in more for settings in measures.wanted(case, (), each))]
    return {runs.key(settings): of(settings) for settings in wanted}


# --- the cases --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("group", "name"), ALL)
def test_every_run_of_every_case_can_be_set_up(group, name):
    case, assumptions = cases.load(group, name), cases.assumptions(group)
    for settings in [
        *measures.wanted(case),
        *reconcile.wanted_trials(case, assumptions, {name: cases.load(group, name) for name in cases.names(group)}),
    ]:
        plain = {path: value for path, value in settings.items() if path not in runs._WORDS and path != "catalogue"}
        model = {"model": "falcon-40b"} if settings.get("model") == "falcon-40b-4k" else {}
        config.load(settings["preset"], plain | model)


def test_every_published_result_of_the_paper_has_its_cell():
    """CachedAttention (arXiv 2403.19708v3), by model where there are several."""
    told = {
        (each.name, point): each.published[point] for name in cases.names("paper") for each, point in cases.load("paper", name).published
    }
    by_model = {
        "hit rate": (86, 71, 89),
        "TTFT, without queueing": (-85, -61, -87),
        "prefill throughput": (6.8, 2.6, 7.8),
        "GPU time": (4.0, 1.9, 3.3),
        "cost": (-70, -43, -66),
        "storage's share of the cost": (16.4, 9.0, 9.0),
        "hit rate lost": (17.6, 41.5, 18.1),
    }
    for name, numbers in by_model.items():
        assert tuple(told.pop((name, f"LLaMA-{size}")) for size in ("13B", "65B", "70B")) == numbers
    ranges = [number for number in told.values() if isinstance(number, list)]
    assert ranges == [[13, 15]] * 4
    assert sorted(number for number in told.values() if number not in ranges) == [0.5, 0.5, 2.7, 13.9, 35, 48, 58, 61, 86, 99.6, 192, 360]


def test_every_key_that_is_taken_is_one_of_a_run():
    """Of one that has ten turns, all tiers and both ways to load."""
    turns = [[100 * each, 20, 2] for each in range(10)]
    found = runs.one({"preset": "paper-13b", "warmup_turns": 0, "store.hbm": "1GB", "requests": [{"count": 1, "turns": turns}]})
    found |= runs.one({"preset": "paper-13b", "pipeline": {"batch": 1, "history": 9, "new": 1, "preloaded": None}})
    for each in (each for group, name in ALL for each in cases.load(group, name).quantities):
        for path in (*each.take, *filter(None, [each.per]), *each.also.values()):
            assert isinstance(measures._at(found, path), float)


def test_falcon_and_mistral_run_beside_the_models_with_numbers():
    points = cases.load("paper", "05-end-to-end").points
    assert list(points) == ["LLaMA-13B", "LLaMA-65B", "LLaMA-70B", "Falcon-40B", "Mistral-7B"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"run": "theirs"}, "there is no run 'theirs', only ours, re"),
        ({"published": {"3": 1}}, "there is no point '3', only 1, 2"),
        ({"shown": "times"}, "`shown: times` and `against` do not go together"),
        ({"against": "re"}, "`shown: value` and `against` do not go together"),
    ],
)
def test_a_name_that_means_nothing_is_refused(wrong, says):
    with pytest.raises(CaseError, match=says):
        cases._check(made(quantity(**wrong)), "here")


def test_a_file_that_is_no_case_is_refused(tmp_path, monkeypatch):
    (tmp_path / "paper").mkdir()
    (tmp_path / "paper" / "bad.yaml").write_text("title: t\nruns: {}\n")
    monkeypatch.setattr(cases, "FOLDER", tmp_path)
    with pytest.raises(CaseError, match=r"bad\.yaml.*source"):
        cases.load("paper", "bad")
    assert cases.assumptions("paper") == {}


def test_later_settings_win_and_words_of_ours_are_merged_within():
    case = made(quantity(), base={"what_if": {"ssd": 2}, "a": 0}, points={"1": {"a": 1, "pipeline": {"new": 5}}})
    (found,) = case.setup("1", "re", {"a": 2, "off": False, "what_if": {"reads": 3}})
    assert found == {
        "what_if": {"ssd": 2, "reads": 3}, "a": 2, "off": True, "pipeline": {"new": 5}
    }  # fmt: skip


# --- numbers and errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, 6.0),
        ({"take": ["a", "within.0.b"]}, 10.0),
        ({"take": ["within.0.b"], "per": "a", "scale": 3}, 2.0),
        ({"shown": "percent"}, 600.0),
        ({"shown": "times", "against": "re"}, 2.0),
        ({"shown": "change", "against": "re"}, 100.0),
        ({"shown": "saved", "against": "re"}, -100.0),
        ({"shown": "points", "against": "re"}, 300.0),
    ],
)
def test_what_is_taken_of_runs(said, expected):
    case = made(quantity(**said))
    figures = simulated(case, lambda settings: {"a": 3.0 if "off" in settings else 6.0, "within": [{"b": 4.0}]})
    assert [cell.ours for cell in measures.cells("f", case, figures)] == [expected, expected]


@pytest.mark.parametrize(
    ("shown", "published", "error", "holds"),
    [
        ("percent", 0.55, 0.05, True),
        ("percent", 6.0, -5.4, False),
        ("value", 0.005, 0.2, False),
        ("value", 0.0062, -0.2 / 6.2, True),
        ("value", [0.004, 0.007], 0.0, True),
        ("value", [0.007, 0.008], -1 / 7, False),
    ],
)
def test_how_far_off(shown, published, error, holds):
    """A percentage by points, from 5 on a miss; another number by its share of the published one, from 10 %."""
    case = made(quantity(shown=shown, published={"1": published}), points={"1": {}})
    (cell,) = measures.cells("f", case, simulated(case, lambda settings: {"a": 0.006}))
    assert cell.error == pytest.approx(error) and cell.holds == holds


def test_errors_by_kind_leave_out_what_has_no_number_and_what_failed():
    case = made(
        quantity(shown="percent", published={"1": 40, "2": 52}),
        quantity(name="time", kind="TTFT", published={"1": 1.0, "2": 0.25}, fitted=["2"]),
        quantity(name="lost", run="re", kind="cost", published={"1": 1}),
        quantity(name="unpublished"),
    )
    figures = simulated(case, lambda settings: Failed("it broke") if "off" in settings else {"a": 0.5})
    cells = measures.cells("f", case, figures)
    told = [
        (each.kind, each.count, each.hold, each.mean, each.median, each.worst, each.worst_cell.point) for each in measures.by_kind(cells)
    ]
    assert told == [
        ("hits, points", 2, 1, 6.0, 6.0, 10.0, "1"),
        ("TTFT, %", 1, 0, 50.0, 50.0, 50.0, "1"),
        ("TTFT (fitted to these), %", 1, 0, 100.0, 100.0, 100.0, "2"),
    ]  # fmt: skip
    assert not next(cell for cell in cells if cell.quantity.name == "lost").holds


# --- what would reconcile ---------------------------------------------------------------------------------------------------------

TRIED = {
    "slower": Assumption(about="", held_against="held", tried={"2 times": {"x": 2}, "4 times": {"x": 4}}),
    "larger": Assumption(about="", tried={"3 times": {"x": 3}}),
}


def test_the_nearest_value_of_each_assumption_and_what_it_does_to_the_others():
    case = made(
        quantity(name="hits", shown="percent", published={"1": 41}, also={"of others": "c"}),
        quantity(name="time", kind="TTFT", take=["b"], published={"1": 10}),
        reconcile=["slower", "larger"],
        tried_at=["1"],
    )
    figures = simulated(case, lambda settings: {"a": settings.get("x", 1) / 10, "b": 10 * settings.get("x", 1), "c": 0.2},
                        [{"x": 2}, {"x": 3}, {"x": 4}])  # fmt: skip
    held = made(quantity(name="anchor", kind="TTFT", take=["b"], published={"1": 10}), points={"1": {"z": 1}})
    figures |= simulated(held, lambda settings: {"b": 10 + settings.get("x", 0)}, [{"x": 4}, {"x": 2}])
    (miss,) = reconcile.misses("f", case, TRIED, {"held": held}, figures)
    assert [(trial.assumption, trial.value, trial.cell.ours) for trial in miss.trials] == [
        ("slower", "4 times", 40.0), ("larger", "3 times", 30.0), ("definition", "of others", 20.0)
    ]  # fmt: skip
    assert [[cell.quantity.name for cell in trial.breaks] for trial in miss.trials] == [["time", "anchor"], ["time"], []]
    assert miss.reconciled is miss.trials[0] and not miss.clean


def test_a_miss_that_nothing_mends_is_not_reconciled():
    case = made(quantity(shown="percent", published={"1": 90}), reconcile=["larger"], tried_at=["1"])
    (miss,) = reconcile.misses("f", case, TRIED, {}, simulated(case, lambda settings: {"a": settings.get("x", 1) / 10}, [{"x": 3}]))
    assert miss.reconciled is None and miss.trials[0].cell.ours == 30.0


# --- runs -------------------------------------------------------------------------------------------------------------------------


def changed(**what_if):
    return runs._changed(resolve(config.load("paper-13b")), what_if)


def test_a_slower_prefill_leaves_decoding_as_it_is():
    as_is, slower = changed().steps, changed(compute=5).steps
    assert slower.decode(24, 30_000) == pytest.approx(as_is.decode(24, 30_000), rel=1e-12)
    assert slower.prefill(2000, 500) - slower.fixed == pytest.approx(5 * (as_is.prefill(2000, 500) - as_is.fixed), rel=4e-3)


def test_faster_reads_shorten_what_a_step_reads():
    as_is, faster = changed().steps, changed(reads=0.5).steps
    assert faster.fixed == 0.5 * as_is.fixed and faster.per_context == 0.5 * as_is.per_context and faster.per_pair == as_is.per_pair


def test_less_of_a_tier_can_be_used_and_all_is_paid():
    as_is, found = changed(), changed(capacity=0.5)
    assert [tier.capacity for tier in found.tiers] == [64 * 10**9, 5 * 10**12]
    assert [tier.reserve for tier in found.tiers] == [tier.reserve // 2 for tier in as_is.tiers]
    one = {"preset": "paper-13b", "warmup_turns": 0, "requests": [{"count": 1, "turns": [[0, 20, 2]]}]}
    assert runs.one(one | {"what_if": {"capacity": 0.5}})["cost_usd"] == runs.one(one)["cost_usd"]


def test_links_are_changed_each_alone():
    as_is, found = changed(), changed(host_link=2, ssd=0.5)
    assert found.host.read_bytes_per_s == 2 * as_is.host.read_bytes_per_s
    assert found.drive_links.write_bytes_per_s == 0.5 * as_is.drive_links.write_bytes_per_s
    with pytest.raises(ValueError, match="what_if knows no disk"):
        changed(disk=2)


def requested(mixed):
    found = runs._requested([{"count": 2, "turns": [[0, 7, 1], [9, 1, 2]]}, {"count": 4, "turns": [[5, 3, 1]]}], mixed)
    assert found.open_loop and found.sessions == 6
    return found.prompt_tokens.tolist(), found.arrival_s.round(3).tolist(), found.arrival_s


def test_groups_of_requests_come_in_their_order_or_are_mixed_evenly():
    prompts, at_s, exactly_s = requested(mixed=False)
    assert (prompts, at_s) == ([7, 1, 7, 1, 3, 3, 3, 3], [0, 9, 0, 9, 5, 5, 5, 5])
    assert exactly_s[4] < exactly_s[5] < exactly_s[6] < exactly_s[7] < 5.001
    assert requested(mixed=True)[:2] == ([3, 7, 1, 3, 3, 7, 1, 3], [5, 0, 9, 5, 5, 0, 9, 5])


def test_who_comes_first_decides_whether_loads_hide_behind_computing():
    """One kind after the other takes what both take, since HBM bounds how many loads are under way; mixed, much less."""
    hits, misses = {"count": 500, "turns": [[0, 511, 1], [900, 1, 1]]}, {"count": 60, "turns": [[900, 512, 1]]}
    base = cases.load("published", "vllm-throughput").base | {"deployment.hbm_utilization": 0.25, "warmup_turns": 500}
    base |= {"deployment.host_request_s": 0}  # of the GPU and the link alone

    def took_s(**more):
        return runs.one(base | more)["e2e_s"]["max"]

    computed, loaded = took_s(requests=[misses], warmup_turns=0), took_s(requests=[hits])
    listed, mixed = (took_s(requests=[hits, misses], order=order) for order in ("listed", "mixed"))
    assert listed > 0.9 * (computed + loaded)
    assert mixed < 0.75 * listed


def test_a_batch_by_the_pipeline_is_its_closed_form():
    settings = {"preset": "paper-13b", "deployment.gpus": 1, "pipeline": {"batch": 2, "history": 512, "new": 10, "preloaded": 3}}
    found = runs.one(settings)
    assert found["batch_prefill_s"] == pipeline_s(40, found["compute_s"] / 40, found["load_s"] / 40, 3)
    settings["pipeline"]["preloaded"] = None
    assert runs.one(settings)["batch_prefill_s"] == found["compute_s"] + found["load_s"]


def test_runs_that_are_known_are_not_made_again_and_failures_say_why():
    known, broken = {"preset": "paper-13b"}, {"preset": "paper-13b", "model": "no-such-model"}
    found = runs.run_all([known, broken, broken], jobs=1, found={runs.key(known): {"a": 1}})
    assert found[runs.key(known)] == {"a": 1} and "no-such-model" in found[runs.key(broken)].reason


# --- claims against each other ----------------------------------------------------------------------------------------------------


def test_what_the_papers_own_numbers_imply():
    case = cases.load("paper", command.CLAIMED)
    run = {"resumed_turns": 87, "turns": 100, "output_tokens": 100 * 448, "gpu": {"prefill_s": 20.0}}
    found = {claim.of: claim for claim in implied.claims(case, simulated(case, lambda settings: run))}
    assert found["LLaMA-65B: cost"].computed == "-42.2%" and found["LLaMA-65B: cost"].verdict == "one claim"
    assert found["LLaMA-13B: storage's share of the cost"].computed == "16.4%"
    step = found["LLaMA-65B: a decode step"]
    assert "leave decoding 23% of" in step.follows and step.computed == "at least 16.0 ms"
    assert float(step.published.split()[0]) == pytest.approx(20e3 * 0.2303 / 0.7697 / (44800 / 24), abs=0.06)


# --- the command ------------------------------------------------------------------------------------------------------------------


def test_a_figure_alone_is_printed_and_written(tmp_path, capsys):
    pages = [str(tmp_path / "p.html"), str(tmp_path / "p.md")]
    assert command.main("paper", ["--figure", "read-buffer", "--jobs", "1", "--html", pages[0], "--markdown", pages[1], "--reconcile"]) == 0
    out = capsys.readouterr().out
    assert "28.3%" in out and "-6.7 points  miss" in out and "prefill, points" in out
    html, markdown = ((tmp_path / name).read_text() for name in ("p.html", "p.md"))
    assert html.count("<svg viewBox") == 1 and "Hollow: published." in html and "CachedAttention (arXiv" in html
    assert "| read-buffer | time saved by pre-loading | 15 | 61% | 54.9% | -6.1 points | miss |" in markdown
    assert "prefill time: 1.5x" in markdown


def test_figures_are_listed_and_unknown_ones_refused(capsys):
    assert command.main("published", ["--list"]) == 0
    assert "mooncake-ssd: Mooncake's SSD benchmark" in capsys.readouterr().out
    assert command.main("paper", ["--figure", "nothing"]) == 2
    assert "there is no figure 'nothing', only anchors, read-buffer" in capsys.readouterr().err


@pytest.mark.parametrize("group", GROUPS)
def test_the_docs_have_every_published_number(group):
    """Page and cases say the same; ours are those of the command at the page's end."""
    page = (ROOT / "docs" / f"{group}.md").read_text(encoding="utf-8")
    assert f"\n    {command.GROUPS[group].command}\n" in page
    told = re.findall(r"^\| (\S+) \| (.+?) \| (.+?) \| (.+?) \|", page.partition("## Every published number")[2], re.MULTILINE)[2:]
    cells = [measures.Cell(name, each, point, ()) for name in cases.names(group) for each, point in cases.load(group, name).published]
    assert told == [(short(cell.figure), cell.quantity.name, cell.point, drawn.published(cell)) for cell in cells]


# --- runs that are as chance has it -----------------------------------------------------------------------------------------------


def test_a_case_with_seeds_takes_their_mean_and_says_when_a_miss_is_within_them():
    case = cases.load("published", "mooncake-ssd").model_copy(update={"seeds": [1, 2, 3]})
    quantity = next(each for each in case.quantities if each.name == "hits in round 4")
    settings = case.setup("GPU", "HiCache")
    assert [each["seed"] for each in settings] == [1, 2, 3]
    turns = [{"by_turn": [{}, {}, {}, {}, {"hit_rate": {"tokens": share}}]} for share in (0.01, 0.02, 0.27)]
    figures = dict(zip(map(runs.key, settings), turns, strict=True))
    cell = measures.Cell("mooncake-ssd", quantity, "GPU", measures.valued(case, quantity, "GPU", figures))
    assert cell.ours == pytest.approx(10) and cell.error == pytest.approx(6) and not cell.holds and cell.is_chance
    assert verdict(cell) == "miss; 1% to 27% by seed"
    figures[runs.key(settings[0])] = Failed("no room")
    assert measures.valued(case, quantity, "GPU", figures) == ()


def test_attention_alone_is_changed():
    as_is, found = (changed(**more).steps for more in ({}, {"attention": 2}))
    assert found.per_pair == 2 * as_is.per_pair and found.per_token == as_is.per_token
