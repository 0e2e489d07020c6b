"""Complete pre-training runs as values; each recipe is a function that returns one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from mmembed.config import Precision
from mmembed.settings.encoder import BackboneConfig, EncoderConfig
from mmembed.settings.methods import CtcSpeakerConfig
from mmembed.settings.optim import OptimConfig


@dataclass(frozen=True)
class VocabularyConfig:
    """A sentencepiece vocabulary to learn.

    Attributes:
        size: The largest number of units, special ones included.
        kind: The kind of sentencepiece model.
    """

    size: int
    kind: Literal["unigram", "bpe", "char"]


@dataclass(frozen=True)
class Augmentation:
    """What training does to an item; all of it a function of one generator.

    Attributes:
        audio: Mask bands and times of the log-mel (SpecAugment).
        gain: Largest change of loudness in dB, louder or softer, the same in all bands.
        video: Shift, mirror and brighten the face crops.
        keep_streams: Probability that an item keeps all its streams. Otherwise it keeps a random
            non-empty subset, so that every subset is trained.
        mask_text: Largest fraction of the text tokens that is masked for the masked-token loss. All
            fractions up to it are equally likely, and at least one token is masked.
    """

    audio: bool = True
    gain: float = 6.0
    video: bool = True
    keep_streams: float = 0.6
    mask_text: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """The training data.

    Attributes:
        shards: Folders of prepared shards. Training uses the records of split "train" or of no
            split, evaluation those of "dev", "heldout" and "test".
        weights: How often an epoch has each record of a folder, on average: one number for each
            folder. By default 1.
        exclude_speakers: Speakers to leave out of training, whatever their split.
        audio_layers: Folders that `mmembed extract --granularity steps` made of the shards, with
            the layers of the frozen audio encoder. They are read instead of sound, so that a run
            costs minutes; the sound is then not augmented.
        streams: The streams to read. With text alone the encoder learns masked tokens only: it gets
            no recogniser and no scores.
        vocabulary: Subwords of the text stream.
        alphabet: Output units of CTC. Characters need fewer hours of speech than larger units.
        alphabet_of: Pretrained recogniser (folder, or name on the hub), such as wav2vec2 fine-tuned
            with CTC. The letters that it writes are the output units of CTC, instead of those of
            the transcripts.
        frames: Frames (25 Hz) of a global batch, summed over all processes.
        pool: Number of records that are sorted by length together, so that items of a batch have
            similar lengths. 0 makes random batches, which small corpora need: there, items of
            similar length are often from one corpus.
        augmentation: Changes made to training items.
    """

    shards: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    exclude_speakers: tuple[str, ...] = ()
    audio_layers: tuple[str, ...] = ()
    streams: tuple[str, ...] = ("audio", "video", "text")
    vocabulary: VocabularyConfig = VocabularyConfig(256, "unigram")
    alphabet: VocabularyConfig = VocabularyConfig(100, "char")
    alphabet_of: str = ""
    frames: int = 2400
    pool: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class LoopConfig:
    """The training loop.

    Attributes:
        epochs: Passes over the training data.
        seed: Seed of weights, order, augmentation and dropout.
        accumulate: Micro-batches of each process in a step. Changes the memory needed, not the
            gradient.
        workers: Processes that read and augment data for each training process; 0 reads in the
            training process itself. Changes the speed only, so a run may continue with another
            number.
        precision: Precision of matrix products; weights and sums stay in float32.
        recompute: Keep of each transformer block only its input, and compute the rest again in the
            backward pass: less memory for about a third more work. Changes no gradient.
        shard: Divide weights, gradients and the optimiser's state among the processes of torchrun
            (FSDP2): for an encoder whose training does not fit into the memory of one GPU. Gives
            what undivided training gives, but for rounding.
        evaluate_every: Epochs between scores on the dev split; 0 scores at the end only.
        checkpoint_every: Seconds between checkpoints; they are written between steps and at the end
            of epochs.
    """

    epochs: int = 30
    seed: int = 0
    accumulate: int = 1
    workers: int = 0
    precision: Precision = "fp32"
    recompute: bool = False
    shard: bool = False
    evaluate_every: int = 5
    checkpoint_every: float = 60.0


@dataclass(frozen=True)
class PretrainRun:
    """One pre-training run; everything that decides its result.

    Attributes:
        name: Name of the run.
        method: The method.
        data: The training data.
        optim: The optimiser.
        loop: The training loop.
        self_contained: Whether the encoder folder holds the weights of pretrained encoders that
            were not trained. Otherwise it names them by SHA-256, and who reads it must have them.
    """

    name: str
    method: CtcSpeakerConfig = field(default_factory=CtcSpeakerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    self_contained: bool = True


def tiny() -> PretrainRun:
    """About 2 million parameters: trains on talkers within minutes on two cores."""
    encoder = EncoderConfig(
        width=144, num_heads=4, audio_layers=4, audio_channels=16, video_channels=8
    )
    return PretrainRun(
        "tiny",
        method=CtcSpeakerConfig(encoder=encoder),
        data=DataConfig(frames=450),
        optim=OptimConfig(lr=2e-3),
        loop=LoopConfig(epochs=23, evaluate_every=10),
    )


def base() -> PretrainRun:
    """6 layers of width 480, near the AV-ASR relative of the paper (ACL 2020)."""
    encoder = EncoderConfig(
        width=480, num_heads=6, audio_layers=6, video_layers=2, text_layers=2, cross_layers=2,
        audio_channels=32, video_channels=32, dropout=0.2,
    )  # fmt: skip
    return PretrainRun(
        "base",
        method=CtcSpeakerConfig(encoder=encoder),
        data=DataConfig(vocabulary=VocabularyConfig(4000, "unigram"), frames=24_000, pool=10_000),
        loop=LoopConfig(epochs=50),
    )


def large() -> PretrainRun:
    """12 layers of width 768."""
    run = base()
    encoder = replace(
        run.method.encoder, width=768, num_heads=12, audio_layers=12, video_layers=4,
        text_layers=4, audio_channels=48, video_channels=48,
    )  # fmt: skip
    return replace(
        run,
        name="large",
        method=replace(run.method, encoder=encoder),
        optim=replace(run.optim, lr=5e-4),
    )


def speech() -> PretrainRun:
    """Audio alone on small public corpora of several languages: some 3 M parameters."""
    encoder = EncoderConfig(width=192, num_heads=4, audio_layers=6)
    return PretrainRun(
        "speech",
        method=CtcSpeakerConfig(encoder=encoder, masked_text_weight=0.0),
        data=DataConfig(streams=("audio",), frames=600),
        optim=OptimConfig(lr=1.5e-3),
        loop=LoopConfig(epochs=20),
    )


def speech_whisper() -> PretrainRun:
    """Audio alone on top of Whisper base, whose queries and values are tuned by LoRA."""
    audio = BackboneConfig("openai/whisper-base", tuned="lora")
    encoder = EncoderConfig(width=256, num_heads=4, audio_layers=1, conv_size=0, audio=audio)
    return PretrainRun(
        "speech_whisper",
        method=CtcSpeakerConfig(encoder=encoder, masked_text_weight=0.0),
        data=DataConfig(streams=("audio",), frames=600),
        loop=LoopConfig(epochs=10),
    )


def talking() -> PretrainRun:
    """All three streams pretrained and frozen (Whisper base, DINOv2 small, MiniLM)."""
    encoder = EncoderConfig(
        width=256,
        num_heads=4,
        audio_layers=1,
        conv_size=0,
        audio=BackboneConfig("openai/whisper-base"),
        video=BackboneConfig("facebook/dinov2-small"),
        text=BackboneConfig("sentence-transformers/all-MiniLM-L6-v2"),
    )
    return PretrainRun(
        "talking",
        method=CtcSpeakerConfig(encoder=encoder),
        data=DataConfig(frames=600),
        loop=LoopConfig(epochs=10),
    )


RECIPES: Final[dict[str, Callable[[], PretrainRun]]] = {
    recipe.__name__: recipe for recipe in (tiny, base, large, speech, speech_whisper, talking)
}
