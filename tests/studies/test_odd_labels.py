"""Studies on odd labels: each ends in a true table, or in one line that says what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.studied import fewer_draws
from helpers.tiny_bert import write_bert, write_random_bert
from mmembed_train.finetune import main
from test_emotion_queries_study import record
from test_emotion_queries_study import write as write_corpus
from test_sdt_study import turn
from test_sdt_study import write as write_turns

from mmembed.commands.cli import run_program
from mmembed.commands.compare import main as compare
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.report import write_report
from mmembed.studies.emotion_queries import asking

SHORT = ["--loop.epochs", "2", "--loop.seeds", "0"]
SIGNS = [1.0, -1.0, 2.0, -2.0, 0.0, 3.0]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_draws(monkeypatch)


def strict(value: str) -> Any:
    raise AssertionError(f"no JSON: {value}")


def table_of(argv: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Results of a run that ends well, whose tables, comparison and report know every number."""
    assert run_program(main, [*argv, "--out", str(out)]) == 0, capsys.readouterr().err
    assert run_program(compare, [str(out)]) == 0, capsys.readouterr().err
    said = capsys.readouterr()
    assert "nan" not in said.out and "Traceback" not in said.err
    for name in ("results.json", "run.json"):
        text = (out / name).read_text()
        results: dict[str, Any] = json.loads(text, parse_constant=strict)
        if name == "results.json":
            found = results
    assert "nan" not in write_report(out).read_text().lower().split()
    return found


def line_of(argv: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and line of a run that does not."""
    code = run_program(main, [*argv, "--out", str(out)])
    said = capsys.readouterr()
    assert "Traceback" not in said.err and not (out / "results.json").exists()
    return code, said.err.splitlines()[-1]


# Self-MM on features


def features(folder: Path, splits: Mapping[str, Sequence[float | None]], **row: Any) -> list[str]:
    """Items of these sentiments, one speaker each; the text's first column is the sentiment."""
    draw, records = np.random.default_rng(0), []
    for split, sentiments in splits.items():
        for number, sentiment in enumerate(sentiments):
            text = draw.normal(0, 1, (1, 4)).astype(np.float32)
            text[0, 0] = sentiment or 0
            utterance = Utterance(
                f"{split}-{number}",
                "features/all.safetensors#0",
                split=split,
                labels=Labels(sentiment=sentiment),
                **{"speaker": f"{split}-speaker-{number}", **row},
            )
            records.append(Record(*to_record(Example(utterance, features={"text": text}))))
    write_shard(shard_path(folder, 0), records, {})
    return ["self_mm", "--shards", str(folder), *SHORT]


@pytest.mark.parametrize(
    ("train", "dev", "test", "baseline"),
    [
        ([1.0, 2.0, 3.0], [1.0, -1.0], SIGNS, False),  # one sign alone in train
        ([-1.0, -2.0], [-1.0], [-1.0, -2.0], False),  # ... in all
        (SIGNS, [0.0, 0.0], SIGNS, True),  # dev has no sign
        (SIGNS, [1.0], SIGNS, True),
        ([2.0], [1.0], SIGNS, False),  # one labelled item
        (SIGNS, SIGNS, [1.0], True),
        ([1.0, None, -1.0, None], [None, 1.0], [None, *SIGNS], True),
    ],
)
def test_sentiment_of_one_kind(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    train: list[float | None],
    dev: list[float | None],
    test: list[float | None],
    baseline: bool,
) -> None:
    argv = features(tmp_path / "data", {"train": train, "dev": dev, "test": test})
    results = table_of(argv, tmp_path / "out", capsys)
    scored = results["tests"]["test"]
    known = [x for x in test if x is not None]
    polar = [x for x in known if x]
    assert scored["items"] == len(known) and scored["grouping"] == "speaker"
    assert scored["counts"]["mae"] == {"items": len(known), "groups": len(known)}
    assert scored["counts"]["acc2_pos"] == {"items": len(polar), "groups": len(polar)}
    assert results["items"] == {
        "train": sum(x is not None for x in train),
        "dev": sum(x is not None for x in dev),
    }
    assert ("logistic regression" in scored["baselines"]) == baseline
    none = "no logistic regression: training items are not of both signs"
    assert (none in results["notes"]) != baseline
    figure = scored["variants"]["self_mm"]["acc2_pos"]
    assert figure["mean"] is not None and "low" not in figure
    assert figure["note"] == (
        f"no interval: {len(polar)} speaker{'s' if len(polar) != 1 else ''}, 6 are needed"
    )
    if len(known) >= 6:
        assert "low" in scored["variants"]["self_mm"]["mae"]


def test_a_dev_split_without_labels_is_held_out_of_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {"train": SIGNS * 2, "dev": [None, None], "test": SIGNS}
    results = table_of(features(tmp_path / "data", splits), tmp_path / "out", capsys)
    assert results["items"] == {"train": 11, "dev": 1}
    told = "no item of the split dev has a sentiment: 1 training items are held out for it"
    assert results["notes"] == [told]


def test_one_speaker_has_no_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {"train": SIGNS, "dev": SIGNS, "test": SIGNS * 3}
    argv = features(tmp_path / "data", splits, speaker="ann")
    results = table_of(argv, tmp_path / "out", capsys)
    figure = results["tests"]["test"]["variants"]["self_mm"]["correlation"]
    assert figure["note"] == "no interval: 1 speaker, 6 are needed" and "low" not in figure


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        (
            {"train": [None] * 3, "test": [None]},
            "no item of the split train and test has a sentiment",
        ),
        ({"train": SIGNS, "test": [None]}, "no item of the split test has a sentiment"),
        ({"train": [None], "dev": SIGNS, "test": SIGNS}, "no item of the split train has a sent"),
        ({"train": [0.0] * 2, "dev": SIGNS, "test": SIGNS}, "split train has the sentiment 0"),
        ({"train": [1.0], "test": SIGNS}, "one labelled item of the split train and none of dev"),
        (
            {"train": SIGNS, "dev": SIGNS, "test": [0.0, 0.0]},
            "nothing to score: no table of test: no item whose sentiment is above or below 0",
        ),
    ],
)
def test_sentiment_that_cannot_be_scored(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    splits: dict[str, list[float | None]],
    told: str,
) -> None:
    code, line = line_of(features(tmp_path / "data", splits), tmp_path / "out", capsys)
    assert code == 2 and line.startswith(f"error: {tmp_path / 'data'}: ") and told in line


# SDT on dialogues


def dialogues(folder: Path, splits: Mapping[str, Sequence[str | None]]) -> list[str]:
    """One dialogue for each two categories."""
    draw = np.random.default_rng(0)
    turns = [
        turn(f"{split}-{place // 2}", place % 2, category, {"text": draw.normal(0, 1, 3).tolist()})
        for split, categories in splits.items()
        for place, category in enumerate(categories)
    ]
    return ["sdt", "--shards", write_turns(folder, turns), *SHORT, "--method.width", "8"]


def test_classes_missing_in_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {
        "train": ["sad", "happy", "calm", "sad"],
        "dev": ["sad", "sad"],
        "test": ["happy", "sad", "happy", "afraid", "afraid", None],
    }
    results = table_of(dialogues(tmp_path / "data", splits), tmp_path / "out", capsys)
    test = results["tests"]["test"]
    assert results["notes"] == ["not scored: test has 2 turns of class 'afraid', training none"]
    assert test["notes"] == ["left out, as no test item has this class: calm"]
    assert test["items"] == 3 and test["groups"] == 2 and test["grouping"] == "dialogue"
    assert test["labels"]["happy"] == {
        "items": 3, "positives": 2, "groups": 2, "train_positives": 1,
    }  # fmt: skip
    assert test["labels"]["calm"]["positives"] == 0
    for scores in test["variants"].values():
        assert scores["f1"]["calm"] is None and scores["f1"]["sad"] is not None


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"train": ["sad", "happy"], "test": ["sad"]}, "one training dialogue alone and no split"),
        ({"train": ["sad"] * 4, "dev": ["sad"], "test": ["sad"]}, "two classes in labels.category"),
        ({"train": ["sad", "happy"], "dev": [None], "test": ["sad"]}, "no turn of split dev has"),
        ({"train": ["sad", "happy"], "dev": ["sad"], "test": ["calm"]}, "no turn of split test"),
        ({"train": [None] * 4, "dev": [None], "test": [None]}, "found none"),
    ],
)
def test_dialogues_that_cannot_be_scored(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    splits: dict[str, list[str | None]],
    told: str,
) -> None:
    code, line = line_of(dialogues(tmp_path / "data", splits), tmp_path / "out", capsys)
    assert code == 2 and line.startswith(f"error: {tmp_path / 'data'}: ") and told in line


# Demux on texts


def posts(folder: Path, bert: Path, splits: Mapping[str, Sequence[tuple[str, ...]]]) -> list[str]:
    records = []
    for split, labels in splits.items():
        for number, present in enumerate(labels):
            row = Utterance(
                f"{split}-{number}",
                None,
                transcript=" ".join(("so", *present)),
                split=split,
                labels=Labels(present=present),
            )
            records.append(Record(*to_record(Example(row, text=row.transcript))))
    write_shard(shard_path(folder, 0), records, {})
    data = ["demux", "--shards", str(folder), "--backbone", str(bert)]
    return [*data, "--variants", "intra+global", *SHORT]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("backbone") / "bert")


JOY, FEAR = ("joy",), ("fear",)


def test_labels_missing_in_a_split(
    tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anger in all training texts; no fear in test; neither in dev."""
    splits = {
        "train": [("anger", "joy"), ("anger", "fear"), ("anger",), ("anger", "joy")],
        "dev": [(), ()],
        "test": [JOY, (), ("anger", "joy"), JOY, JOY, JOY, ("anger",)],
    }
    results = table_of(posts(tmp_path / "data", bert, splits), tmp_path / "out", capsys)
    assert results["dev_macro_f1"] == {"intra+global": [None]}
    test = results["tests"]["test"]
    assert test["grouping"] == "text" and test["groups"] == 7
    assert test["notes"] == ["left out, as no test item has this label: fear"]
    assert test["labels"]["joy"]["positives"] == 5 and test["labels"]["fear"]["positives"] == 0
    for scores in [*test["variants"].values(), *test["baselines"].values()]:
        assert scores["f1"]["fear"] is None
        told = [scores["f1"][name] for name in ("anger", "joy")]
        assert scores["macro_f1"]["mean"] == pytest.approx(np.mean(told))  # not a third of 0 more


def test_an_emotion_that_no_test_text_has_is_no_test(
    tmp_path: Path, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {"train": [JOY, FEAR, (), JOY], "dev": [JOY, FEAR], "test": [JOY, (), ()]}
    argv = posts(tmp_path / "data", bert, splits)
    argv[argv.index("intra+global")] = "intra"
    results = table_of([*argv, "--leave-out", "joy", "fear"], tmp_path / "out", capsys)
    assert list(results["tests"]) == ["joy"]
    assert results["notes"] == ["no table of fear: no item that has any of the labels"]
    code, line = line_of([*argv, "--leave-out", "fear"], tmp_path / "none", capsys)
    assert code == 2 and "data: nothing to score: no table of fear" in line


# Emotion queries on clips


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = [*asking("sad").split(), "angry", "calm"]
    return str(write_random_bert(tmp_path_factory.mktemp("asked"), words, spread=0.5))


def corpus(folder: Path, asked: str, splits: Mapping[str, Sequence[str]]) -> list[str]:
    records = [
        record("made", f"{split}-{number}", number, {"category": category}, split=split)
        for split, categories in splits.items()
        for number, category in enumerate(categories)
    ]
    data = ["--embeddings", write_corpus(folder, records), "--streams", "audio"]
    return ["emotion_queries", *data, "--backbone", asked, *SHORT]


def test_emotions_missing_in_a_split(
    tmp_path: Path, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {
        "train": ["angry", "calm", "sad"] * 2,
        "dev": ["calm", "calm"],
        "test": ["angry", "calm", "calm"],
    }
    argv = [*corpus(tmp_path / "made", asked, splits), "--leave-out", "sad", "angry"]
    results = table_of(argv, tmp_path / "out", capsys)
    assert list(results["tests"]) == ["seen", "unseen-angry"]
    told = "no table of unseen-sad: no item that has any of the labels"
    assert results["notes"] == [told]
    seen = results["tests"]["seen"]
    assert seen["notes"] == ["left out, as no test item has this label: made: sad"]
    areas = results["label_auroc"]["seen"]["all"]
    assert areas["made: sad"] is None
    told_areas = [areas["made: angry"], areas["made: calm"]]
    assert seen["variants"]["all"]["auroc"]["mean"] == pytest.approx(np.mean(told_areas))


def test_clips_that_cannot_be_scored(
    tmp_path: Path, asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {"train": ["angry", "calm"], "dev": ["angry"], "test": ["angry", "angry"]}
    argv = [*corpus(tmp_path / "made", asked, splits), "--leave-out"]
    code, line = line_of([*argv, "angry"], tmp_path / "a", capsys)
    assert code == 2 and "made: the split dev has no clip for 'without-angry'" in line
    code, line = line_of(argv, tmp_path / "b", capsys)
    assert code == 2 and "made: nothing to score: no table of seen: no label that some" in line
