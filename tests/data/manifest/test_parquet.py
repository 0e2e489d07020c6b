"""Parquet manifests: a plain table for other tools, the same rows for us, errors by row."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmembed.data.manifest import parquet
from mmembed.data.manifest.jsonl import read_manifest, write_manifest
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

finite = st.floats(-3, 3)
utterances = st.builds(
    Utterance,
    key=st.text("abc-_%", min_size=1),
    media=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0:")),
    start=st.floats(0, 10),
    end=st.none() | st.floats(11, 20),
    transcript=st.none() | st.text(),
    streams=st.none() | st.sampled_from([(), ("audio",), ("audio", "video", "text")]),
    turn=st.none() | st.integers(0, 2**40),
    split=st.none() | st.sampled_from(["train", "dev"]),
    labels=st.builds(
        Labels,
        sentiment=st.none() | st.floats(-1, 1),
        sentiment_limit=st.sampled_from([None, 1.0, 3.0]),
        emotions=st.none() | st.tuples(*[st.floats(0, 3)] * 6),
        present=st.none() | st.lists(st.text(), max_size=3).map(tuple),
        scores=st.dictionaries(st.text(max_size=3), finite, max_size=2),
    ),
)


@given(st.lists(utterances, min_size=1, max_size=8, unique_by=lambda row: row.key))
@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_rows_survive_in_small_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[Utterance]
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 3)
    write_manifest(tmp_path / "m.parquet", rows)
    assert read_manifest(tmp_path / "m.parquet") == rows


def test_others_see_one_flat_column_a_field(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    labels = Labels(sentiment=1.5, emotions=(0, 0, 3, 0, 0, 1), scores={"valence": 4.0})
    write_manifest(path, [Utterance("a", "x.wav", 0.5, 2.0, labels=labels), Utterance("b", None)])
    table = pq.read_table(path)
    assert table.column_names == [
        "key", "media", "start", "end", "transcript", "language", "streams", "speaker", "dialogue",
        "turn", "split", "licence", "labels.sentiment", "labels.emotions", "labels.category",
        "labels.present", "labels.sentiment_limit", "labels.scores.valence",
    ]  # fmt: skip
    first, second = table.to_pylist()
    assert (first["key"], first["start"], first["end"]) == ("a", 0.5, 2.0)
    assert first["labels.emotions"] == [0, 0, 3, 0, 0, 1]
    assert (first["labels.scores.valence"], second["labels.scores.valence"]) == (4.0, None)


def test_tables_of_other_tools_are_read(tmp_path: Path) -> None:
    """Few columns, other widths, strings by dictionary, whole numbers as floats, nulls."""
    path = tmp_path / "m.parquet"
    table = {
        "key": pa.array(["a", "b"]).dictionary_encode(),
        "media": pa.array(["a.wav", None], pa.large_string()),
        "start": pa.array([None, 1], pa.int32()),
        "turn": pa.array([2.0, None], pa.float32()),
        "streams": pa.array([["audio"], None], pa.large_list(pa.string())),
        "speaker": pa.nulls(2),
        "labels.sentiment": pa.array([None, -2], pa.int8()),
    }
    pq.write_table(pa.table(table), path)
    assert read_manifest(path) == [
        Utterance("a", "a.wav", turn=2, streams=("audio",)),
        Utterance("b", None, start=1.0, labels=Labels(sentiment=-2.0)),
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"key": ["a", "b", "b"]}, "m.parquet: row 3: key b stands on row 2 too"),
        ({"key": ["a", None, "b"]}, "m.parquet: row 2: a manifest row needs a key"),
        ({"media": ["x.wav"] * 3}, "m.parquet: row 1: a manifest row needs a key"),
        ({"key": ["a", "b", "c.d"]}, "row 3: key 'c.d': must not be empty or hold dots"),
        ({"start": [0.0, 2.0, 0.0], "end": [1.0, 1.0, 1.0]}, "row 2: start 2.0 and end 1.0: 0 <="),
        ({"start": [0.0, 0.0, np.nan]}, "row 3: start must be a number, found nan"),
        ({"split": ["train", "tset", "dev"]}, "row 2: split 'tset' of b: one of train, dev"),
        ({"labels.sentiment": [0.0, 4.0, 0.0]}, "row 2: sentiment 4.0: must lie in"),
        ({"labels.emotions": [[1.0], None, None]}, "row 1: emotions (1.0,): 6 values"),
        ({"labels.scores.x": [0.0, np.nan, 1]}, "row 2: score 'x' must be a number"),
        ({"labels.valence": [0.0] * 3}, "m.parquet: unknown column labels.valence; allowed are"),
        ({"start": ["1"] * 3}, "m.parquet: row 1: start must be a number, found '1'"),
        ({"speaker": [1, 2, 3]}, "m.parquet: row 1: speaker must be a string, found 1"),
        ({"streams": ["audio"] * 3}, "row 1: streams must be a list of strings, found 'audio'"),
        ({"turn": [0.5, 1, 2]}, "m.parquet: row 1: turn must be a whole number, found 0.5"),
        ({"labels": [{"sentiment": 1.0}] * 3}, "m.parquet: unknown column labels; allowed"),
    ],
)
def test_errors_name_file_and_row(
    tmp_path: Path, columns: Mapping[str, object], message: str
) -> None:
    path = tmp_path / "m.parquet"
    keys = {} if "media" in columns else {"key": ["a", "b", "c"]}
    pq.write_table(pa.table({**keys, **columns}), path, row_group_size=2)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_missing_empty_and_damaged_tables(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    with pytest.raises(DataError, match="no such manifest"):
        read_manifest(path)
    write_manifest(path, [])
    with pytest.raises(DataError, match="no utterance"):
        read_manifest(path)
    write_manifest(path, [Utterance(f"key-{i}", f"{i}.wav") for i in range(500)])
    whole = path.read_bytes()
    path.write_bytes(b'{"key": "a"}\n')
    with pytest.raises(DataError, match="not a Parquet file, or damaged"):
        read_manifest(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a Parquet file, or damaged"):
        read_manifest(path)
    path.write_bytes(whole[:40] + bytes(200) + whole[240:])
    with pytest.raises(DataError, match="not a Parquet file, or damaged"):
        read_manifest(path)
