"""docs/backbones.md: an architecture is added as the page says, in a copy of the checkout."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from helpers.walkthrough import ROOT, copy_with, files_of, run

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "backbones.md").read_text()
FILES = files_of(PAGE)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all that the page adds."""
    pytest.importorskip("transformers")
    assert [kind for _, kind, _ in FILES] == ["python", "diff", "diff", "diff"]
    return copy_with(tmp_path_factory.mktemp("walkthrough"), FILES)


def test_its_file_is_written_as_ours(checkout: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    names = [name for name, _, _ in FILES]
    run(str(ruff), "check", *names, cwd=checkout)
    run(str(ruff), "format", "--check", *names, cwd=checkout)


def test_its_layers_are_those_of_transformers(checkout: Path) -> None:
    (command,) = re.findall(r'^pytest (\S+) -k "(.+)"$', PAGE, re.M)
    tests, chosen = command
    call = ["pytest", tests, "-k", chosen, "-q", "-p", "no:cacheprovider"]
    out = run(sys.executable, "-m", *call, cwd=checkout)
    assert re.search(r"^2 passed", out, re.M), out
