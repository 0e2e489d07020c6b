"""Self-MM's study on made-up features: what it reads, holds out, standardises and scores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.streams import write_features
from mmembed_train.finetune import main

from mmembed.errors import UsageError
from mmembed.settings.finetune import SelfMmRun
from mmembed.studies.results import TestPredictions
from mmembed.studies.self_mm import SelfMmStudy
from mmembed.studies.self_mm_data import read_items, with_dev


def study(folder: Path) -> SelfMmStudy:
    return SelfMmStudy(SelfMmRun(shards=str(folder), width=4, fusion=8))


def test_the_last_tenth_of_the_videos_is_held_out(tmp_path: Path) -> None:
    read = read_items(write_features(tmp_path, {"train": 80, "test": 8}))
    items, notes = with_dev(read, tmp_path)
    assert notes == [
        "no item of the split dev has a sentiment: 8 training items are held out for it"
    ]
    assert {split: len(some) for split, some in items.items()} == {"train": 72, "dev": 8, "test": 8}
    assert set(items["dev"].groups.names) == {"train-video-18", "train-video-19"}
    whole = read_items(write_features(tmp_path / "b", {"train": 8, "dev": 4, "test": 4}))
    assert len(whole["train"]) == 8


def test_batches_are_standardised_and_know_their_rows(tmp_path: Path) -> None:
    made = study(write_features(tmp_path, {"train": 40, "dev": 8, "test": 8}))
    assert made.variants == ("self_mm", "multimodal", "audio", "text")
    batch = made.batch("self_mm", "train", range(40))
    text = batch.inputs["text"].values[:, 0]
    torch.testing.assert_close(text.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(text.std(0, unbiased=False), torch.ones(5))
    assert batch.inputs["audio"].lengths[4] == 0 and batch.inputs["audio"].lengths[3] == 1
    assert set(batch.targets["sentiment"].tolist()) == {-1.0, 1.0}  # type: ignore[union-attr]
    assert made.batch("self_mm", "train", [7, 2]).context["row"].tolist() == [7, 2]  # type: ignore[union-attr]
    assert "row" not in made.batch("self_mm", "dev", [0]).context
    assert set(made.batch("text", "dev", [0]).inputs) == {"text"}


@pytest.mark.parametrize("steps", [1, 4])
def test_what_is_in_the_text_is_found(
    tmp_path: Path, steps: int, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_features(tmp_path / "shards", {"train": 160, "dev": 40, "test": 60}, steps)
    arguments = ["self_mm", "--shards", str(folder), "--out", str(tmp_path / "out")]
    main([*arguments, "--loop.epochs", "12", "--loop.seeds", "0", "1", "--optim.lr", "1e-2"])
    assert "self_mm" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    test = results["tests"]["test"]
    rows = {**test["variants"], **test["baselines"]}
    scores = {name: row["acc2_pos"]["mean"] for name, row in rows.items()}
    if steps == 1:  # of longer text the first step is read, of which the label is a part
        assert scores["self_mm"] > 0.85 and scores["text"] > 0.85
        assert scores["logistic regression"] > 0.9
        assert scores["self_mm"] > scores["audio"]
    assert scores["audio"] < 0.75
    assert results["items"] == {"train": 160, "dev": 40} and test["items"] == 60
    assert (tmp_path / "out" / "self_mm" / "seed-1.safetensors").exists()
    scored = TestPredictions.read(tmp_path / "out" / "predictions" / "test.safetensors")
    assert scored.variants["self_mm"].shape == (2, 60) and scored.items.truth.shape == (60,)
    assert set(scored.baselines) == {"logistic regression", "constant"}


def test_each_corpus_is_scored_by_its_own_conventions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """CH-SIMS: in [-1, 1], with 0 among the negative, three and five classes, and none of seven."""
    sizes = {"train": 40, "dev": 12, "test": 24}
    folder = write_features(tmp_path / "sims", sizes, limit=1.0)
    run = ["self_mm", "--shards", str(folder), "--out", str(tmp_path / "out")]
    main([*run, "--loop.epochs", "3", "--loop.seeds", "0"])
    printed = capsys.readouterr().out
    assert "acc2" in printed and "acc2_pos" not in printed
    test = json.loads((tmp_path / "out" / "results.json").read_text())["tests"]["test"]
    assert test["task"] == "sims" and test["metric"] == "acc2"
    assert {"acc2", "weighted_f1", "acc3", "acc5", "mae", "correlation"} == set(test["constant"])
    scored = TestPredictions.read(tmp_path / "out" / "predictions" / "test.safetensors")
    truth, said = scored.items.truth, scored.variants["self_mm"][0]
    assert test["variants"]["self_mm"]["acc2"]["mean"] == np.mean((truth > 0) == (said > 0))
    wide = SelfMmRun(shards=str(write_features(tmp_path / "mosi", sizes, limit=3.0)))
    assert SelfMmStudy(wide).tests["test"].metric == "acc2_pos"


def test_folders_that_do_not_serve_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --shards DIR"):
        SelfMmStudy(SelfMmRun())
    with pytest.raises(UsageError, match="or --embeddings DIR"):
        SelfMmStudy(SelfMmRun(shards="a", embeddings="b"))
    with pytest.raises(UsageError, match="no item of the split test has a sentiment"):
        study(write_features(tmp_path, {"train": 4}))
