"""The recipes of papers: networks, groups of rates and epochs, by the authors' own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.streams import write_features
from helpers.tiny_bert import CUES, write_bert
from mmembed_train.finetune import main
from torch import nn

from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import UsageError
from mmembed.method import Method
from mmembed.methods.self_mm import SelfMm
from mmembed.settings.papers import (
    FINETUNE_RECIPES,
    SelfMmPaperRun,
    self_mm_mosei,
    self_mm_mosi,
    self_mm_sims,
    study_of,
)
from mmembed.studies.finetune_job import TrainingJob, train
from mmembed.studies.registry import STUDIES
from mmembed.studies.self_mm_data import SelfMmItems, cut_at_zeros
from mmembed.studies.self_mm_paper import SelfMmPaperStudy
from mmembed.training.distributed import World
from mmembed.training.optim import build_optimizer

ALONE = World(0, 1, torch.device("cpu"))
SIZES = {"train": 80, "dev": 20, "test": 20}
WIDTHS = {"mosi": (5, 20), "mosei": (74, 35), "sims": (33, 709)}  # audio, video


def paper_study(run: SelfMmPaperRun, audio: int, video: int) -> SelfMmPaperStudy:
    """On features of MMSA's widths, of two steps and two items each."""
    made = object.__new__(SelfMmPaperStudy)
    rows = tuple(
        Utterance(str(n), None, labels=Labels(sentiment=float(2 * n - 1))) for n in range(2)
    )
    streams = {
        name: [torch.randn(2, width), torch.randn(2, width)]
        for name, width in (("audio", audio), ("video", video), ("text", 768))
    }
    made.run = run
    made._splits = {"train": SelfMmItems(rows, streams)}
    return made


# MMSA's config_regression.json: hidden units, features F_s, dropouts (fusion, text, audio, video),
# rates and decays of audio and video, decay of the rest, batch.
MMSA = [
    (self_mm_mosi, "mosi", (16, 32), (32, 16, 32), (0.0, 0.1, 0.1, 0.0),
     (5e-3, 5e-3), (1e-3, 1e-3), 1e-3, 16),
    (self_mm_mosei, "mosei", (16, 32), (32, 16, 32), (0.1, 0.0, 0.0, 0.0),
     (5e-3, 1e-4), (0.0, 0.0), 1e-2, 32),
    (self_mm_sims, "sims", (16, 64), (64, 16, 32), (0.0, 0.1, 0.1, 0.0),
     (5e-3, 5e-3), (1e-2, 1e-2), 1e-3, 32),
]  # fmt: skip


@pytest.mark.parametrize("recipe", MMSA, ids=lambda recipe: recipe[1])
def test_the_network_and_the_rates_are_those_of_mmsa(recipe) -> None:  # type: ignore[no-untyped-def]
    make, corpus, hidden, posts, dropouts, rates, decays, rest, batch = recipe
    run = make()
    study = paper_study(run, *WIDTHS[corpus])
    method = study.method("self_mm")
    assert isinstance(method, SelfMm)

    def linear(a: int, b: int) -> int:
        return a * b + b

    def lstm(width: int, units: int) -> int:
        return 4 * (width * units + units * units + 2 * units)

    expected = sum(lstm(w, h) for w, h in zip(WIDTHS[corpus], hidden, strict=True))
    expected += linear(hidden[0], 16) + linear(hidden[1], 32)
    for width, post in ((816, 128), (768, posts[0]), (16, posts[1]), (32, posts[2])):
        expected += linear(width, post) + linear(post, post) + linear(post, 1)
    absent = 768 + 16 + 32  # ours alone: what stands for a stream that an item lacks
    assert sum(p.numel() for p in method.parameters()) == expected + absent

    heads = ("fused", "text", "audio", "video")
    found = [
        next(m.p for m in method.heads[h].modules() if isinstance(m, nn.Dropout)) for h in heads
    ]
    assert found == list(dropouts)
    optimizer = build_optimizer(method, run.optim, study.own_rates("self_mm", method))
    of = {
        id(p): (group["scale"] * run.optim.lr, group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }
    for name, rate, decay in zip(("audio", "video"), rates, decays, strict=True):
        assert {of[id(p)] for p in method.readers[name].parameters()} == {(rate, decay)}
    for head in heads:
        assert {of[id(p)] for p in method.heads[head].parameters()} == {(1e-3, rest)}
    assert not optimizer.defaults["decoupled_weight_decay"]
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert (run.loop.batch_size, run.loop.summed_batches, run.loop.patience) == (batch, 4, 8)
    assert (run.optim.clip, run.optim.warmup, run.optim.schedule) == (0, 0, "constant")


def test_lengths_end_at_the_first_row_of_zeros() -> None:
    video = torch.tensor([[1.0, 2], [0, 0], [3, 4]])
    rows = tuple(Utterance(str(n), None) for n in range(3))
    streams = {
        "text": [video, video, video],
        "video": [video, video.flip(0)[1:], torch.ones(2, 2)],
    }
    items = cut_at_zeros(SelfMmItems(rows, streams))
    assert [len(x) for x in items.streams["text"]] == [3, 3, 3]
    # One row; none but the row of zeros itself; no such row.
    assert [len(x) for x in items.streams["video"]] == [1, 1, 2]


def test_bert_is_trained_end_to_end(tmp_path: Path) -> None:
    bert = write_bert(tmp_path / "bert")
    words = (f"so {CUES['anger']} today", f"so {CUES['joy']} today")
    shards = write_features(tmp_path / "shards", SIZES, 3, limit=3.0, words=words)
    run = SelfMmPaperRun(shards=str(shards), backbone=str(bert), length=4)
    study = SelfMmPaperStudy(run)
    assert study.large and study.variants == ("self_mm",)
    batch = study.batch("self_mm", "train", range(4))
    assert batch.inputs["text"].values.dtype == torch.int64
    assert batch.inputs["text"].lengths.tolist() == [4] * 4  # [CLS] so CUE [SEP]
    raw = np.concatenate([x.numpy() for x in study._splits["train"].streams["audio"] if len(x)])
    assert abs(raw.std() - 1) < 0.1 and study._compared["train"].streams["text"][0].ndim == 2
    method = study.method("self_mm")
    groups = study.own_rates("self_mm", method)
    assert len(groups) == 3 and groups[0].lr == 5e-5 and groups[1].weight_decay == 0
    before = {name: value.clone() for name, value in method.readers["text"].state_dict().items()}

    out = tmp_path / "out"
    told = ["--shards", str(shards), "--backbone", str(bert), "--out", str(out)]
    rates = ["--optim.lr", "1e-2", "--text.lr", "1e-3"]
    loop = ["--loop.epochs", "10", "--loop.seeds", "0", "--loop.batch-size", "8"]
    main(["self_mm_mosei", *told, *rates, *loop])
    results = json.loads((out / "results.json").read_text())
    scores = results["tests"]["test"]["variants"]["self_mm"]
    assert scores["acc2_pos"]["mean"] > 0.9 and 0 <= scores["acc5_rounded"]["mean"] <= 1
    from safetensors.torch import load_file

    after = load_file(out / "self_mm" / "seed-0.safetensors")
    moved = [n for n, v in before.items() if not torch.equal(after[f"readers.text.{n}"], v)]
    assert any("word_embeddings" in name for name in moved)
    assert any("layer.0" in name for name in moved) and any("layer.1" in name for name in moved)


def test_features_serve_where_there_is_no_text_encoder(tmp_path: Path) -> None:
    shards = write_features(tmp_path, SIZES, 3, limit=1.0)
    study = SelfMmPaperStudy(SelfMmPaperRun(shards=str(shards)))
    batch = study.batch("self_mm", "train", range(80))
    assert 2.5 < float(batch.inputs["text"].values.mean()) < 3.5  # as they came: mean 3
    assert study.tests["test"].task == "sims"
    with pytest.raises(UsageError, match="no training item has a transcript"):
        SelfMmPaperStudy(
            SelfMmPaperRun(shards=str(shards), backbone=str(write_bert(tmp_path / "b")))
        )


def small_job(tmp_path: Path, name: str, **loop: object) -> TrainingJob:
    from dataclasses import replace

    run = SelfMmPaperRun(shards=str(write_features(tmp_path / name, SIZES, limit=3.0)))
    run = replace(run, loop=replace(run.loop, **loop))  # type: ignore[arg-type]
    return TrainingJob(SelfMmPaperStudy(run), "self_mm", 0, tmp_path / f"{name}.safetensors")


def test_patience_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([9.0, 3.0, 2.0, 2.5, 2.6, 1.0])  # before training, then each epoch
    monkeypatch.setattr("mmembed.studies.finetune_job._dev_loss", lambda *_: next(losses))
    done: list[float] = []
    train(small_job(tmp_path, "a", epochs=50, patience=2), ALONE, done.append)
    assert max(done) == pytest.approx(3 / 50)  # one step in each of four epochs
    assert next(losses) == 1.0  # the second was best


def test_epochs_are_chosen_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import load_file

    epochs: list[int] = []

    def score(self: SelfMmPaperStudy, variant: str, method: Method) -> float:
        assert not method.training
        epochs.append(int(method.epoch))  # type: ignore[arg-type]
        return {0: 0.0, 1: 0.2, 2: 0.9, 3: 0.3}[epochs[-1]]

    monkeypatch.setattr(SelfMmPaperStudy, "test_score", score)
    kept = {}
    for select in ("best-on-test", "last"):
        job = small_job(tmp_path, select, epochs=3, select=select)
        train(job, ALONE, lambda fraction: None)
        kept[select] = load_file(job.file)
    assert epochs == [0, 1, 2, 3]
    assert int(kept["best-on-test"]["epoch"]) == 2 and int(kept["last"]["epoch"]) == 3
    job = small_job(tmp_path, "row", select="best-on-test")
    assert job.study.mark == " (epoch chosen on test)"


def test_every_recipe_is_of_a_study_and_holds_what_its_settings_may() -> None:
    for name, recipe in FINETUNE_RECIPES.items():
        run = recipe()
        assert study_of(run) in STUDIES and (recipe.__doc__ or "").strip(), name
        assert type(FINETUNE_RECIPES[run.name]()) is type(run)  # by which run.json is read again
    assert study_of(FINETUNE_RECIPES["self_mm_sims"]()) == "self_mm"
    assert study_of(FINETUNE_RECIPES["sdt_meld"]()) == "sdt"
