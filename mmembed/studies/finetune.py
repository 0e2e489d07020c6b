"""A fine-tuning run from its settings to the scores of its methods."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmembed.errors import CorruptError
from mmembed.io.json import write_json
from mmembed.io.progress import progress
from mmembed.method import Method
from mmembed.settings.finetune import FinetuneRun
from mmembed.studies.finetune_job import TrainingJob, train
from mmembed.studies.registry import STUDIES
from mmembed.studies.results import read_results
from mmembed.studies.study import Study, check_settings, table
from mmembed.training.data_digest import check_data
from mmembed.training.distributed import World, check_precision, join_world
from mmembed.training.environment import record_environment
from mmembed.training.run_folder import open_run_folder

MUTABLE_FIELDS: Final = (
    "loop.checkpoint_every",
    "loop.recompute",
)  # settings that change no result


def finetune(name: str, run: FinetuneRun, out: Path) -> None:
    """Read, train each variant and seed, score, save.

    Args:
        name: of the study.
        run: which decides everything.
        out: folder of the run.
    """
    check_settings(run)
    with join_world() as world:
        check_precision(run.loop.precision, world.device)
        study = STUDIES[name](run)
        if world.is_main:
            open_run_folder(out, asdict(study.run), MUTABLE_FIELDS)
            check_data(out, asdict(study.run))
        done = out / "results.json"
        if not world.broadcast(done.exists()):
            if world.is_main:
                record_environment(out, world)
            studies = {out: study, **{out / name: s for name, s in study.controls.items()}}
            jobs = [job for folder, one in studies.items() for job in _jobs(one, folder)]
            if world.is_main:
                print(_announced(study, jobs, out), flush=True)
            _train_all(jobs, world)
            if world.is_main:
                device = world.device
                scores = {folder: _score(one, folder, device) for folder, one in studies.items()}
                controls = {name: scores[out / name] for name in study.controls}
                write_json(done, {**scores[out], "controls": controls})
        if world.is_main:
            print("\n".join(table(read_results(done))), flush=True)
            print(f"results: {out}; `mmembed report {out}` makes a page", flush=True)
        world.wait()  # no process ends well when the main one does not


def _announced(study: Study, jobs: Sequence[TrainingJob], out: Path) -> str:
    """What is to be done, in one line: sizes of the splits, methods, and where it goes on from."""
    first = study.variants[0]
    sizes = ", ".join(f"{study.size(first, split)} {split}" for split in ("train", "dev"))
    tests = ", ".join(f"{len(items.keys)} {name}" for name, items in study.tests.items())
    done = sum(job.file.exists() for job in jobs)
    begun = sum(job.checkpoint.exists() for job in jobs)
    found = f"; {done} of these are trained already" if done else ""
    found += f"; {begun} from a checkpoint" if begun else ""
    return (
        f"finetune {study.run.name} in {out}: {sizes} items ({first}), tests {tests}; "
        f"{len(jobs)} methods to train{found}"
    )


def _jobs(study: Study, out: Path) -> Iterator[TrainingJob]:
    for variant, seed in itertools.product(study.variants, study.run.loop.seeds):
        yield TrainingJob(study, variant, seed, out / variant / f"seed-{seed}.safetensors")


def _score(study: Study, out: Path, device: torch.device) -> dict[str, object]:
    """Read the trained methods back and score them, large ones on the device."""

    def trained(variant: str) -> list[Method]:
        methods = [_load(job) for job in _jobs(study, out) if job.variant == variant]
        return [method.to(device) for method in methods] if study.large else methods

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
    together = any(job.study.run.loop.data_parallel for job in jobs)
    mine = jobs if together else jobs[world.rank :: world.size]
    part = world if together else World(0, 1, world.device)
    with progress("finetune", passes, show=world.is_main) as update:
        for place, job in enumerate(mine):
            if not part.broadcast(job.file.exists()):

                def report(fraction: float, before: int = place) -> None:
                    update(passes * (before + fraction) / len(mine))  # others are about as far

                train(job, part, report)
        world.wait()
        update(passes)
