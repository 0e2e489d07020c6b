"""Made-up items, batches and methods for tests."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmembed.batch import Batch, Padded
from mmembed.data.item import EMPTY, Item
from mmembed.method import Method
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.settings.encoder import EncoderConfig
from mmembed.settings.methods import CtcSpeakerConfig
from mmembed.training.distributed import World
from mmembed.training.step import accumulate_gradients

VOCABULARY_SIZE = 20
NUM_SPEAKERS = 3


def random_item(streams: Sequence[str], seed: int, *, speaker: int | None = None) -> Item:
    """Random content for the named streams; lengths grow with the seed."""
    generator = torch.Generator().manual_seed(seed)

    def tokens(count: int) -> torch.Tensor:
        return torch.randint(3, VOCABULARY_SIZE, (count,), generator=generator)

    inputs = dict(EMPTY)
    if "audio" in streams:
        inputs["audio"] = torch.randn(61 + 37 * seed, 80, generator=generator)
    if "video" in streams:
        size = (17 + 9 * seed, 64, 64)
        inputs["video"] = torch.randint(0, 255, size, generator=generator, dtype=torch.uint8)
    if "text" in streams:
        inputs["text"] = tokens(3 + seed)
    perceived = "audio" in streams or "video" in streams
    return Item(
        key=f"item-{seed}",
        inputs=inputs,
        transcript=tokens(4) if perceived else EMPTY["text"],
        masked_text=inputs["text"],
        speaker=(seed % NUM_SPEAKERS if speaker is None else speaker) if perceived else -1,
    )


def small_encoder_config() -> EncoderConfig:
    """An encoder of all parts, small enough for tests, without dropout."""
    return EncoderConfig(
        vocabulary_size=VOCABULARY_SIZE, width=32, num_heads=2, audio_layers=2, video_layers=1,
        text_layers=1, cross_layers=1, audio_channels=4, video_channels=4, dropout=0.0,
    )  # fmt: skip


def small_method(**settings: object) -> CtcSpeaker:
    """A seeded method around the small encoder."""
    torch.manual_seed(0)
    config = CtcSpeakerConfig(
        encoder=small_encoder_config(),
        num_speakers=NUM_SPEAKERS,
        alphabet_size=VOCABULARY_SIZE,
        **settings,  # type: ignore[arg-type]
    )
    return CtcSpeaker(config)


def mean_losses(method: Method, batches: Sequence[Batch]) -> dict[str, float]:
    """Of one process: each term that has a weight; gradients are added to the parameters."""
    sums, counts = accumulate_gradients(method, batches, World(0, 1, torch.device("cpu")))
    names = [name for name in method.terms if method.weights[name] > 0]
    return dict(zip(names, (sums / counts.clamp(min=1)).tolist(), strict=True))


def with_padding(batch: Batch, extra: int, fill: float) -> Batch:
    """The same batch with `extra` more steps of padding, all padding filled with `fill`."""

    def more(padded: Padded) -> Padded:
        old = padded.values
        shape = (old.shape[0], old.shape[1] + extra, *old.shape[2:])
        value = fill if old.is_floating_point() else 7
        values = torch.full(shape, value, dtype=old.dtype)
        for row, length in enumerate(padded.lengths.tolist()):
            values[row, :length] = old[row, :length]
        return Padded(values, padded.lengths)

    inputs = {stream: more(steps.pad()) for stream, steps in batch.inputs.items()}
    context = {n: more(v) if isinstance(v, Padded) else v for n, v in batch.context.items()}
    return Batch(batch.keys, inputs, batch.targets, context)
