"""Help and usage errors appear at once: nothing is imported for them that takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers.encoders import write_encoder

HEAVY = (
    "torch", "torchaudio", "pandas", "sklearn", "scipy", "cv2", "av", "pyarrow", "soundfile",
    "fsspec", "transformers", "faiss", "matplotlib", "jinja2", "aiohttp", "ray",
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


def imports_of(script: str, *arguments: str) -> set[str]:
    """Modules that a program of these lines has imported at its end."""
    script += "\nimport json, sys\nprint(json.dumps([*sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {*json.loads(done.stdout.splitlines()[-1])}


def test_decoding_processes_need_no_torch() -> None:
    imported = imports_of("import mmembed.data.media.pool")
    assert "av" in imported
    assert imported & {*HEAVY} <= {"av", "cv2", "soundfile", "fsspec", "pyarrow"}


READ_AND_TRAIN = """
import sys
from pathlib import Path

from helpers.encoders import write_encoder
import torch
from mmembed.embedder import Embedder
from mmembed.settings.optim import OptimConfig
from mmembed.training.optim import build_optimizer
encoder = Embedder.from_pretrained(sys.argv[1]).encoder.requires_grad_()
optimizer = build_optimizer(encoder, OptimConfig())
sum(parameter.sum() for parameter in encoder.parameters()).backward()
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
optimizer.zero_grad()
"""


def test_reading_an_encoder_and_a_step_import_no_compiler(tmp_path: Path) -> None:
    imported = imports_of(READ_AND_TRAIN, str(write_encoder(tmp_path / "encoder")))
    assert "torch.optim" in imported
    assert not imported & {"torch._dynamo", "sympy"}
