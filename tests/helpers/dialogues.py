"""Made-up dialogues, and a small SDT for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmembed.batch import UNLABELLED, Batch, Padded
from mmembed.methods.sdt import SDT
from mmembed.settings.methods import SDTConfig
from mmembed.streams import STREAMS, stream_subsets

WIDTHS = {"audio": 6, "video": 3, "text": 5}
NUM_CLASSES = 4
NUM_SPEAKERS = 3


def dialogues(turns: Sequence[int], streams: Sequence[str] = STREAMS, seed: int = 0) -> Batch:
    """Dialogues of the given numbers of turns; all turns have all `streams` and a label."""
    generator = torch.Generator().manual_seed(seed)

    def stack(draw):
        return Padded.stack([draw(count) for count in turns])

    def numbers(below):
        return stack(lambda count: torch.randint(0, below, (count,), generator=generator))

    inputs = {
        stream: stack(lambda count, width=width: torch.randn(count, width, generator=generator))
        for stream, width in WIDTHS.items()
    }
    return Batch(
        tuple(f"dialogue-{index}" for index in range(len(turns))),
        {stream: inputs[stream] for stream in streams},
        {"turn_emotion": numbers(NUM_CLASSES)},
        {"turn_speaker": numbers(NUM_SPEAKERS)},
    )


def random_dialogues(rows: list[int]) -> Batch:
    """Of eight: each another subset of streams, in some a turn without a stream or a label."""
    subset = [*stream_subsets(), STREAMS]
    singles = []
    for row in rows:
        single = dialogues([1 + row], seed=row)
        inputs = {
            stream: single.inputs[stream].item(0)[: None if stream in subset[row] else 0]
            for stream in STREAMS
        }
        emotion = single.targets["turn_emotion"].item(0)
        if row == 3:
            emotion = emotion[:0]
        if row == 6:
            emotion[2] = UNLABELLED
            inputs["video"][4] = 0
        singles.append((inputs, emotion, single.context["turn_speaker"].item(0)))
    return Batch(
        tuple(f"dialogue-{row}" for row in rows),
        {s: Padded.stack([inputs[s] for inputs, _, _ in singles]) for s in STREAMS},
        {"turn_emotion": Padded.stack([emotion for _, emotion, _ in singles])},
        {"turn_speaker": Padded.stack([speaker for _, _, speaker in singles])},
    )


def small_sdt(streams: Sequence[str] = STREAMS, **settings: object) -> SDT:
    """A seeded model without dropout."""
    torch.manual_seed(0)
    config = {
        "num_classes": NUM_CLASSES,
        "num_speakers": NUM_SPEAKERS,
        "width": 16,
        "num_heads": 2,
        "dropout": 0.0,
        **settings,
    }
    widths = tuple(WIDTHS[stream] for stream in streams)
    return SDT(SDTConfig(streams=tuple(streams), input_widths=widths, **config))
