"""docs/results.md: its tables are made from the files of finished runs."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mmembed.io.json import write_json

ROOT = Path(__file__).parents[1]
PAGE = """# Results

<!-- table: file a.md -->
old
<!-- end of table -->

<!-- table: evaluate maeb.json -->
<!-- end of table -->

Text.

<!-- table: file gone.md -->
| kept |
<!-- end of table -->
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    path = ROOT / "benchmarks" / "results_page.py"
    spec = importlib.util.spec_from_file_location("results_page", path)
    assert spec and spec.loader
    module = sys.modules["results_page"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_those_of_the_files(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("| new |\n")
    fold = {"test_speakers": 4, "clips_without_speaker": 0}
    folds = [{**fold, "test_speakers_in_training": n} for n in (1, 3, 2)]
    honest = {"uar": 0.25, "low": 0.125, "high": 0.5}
    result = {"accuracy": 0.5, "uar": 0.4375, "folds": folds, "honest": honest}
    alone = {**result, "honest": None, "folds": [{**fold, "test_speakers": None}]}
    held = {"protocol": "maeb", "embeddings": {"e/audio": result, "e/text": alone}}
    write_json(tmp_path / "maeb.json", held)
    page, missing = tool.filled(PAGE, tmp_path)
    assert missing == ["file gone.md"]
    assert "-->\n| new |\n<!-- end" in page and "old" not in page and "| kept |" in page
    assert "| maeb | e/audio | 0.500 | 0.438 | 3 of 4 | 0.250 (0.125-0.500) |\n" in page
    assert "| maeb | e/text | 0.500 | 0.438 | unknown | - |\n" in page
    assert tool.filled(page, tmp_path)[0] == page


def test_a_finished_run_is_a_table(tool: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "old").symlink_to(ROOT / "tests" / "studies" / "old_run")
    marked = "<!-- table: compare old: correlation mae -->\n<!-- end of table -->\n"
    page, missing = tool.filled(marked, tmp_path)
    head, rule, *rows = [line for line in page.splitlines() if line.startswith("|")]
    assert not missing and rows and rule == "|---|---|---|---|"
    assert head.startswith("| test | correlation (mean, standard") and "| mae |" in head
    assert all(row.count("|") == head.count("|") for row in rows)


def test_check_writes_nothing(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "a.md").write_text("| new |\n")
    words = ["results_page.py", str(tmp_path), "--page", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", [*words, "--check"])
    with pytest.raises(SystemExit, match=r"page\.md: a table differs from its files"):
        tool.main()
    assert (tmp_path / "page.md").read_text() == PAGE
    monkeypatch.setattr(sys, "argv", words)
    tool.main()
    monkeypatch.setattr(sys, "argv", [*words, "--check"])
    tool.main()


def test_the_marks_of_the_page_are_whole(tool: ModuleType) -> None:
    page = (ROOT / "docs" / "results.md").read_text()
    found = tool.TABLE.findall(page)
    assert len(found) == page.count("<!-- table:") == page.count("<!-- end of table -->")
    assert {kind for _, kind, *_ in found} <= set(tool.TABLES)
    assert not any(re.search("<!-- table", old) for *_, old, _ in found)
