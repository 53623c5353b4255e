"""YAML without its traps, and JSON.

A safe loader that refuses duplicate keys, anchors and aliases (so no entity bombs), nesting over 100 levels, and everything implicit but
plain numbers, `true`/`false` and `null`: `no` stays text, `1:30` stays text, and `3.35e12` is the number that it looks like. Numbers are
finite, and of at most 100 characters. `dumps` and `flow` write what `loads` takes back.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from kvplan.foreign import files


class YamlError(ValueError):
    """The text is not the YAML that kvplan accepts; the message has file, line and reason."""


_DEEPEST = 100
_LONGEST_NUMBER = 100


class _Loader(yaml.SafeLoader):
    _depth = 0

    def fetch_flow_collection_start(self, token):
        if self.flow_level == _DEEPEST:  # before the parser, which looks far ahead of it, sees any of them
            raise _too_deep(self.get_mark())
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent) or getattr(self.peek_event(), "anchor", None):
            raise yaml.constructor.ConstructorError(None, None, "anchors and aliases are not accepted", self.peek_event().start_mark)
        if self._depth == _DEEPEST:
            raise _too_deep(self.peek_event().start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node):
        value = super().construct_yaml_float(node)
        if math.isfinite(value):
            return value
        raise yaml.constructor.ConstructorError(None, None, f"{node.value} is beyond the largest number, 1.8e308", node.start_mark)


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either of the loaders would take for something else, and writes no anchors."""

    def ignore_aliases(self, data):
        return True


_Dumper.yaml_implicit_resolvers = {first: list(known) for first, known in yaml.SafeDumper.yaml_implicit_resolvers.items()}


def _too_deep(mark) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, f"nested more than {_DEEPEST} levels deep", mark)


for _tag, _pattern, _first in [
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:int", rf"^(?=.{{1,{_LONGEST_NUMBER}}}$)[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        rf"^(?=.{{1,{_LONGEST_NUMBER}}}$)[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$",
        "-+0123456789.",
    ),
]:
    for _either in (_Loader, _Dumper):
        _either.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def loads(text: str, where: str = "<text>") -> Any:
    """Parse one YAML document. Raises YamlError (file, line, reason)."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise YamlError(f"{place}: {error.problem or error.context or 'not valid YAML'}") from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(f"{where}: not valid YAML ({str(error).splitlines()[0]})") from None
    except RecursionError:
        raise YamlError(f"{where}: nested too deeply") from None


def loads_json(text: str, where: str = "<text>") -> Any:
    """Parse one JSON document, duplicate keys refused. Raises YamlError (file, reason)."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_integer)
    except ValueError as error:
        raise YamlError(f"{where}: not valid JSON ({error})") from None
    except RecursionError:
        raise YamlError(f"{where}: nested too deeply") from None


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found


def load(path: Path) -> Any:
    """Parse a YAML file, or by its suffix a JSON file. Raises YamlError, also when the file cannot be read."""
    parse, most = (loads_json, files.JSON_BYTES) if Path(path).suffix == ".json" else (loads, files.YAML_BYTES)
    try:
        text = files.read_text(path, most)
    except files.UnreadableError as error:
        raise YamlError(str(error)) from None
    return parse(text, str(path))


def dumps(data: Any) -> str:
    """Plain data as YAML that `loads` takes back, in blocks and in the order given."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False)


def flow(data: Any) -> str:
    """The same on one line, as `--set path=` takes it, and `--vary path=`, where a comma or a plus sign outside quotes would end it."""
    splits = isinstance(data, str) and bool({",", "+"} & set(data))
    style = '"' if splits else None
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=True, default_style=style, width=math.inf)
    return text.removesuffix("...\n").strip()
