"""Train the emotion regressor on frozen embeddings and score it on speakers it has never heard.

    train/finetune.py emotion --embeddings embeddings --out runs/emotion
    torchrun --nproc-per-node 2 train/finetune.py emotion --embeddings embeddings --out runs/emotion

Each stream subset has a regressor of its own for each seed; the epoch is chosen on dev; the test
split is read once, at the end. Several processes share the regressors; each is trained by one of
them, so their number changes nothing but the time.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.commands.cli import run_program
from mmembed.commands.progress import progress
from mmembed.config import to_dict
from mmembed.data.example import EMOTIONS
from mmembed.data.sampling import derive_seed
from mmembed.data.shards import ShardSet
from mmembed.methods.emotion import EmotionRegressor
from mmembed.metrics import (
    bootstrap_interval,
    emotion_scores,
    pearson,
    sentiment_scores,
    trivial_emotions,
    trivial_sentiment,
)
from mmembed.recipes.finetune import (
    RECIPES,
    FinetuneRun,
    Vectors,
    read_vectors,
    subset_folders,
)
from mmembed.recipes.parsing import parse_recipe
from mmembed.recipes.prediction import save_regressor
from mmembed.training.distributed import World, join_world
from mmembed.training.optim import build_optimizer, learning_rate
from mmembed.training.step import train_step
from mmembed.training.tracking import claim_folder, write_json

SPLITS = ("train", "dev", "test")

Rows = NDArray[np.int64]
Data = Mapping[str, Mapping[str, Vectors]]  # stream subset -> split -> vectors


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, train each seed, score, save."""
    run, out = parse_recipe("finetune", RECIPES, sys.argv[1:] if argv is None else argv)
    with join_world() as world:
        folders = subset_folders(Path(run.embeddings))
        data = {subset: read_vectors(folder, SPLITS) for subset, folder in folders.items()}
        run = _resolved(run, data)
        if world.is_main:
            claim_folder(out, to_dict(run))
        world.wait()
        done = out / "results.json"
        if not done.exists():
            _run(run, out, folders, data, world)
        if world.is_main:
            _print_table(json.loads(done.read_text()))


def _run(
    run: FinetuneRun, out: Path, folders: Mapping[str, Path], data: Data, world: World
) -> None:
    """Train on all processes, score and save on the main one."""
    models = _train_all(run, data, "finetune", world)
    untrained = _untrained(run, world) if run.untrained else None
    if not world.is_main:
        return
    results = _results(run, models, data)
    if untrained:
        results["untrained"] = untrained
    for subset, regressors in models.items():
        for seed, model in zip(run.loop.seeds, regressors, strict=True):
            save_regressor(out, subset, seed, model)
    everything = list(data)[-1]
    layers = ShardSet(folders[everything]).manifest["layers"]
    weights = torch.stack([model.layers.weights for model in models[everything]]).mean(0)
    results["layer_weights"] = dict(zip(layers, weights.tolist(), strict=True))
    write_json(out / "predictions.json", _predictions(models[everything], data[everything]["test"]))
    write_json(out / "results.json", results)


def _train_all(
    run: FinetuneRun, data: Data, label: str, world: World
) -> dict[str, list[EmotionRegressor]]:
    """Stream subset -> one regressor for each seed; the same on every process."""
    jobs = list(itertools.product(data, run.loop.seeds))
    mine = {}
    with progress(label, len(jobs), show=world.is_main) as update:
        for place in range(world.rank, len(jobs), world.size):
            subset, seed = jobs[place]
            splits = data[subset]
            mine[place] = _train(run, splits["train"], splits["dev"], seed)
            update(min(place + world.size, len(jobs)))
    trained: dict[int, EmotionRegressor] = {}
    for part in world.gather(mine):
        assert isinstance(part, dict)
        trained |= part
    models: dict[str, list[EmotionRegressor]] = {subset: [] for subset in data}
    for place, (subset, _) in enumerate(jobs):
        models[subset].append(trained[place])
    return models


def _train(run: FinetuneRun, train: Vectors, dev: Vectors, seed: int) -> EmotionRegressor:
    """One regressor, at its best epoch on dev; by this process alone, whatever their number."""
    alone = World(0, 1, torch.device("cpu"))
    torch.manual_seed(derive_seed(seed, "emotion"))
    model = EmotionRegressor(run.method)
    model.standardise_by(train.values)
    optimizer = build_optimizer(model, run.optim)
    best, best_loss = model.state_dict(), float("inf")
    for epoch in range(run.loop.epochs):
        order = torch.randperm(len(train)).tolist()
        model.train()
        for start in range(0, len(order), run.loop.batch):
            train_step(
                model,
                optimizer,
                [train.batch(order[start : start + run.loop.batch])],
                rate=learning_rate(run.optim, (epoch + start / len(order)) / run.loop.epochs),
                clip=run.optim.clip,
                world=alone,
            )
        loss = _mean_loss(model, dev)
        if loss < best_loss:
            best_loss = loss
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    return model.eval()


@torch.no_grad()
def _mean_loss(model: EmotionRegressor, vectors: Vectors) -> float:
    batch = vectors.batch()
    sums = model.eval()(batch)
    return float(
        sum(
            model.weights[term] * sums[term] / max(1, batch.count(target))
            for term, target in model.terms.items()
        )
    )


@torch.no_grad()
def _predict(
    models: Sequence[EmotionRegressor], vectors: Vectors
) -> list[dict[str, NDArray[np.float32]]]:
    batch = vectors.batch()
    return [{name: v.numpy() for name, v in model.predict(batch).items()} for model in models]


def _results(
    run: FinetuneRun,
    models: Mapping[str, Sequence[EmotionRegressor]],
    data: Data,
) -> dict[str, Any]:
    """Scores on test: mean and deviation over seeds, intervals over speakers, the trivial row."""
    some = next(iter(data.values()))
    train, test = some["train"], some["test"]
    names = list(EMOTIONS)
    return {
        "subsets": {
            subset: _scores(models[subset], splits["dev"], splits["test"])
            for subset, splits in data.items()
        },
        "trivial": {
            "sentiment": trivial_sentiment(train.sentiment.numpy(), test.sentiment.numpy()),
            "emotions": trivial_emotions(train.emotions.numpy(), test.emotions.numpy(), names),
        },
        "seeds": list(run.loop.seeds),
    }


def _scores(models: Sequence[EmotionRegressor], dev: Vectors, test: Vectors) -> dict[str, Any]:
    """Scores of one stream subset; thresholds of the emotions are chosen on dev."""
    sentiment, emotions = test.sentiment.numpy(), test.emotions.numpy()
    thresholds = [_thresholds(model, dev) for model in models]
    predicted = _predict(models, test)

    def sentiment_of(seed: int, rows: Rows) -> dict[str, float]:
        return sentiment_scores(sentiment[rows], predicted[seed]["sentiment"][rows])

    def emotions_of(seed: int, rows: Rows) -> dict[str, dict[str, float]]:
        found = predicted[seed]["emotions"][rows]
        return emotion_scores(emotions[rows], found, EMOTIONS, thresholds[seed])

    rows = np.arange(len(test))
    seeds = range(len(models))
    felt = [sentiment_of(seed, rows) for seed in seeds]
    shown = [emotions_of(seed, rows) for seed in seeds]
    scores = {name: _spread([f[name] for f in felt]) for name in felt[0]}
    for name, statistic in (("mae", _mae), ("correlation", pearson)):
        low, high = bootstrap_interval(
            lambda rows, f=statistic: float(  # type: ignore[misc]
                np.mean([f(sentiment[rows], p["sentiment"][rows]) for p in predicted])
            ),
            test.speakers,
        )
        scores[name] |= {"low": low, "high": high}
    return {
        "sentiment": scores,
        "emotions": {
            emotion: {score: _spread([s[emotion][score] for s in shown]) for score in ("wa", "f1")}
            for emotion in EMOTIONS
        },
    }


def _thresholds(model: EmotionRegressor, dev: Vectors) -> list[float]:
    """For each emotion the intensity from which it counts as present: best balanced accuracy."""
    predicted = _predict([model], dev)[0]["emotions"]
    truth = dev.emotions.numpy()
    chosen = []
    for e, emotion in enumerate(EMOTIONS):
        candidates = np.quantile(predicted[:, e], np.linspace(0.05, 0.95, 19))
        scores = [
            emotion_scores(truth[:, [e]], predicted[:, [e]], [emotion], c)[emotion]["wa"]
            for c in candidates
        ]
        chosen.append(float(candidates[int(np.argmax(scores))]))
    return chosen


def _mae(truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    return float(np.abs(truth - predicted).mean())


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def _untrained(run: FinetuneRun, world: World) -> dict[str, Any]:
    """The same regressor, seeds and splits on the embeddings of the untrained encoder."""
    folders = subset_folders(Path(run.untrained or ""))
    data = {subset: read_vectors(folder, SPLITS) for subset, folder in folders.items()}
    models = _train_all(run, data, "finetune, untrained encoder", world)
    subsets: dict[str, Any] = _results(run, models, data)["subsets"]
    return subsets


def _resolved(run: FinetuneRun, data: Data) -> FinetuneRun:
    """The run with the sizes that only the embeddings could tell."""
    _, layers, width = next(iter(data.values()))["train"].values.shape
    return replace(run, method=replace(run.method, layers=layers, width=width))


def _predictions(models: Sequence[EmotionRegressor], test: Vectors) -> dict[str, Any]:
    """Truth and prediction (mean over seeds) for each test item."""
    predicted = _predict(models, test)
    mean = {name: np.mean([p[name] for p in predicted], 0) for name in predicted[0]}
    return {
        "keys": list(test.keys),
        "speakers": list(test.speakers),
        "sentiment": {
            "truth": test.sentiment.tolist(),
            "predicted": mean["sentiment"].tolist(),
        },
        "emotions": {"truth": test.emotions.tolist(), "predicted": mean["emotions"].tolist()},
    }


def _print_table(results: Mapping[str, Any]) -> None:
    print(f"{'streams':20} {'sentiment r':>12} {'MAE':>6} {'untrained r':>12}")
    for subset, scores in results["subsets"].items():
        sentiment = scores["sentiment"]
        untrained = results.get("untrained", {}).get(subset)
        plain = f"{untrained['sentiment']['correlation']['mean']:.3f}" if untrained else "-"
        print(
            f"{subset:20} {sentiment['correlation']['mean']:12.3f} "
            f"{sentiment['mae']['mean']:6.3f} {plain:>12}"
        )
    trivial = results["trivial"]["sentiment"]
    print(f"{'(mean of training)':20} {trivial['correlation']:12.3f} {trivial['mae']:6.3f}")


if __name__ == "__main__":
    sys.exit(run_program(main))
