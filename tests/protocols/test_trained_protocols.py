"""EmoBox and SUPERB: folds, leaks and heads, beside plain loops that train the same."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.emotional import clip, emotion_of, speaker_of, write_clips
from helpers.prepared import write_embeddings
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from torch import Tensor, nn

from mmembed.commands.evaluate import main
from mmembed.data.shards.layout import Record
from mmembed.errors import UsageError
from mmembed.protocols import heads, superb_er
from mmembed.studies.probe import cross_predict, read_labelled

RATE = 1e-2  # 100 times that of the protocols, so that few steps matter
Fold = tuple[list[int], list[int]]


def evaluate(tmp_path: Path, *arguments: object) -> dict[str, Any]:
    """What the command writes of its only folder."""
    out = tmp_path / "out.json"
    main([*map(str, arguments), "--out", str(out)])
    (written,) = json.loads(out.read_text())["embeddings"].values()
    assert isinstance(written, dict)
    return written


def write_folds(path: Path, rows: Iterable[tuple[str, str | None, str]]) -> Path:
    lines = (f"{name},{emotion or ''},{folds}\n" for name, emotion, folds in rows)
    path.write_text("file,emotion,test_folds\n" + "".join(lines))
    return path


def trained(
    parameters: list[Tensor], scores: Any, fold: Fold, limit: float, epochs: int
) -> np.ndarray:
    """Classes of the test clips, by a head trained clip by clip; seed 0, batches of 32."""
    train, test = fold
    names = sorted({str(emotion_of(n)) for n in range(3)})
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(train), generator=generator).tolist()
        for start in range(0, len(order), 32):
            losses = []
            for place in order[start : start + 32]:
                truth = torch.tensor(names.index(str(emotion_of(train[place]))))
                losses.append(nn.functional.cross_entropy(scores(train[place]), truth))
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            nn.utils.clip_grad_norm_(parameters, limit)
            optimizer.step()
    return np.array([names[int(scores(n).argmax())] for n in test])


def means(folds: list[Fold], predicted: list[np.ndarray]) -> list[float]:
    each = []
    for (_, test), ours in zip(folds, predicted, strict=True):
        truth = [emotion_of(n) for n in test]
        macro = f1_score(truth, ours, average="macro")
        each.append((accuracy_score(truth, ours), balanced_accuracy_score(truth, ours), macro))
    return [*np.mean(each, axis=0)]


def three(told: dict[str, Any]) -> list[float]:
    return [told["accuracy"], told["uar"], told["macro_f1"]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (heads.LEARNING_RATE, heads.BATCH) == (1e-4, 32)
    monkeypatch.setattr(heads, "LEARNING_RATE", RATE)


@pytest.mark.usefixtures("quick")
def test_emobox_trains_its_head_in_the_folds_of_the_table(tmp_path: Path) -> None:
    folder = write_clips(tmp_path / "audio", range(36), strength=0.7)
    tested = {"1": range(0, 12), "2": range(10, 20)}
    rows = [
        (f"{n:03}", emotion_of(n), ";".join(f for f, held in tested.items() if n in held))
        for n in range(36)
    ]
    table = write_folds(tmp_path / "folds.csv", rows)
    told = evaluate(tmp_path, "emobox", folder, "--folds-file", table, "--epochs", 8)
    folds = [([n for n in range(36) if n not in held], [*held]) for held in tested.values()]
    frames = []
    for n in range(36):
        held = torch.from_numpy(clip(n, 0.7).members["frames.npy"].astype(np.float32))
        frames.append((held - held.mean()) / (held.var(unbiased=False) + 1e-5).sqrt())
    predicted = []
    for fold in folds:
        torch.manual_seed(0)
        before, after = nn.Linear(4, 256), nn.Linear(256, 3)

        def scores(n: int, before: nn.Linear = before, after: nn.Linear = after) -> Tensor:
            return after(torch.relu(before(frames[n])).mean(0))

        parameters = [*before.parameters(), *after.parameters()]
        predicted.append(trained(parameters, scores, fold, 5.0, 8))
    assert three(told) == pytest.approx(means(folds, predicted))
    assert 0.5 < told["accuracy"] < 1
    sides = [[{speaker_of(n) for n in part} for part in fold] for fold in folds]
    leaks = [(len(test), len(test & train)) for train, test in sides]
    told_leaks = [(f["test_speakers"], f["test_speakers_in_training"]) for f in told["folds"]]
    assert told_leaks == leaks == [(4, 4), (4, 4)]
    data = read_labelled(folder)
    unseen = balanced_accuracy_score(data.labels, cross_predict(data, 6))
    assert told["honest"]["uar"] == pytest.approx(unseen)


def test_emobox_tells_what_the_table_and_the_folder_lack(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its folds are clean here: a speaker is on one side. Names are stems of media, or keys."""
    folder = write_clips(tmp_path / "audio", range(40))
    rows = [(f"{n:03}", emotion_of(n), "1" if speaker_of(n) == "s5" else "") for n in range(35)]
    rows[3] = ("3", rows[3][1], "")  # of the key clip-3
    rows[4] = (rows[4][0], None, "")
    table = write_folds(tmp_path / "folds.csv", [*rows, ("absent", "joy", "1"), ("b", "joy", "2")])
    told = evaluate(tmp_path, "emobox", folder, "--folds-file", table, "--epochs", 1)
    printed = capsys.readouterr().out
    assert "5 clips not in the list of folds left out" in printed
    assert "1 clip without a class left out" in printed
    assert "2 of 37 clips of the list are not here" in printed
    assert "without a test clip here, left out: fold 2" in printed
    assert "fold 1: 0 of 1 test speaker is in training" in printed
    assert [(f["train"], f["test"]) for f in told["folds"]] == [(29, 5)]
    assert told["clips"] == told["honest"]["items"] == 34


@pytest.mark.usefixtures("quick")
def test_superb_weighs_layers_and_holds_out_speakers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_clips(tmp_path / "audio", range(36), strength=3.0)
    monkeypatch.setattr(superb_er, "STEPS", 12)  # a training part is one batch: 12 epochs
    told = evaluate(tmp_path, "superb-er", folder)
    untrained = evaluate(tmp_path, "superb-er", folder, "--epochs", 1)
    assert untrained["accuracy"] < 0.5 < told["accuracy"]
    speakers = [["s0", "s5"], ["s1"], ["s2"], ["s3"], ["s4"]]
    folds = [
        (
            [n for n in range(36) if speaker_of(n) not in held],
            [n for n in range(36) if speaker_of(n) in held],
        )
        for held in speakers
    ]
    layers = [torch.from_numpy(clip(n, 3.0).members["layers.npy"])[:, :4] for n in range(36)]
    predicted = []
    for fold in folds:
        torch.manual_seed(0)
        weights, linear = torch.zeros(3, requires_grad=True), nn.Linear(4, 3)

        def scores(n: int, weights: Tensor = weights, linear: nn.Linear = linear) -> Tensor:
            each = weights.exp() / weights.exp().sum()
            return linear(sum((each[i] * layers[n][i] for i in range(3)), torch.zeros(4)))

        parameters = [weights, *linear.parameters()]
        predicted.append(trained(parameters, scores, fold, 1.0, 12))
    assert three(told) == pytest.approx(means(folds, predicted))
    leaks = [(f["test_speakers"], f["test_speakers_in_training"]) for f in told["folds"]]
    assert leaks == [(2, 0), (1, 0), (1, 0), (1, 0), (1, 0)]


@pytest.mark.usefixtures("quick")
def test_the_weight_of_the_layer_that_tells_the_class_grows() -> None:
    labels = np.array([emotion_of(n) for n in range(60)])
    layers = torch.randn(60, 3, 4, generator=torch.Generator().manual_seed(0))
    for n in range(60):
        layers[n, 1, n % 3] += 3
    made: list[superb_er.LayerWeightedHead] = []

    def make(classes: int) -> nn.Module:
        made.append(superb_er.LayerWeightedHead(3, 4, classes))
        return made[0]

    rows = np.arange(60)
    options: dict[str, Any] = {"gradient_norm": 1.0, "epochs": 60, "seed": 0, "fold": "1"}
    predicted = heads.train_and_predict(make, [*layers], labels, rows[:40], rows[40:], **options)
    weights = made[0].weights.softmax(0)
    assert weights[1] > 2 * max(weights[0], weights[2])
    assert (predicted == labels[40:]).mean() > 0.6


def test_what_cannot_be_trained_is_one_line(tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        with pytest.raises(UsageError) as error:
            main([*map(str, arguments)])
        assert "\n" not in str(error.value)
        return str(error.value)

    folder = write_clips(tmp_path / "audio", range(12))
    listed = [(f"{n:03}", emotion_of(n), "") for n in range(12)]
    table = tmp_path / "folds.csv"
    arguments = ("emobox", folder, "--folds-file", table, "--epochs", 1)
    assert "cannot be read as a table of folds" in told(*arguments)
    table.write_text("file,emotion\n000,joy\n")
    assert "needs the columns file, emotion, test_folds" in told(*arguments)
    write_folds(table, [*listed, listed[0]])
    assert "lists 000 twice, line 14" in told(*arguments)
    write_folds(table, listed)
    assert "no clip here is in the test part of a fold" in told(*arguments)
    write_folds(table, [(name, emotion, "7") for name, emotion, _ in listed])
    assert "fold 7 has no training clip here" in told(*arguments)
    write_folds(table, [("of another corpus", "joy", "1")])
    assert "holds no clip with a class; 12 clips not in the list of folds" in told(*arguments)
    write_folds(
        table, [(name, emotion, "1" if name < "004" else "") for name, emotion, _ in listed]
    )
    records = [clip(n, 1.0) for n in range(12)]
    bare = [
        Record(r.key, {n: x for n, x in r.members.items() if n != "frames.npy"}, r.meta)
        for r in records
    ]
    write_embeddings(tmp_path / "utterances", bare, ["audio"])
    other = ("emobox", tmp_path / "utterances", *arguments[2:])
    assert "clip-0 holds no frames; extract it with --granularity frame" in told(*other)
    assert "emobox needs --folds-file" in told("emobox", folder)
    assert "--folds-file: maeb makes its own" in told("maeb", folder, "--folds-file", table)
    assert "--epochs 3: 1 at least, and of emobox and" in told("maeb", folder, "--epochs", 3)
    assert "--epochs 0: 1 at least" in told("superb-er", folder, "--epochs", 0)
    unknown = write_clips(tmp_path / "unknown", range(12), speaker=lambda n: None)
    assert "12 of 12 clips have none" in told("superb-er", unknown)
