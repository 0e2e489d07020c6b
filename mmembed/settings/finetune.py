"""Settings of fine-tuning: one class a study, whose defaults are its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from mmembed.config import Config, Count, Precision, Within
from mmembed.settings.methods import EmotionConfig, EmotionQueriesConfig, SDTConfig
from mmembed.settings.optim import OptimConfig
from mmembed.streams import STREAMS

AtLeastOne = Annotated[int, Within(1, 1 << 32)]


@dataclass(frozen=True)
class FinetuneLoop(Config):
    """The training loop.

    Attributes:
        epochs: Passes over the training items, at most.
        select: The epoch that is kept: the one with the lowest loss on "dev", or the "last". With
            "best-on-test" it is the one with the best score on the test split, as some published
            programs do: scores are then too good, and their rows say so. Where nothing is chosen on
            dev, sdt and demux train on it, too.
        patience: Training ends after so many epochs in a row without a better one; 0 never.
        batch_size: Items in a batch.
        summed_batches: Batches in a step. Their mean losses are added up, not averaged.
        precision: Precision of the matrix products of training. Dev and test stay in float32.
        seeds: Seeds: each variant is trained once for each. Tables give mean and standard
            deviation.
        data_parallel: Train each method by all processes of torchrun, each on its part of every
            batch, which suits large text encoders. Otherwise each process trains methods of its
            own, and their number changes no result.
        recompute: Keep of each transformer block only its input, and compute the rest again in the
            backward pass: less memory for about a third more work. Changes no gradient.
        checkpoint_every: Seconds between checkpoints of a method in training.
    """

    epochs: AtLeastOne = 20
    select: Literal["dev", "last", "best-on-test"] = "dev"
    patience: Count = 0
    batch_size: AtLeastOne = 64
    summed_batches: AtLeastOne = 1
    precision: Precision = "fp32"
    seeds: tuple[int, ...] = (0, 1, 2)
    data_parallel: bool = False
    recompute: bool = False
    checkpoint_every: float = 60.0


@dataclass(frozen=True)
class FinetuneRun:
    """What all fine-tuning runs have; each recipe adds its data and its method.

    Attributes:
        name: Name of the run.
        optim: The optimiser.
        loop: The training loop.
    """

    name: str
    optim: OptimConfig
    loop: FinetuneLoop


@dataclass(frozen=True)
class EmotionRun(FinetuneRun):
    """Sentiment and six emotions by a small regressor for each stream subset.

    Attributes:
        embeddings: Folder with one folder of embedding shards for each stream subset, or with
            shards itself.
        untrained: Such a folder of the untrained encoder, for comparison.
        method: The regressor.
    """

    name: str = "emotion"
    embeddings: str = ""
    untrained: str | None = None
    method: EmotionConfig = field(default_factory=EmotionConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-2, warmup=0.05, weight_decay=0.05)
    )
    loop: FinetuneLoop = field(default_factory=FinetuneLoop)


@dataclass(frozen=True)
class SelfMmRun(FinetuneRun):
    """Sentiment from features or embeddings by Self-MM, its ablation, single streams, baselines.

    Attributes:
        shards: Folder of prepared features.
        embeddings: Instead of shards: folder of embedding shards, as `mmembed extract --streams
            every` writes them. The layers of each single stream are weighted by learned weights.
        width: Width of each stream in the fusion.
        fusion: Width of the fusion.
        dropout: Dropout before the fusion and in the streams.
    """

    name: str = "self_mm"
    shards: str = ""
    embeddings: str = ""
    width: int = 32
    fusion: int = 128
    dropout: float = 0.1
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.01))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=20, batch_size=32, seeds=(0, 1, 2, 3, 4))
    )


@dataclass(frozen=True)
class SDTRun(FinetuneRun):
    """Emotion of each turn of dialogues by SDT, its ablations and a classifier of single turns.

    Attributes:
        shards: Folders of prepared dialogues.
        backbone: Text encoder of the transcripts, if the shards have no text features: a folder, or
            a name on the hub.
        embeddings: Instead of shards: folder of embedding shards of dialogues, as `mmembed extract
            --streams every` writes them. A turn is the mean over all layers of each single stream.
        variants: Some of "sdt", "without distillation", "without speakers", "without context"; by
            default all.
        speakers: Number the speakers of a dialogue by their first "turns", or by "gender" as the
            paper does for IEMOCAP: 0 where a speaker's name ends in M, 1 where it ends in F.
        standardise: Give all vectors mean 0 and standard deviation 1 over the training turns.
        balanced: Weight the cross entropies by class, as the paper does for IEMOCAP.
        method: The method.
    """

    name: str = "sdt"
    shards: tuple[str, ...] = ()
    backbone: str = ""
    embeddings: str = ""
    variants: tuple[str, ...] = ()
    speakers: Literal["turns", "gender"] = "turns"
    standardise: bool = True
    balanced: bool = False
    method: SDTConfig = field(default_factory=SDTConfig)
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.01))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=15, batch_size=16, seeds=(0, 1, 2, 3, 4))
    )


@dataclass(frozen=True)
class DemuxRun(FinetuneRun):
    """Several emotions of a text by Demux and MEmo; also unseen languages, emotions, formats.

    Attributes:
        shards: Folder of prepared texts.
        backbone: Pretrained text encoder: a folder, or a name on the hub.
        variants: Some of "bce" (no loss between labels), "inter", "intra", "complete",
            "intra+global", "memo" (with the loss of "intra"). By default all, with `leave_out` only
            "intra".
        emotions: Emotions to train; by default all that occur in training, in alphabetical order.
        language: Train on texts of this language only; by default on all.
        test_languages: Languages to test on, instead of the language of training.
        leave_out: Emotions that are tested on methods trained without them.
        clusters: Another format to test, such as "anger or disgust, joy or love or optimism".
        length: Tokens of a text with the emotion words before it; longer texts are cut.
        freeze: Number of lowest backbone layers that are frozen, with all word embeddings; 0
            freezes nothing.
        local_weight: Weight c of the loss between labels, in [0, 1].
        local_pairs: Weights of pairs of emotions: "alike" for all the same, "data" by correlation
            of the training labels, "wheel" by angles on the wheel of Plutchik.
        local_form: Loss between labels as a "mean" over pairs, or as the "released" code of the
            paper computes it, with its divisor and its constants: the gradient of intra is then
            (k - 1) / 2k of that of the mean, .45 for ten labels.
        global_weight: Weight g of the global loss, in the variant that has it.
        global_pairs: Correlation that emotion embeddings are trained towards: "data" or "wheel".
        global_form: Global loss as a "mean" over pairs, or as the "released" code computes it,
            divided by all E * E cells: 1 / 2.2 of the mean for 11 emotions.
        disjunction: Word before the last emotion of the prompt: the "english" one, or that of the
            language of each "text" where it is French, Spanish or Arabic, as in the released code.
        dropout: Dropout before the last layer of the head.
    """

    name: str = "demux"
    shards: str = ""
    backbone: str = ""
    variants: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    language: str = ""
    test_languages: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    clusters: str = ""
    length: int = 64
    freeze: int = 0
    local_weight: float = 0.2
    local_pairs: Literal["alike", "data", "wheel"] = "data"
    local_form: Literal["mean", "released"] = "mean"
    global_weight: float = 0.1
    global_pairs: Literal["data", "wheel"] = "data"
    global_form: Literal["mean", "released"] = "mean"
    disjunction: Literal["english", "text"] = "english"
    dropout: float = 0.1
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-4))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=5, batch_size=32, seeds=(0,))
    )


@dataclass(frozen=True)
class LayerAnchorRun(FinetuneRun):
    """Emotions of a language without labels: source only, layers anchored, the oracle.

    Attributes:
        source: Folder of embedding shards whose emotions are used for training.
        target: Folder of embedding shards by the same encoder, whose emotions are hidden in
            training.
        classes: Emotions that both corpora have; clips with other emotions are left out.
        standardise: Standardise vectors by the statistics of "each" corpus, or of "both" together.
        folds: Number of folds of target speakers.
        group: Number of adjacent layers that are anchored together.
        anchors: Names of layers that one more variant anchors.
        encoder: Folder of the encoder, or its name on the Hugging Face hub. With it, one more
            variant anchors the group whose layers are most similar for vowels.
        recogniser: Folder of an encoder that `mmembed pretrain` made, or its name on the Hugging
            Face hub: its recogniser finds the vowels, instead of that of the encoder. Public
            encoders have none.
        source_clips: Prepared shards of the source clips with transcripts, for the vowels.
        target_clips: Prepared shards of the target clips with transcripts, for the vowels.
        hidden: Width of the projections.
        dropout: Dropout before the classifier.
        coral_weight: Weight of the alignment loss.
    """

    name: str = "layer_anchor"
    source: str = ""
    target: str = ""
    classes: tuple[str, ...] = ("angry", "happy", "neutral", "sad")
    standardise: Literal["each", "both"] = "each"
    folds: int = 3
    group: int = 3
    anchors: tuple[str, ...] = ()
    encoder: str = ""
    recogniser: str | None = None
    source_clips: str = ""
    target_clips: str = ""
    hidden: int = 64
    dropout: float = 0.3
    coral_weight: float = 100.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.1))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=20, batch_size=128, seeds=(0, 1, 2, 3, 4))
    )


@dataclass(frozen=True)
class EmotionQueriesRun(FinetuneRun):
    """Any emotion word as a query of a clip; some emotions are left out of training in turn.

    Attributes:
        embeddings: Folders of embedding shards, one for each corpus.
        streams: Stream subset of the embeddings.
        reads: What the words attend to: "layers" (mean and standard deviation of each layer) or
            "frames" (extracted with --granularity frame).
        backbone: Text encoder of the emotion words: a folder, or a name on the hub.
        leave_out: Emotions, each of which one variant is trained without.
        descriptions: How each emotion sounds, such as "sad=a quiet, slow voice"; asked instead of
            their words. Emotions that are left out are found better by it.
        encoder: SHA-256 of the encoder. Set from the embeddings.
        method: The method.
    """

    name: str = "emotion_queries"
    embeddings: tuple[str, ...] = ()
    streams: str = "+".join(STREAMS)
    reads: Literal["layers", "frames"] = "layers"
    backbone: str = ""
    leave_out: tuple[str, ...] = ("angry", "fearful", "happy", "sad")
    descriptions: tuple[str, ...] = ()
    encoder: str = ""
    method: EmotionQueriesConfig = field(default_factory=EmotionQueriesConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-3, warmup=0.05, weight_decay=0.05)
    )
    loop: FinetuneLoop = field(default_factory=lambda: FinetuneLoop(epochs=10, batch_size=32))


RUNS: Final[Mapping[str, type[FinetuneRun]]] = {
    "emotion": EmotionRun,
    "self_mm": SelfMmRun,
    "sdt": SDTRun,
    "demux": DemuxRun,
    "layer_anchor": LayerAnchorRun,
    "emotion_queries": EmotionQueriesRun,
}
"""Study -> its settings."""
