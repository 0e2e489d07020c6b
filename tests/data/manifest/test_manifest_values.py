"""Whatever stands in a manifest is a row, or one line with its number; the other rows go on."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmembed.commands.cli import run_program
from mmembed.commands.prepare import main
from mmembed.data.example import Example
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.jsonl import each_row, read_manifest, write_manifest
from mmembed.data.manifest.utterance import Labels, Utterance, from_row, to_row
from mmembed.data.shards.layout import ShardSet
from mmembed.data.shards.records import from_record, to_record
from mmembed.errors import CorruptError, DataError, UsageError

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "9" * 400
WRONG = [
    ('"end": Infinity', "end must be a number, found inf"),
    ('"end": 1e999', "end must be a number, found inf"),
    ('"start": -Infinity', "start must be a number, found -inf"),
    ('"start": NaN', "start must be a number, found nan"),
    (f'"end": {HUGE}', "end must be a number, found 999"),
    (f'"end": {"9" * 5000}', "Exceeds the limit"),
    ('"end": 1e12', "end 1000000000000.0: at most 100000000 seconds"),
    ('"start": -1', "start -1.0 and end None"),
    ('"start": true', "start must be a number, found True"),
    ('"start": null', "start must be a number, found null"),
    ('"turn": -1', "turn -1: counts from 0"),
    (f'"turn": {HUGE}', "counts from 0"),
    ('"turn": true', "turn must be a whole number"),
    ('"turn": 1.5', "turn must be a whole number, found 1.5"),
    ('"media": "http://[::1/x.wav"', "is no URL"),
    ('"media": "http://host:port/x.wav"', "is no URL"),
    ('"media": "a\\u0000.wav"', "media holds a NUL character"),
    ('"media": "\\ud800.wav"', "media holds half a character"),
    ('"media": ["a.wav"]', "media must be a string, found ['a.wav']"),
    ('"transcript": "\\udfff"', "transcript holds half a character"),
    ('"speaker": "a", "speaker": "b"', "names 'speaker' twice"),
    (f'"labels": {DEEP}', "is nested too deeply"),
    (f'"labels": {DEEP[90_000:110_000]}', "is nested too deeply"),
    ('"labels": null', "labels must be a JSON object, found null"),
    ('"labels": {"scores": {"x": true}}', "score 'x' must be a number, found True"),
    (f'"labels": {{"scores": {{"x": {HUGE}}}}}', "score 'x' must be a number"),
    ('"labels": {"scores": null}', "scores must be an object of numbers, found null"),
    ('"labels": {"scores": {"x": [1]}}', "score 'x' must be a number, found [1]"),
    ('"labels": {"emotions": [0, 0, 0, 0, 0, "x"]}', "emotions must be a number, found 'x'"),
    (f'"labels": {{"emotions": [0, 0, 0, 0, 0, {HUGE}]}}', "emotions must be a number"),
    ('"labels": {"emotions": {"happy": 1}}', "6 values in [0, 3]"),
    ('"labels": {"present": [null]}', "present must be a list of strings, found ["),
    ('"labels": {"present": "joy"}', "present must be a list of strings"),
    ('"labels": {"sentiment": -Infinity}', "sentiment must be a number"),
    ('"streams": ["sound"]', "streams ('sound',): of audio, video, text"),
    (f'"{"x" * 9999}": 1', "unknown field xxx"),
    (f'"speaker": [{", ".join(["1"] * 9999)}]', "speaker must be a string, found [1, 1"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=range(len(WRONG)))
def test_one_line_with_its_number_and_the_rest_goes_on(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"key": "a"}}\n{{"key": "b", {text}}}\n{{"key": "c"}}\n')
    first, error, last = list(each_row(path))
    assert (first, last) == (Utterance("a", None), Utterance("c", None))
    assert isinstance(error, DataError) and error.item == f"{path}:2"
    assert message in str(error) and "\n" not in str(error) and len(error.message) < 300
    with pytest.raises(DataError, match=r"m\.jsonl:2: "):
        read_manifest(path)


def test_bytes_that_are_no_text_are_one_line_and_a_mark_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"key": "a"}\r\n{"key": "caf\xe9"}\r\n')
    good, bad = list(each_row(path))
    assert good == Utterance("a", None)
    assert isinstance(bad, DataError) and str(bad).startswith(f"{path}:2: is not UTF-8 text")
    path.write_bytes('{"key": "a"}\n'.encode("utf-16"))
    with pytest.raises(DataError, match="this is UTF-16; save it as UTF-8"):
        list(each_row(path))
    path.write_text('{"key": 1}\n{"key": 2}\n')
    with pytest.raises(DataError, match=r"m\.jsonl:1: key must .*; nor can any other of 2 rows"):
        list(each_row(path))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
FIELDS = ("key", "media", "start", "end", "transcript", "language", "streams", "speaker",
          "dialogue", "turn", "split", "licence", "labels")  # fmt: skip
LABELS = ("sentiment", "emotions", "category", "present", "scores")
rows = (
    st.dictionaries(
        st.sampled_from(FIELDS) | st.text(max_size=3),
        json_values | st.dictionaries(st.sampled_from(LABELS), json_values),
    )
    | json_values
)


@given(rows)
def test_any_json_is_a_row_that_can_be_written_or_one_line(row: Any) -> None:
    if isinstance(row, dict):
        row = {"key": "k", **row}
    try:
        found = from_row(row)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert from_row(json.loads(json.dumps(to_row(found), allow_nan=False))) == found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=80) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_rows_or_errors_of_ours(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"key": "a"}\n' + data)
    try:
        found = list(each_row(path))
    except DataError:
        return
    assert found[0] == Utterance("a", None)


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table({"key": ["a", "b", "c"], **columns}), path, row_group_size=2)
    return path


NOT_TEXT = pa.array([b"x", b"caf\xe9", b"z"]).cast(pa.binary())


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"labels.emotions": [None, [0.0, 0, 0, 0, 0, 4], None]}, "6 values in [0, 3]"),
        ({"labels.emotions": [None, [0.0, 0, 0, 0, 0, np.nan], None]}, "emotions must be a number"),
        ({"labels.present": [["joy"], [None, "joy"], []]}, "present must be a list of strings"),
        ({"streams": [["audio"], [None], None]}, "streams must be a list of strings"),
        ({"end": [1.0, math.inf, 2.0]}, "end must be a number, found inf"),
        ({"start": [1.0, np.nan, 2.0]}, "start must be a number, found nan"),
        ({"labels.scores.x": [1.0, math.inf, None]}, "score 'x' must be a number"),
        (
            {"turn": pa.array([1, 1 << 63, 2], pa.uint64())},
            "turn 9223372036854775808: counts",
        ),
        ({"turn": [1, -1, 2]}, "turn -1: counts from 0"),
        ({"media": ["a", "http://[::1/x.wav", "c"]}, "is no URL"),
        ({"speaker": pa.Array.from_buffers(pa.string(), 3, NOT_TEXT.buffers())}, "speaker holds"),
    ],
)
def test_rows_of_tables_are_independent_too(
    tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    path = parquet(tmp_path / "m.parquet", **columns)
    found = list(each_row(path))
    assert [isinstance(row, DataError) for row in found] == [False, True, False]
    assert isinstance(found[1], DataError) and found[1].item == f"{path}: row 2"
    assert message in str(found[1])


def test_a_table_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["key", "key"])
    pq.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(DataError, match="has the column key twice"):
        list(each_row(tmp_path / "m.parquet"))


def run(*arguments: object) -> int:
    return run_program(lambda argv: main(argv), [str(x) for x in arguments])


def test_prepare_lists_the_rows_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "m.jsonl", tmp_path / "out"
    lines = [f'{{"key": "k{n}", "transcript": "word {n}"}}' for n in range(6)]
    lines[2] = '{"key": "k2", "transcript": "x", "end": Infinity}'
    path.write_text("\n".join(lines))
    call = ("manifest", path, "--out", out, "--records-per-shard", "2")
    assert run(*call) == 3
    assert f"{path}:3: end must be a number" in capsys.readouterr().err
    for _ in range(2):  # the second start ends as the first
        assert run(*call, "--error-budget", "0.2") == 0
        assert ShardSet(out / "shards").keys == ("k0", "k1", "k3", "k4", "k5")
        (failed,) = map(json.loads, (out / "shards/failed.jsonl").read_text().splitlines())
        assert (failed["key"], failed["reason"]) == ("m.jsonl:3", "manifest")
        assert "Traceback" not in capsys.readouterr().err
    path.write_text('{"key": "k", "end": Infinity}\n')
    assert run("manifest", path, "--out", tmp_path / "none") == 4
    assert not (tmp_path / "none" / "shards").exists()


def test_extract_has_a_source_for_each_row(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"key": "a", "transcript": "x"}\n{"key": "b", "media": "http://[::1/"}\n')
    good, bad = open_sources([path])
    assert good.key == "a" and bad.name == f"{path}:2"
    with pytest.raises(DataError, match="is no URL"):
        bad.load()
    for url, message in (("http://[::1/x.wav", "nor a URL"), ("http://[1/x.wav", "not a URL")):
        with pytest.raises(UsageError, match=message):
            open_sources([url])


def test_a_name_that_is_no_text_survives_a_manifest(tmp_path: Path) -> None:
    rows = [Utterance("caf%E9", "caf\udce9.wav"), Utterance("b", "b.wav", transcript="sch\u00f6n")]
    write_manifest(tmp_path / "m.jsonl", rows)
    text = (tmp_path / "m.jsonl").read_bytes()
    assert b'"caf\\udce9.wav"' in text and "sch\u00f6n".encode() in text
    assert read_manifest(tmp_path / "m.jsonl") == rows
    with pytest.raises(DataError, match="is no UTF-8"):
        write_manifest(tmp_path / "m.parquet", rows)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("utterance", {"key": "a", "end": math.inf}),
        ("utterance", {"key": "a", "labels": {"emotions": [None] * 5}}),
        ("utterance", [["x"]]),
        ("text", 5),
        ("notes", None),
    ],
)
def test_a_record_with_such_values_is_damaged(field: str, value: object) -> None:
    key, members, _ = to_record(Example(Utterance("a", None, transcript="x"), text="x"))
    described = {**members["json"], field: value}  # type: ignore[dict-item]
    with pytest.raises(CorruptError, match="a: not a record of prepared features"):
        from_record(key, {"json": described})


def test_some_emotions_of_a_clip_may_be_unknown(tmp_path: Path) -> None:
    """Null among them, in both forms of a manifest; each is a label of its own."""
    row = Utterance("a", None, labels=Labels(emotions=(0.0, None, 1.5, None, 3.0, None)))
    for name in ("m.jsonl", "m.parquet"):
        write_manifest(tmp_path / name, [row, Utterance("b", None)])
        assert list(each_row(tmp_path / name)) == [row, Utterance("b", None)]
    assert np.isnan(row.labels.intensities).tolist() == [False, True] * 3
    with pytest.raises(ValueError, match="emotions"):
        from_row({"key": "a", "labels": {"emotions": [0, 1, None, math.nan, 0, 0]}})
