"""Train the encoder on speech recognition and speaker classification.

    torchrun --nproc-per-node 2 train/pretrain.py tiny --data.shards corpus/shards --out runs/tiny

The same command again continues where the run stands.
"""

from __future__ import annotations

import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmembed.commands.cli import leave, run_program
from mmembed.commands.progress import progress
from mmembed.config import to_dict
from mmembed.data.loader import Steps
from mmembed.data.sampling import derive_seed
from mmembed.embedder import Recogniser, save_encoder
from mmembed.encoder import FRAME_RATE
from mmembed.errors import MmembedError, Stopped
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.recipes.corpus import Corpus, describe_data, open_corpus
from mmembed.recipes.evaluation import evaluate_speech, quick_scores
from mmembed.recipes.parsing import parse_recipe
from mmembed.recipes.pretrain import RECIPES, PretrainRun
from mmembed.training.checkpoint import Position, load_latest, save_checkpoint
from mmembed.training.distributed import World, join_world
from mmembed.training.optim import build_optimizer, learning_rate
from mmembed.training.signals import StopRequest
from mmembed.training.step import StepResult, train_step
from mmembed.training.tracking import MetricsLog, claim_folder, write_json

MOST_SKIPPED = 3  # steps in a row whose loss is not finite
FREE = ("loop.workers",)  # settings that change no result


def main(argv: list[str] | None = None) -> None:
    """Parse, build, resume, loop, save."""
    run, out = parse_recipe("pretrain", RECIPES, sys.argv[1:] if argv is None else argv)
    with join_world() as world:
        corpus = open_corpus(run.data)
        run = _resolved(run, corpus)
        if world.is_main:
            claim_folder(out, to_dict(run), free=FREE)
            _describe(run, corpus, out)
        world.wait()
        if (out / "evaluation.json").exists():
            return
        torch.manual_seed(run.loop.seed)
        method = CtcSpeaker(run.method).to(world.device)
        if world.is_main:
            _save(out / "untrained", method, corpus, run)
        if run.loop.epochs:
            _train(run, method, corpus, out, world)
        evaluation = evaluate_speech(method, corpus, world)
        if world.is_main:
            data = describe_data(corpus) if run.loop.epochs else ()
            _save(out / "encoder", method, corpus, run, data=data, evaluation=evaluation)
            write_json(out / "evaluation.json", evaluation)  # last: it says that all is done
            print(f"encoder: {out / 'encoder'}", flush=True)


def _train(run: PretrainRun, method: CtcSpeaker, corpus: Corpus, out: Path, world: World) -> None:
    model: nn.Module = method
    if world.size > 1:  # gradients are summed where they lie: a tenth off a small step
        model = DistributedDataParallel(method, gradient_as_bucket_view=True)
    optimizer = build_optimizer(method, run.optim)
    position = load_latest(out / "checkpoints", method, optimizer) or Position()
    world.wait()
    log = MetricsLog(out / "metrics.jsonl", position.total) if world.is_main else None
    started = time.monotonic() - (log.seconds if log else 0.0)
    steps = Steps(
        corpus.item,
        corpus.lengths,
        run.data.augmentation,
        run.loop.seed,
        rank=world.rank,
        world=world.size,
        splits=run.loop.accumulate,
    )
    stop, saved, skipped = StopRequest(), time.monotonic(), 0

    with progress("pretrain", run.loop.epochs, start=position.epoch, show=world.is_main) as update:
        for epoch in range(position.epoch, run.loop.epochs):
            plan = corpus.plan(seed=run.loop.seed, epoch=epoch)
            with closing(
                steps.load(plan, epoch, start=position.step, workers=run.loop.workers)
            ) as loaded:
                for step, micro_batches in enumerate(loaded, position.step):
                    done = epoch + step / len(plan)
                    rate = learning_rate(run.optim, done / run.loop.epochs)
                    torch.manual_seed(
                        derive_seed(run.loop.seed, "dropout", epoch, step, world.rank)
                    )
                    with torch.autocast(
                        world.device.type, torch.bfloat16, enabled=run.loop.precision == "bf16"
                    ):
                        result = train_step(
                            model,
                            optimizer,
                            micro_batches,
                            rate=rate,
                            clip=run.optim.clip,
                            world=world,
                        )
                    position = Position(epoch, step + 1, position.total + 1)
                    skipped = 0 if result.applied else skipped + 1
                    if skipped == MOST_SKIPPED:
                        raise MmembedError(
                            f"{out}: the loss was not finite {skipped} steps in a row up to step "
                            f"{position.total}; lower --optim.lr"
                        )
                    if log:
                        _log_step(log, position, result, rate, time.monotonic() - started)
                        update(done + 1 / len(plan), loss=result.loss)
                    stopping = stop.agreed(world)
                    if world.is_main and (
                        stopping or time.monotonic() - saved > run.loop.checkpoint_every
                    ):
                        save_checkpoint(out / "checkpoints", method, optimizer, position)
                        saved = time.monotonic()
                    if stopping:
                        raise Stopped(
                            f"{out}: stopped at step {position.total}; run again to continue"
                        )
            position = Position(epoch + 1, 0, position.total)
            every = run.loop.evaluate_every
            if every and (epoch + 1) % every == 0 and epoch + 1 < run.loop.epochs:
                scores = quick_scores(method, corpus, world)
                if log:
                    log.write(split="dev", step=position.total, epoch=epoch + 1, **scores)
    if world.is_main:
        save_checkpoint(out / "checkpoints", method, optimizer, position)


def _resolved(run: PretrainRun, corpus: Corpus) -> PretrainRun:
    """The run with what only the data could tell: sizes of the vocabulary and of the speakers."""
    encoder = replace(run.method.encoder, vocabulary_size=len(corpus.vocabulary))
    speakers = max(1, len(corpus.speakers))
    method = replace(
        run.method, encoder=encoder, num_speakers=speakers, alphabet_size=len(corpus.alphabet)
    )
    return replace(run, method=method)


def _save(folder: Path, method: CtcSpeaker, corpus: Corpus, run: PretrainRun, **known: Any) -> None:
    """The encoder's folder; a head that was not to learn speech is none of it."""
    recogniser = Recogniser(method.ctc_head, corpus.alphabet) if run.method.ctc_weight else None
    settings = to_dict(run)
    save_encoder(
        folder, method.encoder, corpus.vocabulary, settings, recogniser=recogniser, **known
    )


def _describe(run: PretrainRun, corpus: Corpus, out: Path) -> None:
    hours = float(corpus.lengths.sum()) / FRAME_RATE / 3600
    print(
        f"pretrain {run.name} in {out}: {len(corpus.train)} utterances, {hours:.2f} h, "
        f"{len(corpus.speakers)} speakers, {len(corpus.vocabulary)} pieces, "
        f"{len(corpus.alphabet)} letters",
        flush=True,
    )
    for folder, size, weight in zip(
        run.data.shards, corpus.train.sizes, run.data.weights, strict=False
    ):
        print(f"{folder}: {size} x {weight:g} = {size * weight:.0f} an epoch", flush=True)
    if corpus.impossible and not (out / "impossible_transcripts.json").exists():
        write_json(out / "impossible_transcripts.json", corpus.impossible)
        print(
            f"{len(corpus.impossible)} transcripts are too long for their clip and train without "
            f"CTC: {out / 'impossible_transcripts.json'}",
            flush=True,
        )


def _log_step(
    log: MetricsLog, position: Position, result: StepResult, rate: float, seconds: float
) -> None:
    log.write(
        split="train",
        step=position.total,
        epoch=position.epoch,
        seconds=round(seconds, 2),
        loss=result.loss,
        **result.losses,
        gradient_norm=result.gradient_norm,
        learning_rate=rate,
    )


if __name__ == "__main__":
    leave(run_program(main))
