"""What mkdocs asks while it builds: pages made of the code and of the notebooks join those that are written, and links fit the site."""

import re
from collections.abc import Iterator
from pathlib import Path

import notebooks
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
AT_THE_TOP = ("DESIGN.md", "CHANGELOG.md", "CONTRIBUTING.md")
"""Pages that lie beside the README and not in docs/."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The written pages and the made ones."""
    for path, content in _made():
        files.append(File.generated(config, path, content=content))
    return files


def _made() -> Iterator[tuple[str, str | bytes]]:
    yield from reference.pages()
    for name in AT_THE_TOP:
        yield name, (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
    for path in notebooks.found():
        yield from notebooks.pages(path)


def on_page_markdown(markdown: str, page, **_) -> str:
    """Links to what lies beside the README, as they are in the repository, lead to the same page of the site."""
    up = "../" * page.file.src_uri.count("/")
    return re.sub(rf"\]\({up}\.\./({'|'.join(map(re.escape, AT_THE_TOP))})", rf"]({up}\1", markdown)
