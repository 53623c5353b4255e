"""What metrics say: figures of a known workload come back from every form of export, and what is wrong is one message."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from metrics_export import START_S, answer, grafana, requests, shown, vllm, write
from typer.testing import CliRunner

from kvplan.sim import config
from kvplan.sim.build_workload import build_workload
from kvplan.sim.cli.app import app
from kvplan.sim.planner import load
from kvplan.traces import TraceError
from kvplan.traces.context import contexts
from kvplan.traces.prometheus import observed, read_series
from kvplan.traces.prometheus.names import recognised
from kvplan.traces.prometheus.settings import workload

FOUND = requests()


def seen(tmp_path, series, name="m.json", keep=(), **options):
    return observed(read_series([write(tmp_path / name, series, **options)], keep))


def command(*arguments):
    return CliRunner().invoke(app, ["trace", "from-prometheus", *map(str, arguments)])


# --- figures come back --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"moment": True}, {"name": "m.csv"}, {"name": "m.csv", "milliseconds": False, "braces": True}])
def test_every_form_gives_the_same_figures(tmp_path, options):
    found = seen(tmp_path, vllm(FOUND), **options)
    assert found.turns == len(FOUND["time_s"]) and found.engine == "vllm" and found.servers == 1
    for role, key in (("prompt", "prompt"), ("output", "output")):
        assert found.sizes[role].mean == pytest.approx(FOUND[key].mean(), rel=1e-9)
    for role in ("ttft", "tpot"):
        assert found.latencies[role].mean == pytest.approx(FOUND[role].mean(), rel=1e-9)
    hits = found.hits
    assert hits["local"].rate == pytest.approx(FOUND["local"].sum() / FOUND["prompt"].sum())
    assert hits["external"].rate == pytest.approx(FOUND["external"].sum() / (FOUND["prompt"] - FOUND["local"]).sum())
    assert hits["all"].rate == pytest.approx((FOUND["local"] + FOUND["external"]).sum() / FOUND["prompt"].sum())
    if options.get("moment"):
        assert found.turns_per_s is None and not found.curve and "one moment" in found.notes[0]
    else:
        assert found.turns_per_s == pytest.approx(4000 / 7200) and found.levels["running"] == (7.0, 7.0)
        assert sum(rate * (end - start) for start, end, rate in found.curve) == pytest.approx(4000)


def test_what_a_server_shows(tmp_path):
    file = tmp_path / "metrics.txt"
    file.write_text(shown(vllm(FOUND)))
    assert observed(read_series([file])).data() | {"begin_s": 0} == seen(tmp_path, vllm(FOUND), moment=True).data() | {"begin_s": 0}
    file.write_text(file.read_text() + "half a line\n")
    with pytest.raises(TraceError, match="half a line"):
        read_series([file])
    file.write_text("\n".join(f'{line} # {{trace="a"}} 1.0' for line in shown(vllm(FOUND)).splitlines() if line[0] != "#"))
    assert observed(read_series([file])).turns == 4000
    assert command(file, "--out", tmp_path / "o.yaml").exit_code == 0 and "since the start" in (tmp_path / "o.yaml").read_text()


def test_quantiles_are_within_their_buckets(tmp_path):
    found = seen(tmp_path, vllm(FOUND))
    data = found.sizes["prompt"].data()
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        true = np.quantile(FOUND["prompt"], share)
        assert 0.4 * true <= data[name] <= 2.5 * true


def test_the_last_bucket_keeps_the_mean(tmp_path):
    few = {**FOUND, "prompt": FOUND["prompt"] * 30}
    each = seen(tmp_path, vllm(few)).sizes["prompt"]
    shares, values = np.array(each.points).T
    assert each.open_share > 0.1 and float(np.diff(shares) @ (values[1:] + values[:-1]) / 2) == pytest.approx(each.mean, rel=0.05)


def test_since_the_start_of_the_servers(tmp_path):
    series = vllm(FOUND)
    series["process_start_time_seconds", (("instance", "10.0.0.1:8000"),)] = [(START_S + 7200.0, START_S - 800.0)]
    assert seen(tmp_path, series, moment=True).turns_per_s == pytest.approx(4000 / 8000)


def test_two_servers_add_up_and_files_are_put_together(tmp_path):
    other = requests(1000, seed=2)
    write(tmp_path / "a.json", vllm(FOUND))
    write(tmp_path / "b.csv", {(name, (("pod", "b"), *labels)): points for (name, labels), points in vllm(other).items()})
    found = observed(read_series([tmp_path]))
    assert found.turns == 5000 and found.servers == 2
    assert found.sizes["prompt"].mean == pytest.approx((FOUND["prompt"].sum() + other["prompt"].sum()) / 5000)
    assert found.latencies["ttft"].count == 5000


def test_one_file_a_query_overlapping(tmp_path):
    series = vllm(FOUND)
    for number, (key, points) in enumerate(series.items()):
        write(tmp_path / f"{number}.json", {key: points})
    write(tmp_path / "again.json", series)
    alone = tmp_path / "alone"
    alone.mkdir()
    assert observed(read_series([tmp_path])).data() == seen(alone, series).data()


def test_restarts_gaps_and_values_that_are_none(tmp_path):
    series = vllm(FOUND)
    key = next(key for key in series if "request_success" in key[0])
    points = series[key]
    at = points[60][1]
    points = [(time, value if place < 60 else value - at) for place, (time, value) in enumerate(points)]
    series[key] = [point for place, point in enumerate(points) if not 20 <= place < 30]
    series[key][5] = (series[key][5][0], float("nan"))
    found = seen(tmp_path, series)
    assert 3900 <= found.turns <= 4000
    assert any("1 restarts" in note for note in found.notes) and any("1 gaps" in note for note in found.notes)
    assert any("1 points are no numbers" in note for note in found.notes)


def test_sglang(tmp_path):
    labels = (("instance", "a"), ("model_name", "Qwen/Qwen2.5-7B"))
    times = [(START_S, 0.0), (START_S + 3600, 1.0)]

    def counter(last):
        return [(time, last * share) for time, share in times]

    series = {
        ("sglang:num_requests_total", labels): counter(3600),
        ("sglang:prompt_tokens_total", labels): counter(3.6e6),
        ("sglang:generation_tokens_total", labels): counter(7.2e5),
        ("sglang:cached_tokens_total", (*labels, ("cache_source", "device"))): counter(9e5),
        ("sglang:cached_tokens_total", (*labels, ("cache_source", "host"))): counter(9e5),
        ("sglang:cache_hit_rate", labels): [(START_S, 0.5), (START_S + 3600, 0.5)],
    }
    found = seen(tmp_path, series)
    assert found.turns_per_s == 1.0 and found.sizes["prompt"].mean == 1000 and found.sizes["output"].mean == 200
    assert {name: each.rate for name, each in found.hits.items()} == {"all": 0.5, "device": 0.25, "host": 0.25}
    assert found.levels["cache_hit_rate"] == (0.5, 0.5)
    assert set(workload(found)["prompt_tokens"].value) == {"distribution", "value"}


def test_turns_that_were_broken_off_are_said(tmp_path):
    series = vllm(FOUND)
    (name, labels), points = next(each for each in series.items() if "request_success" in each[0][0])
    aborted = (*(label for label in labels if label[0] != "finished_reason"), ("finished_reason", "abort"))
    series[name, aborted] = [(time, value / 4) for time, value in points]
    found = seen(tmp_path, series)
    assert found.turns == 5000 and found.servers == 1 and any("20.0% of the turns were broken off" in note for note in found.notes)


def test_milliseconds_of_a_latency(tmp_path):
    series = {
        (name.replace("first_token_seconds", "first_token_milliseconds"), labels): points for (name, labels), points in vllm(FOUND).items()
    }
    assert seen(tmp_path, series).latencies["ttft"].mean == pytest.approx(FOUND["ttft"].mean() / 1000)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vllm:request_success_total", ("requests", 0, "")),
        ("vllm_request_success", ("requests", 0, "")),
        ("vllm.external_prefix_cache_hits_total", ("external_hits", 0, "")),
        ("vllm:prefix_cache_hits_total", ("local_hits", 0, "")),
        ("vllm:gpu_prefix_cache_hits_total", ("local_hits", 1, "")),
        ("sglang:uncached_prompt_tokens_histogram_sum", ("uncached", 0, "sum")),
        ("sglang:prompt_tokens_histogram_bucket", ("prompt", 1, "bucket")),
        ("vllm:prompt_tokens_total", ("prompt_tokens", 0, "")),
        ("vllm:request_prompt_tokens_count", ("prompt", 0, "count")),
        ("vllm:request_success_created", None),
        ("node_cpu_seconds_total", None),
    ],
)
def test_names_are_known_by_their_ends(name, role):
    assert recognised(name) == role


def test_an_old_and_a_new_name_of_one_metric_count_once(tmp_path):
    series = vllm(FOUND)
    series |= {
        (name.replace("vllm:prefix", "vllm:gpu_prefix"), labels): points for (name, labels), points in series.items() if ":prefix" in name
    }
    found = seen(tmp_path, series)
    assert found.hits["local"].queries == FOUND["prompt"].sum() and found.found["local_hits"] == "vllm:prefix_cache_hits_total"


# --- a configuration of it --------------------------------------------------------------------------------------------------------


def test_the_configuration_has_the_recorded_means(tmp_path):
    file, out = write(tmp_path / "m.json", vllm(FOUND)), tmp_path / "my.yaml"
    done = command(file, "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["hit_rate"]["all"]["of"] and found["not_known"] and found["metrics_missing"]
    text = out.read_text()
    assert "ASSUMED: not in metrics" in text and "model: llama-3.1-8b\n" in text
    made = build_workload(config.load(str(out), ["workload.sessions=20000"]))
    history, prompt, output = contexts(made, 10**9, 0.5)
    assert output.mean() == pytest.approx(FOUND["output"].mean(), rel=0.03)
    assert (history + prompt).mean() == pytest.approx(FOUND["prompt"].mean(), rel=0.1)
    starts = made.arrival_s[made.first_turn[:-1]]
    assert made.turns / float(np.ptp(starts)) == pytest.approx(4000 / 7200, rel=0.05)


@pytest.mark.parametrize("given", [1.0, 2.0, 4.0])
def test_turns_per_session_may_be_given(tmp_path, given):
    found = seen(tmp_path, vllm(FOUND))
    made = workload(found, given)
    assert made["turns"].value["mean"] == given and not made["turns"].assumed


def test_turns_are_fewer_where_prompts_are_short_and_more_where_much_was_hit(tmp_path):
    found = seen(tmp_path, vllm(FOUND))
    short = replace(found, sizes={**found.sizes, "prompt": replace(found.sizes["prompt"], mean=300.0)})
    assert workload(short)["turns"].value["mean"] < 3
    long = replace(
        found,
        sizes={**found.sizes, "prompt": replace(found.sizes["prompt"], mean=60_000.0)},
        hits={"all": replace(found.hits["all"], rate=0.9)},
    )
    assert workload(long)["turns"].value["mean"] > 8
    low = replace(long, hits={"all": replace(found.hits["all"], rate=0.95)})
    assert "less than was hit" in workload(low, 1.0)["turns"].remark


def test_a_load_that_swings_is_a_curve_and_one_that_does_not_is_none(tmp_path):
    times = np.concatenate([np.linspace(0, 3600, 500), np.linspace(3600, 7200, 3500)])
    found = seen(tmp_path, vllm({**FOUND, "time_s": times}))
    arrival = workload(found)["arrival"]
    assert arrival.value["process"] == "curve" and "busiest" in arrival.remark
    made = config.load(None, {"workload.arrival": arrival.value})
    turns = config.load(None, {}).workload.turns.mean
    assert made.workload.arrival.curve.mean_per_s == pytest.approx(found.turns_per_s / turns, rel=0.05)
    assert workload(seen(tmp_path, vllm(FOUND)))["arrival"].value["process"] == "poisson"


def test_plan_scales_a_curve(tmp_path):
    points = [[0.0, 1.0], [100.0, 3.0], [200.0, 1.0]]
    asked = config.load(None, {"workload.arrival": {"process": "curve", "points": points}})
    loaded = load.share(asked, recorded=1.75, sessions_per_s=8.0, sessions=10)
    assert loaded.workload.arrival.curve.mean_per_s == pytest.approx(8.0)
    assert loaded.workload.arrival.points[1] == (100.0, 12.0)


def test_a_number_next_to_nothing_is_none(tmp_path):
    series = {("vllm:request_success_total", ()): [(1.0, 1.0)], ("vllm:prefix_cache_hits_total", ()): [(1.0, 2.0)]}
    assert not seen(tmp_path, series | {("vllm:prefix_cache_queries_total", ()): [(1.0, 1e-308)]}, moment=True).hits


def test_a_moment_has_no_rate_and_the_default_stands(tmp_path):
    assert "arrival" not in workload(seen(tmp_path, vllm(FOUND), moment=True))


# --- what is wrong is one message -------------------------------------------------------------------------------------------------

WRONG = {
    "empty": ("", "empty"),
    "blank": (" \n\n", "empty"),
    "binary": ("\x00\x01", "neither JSON"),
    "cut": ('{"status":"success","data":{"result":[', "truncated"),
    "error": ('{"status":"error","errorType":"bad_data","error":"parse error"}', "parse error"),
    "no series": ('{"status":"success","data":{"resultType":"matrix","result":[]}}', "no series"),
    "scalar": ('{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}', "no series"),
    "other": ('[{"messages": []}]', "data.result"),
    "number": ("[1, 2]", "no object"),
    "rate": ('{"data":{"resultType":"matrix","result":[{"metric":{"pod":"a"},"values":[[1,"1"]]}]}}', "rate"),
    "not ours": ('{"data":{"result":[{"metric":{"__name__":"up"},"values":[[1,"1"]]}]}}', "no metric of vLLM"),
    "NaN": ('{"data":{"result":[{"metric":{"__name__":"vllm:request_success_total"},"values":[[1,"NaN"]]}]}}', "no series"),
    "time": ('{"data":{"result":[{"metric":{"__name__":"vllm:request_success_total"},"values":[[-5,"1"]]}]}}', "no time"),
    "point": ('{"data":{"result":[{"metric":{"__name__":"vllm:request_success_total"},"values":[[1]]}]}}', "not \\[time, value\\]"),
    "huge": ('{"data":{"result":[{"metric":{"__name__":"vllm:request_success_total"},"values":[[1,"1e300"]]}]}}', "beyond"),
    "negative": ('{"data":{"result":[{"metric":{"__name__":"vllm:request_success_total"},"values":[[1,"-3"],[2,"1"]]}]}}', "negative"),
    "idle": ('{"data":{"result":[{"metric":{"__name__":"vllm:request_success_total"},"values":[[1,"3"],[2,"3"]]}]}}', "no turn"),
    "gauges": ('{"data":{"result":[{"metric":{"__name__":"vllm:num_requests_running"},"values":[[1,"3"]]}]}}', "nothing counts requests"),
    "units": ("Time,vllm:request_success_total{}\n1,3 K\n", "Formatted data"),
    "fields": ("Time,a{}\n1,2,3\n", "3 fields"),
    "head": ('Time,"a{b=c}"\n1,2\n', "column's head"),
    "csv": ("a,b\n1,2\n", "first column is Time"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_read_is_said(tmp_path, name):
    text, said = WRONG[name]
    file = tmp_path / "m.txt"
    file.write_text(text)
    with pytest.raises(TraceError, match=said):
        observed(read_series([file]))
    done = command(file, "--out", tmp_path / "o.yaml")
    assert done.exit_code == 2 and "Traceback" not in done.output and not (tmp_path / "o.yaml").exists()
    assert len(done.stderr.strip().splitlines()) == 1


def test_several_models_or_engines_are_told_apart(tmp_path):
    series = vllm(FOUND)
    other = {
        (name, tuple((key, "other" if key == "model_name" else value) for key, value in labels)): points
        for (name, labels), points in series.items()
    }
    file = write(tmp_path / "m.json", series | other)
    with pytest.raises(TraceError, match=r"2 models.*--label model_name="):
        observed(read_series([file]))
    assert observed(read_series([file], [("model_name", "other")])).turns == 4000
    assert command(file, "--label", "model_name=other").exit_code == 0
    with pytest.raises(TraceError, match="no series has model_name=none"):
        read_series([file], [("model_name", "none")])
    assert command(file, "--label", "model_name").exit_code == 2
    mixed = {("sglang:num_requests_total", (("job", "b"),)): [(START_S, 0.0), (START_S + 60, 9.0)]}
    with pytest.raises(TraceError, match="vLLM and of SGLang"):
        seen(tmp_path, vllm(FOUND) | mixed)


def test_the_same_time_twice(tmp_path):
    key = ("vllm:request_success_total", ())
    write(tmp_path / "a.json", {key: [(START_S, 1.0), (START_S + 9, 5.0)]})
    write(tmp_path / "b.json", {key: [(START_S + 9, 6.0)]})
    with pytest.raises(TraceError, match="two values"):
        read_series([tmp_path])


def test_nothing_that_is_read_is_written(tmp_path):
    file = write(tmp_path / "m.json", vllm(FOUND))
    assert command(file, "--out", file).exit_code == 2 and json.loads(file.read_text())


def test_excel_semicolons_and_dates(tmp_path):
    file = tmp_path / "g.csv"
    file.write_text(
        'sep=;\n"Time";"vllm:request_success_total{pod=""a""}"\n2026-01-01 00:00:00;0\n2026-01-01 01:00:00;\n2026-01-01 02:00:00;7200\n'
    )
    found = observed(read_series([file]))
    assert found.turns == 7200 and found.turns_per_s == 1.0


COUNTED = ["request_success_total", "prefix_cache_hits_total", "prefix_cache_queries_total", "generation_tokens_total"]
SHAPES = [f"{name}_{part}" for name in ("request_prompt_tokens", "time_to_first_token_seconds") for part in ("bucket", "sum", "count")]
NAMES = st.sampled_from([*(f"vllm:{name}" for name in (*COUNTED, *SHAPES, "num_requests_running")), "process_start_time_seconds", "x"])
NUMBERS = st.floats(0, 1e17) | st.sampled_from([0, 1, 5.0, "NaN", "+Inf", "", None, True, "1e400", -1.0, 10**400]) | st.integers(0, 100)
LABELS = st.dictionaries(
    st.sampled_from(["le", "pod", "model_name", "cache_source"]), st.sampled_from(["+Inf", "1", "10.0", "a", "b", "-1", "nan"]), max_size=2
)
POINTS = st.lists(st.tuples(st.integers(0, 9) | st.floats(0, 2e9), NUMBERS).map(list), max_size=6)
RESULTS = st.fixed_dictionaries({"metric": st.builds(lambda name, labels: {"__name__": name, **labels}, NAMES, LABELS), "values": POINTS})
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["data", "result", "metric", "values", "value"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(RESULTS, max_size=8).map(lambda each: {"data": {"result": each}}) | JSON, st.none() | st.floats(0.1, 20))
def test_whatever_it_is_it_is_read_or_refused(tmp_path_factory, data, turns):
    file = tmp_path_factory.getbasetemp() / "fuzz.json"
    file.write_text(json.dumps(data))
    try:
        found = observed(read_series([file]))
        made = workload(found, turns)
    except TraceError as error:
        assert str(error)
        return
    json.dumps(found.data(), allow_nan=False)
    config.load(None, {f"workload.{name}": each.value for name, each in made.items()})


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from('Time,;"{}=\nvllm:request_success_total 0123.\x00'), max_size=80))
def test_whatever_the_table_is(tmp_path_factory, text):
    file = tmp_path_factory.getbasetemp() / "fuzz.csv"
    Path(file).write_text("Time," + text)
    try:
        observed(read_series([file]))
    except TraceError as error:
        assert str(error)


def test_hostile_names_are_harmless(tmp_path):
    series = {
        (name, tuple((key, "\x1b[31m<b>\n# x: 1" if key == "model_name" else value) for key, value in labels)): points
        for (name, labels), points in vllm(FOUND).items()
    }
    done = command(write(tmp_path / "m.json", series), "--out", tmp_path / "o.yaml")
    assert done.exit_code == 0 and "\x1b" not in done.output
    assert set(yaml.safe_load((tmp_path / "o.yaml").read_text())) == {"workload"}


def test_examples_are_what_the_documentation_shows():
    shown = answer({("up", (("job", "prometheus"),)): [(1435781430.781, 1.0), (1435781445.781, 1.0)]})
    assert shown["data"]["result"][0] == {
        "metric": {"__name__": "up", "job": "prometheus"},
        "values": [[1435781430.781, "1"], [1435781445.781, "1"]],
    }
    assert grafana({("up", (("job", "a"),)): [(1.0, 1.0)]}, braces=True).startswith('"Time","{__name__=""up"", job=""a""}"\n"1000"')
