"""Protocols: their folds and scores as others compute them, and leaks told with numbers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.emotional import EMOTIONS, clip, emotion_of, speaker_of, write_clips
from helpers.prepared import example, write_embeddings, write_prepared
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import KFold

from mmembed.commands.evaluate import main
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import UsageError
from mmembed.studies.probe import cross_predict, probe, read_labelled


def evaluate(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """What the command writes."""
    out = tmp_path / "out.json"
    main([*map(str, arguments), "--out", str(out)])
    written: dict[str, Any] = json.loads(out.read_text())
    return written


def test_maeb_is_the_classification_of_mteb(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "audio")
    told = evaluate(tmp_path, "maeb", folder)["embeddings"][str(folder)]
    vectors = np.stack([clip(n, 2.0).members["pooled.npy"] for n in range(60)])
    labels = np.array([emotion_of(n) for n in range(60)])
    order = list(range(48))
    scores, shared = [], []
    for train, test in KFold(5, shuffle=True, random_state=42).split(vectors):
        np.random.RandomState(42).shuffle(order)
        chosen: list[int] = []
        for place in order:
            if sum(labels[train[p]] == labels[train[place]] for p in chosen) < 8:
                chosen.append(place)
        rows = train[chosen]
        assert sorted(labels[rows]) == sorted([*EMOTIONS] * 8)
        found = LogisticRegression(max_iter=100).fit(vectors[rows], labels[rows])
        predicted = found.predict(vectors[test])
        scores.append(
            (
                accuracy_score(labels[test], predicted),
                f1_score(labels[test], predicted, average="macro"),
                balanced_accuracy_score(labels[test], predicted),
            )
        )
        tested = {speaker_of(n) for n in test}
        shared.append((len(tested), len(tested & {speaker_of(n) for n in rows})))
    mean = np.mean(scores, axis=0)
    assert (told["accuracy"], told["macro_f1"], told["uar"]) == pytest.approx((*mean,))
    assert 0.5 < told["accuracy"] < 1
    leaks = [(f["test_speakers"], f["test_speakers_in_training"]) for f in told["folds"]]
    assert leaks == shared and sum(both for _, both in leaks) > 20
    assert [(f["train"], f["test"]) for f in told["folds"]] == [(24, 12)] * 5


def test_honest_is_the_probe_and_stands_beside_every_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_clips(tmp_path / "audio")
    data = read_labelled(folder)
    expected, predicted = probe(data, folds=6), cross_predict(data, 6)
    told = evaluate(tmp_path, "honest", folder)["embeddings"][str(folder)]
    assert told["honest"] == expected
    assert told["accuracy"] == pytest.approx(accuracy_score(data.labels, predicted))
    assert told["uar"] == pytest.approx(balanced_accuracy_score(data.labels, predicted))
    macro = f1_score(data.labels, predicted, average="macro")
    assert told["macro_f1"] == pytest.approx(macro)
    assert [f["test_speakers_in_training"] for f in told["folds"]] == [0] * 6
    assert "fold 6: 0 of 1 test speaker is in training" in capsys.readouterr().out
    other = evaluate(tmp_path, "maeb", folder)["embeddings"][str(folder)]
    assert other["honest"] == expected
    row = next(line for line in capsys.readouterr().out.splitlines() if str(folder)[-20:] in line)
    assert f"{other['accuracy']:.3f}" in row and f"{expected['uar']:.3f}" in row


def test_a_leak_is_told_and_a_clean_corpus_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two = write_clips(tmp_path / "two", speaker=lambda n: f"s{n // 3 % 2}")
    main(["maeb", str(two)])
    printed = capsys.readouterr().out
    assert printed.count("2 of 2 test speakers are in training") == 5
    assert "no speaker-independent figure: 4 folds need as many speakers, found 1" in printed
    clean = write_clips(tmp_path / "clean", speaker=lambda n: f"s{n}")
    main(["maeb", str(clean)])
    printed = capsys.readouterr().out
    assert printed.count("0 of 12 test speakers are in training") == 5


def test_unknown_speakers_and_missing_classes_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_clips(
        tmp_path / "some",
        speaker=lambda n: None if n == 30 else speaker_of(n),
        emotion=lambda n: None if n > 57 else emotion_of(n),
    )
    told = evaluate(tmp_path, "maeb", folder)["embeddings"][str(folder)]
    printed = capsys.readouterr().out
    assert told["clips"] == 58 and "2 clips without a class left out" in printed
    assert told["honest"] is None
    assert "figure: speakers cannot be kept apart: 1 of 58 clips have none" in printed
    unknown = [fold for fold in told["folds"] if fold["clips_without_speaker"]]
    assert unknown and all(fold["test_speakers_in_training"] is None for fold in unknown)
    assert "cannot be known: 1 of 36 clips have no speaker" in printed
    with pytest.raises(UsageError, match="honest: speakers cannot be kept apart: 1 of 58 clips"):
        main(["honest", str(folder)])


def test_folders_with_the_same_clips_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In whatever order their records are."""
    weak = write_clips(tmp_path / "weak", strength=0.5)
    strong = write_clips(tmp_path / "strong", reversed(range(60)), strength=3.0)
    told = evaluate(tmp_path, "honest", weak, strong)["embeddings"]
    gap = told[str(strong)]["difference"]
    figures = [told[str(folder)]["honest"]["uar"] for folder in (weak, strong)]
    assert gap["mean"] == pytest.approx(figures[1] - figures[0])
    assert 0 < gap["low"] < gap["mean"] < gap["high"]
    assert f"less that of {weak}: {gap['mean']:+.3f}, 95 % interval" in capsys.readouterr().out
    fewer = write_clips(tmp_path / "fewer", range(57))
    told = evaluate(tmp_path, "honest", weak, fewer)["embeddings"]
    assert told[str(fewer)]["difference"] is None
    assert "is not compared with" in capsys.readouterr().out


def test_features_stand_beside_embeddings_of_the_same_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In whatever order; two columns that tell the emotion are not lost among many that do not."""
    folder = write_clips(tmp_path / "audio", strength=0.5)
    numbers = [*reversed(range(54)), 99]
    beside = write_features(tmp_path / "units", numbers)
    told = evaluate(tmp_path, "honest", folder, "--beside", beside)["embeddings"]
    printed = capsys.readouterr().out
    alone, features, both = (one["honest"] for one in told.values())
    assert [*told] == [str(folder), str(beside), f"{folder} + {beside}"]
    fewer = write_clips(tmp_path / "fewer", range(54), strength=0.5)
    assert alone == evaluate(tmp_path, "honest", fewer)["embeddings"][str(fewer)]["honest"]
    assert alone["items"] == features["items"] == both["items"] == 54
    assert printed.count("6 clips without features left out") == 3
    vectors = np.stack([units_of(n).mean(0) for n in range(54)])
    deviations = np.stack([units_of(n).std(0) for n in range(54)])
    data = read_labelled(fewer)
    only = replace(data, vectors=np.hstack([vectors, deviations]))
    assert features["uar"] == pytest.approx(probe(only, folds=6)["uar"])
    gap = told[f"{folder} + {beside}"]["difference"]
    assert gap["mean"] == pytest.approx(both["uar"] - alone["uar"]) and gap["low"] > 0


def units_of(number: int) -> np.ndarray:
    """Some steps of two numbers, of which the first tells joy and the second anger."""
    steps = np.random.default_rng(number).standard_normal((2 + number % 3, 2)).astype(np.float32)
    return steps + np.float32(3) * np.array([number % 3 == 2, number % 3 == 0], np.float32)


def write_features(folder: Path, numbers: Iterable[int], emotion: str | None = None) -> Path:
    """As `mmembed prepare` makes shards of them."""
    records = []
    for n in numbers:
        labels = Labels(category=emotion or emotion_of(n))
        row = Utterance(f"clip-{n}", None, streams=("video",), speaker=speaker_of(n), labels=labels)
        records.append(Record(*to_record(Example(row, features={"video": units_of(n)}))))
    write_shard(shard_path(folder, 0), records, {})
    return folder


def test_what_cannot_be_evaluated_is_one_line(tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        with pytest.raises(UsageError) as error:
            main([*map(str, arguments)])
        assert "\n" not in str(error.value)
        return str(error.value)

    records = [clip(n, 1.0) for n in range(12)]
    bare = [
        Record(r.key, {n: x for n, x in r.members.items() if n != "layers.npy"}, r.meta)
        for r in records
    ]
    write_embeddings(tmp_path / "pooled", bare, ["audio"])
    assert "holds no layers; extract it with --granularity utt" in told("maeb", tmp_path / "pooled")
    unlabelled = write_clips(tmp_path / "none", range(6), emotion=lambda n: None)
    assert "holds no clip with a class" in told("maeb", unlabelled)
    one = write_clips(tmp_path / "one", range(6), emotion=lambda n: "joy")
    assert "all clips are joy" in told("honest", one)
    few = write_clips(tmp_path / "few", range(4))
    assert "maeb: 5 folds need as many clips, found 4" in told("maeb", few)
    assert "--folds 1" in told("honest", few, "--folds", 1)
    assert "name a folder" in told("honest")
    beside = write_features(tmp_path / "features", range(12), emotion="joy")
    assert "clip-0 is of joy there, of anger here" in told("honest", few, "--beside", beside)
    far = write_features(tmp_path / "far", [99])
    assert "keys here are such as clip-0, there clip-99" in told("honest", few, "--beside", far)
    heard = write_prepared(tmp_path / "heard", [example(0)]) / "shards"
    assert "holds no precomputed features" in told("honest", few, "--beside", heard)
    assert "--beside: goes with honest" in told("maeb", few, "--beside", beside)
