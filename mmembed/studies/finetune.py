"""A fine-tuning run from its settings to the scores of its methods."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from mmembed.batch import Batch
from mmembed.data.sampler import derive_seed
from mmembed.errors import CorruptError, MmembedError, UsageError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import write_json
from mmembed.io.progress import progress
from mmembed.method import Method
from mmembed.settings.finetune import FinetuneRun
from mmembed.studies.registry import STUDIES
from mmembed.studies.results import read_results
from mmembed.studies.study import Study, check_settings, table
from mmembed.training.data_digest import check_data
from mmembed.training.distributed import ALONE, World, join_world
from mmembed.training.optim import build_optimizer, learning_rate
from mmembed.training.run_folder import open_run_folder
from mmembed.training.step import MAX_SKIPPED_STEPS, train_step

log = logging.getLogger(__name__)

DEV_BATCH = 512  # items at once
DIVERGED = 10  # times the loss on dev of an untrained method: nothing was learned
POOL = 16  # batches whose items are sorted by length together


@dataclass(frozen=True)
class TrainingJob:
    """One method to train, and the file it ends in."""

    study: Study
    variant: str
    seed: int
    file: Path

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"


def finetune(name: str, run: FinetuneRun, out: Path) -> None:
    """Read, train each variant and seed, score, save.

    Args:
        name: of the study.
        run: which decides everything.
        out: folder of the run.
    """
    check_settings(run)
    with join_world() as world:
        study = STUDIES[name](run)
        if world.is_main:
            open_run_folder(out, asdict(study.run))
            check_data(out, asdict(study.run))
        done = out / "results.json"
        if not world.broadcast(done.exists()):
            studies = {out: study, **{out / name: s for name, s in study.controls.items()}}
            jobs = [job for folder, one in studies.items() for job in _jobs(one, folder)]
            _train_all(jobs, world)
            if world.is_main:
                scores = {folder: _score(one, folder) for folder, one in studies.items()}
                controls = {name: scores[out / name] for name in study.controls}
                write_json(done, {**scores[out], "controls": controls})
        if world.is_main:
            print("\n".join(table(read_results(done))), flush=True)
        world.wait()  # no process ends well when the main one does not


def _jobs(study: Study, out: Path) -> Iterator[TrainingJob]:
    for variant, seed in itertools.product(study.variants, study.run.loop.seeds):
        yield TrainingJob(study, variant, seed, out / variant / f"seed-{seed}.safetensors")


def _score(study: Study, out: Path) -> dict[str, object]:
    """Read the trained methods back and score them."""

    def trained(variant: str) -> list[Method]:
        return [_load(job) for job in _jobs(study, out) if job.variant == variant]

    return study.score(out, trained)


def _load(job: TrainingJob) -> Method:
    model = job.study.method(job.variant)
    try:
        model.load_state_dict(load_file(job.file))
    except (SafetensorError, RuntimeError) as error:
        what = str(error).splitlines()[0]
        raise CorruptError(
            f"{job.file}: not the weights of {job} ({what}); remove it and run again"
        ) from None
    return model.eval()


def _train_all(jobs: Sequence[TrainingJob], world: World) -> None:
    """Train what has not been trained; returns when all of it is there."""
    passes = sum(job.study.run.loop.epochs for job in jobs)
    mine = jobs[world.rank :: world.size]
    with progress("finetune", passes, show=world.is_main) as update:
        for place, job in enumerate(mine):
            if not job.file.exists():

                def report(fraction: float, before: int = place) -> None:
                    update(passes * (before + fraction) / len(mine))  # others are about as far

                _save(_train(job, report), job.file)
        world.wait()
        update(passes)


def _save(model: Method, path: Path) -> None:
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    with atomic_file(path) as file:
        file.write(to_safetensors(state))


def _train(job: TrainingJob, report: Callable[[float], None]) -> Method:
    """One method, at its best epoch on dev; by this process alone, whatever their number."""
    study, variant, run = job.study, job.variant, job.study.run
    torch.manual_seed(derive_seed(job.seed, run.name))
    model = study.method(variant)
    optimizer = build_optimizer(model, run.optim)
    for split in ("train", "dev"):
        _check_labelled(job, split, model)
    best: dict[str, Tensor] = {}
    untrained, best_loss = _dev_loss(study, variant, model), float("inf")
    steps = skipped = applied = 0
    for epoch in range(run.loop.epochs):
        plan = _batches(study, variant)
        model.train()
        model.start_epoch(epoch + 1)
        seen = 0
        for rows in plan:
            done = (epoch + seen / study.size(variant, "train")) / run.loop.epochs
            with torch.autocast("cpu", torch.bfloat16, enabled=run.loop.precision == "bf16"):
                result = train_step(
                    model,
                    optimizer,
                    [study.batch(variant, "train", rows)],
                    rate=learning_rate(run.optim, done),
                    clip=run.optim.clip,
                    world=ALONE,
                )
            seen += len(rows)
            steps, applied = steps + 1, applied + result.applied
            skipped = 0 if result.applied else skipped + 1
            if skipped == MAX_SKIPPED_STEPS:
                raise MmembedError(
                    f"{job}: the loss was not finite {skipped} steps in a row up to step {steps}; "
                    "lower --optim.lr"
                )
            report(done)
        loss = _dev_loss(study, variant, model)
        if applied and loss < best_loss:
            best_loss = loss
            best = {name: value.clone() for name, value in model.state_dict().items()}
    if not best:
        raise MmembedError(
            f"{job}: no epoch has a finite loss on dev after {applied} of {steps} steps; "
            "lower --optim.lr"
        )
    if best_loss > DIVERGED * max(1.0, untrained):
        raise MmembedError(
            f"{job}: the loss on dev was {untrained:.3g} before training and {best_loss:.3g} at "
            "its best epoch; lower --optim.lr"
        )
    if applied < steps:
        log.warning("%s: %d of %d steps had no finite loss", job, steps - applied, steps)
    model.load_state_dict(best)
    return model.eval()


def _batches(study: Study, variant: str) -> list[list[int]]:
    """The training items in a new order, cut into batches, of similar lengths if there are any."""
    size = study.run.loop.batch_size
    order, lengths = torch.randperm(study.size(variant, "train")).tolist(), study.lengths(variant)
    if lengths is None:
        return [order[start : start + size] for start in range(0, len(order), size)]
    batches = []
    for start in range(0, len(order), POOL * size):
        pool = sorted(order[start : start + POOL * size], key=lengths.__getitem__)
        batches += [pool[place : place + size] for place in range(0, len(pool), size)]
    return [batches[place] for place in torch.randperm(len(batches)).tolist()]


def _check_labelled(job: TrainingJob, split: str, model: Method) -> None:
    """Whether there is anything to learn, and to choose an epoch by.

    Raises:
        UsageError: no item of a split has a label that the loss counts.
    """
    counts = _count_labels(job.study, job.variant, split, model)
    if not any(counts[term] for term in counts if model.weights[term] > 0):
        raise UsageError(f"{job.variant}: no item of the split {split} is labelled")


def _count_labels(study: Study, variant: str, split: str, model: Method) -> dict[str, int]:
    """Term -> labelled items of a split."""
    counts = dict.fromkeys(model.terms, 0)
    size = study.size(variant, split)
    for start in range(0, size, DEV_BATCH):
        batch = study.batch(variant, split, range(start, min(size, start + DEV_BATCH)))
        for term, target in model.terms.items():
            counts[term] += batch.count(target)
    return counts


@torch.no_grad()
def _dev_loss(study: Study, variant: str, model: Method) -> float:
    model.eval()
    sums: dict[str, float] = dict.fromkeys(model.terms, 0.0)
    counts = dict.fromkeys(model.terms, 0)
    size = study.size(variant, "dev")
    for start in range(0, size, DEV_BATCH):
        batch: Batch = study.batch(variant, "dev", range(start, min(size, start + DEV_BATCH)))
        for term, value in model(batch).items():
            sums[term] += float(value)
        for term, target in model.terms.items():
            counts[term] += batch.count(target)
    return sum(model.weights[term] * sums[term] / max(1, counts[term]) for term in sums)
