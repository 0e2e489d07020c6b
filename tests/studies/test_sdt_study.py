"""SDT's study on made-up dialogues: what it reads, holds out, numbers, trains and scores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.page import read_page
from helpers.tiny_bert import write_random_bert
from mmembed_train.finetune import main

from mmembed.batch import UNLABELLED, Padded
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance, row_of
from mmembed.data.shards.layout import Record, finish, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import UsageError
from mmembed.io.json import write_json
from mmembed.methods.sdt import SDT
from mmembed.report import write_report
from mmembed.settings.finetune import SDTRun
from mmembed.settings.methods import SDTConfig
from mmembed.studies.sdt import SDTStudy
from mmembed.studies.sdt_data import Dialogues, read_dialogues

Vectors = dict[str, list[float]]


def turn(
    dialogue: str, place: int, category: str | None, vectors: Vectors | None = None, **row: Any
) -> Example:
    """A turn of a dialogue whose name begins with its split."""
    features = {name: np.array([x], np.float32) for name, x in (vectors or {}).items()}
    utterance = Utterance(
        f"{dialogue}_{place}",
        "features/all.safetensors#0" if features else None,
        dialogue=dialogue,
        turn=place,
        **{"split": dialogue.split("-")[0], "labels": Labels(category=category), **row},
    )
    return Example(utterance, text=row.get("transcript"), features=features)


def write(folder: Path, turns: list[Example]) -> str:
    write_shard(shard_path(folder, 0), [Record(*to_record(example)) for example in turns], {})
    return str(folder)


def pairs(splits: dict[str, int], **row: Any) -> list[Example]:
    """Dialogues of two turns, the second happy or sad; text tells which, sound is noise."""
    draw = np.random.default_rng(0)
    return [
        turn(
            f"{split}-{number:02}",
            place,
            ("sad", "happy")[number % 2] if place else None,
            {"text": [number % 2, 1.0], "audio": draw.normal(5, 2, 3).tolist()},
            **row,
        )
        for split, count in splits.items()
        for number in range(count)
        for place in range(2)
    ]


def numbers(data: Dialogues, split: str, part: str) -> dict[str, list[int]]:
    """Dialogue -> its speakers or emotions."""
    return {dialogue.name: getattr(dialogue, part).tolist() for dialogue in data.splits[split]}


def test_turns_are_put_in_order_and_numbered(tmp_path: Path) -> None:
    x: Vectors = {"text": [1.0]}
    data = read_dialogues(
        [
            write(
                tmp_path,
                [
                    turn("train-b", 2, "sad", x, speaker="Ann"),
                    turn("train-b", 0, "calm", x, speaker="Bob"),
                    turn("train-b", 1, "odd", x, speaker="Ann"),
                    turn("train-a", 0, "sad", x, speaker="Ann"),
                    turn("train-a", 7, None, x),
                    turn("dev-a", 0, "sad", x),
                    turn("test-a", 0, "happy", x, speaker="Eve"),
                    turn("test-a", 1, "calm", x, speaker="Ann"),
                    turn("test-a", 2, "sad", x, speaker="Bob"),
                    turn("test-a", 3, "sad", x, speaker="Eve"),
                    turn("test-b", 0, "sad", x, split="heldout"),
                ],
            )
        ]
    )
    assert data.classes == ("calm", "odd", "sad") and data.num_speakers == 2
    assert numbers(data, "train", "speaker") == {"train-a": [0, -1], "train-b": [0, 1, 1]}
    assert numbers(data, "train", "emotion") == {"train-a": [2, UNLABELLED], "train-b": [0, 1, 2]}
    # Training knows neither a third speaker nor anyone happy.
    assert numbers(data, "test", "speaker") == {"test-a": [0, 1, -1, 0]}
    assert numbers(data, "test", "emotion") == {"test-a": [UNLABELLED, 0, 2, 2]}
    assert [row.turn for row in data.splits["train"][1].rows] == [0, 1, 2]


def test_the_first_tenth_of_the_dialogues_is_held_out(tmp_path: Path) -> None:
    data = read_dialogues([write(tmp_path / "a", pairs({"test": 4, "train": 28})[::-1])])
    assert list(numbers(data, "dev", "emotion")) == ["train-00", "train-01", "train-02"]
    assert len(data.splits["train"]) == 25 and len(data.splits["test"]) == 4
    folders = [
        write(tmp_path / "b", pairs({"train": 20})),
        write(tmp_path / "c", pairs({"dev": 2})),
    ]
    data = read_dialogues([*folders, write(tmp_path / "d", pairs({"test": 2}))])
    assert {split: len(x) for split, x in data.splits.items()} == {"train": 20, "dev": 2, "test": 2}


def test_streams_are_standardised_and_what_is_missing_is_zero(tmp_path: Path) -> None:
    turns = pairs({"train": 20, "dev": 2, "test": 2})
    steps = np.array([[1, 2, 3], [3, 4, 5]], np.float32)
    turns[0] = replace(turns[0], features={"audio": steps})
    data = read_dialogues([write(tmp_path, turns)])
    assert data.widths == {"audio": 3, "text": 2}
    audio = torch.cat([dialogue.streams["audio"] for dialogue in data.splits["train"]])
    torch.testing.assert_close(audio.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(audio.std(0, unbiased=False), torch.ones(3))
    raw = np.stack([steps.mean(0), *(x.features["audio"][0] for x in turns[1:40])])
    torch.testing.assert_close(audio, torch.from_numpy((raw - raw.mean(0)) / raw.std(0)))
    text = data.splits["train"][0].streams["text"]
    assert not text[0].any() and text[1].any()


def test_transcripts_are_read_where_there_is_no_text(tmp_path: Path) -> None:
    model = write_random_bert(tmp_path, ("so", "joy", "good", "bad"))
    said = {"train": ("so good", " ", "so bad", "so good"), "dev": ("so bad",), "test": ("joy",)}
    turns = [
        turn(f"{split}-0", place, ("sad", "happy")[place % 2], transcript=words)
        for split, spoken in said.items()
        for place, words in enumerate(spoken)
    ]
    turns[3] = replace(turns[3], features={"audio": np.ones((1, 2), np.float32)})
    folder = write(tmp_path / "shards", turns)
    data = read_dialogues([folder], str(model))
    assert data.widths == {"audio": 2, "text": 16}
    text = data.splits["train"][0].streams["text"]
    assert torch.equal(text[0], text[3]) and not torch.equal(text[0], text[2])
    assert not text[1].any()
    assert read_dialogues([folder]).widths == {"audio": 2}
    with pytest.raises(UsageError, match="text features already; leave --backbone out"):
        read_dialogues([write(tmp_path / "b", pairs({"train": 4, "test": 2}))], str(model))
    silent = [turn(f"{split}-0", 0, "sad") for split in ("train", "test")]
    with pytest.raises(UsageError, match="no turn has a transcript for --backbone"):
        read_dialogues([write(tmp_path / "c", silent)], str(model))


def test_variants_and_their_batches(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", pairs({"train": 20, "dev": 2, "test": 2}, speaker="Ann"))
    study = SDTStudy(SDTRun(shards=(folder,), balanced=True, method=SDTConfig(width=16)))
    assert study.variants == ("sdt", "without distillation", "without speakers", "without context")
    assert study.run.method.streams == ("audio", "text") and study.run.method.num_speakers == 1
    assert study.run.method.class_weights == (1.0, 1.0)
    methods = {variant: study.method(variant) for variant in study.variants}
    assert methods["without distillation"].weights["distillation"] == 0
    assert isinstance(methods["without speakers"], SDT)
    assert methods["without speakers"].speaker is None
    whole = study.batch("sdt", "train", [3, 1])
    assert whole.keys == ("train-03", "train-01")
    assert whole.inputs["text"].lengths.tolist() == [2, 2]
    alone = study.batch("without context", "train", [3, 1])
    assert alone.inputs["text"].lengths.tolist() == [1, 1, 1, 1]
    for name, part in {**whole.inputs, **whole.targets}.items():
        other = {**alone.inputs, **alone.targets}[name]
        assert isinstance(part, Padded) and isinstance(other, Padded)
        assert torch.equal(part.pack().values, other.pack().values)
    answers = [study.predict(name, "test", method.eval()) for name, method in methods.items()]
    assert all(np.shape(answer) == (2, 2) for answer in answers)
    assert study.tests["test"].keys == ("test-00_1", "test-01_1")
    unknown = SDTStudy(SDTRun(shards=(write(tmp_path / "b", pairs({"train": 20, "test": 2})),)))
    assert "without speakers" not in unknown.variants and unknown.run.method.num_speakers == 0


def test_what_the_turn_before_says_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the turn before tells the emotion of a turn, whose own words are noise."""
    draw, turns = np.random.default_rng(0), []
    for split, count in {"train": 100, "dev": 20, "test": 80}.items():
        for number in range(count):
            x = draw.normal(0, 1, (2, 2)).tolist()
            emotion = "happy" if x[0][0] > 0 else "sad"
            turns.append(turn(f"{split}-{number:03}", 0, None, {"text": x[0]}))
            turns.append(turn(f"{split}-{number:03}", 1, emotion, {"text": x[1]}))
    shards, out = write(tmp_path / "shards", turns), tmp_path / "out"
    small = "--method.width 16 --method.num-heads 2 --method.dropout 0.1"
    short = "--optim.lr 1e-2 --loop.epochs 8 --loop.batch-size 8 --loop.seeds 0"
    main(["sdt", "--shards", shards, "--out", str(out), *small.split(), *short.split()])
    assert "without context" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    test = results["tests"]["test"]
    rows = {**test["variants"], **test["baselines"]}
    scores = {name: row["weighted_f1"]["mean"] for name, row in rows.items()}
    assert test["items"] == 80 and results["items"] == {"train": 100, "dev": 20}
    assert scores["sdt"] > 0.85
    assert scores["without context"] < 0.65 and scores["logistic regression"] < 0.65
    assert results["gates"] == {"text": 1}


def test_two_dialogues_are_told_and_shown(tmp_path: Path) -> None:
    turns = pairs({"train": 20, "dev": 2, "test": 4}, speaker="Ann", transcript="<so>")
    turns += [turn("test-long", i, "sad", {"audio": [1.0, 1, 1]}) for i in range(13)]
    turns += [turn("test-dense", i, ("sad", "happy")[i % 2], {"text": [1, 1]}) for i in range(3)]
    run = SDTRun(shards=(write(tmp_path, turns),), method=SDTConfig(width=16))
    study = SDTStudy(run)
    methods = [study.method("sdt").eval() for _ in range(2)]
    results = study.extras(tmp_path, lambda variant: methods)
    # Those with a turn of one stream alone are among the mean: 13 sounds, 3 texts.
    assert set(results["gates"]) == {"audio", "text"}
    assert sum(results["gates"].values()) == pytest.approx(1)
    told = json.loads((tmp_path / "explanations.json").read_text())["dialogues"]
    assert [dialogue["name"] for dialogue in told] == ["test-dense", "test-00"]
    assert [turn["true"] for turn in told[0]["turns"]] == ["sad", "happy", "sad"]
    assert [turn["gates"] for turn in told[0]["turns"]] == [{"audio": 0, "text": 1}] * 3
    assert told[1]["turns"][0]["true"] is None
    attention = told[1]["attention"]
    assert set(attention) == {"audio_to_audio", "audio_to_text", "text_to_audio", "text_to_text"}
    assert np.sum(attention["audio_to_text"], 1) == pytest.approx(np.ones(2), abs=0.01)
    write_json(tmp_path / "results.json", {"tests": {}})
    write_json(tmp_path / "run.json", {"name": "sdt"})
    page = read_page(write_report(tmp_path).read_text())
    for text in ("test-dense", "0 Ann: <so>", "Weight of audio", "Attention across streams"):
        assert text in page.text


def test_speakers_by_gender(tmp_path: Path) -> None:
    """As in the pickle of IEMOCAP: M is 0 and F is 1, whoever speaks first."""
    x: Vectors = {"text": [3.0, 5.0]}
    names = ("iemocap-01F", "iemocap-01M", None, "iemocap-02F")
    turns = [
        turn(f"{split}-a", place, ("sad", "happy")[place % 2], x, speaker=name)
        for split in ("train", "dev", "test")
        for place, name in enumerate(names)
    ]
    folder = write(tmp_path / "a", turns)
    by_turn = read_dialogues([folder])
    assert by_turn.splits["train"][0].speaker.tolist() == [0, 1, -1, 2]
    data = read_dialogues([folder], by_gender=True, standardise=False)
    (dialogue,) = data.splits["train"]
    assert dialogue.speaker.tolist() == [1, 0, -1, 1] and data.num_speakers == 2
    assert dialogue.streams["text"].tolist() == [[3.0, 5.0]] * 4  # as it came
    assert not by_turn.splits["train"][0].streams["text"].any()
    assert [int(one.speaker) for one in dialogue.alone(by_gender=True)] == [1, 0, -1, 1]
    assert [int(one.speaker) for one in by_turn.splits["train"][0].alone()] == [0, 0, -1, 0]
    with pytest.raises(UsageError, match="ends in M or F"):
        read_dialogues([write(tmp_path / "b", pairs({"train": 4, "test": 2}))], by_gender=True)


def test_the_papers_epoch_is_marked_in_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command is the paper's program: its recipe, and the epoch that is best on test."""
    shards = write(tmp_path / "shards", pairs({"train": 30, "dev": 10, "test": 10}, speaker="01M"))
    size = ["--method.width", "16", "--optim.lr", "1e-2", "--loop.epochs", "6", "--loop.seeds", "0"]
    run = ["sdt_iemocap", "--shards", shards, "--out", str(tmp_path / "out"), *size]
    main([*run, "--loop.select", "best-on-test"])
    assert "sdt (epoch chosen on test)" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["tests"]["test"]["variants"]) == {"sdt (epoch chosen on test)"}
    assert results["items"] == {"train": 40, "dev": 10}  # no epoch is chosen on dev
    settings = json.loads((tmp_path / "out" / "run.json").read_text())
    assert settings["method"]["num_speakers"] == 2 and settings["optim"]["kind"] == "adam"
    page = read_page(write_report(tmp_path / "out").read_text())
    assert "epoch chosen on test" in page.text
    with pytest.raises(UsageError, match="--variants 'sdtt': one of sdt"):
        SDTStudy(SDTRun(shards=(shards,), variants=("sdtt",)))


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "no dialogues: rows need dialogue, turn, and split"),
        (pairs({"train": 4}), "dialogues of the splits train; needs train, test"),
        ([turn(f"{s}-0", 0, "sad") for s in ("train", "dev", "test")], "needs two classes"),
        (
            [turn(f"{s}-0", n, i) for s in ("train", "test") for n, i in enumerate(("a", "b"))],
            "one training dialogue alone and no split dev",
        ),
        (
            [turn(f"{s}-{i}", 0, i) for s in ("train", "dev", "test") for i in ("sad", "happy")],
            "neither features nor transcripts",
        ),
        (
            [
                turn(f"{s}-{i}", 0, i, transcript="so")
                for s in ("train", "dev", "test")
                for i in ("sad", "happy")
            ],
            "give --backbone FOLDER",
        ),
        (
            [*pairs({"train": 8, "dev": 2}), turn("test-0", 0, "proud", {"text": [1.0, 2.0]})],
            "no turn of split test has a class of training",
        ),
        (
            [*pairs({"train": 8, "dev": 2}), turn("test-0", 0, "sad", {"text": [1.0]})],
            r"text vectors have the widths \[1, 2\]",
        ),
    ],
)
def test_shards_that_do_not_serve_are_told(
    tmp_path: Path, turns: list[Example], message: str
) -> None:
    stranger = Example(Utterance("stranger", "features/all.safetensors#0", split="train"))
    with pytest.raises(UsageError, match=message):
        read_dialogues([write(tmp_path, [stranger, *turns])])


def test_no_shards_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --shards DIR"):
        SDTStudy(SDTRun())
    with pytest.raises(UsageError, match="give one of them"):
        SDTStudy(SDTRun(shards=(str(tmp_path),), embeddings=str(tmp_path)))


def test_turns_are_means_over_the_layers_of_embeddings(tmp_path: Path) -> None:
    said = pairs({"train": 8, "dev": 2, "test": 3}, speaker="anna")
    said.append(turn("heldout-0", 0, "sad"))  # of no split that is read
    layers = {}
    for stream in ("audio", "text"):
        records = []
        for example in said:
            row, draw = example.utterance, np.random.default_rng([*map(ord, example.key + stream)])
            if stream == "text" and row.key == "train-00_1":
                continue  # not transcribed
            layers[stream, row.key] = draw.normal(size=(3, 4)).astype(np.float32)
            members = {"layers.npy": layers[stream, row.key], "json": row_of(row)}
            records.append(Record(row.key, members, {"split": row.split, "speaker": row.speaker}))
        write_shard(shard_path(tmp_path / stream, 0), records, {})
        finish(tmp_path / stream, encoder_sha256="0" * 64, streams=[stream])
    data = read_dialogues((), embeddings=str(tmp_path))
    assert data.widths == {"audio": 4, "text": 4} and data.classes == ("happy", "sad")
    assert [len(data.splits[split]) for split in ("train", "dev", "test")] == [8, 2, 3]
    for stream in data.widths:
        means = {key: x.mean(0) for (name, key), x in layers.items() if name == stream}
        train = np.stack([x for key, x in means.items() if key.startswith("train")])
        for dialogue in data.splits["train"] + data.splits["test"]:
            for vector, key in zip(dialogue.streams[stream].numpy(), dialogue.keys, strict=True):
                known = (means[key] - train.mean(0)) / train.std(0) if key in means else 0.0
                np.testing.assert_allclose(vector, known + np.zeros(4), atol=1e-4)
