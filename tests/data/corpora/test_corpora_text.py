"""Text corpora, on tiny tables in the published layouts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmembed.data.corpora import CORPORA
from mmembed.data.corpora.files import decode_text, fix_latin1
from mmembed.data.corpora.tables import read_table
from mmembed.data.corpora.xed import split_of
from mmembed.data.manifest.jsonl import read_manifest, write_manifest
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.prepare import prepare_shards
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import DataError

EMOTIONS = (
    "anger\tanticipation\tdisgust\tfear\tjoy\tlove\toptimism\tpessimism\tsadness\tsurprise\ttrust"
)


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def semeval(*lines: str) -> str:
    return "\n".join([f"ID\tTweet\t{EMOTIONS}", *lines]) + "\n"


def marks(*places: int) -> str:
    return "\t".join("1" if place in places else "0" for place in range(11))


def test_semeval(tmp_path: Path) -> None:
    tweet = 'It\'s "so" #happy \N{GRINNING FACE} @you'
    write(tmp_path / "E-c-En-train.txt", semeval(f"2017-En-1\t{tweet}\t{marks(4, 6)}"))
    write(tmp_path / "E-c-En-test-gold.txt", semeval(f"2018-En-2\tNo.\t{marks()}"))
    none = "\t".join(["NONE"] * 11)
    write(tmp_path / "E-c-En-test.txt", semeval(f"2018-En-2\tNo.\t{none}"))
    spanish = tmp_path / "Spanish/E-c"
    write(spanish / "2018-E-c-Es-dev.txt", "\ufeff" + semeval(f"2018-Es-3\tHola\t{marks(10)}"))
    write(tmp_path / "2018-E-c-Ar-test.txt", semeval(f"2018-Ar-4\t\u0646\u0639\u0645\t{none}"))
    rows = {row.key: row for row in CORPORA["semeval2018"](tmp_path)}
    assert rows["semeval2018-2017-En-1"] == Utterance(
        key="semeval2018-2017-En-1",
        media=None,
        transcript=tweet,
        language="en",
        split="train",
        licence="research only",
        labels=Labels(present=("joy", "optimism")),
    )
    assert [(row.key, row.language, row.split, row.labels.present) for row in rows.values()] == [
        ("semeval2018-2018-Ar-4", "ar", "test", None),
        ("semeval2018-2018-En-2", "en", "test", ()),
        ("semeval2018-2017-En-1", "en", "train", ("joy", "optimism")),
        ("semeval2018-2018-Es-3", "es", "dev", ("trust",)),
    ]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (marks()[:-2], "has 12 cells, the first line names 13"),
        (marks() + "\t0", "has 14 cells, the first line names 13"),
        (marks().replace("0", "2", 1), "needs 0 or 1 for 11 emotions"),
    ],
)
def test_semeval_faults(tmp_path: Path, bad: str, message: str) -> None:
    path = write(tmp_path / "E-c-En-dev.txt", semeval(f"a\tb\t{marks()}", f"c\td\t{bad}"))
    with pytest.raises(DataError, match=f"{path}:3: {message}"):
        CORPORA["semeval2018"](tmp_path)
    path.write_text("ID\tTweet\tjoy\na\tb\t1\n")
    with pytest.raises(
        DataError, match=r"has no column anger or anticipation or .*, only ID, Tweet, joy"
    ):
        CORPORA["semeval2018"](tmp_path)


def test_goemotions(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", 'He said "no".\t27\teebbqej\nYay, [NAME]\t17,0\ted00q6i\n')
    write(tmp_path / "dev.tsv", "He said no.\t2\teezlygj\n")
    rows = CORPORA["goemotions"](tmp_path)
    assert rows[1] == Utterance(
        key="goemotions-eebbqej",
        media=None,
        transcript='He said "no".',
        language="en",
        split="train",
        licence="Apache-2.0",
        labels=Labels(present=("neutral",)),
    )
    assert (rows[0].split, rows[0].labels.present) == ("dev", ("anger",))
    assert rows[2].labels.present == ("joy", "admiration")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\t28\tb", "'28': label numbers are 0 to 27"),
        ("a\t-1\tb", "'-1': label numbers are 0 to 27"),
        ("a\t\tb", "'': label numbers are 0 to 27"),
        ("a\t1", "has 2 cells, a line has 3 columns"),
        ("a\t1\tb\tc", "has 4 cells, a line has 3 columns"),
    ],
)
def test_goemotions_faults(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "test.tsv", f"fine\t1\tx\n\n{line}\n")
    with pytest.raises(DataError, match=f"{path}:3: {message}"):
        CORPORA["goemotions"](tmp_path)


def test_xed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "AnnotatedData/en-annotated.tsv", "What ?\t7, 4\r\nNo!\t1\r\nNo!\t1,3\r\n")
    write(tmp_path / "AnnotatedData/neu_en.txt", "9\tYeah.\t\t\t\n\t\t\t\t\n9\tSo.\n")
    leftovers = (
        'Aha.\t8\n"Heul dich aus.\n'
        "en/1.xml.gz\tde/1.xml.gz\t2\t5\tI swear.\tIch schwore.\n"
        "Zwei\tdrei\nAch\t0\n"
    )
    write(tmp_path / "Projections/de-projections.tsv", leftovers)
    write(tmp_path / "Projections/cn-projections.tsv", "\u4e0d\t1\n")
    rows = {row.key: row for row in CORPORA["xed"](tmp_path)}
    assert rows["xed-en-annotated-1"] == Utterance(
        key="xed-en-annotated-1",
        media=None,
        transcript="What ?",
        language="en",
        split=split_of("what"),
        licence="CC BY 4.0",
        labels=Labels(present=("fear", "surprise")),
    )
    assert {key: (row.language, row.labels.present) for key, row in rows.items()} == {
        "xed-en-annotated-1": ("en", ("fear", "surprise")),
        "xed-en-annotated-2": ("en", ("anger",)),
        "xed-en-annotated-3": ("en", ("anger", "disgust")),  # same words, other key
        "xed-neu_en-1": ("en", ()),
        "xed-neu_en-3": ("en", ()),
        "xed-cn-projections-1": ("zh", ("anger",)),
        "xed-de-projections-1": ("de", ("trust",)),
    }
    assert "de-projections.tsv: lines have no text or no label numbers" in caplog.text
    assert "(4, such as" in caplog.text and len(caplog.records) == 1


def test_xed_splits_by_words() -> None:
    texts = [f"line {number}" for number in range(2000)]
    splits = [split_of(text) for text in texts]
    for split, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
        assert abs(splits.count(split) / 2000 - share) < 0.03
    assert splits == [split_of(text.upper().replace(" ", " - ") + "?!") for text in texts]
    assert [split_of(text) for text in ("line 0", "line 1", "line 5")] == ["train", "dev", "test"]


def test_text_tables(tmp_path: Path) -> None:
    write(
        tmp_path / "reviews/train.csv",
        "text,label,labels,id,split,language,speaker,dialogue,turn,stars\n"
        '"A, ""B""\nC",happy,"joy, trust",7.1,,en,s1,d1,2,5\n'
        "D,,,,validation,,,,,\n",
    )
    write(tmp_path / "reviews/other.tsv", 'text\n"E\n')
    write(
        tmp_path / "reviews/test.jsonl",
        '{"text": "F", "labels": ["joy"], "turn": 0, "licence": "L", "label": 3}\n\n',
    )
    first, second, *others = sorted(CORPORA["table"](tmp_path), key=lambda row: str(row.transcript))
    assert (first.transcript, second.transcript) == ('"E', 'A, "B"\nC')
    assert second == Utterance(
        key="reviews%2Ftrain-7%2E1",
        media=None,
        transcript='A, "B"\nC',
        language="en",
        speaker="s1",
        dialogue="d1",
        turn=2,
        split="train",
        labels=Labels(category="happy", present=("joy", "trust")),
    )
    assert first == Utterance(key="reviews%2Fother-1", media=None, transcript='"E')
    assert others == [
        Utterance(
            key="reviews%2Ftrain-2",
            media=None,
            transcript="D",
            split="dev",
            labels=Labels(present=()),
        ),
        Utterance(
            key="reviews%2Ftest-1",
            media=None,
            transcript="F",
            turn=0,
            split="test",
            licence="L",
            labels=Labels(category="3", present=("joy",)),
        ),
    ]
    one = CORPORA["table"](tmp_path / "reviews/test.jsonl")
    assert one == [replace(others[1], key="test-1")]


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("a.csv", "words\nA\n", "a.csv: has no column text, only words"),
        ("a.tsv", "text\tid\nA\n", "a.tsv:2: has 1 cells, the first line names 2 columns"),
        ("a.csv", "text,split\nA,later\n", "a.csv:2: split 'later' of a-1: one of train, dev"),
        ("a.csv", "text,turn\nA,first\n", "a.csv:2: turn must be a whole number, found 'first'"),
        ("a.jsonl", '{"text": "A"}\n["A"]\n', "a.jsonl:2: a line is a JSON object, found list"),
        ("a.csv", 'text,id\n"A,1\nB,2\n', "a.csv:2: is not CSV: unexpected end of data"),
        ("a.jsonl", '{"text": 1.5}\n', "a.jsonl:1: text must be text, found 1.5"),
        ("a.jsonl", "{text: A}\n", "a.jsonl:1: not JSON"),
        ("a.jsonl", '{"text": "A", "labels": [1]}\n', "a.jsonl:1: labels must be a list of names"),
    ],
)
def test_text_table_faults(tmp_path: Path, name: str, table: str, message: str) -> None:
    write(tmp_path / name, table)
    with pytest.raises(DataError, match=message):
        CORPORA["table"](tmp_path)


def test_encodings(tmp_path: Path) -> None:
    word = "it\N{RIGHT SINGLE QUOTATION MARK}s \N{EURO SIGN}"
    for data in (
        word.encode(),
        word.encode("cp1252"),
        "it\x92s \x80".encode(),
        b"\xef\xbb\xbf" + word.encode(),
    ):
        assert decode_text(write(tmp_path / "a.txt", data), fix_encoding=True) == word
    assert fix_latin1("a\x81b\u2028c") == "ab\u2028c"  # 0x81 means nothing in Windows-1252
    rows = read_table(write(tmp_path / "a.tsv", "text\na\u2028b\x0bc\r\n"), strip=False)
    assert list(rows) == [(2, {"text": "a\u2028b\x0bc"})]


def test_shards_of_text_alone(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", "Hey, [NAME]!\t17\tx\n...\t27\ty\nNo\t3\tz\n")
    rows = CORPORA["goemotions"](tmp_path)
    write_manifest(tmp_path / "manifest.jsonl", rows)
    assert read_manifest(tmp_path / "manifest.jsonl") == rows
    assert prepare_shards(rows, tmp_path, tmp_path / "out", workers=1) == ()
    shards = ShardSet(tmp_path / "out")
    assert len(shards) == 3
    assert [shards.read(n).members["json"]["text"] for n in range(3)] == ["hey name", None, "no"]
    assert shards.meta(0)["lengths"] == {"audio": 0, "video": 0, "text": 8}
