"""The emotion study on ragged data: each target on its own labels, each subset on its own clips."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers import ragged
from helpers.clips import RATE, tone
from helpers.prepared import described, write_embeddings
from mmembed_train.finetune import main
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score, f1_score

from mmembed.commands.compare import main as compare
from mmembed.commands.predict import main as predict
from mmembed.commands.report import main as report
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.errors import UsageError
from mmembed.settings.finetune import EmotionRun, FinetuneLoop
from mmembed.streams import stream_subsets, subset_name
from mmembed.studies.emotion import EmotionStudy
from mmembed.studies.results import TestPredictions

SUBSETS = sorted(map(subset_name, stream_subsets()), key=lambda name: (name.count("+"), name))
COMMON = "sentiment, clips of all subsets"


def own(subset: str) -> str:
    return f"sentiment, all clips of {subset}"


def numbers(subsets: Sequence[str], split: str) -> list[int]:
    """The clips of a split that all of these folders hold, labelled or not."""
    return [
        n
        for n in range(ragged.CLIPS)
        if ragged.split(n) == split and all(ragged.in_subset(n, s) for s in subsets)
    ]


def number(key: str) -> int:
    return int(key.removeprefix("clip-"))


@pytest.fixture(scope="module")
def run(ragged_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one seed."""
    out = tmp_path_factory.mktemp("runs") / "emotion"
    folder = str(ragged_corpus / "embeddings")
    main(
        ["emotion", "--embeddings", folder, "--out", str(out), "--loop.epochs", "3",
         "--loop.seeds", "0"]
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def results(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "results.json").read_text())
    return found


def test_each_subset_is_scored_on_its_own_clips_and_all_on_the_common_ones(
    run: Path, results: dict[str, Any]
) -> None:
    assert list(results["tests"]) == [COMMON, *map(own, SUBSETS)]
    for test, scores in results["tests"].items():
        subsets = SUBSETS if test == COMMON else [test.removeprefix(own(""))]
        scored = TestPredictions.read(run / "predictions" / f"{test}.safetensors")
        expected = [n for n in numbers(subsets, "test") if ragged.sentiment(n) is not None]
        assert sorted(map(number, scored.items.keys)) == expected and expected
        assert list(scored.variants) == subsets == list(scores["variants"])
        truth = [ragged.sentiment(number(key)) for key in scored.items.keys]
        np.testing.assert_allclose(scored.items.truth, np.array(truth, np.float32))
        groups = {ragged.speaker(n) or ragged.dialogue(n) or n for n in expected}
        assert scores["items"] == len(expected) and scores["groups"] == len(groups)
        for subset in subsets:
            told = scores["variants"][subset]
            answers = scored.variants[subset][0]
            by_hand = np.corrcoef(truth, answers)[0, 1] if np.ptp(answers) > 1e-4 else 0
            assert told["correlation"]["mean"] == pytest.approx(by_hand, abs=1e-6)
            error = np.abs(np.array(truth) - answers).mean()
            assert told["mae"]["mean"] == pytest.approx(error, abs=1e-6)
            assert ("low" in told["mae"] and told["mae"]["low"] is not None) == (len(groups) > 5)
        train = [
            x
            for n in range(ragged.CLIPS)
            if ragged.split(n) == "train" and any(ragged.in_subset(n, s) for s in subsets)
            if (x := ragged.sentiment(n)) is not None
        ]
        constant = np.abs(np.array(truth) - np.mean(train)).mean()
        assert scores["constant"]["mae"] == pytest.approx(constant, abs=1e-6)


def test_every_clip_is_predicted_from_its_own_vector(
    run: Path, ragged_corpus: Path, results: dict[str, Any]
) -> None:
    """By the file of the method, alone and in another order."""
    study = EmotionStudy(
        EmotionRun(embeddings=str(ragged_corpus / "embeddings"), loop=FinetuneLoop(seeds=(0,)))
    )
    for subset in SUBSETS:
        method = study.method(subset)
        method.load_state_dict(load_file(run / subset / "seed-0.safetensors"))
        scored = TestPredictions.read(run / "predictions" / f"{own(subset)}.safetensors")
        size = study.size(subset, "test")
        with torch.no_grad():
            for row in reversed(range(size)):
                batch = study.batch(subset, "test", [row])
                if (key := batch.keys[0]) in scored.items.keys:
                    found = float(method.eval().predict(batch)["sentiment"][0])
                    place = scored.items.keys.index(key)
                    assert scored.variants[subset][0][place] == pytest.approx(found, abs=1e-4)


def test_emotions_are_scored_on_the_clips_labelled_for_them(
    run: Path, ragged_corpus: Path, results: dict[str, Any]
) -> None:
    told = results["emotions"]
    assert list(told["by_clips"]) == [f"all clips of {subset}" for subset in SUBSETS]
    assert list(told["variants"]) == SUBSETS
    study = EmotionStudy(EmotionRun(embeddings=str(ragged_corpus / "embeddings")))
    tables = {"": (told, numbers(SUBSETS, "test"))}
    tables |= {s: (told["by_clips"][f"all clips of {s}"], numbers([s], "test")) for s in SUBSETS}
    for of, (table, clips) in tables.items():
        subsets = [of] if of else SUBSETS
        held = [n for n in range(ragged.CLIPS) if any(ragged.in_subset(n, s) for s in subsets)]
        for e, emotion in enumerate(EMOTIONS):
            labelled = [n for n in clips if is_labelled(n, e)]
            train = [n for n in held if ragged.split(n) == "train" and is_labelled(n, e)]
            if not labelled:
                assert emotion not in {**table["counts"], **table["constant"]}
                assert not any(emotion in scores for scores in table["variants"].values())
                continue
            truth = np.array([intensity(n, e) > 0 for n in labelled])
            counts = table["counts"][emotion]
            assert (counts["items"], counts["positives"]) == (len(labelled), truth.sum())
            often = np.mean([intensity(n, e) > 0 for n in train]) > 0.5
            expected = f1_score(truth, np.full(len(truth), often), average="weighted")
            assert table["constant"][emotion]["f1"] == pytest.approx(expected)
            for subset in subsets:
                answers = by_hand(study, run, subset, e)
                dev = [n for n in numbers([subset], "dev") if is_labelled(n, e)]
                threshold = best_threshold(
                    np.array([intensity(n, e) > 0 for n in dev]), [answers[n] for n in dev]
                )
                found = np.array([answers[n] for n in labelled]) > threshold
                scores = table["variants"][subset][emotion]
                f1 = f1_score(truth, found, average="weighted")
                assert scores["f1"]["mean"] == pytest.approx(f1)
                if len({*truth}) == 2:
                    both = balanced_accuracy_score(truth, found)
                    assert scores["wa"]["mean"] == pytest.approx(both)


def test_the_loss_counts_known_emotions_alone(ragged_corpus: Path) -> None:
    """Of each clip the mean over those it is labelled for; clips without any are not counted."""
    study = EmotionStudy(EmotionRun(embeddings=str(ragged_corpus / "embeddings")))
    method = study.method("audio").eval()
    batch = study.batch("audio", "train", range(study.size("audio", "train")))
    with torch.no_grad():
        predicted = method.predict(batch)["emotions"].numpy()
        told = float(method(batch)["emotions"])
    expected, counted = 0.0, 0
    for row, key in enumerate(batch.keys):
        felt = ragged.emotions(number(key))
        if felt is not None:
            known = [e for e, x in enumerate(felt) if x is not None]
            errors = [(predicted[row, e] - (felt[e] or 0.0)) ** 2 for e in known]
            expected, counted = expected + float(np.mean(errors)), counted + 1
    assert told == pytest.approx(expected, rel=1e-4) and batch.count("emotions") == counted


def is_labelled(n: int, emotion: int) -> bool:
    return (ragged.emotions(n) or (None,) * 6)[emotion] is not None


def intensity(n: int, emotion: int) -> float:
    felt = (ragged.emotions(n) or ())[emotion]
    assert felt is not None
    return felt


def by_hand(study: EmotionStudy, run: Path, subset: str, emotion: int) -> dict[int, float]:
    """Clip -> what the method says of an emotion, for all labelled clips of dev and test."""
    method = study.method(subset)
    method.load_state_dict(load_file(run / subset / "seed-0.safetensors"))
    found = {}
    for split in ("dev", "test"):
        batch = study.batch(subset, split, range(study.size(subset, split)))
        with torch.no_grad():
            values = method.eval().predict(batch)["emotions"][:, emotion].tolist()
        found |= {number(key): value for key, value in zip(batch.keys, values, strict=True)}
    return found


def best_threshold(present: np.ndarray, answers: Sequence[float]) -> float:
    """Of the quantiles .05, .10, ... of all answers, the first with the best mean of recalls."""
    best, at = -1.0, 0.0
    for candidate in np.quantile(np.array(answers, np.float32), np.linspace(0.05, 0.95, 19)):
        found = np.array(answers) > candidate
        recalls = [(found == side)[present == side].mean() for side in {*present.tolist()}]
        if np.mean(recalls) > best:
            best, at = float(np.mean(recalls)), float(candidate)
    return at


def test_files_hold_neither_nan_nor_made_up_speakers(run: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for path in run.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)
    told = json.loads((run / "predictions.json").read_text())
    assert told["speakers"] == [ragged.speaker(number(key)) for key in told["keys"]]
    assert told["sentiment"]["truth"].count(None) == sum(
        ragged.sentiment(number(key)) is None for key in told["keys"]
    )
    for key, row in zip(told["keys"], told["emotions"]["truth"], strict=True):
        known = ragged.emotions(number(key)) or (None,) * 6
        assert row == [x if x is None else pytest.approx(x, abs=1e-6) for x in known]


def test_what_comes_after_reads_it(
    run: Path, ragged_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare([str(run)])
    printed = capsys.readouterr().out
    assert COMMON in printed and own("audio") in printed
    report([str(run)])
    assert own("text") in (run / "report.html").read_text()
    whole = run.parent / "whole"  # as the demo leaves it
    (whole / "pretrain").mkdir(parents=True)
    (whole / "emotion").symlink_to(run)
    (whole / "embeddings").symlink_to(ragged_corpus / "embeddings")
    (whole / "pretrain" / "encoder").symlink_to(ragged_corpus / "encoder")
    report([str(whole)])
    page = (whole / "report.html").read_text()
    assert "Weighted accuracy" in page and "nan" not in page.lower().split("<body", 1)[1]
    capsys.readouterr()
    soundfile.write(whole / "clip.wav", tone(1.5), RATE)
    predict([str(whole / "clip.wav"), "--run", str(whole), "--json"])
    told = json.loads(capsys.readouterr().out.splitlines()[0])
    assert told["streams"] == "audio" and -3 <= told["sentiment"] <= 3


def write(folder: Path, subset: str, clips: dict[int, dict[str, Any]]) -> None:
    """Embeddings of clips, each of a split and labelled."""
    split = ("train", "dev", "test")
    records = [described(n, split=split[n % 3], labels=held) for n, held in clips.items()]
    write_embeddings(folder / subset, records, subset.split("+"))


def test_one_target_alone_has_one_table(tmp_path: Path) -> None:
    emotions = {n: {"emotions": [n % 2, 0, 1.5, 0, 0, 3]} for n in range(18)}
    sentiment = {n: {"sentiment": n % 5 - 2} for n in range(18)}
    some = {n: emotions[n] if n < 12 else sentiment[n] for n in range(18)}
    for name, clips in {"emotions": emotions, "sentiment": sentiment, "some": some}.items():
        write(tmp_path / name, "audio", clips)
        arguments = ["emotion", "--embeddings", str(tmp_path / name), "--loop.epochs", "2"]
        main([*arguments, "--loop.seeds", "0", "--out", str(tmp_path / f"{name}-out")])
        results = json.loads((tmp_path / f"{name}-out" / "results.json").read_text())
        told = json.loads((tmp_path / f"{name}-out" / "predictions.json").read_text())
        assert list(results["tests"]) == ([] if name == "emotions" else ["sentiment"])
        assert ("emotions" in results) == ("emotions" in told) == (name != "sentiment")
        assert ("sentiment" in told) == (name != "emotions")
        known = json.loads((tmp_path / f"{name}-out" / "trained-on.json").read_text())
        assert known["learned"][0]["targets"] == [
            *(["sentiment"] if name != "emotions" else []),
            *(EMOTIONS if name != "sentiment" else []),
        ]
    assert results["tests"]["sentiment"]["items"] == 2  # 14 and 17
    assert results["emotions"]["counts"]["anger"]["items"] == 4  # 2, 5, 8 and 11


def test_a_subset_without_a_split_is_left_out_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rated = {n: {"sentiment": n % 5 - 2} for n in range(18)}
    write(tmp_path / "some", "audio", rated)
    write(tmp_path / "some", "text", {n: held for n, held in rated.items() if n % 3 != 1})
    run = ["emotion", "--loop.epochs", "1", "--loop.seeds", "0"]
    main([*run, "--embeddings", str(tmp_path / "some"), "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["tests"]["sentiment"]["variants"]) == ["audio"]
    assert results["notes"] == ["text is left out: it has no labelled clip of split dev"]
    assert results["notes"][0] in capsys.readouterr().out
    write(tmp_path / "none", "text", {n: held for n, held in rated.items() if n % 3 != 1})
    with pytest.raises(UsageError, match="nothing to train and score; text is left out"):
        EmotionStudy(EmotionRun(embeddings=str(tmp_path / "none")))


def test_videos_without_speakers_are_the_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As rows of CMU-MOSEI: a dialogue and no speaker. Intervals have a width, noise no small p."""
    draw, records = np.random.default_rng(0), []
    for n in range(120):
        part = ("train", "train", "dev", "test")[n // 30]
        told = {"sentiment": float(draw.uniform(-3, 3))}
        video = {"speaker": None, "dialogue": f"video-{n // 3}", "turn": n % 3}
        records.append(described(n, split=part, labels=told, **video))
    for subset in ("audio", "text"):
        for n, record in enumerate(records):
            layers = np.random.default_rng([n, len(subset)]).standard_normal((3, 8))
            record.members["layers.npy"][:] = layers.astype(np.float32)
        write_embeddings(tmp_path / subset, records, [subset])
    out = tmp_path / "out"
    run = ["emotion", "--embeddings", str(tmp_path), "--loop.epochs", "2", "--loop.seeds", "0"]
    main([*run, "--out", str(out)])
    test = json.loads((out / "results.json").read_text())["tests"]["sentiment"]
    assert (test["items"], test["groups"], test["grouping"]) == (30, 10, "dialogue")
    for scores in test["variants"].values():
        assert scores["mae"]["low"] < scores["mae"]["mean"] < scores["mae"]["high"]
    capsys.readouterr()
    compare([str(out)])
    printed = capsys.readouterr().out
    assert "30 items of 10 dialogues" in printed
    (line,) = [x for x in printed.splitlines() if x.startswith("text ")]
    difference = re.search(r"[+-]\d\.\d+ +[+-]\d\.\d+ to [+-]\d\.\d+ +(\d\.\d+)", line)
    assert difference is not None and float(difference[1]) > 0.01


def test_without_embeddings_there_is_nothing_to_do(ragged_corpus: Path) -> None:
    with pytest.raises(UsageError, match="no data: give --embeddings DIR"):
        EmotionStudy(EmotionRun())
    prepared = ragged_corpus / "prepared" / "shards"
    with pytest.raises(UsageError, match="no embeddings: mmembed extract makes some of it"):
        EmotionStudy(EmotionRun(embeddings=str(prepared)))


def test_subsets_without_a_common_clip_are_scored_apart(tmp_path: Path) -> None:
    write(tmp_path, "audio", {n: {"sentiment": n % 5 - 2} for n in range(18)})
    write(tmp_path, "text", {n: {"sentiment": n % 4 - 1} for n in range(18, 36)})
    study = EmotionStudy(EmotionRun(embeddings=str(tmp_path)))
    assert list(study.tests) == [own("audio"), own("text")]
