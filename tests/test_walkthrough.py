"""docs/adding-a-method.md, done as it is written, in a copy of the checkout."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.streams import write_features
from helpers.walkthrough import ROOT, copy_with, files_of, run

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()
FILES = files_of(PAGE)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [line.split() for kind, text in BLOCKS if not kind for line in text.splitlines()]
SHORT = {"finetune": ["--loop.epochs", "2", "--loop.seeds", "0"]}

PROGRAMS = """
import json, sys
from importlib import import_module
for module, arguments in json.loads(sys.argv[1]):
    import_module(module).main(arguments)
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all that the page adds."""
    assert [kind for _, kind, _ in FILES] == ["python", "diff", "python", "diff", "python", "diff"]
    return copy_with(tmp_path_factory.mktemp("walkthrough"), FILES)


def test_its_files_are_written_as_ours(checkout: Path) -> None:
    ruff = Path(sys.executable).with_name("ruff")
    names = [name for name, _, _ in FILES]
    run(str(ruff), "check", *names, cwd=checkout)
    run(str(ruff), "format", "--check", *names, cwd=checkout)


def test_its_method_keeps_the_contract(checkout: Path) -> None:
    (command,) = [command for command in COMMANDS if command[0] == "pytest"]
    out = run(sys.executable, "-m", *command, "-q", "-p", "no:cacheprovider", cwd=checkout)
    assert re.search(r"^9 passed", out, re.M), out


def test_its_recipe_runs_and_is_compared(checkout: Path) -> None:
    write_features(checkout / "data/mosi/shards", {"train": 60, "dev": 20, "test": 24})
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    calls = []
    for program, name, *arguments in COMMANDS:
        if program != "mmembed":
            continue
        module, _, _ = entries["mmembed.commands"][name].partition(":")
        calls.append((module, [*arguments, *SHORT.get(name, [])]))
    out = run(sys.executable, "-c", PROGRAMS, json.dumps(calls), cwd=checkout)
    compared = out[out.index("test: 24 items of 6 dialogues") :]
    rows = [line[:28].strip() for line in compared.splitlines()]
    for name in ("self_mm: self_mm", "self_mm: logistic regression", "gated: gated", "gated: sum"):
        assert name in rows
    assert "constant" in rows and "not compared" not in compared
    assert (checkout / "runs/compare.html").is_file()
    assert (checkout / "runs/gated/report.html").is_file()
