"""Faces: how fast they are cut out, and how far following them differs from detecting each time.

    python benchmarks/faces.py CLIPS/*.mpg --yunet face_detection_yunet.onnx

Each clip is cut at its own size and, on a canvas of repeated edges, at 720p and 1080p, by Haar and,
if its file is named, by YuNet: as the product does it, following a face between detections, and
with a detection at every search. Times are of the processor, one thread, without decoding; the
overlap (intersection over union) is of the boxes of each frame.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tyro
from numpy.typing import NDArray

from mmembed.data.media.decode import load_clip
from mmembed.features import video

Frames = NDArray[np.uint8]
Boxes = NDArray[np.float64]
HEIGHTS = {"as it is": 0, "720p": 720, "1080p": 1080}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        clips: video files.
        yunet: ONNX file of YuNet; without it Haar alone.
    """

    clips: tyro.conf.Positional[tuple[Path, ...]]
    yunet: Path | None = None


class Watched(video.FaceCrops):
    """Keeps its boxes."""

    boxes: Boxes

    def _boxes(self, steps: NDArray[np.int64], shape: tuple[int, ...]) -> Boxes:
        self.boxes = super()._boxes(steps, shape)
        return self.boxes


def main() -> None:
    """Print a row for each size and detector."""
    settings = tyro.cli(Settings, description=__doc__)
    cv2.setNumThreads(1)
    models = {"haar": None, **({"yunet": settings.yunet} if settings.yunet else {})}
    heads = ("ms a frame", "detecting", "IoU >= .9", "median")
    print(f"{'size':9} {'detector':9} {' '.join(f'{head:>10}' for head in heads)}")
    for size, height in HEIGHTS.items():
        for name, model in models.items():
            spent, overlaps, count = {True: 0.0, False: 0.0}, [], 0
            for frames in _clips(settings.clips, height):
                boxes = {}
                for following in (True, False):
                    boxes[following], seconds = _cut(frames, model, following)
                    spent[following] += seconds
                overlaps.append(_overlap(boxes[True], boxes[False]))
                count += len(frames)
            found = np.concatenate(overlaps)
            times = [1e3 * spent[following] / count for following in (True, False)]
            scores = (np.mean(found >= 0.9), np.median(found))
            cells = " ".join(f"{value:10.3f}" for value in (*times, *scores))
            print(f"{size:9} {name:9} {cells}", flush=True)


def _clips(files: tuple[Path, ...], height: int) -> Iterator[Frames]:
    for file in files:
        frames = load_clip(file, streams=("video",)).video
        assert frames is not None
        if height:
            across = height * frames.shape[2] // frames.shape[1]
            side = max(0, height * 16 // 9 - across) // 2
            large = [cv2.resize(frame, (across, height)) for frame in frames]
            wide = [cv2.copyMakeBorder(x, 0, 0, side, side, cv2.BORDER_REPLICATE) for x in large]
            frames = np.stack(wide).astype(np.uint8)
        yield frames


def _cut(frames: Frames, model: Path | None, following: bool) -> tuple[Boxes, float]:
    before, video.TRACKED = video.TRACKED, video.TRACKED if following else 0  # type: ignore[misc]
    started = time.process_time()
    faces = Watched(model)
    faces.add(frames)
    faces.finish()
    spent = time.process_time() - started
    video.TRACKED = before  # type: ignore[misc]
    return faces.boxes, spent


def _overlap(one: Boxes, other: Boxes) -> NDArray[np.float64]:
    """(T,) intersection over union of squares (T, 3)."""
    ends = [box[:, :2] + sign * box[:, 2:] / 2 for sign in (-1, 1) for box in (one, other)]
    sides = np.minimum(ends[2], ends[3]) - np.maximum(ends[0], ends[1])
    both = np.clip(sides, 0, None).prod(1)
    overlap: NDArray[np.float64] = both / (one[:, 2] ** 2 + other[:, 2] ** 2 - both)
    return overlap


if __name__ == "__main__":
    main()
