"""A pre-training run from its settings to the encoder's folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmembed.backbones.pretrained import Pretrained, load_pretrained
from mmembed.data.loader import TrainingLoader
from mmembed.data.sampler import derive_seed
from mmembed.embedder import Recogniser, save_encoder
from mmembed.embedder.folder import is_encoder
from mmembed.encoder import FRAME_RATE
from mmembed.errors import MmembedError, Stopped, UsageError
from mmembed.io.json import write_json
from mmembed.io.progress import progress
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.pretraining.evaluation import evaluate_speech, quick_scores, score_lines
from mmembed.pretraining.pretrain_data import TrainingCorpus, describe_data, open_corpus
from mmembed.settings.pretrain import PretrainRun
from mmembed.streams import STREAMS
from mmembed.training.checkpoint import Position, TrainingState, load_latest, save_checkpoint
from mmembed.training.data_digest import check_data
from mmembed.training.distributed import World, check_precision, join_world
from mmembed.training.environment import record_environment
from mmembed.training.optim import build_optimizer, learning_rate
from mmembed.training.recompute import recompute_blocks
from mmembed.training.run_folder import MetricsLog, open_run_folder
from mmembed.training.shard import Sharded
from mmembed.training.signals import StopRequest
from mmembed.training.step import MAX_SKIPPED_STEPS, StepResult, train_step

MUTABLE_FIELDS = (
    "loop.workers",
    "loop.recompute",
    *(f"method.encoder.{stream}.name" for stream in STREAMS),
)  # settings that change no result


def pretrain(run: PretrainRun, out: Path) -> None:
    """Build, resume, loop, save, score.

    Args:
        run: which decides everything.
        out: folder of the run.
    """
    with join_world() as world:
        check_precision(run.loop.precision, world.device)
        pretrained = _pretrained(run)
        corpus = open_corpus(run.data, pretrained)
        run = _resolved(run, corpus, pretrained)
        _agree(run, corpus, world)
        if world.is_main:
            open_run_folder(out, asdict(run), mutable=MUTABLE_FIELDS)
            check_data(out, asdict(run))
            _describe(run, corpus, out)
        if world.broadcast((out / "evaluation.json").exists()):
            return
        if world.is_main:
            record_environment(out, world)
        torch.manual_seed(run.loop.seed)
        backbones = {stream: held.encoder for stream, held in pretrained.items()}
        method = CtcSpeaker(run.method, backbones)
        if not (in_parts := run.loop.shard and world.size > 1):  # its parts go to the device
            method = method.to(world.device)
        if run.loop.recompute:
            recompute_blocks(method)
        if world.is_main and not is_encoder(out / "untrained"):
            _save(out / "untrained", method, corpus, run)
        # First: it reads the manifest row of each record, and refuses those that are none.
        data = describe_data(corpus) if world.is_main and run.loop.epochs else ()
        if run.loop.epochs:
            method = _train(run, method, corpus, out, world, in_parts)
        if world.is_main:  # before it is scored, which may fail
            _save(out / "encoder", method, corpus, run, data=data)
        evaluation = evaluate_speech(method, corpus, world)
        if world.is_main:
            _save(out / "encoder", method, corpus, run, data=data, evaluation=evaluation)
            write_json(out / "evaluation.json", evaluation)  # last: it says that all is done
            print("\n".join(score_lines(evaluation)), flush=True)
            print(f"encoder: {out / 'encoder'}", flush=True)
        world.wait()  # no process ends well when the main one does not


def _train(
    run: PretrainRun,
    method: CtcSpeaker,
    corpus: TrainingCorpus,
    out: Path,
    world: World,
    in_parts: bool,
) -> CtcSpeaker:
    """Take the steps that are left, from the newest checkpoint on; the method as it is then."""
    optimizer = build_optimizer(method, run.optim)
    position = load_latest(out / "checkpoints", method, optimizer, world) or Position()
    model: nn.Module = method
    sharded = Sharded(method, optimizer, world) if in_parts else None
    if sharded:
        optimizer = sharded.optimizer
    elif world.size > 1:  # gradients are summed in place: a small step takes 10 % less
        model = DistributedDataParallel(method, gradient_as_bucket_view=True)
    log = MetricsLog(out / "metrics.jsonl", position.total) if world.is_main else None
    started = time.monotonic() - (log.seconds if log else 0.0)
    saved = time.monotonic()
    loader = TrainingLoader(
        corpus.train.read,
        corpus.train.frames,
        run.data.augmentation,
        run.loop.seed,
        rank=world.rank,
        world=world.size,
        splits=run.loop.accumulate,
        pin_memory=world.device.type == "cuda",
        mask=corpus.subwords.mask,
    )

    def due() -> bool:
        return world.is_main and time.monotonic() - saved > run.loop.checkpoint_every

    def save() -> None:
        nonlocal saved
        state = TrainingState.of(method, optimizer)
        if world.is_main:
            save_checkpoint(out / "checkpoints", state, position, world)
        saved = time.monotonic()
        world.wait()

    with (
        progress("pretrain", run.loop.epochs, start=position.epoch, show=world.is_main) as update,
        StopRequest() as stop,
    ):
        for epoch in range(position.epoch, run.loop.epochs):
            plan = corpus.plan(seed=run.loop.seed, epoch=epoch)
            with loader.load(plan, epoch, start=position.step, workers=run.loop.workers) as steps:
                for step, micro_batches in enumerate(steps, position.step):
                    done = epoch + step / len(plan)
                    rate = learning_rate(
                        run.optim,
                        done / run.loop.epochs,
                        step=1 / len(plan) / run.loop.epochs,
                    )
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
                            requests=lambda: (stop.requested, due()),
                        )
                    skipped = 0 if result.applied else position.skipped + 1
                    position = Position(epoch, step + 1, position.total + 1, skipped)
                    if log:
                        _log_step(log, position, result, rate, time.monotonic() - started)
                        update(done + 1 / len(plan), loss=result.loss)
                    if position.skipped == MAX_SKIPPED_STEPS:
                        raise _diverged(out, position)
                    stopping, saving = result.requests
                    if stopping or saving:
                        save()
                    if stopping:
                        raise Stopped(
                            f"{out}: stopped at step {position.total}; run again to continue"
                        )
            every = run.loop.evaluate_every
            if every and (epoch + 1) % every == 0 and epoch + 1 < run.loop.epochs:
                save()  # at the end of this epoch: its scores come again when they are stopped
                with stop.suspended(), sharded.whole() if sharded else nullcontext(method) as held:
                    scores = quick_scores(held, corpus, world)
                if log:
                    log.write(split="dev", step=position.total, epoch=epoch + 1, **scores)
            position = replace(position, epoch=epoch + 1, step=0)
        if position.total and position.skipped == position.total:
            raise _diverged(out, position)
        save()
    if sharded:
        with sharded.whole() as held:
            method = held
    return method.to(world.device)


def _diverged(out: Path, position: Position) -> MmembedError:
    return MmembedError(
        f"{out}: the loss was not finite {position.skipped} steps in a row up to step "
        f"{position.total}; lower --optim.lr, and look for data that are not finite"
    )


def _agree(run: PretrainRun, corpus: TrainingCorpus, world: World) -> None:
    """Refuse to train when the processes do not read the same, each on its machine."""
    seen = world.gather([corpus.train.examples.digest, asdict(run)])
    others = [str(rank) for rank, found in enumerate(seen) if found != seen[0]]
    if others:
        raise UsageError(
            f"process {', '.join(others)} of {world.size} sees other records in "
            f"{', '.join(run.data.shards)} than process 0: give all of them the same shards"
        )


def _pretrained(run: PretrainRun) -> dict[str, Pretrained]:
    """Stream -> the pretrained encoder that is its front end."""
    configs = {stream: run.method.encoder.backbone_config(stream) for stream in STREAMS}
    if run.data.audio_layers and configs["audio"].tuned != "nothing":
        raise UsageError(
            f"--data.audio-layers: layers that were computed before are of a frozen encoder, but "
            f"--method.encoder.audio.tuned is {configs['audio'].tuned}"
        )
    return {s: load_pretrained(config.name, s) for s, config in configs.items() if config.name}


def _resolved(
    run: PretrainRun, corpus: TrainingCorpus, pretrained: Mapping[str, Pretrained]
) -> PretrainRun:
    """The run with what only the data could tell: sizes of the vocabulary and of the speakers, and
    which pretrained encoders these are.
    """
    encoder = replace(run.method.encoder, vocabulary_size=len(corpus.subwords))
    encoder = encoder.with_backbones(
        lambda stream, config: replace(config, sha256=pretrained[stream].sha256)
    )
    terms = _terms(run)
    if not any(corpus.labelled[target] for target in terms.values()):
        raise UsageError(
            f"nothing to learn in {', '.join(run.data.shards)} by {' or '.join(run.data.streams)}: "
            f"no record has what {' or '.join(terms) or 'a term with a weight'} needs"
        )
    speakers = max(1, len(corpus.speakers))
    method = replace(
        run.method, encoder=encoder, num_speakers=speakers, alphabet_size=len(corpus.alphabet)
    )
    return replace(run, method=method)


def _terms(run: PretrainRun) -> dict[str, str]:
    """The terms of the run's loss, and the targets that they need."""
    terms = CtcSpeaker.terms.items()
    return {term: target for term, target in terms if getattr(run.method, f"{term}_weight") > 0}


def _save(
    folder: Path, method: CtcSpeaker, corpus: TrainingCorpus, run: PretrainRun, **known: Any
) -> None:
    """The encoder's folder; a head that was not to learn speech, or had none, is none of it."""
    speech = run.method.ctc_weight and corpus.labelled["transcript"]
    recogniser = Recogniser(method.ctc_head, corpus.alphabet) if speech else None
    settings = asdict(run)
    save_encoder(
        folder,
        method.encoder,
        corpus.subwords,
        settings,
        recogniser=recogniser,
        self_contained=run.self_contained,
        **known,
    )


def _describe(run: PretrainRun, corpus: TrainingCorpus, out: Path) -> None:
    hours = float(corpus.train.frames.sum()) / FRAME_RATE / 3600
    print(
        f"pretrain {run.name} in {out}: {len(corpus.train)} utterances, {hours:.2f} h, "
        f"{len(corpus.speakers)} speakers, {len(corpus.subwords)} subwords, "
        f"{len(corpus.alphabet)} output units",
        flush=True,
    )
    for term, target in _terms(run).items():
        if not corpus.labelled[target]:
            print(f"nothing to learn {term} from: trains without it", flush=True)
    if corpus.unknown_letters:
        print(
            f"{corpus.unknown_letters} transcripts have letters that are no output units",
            flush=True,
        )
    for folder, size, weight in zip(
        run.data.shards, corpus.train.examples.sizes, run.data.weights, strict=False
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
