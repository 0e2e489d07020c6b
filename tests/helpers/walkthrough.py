"""Pages of docs/ that add files to the code, done as written, in a copy of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files_of(page: str) -> list[tuple[str, str, str]]:
    """(path, "python" or "diff", text) of the files that a page adds or changes, in order."""
    found = re.findall(r"^`([^`\n]+)`(?:, a new file)?:\n\n```(\w+)\n(.*?)^```$", page, re.M | re.S)
    return [(str(name), str(kind), str(text)) for name, kind, text in found]


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


def copy_with(folder: Path, files: list[tuple[str, str, str]]) -> Path:
    """A copy of the code and the tests with these files."""
    for name in ("mmembed", "train", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "mmembed_train").symlink_to(folder / "train")  # in the place of the installed one
    for name, kind, text in files:
        path = folder / name
        assert path.exists() == (kind == "diff")
        path.write_text(patched(path.read_text(), text) if kind == "diff" else text)
    return folder
