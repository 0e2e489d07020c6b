"""docs/adding-a-method.md, done as it is written, in a copy of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.streams import write_features

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "adding-a-method.md").read_text()
FILES = re.findall(r"^`([^`\n]+)`(?:, a new file)?:\n\n```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.M | re.S)
COMMANDS = [line.split() for kind, text in BLOCKS if not kind for line in text.splitlines()]
SHORT = {"finetune": ["--loop.epochs", "2", "--loop.seeds", "0"]}

PROGRAMS = """
import json, sys
from importlib import import_module
for module, arguments in json.loads(sys.argv[1]):
    import_module(module).main(arguments)
"""


def patched(text: str, diff: str) -> str:
    """Added lines put behind the line before them, which must be there once."""
    for hunk in diff.split("@@\n"):
        before, *added = hunk.splitlines()
        line = before[1:] + "\n"
        assert text.count("\n" + line) == 1, f"{line!r} is not there, or not once"
        assert all(new.startswith("+") for new in added)
        text = text.replace("\n" + line, "\n" + line + "".join(new[1:] + "\n" for new in added))
    return text


def run(*command: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(cwd), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all that the page adds."""
    copy = tmp_path_factory.mktemp("walkthrough")
    for name in ("mmembed", "train", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    (copy / "mmembed_train").symlink_to(copy / "train")  # in the place of the installed one
    assert [kind for _, kind, _ in FILES] == ["python", "diff", "python", "python", "diff"]
    for name, kind, text in FILES:
        path = copy / name
        assert path.exists() == (kind == "diff")
        path.write_text(patched(path.read_text(), text) if kind == "diff" else text)
    return copy


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
