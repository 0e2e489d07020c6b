"""Any name becomes a key that our reader and webdataset's give back unchanged."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmembed.data.manifest.utterance import portable_key
from mmembed.data.shards.layout import Record, ShardSet, index_shards, shard_path, write_shard

TOGETHER = 20
KNOWN = (
    *("-3g5yACwYnA", "-3nNcZdcdvU[3]", "_0efYOjQYRc", "--qXJuDtHPw"),  # CMU-MOSEI's
    *("a", "A", "a.b", "a.b.json", ".", "..", "/", "a/b", "../../etc/passwd", "C:\\a", "~", "%2E"),
    *("__key__", "__url__", "__a__", "a__", "json", "a b", "a\tb\n", "\x00", "\u00e9", "e\u0301"),
    *(
        "\ud55c\uad6d\uc5b4",
        "\U0001f600",
        "k" * 120,
        "\u00fc" * 60,
        "k" * 300,
        "-",
        "--help",
        "PaxHeader",
    ),
)

names = st.text(min_size=1) | st.binary(min_size=1, max_size=20).map(os.fsdecode)
lists_of_names = st.lists(names, min_size=TOGETHER, max_size=TOGETHER, unique=True)


def check(names: tuple[str, ...] | list[str]) -> None:
    keys = [portable_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch("[A-Za-z0-9_%-]+", key) for key in keys)
    assert [unquote_to_bytes(key) for key in keys] == [os.fsencode(name) for name in names]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = [Record(key, {"json": {"n": n}}, {"n": n}) for n, key in enumerate(keys)]
        write_shard(shard_path(folder, 0), made, {})
        for _ in ("by the sidecar", "by the index"):
            shards = ShardSet(folder)
            assert list(shards.keys) == keys
            for n, key in enumerate(keys):
                assert shards.keys.index(key) == n
                assert shards.read(n) == made[n]
            index_shards(folder)
        samples = list(webdataset.WebDataset(str(shard_path(folder, 0)), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == keys
    assert [sample["json"] for sample in samples] == [b'{"n":%d}' % n for n in range(len(keys))]


def test_known_names() -> None:
    check(KNOWN)


@settings(
    max_examples=200 // TOGETHER,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(lists_of_names)
def test_200_names(names: list[str]) -> None:
    check(names)


@pytest.mark.long
@settings(
    max_examples=2000 // TOGETHER,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(lists_of_names)
def test_2000_names(names: list[str]) -> None:
    check(names)
