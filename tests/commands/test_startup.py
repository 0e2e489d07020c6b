"""Help and usage errors appear at once: nothing is imported for them that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = (
    "torch", "torchaudio", "pandas", "sklearn", "scipy", "cv2", "av", "pyarrow", "soundfile",
    "fsspec", "transformers", "faiss", "matplotlib", "jinja2", "aiohttp",
)  # fmt: skip

SCRIPT = """
import contextlib, io, json, sys
from importlib.metadata import entry_points
heavy, found = set(json.loads(sys.argv[1])), {}
for command in sorted(entry_points(group="mmembed.commands")):
    for arguments in (["--help"], ["--no-such-option"]):
        silent = contextlib.redirect_stdout(io.StringIO())
        with silent, contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
            try:
                command.load()(arguments)
            except Exception as error:
                if type(error).__name__ != "UsageError":
                    raise
        if imported := sorted(heavy & {*sys.modules}):
            found[f"{command.name} {arguments[0]}"] = imported
            heavy -= {*imported}
import mmembed
print(json.dumps(found))
"""


def test_help_and_usage_errors_import_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(HEAVY)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}
