"""Shards of versions that stored log-mel instead of sound: refused in one line, at the start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.prepared import example, reasons, verify, write_prepared

from mmembed.commands import inspect
from mmembed.commands.cli import run_program
from mmembed.data.dataset import Examples
from mmembed.data.inputs import open_sources
from mmembed.data.shards.layout import Record, index_shards, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import CorruptError
from mmembed.pretraining.pretrain_data import open_corpus
from mmembed.settings.pretrain import DataConfig
from mmembed.studies.demux_data import read_rows
from mmembed.studies.sdt_data import read_dialogues
from mmembed.studies.self_mm_data import read_items

OLDER = "prepared by an older version, which stored log-mel instead of sound; prepare the corpus"


@pytest.fixture(params=["sidecars", "index.arrow"])
def older(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder whose first record has no sound and whose others have log-mel of it."""
    examples = [example(0, audio=None), example(1), example(2)]
    folder, records = write_prepared(tmp_path, examples, size=3) / "shards", []
    for key, members, meta in map(to_record, examples):
        held = dict(members)
        if held.pop("audio.flac", None) is not None:
            held["audio.npy"] = np.zeros((50, 80), np.float16)
            meta["lengths"]["audio"] = 50
        records.append(Record(key, held, meta))
    write_shard(shard_path(folder, 0), records, {"failed": []})
    if request.param == "index.arrow":
        index_shards(folder)
    return folder


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: Examples([folder]),
        lambda folder: open_sources([folder]),
        lambda folder: open_corpus(DataConfig((str(folder),))),
        read_items,
        lambda folder: read_dialogues([str(folder)]),
        lambda folder: read_rows(str(folder)),
    ],
)
def test_who_opens_them_is_told(older: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(CorruptError, match=f"^{older}: {OLDER} again$"):
        read(older)


def test_verify_and_inspect_say_what_they_are(
    older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(older) == 5
    printed = capsys.readouterr().out
    assert reasons(printed) == ["older", "older"] and f"older: clip-1: {OLDER}" in printed
    assert run_program(inspect.main, [str(older)]) == 5
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error: ")] == [
        f"error: {shard_path(older, 0)}: {OLDER} again"
    ]


def test_those_without_sound_are_still_read(tmp_path: Path) -> None:
    features = {"text": np.ones((2, 3), np.float32)}
    one = example(0, audio=None, features=features)
    write_prepared(tmp_path, [one])
    (read,) = Examples([tmp_path / "shards"])
    np.testing.assert_array_equal(read.features["text"], features["text"])
