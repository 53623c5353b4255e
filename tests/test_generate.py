"""Arrival processes, distributions, and generated populations: their stated moments, their exact parts, and what they refuse."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from scipy.special import ndtri
from scipy.stats import rankdata

from kvplan.sim.rng import stream
from kvplan.traces import TraceError, origin
from kvplan.traces.generate import distributions, laws, population, synthetic, tables
from kvplan.traces.generate.arrivals import Arrival, Curve, Diurnal, Gamma, Poisson, Replayed
from kvplan.traces.generate.distributions import ThinkTime
from kvplan.traces.generate.laws import Length
from kvplan.traces.generate.ratecurve import RateCurve
from kvplan.traces.workload import MAX_TOKENS, Blocks, untimed

PROCESSES = [
    Poisson(rate_per_s=2.5),
    Gamma(rate_per_s=2.5, cv=2.0),
    Diurnal(rate_per_s=0.2, amplitude=0.9, period_s=60.0, peak_s=10.0),
    Curve(points=((0.0, 0.0), (10.0, 3.0), (30.0, 0.0), (40.0, 0.0), (45.0, 1.0))),
]
DISTRIBUTIONS = [
    distributions.Constant(value_s=3.0),
    distributions.Exponential(mean_s=4.0),
    distributions.LogNormal(median_s=30.0, sigma=0.5),
    distributions.Empirical(table="agentic-gaps"),
    laws.Constant(value=3.0),
    laws.Exponential(mean=4.0),
    laws.LogNormal(median=30.0, sigma=0.5),
    laws.LogNormal(median=30.0, sigma=0.8, max=60.0),
    laws.Uniform(min=3.0, max=9.0),
    laws.Zipf(alpha=1.6, max=50),
    laws.Poisson(rate=6.0),
    laws.Poisson(rate=6.0, max=7),
    laws.Empirical(points=((0.0, 1.0), (0.3, 1.0), (0.6, 4.0), (0.6, 10.0), (1.0, 12.0))),
]
CASES = pytest.mark.parametrize("case", PROCESSES + DISTRIBUTIONS, ids=lambda case: repr(type(case)).split("generate.")[1][:-2])


def registered(union) -> set[type]:
    return set(get_args(get_args(union)[0]))


def values(case, count, rng):
    """Spacings of a process, values of a distribution."""
    return np.diff(case.sample(count + 1, rng)) if type(case) in registered(Arrival) else case.sample(count, rng)


def stated(case):
    return (case.mean_s, case.variance_s2) if hasattr(case, "variance_s2") else (case.mean, case.variance)


# --- stated moments ---------------------------------------------------------------------------------------------------------------


@CASES
def test_samples_have_the_stated_mean_and_variance(case):
    """Within five standard errors, taken from the means of 100 batches because spacings of a process may be correlated. The error is
    small enough, 1 % of the mean and 3 % of the variance, for a wrong formula to show. The processes pass 4,000 periods or more."""
    mean, variance = stated(case)
    sample = values(case, 200_000, stream(7, "moments"))
    for moment, expected, precision in ((sample, mean, 0.01), ((sample - mean) ** 2, variance, 0.03)):
        error = moment.reshape(100, -1).mean(axis=1).std(ddof=1) / 10
        assert error <= precision * expected
        assert moment.mean() == pytest.approx(expected, abs=5 * error, rel=1e-9)


def test_everything_registered_is_held_to_its_moments():
    """Replayed times are exact, and tested as such below."""
    unions = registered(Arrival) | registered(ThinkTime) | registered(Length)
    assert {type(case) for case in PROCESSES + DISTRIBUTIONS} == unions - {Replayed}


@pytest.mark.parametrize("rate", [1e-3, 0.05, 1.0, 50.0])
def test_the_mean_wait_of_an_on_off_process(rate):
    """Closed form for a rate that is on for half a period and off for the other: from the start of the on phase the wait is R0."""
    half = 50.0
    curve = Curve(points=((0.0, rate), (half, rate), (half + 1e-6, 0.0), (2 * half, 0.0))).curve
    none = np.exp(-rate * half)
    r0 = 1 / rate + none * half / (1 - none)
    on = half / rate + (half + r0 - 1 / rate) * (1 - none) / rate
    off = half * r0 + half**2 / 2
    assert curve.mean_wait_s() == pytest.approx((on + off) / (2 * half), rel=2e-5)


def test_a_curve_that_is_flat_is_poisson():
    flat = Curve(points=((0.0, 2.5), (7.0, 2.5)))
    assert stated(flat) == pytest.approx(stated(Poisson(rate_per_s=2.5)), rel=1e-6)
    expected = Poisson(rate_per_s=2.5).sample(1000, stream(1, "a"))
    assert flat.sample(1000, stream(1, "a")) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("peak_s", [0.0, 20_000.0, 80_000.0])
def test_the_diurnal_peak_is_where_it_was_put(peak_s):
    """For a density 1 + a·cos(x), E[cos x] = a/2 and E[sin x] = 0; each has a standard error of at most 1/sqrt(n)."""
    day = Diurnal(rate_per_s=1.0, amplitude=0.6, peak_s=peak_s)
    angle = (day.sample(86_400 * 3, stream(1, "a")) - peak_s) / 86_400 * 2 * np.pi
    assert np.cos(angle).mean() == pytest.approx(0.3, abs=5 / np.sqrt(len(angle)))
    assert np.sin(angle).mean() == pytest.approx(0.0, abs=5 / np.sqrt(len(angle)))


# --- exact parts ------------------------------------------------------------------------------------------------------------------


@st.composite
def curves(draw):
    size = draw(st.integers(1, 6))
    widths = draw(st.lists(st.floats(1e-2, 1e3), min_size=size, max_size=size))
    rates = draw(st.lists(st.just(0.0) | st.floats(1.0, 1e3), min_size=size + 1, max_size=size + 1).filter(any))
    return RateCurve(np.append(0.0, np.cumsum(widths)), np.array(rates))


def integral(curve, times):
    """Of the rate from 0 to each of `times`, by the trapezoid rule, which is exact on linear pieces."""
    knots, rates = curve.times_s, curve.rates_per_s
    pieces = np.append(0.0, np.cumsum((rates[1:] + rates[:-1]) / 2 * np.diff(knots)))
    periods, rest = np.divmod(times, knots[-1])
    left = np.clip(np.searchsorted(knots, rest, side="right") - 1, 0, len(knots) - 2)
    return periods * pieces[-1] + pieces[left] + (rates[left] + np.interp(rest, knots, rates)) / 2 * (rest - knots[left])


@given(curves(), st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_the_integral_of_a_curve_is_inverted_exactly(curve, periods):
    total = curve.mean_per_s * curve.period_s
    expected = np.sort(periods) * total
    times = curve.times_at(expected)
    assert np.all(np.diff(times) >= 0) and times[0] >= 0
    assert integral(curve, times) == pytest.approx(expected, abs=1e-9 * (total + curve.rates_per_s.max() * curve.period_s))


@pytest.mark.parametrize("shape", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_rounding_at_the_end_of_a_period_is_harmless(shape):
    """A last bit too much would be the root of a negative number, or an arrival after the first one of the next period."""
    rng = np.random.default_rng(1)
    for *widths, rate in rng.random((2000, 3)) + 1e-3:
        curve = RateCurve(np.cumsum([0.0, *widths]), rate * np.array(shape))
        end = curve.expected[-1]
        times = curve.times_at(end + np.arange(-20, 20) * np.spacing(end))
        assert np.all(np.isfinite(times)) and np.all(np.diff(times) >= 0)


positive = st.floats(1e-6, 1e9)
points = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e9)), max_size=5).map(
    lambda inner: tuple(zip(*(sorted(column) for column in zip((0.0, 0.0), (1.0, 5.0), *inner, strict=True)), strict=True))
)
settings = st.one_of(
    st.builds(Poisson, rate_per_s=positive),
    st.builds(Gamma, rate_per_s=positive, cv=st.floats(0.01, 100)),
    st.builds(Diurnal, rate_per_s=positive, amplitude=st.floats(0, 1), period_s=positive, peak_s=positive),
    curves().map(lambda curve: Curve(points=tuple(zip(curve.times_s.tolist(), curve.rates_per_s.tolist(), strict=True)))),
    st.builds(laws.Constant, value=st.floats(0, 1e9)),
    st.builds(laws.Exponential, mean=positive),
    st.builds(laws.LogNormal, median=positive, sigma=st.floats(0, 10)),
    st.builds(laws.Empirical, points=points),
    st.builds(laws.Zipf, alpha=st.floats(1.01, 100), max=st.integers(1, 100)),
    st.builds(laws.Poisson, rate=st.floats(1e-6, 1e6), max=st.integers(1, 10**6)),
    st.builds(distributions.LogNormal, median_s=positive, sigma=st.floats(0, 10)),
)


@given(settings, st.integers(0, 2**32))
def test_samples_are_finite_not_negative_and_arrivals_ascend(setting, seed):
    sample = setting.sample(50, np.random.default_rng(seed))
    assert sample.shape == (50,) and np.all(np.isfinite(sample)) and sample.min() >= 0
    assert np.all(np.isfinite(stated(setting)))
    if type(setting) in registered(Arrival):
        assert np.all(np.diff(sample) >= 0)


@given(points)
def test_a_point_more_on_a_segment_changes_no_moment(table):
    law = laws.Empirical(points=table)
    middles = [((a + b) / 2, (low + high) / 2) for (a, low), (b, high) in pairwise(table)]
    finer = laws.Empirical(points=tuple(sorted([*table, *middles])))
    largest = table[-1][1]
    assert finer.mean == pytest.approx(law.mean, abs=1e-12 * largest)
    assert finer.variance == pytest.approx(law.variance, abs=1e-12 * largest**2)


def test_a_table_with_one_segment_is_uniform():
    law = laws.Empirical(points=((0.0, 10.0), (1.0, 22.0)))
    assert (law.mean, law.variance) == pytest.approx((16.0, 12.0))


def test_the_agentic_table_has_the_published_quantiles():
    cdf, seconds = distributions.Empirical(table="agentic-gaps").quantiles
    assert np.interp([0.1, 0.25, 0.5, 0.75, 0.9, 0.95], cdf, seconds).tolist() == [5, 50, 186, 771, 2560, 5041]


@pytest.mark.parametrize("name", tables.known())
def test_every_packaged_table_would_pass_as_ones_own(name):
    cdf, quantiles = tables.known()[name]
    own = laws.Empirical(points=tuple(zip(cdf.tolist(), quantiles.tolist(), strict=True)))
    assert own.mean == laws.Empirical(table=name).mean > 0


def test_recorded_starts_are_replayed_and_then_repeated():
    """Spacings of 10 and 20 s: the span is 30 s and a mean spacing of 15 s."""
    times = Replayed(trace="t.jsonl").sample_from(np.array([100.0, 130.0, 110.0]), 8)
    assert times.tolist() == [0, 10, 30, 45, 55, 75, 90, 100]


@given(st.lists(st.integers(0, 10**6), min_size=2, max_size=20).filter(lambda starts: min(starts) < max(starts)), st.integers(1, 100))
def test_replayed_times_keep_the_recorded_spacing_and_mean(starts, count):
    times = Replayed(trace="t").sample_from(np.array(starts, float), count)
    recorded = np.sort(starts)
    assert len(times) == count and times[0] == 0 and np.all(np.diff(times) >= 0)
    assert times[: len(starts)] == pytest.approx((recorded - recorded[0])[:count])
    spans = times[len(starts) :] - times[: -len(starts)]
    assert spans == pytest.approx(np.full(len(spans), np.diff(recorded).mean() * len(starts)))


@pytest.mark.parametrize("starts", [[], [5.0], [3.0, 3.0], [np.nan, np.nan]])
def test_starts_without_spacing_cannot_be_replayed(starts):
    with pytest.raises(TraceError, match=r"t\.jsonl: no arrivals to replay"):
        Replayed(trace="t.jsonl").sample_from(np.array(starts), 3)


@CASES
def test_the_generator_alone_decides_the_sample(case):
    first, again, other = (case.sample(20, stream(seed, "a")) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.array_equal(first, other) == (case.__class__.__name__ == "Constant")


# --- settings ---------------------------------------------------------------------------------------------------------------------


@CASES
def test_settings_survive_as_plain_data(case):
    union = next(union for union in (Arrival, ThinkTime, Length) if type(case) in registered(union))
    assert TypeAdapter(union).validate_python(json.loads(case.model_dump_json())) == case


def process(name, **settings):
    return Arrival, {"process": name, **settings}


def think(name, **settings):
    return ThinkTime, {"distribution": name, **settings}


def length(name, **settings):
    return Length, {"distribution": name, **settings}


BAD_RATES = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1e-10, "1", None, True]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        *((process("poisson", rate_per_s=rate), "rate_per_s") for rate in BAD_RATES),
        *((process("gamma", rate_per_s=1.0, cv=cv), "cv") for cv in (np.nan, np.inf, -1.0, 0.0, 1e3, "1")),
        *((process("diurnal", rate_per_s=1.0, amplitude=amplitude), "amplitude") for amplitude in (np.nan, -0.1, 1.1, "1")),
        *((process("diurnal", rate_per_s=1.0, amplitude=0.5, period_s=period), "period_s") for period in (np.nan, np.inf, 0.0, -1.0)),
        *((process("diurnal", rate_per_s=1.0, amplitude=0.5, peak_s=peak), "peak_s") for peak in (np.nan, np.inf, -1.0)),
        (process("curve", points=[]), "at least 2"),
        (process("curve", points=[[0, 1]]), "at least 2"),
        (process("curve", points=[[0, 1], [0, 2]]), "ascend from 0"),
        (process("curve", points=[[0, 1], [9, 1], [5, 2]]), "ascend from 0"),
        (process("curve", points=[[1, 1], [2, 2]]), "ascend from 0"),
        (process("curve", points=[[0, 0], [5, 0]]), "mean rate"),
        (process("curve", points=[[0, -1], [5, 2]]), "greater than or equal to 0"),
        (process("curve", points=[[0, np.nan], [5, 2]]), "finite|greater"),
        (process("curve", points=[[0, 1], [np.inf, 2]]), "finite|less"),
        (process("curve", points=[[0, "1"], [5, 2]]), "valid number"),
        (process("curve", points=[[0, 1, 2], [5, 2, 3]]), "at most 2"),
        (process("curve", points="0 1"), "valid tuple"),
        (process("replayed"), "trace"),
        (process("replayed", trace=""), "trace"),
        (process("poison", rate_per_s=1.0), "'poisson'"),
        (process("poisson", rate_per_s=1.0, cv=2.0), "cv"),
        *((think("constant", value_s=value), "value_s") for value in (np.nan, np.inf, -1.0, "1")),
        *((think("exponential", mean_s=mean), "mean_s") for mean in (np.nan, np.inf, -1.0, 0.0, "1")),
        *((think("lognormal", median_s=median, sigma=1.0), "median_s") for median in (np.nan, np.inf, -1.0, 0.0, "1")),
        *((think("lognormal", median_s=1.0, sigma=sigma), "sigma") for sigma in (np.nan, np.inf, -1.0, 11.0, "1")),
        *((length("constant", value=value), "value") for value in (np.nan, np.inf, -1.0, "1")),
        *((length("exponential", mean=mean), "mean") for mean in (np.nan, np.inf, -1.0, 0.0, "1")),
        *((length("lognormal", median=median, sigma=1.0), "median") for median in (np.nan, np.inf, -1.0, 0.0, "1")),
        (length("lognormal", median_s=1.0, sigma=1.0), "median_s"),
        (think("lognormal", median=1.0, sigma=1.0), "median"),
        (think("empirical"), "either `table` or `points`"),
        (think("empirical", table="agentic-gaps", points=[[0, 1], [1, 2]]), "either `table` or `points`"),
        (think("empirical", table="agentic"), "unknown table 'agentic': known are agentic-gaps, sharegpt90k-"),
        (length("empirical", table="sharegpt90k-turns"), "unknown table"),
        (length("empirical", points=[[0, 1]]), "at least 2"),
        (length("empirical", points=[[0.1, 1], [1, 2]]), "from 0.1 to 1, not from 0 to 1"),
        (length("empirical", points=[[0, 1], [0.9, 2]]), "from 0 to 0.9, not from 0 to 1"),
        (length("empirical", points=[[0, 1], [0.5, 2], [0.4, 3], [1, 4]]), "must ascend"),
        (length("empirical", points=[[0, 1], [0.5, 3], [1, 2]]), "must ascend"),
        (length("empirical", points=[[0, np.nan], [1, 2]]), "finite|greater"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong, reason):
    union, setting = wrong
    with pytest.raises(ValidationError, match=reason):
        TypeAdapter(union).validate_python(setting)


# --- synthetic sessions -----------------------------------------------------------------------------------------------------------

FEW = laws.Empirical(points=((0.0, 0.5), (1.0, 4.5)))
"""Rounded: 1, 2, 3 and 4, equally often."""


def generated(sessions=2000, turns=FEW, prompt=FEW, output=FEW, **limits):
    return synthetic.generate(sessions, stream(1, "lengths"), turns, prompt, output, **limits)


def assert_equally_often(column, kinds):
    """Counts within five standard errors of a binomial distribution."""
    share = 1 / len(kinds)
    error = np.sqrt(len(column) * share * (1 - share))
    assert set(column.tolist()) == set(kinds)
    assert np.all(np.abs(np.bincount(column)[list(kinds)] - len(column) * share) < 5 * error)


def test_lengths_and_turns_follow_their_distributions():
    table = generated()
    assert table.sessions == 2000 and not table.arrivals_known and not table.gaps_known
    for column in (np.diff(table.first_turn), table.prompt_tokens, table.output_tokens):
        assert_equally_often(column, [1, 2, 3, 4])


@pytest.mark.parametrize(("value", "whole"), [(0.0, 1), (0.4, 1), (2.6, 3), (7.0, 7)])
def test_values_are_rounded_and_at_least_one(value, whole):
    law, five = laws.Constant(value=value), laws.Constant(value=5.0)
    assert set(np.diff(generated(10, turns=law).first_turn)) == {whole}
    table = generated(10, prompt=law, output=five)
    assert (set(table.prompt_tokens), set(table.output_tokens)) == ({whole}, {5})


@pytest.mark.parametrize("limits", [{"max_turns": 3}, {"max_tokens": 79}, {"max_turns": 3, "max_tokens": 60}])
def test_sessions_beyond_a_limit_are_drawn_anew(limits):
    """Turns of 20 tokens each: what fits keeps its distribution, and as many sessions come as were asked for."""
    ten = laws.Constant(value=10.0)
    table = generated(3000, prompt=ten, output=ten, **limits)
    assert table.sessions == 3000
    assert_equally_often(np.diff(table.first_turn), [1, 2, 3])


def test_the_largest_allowed_session_is_kept():
    four, one = laws.Constant(value=4.0), laws.Constant(value=1.0)
    assert generated(5, four, one, one, max_turns=4, max_tokens=8).session_tokens.tolist() == [8] * 5


@pytest.mark.parametrize("limits", [{"max_turns": 3}, {"max_tokens": 79}])
def test_limits_that_leave_nothing_are_refused(limits):
    four, ten = laws.Constant(value=4.0), laws.Constant(value=10.0)
    with pytest.raises(TraceError, match=r"fewer than 1 % of synthetic sessions .* raise the limits"):
        generated(5, four, ten, ten, **limits)


def test_immense_sessions_are_left_out_before_they_are_drawn():
    huge = laws.Empirical(points=((0.0, 1.0), (0.5, 1.0), (0.5, 1e9), (1.0, 1e9)))
    table = generated(20, huge, prompt=huge, output=FEW, max_turns=10**9, max_tokens=100)
    assert table.sessions == 20 and table.session_tokens.max() <= 100


def test_the_origin_says_what_was_drawn():
    origin = json.loads(json.dumps(generated(5).origin))
    assert origin["source"] == "generator synthetic"
    assert origin["distributions"]["turns"] == {"distribution": "empirical", "points": [[0.0, 0.5], [1.0, 4.5]]}


# --- populations ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def three_turns():
    """Two sessions of three and one turn; the third turn goes on from all but five tokens. With block hashes and an origin."""
    table = untimed([0, 0, 0, 1], [10, 20, 30, 40], [1, 2, 3, 4], source="test")
    blocks = Blocks(16, np.arange(5), np.arange(4))
    return replace(table, dropped_tokens=np.array([0, 0, 5, 0]), blocks=blocks)


def test_a_system_prompt_opens_every_session_and_stays_in_its_history(three_turns):
    table = population.with_system_prompt(three_turns, 100)
    assert table.prompt_tokens.tolist() == [110, 20, 30, 140]
    assert (table.history_tokens - three_turns.history_tokens).tolist() == [0, 100, 100, 0]
    assert table.output_tokens.tolist() == [1, 2, 3, 4] and table.dropped_tokens.tolist() == [0, 0, 5, 0]
    assert table.origin == {"source": "test", "system_prompt_tokens": 100}
    assert table.blocks is None and three_turns.blocks is not None


@pytest.mark.parametrize("tokens", [-1, MAX_TOKENS + 1, 2**40, MAX_TOKENS])
def test_impossible_system_prompts_are_refused(three_turns, tokens):
    with pytest.raises(TraceError):
        population.with_system_prompt(three_turns, tokens)


def test_tenants_have_their_shares():
    table = untimed(np.repeat(np.arange(20_000), 2), np.ones(40_000), np.ones(40_000), source="test")
    labelled = population.with_tenants(table, {"free": 6.0, "none": 0, "pro": 2.0}, stream(1, "tenants"))
    assert labelled.tenant.shape == (20_000,) and labelled.tenant.dtype.kind == "U"
    assert set(labelled.tenant.tolist()) == {"free", "pro"}
    assert (labelled.tenant == "free").mean() == pytest.approx(0.75, abs=5 * np.sqrt(0.75 * 0.25 / 20_000))
    assert labelled.origin == {"source": "test", "tenant_shares": {"free": 0.75, "none": 0.0, "pro": 0.25}}
    again, other = (population.with_tenants(table, {"free": 3.0, "pro": 1.0}, stream(seed, "tenants")).tenant for seed in (1, 2))
    assert np.array_equal(labelled.tenant, again) and not np.array_equal(labelled.tenant, other)


@pytest.mark.parametrize("shares", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": np.nan, "b": 1.0}, {"a": np.inf}])
def test_what_are_no_shares_is_refused(three_turns, shares):
    with pytest.raises(TraceError, match="shares of tenants"):
        population.with_tenants(three_turns, shares, stream(1, "tenants"))


def test_what_limits_leave_out_is_said():
    """A mean of 5,000 tokens a prompt and sessions of 32,768 at most: only short sessions are left."""
    laws_ = laws.Exponential(mean=5.0), laws.Exponential(mean=5000.0), laws.Constant(value=10)
    table = synthetic.generate(1000, stream(1, "a"), *laws_)
    assert 0.1 < table.origin["redrawn_share"] < 0.6
    assert any("were drawn anew" in warning for warning in origin.warnings(table.origin))
    assert synthetic.generate(100, stream(1, "a"), laws.Constant(value=2), laws_[2], laws_[2]).origin["redrawn_share"] == 0


def test_first_prompts_have_a_law_of_their_own_and_the_rest_stays():
    plain, begun = generated(), generated(first_prompt_tokens=laws.Constant(value=900))
    assert set(begun.prompt_tokens[begun.is_first]) == {900}
    for name in ("session", "output_tokens"):
        assert np.array_equal(getattr(plain, name), getattr(begun, name))
    assert np.array_equal(plain.prompt_tokens[~plain.is_first], begun.prompt_tokens[~begun.is_first])


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.5])
def test_long_first_prompts_go_with_few_turns_or_many(correlation):
    """As far as wanted, by the correlation of normal scores; both keep their own distribution."""
    many = laws.Exponential(mean=300.0)
    limits = {"max_turns": 10_000, "max_tokens": 10**8, "first_prompt_tokens": many, "first_prompt_correlation": correlation}
    table = generated(turns=many, **limits)
    turns, first = np.diff(table.first_turn), table.prompt_tokens[table.is_first]
    scores = [ndtri((rankdata(each) - 0.5) / len(each)) for each in (turns, first)]
    assert np.corrcoef(*scores)[0, 1] == pytest.approx(correlation, abs=4 / np.sqrt(len(turns)))
    apart = generated(turns=many, **limits | {"first_prompt_correlation": 0.0})
    assert np.array_equal(np.diff(apart.first_turn), turns)
    assert sorted(apart.prompt_tokens[apart.is_first]) == sorted(first)


def test_the_coding_agents_are_like_the_recorded_ones():
    """Of the preset's turns, after drawing anew what is too long, beside the recorded sessions' (docs/plans.md): what a server and a store
    feel of them."""
    from kvplan.sim import config
    from kvplan.sim.build_workload import build_workload

    drawn = build_workload(config.load("agents-2026", ["workload.steady=false"]))
    context = drawn.history_tokens + drawn.prompt_tokens + drawn.output_tokens
    figures = {
        "turns a session": (drawn.turns / drawn.sessions, 24.6),
        "prompt": (drawn.prompt_tokens.mean(), 7231),
        "prompt, median": (np.median(drawn.prompt_tokens), 652),
        "answer": (drawn.output_tokens.mean(), 434),
        "context": (context.mean(), 97_862),
        "context, median": (np.median(context), 79_707),
        "context, p95": (np.quantile(context, 0.95), 270_927),
        "think time": (drawn.gap_s[~drawn.is_first].mean(), 130),
        "think time, p90": (np.quantile(drawn.gap_s[~drawn.is_first], 0.9), 185),
    }
    assert {name: ours for name, (ours, recorded) in figures.items() if abs(ours / recorded - 1) > 0.1} == {}
