"""Metrics as a server would export them, of a workload whose figures are known; shapes as in the public documentation of Prometheus' HTTP
API (`query`, `query_range`) and as Grafana writes CSV. The values are made up here."""

import json

import numpy as np

START_S = 1_760_000_000
BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


def requests(count=4000, span_s=7200.0, seed=1):
    """Columns of requests that ended: time, lengths in tokens, seconds, tokens hit."""
    rng = np.random.default_rng(seed)
    prompt, output = rng.lognormal(6.5, 1.0, count).round() + 1, rng.lognormal(5.0, 0.8, count).round() + 1
    local = np.floor(0.4 * prompt)
    return {
        "time_s": np.sort(rng.uniform(0, span_s, count)),
        "prompt": prompt,
        "output": output,
        "ttft": rng.lognormal(-2, 0.7, count),
        "tpot": rng.lognormal(-3.5, 0.3, count),
        "local": local,
        "external": np.floor(0.5 * (prompt - local)),
    }


def vllm(found, step_s=60.0, span_s=7200.0, labels=(), prefix="vllm:"):
    """{(name, labels): [(time, value)]} of a vLLM server's counters and histograms, scraped every `step_s`."""
    times = np.arange(0, span_s + step_s / 2, step_s)
    labels = (("instance", "10.0.0.1:8000"), ("model_name", "meta-llama/Llama-3.1-8B-Instruct"), *labels)
    made = {}

    def counter(name, weights, extra=()):
        ended = np.concatenate([[0.0], np.cumsum(weights)])
        made[f"{prefix}{name}", (*labels, *extra)] = ended[np.searchsorted(found["time_s"], times, "right")]

    ones = np.ones(len(found["time_s"]))
    counter("request_success_total", ones, (("finished_reason", "stop"),))
    counter("prefix_cache_queries_total", found["prompt"])
    counter("prefix_cache_hits_total", found["local"])
    counter("external_prefix_cache_queries_total", found["prompt"] - found["local"])
    counter("external_prefix_cache_hits_total", found["external"])
    for name, key, bounds in (
        ("request_prompt_tokens", "prompt", BUCKETS),
        ("request_generation_tokens", "output", BUCKETS),
        ("time_to_first_token_seconds", "ttft", SECONDS),
        ("request_time_per_output_token_seconds", "tpot", SECONDS),
    ):
        counter(f"{name}_sum", found[key])
        counter(f"{name}_count", ones)
        for bound in (*bounds, np.inf):
            counter(f"{name}_bucket", (found[key] <= bound).astype(float), (("le", "+Inf" if np.isinf(bound) else repr(float(bound))),))
    made[f"{prefix}num_requests_running", labels] = np.full(len(times), 7.0)
    return {series: list(zip((START_S + times).tolist(), values.tolist(), strict=True)) for series, values in made.items()}


def answer(series, moment=False):
    """As `query_range` gives it, or `query`."""
    kind, key = ("vector", "value") if moment else ("matrix", "values")

    def shown(points):
        pairs = [[time, f"{value:.0f}" if value % 1 == 0 else repr(value)] for time, value in points]
        return pairs[-1] if moment else pairs

    result = [{"metric": {"__name__": name, **dict(labels)}, key: shown(points)} for (name, labels), points in series.items()]
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def grafana(series, milliseconds=True, braces=False):
    """As Grafana writes CSV of series joined by time."""
    times = sorted({time for points in series.values() for time, _ in points})
    columns = [dict(points) for points in series.values()]
    rows = [["Time", *(_head(name, labels, braces) for name, labels in series)]]
    rows += [
        [f"{time * 1000:.0f}" if milliseconds else repr(time), *(repr(column[time]) if time in column else "" for column in columns)]
        for time in times
    ]
    return "\n".join(",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows) + "\n"


def shown(series):
    """As a server shows it at /metrics: the last values."""
    lines = ["# HELP vllm:request_success_total Count of successfully processed requests.", "# TYPE vllm:request_success_total counter"]
    return "\n".join([*lines, *(f"{_head(name, labels, False)} {points[-1][1]!r}" for (name, labels), points in series.items()), ""])


def _head(name, labels, braces):
    shown = ", ".join(f'{key}="{value}"' for key, value in ((("__name__", name), *labels) if braces else labels))
    return f"{{{shown}}}" if braces else f"{name}{{{shown}}}"


def write(path, series, **options):
    """A file of either kind, by its suffix."""
    path.write_text(grafana(series, **options) if path.suffix == ".csv" else json.dumps(answer(series, **options)))
    return path
