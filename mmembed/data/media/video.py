"""The video of a file: upright pictures at 25 Hz, grey or in colour.

Grey is 16 for black to 235 for white, as most video stores it; full range is brought to that. Red,
green and blue are 0 to 255, as photographs have them. HDR is shown as on an ordinary screen, with
reference white as white; its colours keep their wide gamut and so come out a little pale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Final

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.media.open import BLOCK
from mmembed.features.video import DETECT_EVERY, SMALL_GREY, VIDEO_RATE, CropForm

SIDES: Final = (480, 1080)  # pixels; between them, a face that fills a fifth still fills its crop
BLOCK_BYTES: Final = 256 << 20  # of pictures that are held at once, three times, by blocks
BLACK: Final = 16
RANGE: Final = 219  # from black to white
FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG
LIMITED_LEVELS: Final = np.rint(BLACK + RANGE * np.arange(256) / 255).astype(np.uint8)
HDR: Final = {16: "PQ", 18: "HLG"}  # by AVColorTransferCharacteristic
REFERENCE_WHITE: Final = 203.0  # cd/m2, of HDR pictures (ITU-R BT.2408-7)
HLG_PEAK: Final = 1000.0  # cd/m2, of the screen that HLG's system gamma of 1.2 is for
SCREEN_GAMMA: Final = 2.4  # ITU-R BT.1886


def largest_side(form: CropForm) -> int:
    """Pixels of the longer side of the pictures that such crops are cut from, at most.

    More would not be seen in most crops and takes memory, which long clips have to share.
    """
    least, most = SIDES
    return min(max(least, 5 * form.size), most)


def block_length(shape: Sequence[int], form: CropForm) -> int:
    """Pictures of this height and width to hold at once: 12 s of them, or fewer where they are
    large; a multiple of 12, for two searches for faces at least.
    """
    scale = min(1.0, largest_side(form) / max(shape))
    size = math.prod(shape) * scale**2 * (4 if form.colour else 1)
    searches = max(2, int(BLOCK_BYTES / (size * DETECT_EVERY)))
    return min(BLOCK * VIDEO_RATE, searches * DETECT_EVERY)


def picture_of(frame: av.VideoFrame, form: CropForm = SMALL_GREY) -> NDArray[np.uint8]:
    """What a player shows of a frame, at most `largest_side` pixels a side.

    Returns:
        (height, width) uint8 from 16 to 235; in colour (height, width, 4): red, green and blue from
        0 to 255 and that grey.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    grey = _upright(_grey(frame), matrix)
    scale = min(1.0, largest_side(form) / max(grey.shape))
    height, width = _scaled(grey.shape, scale)
    grey = resize(grey, width, height) if scale < 1 else grey.copy()
    if not form.colour:
        return grey
    rgba = _rgba(frame, *_scaled((frame.height, frame.width), scale))
    picture = np.array(_upright(rgba, matrix), order="C")
    cv2.insertChannel(grey, picture, 3)
    return picture


def _scaled(shape: Sequence[int], scale: float) -> tuple[int, int]:
    height, width = (max(1, round(side * scale)) for side in shape)
    return height, width


def _grey(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width) from 16 to 235, as it lies in the file."""
    layout = frame.format
    if frame.color_trc in HDR:
        frame = frame.reformat(format="yuv420p10le")
        codes = _plane(frame, np.dtype("<u2"))
        levels: NDArray[np.uint8] = hdr_levels(frame.color_trc, _is_full_range(frame))[codes & 1023]
        return levels
    if layout.is_rgb or not layout.is_planar or layout.components[0].bits != 8:
        frame = frame.reformat(format="yuv420p")
    picture = _plane(frame, np.dtype(np.uint8))
    return LIMITED_LEVELS[picture] if _is_full_range(frame) else picture


def _rgba(frame: av.VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 4) from 0 to 255, as it lies in the file but for its size, by averaging."""
    is_hdr = frame.color_trc in HDR
    shown = frame.reformat(
        width, height, "rgba64le" if is_hdr else "rgba", interpolation="AREA", threads=1
    )
    codes: NDArray[Any] = shown.to_ndarray()
    rgba: NDArray[np.uint8] = hdr_colours(frame.color_trc)[codes >> 6] if is_hdr else codes
    return rgba


def resize(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, ...) of a picture of another size, by averaging."""
    resized = cv2.resize(
        np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA
    )
    return resized.astype(np.uint8, copy=False)


def _plane(frame: av.VideoFrame, kind: np.dtype[np.generic]) -> NDArray[np.uint8]:
    """The Y plane, without what pads its rows."""
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    samples: NDArray[np.uint8] = rows[: frame.height].view(kind)[:, : frame.width]
    return samples


def _is_full_range(frame: av.VideoFrame) -> bool:
    return frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")


@cache
def hdr_levels(transfer: int, full_range: bool) -> NDArray[np.uint8]:
    """(1024,) grey levels by 10-bit codes of an HDR signal (ITU-R BT.2100-2)."""
    codes = np.arange(1024.0)
    signal = np.clip(codes / 1023 if full_range else (codes / 4 - BLACK) / RANGE, 0, 1)
    return np.rint(BLACK + RANGE * _shown(transfer, signal)).astype(np.uint8)


@cache
def hdr_colours(transfer: int) -> NDArray[np.uint8]:
    """(1024,) of red, green or blue from 0 to 255 by their 10-bit codes in an HDR signal."""
    return np.rint(255 * _shown(transfer, np.arange(1024) / 1023)).astype(np.uint8)


def _shown(transfer: int, signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """HDR signal to that of an ordinary screen, both from 0 to 1."""
    if HDR[transfer] == "PQ":
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = signal ** (1 / m2)
        light = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = HLG_PEAK * scene**1.2
    shown: NDArray[np.float64] = np.clip(light / REFERENCE_WHITE, 0, 1) ** (1 / SCREEN_GAMMA)
    return shown


def _upright(picture: NDArray[np.uint8], side: object) -> NDArray[np.uint8]:
    """Turned and mirrored as the nearest of the eight orientations to its display matrix asks."""
    matrix = np.frombuffer(bytes(side)[:36] if isinstance(side, SideData) else b"", np.int32)
    if len(matrix) < 9:
        return picture
    # What is at (x, y) is to be shown at (a x + c y, b x + d y), but for a shift.
    a, b, c, d = (int(matrix[n]) for n in (0, 1, 3, 4))
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


@dataclass
class VideoTrack:
    """Pictures at 25 Hz from `start`: at each step the one then on the screen, see `picture_of`.

    One growing buffer holds them: a list of arrays to stack would need the memory twice.

    Attributes:
        form: of the crops that will be cut from them.
        notes: what became of their levels.
    """

    rate: ClassVar[int] = VIDEO_RATE
    start: Seconds
    stop: Seconds
    form: CropForm = SMALL_GREY
    done: bool = False
    shape: tuple[int, ...] = ()
    filled: int = 0
    taken: int = 0
    shown: tuple[Seconds, Seconds, NDArray[np.uint8]] | None = None  # since, for, what
    buffer: bytearray = field(default_factory=bytearray)
    notes: list[str] = field(default_factory=list)

    def add(self, frame: av.VideoFrame, time: Seconds | None) -> None:
        if time is None:
            time = self.shown_until
        self.show_until(time)
        self.shown = (time, shown_for(frame), picture_of(frame, self.form))
        if not self.notes and (kind := HDR.get(frame.color_trc)) is not None:
            white = f"{REFERENCE_WHITE:.0f} cd/m2"
            self.notes.append(f"{kind} pictures are shown with {white} as white")
        self.done = time >= self.stop

    @property
    def shown_until(self) -> Seconds:
        """When the shown picture has lasted its time."""
        return self.shown[0] + self.shown[1] if self.shown else 0.0

    def show_until(self, time: Seconds, most: int | None = None) -> bool:
        """Repeat the shown picture for the steps before `time`.

        A step asks at its middle, where rounded timestamps do no harm.

        Args:
            time: in the file.
            most: steps at once; None = all.

        Returns:
            Whether it has got there.
        """
        due = round((min(time, self.stop) - self.start) * VIDEO_RATE) - self.filled
        if self.shown is None or due <= 0:
            return True
        count = due if most is None else min(due, most)
        picture = self.shown[2]
        self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            picture = resize(picture, self.shape[1], self.shape[0])
        self.buffer += picture.tobytes() * count
        self.filled += count
        return count == due

    def close(self) -> None:
        """Show the last picture for its time."""
        if self.shown is not None:
            self.show_until(self.shown_until)
            if not self.filled and self.shown_until > self.start:
                self.show_until(self.start + 1 / VIDEO_RATE)  # less than half a step is a step

    def finish(self) -> NDArray[np.uint8] | None:
        self.close()
        if not self.filled:
            return None
        return np.frombuffer(self.buffer, np.uint8).reshape(-1, *self.shape)

    @property
    def block(self) -> int:
        """Pictures to take at once, see `block_length`."""
        shape = (1, 1) if self.shown is None else self.shown[2].shape
        return block_length(shape[:2], self.form)

    @property
    def held(self) -> int:
        """Pictures that can be taken."""
        return self.filled - self.taken

    def take(self, most: int) -> NDArray[np.uint8]:
        """Remove the first of the pictures held, at least one."""
        shape = (min(most, self.held), *self.shape)
        size = math.prod(shape)
        taken = np.frombuffer(self.buffer[:size], np.uint8).reshape(shape)
        del self.buffer[:size]
        self.taken += len(taken)
        return taken


def shown_for(frame: av.VideoFrame) -> Seconds:
    """How long a frame is on the screen."""
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return 1 / VIDEO_RATE
