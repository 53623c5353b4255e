"""Text that others wrote, made safe to show: one line, nothing that a terminal or a spreadsheet acts on, and no longer than somebody reads.

`visible` is for terminals, HTML and pictures, `cell` for CSV. JSON and YAML need neither: they escape by themselves.
"""

LINE, CELL = 2000, 160
"""Longest line of text, and longest cell of a table, in characters."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARK = "'"
_GUARDED = (*_FORMULA, " ", _MARK)


def visible(text: object, longest: int = LINE) -> str:
    """The text in one line: control characters, line breaks and marks that turn the direction of writing as escapes (`\\x1b`), and what is
    longer than `longest` without its middle, so that beginning and reason stay."""
    return _shortened("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)), longest)


def _shortened(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    head, tail = longest // 2, longest // 4
    return f"{text[:head]} … {len(text) - head - tail:,} more characters … {text[-tail:]}"


def cell(value: object) -> object:
    """A value of a CSV file: text as in `visible`, after a `'` where a spreadsheet would take it for a formula. What is a number, or spells
    one, stays as it is."""
    if not isinstance(value, str):
        return value
    text = visible(value)
    return _MARK + text if text.startswith(_FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def guarded(name: str) -> str:
    """A name for a CSV file that is read again: after a `'` where a spreadsheet would take it for a formula or a reader would strip it."""
    return _MARK + name if name.startswith(_GUARDED) else name


def unguarded(text: str) -> str:
    """The name that `guarded` was given."""
    return text[1:] if text.startswith(tuple(_MARK + first for first in _GUARDED)) else text
