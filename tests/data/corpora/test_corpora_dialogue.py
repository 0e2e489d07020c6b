"""Conversations, on tiny trees in the published layouts and on pickles as they circulate."""

from __future__ import annotations

import pickle
import pickletools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.loading import load_example
from safetensors.numpy import load_file

from mmembed.data.corpora import CORPORA
from mmembed.data.corpora.dialogue_pickles import convert
from mmembed.data.feature_files import read_features
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

IEMOCAP_LICENCE = "research only, by licence agreement with SAIL of USC"
MELD_LICENCE = "GPL-3.0 (annotations); the clips are the series' owners'"

EVALUATION = """\
% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[10.0100 - 11.3925]\tSes01F_impro01_F001\txxx\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
A-E3:\tval 3; act 2; dom  2;\t()

[6.2901 - 8.2357]\tSes01F_impro01_M000\tfru\t[2.0000, 3.5000, 4.0000]
C-F1:\tFrustration; Anger;\t(curious)
"""
TRANSCRIPTION = """\
Ses01F_impro01_M000 [006.2901-008.2357]: Excuse me. [LAUGHTER]
Ses01F_impro01_FXX0 [008.2357-009.0000]: Mm.
Ses01F_impro01_F001 [010.0100-011.3925]: Yeah.
"""


def write(path: Path, text: str | bytes = b"") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def plant_iemocap(root: Path) -> None:
    dialog, wav = root / "Session1/dialog", root / "Session1/sentences/wav/Ses01F_impro01"
    write(dialog / "EmoEvaluation/Ses01F_impro01.txt", EVALUATION)
    write(dialog / "EmoEvaluation/._Ses01F_impro01.txt", b"\x00\xff")
    write(dialog / "EmoEvaluation/Categorical/Ses01F_impro01_e1_cat.txt", "nothing of use")
    write(dialog / "MOCAP_head/Ses01F_impro01.txt", EVALUATION.replace("fru", "bad"))
    write(dialog / "transcriptions/Ses01F_impro01.txt", TRANSCRIPTION)
    write(dialog / "wav/Ses01F_impro01.wav")
    for turn in ("M000", "F001"):
        write(wav / f"Ses01F_impro01_{turn}.wav")


def test_iemocap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant_iemocap(tmp_path)
    later = EVALUATION.replace("Ses01F", "Ses05M").replace("impro01", "script01_1b")
    write(tmp_path / "Session5/dialog/EmoEvaluation/Ses05M_script01_1b.txt", later)
    rows = CORPORA["iemocap"](tmp_path)
    folder = "Session1/sentences/wav/Ses01F_impro01"
    assert rows[:2] == [
        Utterance(
            key="iemocap-Ses01F_impro01_M000",
            media=f"{folder}/Ses01F_impro01_M000.wav",
            transcript="Excuse me. [LAUGHTER]",
            language="en",
            speaker="iemocap-01M",
            dialogue="iemocap-Ses01F_impro01",
            turn=0,  # by time, not by place in the file
            split="train",
            licence=IEMOCAP_LICENCE,
            labels=Labels(
                category="frustrated", scores={"valence": 2.0, "arousal": 3.5, "dominance": 4.0}
            ),
        ),
        Utterance(
            key="iemocap-Ses01F_impro01_F001",
            media=f"{folder}/Ses01F_impro01_F001.wav",
            transcript="Yeah.",
            language="en",
            speaker="iemocap-01F",
            dialogue="iemocap-Ses01F_impro01",
            turn=1,
            split="train",
            licence=IEMOCAP_LICENCE,
            labels=Labels(category=None, scores={"valence": 2.5, "arousal": 2.5, "dominance": 2.5}),
        ),
    ]
    last = rows[3]
    assert (last.dialogue, last.speaker) == ("iemocap-Ses05M_script01_1b", "iemocap-05F")
    assert (last.split, last.media, last.transcript) == ("test", None, None)
    assert "turns have no audio file: words alone (2, such as" in caplog.text


def test_iemocap_faults(tmp_path: Path) -> None:
    path = tmp_path / "dialog/EmoEvaluation/Ses04F_impro01.txt"
    write(path, EVALUATION.replace("Ses01", "Ses04").replace("fru", "bor"))
    with pytest.raises(DataError, match="Ses04F_impro01_M000: emotion 'bor' is none of ang, dis"):
        CORPORA["iemocap"](tmp_path)
    write(path, "Ses04F_impro01_M000 :act 3;")
    with pytest.raises(DataError, match="holds no label file of IEMOCAP"):
        CORPORA["iemocap"](tmp_path)


HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    "StartTime,EndTime\r\n"
)
TIMES = '3,19,"00:14:38,127","00:14:40,378"\r\n'


def plant_meld(root: Path) -> None:
    train = (
        HEADER
        + f'1,"Oh, you\x92ve\xa0had it.",Chandler,neutral,neutral,125,2,{TIMES}'
        + f"2,Y\x92know?,The Interviewer,surprise,positive,125,3,{TIMES}"
        + f"3,What?,Chandler,anger,negative,125,10,{TIMES}"
    )
    write(root / "train_sent_emo.csv", train)  # UTF-8 of characters that were Windows-1252 bytes
    dev = HEADER + f"1,I\x92m back.,Ross,joy,positive,110,7,{TIMES}"
    write(root / "dev_sent_emo.csv", dev.encode("latin-1"))  # those bytes as they were
    test = HEADER + f"1,A,Ross,fear,negative,0,0,{TIMES}2,B,Ross,fear,negative,0,1,{TIMES}"
    write(root / "test_sent_emo.csv", test)
    for clip in (
        "train/train_splits/dia125_utt2.mp4",
        "train/train_splits/dia125_utt2.wav",
        "train/train_splits/dia125_utt3.mp4",
        "train/train_splits/._dia125_utt10.mp4",
        "dev/dev_splits_complete/dia110_utt8.mp4",
        "dev/dev_splits_complete/dia125_utt10.mp4",
        "test/output_repeated_splits_test/dia0_utt0.mp4",
        "test/output_repeated_splits_test/final_videos_testdia0_utt0.mp4",
        "test/output_repeated_splits_test/final_videos_testdia0_utt1.mp4",
    ):
        write(root / clip)


def test_meld_with_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant_meld(tmp_path)
    rows = CORPORA["meld"](tmp_path)
    assert rows[:2] == [
        Utterance(
            key="meld-train-dia125_utt2",
            media="train/train_splits/dia125_utt2.mp4",
            transcript="Oh, you\N{RIGHT SINGLE QUOTATION MARK}ve\xa0had it.",
            language="en",
            speaker="meld-Chandler",
            dialogue="meld-train-dia125",
            turn=0,
            split="train",
            licence=MELD_LICENCE,
            labels=Labels(category="neutral", scores={"sentiment_class": 0.0}),
        ),
        Utterance(
            key="meld-train-dia125_utt3",
            media="train/train_splits/dia125_utt3.mp4",
            transcript="Y\N{RIGHT SINGLE QUOTATION MARK}know?",
            language="en",
            speaker="meld-The Interviewer",
            dialogue="meld-train-dia125",
            turn=1,
            split="train",
            licence=MELD_LICENCE,
            labels=Labels(category="surprise", scores={"sentiment_class": 1.0}),
        ),
    ]
    assert [(row.key, row.turn, row.media) for row in rows[2:]] == [
        ("meld-train-dia125_utt10", 2, None),  # another split's clip of this number is not its own
        ("meld-dev-dia110_utt7", 0, None),
        ("meld-test-dia0_utt0", 0, "test/output_repeated_splits_test/dia0_utt0.mp4"),
        (
            "meld-test-dia0_utt1",
            1,
            "test/output_repeated_splits_test/final_videos_testdia0_utt1.mp4",
        ),
    ]
    assert rows[3].transcript == "I\N{RIGHT SINGLE QUOTATION MARK}m back."
    notes = caplog.text
    assert "turns of train have no clip: words alone (1, such as 'meld-train-dia125" in notes
    assert "turns of dev have no clip: words alone (1, such as 'meld-dev-dia110_utt7')" in notes


def test_meld_as_text_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plant_meld(tmp_path / "all")
    text = tmp_path / "text"
    for split in ("train", "dev", "test"):
        for copy in (text, text / "copy"):
            write(
                copy / f"{split}_sent_emo.csv",
                (tmp_path / f"all/{split}_sent_emo.csv").read_bytes(),
            )
    rows = CORPORA["meld"](text)
    assert len(rows) == 6 and {row.media for row in rows} == {None}
    assert caplog.text == ""
    write(text / "copy/dev_sent_emo.csv", HEADER)
    with pytest.raises(DataError, match=r"dev_sent_emo.csv: differs from .*/copy/.*; remove one"):
        CORPORA["meld"](text)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"1,A,Ross,bored,negative,0,0,{TIMES}", "csv:2: Emotion 'bored', Sentiment 'negative'"),
        (f"1,A,Ross,fear,negative,x,0,{TIMES}", "Dialogue_ID 'x'.*ids whole numbers"),
        ("1,A,Ross\r\n", "csv:2: has 3 cells, the first line names 11 columns"),
    ],
)
def test_meld_rows_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path / "dev_sent_emo.csv", HEADER + line)
    with pytest.raises(DataError, match=message):
        CORPORA["meld"](tmp_path)


def vectors(dialogues: dict[Any, int], width: int, seed: int) -> dict[Any, list[list[float]]]:
    generator = np.random.default_rng(seed)
    return {d: generator.integers(-9, 9, (n, width)).tolist() for d, n in dialogues.items()}


IEMOCAP_TURNS = {f"Ses0{s}F_impro0{i}": 2 for s in (1, 2) for i in range(1, 6)} | {
    "Ses05M_script01_1": 1
}
MELD_TURNS = {0: 2, 1039: 1, 1153: 1}


def sdt_iemocap() -> list[Any]:
    turns = IEMOCAP_TURNS
    return [
        {d: [f"{d}_{'FM'[i]}00{i}" for i in range(n)] for d, n in turns.items()},
        {d: ["F", "M"][:n] for d, n in turns.items()},
        {d: [3, 5][:n] for d, n in turns.items()},
        *(vectors(turns, 3, seed) for seed in range(4)),
        vectors(turns, 4, 4),
        vectors(turns, 2, 5),
        {d: ["I\x92m here.", "So?"][:n] for d, n in turns.items()},
        [d for d in reversed(turns) if not d.startswith("Ses05")],
        ["Ses05M_script01_1"],
    ]


def sdt_meld() -> list[Any]:
    turns = MELD_TURNS
    labels = {0: [4, 1], 1039: [0], 1153: [6]}
    return [
        {0: [0, 3], 1039: ["2"], 1153: [1]},
        {d: np.eye(9)[[8, 1][:n]].tolist() for d, n in turns.items()},
        labels,
        *(vectors(turns, 3, seed) for seed in range(4)),
        vectors(turns, 4, 4),
        vectors(turns, 2, 5),
        {d: ["A", "B"][:n] for d, n in turns.items()},
        [0, 1039],
        [1153],
        {0: [1, 2], 1039: [0], 1153: [2]},
    ]


def python2_pickle(value: object) -> bytes:
    """Protocol 2 with the strings of Python 2: bytes, of which nobody says the encoding."""
    data, parts = pickle.dumps(value, protocol=2), []
    operations = list(pickletools.genops(data))
    ends = [place for _, _, place in operations[1:]] + [len(data)]
    for (operation, argument, start), end in zip(operations, ends, strict=True):
        if operation.name == "BINUNICODE":
            text = str(argument).encode("latin-1")
            parts.append(b"T" + struct.pack("<i", len(text)) + text)
        else:
            parts.append(data[start : end or 0])
    return b"".join(parts)


def converted(tmp_path: Path, parts: list[Any]) -> list[Utterance]:
    write(tmp_path / "features.pkl", python2_pickle(tuple(parts)))
    return convert(tmp_path / "features.pkl", tmp_path / "out")


def test_sdt_pickle_of_iemocap(tmp_path: Path) -> None:
    parts = sdt_iemocap()
    rows = converted(tmp_path, parts)
    assert len(rows) == 21
    by_key = {row.key: row for row in rows}
    assert by_key["iemocap-Ses01F_impro02_M001"] == Utterance(
        key="iemocap-Ses01F_impro02_M001",
        media="features/train.safetensors#1",
        transcript="So?",
        language="en",
        speaker="iemocap-01M",
        dialogue="iemocap-Ses01F_impro02",
        turn=1,
        split="train",
        licence=IEMOCAP_LICENCE,
        labels=Labels(category="frustrated"),
    )
    splits = {row.dialogue: row.split for row in rows}
    assert [d for d, split in splits.items() if split == "dev"] == ["iemocap-Ses01F_impro01"]
    assert [d for d, split in splits.items() if split == "test"] == ["iemocap-Ses05M_script01_1"]
    assert by_key["iemocap-Ses05M_script01_1_F000"].transcript == (
        "I\N{RIGHT SINGLE QUOTATION MARK}m here."
    )
    names = ("text", "text2", "text3", "text4", "audio", "video")
    for row in rows:
        assert row.media is not None and row.turn is not None and row.dialogue is not None
        file, place = row.media.split("#")
        found = read_features(tmp_path / "out" / file, int(place))
        assert set(found) == set(names)
        for name, part in zip(names, parts[3:9], strict=True):
            expected = part[row.dialogue.removeprefix("iemocap-")][row.turn]
            np.testing.assert_array_equal(found[name], np.float32([expected]))
    example = load_example(rows[0], tmp_path / "out")
    assert {name: x.shape for name, x in example.features.items()} == {
        "audio": (1, 4),
        "video": (1, 2),
        "text": (1, 3),
    }


def test_sdt_pickle_of_meld(tmp_path: Path) -> None:
    rows = converted(tmp_path, sdt_meld())
    assert rows[1] == Utterance(
        key="meld-train-dia0_utt3",
        media="features/train.safetensors#1",
        transcript="B",
        language="en",
        speaker="meld-train-dia0-speaker1",
        dialogue="meld-train-dia0",
        turn=1,
        split="train",
        licence=MELD_LICENCE,
        labels=Labels(category="surprise", scores={"sentiment_class": -1.0}),
    )
    assert [(row.key, row.labels.category, dict(row.labels.scores)) for row in rows] == [
        ("meld-train-dia0_utt0", "joy", {"sentiment_class": 1.0}),
        ("meld-train-dia0_utt3", "surprise", {"sentiment_class": -1.0}),
        ("meld-dev-dia0_utt2", "neutral", {"sentiment_class": 0.0}),
        ("meld-test-dia0_utt1", "anger", {"sentiment_class": -1.0}),
    ]


@pytest.mark.parametrize(
    "kept", [[0, 1, 2, 3, 7, 9, 10, 11, 12], [0, 1, 2, 3, 7, 8, 9, 10, 11, 12]]
)
def test_shorter_pickles_of_meld(tmp_path: Path, kept: list[int]) -> None:
    parts = sdt_meld()
    whole = converted(tmp_path / "whole", parts)
    assert converted(tmp_path / "part", [parts[i] for i in kept]) == whole
    held = load_file(tmp_path / "part/out/features/train.safetensors")
    expected = {"text", "audio"} | ({"video"} if 8 in kept else set())
    assert {name for name in held if not name.endswith(".offsets")} == expected


def test_pickles_of_cosmic(tmp_path: Path) -> None:
    parts = sdt_meld()
    order = [1, 2, 12, 3, 4, 5, 6, 9]
    rows = converted(tmp_path / "meld", [*(parts[i] for i in order), [0], [1153], [1039]])
    whole = converted(tmp_path / "whole", parts)
    assert [row.key for row in rows] == [
        "meld-train-dia0_turn0",
        "meld-train-dia0_turn1",
        "meld-dev-dia0_turn0",
        "meld-test-dia0_turn0",
    ]
    assert [row.labels for row in rows] == [row.labels for row in whole]
    parts = sdt_iemocap()
    train, dev = sorted(parts[10])[2:], sorted(parts[10])[:2]
    order = [1, 2, 3, 4, 5, 6, 9]
    rows = converted(tmp_path / "iemocap", [*(parts[i] for i in order), train, parts[11], dev])
    assert sum(row.split == "dev" for row in rows) == 4


def test_arrays_of_python_3_and_sets(tmp_path: Path) -> None:
    parts = sdt_iemocap()
    for part in parts[3:9]:
        for dialogue, values in part.items():
            part[dialogue] = [np.asarray(value, np.float64) for value in values]
    parts[9]["Ses01F_impro01"] = ["Caf\xc3\xa9", "Caf\xe9"]  # bytes of UTF-8 and of Latin-1
    parts[10] = set(parts[10])
    write(tmp_path / "features.pkl", pickle.dumps(tuple(parts), protocol=4))
    rows = convert(tmp_path / "features.pkl", tmp_path / "out")
    parts = sdt_iemocap()
    parts[9]["Ses01F_impro01"] = ["Caf\xe9", "Caf\xe9"]
    assert rows == converted(tmp_path / "plain", parts)


def test_a_fourth_part_that_is_no_sentiment_is_left_out(tmp_path: Path) -> None:
    parts = sdt_meld()
    parts[12] = {0: [0, 0], 1039: [0], 1153: [0]}
    assert {len(row.labels.scores) for row in converted(tmp_path, parts)} == {0}


def test_what_is_left_out_or_not_finite_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = sdt_iemocap()
    parts[7]["Ses02F_impro02"][1][0] = float("nan")
    parts[10].remove("Ses02F_impro01")
    assert len(converted(tmp_path, parts)) == 19
    notes = caplog.text
    assert "features.pkl: vectors are not finite (1, such as 'train#" in notes
    assert "dialogues are in no split and are left out (1, such as 'Ses02F_impro01')" in notes
    assert len(caplog.records) == 2


def broken(change: int, dialogue: Any, value: Any) -> list[Any]:
    parts = sdt_iemocap()
    parts[change][dialogue] = value
    return parts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (sdt_iemocap()[:8], r"holds 8 parts, no layout of .* \(9 to 13 parts\)"),
        (broken(2, "Ses02F_impro01", [1]), "dialogue Ses02F_impro01: 1 labels, but 2 "),
        (broken(2, "Ses02F_impro01", [1, 6]), "label 6 of turn 1 is none of"),
        (broken(1, "Ses02F_impro01", ["F", "X"]), "speaker 'X' is neither F nor M"),
        (broken(7, "Ses02F_impro01", [[1.0], [2.0, 3.0]]), "widths"),
        ([*sdt_iemocap()[:10], [0], [1153]], "dialogues of iemocap: 0 is none"),
        ([*sdt_meld()[:10], [0, 1153], [1153], {}], "1153 is in train and in test"),
        ([*sdt_meld()[:10], [0], [1039], {}], "dialogue 1039: its number is none of test"),
        ([*sdt_meld()[:10], [0, 7], [1153], {}], "dialogue 7: 7"),
    ],
)
def test_pickles_that_do_not_agree(tmp_path: Path, parts: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        converted(tmp_path, parts)
