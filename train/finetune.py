"""Train a study's methods and score them on data they have never seen.

    train/finetune.py emotion --embeddings embeddings --out runs/emotion
    torchrun --nproc-per-node 2 train/finetune.py emotion --embeddings embeddings --out runs/emotion

A study compares variants, such as stream subsets; each has a method of its own for each seed. The
epoch is chosen on dev; the test split is read once, at the end. Several processes share the
methods; each is trained by one of them, so their number changes nothing but the time.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from mmembed.commands.cli import leave, run_program
from mmembed.commands.progress import progress
from mmembed.config import to_dict
from mmembed.contract import Method
from mmembed.data.sampling import derive_seed
from mmembed.recipes.finetune import RECIPES
from mmembed.recipes.parsing import parse_recipe
from mmembed.recipes.study import Study
from mmembed.training.distributed import World, join_world
from mmembed.training.optim import build_optimizer, learning_rate
from mmembed.training.step import train_step
from mmembed.training.tracking import claim_folder, write_json


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, read, train each variant and seed, score, save."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    runs = {name: recipe.run for name, recipe in RECIPES.items()}
    run, out = parse_recipe("finetune", runs, arguments)
    with join_world() as world:
        study = RECIPES[arguments[0]].open(run)
        if world.is_main:
            claim_folder(out, to_dict(study.run))
        world.wait()
        done = out / "results.json"
        if not done.exists():
            _run(study, out, world)
        if world.is_main:
            print("\n".join(study.table(json.loads(done.read_text()))), flush=True)


def _run(study: Study, out: Path, world: World) -> None:
    """Train on all processes, score and save on the main one."""
    models = _train_all(study, "finetune", world)
    controls = {
        name: _train_all(control, f"finetune, {name} encoder", world)
        for name, control in study.controls.items()
    }
    if not world.is_main:
        return
    results = study.results(models)
    for name, control in study.controls.items():
        results[name] = control.results(controls[name])["subsets"]
    study.save(out, models)
    write_json(out / "results.json", results)


def _train_all(study: Study, label: str, world: World) -> dict[str, list[Method]]:
    """Variant -> one method for each seed; the same on every process."""
    jobs = list(itertools.product(study.variants, study.run.loop.seeds))
    mine = {}
    with progress(label, len(jobs), show=world.is_main) as update:
        for place in range(world.rank, len(jobs), world.size):
            mine[place] = _train(study, *jobs[place])
            update(min(place + world.size, len(jobs)))
    trained: dict[int, Method] = {}
    for part in world.gather(mine):
        assert isinstance(part, dict)
        trained |= part
    models: dict[str, list[Method]] = {variant: [] for variant in study.variants}
    for place, (variant, _) in enumerate(jobs):
        models[variant].append(trained[place])
    return models


def _train(study: Study, variant: str, seed: int) -> Method:
    """One method, at its best epoch on dev; by this process alone, whatever their number."""
    run, alone = study.run, World(0, 1, torch.device("cpu"))
    torch.manual_seed(derive_seed(seed, run.name))
    model = study.method(variant)
    optimizer = build_optimizer(model, run.optim)
    best, best_loss = model.state_dict(), float("inf")
    for epoch in range(run.loop.epochs):
        order = torch.randperm(study.size(variant, "train")).tolist()
        model.train()
        model.start_epoch(epoch + 1)
        for start in range(0, len(order), run.loop.batch):
            train_step(
                model,
                optimizer,
                [study.batch(variant, "train", order[start : start + run.loop.batch])],
                rate=learning_rate(run.optim, (epoch + start / len(order)) / run.loop.epochs),
                clip=run.optim.clip,
                world=alone,
            )
        loss = _dev_loss(study, variant, model)
        if loss < best_loss:
            best_loss = loss
            best = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(best)
    return model.eval()


@torch.no_grad()
def _dev_loss(study: Study, variant: str, model: Method) -> float:
    batch = study.batch(variant, "dev")
    sums = model.eval()(batch)
    return float(
        sum(
            model.weights[term] * value / max(1, batch.count(model.terms[term]))
            for term, value in sums.items()
        )
    )


if __name__ == "__main__":
    leave(run_program(main))
