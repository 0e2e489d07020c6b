"""`mmembed verify`: every kind of defect planted once and found, and nothing else is."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from helpers.prepared import (
    change_json,
    embedding,
    example,
    reasons,
    seal,
    verify,
    write_embeddings,
    write_prepared,
)

from mmembed.data.example import Example
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.verify.defect import SHOWN

FAILED = {"key": "clip-x", "reason": "empty", "message": "x.mp4: the file is empty"}
HOSTILE = "\x1b[31m<script>"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three records in two shards and one failure."""
    return write_prepared(tmp_path / "out", [example(n) for n in range(3)], [FAILED])


def test_a_whole_folder_is_one_line(folder: Path, capsys: Capture) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*.tar"))
    assert verify(folder) == 0
    expected = f"3 records in 2 shards, 1 failed, {size / 1e6:.1f} MB"
    assert capsys.readouterr().out == f"ok       {folder / 'shards'}: {expected}\n"
    assert verify(folder / "shards") == 0


def test_progress_reaches_the_end(folder: Path, capsys: Capture) -> None:
    verify(folder)
    assert "verify % 100/100" in capsys.readouterr().err


def test_several_folders_are_a_line_each(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    other = write_prepared(tmp_path / "other", [example(7)])
    tar = shard_path(other / "shards", 0)
    tar.write_bytes(tar.read_bytes()[:-512])
    assert verify(folder, other, folder / "shards") == 5  # the first once, though named twice
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"ok       {folder / 'shards'}: 3 records")
    assert second.startswith(f"damaged  {other / 'shards'}: 1 records in 1 shards")
    assert second.endswith("1 defects")


def flip(folder: Path) -> None:
    tar = shard_path(folder, 1)
    data = bytearray(tar.read_bytes())
    data[data.index(b"fLaC") + 1000] ^= 1
    tar.write_bytes(data)


def cut(folder: Path) -> None:
    tar = shard_path(folder, 1)
    tar.write_bytes(tar.read_bytes()[:-512])


def add_member(folder: Path) -> None:
    tar = shard_path(folder, 1)
    with tarfile.open(tar, "a") as file:
        info = tarfile.TarInfo("clip-9.json")
        info.size = 2
        file.addfile(info, BytesIO(b"{}"))
    seal(tar)


def swap_places(folder: Path) -> None:
    def change(index):
        first, second = (record["members"] for record in index["records"])
        first["audio.flac"], second["audio.flac"] = second["audio.flac"], first["audio.flac"]

    change_json(shard_path(folder, 1).with_suffix(".json"), change)


def edit_meta(folder: Path) -> None:
    def change(index):
        index["records"][0]["meta"]["lengths"]["audio"] = 51

    change_json(shard_path(folder, 1).with_suffix(".json"), change)


def outside(folder: Path) -> None:
    def change(index):
        index["records"][0]["members"]["audio.flac"][0] = 10**12

    change_json(shard_path(folder, 1).with_suffix(".json"), change)


def break_seal(folder: Path) -> None:
    sidecar = shard_path(folder, 1).with_suffix(".json")
    content = json.loads(sidecar.read_bytes())
    content.pop("sidecar_sha256", None)
    body = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(body).hexdigest()
    sealed = body[:-1] + b',"sidecar_sha256":"' + digest.encode() + b'"}\n'
    sidecar.write_bytes(sealed)
    assert verify(folder) == 0
    sidecar.write_bytes(sealed.replace(b'"so it goes"', b'"so it goex"'))


def remove_shard(folder: Path) -> None:
    for suffix in (".tar", ".json"):
        shard_path(folder, 1).with_suffix(suffix).unlink()


def other_count(folder: Path) -> None:
    change_json(folder / "manifest.json", lambda made: made.update(utterances=3))


@pytest.mark.parametrize(
    ("plant", "code", "found"),
    [
        (flip, 5, ["checksum", "damaged"]),
        (cut, 5, ["size"]),
        (lambda f: shard_path(f, 1).unlink(), 5, ["missing"]),
        (lambda f: (f / "shard-000001.json").write_text("{"), 5, ["index"]),
        (lambda f: (f / "shard-000001.json").write_text("[]"), 5, ["index"]),
        (outside, 5, ["index"]),
        (break_seal, 5, ["index"]),
        (add_member, 5, ["differs"]),
        (swap_places, 5, ["index"]),
        (remove_shard, 5, ["missing", "lost", "lost", "lost"]),
        (edit_meta, 4, ["meta"]),
        (other_count, 4, ["lost"]),
        (lambda f: (f / "manifest.json").unlink(), 4, ["unfinished"]),
        (lambda f: (f / "manifest.json").write_text("{"), 4, ["unfinished"]),
        (lambda f: (f / "failed.jsonl").write_text(""), 4, ["failures"]),
        (lambda f: (f / ".shard-000001.tar.12.tmp").write_bytes(b"half"), 0, ["leftover"]),
        (lambda f: shard_path(f, 2).write_bytes(b"half"), 0, ["no_index"]),
    ],
)
def test_damage_is_found(
    folder: Path, capsys: Capture, plant: Callable[[Path], object], code: int, found: list[str]
) -> None:
    plant(folder / "shards")
    capsys.readouterr()
    assert verify(folder) == code
    printed = capsys.readouterr()
    assert reasons(printed.out) == found
    state = {0: "ok", 4: "invalid", 5: "damaged"}[code]
    assert printed.out.startswith(f"{state:8} {folder / 'shards'}: ")
    if code:
        errors = [line for line in printed.err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert f"{len(found)} defects" in errors[0]


def test_a_damaged_record_is_named(folder: Path, capsys: Capture) -> None:
    flip(folder / "shards")
    verify(folder)
    printed = capsys.readouterr().out
    assert f"damaged: clip-1: {shard_path(folder / 'shards', 1)}: audio.flac has" in printed
    assert "clip-2" not in printed


def crops_of(size: int, dtype: type = np.uint8) -> Example:
    return example(1, video=np.zeros((5, size, size), dtype))


def features_of(dtype: type, value: float) -> Example:
    return example(1, features={"audio": np.full((2, 3), value, dtype)})


@pytest.mark.parametrize(
    ("bad", "found", "message"),
    [
        (crops_of(64, np.int16), "form", "video is int16 (5, 64, 64); uint8 (any, 64, 64)"),
        (crops_of(32), "form", "video is uint8 (5, 32, 32)"),
        (features_of(np.float64, 0), "form", "features.audio is float64"),
        (features_of(np.float32, np.nan), "not_finite", "6 of 6"),
        (example(1, key="\u00fc"), "key", "letters, digits, - and _"),
        (example(1, audio=None, video=None, text=None), "no_streams", "neither audio"),
        (example(0), "duplicate", "stands in "),
    ],
)  # fmt: skip
def test_invalid_records_are_found(
    tmp_path: Path, capsys: Capture, bad: Example, found: str, message: str
) -> None:
    folder = tmp_path / "shards"
    for number, one in enumerate((example(0), bad)):
        write_prepared(tmp_path / str(number), [one])
        for suffix in (".tar", ".json"):
            source = shard_path(tmp_path / str(number) / "shards", 0).with_suffix(suffix)
            folder.mkdir(exist_ok=True)
            source.rename(shard_path(folder, number).with_suffix(suffix))
    (folder / "manifest.json").write_text('{"utterances": 2, "records_per_shard": 1}')
    assert verify(folder) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == [found]
    assert message in printed


def test_features_have_one_width(tmp_path: Path, capsys: Capture) -> None:
    features = [{"text": np.zeros((2, width), np.float32)} for width in (5, 5, 6)]
    examples = [example(n, audio=None, video=None, features=f) for n, f in enumerate(features)]
    assert verify(write_prepared(tmp_path / "out", examples)) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == ["width"]
    assert "width: clip-2: features.text has the width 6, in clip-0 5" in printed
    assert verify(write_prepared(tmp_path / "even", examples[:2])) == 0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"json": {"other": 1}}, "neither prepared features nor embeddings"),
        ({"a.npy": np.zeros(3)}, "neither prepared features nor embeddings"),
        ({"json": {"utterance": {"key": "other"}, "text": "a", "notes": {}}}, "has the key other"),
        ({"json": {"utterance": {"key": "k", "turn": -1}, "text": "a", "notes": {}}}, "turn -1"),
    ],
)
def test_records_of_another_kind_are_found(
    tmp_path: Path, capsys: Capture, members: dict[str, object], message: str
) -> None:
    write_shard(shard_path(tmp_path, 0), [Record("k", members)], {})
    (tmp_path / "manifest.json").write_text('{"utterances": 1}')
    assert verify(tmp_path) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == ["record"]
    assert message in printed


def test_rows_and_records_are_the_same_utterances(folder: Path, capsys: Capture) -> None:
    rows = [example(n).utterance for n in (0, 1, 5)]
    write_manifest(folder / "manifest.jsonl", [*rows, Utterance("clip-x", "x.mp4")])
    assert verify(folder) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == ["lost", "unknown"]
    assert "lost: clip-5: stands in" in printed
    assert "unknown: clip-2: stands in a shard" in printed


def test_keys_are_unique_over_folders(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    other = write_prepared(tmp_path / "other", [example(2), example(3)])
    assert verify(folder) == verify(other) == 0
    capsys.readouterr()
    assert verify(folder, other) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == ["duplicate"]
    places = [shard_path(folder / "shards", 1), shard_path(other / "shards", 0)]
    assert f"duplicate: clip-2: stands in {places[0]} and in {places[1]}" in printed


def test_many_defects_are_counted(tmp_path: Path, capsys: Capture) -> None:
    bad = {"audio": np.full((2, 3), np.nan, np.float32)}
    examples = [example(n, features=bad) for n in range(SHOWN + 5)]
    assert verify(write_prepared(tmp_path, examples, size=10)) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("25 defects")
    assert len(lines) == 1 + SHOWN + 1
    assert lines[-1] == "  and 5 more; of all defects 25 not_finite"


def test_embeddings_of_all_subsets_share_keys(tmp_path: Path, capsys: Capture) -> None:
    for streams in (["audio"], ["audio", "text"]):
        write_embeddings(tmp_path / "+".join(streams), [embedding(0), embedding(1)], streams)
    assert verify(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        f"ok       {tmp_path / 'audio'}",
        f"ok       {tmp_path / 'audio+text'}",
    ]
    write_embeddings(tmp_path / "again", [embedding(1)], ["audio"])
    assert verify(tmp_path) == 4
    assert reasons(capsys.readouterr().out) == ["duplicate"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"pooled.npy": np.ones(8)}, ["form"]),
        ({"pooled.npy": np.ones(9, np.float32)}, ["width"]),
        ({"pooled.npy": np.full(8, np.nan, np.float32)}, ["not_finite"]),
        ({"frames.npy": np.zeros((9, 4), np.float16)}, ["meta"]),
        ({"frames.npy": np.zeros(6, np.float16)}, ["form"]),
        ({"layers.npy": np.full((3, 8), np.inf, np.float32)}, ["not_finite"]),
        ({"json": {"speaker": "s2", "split": "test"}}, ["meta"]),
    ],
)
def test_invalid_embeddings_are_found(
    tmp_path: Path, capsys: Capture, changes: dict[str, object], found: list[str]
) -> None:
    write_embeddings(tmp_path, [embedding(0), embedding(1, **changes)], ["audio"])
    assert verify(tmp_path) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == found
    assert f"{found[0]}: clip-1: " in printed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers.npy": np.zeros((4, 8), np.float32)}, "has 4 layers, the folder names 3"),
        (
            {"json": {**embedding(1).members["json"], "streams": ["audio", "text"]}},
            "is of audio+text, the folder of audio",
        ),
    ],
)
def test_embeddings_are_what_the_folder_says(
    tmp_path: Path, capsys: Capture, changes: dict[str, object], message: str
) -> None:
    write_embeddings(tmp_path, [embedding(0), embedding(1, **changes)], ["audio"])
    assert verify(tmp_path) == 4
    assert f"  origin: clip-1: {message}" in capsys.readouterr().out


def test_each_granularity_that_is_promised_is_there(tmp_path: Path, capsys: Capture) -> None:
    words = {"words.npy": np.zeros((2, 8), np.float16)}
    told = {**embedding(1).members["json"], "words": [{"text": "no"}]}
    records = [embedding(0), embedding(1, **words, json=told)]
    write_embeddings(tmp_path, records, ["audio"])
    change_json(tmp_path / "manifest.json", lambda made: made.update(granularity=["frame", "word"]))
    assert verify(tmp_path) == 4
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "  origin: clip-0: lacks words.npy, of granularity word",
        "  record: clip-1: its JSON does not list the 2 words of words.npy",
    ]


def test_a_shard_of_another_encoder_is_found(tmp_path: Path, capsys: Capture) -> None:
    write_embeddings(tmp_path, [embedding(0)], ["audio"])
    write_shard(shard_path(tmp_path, 1), [embedding(1)], {"failed": [], "encoder_sha256": "fed"})
    change_json(tmp_path / "manifest.json", lambda made: made.update(clips=2, records_per_shard=1))
    assert verify(tmp_path) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == ["origin"]
    assert "its encoder_sha256 is 'fed', of the folder '0123456789abcdef'" in printed


def test_layers_may_have_the_names_of_older_versions(tmp_path: Path) -> None:
    write_embeddings(tmp_path, [embedding(0)], ["audio"])
    older = {"layers": ["audio 0", "video on clock", "fused"]}
    change_json(tmp_path / "manifest.json", lambda metadata: metadata.update(older))
    sidecar = shard_path(tmp_path, 0).with_suffix(".json")
    for layers, code in ((older["layers"], 0), (["audio 0", "video aligned", "fused"], 0), (5, 4)):
        change_json(sidecar, lambda index, new=layers: index["provenance"].update(layers=new))
        assert verify(tmp_path) == code


@pytest.mark.parametrize("length", [0.0, 9.0, 1e6])
def test_unusual_lengths_are_told_and_harm_nobody(
    tmp_path: Path, capsys: Capture, length: float
) -> None:
    odd = np.zeros(8, np.float32)
    odd[3] = length
    records = [embedding(n) for n in range(4)]
    write_embeddings(tmp_path, [*records, embedding(4, **{"pooled.npy": odd})], ["audio"])
    assert verify(tmp_path) == 0
    printed = capsys.readouterr().out
    assert reasons(printed) == ([] if length == 9 else ["length"])
    assert length == 9 or f"length: clip-4: pooled has the length {length:.3g}, of" in printed


def test_hostile_names_reach_no_terminal(tmp_path: Path, capsys: Capture) -> None:
    record = Record("k" + HOSTILE, {"json": {"text": HOSTILE}})
    write_shard(shard_path(tmp_path, 0), [record], {})
    assert verify(tmp_path) == 4
    captured = capsys.readouterr()
    assert "\x1b" not in captured.out + captured.err
    assert "key: k\\x1b[31m<script>: key is not portable" in captured.out


def test_something_has_to_be_named(capsys: Capture) -> None:
    assert verify() == 2
    assert "nothing to verify" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nothing", "file.txt", "empty"])
def test_what_is_nothing_of_the_kind_is_a_usage_error(
    tmp_path: Path, capsys: Capture, name: str
) -> None:
    (tmp_path / "file.txt").write_text("words")
    (tmp_path / "empty").mkdir()
    assert verify(tmp_path / name) == 2
    assert "name a manifest (.jsonl, .parquet), a prepared folder" in capsys.readouterr().err
