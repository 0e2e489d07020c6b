"""Nothing here may run code that a file brings along; ruff's S rules do not know all of these."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PICKLE = r"\b(import|from) (pickle|dill|joblib|cloudpickle)|\bpickle\.loads?\(|\bUnpickler\b"
EXEMPT = {PICKLE: ["mmembed/data/untrusted/pickles.py"]}  # restricted, scanned, in a sandbox
FORBIDDEN = (
    PICKLE,
    r"weights_only\s*=\s*False",
    r"allow_pickle\s*=\s*True",
    r"\byaml\.(unsafe_)?load\(",
    r"(?<![\w.])eval\(",
    r"(?<![\w.])exec\(",
    r"shell\s*=\s*True",
    r"\bos\.(system|popen)\(",
    r"torchaudio\.load\(",
    r"WebDataset\(|\.decode\(\s*[\"'](pil|torch|rgb|l)",
)


@pytest.mark.parametrize("folder", ["mmembed", "train", "export"])
def test_no_unsafe_call(folder):
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for pattern in FORBIDDEN
        if str(path.relative_to(ROOT)) not in EXEMPT.get(pattern, ())
        for match in re.finditer(pattern, path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize("folder", ["mmembed", "train", "export"])
def test_every_torch_load_is_weights_only(folder):
    for path in (ROOT / folder).rglob("*.py"):
        for call in re.finditer(r"torch\.load\([^)]*\)?", path.read_text()):
            assert "weights_only=True" in call[0], f"{path}: {call[0]}"
