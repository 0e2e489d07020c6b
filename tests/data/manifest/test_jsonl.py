"""Manifests: what is written is read back; what is wrong is named by line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.data.manifest.jsonl import read_manifest, write_manifest
from mmembed.data.manifest.utterance import Labels, Utterance, from_row, to_row
from mmembed.errors import DataError

FULL = Utterance(
    key="-3g5yACwYnA_0",
    media="clips/a b.mp4",
    start=0.5,
    end=2.25,
    transcript='sch\u00f6n, "yes"\nno\u2028',
    language="de",
    speaker="s-1",
    split="dev",
    labels=Labels(sentiment=-1.5, emotions=(0.0, 0.5, 3.0, 0.0, 0.0, 1.0), category="happy"),
)
PLAIN = Utterance(key="b", media=None)
OTHER = Utterance(
    key="c",
    media="train.safetensors#3",
    streams=(),
    dialogue="d-1",
    turn=0,
    licence="CC BY 4.0",
    labels=Labels(present=("joy", "love"), scores={"valence": 4.5, "a.b": -1.0}),
)
ROWS = [FULL, PLAIN, OTHER, Utterance("d", None, labels=Labels(present=(), scores={"x": 0.0}))]


@pytest.mark.parametrize("name", ["manifest.jsonl", "manifest.parquet"])
def test_reads_back_what_was_written(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    write_manifest(path, ROWS)
    assert read_manifest(path) == ROWS
    first = path.read_bytes()
    write_manifest(path, iter(read_manifest(path)))
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == [name]


def test_fields_stand_in_order_and_defaults_are_left_out() -> None:
    names = "key media start end transcript language speaker split labels"
    assert list(to_row(FULL)) == names.split()
    assert to_row(PLAIN) == {"key": "b"}
    assert to_row(Utterance("b", "x.wav", labels=Labels(sentiment=0.0)))["labels"] == {
        "sentiment": 0.0
    }


@given(
    st.builds(
        Utterance,
        key=st.text("abc-_%", min_size=1),
        media=st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\0:")),
        start=st.floats(0, 10),
        end=st.none() | st.floats(11, 20),
        transcript=st.none() | st.text(),
        labels=st.builds(
            Labels,
            sentiment=st.none() | st.floats(-1, 1),
            sentiment_limit=st.sampled_from([None, 1.0, 3.0]),
            emotions=st.none() | st.tuples(*[st.floats(0, 3)] * 6),
        ),
    )
)
def test_a_row_survives_json(utterance: Utterance) -> None:
    assert from_row(json.loads(json.dumps(to_row(utterance)))) == utterance


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"key": "a"', "Expecting"),
        ("[1]", "must be a JSON object"),
        ('{"media": "a.wav"}', "needs a key"),
        ('{"key": "a", "meida": "a.wav"}', "unknown field meida; allowed are key, media, start"),
        ('{"key": "a", "labels": {"valence": 1}}', "allowed are sentiment, emotions, category"),
        ('{"key": "a", "start": "1"}', "start must be a number"),
        ('{"key": "a", "start": NaN}', "start must be a number"),
        ('{"key": "a", "start": 2, "end": 1}', "0 <= start < end"),
        ('{"key": "a", "speaker": 3}', "speaker must be a string"),
        ('{"key": "a.b"}', "must not be empty or hold dots"),
        ('{"key": "a", "split": "tset"}', "one of train, dev, test, heldout"),
        ('{"key": "a", "labels": {"sentiment": 4}}', "must lie in"),
        (
            '{"key": "a", "labels": {"sentiment": 2, "sentiment_limit": 1}}',
            "must lie in [-1, 1]",
        ),
        ('{"key": "a", "labels": {"sentiment_limit": 0}}', "sentiment_limit 0.0: must be 1 or 3"),
        ('{"key": "a", "labels": {"emotions": [1]}}', "6 values"),
        ('{"key": "first"}', "stands on line 1 too"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"key": "first"}\n\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert f"{path}:3: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_empty_and_binary_manifests(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such manifest"):
        read_manifest(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="no utterance"):
        read_manifest(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(tmp_path / "binary.jsonl")


@pytest.mark.parametrize("name", ["m.jsonl", "m.parquet"])
def test_a_refused_manifest_leaves_the_old_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_manifest(path, [PLAIN])
    (tmp_path / f".{name}.123.tmp").write_text("left by a killed writer")
    with pytest.raises(DataError, match="a second b"):
        write_manifest(path, [FULL, PLAIN, PLAIN])
    assert read_manifest(path) == [PLAIN]
    assert [p.name for p in tmp_path.iterdir()] == [name]
