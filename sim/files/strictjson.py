"""JSON as it is printed and written."""

import json
from typing import Any


def dumps(data: Any) -> str:
    """Strict JSON (no NaN), indented, keys in the order that they have, with the end of line."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def dumps_flat(data: Any) -> str:
    """The same for large data: on one line, without blanks."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n"
