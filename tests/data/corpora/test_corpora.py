"""Corpus readers on tiny trees in the published layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmembed.data.corpora import CORPORA
from mmembed.data.corpora.grid import sentence
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

PROMPTS = '( arctic_a0010 "Ten." )\n( arctic_b0005 "Five, he said." )\n( arctic_a0001 "O." )\n'


def plant(root: Path, *names: str) -> Path:
    """Empty files: readers look at names alone."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def read(corpus: str, root: Path) -> dict[str, Utterance]:
    return {row.key: row for row in CORPORA[corpus](root)}


def test_cmu_arctic(tmp_path: Path) -> None:
    for speaker in ("bdl", "slt"):
        base = f"cmu_us_{speaker}_arctic"
        wavs = [f"{base}/wav/arctic_{prompt}.wav" for prompt in ("a0001", "a0010", "b0005")]
        plant(tmp_path, *wavs, f"{base}/etc/txt.done.data")
        own = PROMPTS.replace("O.", f"O {speaker}.")
        (tmp_path / base / "etc/txt.done.data").write_text(own)
    rows = read("cmu_arctic", tmp_path)
    assert len(rows) == 6
    assert rows["arctic-bdl-a0001"] == Utterance(
        key="arctic-bdl-a0001",
        media="cmu_us_bdl_arctic/wav/arctic_a0001.wav",
        transcript="O bdl.",
        language="en",
        streams=("audio", "text"),
        speaker="arctic-bdl",
        split="train",
        licence="free for any use",
    )
    assert rows["arctic-slt-a0001"].transcript == "O slt."
    assert {rows[f"arctic-{s}-a0010"].split for s in ("bdl", "slt")} == {"heldout"}
    assert {rows[f"arctic-{s}-b0005"].split for s in ("bdl", "slt")} == {"dev"}


@pytest.mark.parametrize("inside", [".", "cmu_us_bdl_arctic", "cmu_us_bdl_arctic/wav"])
def test_cmu_arctic_from_any_folder_of_the_archive(tmp_path: Path, inside: str) -> None:
    plant(tmp_path, "cmu_us_bdl_arctic/wav/arctic_a0001.wav")
    (tmp_path / inside / "cmuarctic.data").write_text(PROMPTS)
    assert list(read("cmu_arctic", tmp_path / inside)) == ["arctic-bdl-a0001"]


def test_cmu_arctic_with_an_index(tmp_path: Path) -> None:
    plant(tmp_path, "audio/cathy/arctic_a0001.flac", "audio/cathy/arctic_a0002.flac")
    index = tmp_path / "index.csv"
    index.write_text(
        "path,prompt_id,transcript\n"
        'audio/cathy/arctic_a0001.flac,arctic_a0001,"Author, etc."\n'
        "audio/cathy/arctic_a0002.flac,arctic_a0002,Not at this.\n"
    )
    rows = read("cmu_arctic", tmp_path)
    assert rows["arctic-cathy-a0001"].transcript == "Author, etc."
    assert rows["arctic-cathy-a0002"].speaker == "arctic-cathy"
    index.unlink()
    with pytest.raises(DataError, match="no prompt arctic_a0001 in txt"):
        read("cmu_arctic", tmp_path)


def test_fsdd(tmp_path: Path) -> None:
    takes = (0, 4, 5, 6, 7, 49)
    plant(tmp_path, *(f"recordings/7_jackson_{take}.wav" for take in takes), "metadata.py")
    rows = list(read("fsdd", tmp_path).values())
    assert {row.transcript for row in rows} == {"seven"}
    assert {row.speaker for row in rows} == {"fsdd-jackson"}
    assert {row.key: row.split for row in rows} == {
        "fsdd-7_jackson_0": "heldout",
        "fsdd-7_jackson_4": "heldout",
        "fsdd-7_jackson_5": "dev",
        "fsdd-7_jackson_6": "dev",
        "fsdd-7_jackson_7": "train",
        "fsdd-7_jackson_49": "train",
    }


def test_ravdess(tmp_path: Path) -> None:
    plant(tmp_path, "Actor_01/03-01-05-01-02-01-01.wav")
    plant(tmp_path, "Actor_24/03-01-08-02-01-02-24.wav", "Actor_24/._03-01-08-02-01-02-24.wav")
    rows = read("ravdess", tmp_path)
    assert list(rows) == ["ravdess-03-01-05-01-02-01-01", "ravdess-03-01-08-02-01-02-24"]
    angry, surprised = rows.values()
    assert (angry.labels.category, surprised.labels.category) == ("angry", "surprised")
    assert angry.transcript == "Dogs are sitting by the door."
    assert surprised.transcript == "Kids are talking by the door."
    assert (angry.speaker, angry.split, angry.language) == ("ravdess-01", None, "en")


def test_ravdess_takes_the_video_of_a_performance_and_no_songs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told, mute = "01-05-01-02-01-01", "01-06-01-01-01-01"
    plant(tmp_path, f"Audio/Actor_01/03-{told}.wav", f"Video_Speech_Actor_01/01-{told}.mp4")
    plant(tmp_path, f"Video_Speech_Actor_01/02-{told}.mp4", f"Video_Speech_Actor_01/02-{mute}.mp4")
    plant(tmp_path, "Song/03-02-05-01-02-01-01.wav")
    assert CORPORA["ravdess"](tmp_path) == [
        Utterance(
            key=f"ravdess-01-{told}",
            media=f"Video_Speech_Actor_01/01-{told}.mp4",
            transcript="Dogs are sitting by the door.",
            language="en",
            streams=("audio", "video", "text"),
            speaker="ravdess-01",
            licence="CC BY-NC-SA 4.0",
            labels=Labels(category="angry"),
        ),
        Utterance(
            key=f"ravdess-02-{mute}",
            media=f"Video_Speech_Actor_01/02-{mute}.mp4",
            transcript="Kids are talking by the door.",
            language="en",
            streams=("video", "text"),
            speaker="ravdess-01",
            licence="CC BY-NC-SA 4.0",
            labels=Labels(category="fearful"),
        ),
    ]
    assert "songs are left out, this is a corpus of speech (1, such as" in caplog.text


def test_emovo(tmp_path: Path) -> None:
    plant(tmp_path, "f1/dis-f1-b1.wav", "f1/gio-f1-n5.wav", "m3/rab-m3-n4.wav", "f1/dis-f1-n6.wav")
    rows = read("emovo", tmp_path)
    assert [(row.speaker, row.labels.category, row.split) for row in rows.values()] == [
        ("emovo-f1", "disgust", "train"),
        ("emovo-f1", "happy", "heldout"),
        ("emovo-m3", "angry", "dev"),
    ]
    transcript = rows["emovo-gio-f1-n5"].transcript
    assert transcript == "Uno quarantatr\u00e9 dieci mille cinquantasette venti."


def test_emodb(tmp_path: Path) -> None:
    plant(tmp_path, "wav/03a01Fa.wav", "wav/16b10Wb.wav", "wav/08b09Lc.wav", "wav/03a03Fa.wav")
    rows = read("emodb", tmp_path)
    assert {key: (row.labels.category, row.split) for key, row in rows.items()} == {
        "emodb-03a01Fa": ("happy", "train"),
        "emodb-08b09Lc": ("boredom", "dev"),
        "emodb-16b10Wb": ("angry", "heldout"),
    }
    assert rows["emodb-03a01Fa"].transcript == "Der Lappen liegt auf dem Eisschrank."
    assert rows["emodb-03a01Fa"].language == "de"


def test_grid(tmp_path: Path) -> None:
    stems = [f"bba{letter}2n" for letter in "abcdefghijkl"]
    plant(tmp_path, *(f"s1/video/mpg_6000/{stem}.mpg" for stem in stems))
    plant(tmp_path, *(f"s34/video/{stem}.mpg" for stem in stems), "guests/pwij3p.mpg")
    plant(tmp_path, "guests/bbaa2n.mpg")  # held out where s1 says it, so nowhere trained on
    align = tmp_path / "align" / "s1" / "bbaf2n.align"
    align.parent.mkdir(parents=True)
    words = ["sil", "bin", "blue", "at", "sp", "f", "two", "now", "sil"]
    lines = [f"{i * 8000} {(i + 1) * 8000} {word}\n" for i, word in enumerate(words)]
    align.write_text("".join(lines))
    plant(tmp_path, "align/s1/notes.align")
    rows = read("grid", tmp_path)
    assert rows["grid-s1-bbaf2n"].transcript == "bin blue at f two now"
    for talker in ("s1", "s34"):
        splits = {stem: rows[f"grid-{talker}-{stem}"].split for stem in stems}
        heldout = [stem for stem in stems if splits[stem] == "heldout"]
        assert heldout == ["bbaa2n", "bbak2n"]
        assert [stem for stem in stems if splits[stem] == "dev"] == ["bbab2n", "bbal2n"]
    guest = rows["grid-guests-pwij3p"]
    assert (guest.speaker, guest.split) == (None, None)
    assert rows["grid-guests-bbaa2n"].split == "heldout"
    assert guest.transcript == "place white in j three please"
    words = rows["grid-s1-bbaf2n"].words
    assert words is not None and [(word.text, word.start, word.end) for word in words] == [
        ("bin", 0.32, 0.64), ("blue", 0.64, 0.96), ("at", 0.96, 1.28),
        ("f", 1.6, 1.92), ("two", 1.92, 2.24), ("now", 2.24, 2.56),
    ]  # fmt: skip
    assert rows["grid-s34-bbaf2n"].words is None and guest.words is None

    align.write_text("".join(lines).replace("two", "three"))
    with pytest.raises(DataError, match="'bin blue at f three now', its name says 'bin blue at f"):
        read("grid", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("8000 bin", r"bbaf2n\.align:2: must be start, end and word, found '8000 bin'"),
        ("8000 16000.5 bin", r"bbaf2n\.align:2: must be start, end and word"),
        ("16000 8000 bin", r"bbaf2n\.align: word 1, 'bin': start 0.64, end 0.32"),
        ("8000 " + "9" * 20 + " bin", r"bbaf2n\.align: word 1, 'bin': ends at 40+\.0 s"),
    ],
)
def test_times_of_grid_that_cannot_be(tmp_path: Path, line: str, message: str) -> None:
    plant(tmp_path, "s1/bbaf2n.mpg")
    rest = ("blue", "at", "f", "two", "now")
    lines = [f"{i * 8000} {(i + 1) * 8000} {word}" for i, word in enumerate(rest, start=2)]
    (tmp_path / "s1" / "bbaf2n.align").write_text("\n".join(["0 8000 sil", line, *lines]))
    with pytest.raises(DataError, match=message):
        read("grid", tmp_path)


def test_grid_takes_the_sound_where_there_is_no_video(tmp_path: Path) -> None:
    plant(tmp_path, "s1/bbaf2n.mpg", "audio_25k/s1/bbaf2n.wav", "audio_25k/s21/bbaf2n.wav")
    rows = read("grid", tmp_path)
    assert {row.media: row.streams for row in rows.values()} == {
        "s1/bbaf2n.mpg": ("audio", "video", "text"),
        "audio_25k/s21/bbaf2n.wav": ("audio", "text"),
    }
    assert set(rows) == {"grid-s1-bbaf2n", "grid-s21-bbaf2n"}


def test_grid_grammar() -> None:
    assert sentence("sgwzza") == "set green with z zero again"
    assert sentence("lrbi9s") == "lay red by i nine soon"


@pytest.mark.parametrize("corpus", sorted(set(CORPORA) - {"clips", "table"}))
def test_a_folder_of_something_else_is_named(tmp_path: Path, corpus: str) -> None:
    plant(tmp_path, "holiday.mp4", "notes.wav")
    with pytest.raises(DataError, match=f"{tmp_path}: holds no file of .*, such as .*/.*"):
        CORPORA[corpus](tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        CORPORA[corpus](tmp_path / "missing")
