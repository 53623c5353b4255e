"""What kvplan writes of a configuration, it takes back: as a file, as `--set`, and as `--vary`."""

import math
import types
import typing
from itertools import chain

import pytest
import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import AfterValidator, BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kvplan.hwmodels import strictyaml
from kvplan.sim import config as configuration
from kvplan.sim import enginesets
from kvplan.sim.config import Config, ConfigError
from kvplan.sim.policies.registry import KINDS, policies
from kvplan.sim.sweep.axes import Axis, points
from kvplan.traces.generate import tables

TRICKY = (
    "no",
    "1e5",
    "1:30",
    "null",
    "~",
    "0x1f",
    "08",
    "1_000",
    "2020-01-01",
    ".inf",
    ".nan",
    "=",
    "<<",
    "it's",
    '"',
    "'",
    "a: b",
    "#x",
    "+1",
    "1e+5",
)
TEXT = st.sampled_from(TRICKY) | st.text(max_size=20)
WORDS = ["0GB", "1.5 TiB", "64MiB", "7e3kB", *enginesets.names(), *(name for kind in KINDS for name in policies(kind)), *tables.known()]
"""Text that some validator takes."""
POINTS = {
    "_quantile_points": [((0.0, 1.0), (1.0, 5e8)), ((0.0, 0.0), (0.5, 1e-7), (1.0, 2.5))],
    "_rate_points": [((0.0, 1.0), (10.0, 1e-7)), ((0.0, 0.0), (1e9, 3.0))],
}

CXL = {"name": "cxl", "size": "5GB", "read": "1e1 GB/s", "write": "3GB/s", "latency": "2us", "price": "0USD/GB/h"}
TIERS = [["hbm", "dram", "ssd"], ["hbm", "dram", CXL, "ssd"]]


def strategy(kind, limits=()):
    """Values of an annotation."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        own = (one.metadata if isinstance(one, FieldInfo) else [one] for one in kind.__metadata__)
        return strategy(inner[0], (*chain.from_iterable(own), *limits))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*(strategy(one, limits) for one in inner))
    if origin is typing.Literal:
        return st.sampled_from(inner)
    if origin is dict:
        return st.dictionaries(TEXT.filter(bool), strategy(inner[1]), max_size=3)
    if origin is list:
        return st.sampled_from(TIERS)
    if origin is tuple:
        return st.sampled_from(next(POINTS[one.func.__name__] for one in limits if isinstance(one, AfterValidator)))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return section(kind)
    return _plain(kind, limits)


def _plain(kind, limits):
    low = next((one.ge if isinstance(one, Ge) else one.gt for one in limits if isinstance(one, Ge | Gt)), None)
    high = next((one.le if isinstance(one, Le) else one.lt for one in limits if isinstance(one, Le | Lt)), None)
    within = {"exclude_min": any(isinstance(one, Gt) for one in limits), "exclude_max": any(isinstance(one, Lt) for one in limits)}
    if kind is float:
        return st.floats(low, high, allow_nan=False, allow_infinity=False, **within)
    if kind is int:
        return st.integers(low, None if high is None else high - within["exclude_max"])
    if kind is str:
        check = next((one.func for one in limits if isinstance(one, AfterValidator)), None)
        shortest = next((one.min_length for one in limits if isinstance(one, MinLen)), 0)
        return TEXT.filter(lambda text: len(text) >= shortest) if check is None else st.sampled_from([w for w in WORDS if _taken(check, w)])
    return {bool: st.booleans(), type(None): st.none()}[kind]


def _taken(check, word):
    try:
        check(word)
    except ValueError:
        return False
    return True


def section(model):
    """Valid instances of a section, every setting given."""
    fields = {name: strategy(info.annotation, tuple(info.metadata)) for name, info in model.model_fields.items()}
    return st.fixed_dictionaries(fields).map(lambda values: _made(model, values)).filter(lambda made: made is not None)


def _made(model, values):
    try:
        return model(**values)
    except ValidationError:
        return None


def leaves(tree, prefix=""):
    """(path, value) of all settings; what is free in form is one value."""
    for name, value in tree.items():
        path = prefix + name
        if isinstance(value, dict) and path not in configuration.FREE_FORM:
            yield from leaves(value, path + ".")
        else:
            yield path, value


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])  # many do not go together
@given(section(Config))
def test_every_setting_that_is_written_is_read_back(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "config.resolved.yaml"
    path.write_text(strictyaml.dumps(config.resolved()), encoding="utf-8")
    assert configuration.load(path) == config


@pytest.mark.parametrize("text", ["", "\n", "# model: llama-3.1-8b\n", "null\n"])
def test_a_file_without_settings_is_no_configuration(tmp_path, text):
    path = tmp_path / "cut.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(configuration.ConfigError, match="has no settings: write some"):
        configuration.load(path)
    path.write_text("{}\n", encoding="utf-8")
    assert configuration.load(path) == Config()


def _as_typed(value):
    """Plus signs join values, and are quoted in a text."""
    if isinstance(value, str) and "+" in value:
        return yaml.dump(value, default_style='"', width=math.inf).strip()
    return strictyaml.flow(value)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])  # many do not go together
@given(section(Config))
def test_every_setting_can_be_set_and_varied_by_its_text(config):
    texts = {path: _as_typed(value) for path, value in leaves(config.resolved())}
    assert configuration.load(None, [f"{path}={text}" for path, text in texts.items()]) == config
    [point] = points([Axis.parse(f"{path}={text}") for path, text in texts.items()])
    assert configuration.load(None, point.overrides()) == config
    [point] = points([Axis.parse("+".join(texts) + "=" + "+".join(texts.values()))])
    assert configuration.load(None, point.overrides()) == config


@pytest.mark.parametrize("seed", [2**63 - 1, 6620516959819538809, 10**18])
def test_seeds_of_19_digits_are_numbers(seed):
    assert configuration.load(None, [f"seed={seed}"]).seed == seed


@pytest.mark.parametrize("text", ["1e999", "1e999999", "9" * 101, ".inf", "-1e400", "nan"])
def test_numbers_without_end_are_refused(text):
    with pytest.raises(ConfigError, match=r"largest number|valid number"):
        configuration.load(None, [f"store.ttl_s={text}"])


@pytest.mark.parametrize("path", ["deployment.link_efficiency", "deployment.step_time_factor"])
def test_factors_of_next_to_nothing_are_refused(path):
    """They make times of nothing, or bandwidths, and figures are infinite."""
    with pytest.raises(ConfigError, match="greater than or equal to"):
        configuration.load(None, [f"{path}=1e-320"])


@pytest.mark.parametrize("digits", ["9" * 8000, "9" * 8000 + "GB", "1." + "9" * 200_000 + "x", " " * 200_000])
def test_sizes_are_bounded_in_length(digits):
    with pytest.raises(ConfigError, match="is not a quantity"):
        configuration.validated({"store": {"dram": digits}})
