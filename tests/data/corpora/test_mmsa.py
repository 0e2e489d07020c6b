"""Pickles of MMSA, made here in its layout, and the vectors of bc-LSTM."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmembed.data.checks import Check, read_report
from mmembed.data.corpora import CONVERTERS
from mmembed.data.corpora.sentiment import streams
from mmembed.data.feature_files import read_features
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

TOKENS, STEPS = 6, 9  # as 50 and 500 in MMSA's


def split_of(names: list[str], seed: int, aligned: bool = False) -> dict[str, Any]:
    """One split; the first has all its tokens, each further one a token less, and so on."""
    draw, count = np.random.default_rng(seed), len(names)
    tokens = TOKENS - np.arange(count)
    steps = {"audio": tokens if aligned else STEPS - 2 * np.arange(count), "vision": tokens + 1}
    if aligned:
        steps["vision"] = tokens
    data: dict[str, Any] = {
        "id": names,
        "raw_text": [f"words of {name}" for name in names],
        "regression_labels": np.linspace(-3, 3, count).astype(np.float32),
        "classification_labels": np.zeros(count),
        "annotations": ["Neutral"] * count,
        "text_bert": np.zeros((count, 3, TOKENS)),
    }
    data["text_bert"][:, 1] = np.arange(TOKENS) < tokens[:, None]
    for stream, width in (("text", 768), ("audio", 74), ("vision", 35)):
        length = tokens if stream == "text" else steps[stream]
        size = TOKENS if aligned or stream == "text" else STEPS
        data[stream] = draw.normal(size=(count, size, width))
        data[stream] *= (np.arange(size) < length[:, None])[:, :, None]
        if not aligned and stream != "text":
            data[f"{stream}_lengths"] = length.tolist()
    return data


def dump(path: Path, data: object) -> Path:
    path.write_bytes(pickle.dumps(data, protocol=4))
    return path


def convert(name: str, source: Path, out: Path) -> tuple[dict[str, Utterance], dict[str, Check]]:
    rows = {row.key: row for row in CONVERTERS[name](source, out)}
    return rows, {check.what: check for check in read_report(out)}


def held(row: Utterance, out: Path) -> dict[str, np.ndarray]:
    assert row.media is not None
    file, _, number = row.media.partition("#")
    return read_features(out / file, int(number))


@pytest.fixture
def mosei() -> dict[str, Any]:
    return {
        "train": split_of(["-3g5yACwYnA$_$13", "25522$_$0", "255224$_$0"], 0),
        "valid": split_of(["--qXJuDtHPw$_$5"], 1),
        "test": split_of(["-6rXp3zJ3kc$_$2", "-6rXp3zJ3kc$_$10"], 2),
    }


def test_unaligned_streams_have_their_own_lengths(mosei: dict[str, Any], tmp_path: Path) -> None:
    train = mosei["train"]
    train["audio"][0, 2, 3:5] = -np.inf, np.nan
    train["audio"][1, 8, 0] = np.inf  # beyond its 7 steps
    expected = train["audio"][0].copy()
    expected[2, 3:5] = 0
    rows, checks = convert("mosei", dump(tmp_path / "unaligned_50.pkl", mosei), tmp_path / "out")
    assert list(rows) == [
        "mosei--3g5yACwYnA-13",
        "mosei-25522-0",
        "mosei-255224-0",
        "mosei---qXJuDtHPw-5",
        "mosei--6rXp3zJ3kc-2",
        "mosei--6rXp3zJ3kc-10",
    ]
    first, second, third, dev = (rows[key] for key in list(rows)[:4])
    assert first.transcript == "words of -3g5yACwYnA$_$13"
    assert (first.labels.sentiment, third.labels.sentiment) == (-3, 3)
    assert (first.split, dev.split, first.language) == ("train", "dev", "en")
    assert first.media == "features/train.safetensors#0"
    found = held(first, tmp_path / "out")
    assert {name: x.shape for name, x in found.items()} == {
        "text": (6, 768),
        "audio": (9, 74),
        "video": (7, 35),
    }
    np.testing.assert_array_equal(found["audio"], expected.astype(np.float32))
    assert len(held(third, tmp_path / "out")["audio"]) == 5
    assert len(held(third, tmp_path / "out")["text"]) == 4
    kept = held(second, tmp_path / "out")["audio"]
    assert len(kept) == 9 and kept[8, 0] == 0
    assert checks["lengths of audio"].found == "audio_lengths"
    assert checks["lengths of text"].found == "mask of text_bert"
    assert checks["audio beyond its length"].items == ("25522[0]",)
    assert checks["audio not finite"].found == ("2, with 1 -inf, 1 +inf, 1 NaN, replaced by 0")
    assert checks["video not finite"].ok and checks["text beyond its length"].ok
    assert checks["splits other than the official folds"].ok
    assert (checks["width of audio"].found, checks["width of audio"].ok) == ("74", True)
    assert checks["segments in test"].expected == "4659"
    pin = checks["SHA-256 of unaligned_50.pkl"]
    assert pin.expected.startswith("ad8b23d5") and not pin.ok


def test_large_splits_go_to_several_files(
    mosei: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PER_FILE", 2)
    rows, _ = convert("mosei", dump(tmp_path / "a.pkl", mosei), tmp_path / "out")
    media = [row.media for row in rows.values()]
    assert media[:3] == [
        f"features/train{n}" for n in (".safetensors#0", ".safetensors#1", "-1.safetensors#0")
    ]
    for data in mosei.values():
        for name, text in zip(data["id"], data["text"], strict=True):
            video, clip = name.split("$_$")
            found = held(rows[f"mosei-{video}-{clip}"], tmp_path / "out")["text"]
            np.testing.assert_array_equal(found, text[: len(found)].astype(np.float32))


def test_aligned_streams_have_the_length_of_the_tokens(tmp_path: Path) -> None:
    data = {"test": split_of(["tmZoasNr4rU$_$1", "tmZoasNr4rU$_$2"], 0, aligned=True)}
    rows, checks = convert("mosi", dump(tmp_path / "aligned_50.pkl", data), tmp_path / "out")
    for number, row in enumerate(rows.values()):
        lengths = {name: len(x) for name, x in held(row, tmp_path / "out").items()}
        assert lengths == dict.fromkeys(("text", "audio", "video"), TOKENS - number)
    assert checks["lengths of audio"].found == "mask of text_bert"
    assert checks["width of video"].found == "35" and not checks["width of video"].ok  # MOSI has 20


def test_padding_in_front_is_cut_and_told(tmp_path: Path) -> None:
    data = {"test": split_of(["tmZoasNr4rU$_$1", "tmZoasNr4rU$_$2"], 0, aligned=True)}
    shifted = np.roll(data["test"]["audio"][1], 1, axis=0)
    data["test"]["audio"][1] = shifted
    rows, checks = convert("mosi", dump(tmp_path / "a.pkl", data), tmp_path / "out")
    found = held(rows["mosi-tmZoasNr4rU-2"], tmp_path / "out")["audio"]
    np.testing.assert_array_equal(found, shifted[1:].astype(np.float32))
    assert checks["audio beyond its length"].items == ("tmZoasNr4rU[2]",)
    assert checks["SHA-256 of a.pkl"].expected == "no published checksum"


def test_pickles_of_mult_are_padded_in_front_and_name_times(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {
        name: draw.normal(size=(3, 8, width))
        for name, width in (("text", 300), ("audio", 74), ("vision", 35))
    }
    for values in arrays.values():
        values[1, :5] = 0
    arrays["vision"][2] = 0
    ids = np.array(
        [["pLTX3ipuDJI", "1.5", "2.25"], ["tmZoasNr4rU_3", "0", "1"], ["k5Y_838nuGo[2]", "0", "1"]]
    )
    data = {"test": {**arrays, "id": ids.astype("S"), "labels": np.full((3, 1, 1), -1.5)}}
    rows, checks = convert("mosi", dump(tmp_path / "mosi_data.pkl", data), tmp_path / "out")
    assert list(rows) == ["mosi-pLTX3ipuDJI-1%2E5", "mosi-tmZoasNr4rU-3", "mosi-k5Y_838nuGo-2"]
    first, second, third = rows.values()
    assert (first.start, first.end, first.labels.sentiment) == (1.5, 2.25, -1.5)
    found = held(second, tmp_path / "out")
    np.testing.assert_array_equal(found["audio"], arrays["audio"][1, 5:].astype(np.float32))
    assert held(third, tmp_path / "out").keys() == {"text", "audio"}
    assert checks["lengths of text"].found == "rows that are not zero"
    assert checks["text beyond its length"].ok
    assert checks["splits other than the official folds"].ok


def test_sims_tells_what_each_stream_says(tmp_path: Path) -> None:
    train = split_of(["video_0001$_$0001", "video_0001$_$0002"], 0)
    train["raw_text"] = ["\u6211\u4e0d\u77e5\u9053", ""]
    train["regression_labels"] = np.array([0.2, 1.4])
    for letter, value in (("T", 0.4), ("A", -0.2), ("V", np.nan)):
        train[f"regression_labels_{letter}"] = np.array([value, -1.0])
    train["vision_lengths"][1] = 0
    train["vision"][1] = 0
    source = dump(tmp_path / "unaligned_39.pkl", {"train": train})
    rows, checks = convert("sims", source, tmp_path / "out")
    first, second = rows.values()
    assert first.key == "sims-video_0001-0001" and first.language == "zh"
    assert first.transcript == "\u6211\u4e0d\u77e5\u9053" and second.transcript is None
    assert first.labels.sentiment == pytest.approx(0.2)
    assert first.labels.sentiment_limit == 1
    assert first.labels.scores == {"sentiment_text": 0.4, "sentiment_audio": -0.2}
    assert second.labels.sentiment is None
    assert checks["sentiment outside [-1, 1]"].items == ("video_0001[0002]",)
    assert held(second, tmp_path / "out").keys() == {"text", "audio"}
    assert checks["without video"].found == "1"
    assert "splits other than the official folds" not in checks


def test_ids_twice_and_folds_of_its_own(mosei: dict[str, Any], tmp_path: Path) -> None:
    mosei["test"]["id"][1] = "25522$_$0"  # in train too, and the fold of its video
    rows, checks = convert("mosei", dump(tmp_path / "a.pkl", mosei), tmp_path / "out")
    assert len(rows) == 5 and rows["mosei-25522-0"].split == "train"
    assert checks["duplicate ids"].items == ("25522[0]",)
    mosei["test"]["id"][1] = "25522$_$7"
    rows, checks = convert("mosei", dump(tmp_path / "a.pkl", mosei), tmp_path / "out")
    assert rows["mosei-25522-7"].split == "test"
    assert checks["splits other than the official folds"].items == ("25522[7]",)


def test_other_pickles_are_refused_by_name(mosei: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    for content, message in (
        ({"a": 1}, "has no train, valid or test"),
        ({"train": {"id": ["a$_$1"]}}, "train is not as MMSA has it: it needs id"),
        ({"train": [1, 2]}, "train is not as MMSA has it"),
        ({"train": {**mosei["train"], "id": ["a", "b", "c"]}}, r"id 'a' is not of the form video"),
        ({"train": {**mosei["train"], "audio": np.zeros((2, 9, 74))}}, r"\(2, 9, 74\) for 3 ids"),
    ):
        with pytest.raises(DataError, match=message):
            CONVERTERS["mosei"](dump(path, content), tmp_path / "out")


def test_one_of_several_pickles_must_be_named(mosei: dict[str, Any], tmp_path: Path) -> None:
    dump(tmp_path / "aligned_50.pkl", mosei)
    assert len(CONVERTERS["mosei"](tmp_path, tmp_path / "out")) == 6
    dump(tmp_path / "unaligned_50.pkl", mosei)
    with pytest.raises(DataError, match=r"name one: aligned_50\.pkl, unaligned_50\.pkl"):
        CONVERTERS["mosei"](tmp_path, tmp_path / "out")


def write_bclstm(folder: Path) -> None:
    draw = np.random.default_rng(0)
    widths = {"text": 100, "audio": 73, "video": 100}
    arrays = {name: draw.normal(size=(3, width)) for name, width in widths.items()}
    arrays["audio"][1, 5] = np.nan
    np.savez(folder / "features.npz", label=np.array([1, 0, 1], np.int8), **arrays)
    (folder / "utterances.csv").write_text(
        "row,split,transcript_row,video_id,clip,label,transcript_label,transcript,transcript_aux\n"
        "0,train,39,1DmNV9C1hbY,10,1,1,GOOD FILM,34\n"
        "1,test,41,1DmNV9C1hbY,12,0,0,BAD FILM,34\n"
        "2,train,44,tmZoasNr4rU,2,0,0,SO SO,34\n"
    )


def test_vectors_of_bclstm(tmp_path: Path) -> None:
    write_bclstm(tmp_path)
    out = tmp_path / "out"
    rows, checks = convert("mosi", tmp_path, out)
    row = rows["mosi-1DmNV9C1hbY-12"]
    assert (row.split, row.transcript, row.labels.category) == ("test", "BAD FILM", "negative")
    assert row.media == "features/test.safetensors#0"
    audio = held(row, out)["audio"]
    assert audio.shape == (1, 73) and audio[0, 5] == 0
    assert rows["mosi-1DmNV9C1hbY-10"].labels.category == "positive"
    assert checks["labels of the two files that differ"].items == ("tmZoasNr4rU[2]",)
    assert checks["splits other than the official folds"].items == (
        "tmZoasNr4rU[2]",
        "1DmNV9C1hbY[12]",
    )
    assert checks["segments in train"].expected == "1447"
    np.savez(tmp_path / "features.npz", label=np.zeros(2), text=np.zeros((2, 100)))
    with pytest.raises(DataError, match=r"features\.npz: needs an \.npz with text and audio"):
        CONVERTERS["mosi"](tmp_path, out)
