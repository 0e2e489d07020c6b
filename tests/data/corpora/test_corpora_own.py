"""Readers of one's own clips: folders, tables, saved datasets."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmembed.data.corpora import CONVERTERS, CORPORA
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "audio": {"sampling_rate": 16000, "_type": "Audio"},
    "sentence": {"dtype": "string", "_type": "Value"},
    "speaker_id": {"dtype": "int64", "_type": "Value"},
    "label": {"names": ["Anger", "neutral"], "_type": "ClassLabel"},
    "locale": {"dtype": "string", "_type": "Value"},
}
TYPES = {"audio": AUDIO, "sentence": pa.string(), "speaker_id": pa.int64(), "label": pa.int64(),
         "locale": pa.string()}  # fmt: skip
ROWS: list[dict[str, Any]] = [
    {"audio": {"bytes": b"RIFFone", "path": "one.WAV"}, "sentence": "One.", "speaker_id": 7,
     "label": 0, "locale": "en-GB"},
    {"audio": {"bytes": b"fLaCtwo", "path": "../x/two.flac"}, "sentence": None, "speaker_id": None,
     "label": -1, "locale": "klingon"},
    {"audio": {"bytes": None, "path": "/far/three.flac"}, "sentence": "Three.", "speaker_id": 0,
     "label": 1, "locale": "de"},
]  # fmt: skip


def write(root: Path, name: str, text: str = "") -> Path:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def save(folder: Path, rows: list[dict[str, Any]], files: int = 1) -> None:
    """What save_to_disk writes of one split."""
    folder.mkdir(parents=True)
    columns = {name: FEATURES[name] for name in rows[0]}
    schema = pa.schema([(name, TYPES[name]) for name in rows[0]])
    names = [f"data-{n:05d}-of-{files:05d}.arrow" for n in range(files)]
    for number, name in enumerate(names):
        part = rows[number * len(rows) // files : (number + 1) * len(rows) // files]
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema) as stream:
            for row in part:
                stream.write_batch(pa.RecordBatch.from_pylist([row], schema))
    info = {"features": columns, "license": "cc-by-4.0"}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))


# ---------------------------------------------------------------------------------- clips, tables


def test_clips(tmp_path: Path) -> None:
    root = tmp_path / "talks"
    for name in ("ann/one.mp4", "ann/one.wav", "ann/deep/er/two.MOV", "loose.flac", ".hidden.mp4"):
        write(root, name)
    for name in ("val/bob/three.opus", "train/four.mp3", "notes.txt"):
        write(root, name)
    write(root, "ann/one.txt", "\ufeffWell, yes.\n")
    write(root, "loose.txt", "\n")
    assert CORPORA["clips"](root) == [
        Utterance("talks-ann%2Fdeep%2Fer%2Ftwo", "ann/deep/er/two.MOV", speaker="talks-ann"),
        Utterance("talks-ann%2Fone", "ann/one.mp4", transcript="Well, yes.", speaker="talks-ann"),
        Utterance("talks-loose", "loose.flac"),
        Utterance("talks-train%2Ffour", "train/four.mp3", split="train"),
        Utterance(
            "talks-val%2Fbob%2Fthree", "val/bob/three.opus", speaker="talks-bob", split="dev"
        ),
    ]
    write(root, "ann/one.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"one\.txt: is UTF-16; save it as UTF-8"):
        CORPORA["clips"](root)
    with pytest.raises(DataError, match=r"holds no file of clips, such as SPEAKER/CLIP\.mp4"):
        CORPORA["clips"](write(tmp_path, "empty/notes.txt").parent)


def test_table(tmp_path: Path) -> None:
    table = write(
        tmp_path,
        "clips.csv",
        "media,start,end,transcript,turn,streams,category,present,emotions,scores.valence\n"
        'a/b.mp4,12.5,17,"well, yes",3,audio video,Anger,joy love,0 0 1.5 0 0 0,4.5\n'
        ",,,only words,,,,,,\n"
        "c.wav,,,,,,,,,\n",
    )
    assert CORPORA["table"](table) == [
        Utterance(
            key="a%2Fb%2Emp4%4012%2E5",
            media="a/b.mp4",
            start=12.5,
            end=17.0,
            transcript="well, yes",
            streams=("audio", "video"),
            turn=3,
            labels=Labels(
                emotions=(0, 0, 1.5, 0, 0, 0),
                category="angry",
                present=("joy", "love"),
                scores={"valence": 4.5},
            ),
        ),
        Utterance(key="only%20words", media=None, transcript="only words"),
        Utterance(key="c%2Ewav", media="c.wav"),
    ]


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        ("media\tspeeker\na.wav\tann\n", ":2: unknown column 'speeker'; allowed are key, media"),
        ("media\tstart\na.wav\tsoon\n", ":2: start must be a number, found 'soon'"),
        ("media\tstart\tend\na.wav\t2\t1\n", ":2: start 2.0 and end 1.0"),
        ("media\tsplit\na.wav\ttraining\n", ":2: split 'training'"),
        ("media\tspeaker\n\tann\n", ":2: needs media or a transcript"),
        ("media\na.wav\n\na.wav\n", ":4: key a%2Ewav occurs in "),
        ("media\temotions\na.wav\t1 2\n", ":2: emotions"),
        ("media\tscores.valence\na.wav\tinf\n", ":2: scores.valence must be a number"),
        ("media\tturn\na.wav\t1.5\n", ":2: turn must be a whole number, found '1.5'"),
        ("media\tspeaker\n", ": holds no line beside its header"),
        ("", ": holds no line beside its header"),
    ],
)
def test_tables_are_checked_line_by_line(tmp_path: Path, lines: str, error: str) -> None:
    table = write(tmp_path, "clips.tsv", lines)
    with pytest.raises(DataError) as caught:
        CORPORA["table"](table)
    assert str(caught.value).startswith(f"{table}{error}")


def test_a_table_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; name a table such as clips\.csv"):
        CORPORA["table"](tmp_path / "clips.csv")
    with pytest.raises(DataError, match=r"holds no file of tables, such as reviews/train\.tsv"):
        CORPORA["table"](tmp_path)


def test_columns_of_clips_may_have_the_names_of_texts(tmp_path: Path) -> None:
    header = "media,text,label,labels,id"
    table = write(tmp_path, "clips.csv", f'{header}\na.wav,Oh.,Joy,"joy,love",one\nb.wav,,,,\n')
    assert CORPORA["table"](table) == [
        Utterance(
            key="one",
            media="a.wav",
            transcript="Oh.",
            labels=Labels(category="Joy", present=("joy", "love")),
        ),
        Utterance(key="b%2Ewav", media="b.wav", labels=Labels(present=())),
    ]
    twice = write(tmp_path, "twice.csv", "media,text,transcript\na.wav,Oh.,No.\n")
    with pytest.raises(DataError, match="column 'transcript' gives a second transcript"):
        CORPORA["table"](twice)


# --------------------------------------------------------------------------------- saved datasets


def test_a_saved_dataset_of_splits(tmp_path: Path) -> None:
    source, out = tmp_path / "my.voices", tmp_path / "out"
    write(source, "dataset_dict.json", '{"splits": ["train", "validation.other"]}')
    save(source / "train", ROWS, files=2)
    save(source / "validation.other", [{"sentence": "Alone."}])
    write(source / "validation.other", "dataset_info.json", '{"features": {"sentence": {}}}')
    rows = CONVERTERS["hf_dataset"](source, out)
    assert rows == [
        Utterance(
            key="my%2Evoices-train-00000000",
            media="media.tar#my%2Evoices-train-00000000.wav",
            transcript="One.",
            language="en",
            streams=("audio", "text"),
            speaker="my.voices-7",
            split="train",
            licence="cc-by-4.0",
            labels=Labels(category="angry"),
        ),
        Utterance(
            key="my%2Evoices-train-00000001",
            media="media.tar#my%2Evoices-train-00000001.flac",
            streams=("audio",),
            split="train",
            licence="cc-by-4.0",
        ),
        Utterance(
            key="my%2Evoices-train-00000002",
            media="/far/three.flac",
            transcript="Three.",
            language="de",
            streams=("audio", "text"),
            speaker="my.voices-0",
            split="train",
            licence="cc-by-4.0",
            labels=Labels(category="neutral"),
        ),
        Utterance(
            key="my%2Evoices-validation%2Eother-00000000",
            media=None,
            transcript="Alone.",
            streams=("text",),
            split="dev",
        ),
    ]
    with tarfile.open(out / "media.tar") as tar:
        held = {member.name: member for member in tar}
        assert list(held) == [row.media.split("#")[1] for row in rows[:2] if row.media]
        wanted = {"one": b"RIFFone", "two": b"fLaCtwo"}
        for member, data in zip(held.values(), wanted.values(), strict=True):
            file = tar.extractfile(member)
            assert file is not None and file.read() == data
            assert (member.mtime, member.uid, member.uname) == (0, 0, "")
    before = (out / "media.tar").read_bytes()
    assert CONVERTERS["hf_dataset"](source, out) == rows
    assert (out / "media.tar").read_bytes() == before


def test_a_saved_dataset_without_splits_and_bytes(tmp_path: Path) -> None:
    source = tmp_path / "voices"
    save(source, [{"audio": {"bytes": None, "path": "clips/a.wav"}}])
    [row] = CONVERTERS["hf_dataset"](source, tmp_path / "out")
    assert row.key == "voices-00000000"
    assert row.media == str(source / "clips/a.wav")
    assert (row.split, row.speaker, row.transcript) == (None, None, None)
    assert list((tmp_path / "out").iterdir()) == []


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edited(name: str, **values: object) -> Any:
    def change(path: Path) -> None:
        file = path.parent / name
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (damaged, "00001.arrow: cannot be read"),
        (cut, "00001.arrow: cannot be read"),
        (Path.unlink, "00001.arrow: state.json names it"),
        (lambda path: (path.parent / "state.json").unlink(), "holds no file of a saved dataset"),
        (lambda path: (path.parent / "state.json").write_text("{"), "state.json: is not JSON"),
        (lambda path: (path.parent / "state.json").write_text("[]"), "must be a JSON object"),
        (edited("state.json", _data_files=[{"filename": "../x.arrow"}]), "which is not a name"),
        (edited("state.json", _data_files=[{"filename": ".."}]), "which is not a name"),
        (edited("state.json", _data_files=[{"filename": "a\0b"}]), "which is not a name"),
        (edited("state.json", _indices_data_files=[{"filename": "i"}]), "is a selection; save"),
        (edited("dataset_info.json", features={"image": {}}), "no column of type Audio or Video"),
        (edited("state.json", _data_files=None), "state.json: must hold '_data_files'"),
        (edited("state.json", _data_files=[3]), "names 3, which is not a name"),
        (edited("dataset_info.json", features=["text"]), "must hold 'features', a JSON dict"),
        (edited("dataset_info.json", features={"text": {}}), "cannot be read"),
        (edited("dataset_info.json", features={"label": {"_type": "Audio"}}), "media must be"),
    ],
)
def test_what_is_no_saved_dataset_is_named(tmp_path: Path, change: Any, error: str) -> None:
    source, out = tmp_path / "voices", tmp_path / "out"
    save(source, ROWS)
    change(source / "data-00000-of-00001.arrow")
    with pytest.raises(DataError, match=error):
        CONVERTERS["hf_dataset"](source, out)
    assert not out.exists() or list(out.iterdir()) == []


def test_a_folder_that_is_no_saved_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file of a saved dataset, such as train/"):
        CONVERTERS["hf_dataset"](tmp_path, tmp_path / "out")


def test_flipped_bytes_raise_or_change_nothing_else(tmp_path: Path) -> None:
    save(tmp_path / "voices", ROWS)
    arrow = tmp_path / "voices/data-00000-of-00001.arrow"
    whole = arrow.read_bytes()
    outcomes = set()
    for place in range(0, len(whole), 23):
        data = bytearray(whole)
        data[place] ^= 0xFF
        arrow.write_bytes(data)
        try:
            CONVERTERS["hf_dataset"](tmp_path / "voices", tmp_path / "out")
            outcomes.add("read")
        except DataError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
    assert io.BytesIO(whole).read(4) == b"\xff\xff\xff\xff"  # a stream, as the library writes it
