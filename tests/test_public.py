"""docs/api.md says what is public, and all of it is there and documented."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmembed

API = Path(__file__).parent.parent / "docs" / "api.md"


def test_the_documented_names_are_the_public_ones():
    rows = [line.split("|")[1] for line in API.read_text().splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(mmembed.__all__)


@pytest.mark.parametrize("name", sorted(set(mmembed.__all__) - {"__version__"}))
def test_each_is_documented_in_code(name):
    assert inspect.getdoc(getattr(mmembed, name))
    assert name in dir(mmembed)


def test_import_takes_no_library():
    script = "import sys, mmembed; print(sorted({'torch', 'numpy', 'av'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_name_that_is_not_public():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        mmembed.nothing  # noqa: B018
