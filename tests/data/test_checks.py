"""The integrity report: what it says, and that it comes back from disk as it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mmembed.data.checks import (
    Check,
    checksum,
    compare,
    describe,
    none_of,
    read_report,
    write_report,
)


def test_a_report_comes_back(tmp_path: Path) -> None:
    checks = [Check("form", ".csd"), none_of("ids", ["a", "b"], "left out"), compare("n", 3, 4)]
    write_report(tmp_path, checks)
    assert read_report(tmp_path) == checks
    assert read_report(tmp_path / "elsewhere") == []


def test_the_text_is_aligned_and_shows_a_few_items() -> None:
    text = describe(
        [
            compare("segments", 4659, 4659),
            compare("width", 12, 74),
            compare("rate", "100 Hz", None),
            none_of("lost ids", ["a", "b", "c\x1b[2J", "d"], "left out"),
            Check("SHA-256", "ab", "no published checksum"),
        ]
    )
    assert text.splitlines() == [
        "ok    segments  4659",
        "warn  width     12 (expected 74)",
        "ok    rate      100 Hz",
        r"warn  lost ids  4, left out (expected 0): a, b, c\x1b[2J, ...",
        "ok    SHA-256   ab (no published checksum)",
    ]


def test_checksums(tmp_path: Path) -> None:
    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(b"features")
    digest = hashlib.sha256(b"features").hexdigest()
    assert checksum(path, digest).ok
    assert not checksum(path, "0" * 64).ok
    assert checksum(path, None) == Check(
        "SHA-256 of aligned_50.pkl", digest, "no published checksum"
    )
