"""Files that the documents name exist, and links between documents have a target."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FOLDERS = ("mmembed", "train", "export", "tests", "benchmarks", "docs")
SOURCE = (".py", ".css", ".js", ".md")
BASES = (ROOT, ROOT / "mmembed", ROOT / "mmembed" / "data")  # docs/architecture.md names them

# docs/adding-a-method.md has the reader write these files.
WRITTEN_BY_READER = {
    "mmembed/methods/gated.py",
    "mmembed/studies/gated.py",
    "tests/methods/test_gated.py",
    "mmembed/backbones/unispeech.py",
}

CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def text_of(document: Path) -> str:
    """Without blocks of code. Of the log the newest entry alone: older ones name old files."""
    text = FENCE.sub("", document.read_text(encoding="utf-8"))
    if document.name == "log.md":
        *_, newest, _ = text.split("\n## ")
        return newest
    return text


def named_files(text: str) -> Iterator[str]:
    """Files of this repository in backticks; of a command, its words are looked at one by one."""
    for code in CODE.findall(text):
        for word in re.split(r"[\s,]+", code):
            name = word.split(":")[0]
            path = Path(name)
            ours = path.suffix in SOURCE or (path.suffix and path.parts[0] in FOLDERS)
            if ours and re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name):
                yield name


def exists(name: str) -> bool:
    """Below one of the bases; a name without a folder: anywhere in the repository."""
    if any((base / name).is_file() for base in BASES):
        return True
    return "/" not in name and any(any((ROOT / folder).rglob(name)) for folder in FOLDERS)


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a document."""
    headings = HEADING.findall(FENCE.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_files_exist(document: Path) -> None:
    names = set(named_files(text_of(document))) - WRITTEN_BY_READER
    assert not sorted(name for name in names if not exists(name))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_have_a_target(document: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken
