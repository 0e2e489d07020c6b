"""Readers of corpora for pre-training, on tiny trees in the published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmembed.data.corpora import CORPORA
from mmembed.data.corpora.files import find_files
from mmembed.data.corpora.lrs import LrsWord, split_words
from mmembed.data.corpora.tables import read_table
from mmembed.data.folders import walk
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

LogCapture = pytest.LogCaptureFixture


def plant(root: Path, *names: str) -> Path:
    """Empty files: readers look at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def read(corpus: str, root: Path) -> dict[str, Utterance]:
    return {row.key: row for row in CORPORA[corpus](root)}


# ---------------------------------------------------------------------------------------- walking


def test_walk_sorts_as_paths_do(tmp_path: Path) -> None:
    plant(tmp_path, "b/1.wav", "a/2.wav", "a.wav", "a/b/3.wav", "a-b/4.wav", "B.wav", "a/\u00e4")
    assert list(walk(tmp_path)) == [
        path.relative_to(tmp_path).as_posix()
        for path in sorted(tmp_path.rglob("*"))
        if path.is_file()
    ]


def test_walk_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    plant(tmp_path, "disk/mp4/1.mp4", "corpus/2.mp4")
    (tmp_path / "corpus/mp4").symlink_to(tmp_path / "disk/mp4")
    (tmp_path / "disk/mp4/back").symlink_to(tmp_path / "corpus")
    (tmp_path / "corpus/gone.mp4").symlink_to(tmp_path / "nowhere")
    assert list(walk(tmp_path / "corpus")) == ["2.mp4", "gone.mp4", "mp4/1.mp4"]


def test_a_pattern_may_name_folders_above_the_root(tmp_path: Path) -> None:
    plant(tmp_path, "id00012/video/00001.mp4", "id00012/00002.mp4")
    pattern = r"(?P<speaker>id\d{5})/\w+/(?P<clip>\d{5})\.mp4"
    for root, path in ((tmp_path, "id00012/video/"), (tmp_path / "id00012/video", "")):
        [(found, match)] = find_files(root, pattern, "X", "x")
        assert found == Path(f"{path}00001.mp4")
        assert match.groupdict() == {"speaker": "id00012", "clip": "00001"}


@pytest.mark.parametrize("mark", ["\t", ";", ","])
def test_tables_of_three_kinds(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "table"
    words = '"x y' if mark == "\t" else f'"x{mark}y"'  # tabs do not quote
    path.write_text(f"\ufeffname {mark} words\n\na{mark}{words}\nb{mark} \n", encoding="utf-8")
    assert list(read_table(path, ("name",))) == [
        (3, {"name": "a", "words": words if mark == "\t" else f"x{mark}y"}),
        (4, {"name": "b", "words": ""}),
    ]
    with pytest.raises(DataError, match="has no column speaker, only name, words"):
        list(read_table(path, ("name", "speaker")))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"a,b\n1,2,3\n", "t:2: has 3 cells, the first line names 2 columns; quote"),
        (b"a\n\xff\n", "is not text in UTF-8"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: bytes, error: str) -> None:
    (tmp_path / "t").write_bytes(text)
    with pytest.raises(DataError, match=error):
        list(read_table(tmp_path / "t"))


# -------------------------------------------------------------------------------------- VoxCeleb2

VIDEO = "21Uxsk56VDQ"  # its crc32 leaves 16 when divided by 50: for training


def test_voxceleb2(tmp_path: Path, caplog: LogCapture) -> None:
    plant(tmp_path, f"dev/mp4/id00012/{VIDEO}/00001.mp4", f"dev/aac/id00012/{VIDEO}/00001.m4a")
    plant(tmp_path, f"dev/aac/id00012/{VIDEO}/00002.m4a", "test/mp4/id00017/01dfn2spqyE/00001.mp4")
    write(
        tmp_path,
        "transcripts.tsv",
        f"id00012/{VIDEO}/00001\tWELL HELLO \nmp4/id00017/01dfn2spqyE/00001.mp4\tYES\n"
        f"id00012/{VIDEO}/00009\tGONE\n",
    )
    rows = read("voxceleb2", tmp_path)
    assert list(rows.values()) == [
        Utterance(
            key=f"voxceleb2-id00012-{VIDEO}-00001",
            media=f"dev/mp4/id00012/{VIDEO}/00001.mp4",
            transcript="WELL HELLO",
            streams=("audio", "video", "text"),
            speaker="voxceleb2-id00012",
            split="train",
            licence="CC BY 4.0, media belong to their owners",
        ),
        Utterance(
            key=f"voxceleb2-id00012-{VIDEO}-00002",
            media=f"dev/aac/id00012/{VIDEO}/00002.m4a",
            streams=("audio",),
            speaker="voxceleb2-id00012",
            split="train",
            licence="CC BY 4.0, media belong to their owners",
        ),
        Utterance(
            key="voxceleb2-id00017-01dfn2spqyE-00001",
            media="test/mp4/id00017/01dfn2spqyE/00001.mp4",
            transcript="YES",
            streams=("audio", "video", "text"),
            speaker="voxceleb2-id00017",
            split="test",
            licence="CC BY 4.0, media belong to their owners",
        ),
    ]
    assert f"clips have no transcripts.tsv line (1, such as 'voxceleb2-id00012-{VIDEO}-00002')" in (
        caplog.text
    )
    assert f"lines of transcripts.tsv have no clip (1, such as 'id00012/{VIDEO}/00009')" in (
        caplog.text
    )


def test_voxceleb2_videos_are_never_torn_between_splits(tmp_path: Path) -> None:
    names = [f"dev/mp4/id00012/v{n}/0000{c}.mp4" for n in range(300) for c in (1, 2)]
    rows = CORPORA["voxceleb2"](plant(tmp_path, *names))
    splits: dict[str, set[str | None]] = {}
    for row in rows:
        splits.setdefault(row.key.split("-")[2], set()).add(row.split)
    assert all(len(found) == 1 for found in splits.values())
    counts = {
        name: sum(found == {name} for found in splits.values()) for name in ("dev", "heldout")
    }
    assert 1 <= counts["dev"] <= 15 and 1 <= counts["heldout"] <= 15  # 6 of 300 expected
    assert sum(counts.values()) + sum(found == {"train"} for found in splits.values()) == 300


def test_voxceleb2_sets_out_of_the_speakers_table(tmp_path: Path) -> None:
    plant(tmp_path, "mp4/id00017/01dfn2spqyE/00001.mp4")
    with pytest.raises(DataError, match=r"00001\.mp4: neither a folder dev or test nor vox2_meta"):
        read("voxceleb2", tmp_path)
    meta = "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00017 ,n000017 ,m ,test\n"
    write(tmp_path, "vox2_meta.csv", meta)
    assert [row.split for row in CORPORA["voxceleb2"](tmp_path)] == ["test"]
    write(tmp_path, "transcripts.tsv", "id00017/01dfn2spqyE/00001\tYES\nid00017 NO\n")
    with pytest.raises(DataError, match=r"transcripts\.tsv:2: has 1 cells, a line has 2"):
        read("voxceleb2", tmp_path)
    write(tmp_path, "transcripts.tsv", "id00017/00001\tYES\n")
    with pytest.raises(DataError, match=r"transcripts\.tsv:1: must begin with the path of a clip"):
        CORPORA["voxceleb2"](tmp_path)
    (tmp_path / "transcripts.tsv").write_bytes(b"id00017/01dfn2spqyE/00001\tY\xffS\n")
    with pytest.raises(DataError, match=r"transcripts\.tsv:1: .* in UTF-8"):
        read("voxceleb2", tmp_path)


# ------------------------------------------------------------------------------------ LRS2, LRS3


def lrs_text(*words: tuple[str, float, float], between: str = "") -> str:
    table = "".join(f"{word} {start:.2f} {end:.2f} 7.5\n" for word, start, end in words)
    text = " ".join(word for word, _, _ in words)
    return f"Text:  {text}\nConf:  4\n{between}\nWORD START END ASDSCORE\n{table}"


def test_lrs2(tmp_path: Path, caplog: LogCapture) -> None:
    base = "mvlrs_v1/main"
    clips = [f"{n}/0000{n}" for n in (1, 2, 3, 4)]
    plant(tmp_path, *(f"{base}/{clip}.mp4" for clip in clips))
    for clip in clips[:3]:
        write(tmp_path, f"{base}/{clip}.txt", f"Text:  SAY IT'S {clip[0]}\nConf:  5\n")
    write(tmp_path, "train.txt", f"{clips[0]}\n")
    write(tmp_path, "val.txt", f"{clips[1]}\n9/00009\n")
    write(tmp_path, "test.txt", f"{clips[2]} NF\n")
    plant(tmp_path, "mvlrs_v1/pretrain/1/00001.mp4")
    write(tmp_path, "mvlrs_v1/pretrain/1/00001.txt", lrs_text(("A", 0.1, 0.2), ("CAT", 0.3, 0.5)))
    rows = read("lrs2", tmp_path)
    assert rows["lrs2-main-3-00003"] == Utterance(
        key="lrs2-main-3-00003",
        media="mvlrs_v1/main/3/00003.mp4",
        transcript="SAY IT'S 3",
        language="en",
        streams=("audio", "video", "text"),
        split="test",
        licence="research, by agreement with the BBC",
    )
    assert {key: (row.split, row.transcript) for key, row in rows.items()} == {
        "lrs2-main-1-00001": ("train", "SAY IT'S 1"),
        "lrs2-main-2-00002": ("dev", "SAY IT'S 2"),
        "lrs2-main-3-00003": ("test", "SAY IT'S 3"),
        "lrs2-main-4-00004": (None, None),
        "lrs2-pretrain-1-00001": ("train", "A CAT"),
    }
    assert rows["lrs2-main-4-00004"].streams == ("audio", "video")
    for message in (
        "have no text beside them (1, such as 'mvlrs_v1/main/4/00004.mp4')",
        "none of train.txt, val.txt and test.txt (1, such as 'lrs2-main-4-00004')",
        "clips of these lists have no file (1, such as '9/00009')",
    ):
        assert message in caplog.text


def test_lrs3(tmp_path: Path) -> None:
    boxes = "Ref:  0af00UcTOSc\n\nFRAME \tX \tY \tW \tH \n000000 \t0.3 \t0.1 \t0.2 \t0.4 \n"
    for part, video, clip in (
        ("trainval", "0af00UcTOSc", "50001"),
        ("test", "0Fi83BHQsMA", "00002"),
        ("pretrain", "0af00UcTOSc", "00001"),
    ):
        plant(tmp_path, f"{part}/{video}/{clip}.mp4")
        text = lrs_text(("SO", 0.5, 0.75), ("LONG", 14.0, 14.5), between=boxes)
        write(tmp_path, f"{part}/{video}/{clip}.txt", text)
    assert [(row.key, row.split) for row in CORPORA["lrs3"](tmp_path)] == [
        ("lrs3-pretrain-0af00UcTOSc-00001", "train"),
        ("lrs3-test-0Fi83BHQsMA-00002", "test"),
        ("lrs3-trainval-0af00UcTOSc-50001", "train"),
    ]
    assert CORPORA["lrs3"](tmp_path)[1] == Utterance(
        key="lrs3-test-0Fi83BHQsMA-00002",
        media="test/0Fi83BHQsMA/00002.mp4",
        transcript="SO LONG",
        language="en",
        streams=("audio", "video", "text"),
        split="test",
        licence="CC BY-NC-ND 4.0",
    )


def test_lrs3_talks_are_never_torn_between_splits(tmp_path: Path) -> None:
    talks = [f"talk{n:07d}" for n in range(400)]
    for part in ("pretrain", "trainval"):
        plant(tmp_path, *(f"{part}/{talk}/00001.mp4" for talk in talks))
    rows = CORPORA["lrs3"](tmp_path)
    splits = [row.split for row in rows]
    assert splits[:400] == splits[400:]
    assert 3 <= splits[:400].count("dev") <= 25  # 10 of 400 expected
    assert splits[:400].count("train") == 400 - splits[:400].count("dev")


def test_long_clips_are_cut_in_the_widest_pause(tmp_path: Path) -> None:
    plant(tmp_path, "pretrain/0af00UcTOSc/00001.mp4")
    spoken = (("ONE", 0.0, 2.0), ("TWO", 4.0, 8.0), ("THREE", 9.0, 12.0), ("FOUR", 17.5, 18.0))
    write(tmp_path, "pretrain/0af00UcTOSc/00001.txt", lrs_text(*spoken))
    # The widest pause of all, 12.0 to 17.5, ends outside of the middle half, 4.5 to 13.5.
    first, second = CORPORA["lrs3"](tmp_path)
    assert (first.key[-2:], first.transcript, first.start, first.end) == ("-1", "ONE TWO", 0, 8.5)
    assert (second.key[-2:], second.transcript) == ("-2", "THREE FOUR")
    assert (second.start, second.end) == (8.5, None)
    assert first.media == second.media == "pretrain/0af00UcTOSc/00001.mp4"


def test_parts_keep_all_words_in_order() -> None:
    words = [LrsWord(str(n), n * 0.4, n * 0.4 + 0.3) for n in range(1000)]
    cut = split_words(words)
    assert [word for piece in cut for word in piece] == words
    seconds = [piece[-1].end - piece[0].start for piece in cut]
    assert max(seconds) <= 15 and min(seconds) > 3
    one = [LrsWord("AAAH", 0.0, 40.0)]
    assert split_words(one) == [one]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("HELLO\n", r"00002\.txt:1: must start with 'Text:  '"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA 0.1\n", r"00002\.txt:4: must be WORD START END"),
        ("Text:  A\n\nWORD START END ASDSCORE\nA x 1 2\n", r"00002\.txt:4: must be WORD START"),
    ],
)
def test_texts_of_another_form_are_refused(tmp_path: Path, text: str, error: str) -> None:
    plant(tmp_path, "test/0Fi83BHQsMA/00002.mp4")
    write(tmp_path, "test/0Fi83BHQsMA/00002.txt", text)
    with pytest.raises(DataError, match=error):
        read("lrs3", tmp_path)


# ------------------------------------------------------------------------------ LibriSpeech, VCTK


def test_librispeech(tmp_path: Path, caplog: LogCapture) -> None:
    folder = "LibriSpeech/dev-clean/84/121123"
    plant(tmp_path, f"{folder}/84-121123-0000.flac", f"{folder}/84-121123-0001.flac")
    lines = "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT\n84-121123-0002 NOBODY\n"
    write(tmp_path, f"{folder}/84-121123.trans.txt", lines)
    for subset, speaker in (("train-other-500", 20), ("test-other", 367)):
        folder = f"LibriSpeech/{subset}/{speaker}/1"
        plant(tmp_path, f"{folder}/{speaker}-1-0000.flac")
        write(tmp_path, f"{folder}/{speaker}-1.trans.txt", f"{speaker}-1-0000 AND SO\n")
    rows = read("librispeech", tmp_path)
    assert rows["librispeech-84-121123-0000"] == Utterance(
        key="librispeech-84-121123-0000",
        media="LibriSpeech/dev-clean/84/121123/84-121123-0000.flac",
        transcript="GO DO YOU HEAR",
        language="en",
        streams=("audio", "text"),
        speaker="librispeech-84",
        split="dev",
        licence="CC BY 4.0",
    )
    assert [row.split for row in rows.values()] == ["dev", "dev", "test", "train"]
    assert "have no audio file (1, such as '84-121123-0002')" in caplog.text
    plant(tmp_path, "LibriSpeech/dev-clean/84/121123/84-121123-0003.flac")
    with pytest.raises(DataError, match=r"84-121123\.trans\.txt has no line of 84-121123-0003"):
        read("librispeech", tmp_path)


def test_librispeech_subsets_out_of_the_speakers_list(tmp_path: Path) -> None:
    plant(tmp_path, "84/121123/84-121123-0000.flac")
    write(tmp_path, "84/121123/84-121123.trans.txt", "84-121123-0000 GO\n")
    with pytest.raises(DataError, match="no folder such as train-clean-100, no SPEAKERS"):
        read("librispeech", tmp_path)
    listed = "; ID | SEX | SUBSET\n84   | F | dev-clean        |  8.02 | Christie Nowak\n"
    write(tmp_path, "SPEAKERS.TXT", listed)
    assert [row.split for row in CORPORA["librispeech"](tmp_path)] == ["dev"]


@pytest.mark.parametrize(
    ("sounds", "end"), [("wav48", ".wav"), ("wav48_silence_trimmed", "_mic1.flac")]
)
def test_vctk(tmp_path: Path, caplog: LogCapture, sounds: str, end: str) -> None:
    plant(tmp_path, f"{sounds}/p225/p225_001{end}", f"{sounds}/p315/p315_001{end}")
    write(tmp_path, "txt/p225/p225_001.txt", "Please call Stella.\n")
    plant(tmp_path, "speaker-info.txt")
    rows = read("vctk", tmp_path)
    assert list(rows.values()) == [
        Utterance(
            key="vctk-p225_001",
            media=f"{sounds}/p225/p225_001{end}",
            transcript="Please call Stella.",
            language="en",
            streams=("audio", "text"),
            speaker="vctk-p225",
            split="train",
            licence="CC BY 4.0 (0.92), ODC-By 1.0 (0.80)",
        ),
        Utterance(
            key="vctk-p315_001",
            media=f"{sounds}/p315/p315_001{end}",
            language="en",
            streams=("audio",),
            speaker="vctk-p315",
            licence="CC BY 4.0 (0.92), ODC-By 1.0 (0.80)",
        ),
    ]
    assert "utterances have no text (1, such as 'vctk-p315_001')" in caplog.text


def test_vctk_microphones_and_shared_sentences(tmp_path: Path) -> None:
    sentences = [f"Sentence number {n}." for n in range(200)]
    for speaker in ("p225", "s5"):
        for number, sentence in enumerate(sentences):
            stem = f"{speaker}/{speaker}_{number:03d}"
            plant(tmp_path, *(f"wav48_silence_trimmed/{stem}_mic{m}.flac" for m in (1, 2)))
            text = sentence if speaker == "p225" else f"  {sentence.upper()[:-1]}!\n"
            write(tmp_path, f"txt/{stem}.txt", text)
    (tmp_path / "wav48_silence_trimmed/s5/s5_000_mic1.flac").unlink()
    rows = CORPORA["vctk"](tmp_path)
    assert len(rows) == 400
    assert [r.media for r in rows if r.media and "mic2" in r.media] == [
        "wav48_silence_trimmed/s5/s5_000_mic2.flac"
    ]
    splits = [row.split for row in rows]
    assert splits[:200] == splits[200:]
    assert 1 <= splits[:200].count("dev") <= 25 and 1 <= splits[:200].count("heldout") <= 25
