"""Recipes as the authors of a paper ran them: the settings of their released programs.

They train the same methods as the recipes of `mmembed.settings.finetune`, on the same data. What
still differs from the released programs stands in the docstring of each method. All keep the best
epoch on dev unless their docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from mmembed.config import Config, Count, Dropout, Weight, Width
from mmembed.settings.finetune import RUNS, DemuxRun, FinetuneLoop, FinetuneRun, SDTRun
from mmembed.settings.methods import SDTConfig
from mmembed.settings.optim import OptimConfig, Positive

RATE_OF_BERT: Final = 5e-5  # of Self-MM


@dataclass(frozen=True)
class SelfMmText(Config):
    """The text of Self-MM, which enters the fusion at its own width.

    Attributes:
        lr: Learning rate of the text encoder.
        weight_decay: Weight decay of its matrices; its vectors have none.
        post: Width of the features behind the head of the stream.
        post_dropout: Dropout before them.
    """

    lr: Positive = RATE_OF_BERT
    weight_decay: Weight = 1e-3
    post: Width = 32
    post_dropout: Dropout = 0.0


@dataclass(frozen=True)
class SelfMmSteps(Config):
    """Sound or picture of Self-MM, read by an LSTM.

    Attributes:
        lr: Learning rate of the LSTM and of the way into the fusion.
        weight_decay: Weight decay of both.
        hidden: Units of the LSTM.
        out: Width in the fusion.
        post: Width of the features behind the head of the stream.
        post_dropout: Dropout before them.
    """

    lr: Positive = 5e-3
    weight_decay: Weight = 0.0
    hidden: Width = 16
    out: Width = 16
    post: Width = 16
    post_dropout: Dropout = 0.0


@dataclass(frozen=True)
class SelfMmPaperRun(FinetuneRun):
    """Self-MM as MMSA runs it, on CMU-MOSEI unless told otherwise.

    Attributes:
        shards: Folder of prepared features, of a pickle of MMSA.
        backbone: Text encoder (a folder, or a name on the hub; MMSA: bert-base-uncased, for CH-SIMS
            bert-base-chinese) that reads the transcripts and is trained with all else. Without it
            the text features of the shards are read, of which the first step stands for the text.
        length: Tokens of a transcript, special ones included; longer ones are cut.
        cut_at_zeros: Read sound and picture up to their first row of zeros only, as the lengths in
            the pickles do. Otherwise all rows are read.
        text: How text is read.
        audio: How sound is read.
        video: How pictures are read.
        fusion: Width of the fusion.
        fusion_dropout: Dropout before it.
    """

    name: str = "self_mm_mosei"
    shards: str = ""
    backbone: str = ""
    length: Count = 50
    cut_at_zeros: bool = True
    text: SelfMmText = field(default_factory=SelfMmText)
    audio: SelfMmSteps = field(default_factory=SelfMmSteps)
    video: SelfMmSteps = field(
        default_factory=lambda: SelfMmSteps(lr=1e-4, hidden=32, out=32, post=32)
    )
    fusion: Width = 128
    fusion_dropout: Dropout = 0.1
    optim: OptimConfig = field(default_factory=lambda: _adam(1e-3, 0.01))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(
            epochs=100, patience=8, batch_size=32, summed_batches=4, seeds=(0, 1, 2, 3, 4)
        )
    )


def _adam(lr: float, weight_decay: float) -> OptimConfig:
    """Adam with L2 at a constant rate, of gradients as they are: torch's defaults."""
    return OptimConfig(
        lr=lr, warmup=0.0, weight_decay=weight_decay, clip=0.0, kind="adam", beta2=0.999,
        schedule="constant",
    )  # fmt: skip


def self_mm_mosei() -> SelfMmPaperRun:
    """Self-MM on the pickles of CMU-MOSEI by the settings of MMSA."""
    return SelfMmPaperRun()


def self_mm_mosi() -> SelfMmPaperRun:
    """Self-MM on the pickles of CMU-MOSI by the settings of MMSA."""
    run = SelfMmPaperRun()
    return replace(
        run,
        name="self_mm_mosi",
        text=replace(run.text, post_dropout=0.1),
        audio=replace(run.audio, weight_decay=1e-3, post_dropout=0.1),
        video=replace(run.video, lr=5e-3, weight_decay=1e-3),
        fusion_dropout=0.0,
        optim=_adam(1e-3, 1e-3),
        loop=replace(run.loop, batch_size=16),
    )


def self_mm_sims() -> SelfMmPaperRun:
    """Self-MM on the pickle of CH-SIMS by the settings of MMSA."""
    run = self_mm_mosi()
    return replace(
        run,
        name="self_mm_sims",
        length=39,
        text=replace(run.text, post=64),
        audio=replace(run.audio, weight_decay=0.01),
        video=replace(run.video, weight_decay=0.01, hidden=64),
        loop=replace(run.loop, batch_size=32),
    )


def sdt_iemocap() -> SDTRun:
    """SDT on IEMOCAP by the settings of its script.

    Speakers are numbered by gender, vectors are read as they are, and cross entropies are weighted
    by class. The script keeps the epoch that is best on the test split, and so does
    --loop.select best-on-test, whose rows say it.
    """
    return SDTRun(
        variants=("sdt",),
        speakers="gender",
        standardise=False,
        balanced=True,
        method=SDTConfig(width=1024),
        optim=_adam(1e-4, 1e-5),
        loop=FinetuneLoop(epochs=150, batch_size=16, seeds=tuple(range(10))),
    )


def sdt_meld() -> SDTRun:
    """SDT on MELD by the settings of its script.

    Vectors are read as they are; gates between streams of a turn are the identity. The script keeps
    the epoch that is best on the test split, and so does --loop.select best-on-test, whose rows say
    it.
    """
    return SDTRun(
        variants=("sdt",),
        standardise=False,
        method=SDTConfig(width=1024, unimodal_gate="identity", temperature=8.0),
        optim=_adam(5e-6, 1e-5),
        loop=FinetuneLoop(epochs=50, batch_size=8, seeds=tuple(range(10))),
    )


def demux_released() -> DemuxRun:
    """Demux by the settings of its scripts: released losses, the last of 5 epochs.

    The training split and dev are trained on. The rate suits BERT-base, the backbone of the paper.
    """
    return DemuxRun(
        variants=("intra",),
        local_form="released",
        global_form="released",
        disjunction="text",
        optim=OptimConfig(lr=2e-5, weight_decay=0.0, clip=0.0, beta2=0.999, schedule="linear"),
        loop=FinetuneLoop(epochs=5, select="last", batch_size=32, seeds=(0, 1, 2)),
    )


FINETUNE_RECIPES: Final[Mapping[str, Callable[[], FinetuneRun]]] = {
    **RUNS,
    "self_mm_mosi": self_mm_mosi,
    "self_mm_mosei": self_mm_mosei,
    "self_mm_sims": self_mm_sims,
    "sdt_iemocap": sdt_iemocap,
    "sdt_meld": sdt_meld,
    "demux_released": demux_released,
}
"""Name on the command line -> what makes its settings."""


def study_of(run: FinetuneRun) -> str:
    """The study that a run is of, by the kind of its settings."""
    if isinstance(run, SelfMmPaperRun):
        return "self_mm"
    return next(name for name, kind in RUNS.items() if isinstance(run, kind))
