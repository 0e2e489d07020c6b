"""Long recordings: features of blocks that are those of the whole, in bounded memory.

Sound is resampled and analysed with a second on either side of each block, faces are followed from
block to block. So a seam between blocks leaves no trace: the sound's features differ from those of
the whole by the rounding of float16 at most, the crops not at all while the face is seen
(`mmembed.features.video.FaceCrops`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.example import Example
from mmembed.data.media.decode import BLOCK, MediaBlock, to_16k
from mmembed.data.media.temporary_arrays import Spool
from mmembed.features.audio import FEATURE_RATE, SAMPLE_RATE, log_mel
from mmembed.features.video import DETECT_EVERY, VIDEO_RATE, FaceCrops


class FeatureBlock(NamedTuple):
    """The next steps of one stream.

    Attributes:
        stream: "audio" or "video".
        values: features as an `Example` holds them.
        size: bytes of the medium that they are a part of, 0 where it is in memory.
    """

    stream: str
    values: NDArray[Any]
    size: int = 0


assert BLOCK * VIDEO_RATE % DETECT_EVERY == 0


class _SoundFeatures:
    """Log-mel of sound that comes block by block."""

    def __init__(self) -> None:
        self._before = self._waiting = np.zeros(0, np.float32)
        self._rate, self._peak = SAMPLE_RATE, 1.0
        self.samples = 0

    def add(self, block: MediaBlock) -> Iterator[NDArray[np.float16]]:
        """Take whole seconds, unless they are the last; log-mel of those taken before."""
        self._rate, self._peak = block.rate, block.peak
        self.samples += len(block.values)
        yield from self.finish(block.values[: block.rate])
        self._before, self._waiting = self._waiting[-block.rate :], block.values

    def finish(self, after: NDArray[np.float32] | None = None) -> Iterator[NDArray[np.float16]]:
        """Log-mel of what was taken last; `after`: the second that follows it, if any."""
        if not len(self._waiting):
            return
        own = -(-len(self._waiting) * FEATURE_RATE // self._rate)
        parts = [self._before, self._waiting, *([] if after is None else [after])]
        sound = to_16k(np.concatenate(parts), self._rate, self._peak)
        assert sound is not None
        first = FEATURE_RATE * len(self._before) // self._rate
        yield log_mel(sound)[first : first + own]

    @property
    def seconds(self) -> float:
        return -(-self.samples * SAMPLE_RATE // self._rate) / SAMPLE_RATE


def features_of(
    blocks: Generator[MediaBlock, None, tuple[str, ...]], face_model: Path | None = None
) -> Generator[FeatureBlock, None, dict[str, object]]:
    """Features of a recording, block by block.

    Args:
        blocks: see `mmembed.data.media.decode.stream_clip`.
        face_model: see `mmembed.features.video.face_crops`.

    Yields:
        Each stream's parts in order, one block behind.

    Returns:
        The notes of the example.

    Raises:
        DataError: whatever `blocks` raises.
    """
    sound, faces, pictures = _SoundFeatures(), FaceCrops(face_model), 0
    while True:
        try:
            block = next(blocks)
        except StopIteration as end:
            media: tuple[str, ...] = end.value
            break
        if block.stream == "audio":
            for mel in sound.add(block):
                yield FeatureBlock("audio", mel)
        else:
            pictures += len(block.values)
            crops = faces.add(block.values)
            if crops is not None:
                yield FeatureBlock("video", crops)
    for mel in sound.finish():
        yield FeatureBlock("audio", mel)
    crops = faces.finish()
    if crops is not None:
        yield FeatureBlock("video", crops)
    seconds = max(sound.seconds, pictures / VIDEO_RATE)
    return make_notes(seconds, media, faces.how if pictures else None)


def make_notes(seconds: Seconds, media: Sequence[str], face: str | None) -> dict[str, object]:
    """The notes of a decoded example.

    Args:
        seconds: how long it is.
        media: what was passed over or not taken as it is, see `DecodedMedia`.
        face: how faces were found, None without pictures.
    """
    notes: dict[str, object] = {"seconds": round(seconds, 3)}
    if face is not None:
        notes["face"] = face
    return {**notes, "media": list(media)} if media else notes


def gather(parts: Generator[FeatureBlock, None, Example]) -> Example:
    """The example that a generator of its features returns, with these, mapped from disk."""
    spools = Spools()
    while True:
        try:
            spools.add(next(parts))
        except StopIteration as end:
            example: Example = end.value
            return spools.fill(example)


class Spools:
    """The streams of one recording, on disk."""

    def __init__(self) -> None:
        self._spools: dict[str, Spool] = {}

    def add(self, part: FeatureBlock) -> None:
        self._spools.setdefault(part.stream, Spool()).add(part.values)

    def fill(self, example: Example) -> Example:
        """The example with these streams."""
        held = {stream: spool.finish() for stream, spool in self._spools.items()}
        audio, video = held.get("audio", example.audio), held.get("video", example.video)
        return replace(example, audio=audio, video=video)
