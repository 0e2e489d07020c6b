"""One method of a study trained: its best epoch, by one process or by parts of batches."""

from __future__ import annotations

import copy
import io
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmembed.batch import Batch
from mmembed.data.sampler import derive_seed
from mmembed.errors import CorruptError, MmembedError, Stopped, UsageError
from mmembed.io.atomic import atomic_file
from mmembed.method import Method
from mmembed.studies.study import Study
from mmembed.training.distributed import World
from mmembed.training.optim import build_optimizer, learning_rate
from mmembed.training.recompute import recompute_blocks
from mmembed.training.signals import StopRequest
from mmembed.training.step import MAX_SKIPPED_STEPS, train_step

log = logging.getLogger(__name__)

DEV_BATCH: Final = 512  # items at once
DIVERGED: Final = 10  # times the loss on dev of an untrained method: nothing was learned
POOL: Final = 16  # batches whose items are sorted by length together


@dataclass(frozen=True)
class TrainingJob:
    """One method to train, and the file it ends in.

    Attributes:
        study: whose method it is.
        variant: of the study.
        seed: of its weights, its order and its dropout.
        file: its weights, in safetensors.
    """

    study: Study
    variant: str
    seed: int
    file: Path

    def __str__(self) -> str:
        return f"{self.variant}, seed {self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Where training stands, while it is not done."""
        return self.file.with_suffix(".checkpoint.pt")

    @property
    def name(self) -> str:
        """What a checkpoint has to be of."""
        return f"{self.study.run.name}: {self}"


@dataclass
class _State:
    """Where training stands: the batch `place` of the `plan` of `epoch` comes next.

    Attributes:
        untrained: loss before the first step, by which epochs are chosen; see `_loss`.
        plan: rows of each batch of the epoch.
        steps: that were taken, of which `applied` changed the weights and the last `skipped` did
            not, because something was not finite.
        best: weights of the best epoch so far, number `best_epoch`, whose loss is `best_loss`.
    """

    untrained: float
    epoch: int = 0
    place: int = 0
    plan: list[list[int]] = field(default_factory=list)
    steps: int = 0
    applied: int = 0
    skipped: int = 0
    best_loss: float = float("inf")
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)


def train(job: TrainingJob, world: World, report: Callable[[float], None]) -> None:
    """Train one method and write its best epoch.

    Training goes on from the checkpoint of the job, if there is one: on the same machine its end is
    bit for bit that of a run that was not stopped.

    Args:
        job: the method.
        world: the processes that train it together, each on its part of every batch.
        report: told the fraction that is done, after each step.

    Raises:
        MmembedError: training has diverged.
        Stopped: a signal has asked for it; a checkpoint is written.
        UsageError: a split has no item that is labelled.
    """
    study, variant, run = job.study, job.variant, job.study.run
    torch.manual_seed(derive_seed(job.seed, run.name))
    model = study.method(variant).to(world.device)
    if run.loop.recompute:
        recompute_blocks(model)
    optimizer = build_optimizer(model, run.optim, study.own_rates(variant, model))
    for split in ("train", "dev"):
        _check_labelled(job, split, model)
    state = _load(job, model, optimizer, world)
    if state is None:
        state = _State(_loss(study, variant, model, world, 0))
    parallel: nn.Module = model
    if world.size > 1:
        parallel = DistributedDataParallel(model, gradient_as_bucket_view=True)
    saved = time.monotonic()
    with StopRequest() as stop:
        while state.epoch < run.loop.epochs and not _is_stale(state, run.loop.patience):
            saved = _train_epoch(job, parallel, optimizer, state, world, report, stop, saved)
            state.epoch, state.place = state.epoch + 1, 0
            with stop.suspended():
                loss = _loss(study, variant, model, world, state.epoch)
            if state.applied and loss < state.best_loss:
                state.best_loss, state.best_epoch = loss, state.epoch
                state.best = {name: value.clone() for name, value in model.state_dict().items()}
    _check_converged(job, state)
    if world.is_main:
        weights = {name: value.contiguous().cpu() for name, value in state.best.items()}
        with atomic_file(job.file) as file:
            file.write(to_safetensors(weights))
        job.checkpoint.unlink(missing_ok=True)


def _train_epoch(
    job: TrainingJob,
    parallel: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: _State,
    world: World,
    report: Callable[[float], None],
    stop: StopRequest,
    saved: float,
) -> float:
    """Take the steps of an epoch that are left; returns when the last checkpoint was written."""
    study, variant, run = job.study, job.variant, job.study.run
    model: Method = parallel.module if world.size > 1 else parallel  # type: ignore[assignment]
    if not state.place:
        state.plan = world.broadcast(_batches(study, variant) if world.is_main else [])
    model.train()
    model.start_epoch(state.epoch + 1)
    seen, size = sum(map(len, state.plan[: state.place])), study.size(variant, "train")
    half = run.loop.precision == "bf16"
    step = run.loop.summed_batches
    for place in range(state.place, len(state.plan), step):
        batches = state.plan[place : place + step]
        done = (state.epoch + seen / size) / run.loop.epochs
        with torch.autocast(world.device.type, torch.bfloat16, enabled=half):
            result = train_step(
                parallel,
                optimizer,
                [_part(study, variant, rows, world) for rows in batches],
                rate=learning_rate(run.optim, done),
                clip=run.optim.clip,
                world=world,
                requests=lambda: (stop.requested,),
                means=len(batches),
            )
        seen += sum(map(len, batches))
        state.place, state.steps = place + len(batches), state.steps + 1
        state.applied += result.applied
        state.skipped = 0 if result.applied else state.skipped + 1
        if state.skipped == MAX_SKIPPED_STEPS:
            raise MmembedError(
                f"{job}: the loss was not finite {state.skipped} steps in a row up to step "
                f"{state.steps}; lower --optim.lr"
            )
        report(done)
        (stopping,) = result.requests
        due = time.monotonic() - saved > run.loop.checkpoint_every
        if world.is_main and (stopping or due):
            _save(job, model, optimizer, state)
            saved = time.monotonic()
        if stopping:
            world.wait()  # until the checkpoint is written
            raise Stopped(
                f"{job}: stopped at step {state.steps}; the same command again goes on from here"
            )
    return saved


def _is_stale(state: _State, patience: int) -> bool:
    return 0 < patience <= state.epoch - state.best_epoch


def _check_converged(job: TrainingJob, state: _State) -> None:
    """Raises MmembedError where nothing was learned."""
    if not state.best:
        raise MmembedError(
            f"{job}: no epoch has a finite loss after {state.applied} of {state.steps} "
            "steps; lower --optim.lr"
        )
    if state.best_loss > DIVERGED * max(1.0, state.untrained):
        raise MmembedError(
            f"{job}: the loss on dev was {state.untrained:.3g} before training and "
            f"{state.best_loss:.3g} at its best epoch; lower --optim.lr"
        )
    if state.applied < state.steps:
        failed = state.steps - state.applied
        log.warning("%s: %d of %d steps had no finite loss", job, failed, state.steps)


def _save(job: TrainingJob, model: Method, optimizer: torch.optim.Optimizer, state: _State) -> None:
    """Write the checkpoint, in the place of the last."""
    content = io.BytesIO()
    generators = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        generators["cuda"] = torch.cuda.get_rng_state()
    values = {**vars(state), "best": state.best}
    held = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": values}
    torch.save(
        {"job": job.name, "settings": _settings(job), "generators": generators, **held}, content
    )
    with atomic_file(job.checkpoint) as file:
        file.write(content.getvalue())


def _load(
    job: TrainingJob, model: Method, optimizer: torch.optim.Optimizer, world: World
) -> _State | None:
    """Restore the checkpoint; None where there is none.

    Raises:
        CorruptError: it is damaged, or of another run.
    """
    content = None
    if world.is_main:
        with suppress(FileNotFoundError):
            content = job.checkpoint.read_bytes()
    content = world.broadcast(content)
    if content is None:
        return None
    try:
        stored = io.BytesIO(content)
        held = torch.load(stored, map_location=world.device, weights_only=True)
        if (held["job"], held["settings"]) != (job.name, _settings(job)):
            raise ValueError("it is of another run")
        state = _State(**held["state"])
        model.load_state_dict(held["model"])
        optimizer.load_state_dict(held["optimizer"])
        torch.set_rng_state(held["generators"]["cpu"].cpu())
        if "cuda" in held["generators"] and torch.cuda.is_available():
            torch.cuda.set_rng_state(held["generators"]["cuda"].cpu())
    except MmembedError:  # a signal
        raise
    except Exception as error:  # what loaders raise on other bytes than their own is not declared
        what = " ".join(str(error).split())[:100]
        raise CorruptError(f"{job.checkpoint}: cannot be used ({what}); remove it") from None
    return state


def _settings(job: TrainingJob) -> dict[str, Any]:
    """What training goes on under; how often it is saved changes nothing."""
    run = asdict(job.study.run)
    run["loop"] = {n: value for n, value in run["loop"].items() if n != "checkpoint_every"}
    return run


def _part(study: Study, variant: str, rows: Sequence[int], world: World) -> Batch:
    """The rows of this process. Where there are fewer than processes, those without take the first
    one without its labels: they compute along, as all must, and change nothing.
    """
    own = rows[world.rank :: world.size]
    if own:
        return study.batch(variant, "train", own)
    return study.batch(variant, "train", rows[:1]).without_labels()


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


def _loss(study: Study, variant: str, model: Method, world: World, epoch: int) -> float:
    """What an epoch is chosen by, the lowest one: its loss on dev, or what `loop.select` says."""
    model.eval()
    if study.run.loop.select == "last":
        return -float(epoch)
    if study.run.loop.select == "best-on-test":
        tested = model if study.large else copy.deepcopy(model).cpu()
        return -study.test_score(variant, tested)
    return _dev_loss(study, variant, model, world)


@torch.no_grad()
def _dev_loss(study: Study, variant: str, model: Method, world: World) -> float:
    sums: dict[str, float] = dict.fromkeys(model.terms, 0.0)
    counts = dict.fromkeys(model.terms, 0)
    size = study.size(variant, "dev")
    for start in range(0, size, DEV_BATCH):
        batch: Batch = study.batch(variant, "dev", range(start, min(size, start + DEV_BATCH)))
        for term, value in model(batch.to(world.device)).items():
            sums[term] += float(value)
        for term, target in model.terms.items():
            counts[term] += batch.count(target)
    return sum(model.weights[term] * sums[term] / max(1, counts[term]) for term in sums)
