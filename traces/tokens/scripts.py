"""What a text is written in: its characters and runs of characters by class, and the kind of text that it is.

A tokenizer's count depends on little else: how many letters of each script there are, how often they begin, and whether the words are
English, of which every vocabulary holds the most.
"""

import string
from collections.abc import Iterable
from functools import cache

import numpy as np

_CLASSES: dict[str, tuple[tuple[int, int], ...]] = {
    "other_2": ((0x80, 0x7FF),),
    "other_3": ((0x800, 0xFFFF),),
    "other_4": ((0x10000, 0x10FFFF),),
    "signs": ((0xA0, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7), (0x2000, 0x206F), (0x20A0, 0x20CF)),
    "symbols": ((0x2070, 0x209F), (0x2100, 0x2BFF), (0xFE00, 0xFE0F)),
    "emoji": ((0x1F000, 0x1FAFF),),
    "accented": ((0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0xFF)),
    "latin_extended": ((0x100, 0x2AF),),
    "vietnamese": ((0x102, 0x103), (0x110, 0x111), (0x1A0, 0x1A1), (0x1AF, 0x1B0), (0x1E00, 0x1EFF)),
    "combining": ((0x300, 0x36F),),
    "greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "cyrillic_extended": ((0x400, 0x52F),),
    "cyrillic": ((0x401, 0x401), (0x410, 0x44F), (0x451, 0x451)),
    "armenian": ((0x531, 0x58F),),
    "hebrew": ((0x590, 0x5FF),),
    "arabic_extended": ((0x600, 0x77F),),
    "arabic": ((0x600, 0x65F), (0xFB50, 0xFDFF), (0xFE70, 0xFEFE)),
    "devanagari": ((0x900, 0x97F),),
    "bengali": ((0x980, 0x9FF),),
    "gurmukhi": ((0xA00, 0xA7F),),
    "gujarati": ((0xA80, 0xAFF),),
    "tamil": ((0xB80, 0xBFF),),
    "telugu": ((0xC00, 0xC7F),),
    "kannada": ((0xC80, 0xCFF),),
    "malayalam": ((0xD00, 0xD7F),),
    "thai": ((0xE00, 0xE7F),),
    "georgian": ((0x10A0, 0x10FF),),
    "hangul": ((0x1100, 0x11FF), (0xAC00, 0xD7A3)),
    "hiragana": ((0x3040, 0x309F),),
    "katakana": ((0x30A0, 0x30FF),),
    "wide_signs": ((0x3000, 0x303F), (0xFF00, 0xFFEF)),
    "han_rare": ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0x20000, 0x3FFFF)),
    "han": (),
}
"""Class of the characters beyond ASCII -> its code points; a later class takes them from an earlier one. `han` are the 3,755 commonest
characters of simplified Chinese (GB 2312, level 1), `other_N` what takes N bytes in UTF-8."""
CLASSES = ("ascii", *_CLASSES)
ASCII = (
    "english_letters",
    "letters",
    "english_spaces",
    "spaces",
    "capitals",
    "digits",
    "numbers",
    "punctuation",
    "newlines",
    "double_spaces",
    "fourfold_spaces",
)
"""What is counted of ASCII. `letters` are small ones; a text's letters and spaces are English by the share that `_english` finds."""
FEATURES = ("text", *ASCII, *(f"{name}_{what}" for what in ("characters", "runs", "late_characters") for name in CLASSES[1:]))
"""What is counted of a text, in this order; `text` is 1."""
_EARLY = 6
"""Characters of a run that its first token may hold; those after them are late."""

ENGLISH, LATIN, CODE, CHINESE, JAPANESE = "English", "Latin script other than English", "code and figures", "Chinese", "Japanese"
_KINDS = {
    LATIN: ("accented", "latin_extended", "vietnamese", "combining"),
    "Cyrillic": ("cyrillic", "cyrillic_extended"),
    CHINESE: ("han", "han_rare"),
    JAPANESE: ("hiragana", "katakana"),
    "Korean": ("hangul",),
    "Arabic": ("arabic", "arabic_extended"),
    **{name.title(): (name,) for name in ("greek", "armenian", "hebrew", "devanagari", "bengali", "gurmukhi", "gujarati")},
    **{name.title(): (name,) for name in ("tamil", "telugu", "kannada", "malayalam", "thai", "georgian")},
    "other scripts": ("other_2", "other_3", "other_4"),
}
KINDS = (ENGLISH, CODE, *_KINDS)
"""Kinds of text, each with an error of its own."""
_KIND_OF_CLASS = np.array([[name in classes for name in _CLASSES] for classes in _KINDS.values()], float)
_KANA_SHARE = 0.1
"""Of Chinese characters and kana; from here on it is Japanese."""
_CODE_SHARE = 0.14
"""Of digits and punctuation in all characters; from here on it is code, or a table."""

_SMALL, _CAPITAL = string.ascii_lowercase.encode(), string.ascii_uppercase.encode()
_DIGITS, _BEYOND = string.digits.encode(), bytes(range(128, 256))
_BLANKED = b" " * 128 + _BEYOND
_NUMBERS = bytes(0x30 if byte in _DIGITS else 0x20 for byte in range(256))
_ENGLISH_WORDS = (" the ", " of ", " to ", " and ", " is ")
_ENGLISH_DENSITY = 0.1
"""Share of these words in all words from which on a text is English throughout."""
_PROSE_BLANKS = 0.21
"""Share of blanks in a text; with more it is indented, and blanks that stand together are looked for."""


def ascii_counts(text: str) -> tuple[float, ...]:
    """What `ASCII` names, of any text. Bytes are deleted and counted by class, which takes no loop."""
    data = text.encode("utf-8", "surrogatepass")
    capitals_and_rest = data.translate(None, _SMALL)
    digits_and_rest = capitals_and_rest.translate(None, _CAPITAL)
    rest = digits_and_rest.translate(None, _DIGITS)
    small, capitals, digits = (
        len(data) - len(capitals_and_rest),
        len(capitals_and_rest) - len(digits_and_rest),
        len(digits_and_rest) - len(rest),
    )
    numbers = (b" " + digits_and_rest.translate(_NUMBERS)).count(b" 0") if digits else 0
    newlines, blanks = rest.count(b"\n"), rest.count(b" ")
    punctuation = len(rest if len(data) == len(text) else rest.translate(None, _BEYOND)) - newlines - blanks
    pairs, fours = (data.count(b"  "), data.count(b"    ")) if blanks > _PROSE_BLANKS * len(data) else (0, 0)
    spaces, english = blanks - 2 * pairs, _english(text, blanks + newlines)
    other = 1 - english
    return (
        *(small * english, small * other, spaces * english, spaces * other),
        *(capitals, digits, numbers, punctuation, newlines, pairs - 2 * fours, fours),
    )


def _english(text: str, spaces: int) -> float:
    """Share of a text that is English, by its commonest words; a short text has the benefit of the doubt."""
    enough, found = _ENGLISH_DENSITY * spaces + 1, 1
    for word in _ENGLISH_WORDS:
        if found >= enough:
            return 1.0
        found += text.count(word)
    return min(1.0, found / enough)


def class_counts(text: str) -> np.ndarray:
    """Characters, runs of characters, and late characters in runs, of each class of `CLASSES` beyond ASCII: shape (3, classes)."""
    beyond = b" ".join(text.encode("utf-8", "surrogatepass").translate(_BLANKED).split()).decode("utf-8", "surrogatepass")
    classes = _table()[np.frombuffer(f" {beyond} ".encode("utf-32-le", "surrogatepass"), np.uint32)]
    edges = np.flatnonzero(classes[1:] != classes[:-1]) + 1
    lengths, of_run = edges[1:] - edges[:-1], classes[edges[:-1]]
    counted = lengths, None, np.maximum(lengths - _EARLY, 0)
    return np.array([np.bincount(of_run, weights, len(CLASSES))[1:] for weights in counted])


def features(text: str) -> np.ndarray:
    """What `FEATURES` names, of a text."""
    return np.concatenate(([bool(text)], ascii_counts(text), class_counts(text).ravel())).astype(float)


def kind(counts: tuple[float, ...], characters: np.ndarray | None = None) -> str:
    """The kind of a text by `ascii_counts`, and by the characters of `class_counts` where it is not ASCII throughout."""
    english, letters, english_spaces, spaces, capitals, digits, _, punctuation, *_ = counts
    latin = english + letters + capitals
    if characters is not None:
        of_kind = dict(zip(_KINDS, (_KIND_OF_CLASS @ characters).tolist(), strict=True))
        of_kind[LATIN] += latin
        han, kana = of_kind.pop(CHINESE), of_kind.pop(JAPANESE)
        of_kind[JAPANESE if kana > _KANA_SHARE * (han + kana) else CHINESE] = han + kana
        found = max(of_kind, key=of_kind.__getitem__)
        if found != LATIN:
            return found
    if digits + punctuation > _CODE_SHARE * (latin + digits + punctuation + english_spaces + spaces):
        return CODE
    return ENGLISH if english >= letters else LATIN


@cache
def _table() -> np.ndarray:
    """Index into `CLASSES` of every code point."""
    table = np.zeros(0x110000, np.uint8)
    for index, ranges in enumerate(_CLASSES.values(), start=1):
        for first, last in ranges:
            table[first : last + 1] = index
    table[[ord(character) for character in _common_han()]] = CLASSES.index("han")
    return table


def _common_han() -> Iterable[str]:
    pairs = bytes(byte for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF) for byte in (high, low))
    return pairs.decode("gb2312", "ignore")
