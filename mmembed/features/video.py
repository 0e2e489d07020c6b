"""Video frames to face crops, grey or RGB: detected, tracked, cut out; nothing learned."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mmembed.errors import UsageError

VIDEO_RATE: Final = 25  # Hz
CROP: Final = 64  # pixels, height and width, unless another size is asked for
CROPS: Final = range(16, 513)  # sizes that can be asked for

DETECT_EVERY: Final = 12  # frames
TRACKED: Final = 3  # searches after a detection that only follow what was detected
PATCH: Final = 0.8  # of the face's side, that is followed
PATCH_PIXELS: Final = 32  # its side, of the picture in which it is followed
REACH: Final = 0.25  # of the face's side, by which it may have moved from one search to the next
ALIKE: Final = 0.75  # the least correlation of a patch that was found again
DETECT_SIDE: Final = 160  # pixels, the longer side of the picture that is searched
SMALLEST_FACE: Final = 0.15  # of the shorter side
RESIZED: Final = 1.6  # the most by which a face grows or shrinks from one search to the next
ENLARGE: Final = 1.15  # Haar boxes end at the brows and the chin
YUNET_SIDE: Final = 320  # pixels, the longer side of the picture that YuNet searches
YUNET_SCORE: Final = 0.7
YUNET_ENLARGE: Final = 1.2  # its boxes are as tall as the face and narrower

Box = NDArray[np.float64]  # centre x, centre y, side; pixels


@dataclass(frozen=True)
class CropForm:
    """What face crops look like.

    Attributes:
        size: pixels, height and width, 16 to 512.
        colour: RGB from 0 to 255, as photographs have it, instead of grey, which has the levels of
            limited range, 16 to 235.
    """

    size: int = CROP
    colour: bool = False

    def __post_init__(self) -> None:
        if type(self.size) is not int or type(self.colour) is not bool or self.size not in CROPS:
            limits = f"{CROPS.start} to {CROPS.stop - 1}"
            raise UsageError(f"crops of {self.size} pixels: give a whole number from {limits}")

    @classmethod
    def of(cls, crops: NDArray[np.uint8]) -> CropForm:
        """That of crops (T, S, S) or (T, S, S, 3)."""
        return cls(crops.shape[1], crops.ndim == 4)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one crop: (S, S), or (S, S, 3) in colour."""
        return (self.size, self.size, 3) if self.colour else (self.size, self.size)

    def __str__(self) -> str:
        return f"{self.size} x {self.size} {'RGB' if self.colour else 'grey'}"


SMALL_GREY: Final = CropForm()
"""The form unless another is asked for, and the one that our own encoder reads."""


def face_crops(
    frames: NDArray[np.uint8], model: Path | None = None, form: CropForm = SMALL_GREY
) -> tuple[NDArray[np.uint8], str]:
    """Cut the face out of every frame.

    Every 12th frame is searched: the face that was found last is followed, at most three times in a
    row; where it is not found again, and every fourth time, the largest, most central frontal face
    is detected, first one of about the size of the last. Boxes are interpolated between and held
    before and after. Where no frame shows a face, the central square is taken.

    Args:
        frames: (T, height, width) grey, at 25 Hz, T at least 1; for crops in colour (T, height,
            width, 4), red, green, blue and grey. Faces are searched in grey.
        model: ONNX file of YuNet (Wu, Peng and Yu, 2023, doi 10.1007/s11633-023-1423-y) to search
            with; None = OpenCV's Haar cascade.
        form: of the crops.

    Returns:
        (T, *form.shape) crops, and "haar", "yunet" or "full frame".
    """
    channels = (4,) if form.colour else ()
    if frames.ndim < 3 or frames.shape[3:] != channels or not len(frames):
        needed = ", ".join(map(str, ("T", "height", "width", *channels)))
        raise ValueError(f"frames must be ({needed}), found {frames.shape}")
    faces = FaceCrops(model, form)
    faces.add(frames)
    crops = faces.finish()
    assert crops is not None
    return crops, faces.how


class FaceCrops:
    """`face_crops` of pictures that come block by block, in memory for two blocks.

    The crops are those of all blocks as one wherever a block and its neighbours show the face at
    least twice each. Where none of the three does, the last box is held, or until a face has been
    found the central square is taken.

    Args:
        model: see `face_crops`.
        form: of the crops.
    """

    def __init__(self, model: Path | None = None, form: CropForm = SMALL_GREY) -> None:
        self._model, self._form = model, form
        self._found: list[tuple[int, Box]] = []  # two from before the waiting block, all since
        self._start = 0  # of the waiting block
        self._waiting: NDArray[np.uint8] | None = None
        self._seen = False
        self._face: _Patch | None = None  # the last that was detected
        self._followed = 0  # times since then

    @property
    def how(self) -> str:
        """How the faces were found; "full frame" if there was none so far."""
        return "full frame" if not self._seen else "haar" if self._model is None else "yunet"

    def add(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """Take the next frames, see `face_crops`, and cut those that were taken before.

        Args:
            frames: a multiple of 12, unless they are the last.

        Returns:
            (T, *form.shape) crops of the block before; None after the first.
        """
        start = self._start + (0 if self._waiting is None else len(self._waiting))
        for t in range(0, len(frames), DETECT_EVERY):
            self._search(frames[t], start + t)
        crops = self.finish(last=False)
        self._start, self._waiting = start, frames
        return crops

    def finish(self, *, last: bool = True) -> NDArray[np.uint8] | None:
        """Crops of the block that was added last, None if there is none."""
        if self._waiting is None:
            return None
        steps = self._start + np.arange(len(self._waiting))
        if last and (len(steps) - 1) % DETECT_EVERY >= DETECT_EVERY // 2:
            self._search(self._waiting[-1], int(steps[-1]))
        crops = _cut(self._waiting, self._boxes(steps, self._waiting.shape), self._form)
        since = [t for t, _ in self._found if t > steps[-1]]
        self._found = self._found[-len(since) - 2 :]
        self._waiting = None
        return crops

    def _search(self, frame: NDArray[np.uint8], t: int) -> None:
        frame = np.ascontiguousarray(frame[..., 3]) if frame.ndim == 3 else frame
        last = self._found[-1][1] if self._found else None
        if self._face is not None and last is not None and self._followed < TRACKED:
            box = self._face.find(frame, last)
            if box is not None:
                self._found.append((t, box))
                self._followed += 1
                return
        faces = _haar(frame, last) if self._model is None else _yunet(frame, self._model)
        box = _central(faces, frame)
        if box is not None:
            self._seen = True
            self._found.append((t, box))
            self._face, self._followed = _Patch(frame, box), 0

    def _boxes(self, steps: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        """(T, 3), one for each step."""
        height, width = shape[1:3]
        if not self._found:
            central = np.array([width / 2, height / 2, min(width, height)])
            return np.tile(central, (len(steps), 1))
        times = np.array([t for t, _ in self._found])
        seen = _median_of_three(np.stack([box for _, box in self._found]))
        return np.stack([np.interp(steps, times, column) for column in seen.T], 1)


class _Patch:
    """The middle of a face that was detected, to be found again a little later in its
    neighbourhood; a twentieth of the work of a detection. The size of the face is kept.
    """

    def __init__(self, frame: NDArray[np.uint8], box: Box) -> None:
        self._side = float(box[2])
        self._scale = min(1.0, PATCH_PIXELS / (PATCH * self._side))
        self._patch, corner = self._part(frame, box, PATCH * self._side)
        self._to_centre = box[:2] - corner  # from the patch's corner

    def find(self, frame: NDArray[np.uint8], last: Box) -> Box | None:
        """Where it is, near the last box; None where nothing looks like it."""
        part, corner = self._part(frame, last, (PATCH + 2 * REACH) * self._side)
        if min(self._patch.shape) < 4 or (np.array(part.shape) < self._patch.shape).any():
            return None
        alike = cv2.matchTemplate(part, self._patch, cv2.TM_CCOEFF_NORMED)
        _, best, _, (x, y) = cv2.minMaxLoc(alike)
        if not best >= ALIKE:
            return None
        place = np.array([x + _summit(alike[y], x), y + _summit(alike[:, x], y)])
        return np.array([*(corner + place / self._scale + self._to_centre), self._side])

    def _part(
        self, frame: NDArray[np.uint8], box: Box, side: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """A square about the centre of a box, as far as it lies in the frame, and its corner."""
        ends = np.rint([box[:2] - side / 2, box[:2] + side / 2])
        (left, top), (right, bottom) = ends.clip(0, frame.shape[::-1]).astype(int)
        part = frame[top:bottom, left:right]
        if part.size:
            size = [max(1, round(n * self._scale)) for n in part.shape[::-1]]
            part = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        return part, np.array([left, top], np.float64)


def _summit(values: NDArray[Any], at: int) -> float:
    """How far from the largest of values the top of the parabola through it lies, in steps."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = map(float, values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0


def _cut(
    frames: NDArray[np.uint8], boxes: NDArray[np.float64], form: CropForm
) -> NDArray[np.uint8]:
    """(T, *form.shape) of boxes (T, 3)."""
    size = form.size
    crops = np.empty((len(frames), *form.shape), np.uint8)
    for place, (frame, (x, y, side)) in enumerate(zip(frames, boxes, strict=True)):
        # Large faces are averaged over squares of whole pixels first: no aliasing. Then one affine
        # map from crop to frame: sub-pixel boxes, edges repeated beyond the picture.
        if (factor := int(side / size)) > 1:
            frame, corner = _averaged(frame, (x, y, side), factor)
            x, y, side = x / factor - corner[0], y / factor - corner[1], side / factor
        scale = side / size
        left, top = (middle - side / 2 + scale / 2 - 0.5 for middle in (x, y))
        inverse = np.array([[scale, 0, left], [0, scale, top]])
        cut = cv2.warpAffine(
            frame, inverse, (size, size),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        crops[place] = cut[..., :3] if form.colour else cut
    return crops


def _averaged(
    frame: NDArray[np.uint8], box: tuple[float, float, float], factor: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """What of a frame lies in a box and a little around it, its pixels averaged over squares of
    `factor`, and its corner in these; all of the frame where nothing of it lies in the box.
    """
    height, width = (n // factor for n in frame.shape[:2])
    x, y, side = (value / factor for value in box)
    left, top = (max(0, math.floor(middle - side / 2) - 1) for middle in (x, y))
    right = min(width, math.ceil(x + side / 2) + 1)
    bottom = min(height, math.ceil(y + side / 2) + 1)
    if left >= right or top >= bottom:
        left, top, right, bottom = 0, 0, width, height
    part = frame[top * factor : bottom * factor, left * factor : right * factor]
    size = (right - left, bottom - top)
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8), (left, top)


def _central(boxes: NDArray[np.float64], frame: NDArray[np.uint8]) -> Box | None:
    """The largest face, nearer ones to the centre preferred."""
    if not len(boxes):
        return None
    height, width = frame.shape
    off_centre = np.hypot(boxes[:, 0] / width - 0.5, boxes[:, 1] / height - 0.5)
    best: Box = boxes[int(np.argmax(boxes[:, 2] / max(height, width) - off_centre))]
    return best


def _yunet(frame: NDArray[np.uint8], model: Path) -> NDArray[np.float64]:
    """(N, 3) boxes of all faces."""
    scale = min(1.0, YUNET_SIDE / max(frame.shape))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    detector = _yunet_detector(str(model))
    detector.setInputSize(small.shape[::-1])
    _, faces = detector.detect(cv2.cvtColor(small, cv2.COLOR_GRAY2BGR))
    corners = np.zeros((0, 4)) if faces is None else np.asarray(faces[:, :4], np.float64)
    x, y, w, h = corners.T / scale
    return np.stack([x + w / 2, y + h / 2, np.maximum(w, h) * YUNET_ENLARGE], 1)


@cache
def _yunet_detector(model: str) -> cv2.FaceDetectorYN:
    cv2.setNumThreads(1)
    return cv2.FaceDetectorYN.create(model, "", (YUNET_SIDE, YUNET_SIDE), YUNET_SCORE)


def check_face_model(model: Path) -> None:
    """Raise UsageError unless OpenCV can search faces with the file."""
    try:
        _yunet(np.zeros((YUNET_SIDE, YUNET_SIDE), np.uint8), model)
    except cv2.error:
        raise UsageError(
            f"{model}: not a model of YuNet that OpenCV {cv2.__version__} can run; "
            "face_detection_yunet_2023mar.onnx of opencv_zoo is one"
        ) from None


def _haar(frame: NDArray[np.uint8], last: Box | None) -> NDArray[np.float64]:
    """(N, 3) boxes of all faces of about the size of `last`, if any, else of any size.

    Most of the time of a search goes into the smallest faces, so knowing the size saves most of it.
    """
    height, width = frame.shape
    scale = min(1.0, DETECT_SIDE / max(height, width))
    small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    smallest = max(20, int(SMALLEST_FACE * min(small.shape)))
    sizes = [(smallest, max(small.shape))]
    if last is not None:
        side = last[2] / ENLARGE * scale
        sizes.insert(0, (max(smallest, round(side / RESIZED)), round(side * RESIZED)))
    for least, most in sizes:
        faces = _detector().detectMultiScale(
            small, scaleFactor=1.1, minNeighbors=3, minSize=(least, least), maxSize=(most, most)
        )
        if len(faces):
            break
    boxes = [[x + w / 2, y + h / 2, w * ENLARGE] for x, y, w, h in faces]
    found: NDArray[np.float64] = np.array(boxes, np.float64).reshape(-1, 3) / scale
    return found


@cache
def _detector() -> cv2.CascadeClassifier:
    cv2.setNumThreads(1)
    folder = Path(cv2.__file__).parent / "data"
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))


def _median_of_three(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over neighbours: one wrong detection between right ones disappears."""
    if len(boxes) < 3:
        return boxes
    padded = np.pad(boxes, ((1, 1), (0, 0)), "edge")
    median: NDArray[np.float64] = np.median(sliding_window_view(padded, 3, 0), -1)
    return median
