"""Readers of emotional speech, on tiny trees in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.loading import load_example
from numpy.typing import NDArray

from mmembed.data.corpora import (
    CONVERTERS,
    CORPORA,
    crema_d,
    msp_podcast,
    named_speech,
    ravdess,
)
from mmembed.data.corpora.emotion_names import CATEGORIES, category
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

HEADER = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set\n"


def plant(root: Path, *names: str) -> Path:
    """Empty files: readers look at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "codes",
    [
        crema_d.EMOTIONS,
        msp_podcast.EMOTIONS,
        named_speech.EMODB_EMOTIONS,
        named_speech.EMOVO_EMOTIONS,
        named_speech.URDU_EMOTIONS,
        ravdess.EMOTIONS,
    ],
)
def test_corpora_share_one_vocabulary(codes: dict[str, str | None]) -> None:
    assert set(codes.values()) - {None} <= set(CATEGORIES)
    assert all(category(emotion) == emotion for emotion in CATEGORIES)


def test_names_of_emotions_as_people_write_them() -> None:
    written = ("Anger", " joy ", "Surprise", "SADNESS", "puzzled")
    assert [category(name) for name in written] == ["angry", "happy", "surprised", "sad", "puzzled"]


def test_crema_d(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav", "AudioMP3/1001_DFA_ANG_XX.mp3")
    plant(tmp_path, "VideoFlash/1001_DFA_ANG_XX.flv", "AudioWAV/1040_ITH_SAD_X.wav")
    plant(tmp_path, "AudioWAV/1091_WSI_NEU_XX.wav", "AudioWAV/1002_TSI_FEA_HI.wav")
    write(
        tmp_path,
        "processedResults/tabulatedVotes.csv",
        '"","A","D","F","H","N","S","fileName","numResponses"\n'
        "100001,8,0,0,0,2,0,1001_DFA_ANG_XX,10\n"
        "200001,1,2,0,0,0,0,1001_DFA_ANG_XX,3\n"
        "100002,0,0,0,0,0,5,1040_ITH_SAD_X,5\n"
        "100003,0,0,0,0,0,5,1003_ITH_SAD_XX,5\n",
    )
    rows = {row.key: row for row in CORPORA["crema_d"](tmp_path)}
    none = dict.fromkeys(("angry", "disgust", "fearful", "happy", "neutral", "sad"), 0.0)
    heard = {f"voice_{k}": v for k, v in {**none, "angry": 0.8, "neutral": 0.2}.items()}
    seen = {f"face_{k}": v for k, v in {**none, "angry": 0.3333, "disgust": 0.6667}.items()}
    assert rows["crema_d-1001_DFA_ANG_XX"] == Utterance(
        key="crema_d-1001_DFA_ANG_XX",
        media="VideoFlash/1001_DFA_ANG_XX.flv",
        transcript="Don't forget a jacket.",
        language="en",
        streams=("audio", "video", "text"),
        speaker="crema_d-1001",
        split="train",
        licence="ODbL 1.0, contents DbCL 1.0",
        labels=Labels(category="angry", scores=heard | seen),
    )
    assert rows["crema_d-1040_ITH_SAD_X"].labels.scores["voice_sad"] == 1
    assert rows["crema_d-1040_ITH_SAD_X"].streams == ("audio", "text")
    assert {key[-15:]: (row.split, row.labels.category) for key, row in rows.items()} == {
        "1001_DFA_ANG_XX": ("train", "angry"),
        "-1040_ITH_SAD_X": ("train", "sad"),
        "1091_WSI_NEU_XX": ("heldout", "neutral"),
        "1002_TSI_FEA_HI": ("dev", "fearful"),
    }
    assert "clips have votes but no file (1, such as '1003_ITH_SAD_XX')" in caplog.text
    assert "clips have no votes (2, such as '1002_TSI_FEA_HI')" in caplog.text


@pytest.mark.parametrize(
    ("table", "error"),
    [
        ("version https://git-lfs.github.com/spec/v1\n", "has no column"),
        (",A,D,F,H,N,S,fileName\n100001,x,0,0,0,0,0,1001_DFA_ANG_XX\n", ":2: votes must be counts"),
        (",A,D,F,H,N,S,fileName\n900001,1,0,0,0,0,0,1001_DFA_ANG_XX\n", ":2: not the row numbers"),
    ],
)
def test_crema_d_votes_of_another_form_are_refused(tmp_path: Path, table: str, error: str) -> None:
    plant(tmp_path, "AudioWAV/1001_DFA_ANG_XX.wav")
    write(tmp_path, "processedResults/tabulatedVotes.csv", table)
    with pytest.raises(DataError, match=error):
        CORPORA["crema_d"](tmp_path)


def test_urdu(tmp_path: Path) -> None:
    plant(tmp_path, "Angry/SM1_F10_A010.wav", "Happy/SF6_F14_H038.wav", "Sad/SM27_F1_S0100.wav")
    plant(tmp_path, "Neutral/SM3_F2_N02.wav", "Neutral/SM3_F2_X02.wav")
    rows = CORPORA["urdu"](tmp_path)
    assert rows[0] == Utterance(
        key="urdu-SM1_F10_A010",
        media="Angry/SM1_F10_A010.wav",
        language="ur",
        streams=("audio",),
        speaker="urdu-SM1",
        licence="research",
        labels=Labels(category="angry"),
    )
    assert [(row.speaker, row.labels.category) for row in rows[1:]] == [
        ("urdu-SF6", "happy"),
        ("urdu-SM3", "neutral"),
        ("urdu-SM27", "sad"),
    ]


def test_msp_podcast(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stems = [f"MSP-PODCAST_0001_000{n}" for n in range(6)]
    plant(tmp_path, *(f"Audios/{stem}.wav" for stem in stems), "Audios/._MSP-PODCAST_0001_0001.wav")
    write(tmp_path, f"Transcripts/{stems[0]}.txt", "well, hello there\n")
    lines = (
        "H,5.25,6,4.5,12,Male,Train",
        "X,4,4,4,Unknown,Female,Development",
        "U,7,1,3,7,Male,Test1",
        "C,2,2,2,7,Male,Test2",
        ",,,,,,Test3",
    )
    table = "".join(f"{stem}.wav,{line}\n" for stem, line in zip(stems, lines, strict=False))
    write(
        tmp_path, "Labels/labels_consensus.csv", f"{HEADER}{table}gone.wav,N,4,4,4,1,Male,Train\n"
    )
    rows = CORPORA["msp_podcast"](tmp_path)
    assert rows[0] == Utterance(
        key="msp_podcast-MSP-PODCAST_0001_0000",
        media="Audios/MSP-PODCAST_0001_0000.wav",
        transcript="well, hello there",
        language="en",
        streams=("audio", "text"),
        speaker="msp_podcast-12",
        split="train",
        licence="research, by agreement with the authors",
        labels=Labels(category="happy", scores={"arousal": 5.25, "valence": 6, "dominance": 4.5}),
    )
    assert [(r.split, r.speaker, r.labels.category, r.streams) for r in rows[1:]] == [
        ("dev", None, None, ("audio",)),
        ("test", "msp_podcast-7", "surprised", ("audio",)),
        ("test", "msp_podcast-7", "contempt", ("audio",)),
        ("test", None, None, ("audio",)),
    ]
    assert rows[2].labels.scores == {"arousal": 7, "valence": 1, "dominance": 3, "test_set": 1}
    assert rows[3].labels.scores["test_set"] == 2
    assert rows[4].labels.scores == {"test_set": 3}
    assert "labels in labels_consensus.csv but no file (1, such as 'gone.wav')" in caplog.text
    assert f"no labels in labels_consensus.csv (1, such as 'Audios/{stems[5]}.wav')" in caplog.text


def test_msp_podcast_json_tells_the_same_as_csv(tmp_path: Path) -> None:
    plant(tmp_path, "Audios/MSP-PODCAST_0002_0033_0001.wav")
    write(tmp_path, "Labels/labels_concensus.json", json.dumps({
        "MSP-PODCAST_0002_0033_0001.wav": {
            "EmoClass": "A", "EmoAct": 5.5, "EmoVal": 2.0, "EmoDom": 5.0, "SpkrID": 3,
            "Gender": "Female", "Split_Set": "Validation",
        }
    }))  # fmt: skip
    of_json = CORPORA["msp_podcast"](tmp_path)
    table = f"{HEADER}MSP-PODCAST_0002_0033_0001.wav,A,5.5,2.0,5.0,3,Female,Validation\n"
    write(tmp_path, "Labels/labels_consensus.csv", table)
    assert CORPORA["msp_podcast"](tmp_path) == of_json
    assert of_json[0].labels.category == "angry"
    assert of_json[0].split == "dev"


def test_biic_podcast(tmp_path: Path) -> None:
    plant(tmp_path, "Audios/BIIC-PODCAST_0001_0001.wav")
    line = "BIIC-PODCAST_0001_0001.wav,S,2.5,3,4,8,Female,Test\n"
    write(tmp_path, "Labels/labels_consensus.csv", HEADER + line)
    assert CORPORA["biic_podcast"](tmp_path) == [
        Utterance(
            key="biic_podcast-BIIC-PODCAST_0001_0001",
            media="Audios/BIIC-PODCAST_0001_0001.wav",
            language="zh",
            streams=("audio",),
            speaker="biic_podcast-8",
            split="test",
            licence="research, by agreement with the authors",
            labels=Labels(category="sad", scores={"arousal": 2.5, "valence": 3, "dominance": 4}),
        )
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("Q,4,4,4,1,Male,Train", "EmoClass 'Q': one of N H S A F D U C O X"),
        ("N,8,4,4,1,Male,Train", "EmoAct '8': 1 to 7"),
        ("N,4,nan,4,1,Male,Train", "EmoVal 'nan': 1 to 7"),
        ("N,4,4,high,1,Male,Train", "EmoDom 'high': 1 to 7"),
        ("N,4,4,4,1,Male,Testing", "Split_Set 'Testing': one of Train, Development"),
    ],
)
def test_msp_podcast_labels_of_another_kind_are_refused(
    tmp_path: Path, line: str, error: str
) -> None:
    plant(tmp_path, "Audios/a.wav")
    write(tmp_path, "Labels/labels_consensus.csv", f"{HEADER}a.wav,{line}\n")
    with pytest.raises(DataError, match=f"labels_consensus.csv:2: {error}"):
        CORPORA["msp_podcast"](tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", '{"a.wav": []}', '{"a.wav": {"EmoClass": "N"}}'])
def test_msp_podcast_json_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "Audios/a.wav")
    write(tmp_path, "Labels/labels_consensus.json", text)
    with pytest.raises(DataError, match=r"must be a JSON object|lacks EmoAct"):
        CORPORA["msp_podcast"](tmp_path)


def test_ravdess_faces(tmp_path: Path) -> None:
    names = ["01-01-05-01-02-01-07", "01-01-01-01-01-02-20"]
    units = np.arange(70, dtype=np.float32).reshape(2, 35)
    np.savez(tmp_path / "au.npz", ids=np.array(names), action_units=units)
    rows = CONVERTERS["ravdess_faces"](tmp_path, tmp_path / "out")
    assert rows[0] == Utterance(
        key="ravdess-01-01-05-01-02-01-07",
        media="features/all.safetensors#0",
        transcript="Dogs are sitting by the door.",
        language="en",
        streams=("video", "text"),
        speaker="ravdess-07",
        licence="CC BY-NC-SA 4.0",
        labels=Labels(category="angry"),
    )
    video = load_example(rows[1], tmp_path / "out").features["video"]
    np.testing.assert_array_equal(video, units[1:])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": np.array(["a"]), "action_units": np.zeros((1, 35))}, "not the name of a RAVDESS"),
        (
            {"ids": np.array(["a"]), "action_units": np.zeros((1, 34))},
            r"\(1,\) and \(1, 34\)",
        ),
        ({"ids": np.array(["a"])}, "needs an .npz with ids and action_units"),
        ({"ids": np.array(["a"]), "action_units": np.full((1, 35), np.nan)}, "finite"),
    ],
)
def test_ravdess_faces_faults(
    tmp_path: Path, arrays: dict[str, NDArray[Any]], message: str
) -> None:
    np.savez(tmp_path / "au.npz", **arrays)
    with pytest.raises(DataError, match=message):
        CONVERTERS["ravdess_faces"](tmp_path / "au.npz", tmp_path / "out")
