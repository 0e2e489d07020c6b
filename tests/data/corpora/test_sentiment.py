"""Label files and folders of videos of CMU-MOSEI, CMU-MOSI and CH-SIMS."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmembed.commands.prepare import main
from mmembed.data.checks import Check, read_report
from mmembed.data.corpora import CONVERTERS
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import DataError

MMSA = "video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode\n"
SDK = (
    "id,segment_id,start,end,sentiment,happy,sad,anger,surprise,disgust,fear,sdk_split,other\n"
    "--qXJuDtHPw,0,23.199,30.325,1.0,0.6666667,0,0,0,0,0,valid,train\n"
    "-3g5yACwYnA,0,82.753,100.555,1.0,0.1,0.2,0.3,0.4,0.5,0.6,train,train\n"
    "-3g5yACwYnA,1,-0.4,5.299,0.6666667,0,0,0,0,0,0,train,train\n"
    "-3g5yACwYnA,2,4.84,14.052,,0,0,0,0,0,3.5,train,train\n"
    "-9YyBTjo1zo,0,5,5,-1.0,0,0,0,0,0,0,,\n"
    "-9YyBTjo1zo,1,5,6,-4,0,0,0,0,0,0,,\n"
    "-9YyBTjo1zo,1,6,7,2,0,0,0,0,0,0,,\n"
)


def convert(
    name: str, source: Path, out: Path | None = None
) -> tuple[dict[str, Utterance], dict[str, Check]]:
    out = out or source.parent / "out"
    rows = {row.key: row for row in CONVERTERS[name](source, out)}
    return rows, {check.what: check for check in read_report(out)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def plant(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_a_table_of_the_labels_of_the_sdk(tmp_path: Path) -> None:
    rows, checks = convert("mosei", write(tmp_path / "segments.csv", SDK))
    assert rows["mosei--3g5yACwYnA-0"] == Utterance(
        key="mosei--3g5yACwYnA-0",
        media=None,
        start=82.753,
        end=100.555,
        language="en",
        dialogue="mosei--3g5yACwYnA",
        split="train",
        licence="research only",
        labels=Labels(sentiment=1.0, emotions=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6)),
    )
    assert rows["mosei---qXJuDtHPw-0"].split == "dev"
    assert rows["mosei--3g5yACwYnA-1"].start == 0
    broken = rows["mosei--3g5yACwYnA-2"].labels
    assert (broken.sentiment, broken.emotions) == (None, None)
    kept = rows["mosei--9YyBTjo1zo-1"]
    assert (kept.split, kept.start, kept.labels.sentiment) == (None, 5, None)
    assert len(rows) == 5
    wrong = {what: check.items for what, check in checks.items() if check.items}
    assert wrong == {
        "duplicate ids": ("-9YyBTjo1zo[1]",),
        "sentiment outside [-3, 3]": ("-9YyBTjo1zo[1]",),
        "emotions outside [0, 3]": ("-3g5yACwYnA[2]",),
        "start before the video": ("-3g5yACwYnA[1]",),
        "end not after start": ("-9YyBTjo1zo[0]",),
    }
    assert checks["segments in train"].found == "3"
    assert checks["segments in no fold"].found == "1"
    assert checks["form"].found == "labels alone"


def test_columns_are_found_by_name_in_any_order(tmp_path: Path) -> None:
    text = (
        "fear,disgust,surprise,anger,sad,happy,sentiment,segment_id,id\n6e-1,.5,.4,.3,.2,.1,1,7,x\n"
    )
    rows, checks = convert("mosei", write(tmp_path / "a.csv", "\ufeff" + text))
    assert rows["mosei-x-7"].labels.emotions == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    assert rows["mosei-x-7"].split is None
    assert checks["splits other than the official folds"].ok


def test_the_folds_fill_in_where_a_table_has_none(tmp_path: Path) -> None:
    text = "id,segment_id,sentiment\n25522,0,1\n255224,0,1\n--qXJuDtHPw,0,1\n2552,0,1\n"
    rows, _ = convert("mosei", write(tmp_path / "a.csv", text))
    assert [row.split for row in rows.values()] == ["train", "train", "dev", None]


def test_labels_of_mmsa_and_of_sims(tmp_path: Path) -> None:
    text = (
        '03bSnISJMiM,1,"A LOT, REALLY",2.4,,,,Positive,train\n03bSnISJMiM,10,SAD,-0.8,,,,N,valid\n'
    )
    rows, checks = convert("mosi", write(tmp_path / "label.csv", MMSA + text))
    first, second = rows.values()
    assert first.key == "mosi-03bSnISJMiM-1" and first.transcript == "A LOT, REALLY"
    assert (first.labels.sentiment, first.labels.scores) == (2.4, {})
    assert (first.split, second.split) == ("train", "dev")
    assert checks["splits other than the official folds"].items == ("03bSnISJMiM[10]",)

    text = "video_0001,0001,\u6211\u4e0d\u77e5\u9053,0.4,0.2,-0.6,1.0,Positive,test\n"
    rows, checks = convert("sims", write(tmp_path / "label.csv", MMSA + text))
    (row,) = rows.values()
    assert row.key == "sims-video_0001-0001" and row.split == "test"
    assert row.labels.scores == {
        "sentiment_text": 0.2,
        "sentiment_audio": -0.6,
        "sentiment_video": 1.0,
    }
    assert checks["segments in test"].expected == "457"


def test_classes_of_s3prl_are_scores_not_sentiment(tmp_path: Path) -> None:
    text = ",file,index,start,end,label2a,label2b,label6,label7,split\n"
    text += "0,--qXJuDtHPw,0,23.199,30.325,1,1,0,2,1\n1,-9YyBTjo1zo,0,1,2,0,-1,0,-1,3\n"
    rows, _ = convert("mosei", write(tmp_path / "CMU_MOSEI_Labels.csv", text))
    first, second = rows.values()
    assert first.labels == Labels(scores={"sentiment_class": 2.0})
    assert (first.split, second.split) == ("dev", None)


def test_annotators_are_averaged(tmp_path: Path) -> None:
    names = "anger,disgust,fear,happiness,sadness,surprise,sentiment"
    head = "HITId,Input.VIDEO_ID,Input.CLIP," + ",".join(f"Answer.{n}" for n in names.split(","))
    write(tmp_path / "Labels/a.csv", f"{head}\n1,25522,3,3,0,0,1,0,0,2\n2,25522,3,0,0,0,1,0,0,-1\n")
    write(tmp_path / "Labels/b.csv", f"{head}\n3,25522,3,0,0,3,1,0,3,2\n4,255224,3,0,0,0,0,0,0,3\n")
    rows, _ = convert("mosei", tmp_path, tmp_path / "out")
    assert rows["mosei-25522-3"].labels == Labels(1.0, (1.0, 0.0, 1.0, 1.0, 0.0, 1.0))
    assert rows["mosei-255224-3"].labels.sentiment == 3


def test_labels_of_mosi_without_a_header(tmp_path: Path) -> None:
    text = "0.13,6.52,03bSnISJMiM,1,2.4\n6.52,9.1,03bSnISJMiM,2,-0.8\n"
    rows, _ = convert("mosi", write(tmp_path / "OpinionLevelSentiment.csv", text))
    row = rows["mosi-03bSnISJMiM-2"]
    assert (row.start, row.end, row.labels.sentiment, row.split) == (6.52, 9.1, -0.8, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video_id,label\na,1\n", "no column for clip; found video_id, label"),
        ("video_id,clip_id\na,1\n", "no column for sentiment; found video_id, clip_id"),
        (MMSA, "holds no labels"),
        (MMSA + "a,1,hi,good,,,,P,train\n", r"label.csv:2: sentiment is 'good', not a number"),
        (MMSA + "a,1,hi,1,,,,P,train\na,,hi,1,,,,P,train\n", "label.csv:3: a row without the id"),
        (MMSA + "a,1,hi,1,,,,P,heldout\n", "split 'heldout': one of train, 0, dev"),
        ("", "no column for clip and video; found nothing"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CONVERTERS["mosei"](write(tmp_path / "label.csv", text), tmp_path / "out")


def test_clips_in_folders_of_their_videos(tmp_path: Path) -> None:
    text = (
        "video_0001,0001,a,0.4,,,,P,test\nvideo_0001,2,b,0.4,,,,P,test\nvideo_0002,1,c,0,,,,P,test"
    )
    write(tmp_path / "label.csv", MMSA + text)
    plant(tmp_path, "Raw/video_0001/0001.mp4", "Raw/video_0001/0002.mp4", "Raw/video_0003/0001.mp4")
    plant(tmp_path, "Processed/audio/video_0001/0001.wav")
    rows, checks = convert("sims", tmp_path)
    assert [row.media for row in rows.values()] == [
        str(tmp_path / f"Raw/video_0001/000{n}.mp4") for n in (1, 2)
    ]
    assert rows["sims-video_0001-0001"].end is None
    assert checks["ids without media"].items == ("video_0002[1]",)
    assert checks["form"].found == "videos with labels"


def test_whole_videos_are_cut_by_the_times_of_the_labels(tmp_path: Path) -> None:
    plant(tmp_path, "Videos/Full/Combined/-3g5yACwYnA.mp4", "Videos/Full/Combined/25522.mp4")
    plant(tmp_path, "Audio/Full/WAV_16000/-3g5yACwYnA.wav")
    plant(tmp_path, "Videos/Segmented/Combined/-3g5yACwYnA_0.mp4")  # another segment than row 0
    write(tmp_path / "segments.csv", SDK)
    rows, checks = convert("mosei", tmp_path)
    assert set(rows) == {f"mosei--3g5yACwYnA-{n}" for n in range(3)}
    row = rows["mosei--3g5yACwYnA-0"]
    assert row.media == str(tmp_path / "Videos/Full/Combined/-3g5yACwYnA.mp4")
    assert (row.start, row.end) == (82.753, 100.555)
    assert len(checks["ids without media"].items) == 4
    assert "Videos/Full/Combined/25522.mp4" in checks["media without ids"].items


def test_transcripts_tell_which_clip_a_segment_is(tmp_path: Path) -> None:
    plant(tmp_path, *(f"Videos/Segmented/Combined/-3g5yACwYnA_{n}.mp4" for n in (0, 1, 13)))
    write(tmp_path / "Labels/segments.csv", SDK)
    rows, checks = convert("mosei", tmp_path)
    assert rows["mosei--3g5yACwYnA-0"].media.endswith("-3g5yACwYnA_0.mp4")
    assert checks["clips matched by number"].found.startswith("2: labels with times, but no")
    words = "-3g5yACwYnA___13___82.7532___100.555___Key is part of.\n"
    words += "-3g5yACwYnA___0___4.84___14.052___Hi, I am Paul.\nnot a line\n"
    write(tmp_path / "Transcript/Segmented/Combined/-3g5yACwYnA.txt", words)
    rows, checks = convert("mosei", tmp_path)
    assert len(rows) == 2  # row 1 is at no time of the transcript, so not the clip of that number
    first, third = rows["mosei--3g5yACwYnA-0"], rows["mosei--3g5yACwYnA-2"]
    assert first.media.endswith("-3g5yACwYnA_13.mp4") and first.transcript == "Key is part of."
    assert third.media.endswith("-3g5yACwYnA_0.mp4") and third.transcript == "Hi, I am Paul."
    assert (first.start, first.end) == (0, None)
    assert "clips matched by number" not in checks


def test_transcripts_of_mosi(tmp_path: Path) -> None:
    plant(tmp_path, "Video/Segmented/03bSnISJMiM_1.mp4", "Video/Segmented/03bSnISJMiM_2.mp4")
    write(tmp_path / "label.csv", "video_id,clip_id,label\n03bSnISJMiM,1,2\n03bSnISJMiM,2,-1\n")
    lines = "1_DELIM_A GREAT FILM\n2_AND SO ON\n"
    write(tmp_path / "Transcript/Segmented/03bSnISJMiM.annotprocessed", lines)
    rows, _ = convert("mosi", tmp_path)
    assert [row.transcript for row in rows.values()] == ["A GREAT FILM", "AND SO ON"]


def test_what_is_no_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder of CMU-MOSEI"):
        CONVERTERS["mosei"](tmp_path / "missing", tmp_path / "out")
    with pytest.raises(DataError, match=r"holds nothing known of CH-SIMS: videos with label\.csv"):
        CONVERTERS["sims"](tmp_path, tmp_path / "out")
    never = "id,segment_id,start,end,sentiment\n25522,0,5,5,1\n"
    with pytest.raises(
        DataError, match=r"not one segment of it can be used, see .*integrity\.json"
    ):
        CONVERTERS["mosei"](write(tmp_path / "other/a.csv", never), tmp_path / "out")
    (tmp_path / "other/a.csv").unlink()
    write(tmp_path / "a.csv", SDK)
    plant(tmp_path, "holiday.mp4")
    with pytest.raises(DataError, match="not one of 7 segments has a file, such as --qXJuDtHPw"):
        CONVERTERS["mosei"](tmp_path, tmp_path / "out")
    write(tmp_path / "b.csv", SDK)
    with pytest.raises(DataError, match=r"several label files, keep one: a\.csv, b\.csv"):
        CONVERTERS["mosei"](tmp_path, tmp_path / "out")


def test_the_command_cuts_and_prepares_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 4 * 16_000).astype(np.float32)
    soundfile.write(tmp_path / "03bSnISJMiM.wav", noise, 16_000)
    text = "id,segment_id,start,end,text,sentiment\n03bSnISJMiM,0,0.5,1.5,ONE,1\n"
    write(tmp_path / "labels.csv", text + "03bSnISJMiM,1,1.5,3.5,TWO,-2\nVj1wYRQjB-o,0,0,1,NO,1\n")
    out = tmp_path / "out"
    main(["mosi", str(tmp_path), "--out", str(out), "--workers", "1"])
    printed = capsys.readouterr().out
    assert "ok    form " in printed and "(expected 1284)" in printed
    assert "ids without media" in printed and "1, left out" in printed
    shards = ShardSet(out / "shards")
    assert shards.keys == ("mosi-03bSnISJMiM-0", "mosi-03bSnISJMiM-1")
    lengths = [shards.meta(n)["lengths"]["audio"] for n in range(2)]
    assert lengths == pytest.approx([16_000, 32_000], abs=320)  # samples
    assert shards.meta(1)["transcript"] == "TWO"
    assert json.loads((out / "integrity.json").read_text())[0]["what"] == "form"


def test_the_command_ends_well_with_labels_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write(tmp_path / "segments.csv", SDK), tmp_path / "out"
    main(["mosei", str(source), "--out", str(out)])
    assert "5 rows of labels alone, nothing to make shards of" in capsys.readouterr().out
    assert len((out / "manifest.jsonl").read_text().splitlines()) == 5
    assert not (out / "shards").exists()
