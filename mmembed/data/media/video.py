"""The video of a file: upright grey pictures at 25 Hz, at the levels of limited range.

Grey is 16 for black to 235 for white, as most video stores it. Full range is brought to that; HDR
is shown as on an ordinary screen, with reference white as white.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar, Final

import av
import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.features.video import VIDEO_RATE

LARGEST_SIDE: Final = 480  # pixels; a face that fills a fifth of it still fills its crop
BLACK: Final = 16
RANGE: Final = 219  # from black to white
FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG
LIMITED_LEVELS: Final = np.rint(BLACK + RANGE * np.arange(256) / 255).astype(np.uint8)
HDR: Final = {16: "PQ", 18: "HLG"}  # by AVColorTransferCharacteristic
REFERENCE_WHITE: Final = 203.0  # cd/m2, of HDR pictures (ITU-R BT.2408-7)
HLG_PEAK: Final = 1000.0  # cd/m2, of the screen that HLG's system gamma of 1.2 is for
SCREEN_GAMMA: Final = 2.4  # ITU-R BT.1886


def luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width) uint8 from 16 to 235, as a player shows it, at most 480 pixels a side."""
    side, layout = frame.side_data.get("DISPLAYMATRIX"), frame.format
    if frame.color_trc in HDR:
        frame = frame.reformat(format="yuv420p10le")
        codes = _plane(frame, np.dtype("<u2"))
        picture = hdr_levels(frame.color_trc, _is_full_range(frame))[codes & 1023]
    else:
        if layout.is_rgb or not layout.is_planar or layout.components[0].bits != 8:
            frame = frame.reformat(format="yuv420p")
        picture = _plane(frame, np.dtype(np.uint8))
        if _is_full_range(frame):
            picture = LIMITED_LEVELS[picture]
    picture = _upright(picture, side)
    scale = LARGEST_SIDE / max(picture.shape)
    if scale >= 1:
        return picture.copy()
    height, width = (max(1, round(side * scale)) for side in picture.shape)
    return resize(picture, width, height)


def resize(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(height, width) of a picture of another size, by averaging."""
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
    if HDR[transfer] == "PQ":
        m1, m2, c1, c2, c3 = 0.1593017578125, 78.84375, 0.8359375, 18.8515625, 18.6875
        root = signal ** (1 / m2)
        light = 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
        light = HLG_PEAK * scene**1.2
    shown = np.clip(light / REFERENCE_WHITE, 0, 1) ** (1 / SCREEN_GAMMA)
    return np.rint(BLACK + RANGE * shown).astype(np.uint8)


def _upright(picture: NDArray[np.uint8], side: object) -> NDArray[np.uint8]:
    """Turned and mirrored as the nearest of the eight orientations to its display matrix asks."""
    matrix = np.frombuffer(bytes(side)[:36] if isinstance(side, SideData) else b"", np.int32)
    if len(matrix) < 9:
        return picture
    # What is at (x, y) is to be shown at (a x + c y, b x + d y), but for a shift.
    a, b, c, d = (int(matrix[n]) for n in (0, 1, 3, 4))
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.T, c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


@dataclass
class VideoTrack:
    """Luma planes at 25 Hz from `start`: at each step the picture then on the screen.

    One growing buffer holds them: a list of arrays to stack would need the memory twice.

    Attributes:
        notes: what became of their levels.
    """

    rate: ClassVar[int] = VIDEO_RATE
    start: Seconds
    stop: Seconds
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
        self.shown = (time, shown_for(frame), luma(frame))
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
