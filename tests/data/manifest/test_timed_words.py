"""Words with times in manifests: kept, checked, and nothing where a row has none."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmembed.data.example import Example
from mmembed.data.manifest.jsonl import each_row, read_manifest, write_manifest
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.manifest.utterance import Utterance, from_row, row_of, to_row
from mmembed.data.shards.records import from_record, to_record
from mmembed.errors import DataError

WORDS = (TimedWord("Well,", 0.0, 0.31), TimedWord("New York", 0.31, 1.5), TimedWord("it's", 1.5, 2))
ROW = Utterance("a", "a.wav", 3.0, 5.0, transcript="Well, New-York: it's!", words=WORDS)


@pytest.mark.parametrize("name", ["m.jsonl", "m.parquet"])
def test_words_are_read_as_written(tmp_path: Path, name: str) -> None:
    rows = [ROW, Utterance("b", None), Utterance("c", None, transcript="...", words=())]
    write_manifest(tmp_path / name, rows)
    assert read_manifest(tmp_path / name) == rows


def test_a_line_holds_plain_objects(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [ROW])
    words = json.loads((tmp_path / "m.jsonl").read_text())["words"]
    assert words[1] == {"text": "New York", "start": 0.31, "end": 1.5}


def test_a_table_without_such_words_has_no_such_column(tmp_path: Path) -> None:
    """Nor has a line: manifests without words are what they were before there were any."""
    plain = Utterance("a", "a.wav", transcript="so")
    write_manifest(tmp_path / "m.parquet", [plain])
    assert "words" not in pq.read_schema(tmp_path / "m.parquet").names
    assert to_row(plain) == {"key": "a", "media": "a.wav", "transcript": "so"}


def test_shards_of_features_keep_them() -> None:
    assert from_record(*to_record(Example(ROW, text="well"))[:2]).utterance == ROW


def test_words_of_an_embedding_are_its_own() -> None:
    """A record of an embedding lists the words that were embedded under this name."""
    assert "words" not in row_of(ROW)


def word(text: Any = "well", start: Any = 0.5, end: Any = 1) -> dict[str, Any]:
    return {"text": text, "start": start, "end": end}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("well", "words must be a list of objects, found 'well'"),
        ({"well": 1}, "words must be a list of objects"),
        ([["well", 0, 1]], "word 1 must be an object with text, start, end"),
        ([{"text": "well", "start": 0}], "word 1 must be an object with text, start, end"),
        ([{**word(), "score": 1}], "word 1 must be an object with text, start, end"),
        ([word(), word(None)], "word 2: text must be a string, found null"),
        ([word(start="0")], "word 1: start must be a number, found '0'"),
        ([word(end=True)], "word 1: end must be a number, found True"),
        ([word(end=None)], "word 1: end must be a number, found null"),
        ([word(end=math.nan)], "word 1: end must be a number, found nan"),
        ([word(end=math.inf)], "word 1: end must be a number, found inf"),
        ([word(end=10**400)], "word 1: end must be a number, found 1000"),
        ([word(start=-0.1)], "word 1, 'well': start -0.1, end 1.0: 0 <= start <= end"),
        ([word(start=2)], "word 1, 'well': start 2.0, end 1.0: 0 <= start <= end"),
        ([word(), word("then", 0.4)], "word 2, 'then': starts at 0.4 s, the word ahead at 0.5 s"),
        ([word(), word("then", 1, 2.6)], "word 2, 'then': ends at 2.6 s, its utterance at 2.5 s"),
        ([word(), word("--")], "word 2, '--': holds no letter or digit"),
        ([word("\udfff")], "words holds half a character"),
        ([word()], "words are not the transcript: found no more words where it has 'then'"),
        ([], "words are not the transcript: found no more words where it has 'well'"),
        ([word(), word("than")], "found 'than' where it has 'then'"),
        ([word(), word("then"), word("so")], "found 'so' where it has no more words"),
        ([word("x" * 10_000)], "words are not the transcript: found 'xxx"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, words: Any, message: str) -> None:
    row = {"key": "a", "media": "a.wav", "start": 1.0, "end": 3.5, "transcript": "Well: then"}
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps({**row, "words": words}) + '\n{"key": "b"}\n')
    error, other = each_row(path)
    assert isinstance(error, DataError) and other == Utterance("b", None)
    assert message in error.message and "\n" not in error.message and len(error.message) < 200


def test_words_need_a_transcript_and_times_may_be_rounded() -> None:
    with pytest.raises(ValueError, match="need a transcript"):
        from_row({"key": "a", "words": [word()]})
    rounded = {"start": 12.345, "end": 14.567, "transcript": "well", "words": [word(end=2.222)]}
    assert from_row({"key": "a", **rounded}).words == (TimedWord("well", 0.5, 2.222),)
    assert from_row({"key": "a", "words": None}).words is None


def test_other_columns_of_a_table_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table({"key": ["a"], "transcript": ["well"], "words": ["well"]}), path)
    with pytest.raises(DataError, match="row 1: words must be a list of objects, found 'well'"):
        read_manifest(path)
    held = pa.array([[{"text": "well", "start": 1, "end": None}]])
    pq.write_table(pa.table({"key": ["a"], "transcript": ["well"], "words": held}), path)
    with pytest.raises(DataError, match="row 1: word 1: end must be a number, found null"):
        read_manifest(path)
