"""YAML without its traps, and JSON.

A safe loader that refuses duplicate keys, anchors and aliases (so no entity bombs), nesting over 100 levels, and everything implicit but
plain numbers, `true`/`false` and `null`: `no` stays text, `1:30` stays text, and `3.35e12` is the number that it looks like.
"""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import yaml


class YamlError(ValueError):
    """The text is not the YAML that kvplan accepts; the message has file, line and reason."""


_DEEPEST = 100


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict] = {}
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


def _too_deep(mark) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, f"nested more than {_DEEPEST} levels deep", mark)


for _tag, _pattern, _first in [
    ("tag:yaml.org,2002:bool", r"^(?:true|false)$", "tf"),
    ("tag:yaml.org,2002:null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]{0,17})$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?$",
        "-+0123456789.",
    ),
]:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


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
        return json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise YamlError(f"{where}: not valid JSON ({error})") from None
    except RecursionError:
        raise YamlError(f"{where}: nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return found


def load(path: Path) -> Any:
    """Parse a YAML file, or by its suffix a JSON file. Raises YamlError, also when the file cannot be read."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise YamlError(f"cannot read {path}: {reason}") from None
    return (loads_json if Path(path).suffix == ".json" else loads)(text, str(path))
