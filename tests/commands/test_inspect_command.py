"""`mmembed inspect`: numbers worked by hand, and hostile content that is shown and not obeyed."""

from __future__ import annotations

import base64
import json
import re
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from helpers.page import Page, read_page
from helpers.prepared import embedding, example, write_embeddings, write_prepared

from mmembed.commands.cli import run_program
from mmembed.commands.inspect import main
from mmembed.data.example import ExampleInfo
from mmembed.data.feature_files import write_features
from mmembed.data.inspect import summary_lines as words
from mmembed.data.inspect.summary import SAMPLES, Sample, Summary, summarise
from mmembed.data.inspect.summary_lines import (
    format_counts,
    sentiment_classes,
    summary_lines,
)
from mmembed.data.locations import Location, find_locations
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.stored_rows import StoredMember, StoredRow, read_rows

HOSTILE = "<script>alert(1)</script>\x1b[31m$x^2$"

Capture = pytest.CaptureFixture[str]


def inspect(*arguments: object) -> int:
    return run_program(main, [str(argument) for argument in arguments])


def look(path: Path) -> tuple[dict[str, str], list[str]]:
    (place,) = find_locations(path)
    summary = summarise(place)
    return dict(summary_lines(summary)), words.warnings(summary)


def manifest(tmp_path: Path, *rows: Utterance) -> Path:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, rows)
    return path


def test_a_manifest_by_hand(tmp_path: Path) -> None:
    happy, both = Labels(category="happy", sentiment=2.5), Labels(sentiment=-0.4)
    path = manifest(
        tmp_path,
        Utterance(
            "a", "v.mp4", end=2.0, transcript="Yes, yes!", speaker="ann", split="train",
            language="en", licence="CC BY 4.0", labels=happy, dialogue="d", turn=0,
        ),
        Utterance(
            "b", "v.mp4", start=2.0, end=6.0, transcript="No", speaker="bob", split="train",
            language="en", labels=both, dialogue="d", turn=1, streams=("audio", "video", "text"),
        ),
        Utterance("c", "w.mp4", speaker="ann", split="dev", language="de", labels=happy),
        Utterance("d", None, transcript="so so so"),
    )  # fmt: skip
    held, warned = look(path)
    assert held == {
        "utterances": "4 (2 train, 1 dev, 1 without split)",
        "length": "0.00 h (0.00 train, 0.00 dev, 0.00 without split); shortest 2.00 s, "
        "median 3.00, 95 % 3.90, longest 4.00; of 2 unknown",
        "speakers": "2 with 1 to 2 utterances, median 2",
        "dialogues": "1 with 2 turns each, median 2",
        "languages": "2 en, 1 de",
        "streams": "1 have audio, 1 have video, 2 have text: "
        "2 not looked at yet, 1 audio+video+text, 1 text",
        "transcripts": "3 with 1 to 3 words, median 2; 6 words, 3 different, 1 of them once",
        "categories": "2 happy",
        "sentiment": "3 scores, mean 1.53; rounded: 0 at -3, 0 at -2, 0 at -1, 1 at 0, 0 at +1, "
        "2 at +2, 0 at +3",
        "repeats": "none",
        "licences": "1 CC BY 4.0",
    }
    assert len(warned) == 1
    assert warned[0].startswith("speakers in more than one of train, dev and test: 1 (ann);")


def test_a_prepared_folder_by_hand(tmp_path: Path) -> None:
    failed = [{"key": f"x{n}", "reason": reason, "message": "?"} for n, reason in enumerate("eem")]
    examples = [
        example(0, labels=Labels(emotions=(3.0, 0, 0.5, 0, 0, 0), scores={"valence": 2.0})),
        example(1, video=None, labels=Labels(present=("joy", "love"), scores={"valence": 4.0})),
        example(2, info=ExampleInfo(1.5, "full frame"), labels=Labels(present=())),
        example(3, split="test", labels=Labels(present=("joy",))),
    ]
    held, warned = look(write_prepared(tmp_path, examples, failed, size=4))
    assert held["utterances"] == "4 (3 train, 1 test)"
    assert held["made"] == "features of audio, video, text"
    assert held["length"].endswith("shortest 0.50 s, median 0.50, 95 % 1.35, longest 1.50")
    assert held["streams"] == (
        "4 have audio, 3 have video, 4 have text: 3 audio+video+text, 1 audio+text"
    )
    assert held["faces"] == "found in 66.7 % of 3 (2 haar, 1 full frame)"
    assert held["emotions"].startswith("present: 1 anger, 1 happy, 0 disgust")
    assert held["emotions"].endswith(", of 1")
    assert held["labels"] == "2 joy, 1 love, 1 none of them, of 3"
    assert held["valence"] == "2 from 2 to 4, mean 3"
    assert held["broken"] == "2 e, 1 m"
    assert warned == [
        "speakers in more than one of train, dev and test: 1 (s1); scores on such a split "
        "say little of new speakers",
        "utterances that cannot be used: 3 (x0, x1, x2)",
    ]


def test_lengths_of_shards_without_notes_come_from_the_features(tmp_path: Path) -> None:
    examples = [
        example(0, info=ExampleInfo()),
        example(1, info=ExampleInfo(), audio=None),
    ]  # 50 / 100 Hz, 12 / 25 Hz
    (place,) = find_locations(write_prepared(tmp_path, examples))
    assert summarise(place).numbers("seconds").tolist() == [0.5, 0.48]


def test_rows_that_are_not_prepared_are_counted(tmp_path: Path) -> None:
    write_prepared(tmp_path, [example(0)])
    write_manifest(tmp_path / "manifest.jsonl", [example(n).utterance for n in range(3)])
    assert look(tmp_path)[1] == ["rows of the manifest that are not prepared yet: 2 of 3"]


def test_a_folder_without_a_whole_shard_yet(tmp_path: Path) -> None:
    write_manifest(tmp_path / "manifest.jsonl", [example(0).utterance])
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / ".shard-000000.tar.12.tmp").write_bytes(b"half")
    held, warned = look(tmp_path)
    assert held == {"utterances": "0 (none is whole yet)", "repeats": "none"}
    assert warned == ["rows of the manifest that are not prepared yet: 1 of 1"]


def test_repeats_are_found(tmp_path: Path) -> None:
    sound = example(0).audio
    assert sound is not None
    examples = [
        example(0),
        example(1, audio=sound),  # the same sound
        example(2, audio=sound + np.int16(1)),
        example(4, media="2.mp4"),  # the media of clip 2, the words of clip 0 by the same speaker
        example(8, speaker="other"),  # the words alone
    ]
    held, warned = look(write_prepared(tmp_path, examples, size=3))
    assert held["repeats"] == (
        "1 with the media and times of another, 1 with the audio of another, "
        "1 with the words of another by the same speaker"
    )
    assert warned == [
        "utterances with the media and times of another: 1 (clip-4 as clip-2)",
        "utterances with the audio of another: 1 (clip-1 as clip-0)",
    ]


def test_equal_checksums_are_not_yet_equal_sounds(tmp_path: Path) -> None:
    (place,) = find_locations(write_prepared(tmp_path, [example(0), example(1)]))
    summary = Summary(place)
    for number, row in enumerate(read_rows(place)):
        assert isinstance(row, StoredRow)
        assert row.audio is not None
        forged = StoredMember(row.audio.tar, row.audio.member._replace(crc32=7))
        summary.add(StoredRow(Utterance(f"k{number}", None), audio=forged))
    assert summary.repeats("same_audio")[0] == 0


@pytest.mark.parametrize(
    ("splits", "leak"),
    [
        (("train", "train"), False),
        (("train", "heldout"), False),  # held-out utterances are by training speakers, and said so
        (("train", None), False),
        (("train", "test"), True),
        (("heldout", "test"), True),
        (("dev", "test"), True),
    ],
)
def test_speakers_dialogues_and_media_in_several_splits_are_leaks(
    tmp_path: Path, splits: tuple[str | None, ...], leak: bool
) -> None:
    rows = [
        Utterance(f"u{n}", "v.mp4", start=n, end=n + 1, speaker="s", dialogue="d", split=split)
        for n, split in enumerate(splits)
    ]
    _, warned = look(manifest(tmp_path, *rows))
    found = [re.match(r"(.*) in more than one", line) for line in warned]
    assert [match[1] for match in found if match] == ["speakers", "dialogues", "media files"] * leak


def test_several_splits() -> None:
    summary = Summary(Location(Path("m.jsonl")))
    speakers = {"b": ["dev", "test"], "a": ["train", None, "test"], "c": ["train", "heldout"]}
    for name, splits in speakers.items():
        for split in splits:
            key, media = f"{name}-{split}", f"{name}\udcff.mp4"
            summary.add(StoredRow(Utterance(key, media, speaker=name, split=split)))
    assert summary.split_across("speaker") == ["a", "b"]
    assert summary.split_across("media") == ["a\udcff.mp4", "b\udcff.mp4"]


def test_precomputed_features(tmp_path: Path) -> None:
    bad = np.array([[0, np.nan, 0, -np.inf]], np.float32)
    write_features(
        tmp_path / "f.safetensors",
        [
            {"audio": np.zeros((3, 4), np.float32), "text": np.zeros((2, 5), np.float32)},
            {"audio": bad},
        ],
    )
    rows = [Utterance(f"u{n}", f"f.safetensors#{n}") for n in range(3)]
    path = manifest(tmp_path, *rows, Utterance("v", "none.safetensors#0"))
    expected = {
        "utterances": "2 (2 without split)",
        "streams": "2 have audio, 0 have video, 1 have text: 1 audio, 1 audio+text",
        "audio vectors": "2 of width 4, 2.0 steps each",
        "text vectors": "1 of width 5, 2.0 steps each",
        "repeats": "none",
        "broken": "2 missing",
    }
    warned = [
        "audio values that are not finite: 2, in 1 of 2 utterances",
        "utterances that cannot be used: 2 (u2, v)",
    ]
    assert look(path) == (expected, warned)
    examples = [
        example(0, audio=None, video=None, features={"audio": np.zeros((3, 4), np.float32)}),
        example(1, audio=None, video=None, features={"audio": np.zeros((3, 6), np.float32)}),
    ]
    held, warned = look(write_prepared(tmp_path / "out", examples))
    assert held["audio vectors"] == "2 of width 4 or 6, 3.0 steps each"
    assert warned == ["audio vectors of several widths: 1 of 4, 1 of 6"]


def test_text_alone(tmp_path: Path) -> None:
    rows = [Utterance(f"u{n}", None, transcript="one two") for n in range(2)]
    held, warned = look(manifest(tmp_path, *rows))
    assert (held["streams"], warned) == ("2 text", [])
    assert "length" not in held


def test_embeddings_are_a_summary_each(tmp_path: Path, capsys: Capture) -> None:
    for streams in (["audio"], ["audio", "text"]):
        write_embeddings(tmp_path / "+".join(streams), [embedding(0), embedding(1)], streams)
    held, _ = look(tmp_path / "audio")
    assert held == {
        "utterances": "2 (2 test)",
        "made": "embeddings of audio, encoder 0123456789ab, 3 layers, 25 Hz",
        "length": "0.00 h; shortest 2.00 s, median 2.00, 95 % 2.00, longest 2.00",
        "speakers": "2 with 1 utterances each, median 1",
        "streams": "2 audio",
        "pooled vectors": "2 of width 8, 1.0 steps each",
        "categories": "2 sad",
        "repeats": "none",
    }
    assert inspect(tmp_path) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("/")] == [
        str(tmp_path / "audio"),
        str(tmp_path / "audio+text"),
    ]
    assert inspect(tmp_path, "--html", tmp_path / "page.html") == 2
    assert "name one: audio, audio+text" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_small_pieces() -> None:
    assert format_counts({"b": 1, "a": 1, "c": 1200}) == "1,200 c, 1 a, 1 b"
    assert format_counts({str(n): 1 for n in range(15)}).endswith(", and 3 more names")
    scores = [-9.0, -2.5, -0.5, 0.5, 1.5, 2.5, 3.0]  # halves go to the even class
    assert list(sentiment_classes(scores).values()) == [1, 1, 0, 2, 0, 2, 1]


def test_a_sample_is_fair_and_repeatable() -> None:
    chosen = np.zeros(10)
    for seed in range(3000):
        sample = Sample(3, seed)
        for item in range(10):
            sample.add(item)
        assert len(set(sample.items)) == 3
        chosen[sample.items] += 1
    assert abs(chosen / 3000 - 0.3).max() < 0.05  # six standard deviations
    again = Sample(3, 2999)
    for item in range(10):
        again.add(item)
    assert again.items == sample.items


def test_a_damaged_shard_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    write_prepared(tmp_path, [example(0)])
    tar = tmp_path / "shards" / "shard-000000.tar"
    data = bytearray(tar.read_bytes())
    data[data.index(b'{"notes"')] ^= 1
    tar.write_bytes(data)
    assert inspect(tmp_path) == 5
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tar}: json is damaged")
    assert "mmembed verify" in error
    assert inspect(tmp_path / "none") == 2


# The page


def write_page(folder: Path, tmp_path: Path, *arguments: str) -> Page:
    out = tmp_path / "page.html"
    assert inspect(folder, "--html", out, *arguments) == 0
    return read_page(out.read_text("utf-8"))


def test_the_page_shows_numbers_faces_and_words(tmp_path: Path, capsys: Capture) -> None:
    folder = write_prepared(tmp_path / "corpus", [example(n) for n in range(4)])
    page = write_page(folder, tmp_path)
    assert capsys.readouterr().out.endswith(f"\n{tmp_path / 'page.html'}\n")
    titles = page.sections
    assert titles == ["numbers", "lengths", "labels", "speakers", "faces", "transcripts"]
    assert {"h1", "svg"} <= {tag for tag, _ in page.seen}
    for text in ("corpus", "4 (4 train)", "come back soon", "rounded: 0 at -3"):
        assert text in page.text
    drawn = {attributes.get("aria-label") for tag, attributes in page.seen if tag == "figure"}
    assert {"histogram of seconds", "bars of utterances by speaker"} <= drawn
    pictures = [attributes for tag, attributes in page.seen if tag == "img"]
    assert [picture["alt"] for picture in pictures] == [f"clip-{n}" for n in range(4)]
    for number, picture in enumerate(pictures):
        source = picture["src"]
        assert source is not None
        kind, _, data = source.partition(",")
        assert kind == "data:image/jpeg;base64"
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 0)
        video = example(number).video
        assert video is not None
        assert np.corrcoef(shown.ravel(), video[6].ravel())[0, 1] > 0.9  # the middle frame


def test_the_page_refers_to_nothing_outside_and_is_small(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "corpus", [example(n) for n in range(40)], size=16)
    page = write_page(folder, tmp_path)
    assert sum(tag == "img" for tag, _ in page.seen) == SAMPLES
    assert (tmp_path / "page.html").stat().st_size < 500_000


def test_the_same_seed_gives_the_same_page(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "corpus", [example(n) for n in range(40)], size=16)

    def made(*arguments: str) -> bytes:
        write_page(folder, tmp_path, *arguments)
        return (tmp_path / "page.html").read_bytes()

    first = made()
    assert made() == first
    assert made("--seed", "1") != first


def test_hostile_content_is_shown_and_not_obeyed(tmp_path: Path, capsys: Capture) -> None:
    labels = Labels(category=HOSTILE, present=(HOSTILE,), scores={HOSTILE: 1.0})
    known = {"speaker": HOSTILE, "language": HOSTILE, "licence": HOSTILE, "dialogue": HOSTILE}
    failed = [{"key": "<u>", "reason": HOSTILE, "message": HOSTILE}]
    folder = tmp_path / "shards"
    write_prepared(
        tmp_path,
        [
            example(0, key="<img-src=x-onerror=alert(1)>", transcript=HOSTILE, labels=labels,
                    info=ExampleInfo(face=HOSTILE), media=HOSTILE, split="dev", **known),
            example(1, labels=labels, media=HOSTILE, split="test", **known),
        ],
        failed,
        size=3,
    )  # fmt: skip
    page = write_page(folder, tmp_path)
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "<script>alert(1)</script>\\x1b[31m" in printed.out
    assert not {"script", "u"} & {tag for tag, attributes in page.seen if not attributes}
    assert "onerror" not in {name for _, attributes in page.seen for name in attributes}
    assert "<script>alert(1)</script>" in page.text
    assert "<img-src=x-onerror=alert(1)>" in page.text


def test_what_is_no_text_is_shown_by_its_code(tmp_path: Path, capsys: Capture) -> None:
    row = {"key": "a", "transcript": "x \ud83d"}  # listed as a row that cannot be used
    letter = "\u3042"  # one that the plot's typeface lacks
    other = {"key": "b", "media": "\udce9.wav", "speaker": letter, "transcript": letter}
    path = tmp_path / "manifest.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(other) + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_page(path, tmp_path)
    assert "\\ud83d" in page.text
    assert "1 manifest" in capsys.readouterr().out


def test_a_page_of_a_manifest_has_what_there_is(tmp_path: Path) -> None:
    path = manifest(tmp_path, Utterance("a", None, transcript="so"))
    page = write_page(path, tmp_path)
    titles = page.sections
    assert titles == ["numbers", "lengths", "transcripts"]


def test_locations(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path / "out", [example(0)])
    expected = [Location(folder / "shards", folder / "manifest.jsonl")]
    assert find_locations(folder) == find_locations(folder / "shards") == expected
    (tmp_path / "alone").mkdir()
    manifest(tmp_path / "alone", Utterance("a", "a.wav"))  # preparing has not begun
    assert find_locations(tmp_path / "alone") == [Location(tmp_path / "alone" / "manifest.jsonl")]
