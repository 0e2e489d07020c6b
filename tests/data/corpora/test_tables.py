"""One reader of tables: what they may look like, and what is refused with its line."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.commands.cli import run_program
from mmembed.commands.prepare import main
from mmembed.data.corpora import CONVERTERS, CORPORA
from mmembed.data.corpora.tables import read_table, split_list
from mmembed.errors import DataError


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def run(*arguments: object) -> int:
    return run_program(main, [str(x) for x in arguments])


def test_tabs_do_not_quote(tmp_path: Path) -> None:
    text = 'media\ttranscript\na.wav\t"one\nb.wav\ttwo"\nc.wav\tthree\n'
    rows = CORPORA["table"](write(tmp_path / "t.tsv", text))
    assert [row.transcript for row in rows] == ['"one', 'two"', "three"]
    header_tells = write(tmp_path / "t.csv", text)
    assert [row.transcript for row in CORPORA["table"](header_tells)] == ['"one', 'two"', "three"]


def test_cells_of_any_length_leave_no_trace(tmp_path: Path) -> None:
    long = "x" * 300_000
    before = csv.field_size_limit()
    (row,) = CORPORA["table"](write(tmp_path / "t.csv", f"media,transcript\na.wav,{long}\n"))
    assert row.transcript == long
    (row,) = CORPORA["table"](write(tmp_path / "t.tsv", f"text\tid\n{long}\t1\n"))
    assert row.transcript == long and csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"media,media\na.wav,b.wav\n", "t.csv:1: names the column 'media' twice"),
        (b"media,transcript\na.wav\n", "t.csv:2: has 1 cells, the first line names 2 columns"),
        (b"media,transcript\na.wav,so,it\n", "t.csv:2: has 3 cells, .*; quote cells"),
        (b'media,transcript\n"a\n.wav","so"x\n', "t.csv:2: is not CSV: ',' expected after '\"'"),
        (b"media,transcript\n#NAME?,so\n", "t.csv:2: media holds #NAME.: a spreadsheet"),
        (b"media,scores.x\na.wav, #REF! \n", "t.csv:2: scores.x holds #REF!"),
        (b"media;start\na.wav;1,5\n", "t.csv:2: start must be a number, found '1,5'"),
        (b"media,transcript\na.wav,caf\xe9\n", "t.csv:2: is not text in UTF-8 .byte 0xe9."),
        ("media\na.wav\n".encode("utf-16"), "t.csv: is UTF-16; save it as UTF-8"),
        ("media\na.wav\n".encode("utf-16-le"), "t.csv:1: holds a NUL"),
        (b"PK\x03\x04rest", "t.csv: is an Excel file or an archive; save"),
        (b"PAR1rest", "t.csv: is a Parquet table; `mmembed prepare manifest`"),
        (b"media,present\na.wav,\"['joy', \"\n", r"t.csv:2: .* is no list of names"),
        (b"media,,\na.wav,,x\n", "t.csv:2: unknown column ''"),
        (b"media,,\na.wav,x,y\n", "t.csv:2: 'y' is in a column without name"),
        (b"media,end\na.wav,1e12\n", "t.csv:2: end 1000000000000.0: at most"),
        (b"media,end\na.wav,inf\n", "t.csv:2: end must be a number"),
    ],
)
def test_what_is_refused_has_a_line(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        CORPORA["table"](write(tmp_path / "t.csv", data))
    assert "\n" not in str(caught.value)


def test_what_spreadsheets_leave_behind_is_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "\ufeffmedia;transcript;;\r\na.wav;so;;\r\n;;;\r\n")
    ((line, row),) = read_table(path)
    assert (line, row) == (2, {"media": "a.wav", "transcript": "so", "": ""})
    assert CORPORA["table"](path)[0].transcript == "so"


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("joy,anger", ["joy", "anger"]), (" joy , ", ["joy"]), ("", []), ("[]", []), ("set()", []),
        ("['joy', 'anger']", ["joy", "anger"]), ('["joy","no emotion"]', ["joy", "no emotion"]),
        ("('joy',)", ["joy"]), ("{'joy'}", ["joy"]), ("['joy' 'anger']", ["joy", "anger"]),
        (r"['it\'s']", ["it's"]), ("[joy, anger]", ["joy", "anger"]),
        ("[ 0.5  1. ]", ["0.5", "1."]), ("[0.5, 1]", ["0.5", "1"]),
    ],
)  # fmt: skip
def test_lists_as_people_and_programs_write_them(cell: str, items: list[str]) -> None:
    assert split_list(cell, ",") == items


@given(st.text("[](){}'\"\\, ab", max_size=12))
def test_any_cell_is_a_list_or_an_error(cell: str) -> None:
    try:
        items = split_list(cell, ",")
    except ValueError:
        return
    assert all(isinstance(item, str) for item in items)


def test_labels_of_pandas(tmp_path: Path) -> None:
    text = "text,labels\nhi,\"['joy', 'anger']\"\nyo,[]\n"
    rows = CORPORA["table"](write(tmp_path / "t.csv", text))
    assert [row.labels.present for row in rows] == [("joy", "anger"), ()]
    (row,) = CORPORA["table"](
        write(tmp_path / "u.csv", "media,present\na.wav,\"['joy', 'love']\"\n")
    )
    assert row.labels.present == ("joy", "love")
    for column, cell in (("labels", "['joy', "), ("label", "['joy']")):
        path = write(tmp_path / "bad.csv", f'text,{column}\nhi,"{cell}"\n')
        with pytest.raises(DataError, match=r"bad\.csv:2: "):
            CORPORA["table"](path)


@pytest.mark.parametrize(
    ("corpus", "name", "header", "line", "message"),
    [
        ("table", "a.tsv", "text\tid", "so\t1", ":3: key a-1 occurs in .*a.tsv:2 too"),
        ("table", "a.jsonl", '{"text": "x"}', '{"text": "a", "text": "b"}', ":2: not JSON: names"),
        (
            "table",
            "a.jsonl",
            '{"text": "x"}',
            f'{{"text": {"[" * 99999}',
            ":2: not JSON: is nested",
        ),
        ("goemotions", "train.tsv", "a\t1\tx", "b\t2\ty", "occurs in .*train.tsv:2 too"),
    ],
)
def test_rows_given_twice(
    tmp_path: Path, corpus: str, name: str, header: str, line: str, message: str
) -> None:
    write(tmp_path / name, f"{header}\n{line}\n{line}\n")
    with pytest.raises(DataError, match=message):
        CORPORA[corpus](tmp_path)


def test_a_turn_of_meld_given_twice(tmp_path: Path) -> None:
    columns = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"
    rows = "1,Hi,Ross,joy,positive,0,0\n2,No,Joey,anger,negative,0,1\n3,Hi,Ross,joy,positive,0,0\n"
    path = write(tmp_path / "train_sent_emo.csv", f"{columns}\n{rows}")
    message = re.escape(f"{path}:4: dia0_utt0 occurs in {path}:2 too")
    with pytest.raises(DataError, match=message):
        CORPORA["meld"](tmp_path)


def msp(root: Path, *names: str) -> Path:
    (root / "Audios").mkdir(parents=True)
    (root / "Audios" / "MSP-PODCAST_0001_0008.wav").touch()
    header = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Split_Set"
    rows = [f"{name},N,4,4,4,7,Train" for name in names]
    write(root / "Labels" / "labels_consensus.csv", "\n".join([header, *rows]) + "\n")
    return root


def test_labels_of_msp_without_suffix_and_of_other_clips(tmp_path: Path) -> None:
    (row,) = CORPORA["msp_podcast"](msp(tmp_path / "a", "MSP-PODCAST_0001_0008"))
    assert row.media == "Audios/MSP-PODCAST_0001_0008.wav"
    assert (row.key, row.split) == ("msp_podcast-MSP-PODCAST_0001_0008", "train")
    others = msp(tmp_path / "b", "MSP-PODCAST_0009_0001.wav")
    message = r"such as MSP-PODCAST_0009_0001.wav\) has a file \(such as Audios/MSP-PODCAST_0001"
    with pytest.raises(DataError, match=message):
        CORPORA["msp_podcast"](others)
    assert run("msp_podcast", others, "--out", tmp_path / "out") == 4
    twice = msp(tmp_path / "c", "MSP-PODCAST_0001_0008", "MSP-PODCAST_0001_0008.wav")
    with pytest.raises(DataError, match=r"labels_consensus\.csv:3: MSP-PODCAST_0001_0008 occurs"):
        CORPORA["msp_podcast"](twice)


def test_ids_that_a_spreadsheet_took_for_formulas(tmp_path: Path) -> None:
    text = "video_id,clip_id,label\nabc,0,1.0\n#NAME?,1,2.0\n"
    path = write(tmp_path / "label.csv", text)
    with pytest.raises(DataError, match=r"label\.csv:3: video_id holds #NAME\?"):
        CONVERTERS["mosei"](path, tmp_path / "out")
    write(path, "video_id,clip_id,Label,label\nabc,0,1,2\n")
    with pytest.raises(DataError, match="names the column label twice"):
        CONVERTERS["mosei"](path, tmp_path / "out")


def test_a_mark_before_objects_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '\ufeff{"text": "x"}\r\n\r\n{"text": "y"}')
    assert [row.key for row in CORPORA["table"](path)] == ["a-1", "a-2"]
    assert [row.transcript for row in CORPORA["table"](path)] == ["x", "y"]


def test_the_old_command_for_texts_names_the_new_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "a.csv", "text\nso\n")
    assert run("text", table, "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        "error: prepare text is now a part of `mmembed prepare table`: use that\n"
    )
