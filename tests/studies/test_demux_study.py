"""Demux's study on made-up posts: losses, unseen languages, emotions and formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_bert import CUES, write_bert, write_posts
from mmembed_train.finetune import main

from mmembed.errors import UsageError
from mmembed.methods.demux import Demux, PromptedMethod
from mmembed.settings.finetune import DemuxRun
from mmembed.studies.demux import VARIANTS, DemuxStudy
from mmembed.studies.demux_data import prompt_for
from mmembed.studies.results import TestPredictions

SPLITS = {"train": 160, "dev": 40, "test": 60}
EMOTIONS = tuple(sorted(CUES))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("backbone") / "bert")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_posts(tmp_path_factory.mktemp("posts"), SPLITS)
    return write_posts(folder, {"train": 20, "dev": 5, "test": 30}, "de")


def train(shards: Path, bert: Path, out: Path, *settings: str) -> dict[str, Any]:
    """Results of a run on English posts."""
    data = ["--shards", str(shards), "--backbone", str(bert), "--language", "en"]
    loop = ["--optim.lr", "7e-3", "--loop.batch-size", "8", "--loop.epochs", "8"]
    main(["demux", *data, *loop, "--out", str(out), *settings])
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def scores(results: dict[str, Any], test: str) -> dict[str, float]:
    found = results["tests"][test]
    rows = {**found["variants"], **found["baselines"]}
    return {name: row["macro_f1"]["mean"] for name, row in rows.items()}


def study(*data: Path, **settings: Any) -> DemuxStudy:
    shards, bert = map(str, data)
    return DemuxStudy(DemuxRun(**{"shards": shards, "backbone": bert, **settings}))


def test_variants_find_what_is_in_the_text(shards: Path, bert: Path, tmp_path: Path) -> None:
    assert study(shards, bert).variants == VARIANTS
    variants = ("bce", "intra+global", "memo")
    results = train(shards, bert, tmp_path, "--variants", *variants)
    assert results["items"] == {"train": 160, "dev": 40}
    found = scores(results, "test")
    assert set(found) == {*variants, "logistic regression"}
    assert set(results["dev_macro_f1"]) == set(variants)
    assert results["dev_macro_f1"]["bce"] == pytest.approx([1.0], abs=0.1)
    assert min(found[name] for name in ("bce", "intra+global")) > 0.9
    assert min(found[name] for name in ("memo", "logistic regression")) > 0.7
    assert results["tests"]["test"]["constant"]["macro_f1"] < 0.6
    scored = TestPredictions.read(tmp_path / "predictions" / "test.safetensors")
    assert scored.items.names == EMOTIONS and scored.variants["memo"].shape == (1, 60, 3)
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["emotions"] == list(EMOTIONS) and run["backbone"] == str(bert)


def test_what_a_method_reads(shards: Path, bert: Path) -> None:
    made = study(shards, bert, language="en")
    batch = made.batch("intra", "train", [5, 2])
    assert batch.keys == ("en-train-5", "en-train-2")
    text = batch.inputs["text"]
    # [CLS] anger fear or joy [SEP], then "user ..."; the emotion words own their tokens.
    token_label = batch.context["token_label"]
    assert token_label.values[:, :6].tolist() == [[-1, 0, 1, -1, 2, -1]] * 2  # type: ignore[union-attr]
    assert made.lengths("intra")[5] == int(text.lengths[0])
    masked = made.batch("memo", "train", [5, 2])
    assert int(masked.inputs["text"].values[0, 2]) == 4  # emotion [MASK] in tweet
    labels = batch.targets["emotions"]
    assert isinstance(labels, torch.Tensor)
    assert torch.equal(labels, masked.targets["emotions"])  # type: ignore[arg-type]
    method = made.method("intra+global")
    assert isinstance(method, PromptedMethod) and not method.correlation.isnan().any()
    assert method.weights == {"bce": 0.8, "local": 0.2, "global": 0.1}
    assert made.method("bce").weights["local"] == 0


def test_the_released_form_trains_and_its_or_follows_the_text(
    shards: Path, bert: Path, tmp_path: Path
) -> None:
    forms = ["--local-form", "released", "--global-form", "released", "--disjunction", "text"]
    results = train(shards, bert, tmp_path, "--variants", "intra+global", *forms)
    assert scores(results, "test")["intra+global"] > 0.9
    assert study(shards, bert).run.disjunction == "english"
    made = study(shards, bert, disjunction="text", local_form="released")
    method = made.method("intra")
    assert isinstance(method, PromptedMethod) and method.config.local_form == "released"
    text = made._parts["train"]  # no language of these has an "or" of its own
    assert {row.language for row in text.rows} == {"de", "en"}
    spanish = prompt_for(Demux, "si", EMOTIONS, made._tokenizer, 64, "es")
    english = prompt_for(Demux, "si", EMOTIONS, made._tokenizer, 64, "de")
    assert spanish.ids.tolist() != english.ids.tolist()


def test_another_language_is_asked_with_the_same_words(
    shards: Path, bert: Path, tmp_path: Path
) -> None:
    told = ["--test-languages", "en", "de", "--variants", "intra"]
    results = train(shards, bert, tmp_path, *told)
    assert results["items"] == {"train": 160, "dev": 40}
    assert {test: r["items"] for test, r in results["tests"].items()} == {"en": 60, "de": 30}
    assert scores(results, "en")["intra"] > 0.9
    german = results["tests"]["de"]  # words that were not trained on start like those that were
    assert scores(results, "de")["intra"] > german["constant"]["macro_f1"]


@pytest.mark.slow
def test_an_emotion_left_out_is_asked_of_those_that_can(
    shards: Path, bert: Path, tmp_path: Path
) -> None:
    results = train(shards, bert, tmp_path, "--leave-out", "joy", "fear")
    assert set(scores(results, "joy")) == {"intra", "intra without joy", "logistic regression"}
    assert set(scores(results, "fear")) == {"intra", "intra without fear", "logistic regression"}
    assert results["tests"]["joy"]["variants"]["intra without joy"]["f1"].keys() == {"joy"}
    assert scores(results, "joy")["intra"] > 0.9
    assert min(seeds[0] for seeds in results["dev_macro_f1"].values()) > 0.9
    made = study(shards, bert, language="en", leave_out=("joy", "fear"))
    kept = made.method("intra without joy")
    assert isinstance(kept, Demux) and kept.config.emotions == ("anger", "fear")
    assert kept.frozen_ids.tolist() == [9, 10, 11]  # all emotion words, the unseen one too
    batch = made.batch("intra without joy", "train", range(4))
    whole = made.batch("intra", "train", range(4))
    assert torch.equal(batch.targets["emotions"], whole.targets["emotions"][:, :2])  # type: ignore[index, arg-type]


def test_another_format_is_asked_in_three_ways(shards: Path, bert: Path, tmp_path: Path) -> None:
    clusters = ["--clusters", "joy or hope, fear or anger", "--variants", "intra", "memo"]
    results = train(shards, bert, tmp_path, *clusters)
    ways = [f"clusters by {way}" for way in ("mean", "max", "member")]
    assert list(results["tests"]) == ["test", *ways]
    read = {
        test: TestPredictions.read(tmp_path / "predictions" / f"{test}.safetensors")
        for test in results["tests"]
    }
    plain, member = read["test"], read["clusters by member"]
    anger, fear, joy = plain.items.truth.T
    expected = np.stack([np.maximum(anger, fear), joy], 1)
    for way in ways:
        assert read[way].items.names == ("fear or anger", "joy or hope")
        assert np.array_equal(read[way].items.truth, expected)
        assert set(read[way].variants) == ({"intra", "memo"} if "member" in way else {"intra"})
        assert way == "clusters by mean" or scores(results, way)["intra"] > 0.9
    alone = plain.variants["memo"][0]
    assert np.array_equal(
        member.variants["memo"][0], np.stack([alone[:, :2].max(1), alone[:, 2]], 1)
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shards": ""}, "give --shards DIR"),
        ({"backbone": ""}, "give --backbone"),
        ({"backbone": "/no/such"}, "no such folder"),
        ({"variants": ("extra",)}, "--variants extra: one of bce, inter"),
        ({"language": "fi"}, "no text for train; its languages are de, en"),
        ({"test_languages": ("fi",)}, "no text for fi; its languages are de, en"),
        ({"emotions": ("joy", "awe")}, "no training text has the emotion 'awe'"),
        ({"leave_out": ("awe",)}, "--leave-out awe: one of anger, fear, joy"),
        ({"leave_out": ("joy",), "variants": ("memo",)}, "MEmo cannot be asked"),
        ({"leave_out": ("joy",), "clusters": "joy or fear"}, "runs of their own"),
        ({"clusters": "joy, awe or hope"}, "'awe or hope' has none of anger, fear, joy"),
    ],
)
def test_settings_that_mean_nothing_are_told(
    shards: Path, bert: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        study(shards, bert, **settings)


def test_more_layers_than_there_are_cannot_be_frozen(shards: Path, bert: Path) -> None:
    with pytest.raises(UsageError, match="freeze 3: found 2 layers in BertModel"):
        study(shards, bert, freeze=3).method("intra")
    method = study(shards, bert, freeze=1).method("intra")
    still = {name for name, value in method.named_parameters() if not value.requires_grad}
    assert still == {
        name
        for name, _ in method.named_parameters()
        if ".embeddings." in name or ".layer.0." in name
    }
