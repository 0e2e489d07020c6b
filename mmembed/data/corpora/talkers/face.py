"""Faces: a drawn head that talks, blinks, moves a little and shows a feeling.

Everything is drawn on a square canvas of `CANVAS` pixels whose head does not move; each frame draws
brows, eyes and mouth on a copy of it, then moves the head over the background by one affine map.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE: Final = 160  # pixels of a frame, height and width
CANVAS: Final = 240  # pixels the head is drawn at
CENTRE_X, CENTRE_Y = 120, 122  # of the face on the canvas
SCALE: Final = 0.65  # pixels of the frame to one of the canvas
NECK_Y: Final = 119.0  # pixels of the frame
BITS: Final = 4  # of sub-pixel precision in cv2's drawing calls

Colour = tuple[float, float, float]  # blue, green, red
Image = NDArray[np.uint8]

SKINS: Final[Sequence[Colour]] = (
    (190, 210, 242), (170, 195, 232), (150, 182, 226), (128, 162, 212), (110, 146, 200),
    (98, 132, 184),
)  # fmt: skip
HAIRS: Final[Sequence[Colour]] = (
    (28, 28, 32), (38, 48, 70), (40, 66, 104), (60, 100, 150), (90, 145, 185), (40, 70, 150),
    (145, 148, 152), (70, 62, 60),
)  # fmt: skip
WALLS: Final[Sequence[Colour]] = (
    (200, 190, 170), (170, 190, 180), (160, 170, 205), (205, 180, 190), (150, 160, 165),
    (170, 150, 140), (160, 175, 150),
)  # fmt: skip
CLOTHES: Final[Sequence[Colour]] = (
    (140, 70, 50), (60, 60, 150), (70, 120, 60), (120, 60, 110), (60, 60, 66), (60, 140, 190),
)  # fmt: skip
IRISES: Final[Sequence[Colour]] = ((40, 50, 70), (90, 70, 40), (50, 80, 50), (30, 35, 45))


@dataclass(frozen=True)
class Pose:
    """What the face does in one frame.

    Attributes:
        open: of the mouth, 0 closed to 1.
        spread: of the lips, -1 rounded to 1 wide.
        corners: of the mouth, -1 down to 1 up.
        brows: -1 lowered to 1 raised.
        slant: of the brows, -1 inner ends down (anger) to 1 inner ends up (sorrow).
        lids: 0 shut to 1 as usual, 1.4 wide.
        wrinkle: of the nose, 0 to 1.
        dx: of the head, pixels of the frame to the right.
        dy: of the head, pixels of the frame down.
        tilt: of the head, degrees.
    """

    open: float = 0.0
    spread: float = 0.0
    corners: float = 0.0
    brows: float = 0.0
    slant: float = 0.0
    lids: float = 1.0
    wrinkle: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True)
class Shot:
    """How a clip is recorded: the position of the camera and the direction of the light.

    Attributes:
        zoom: size of everything, 1 as drawn.
        stretch: of the width against the height.
        roll: of the camera, degrees.
        right: shift of everything, pixels of the frame.
        down: likewise.
        exposure: brightness, 1 as drawn.
        side: how much brighter the right edge is than the middle, as a fraction; negative darker.
        contrast: about middle grey, 1 as drawn.
    """

    zoom: float
    stretch: float
    roll: float
    right: float
    down: float
    exposure: float
    side: float
    contrast: float

    def take(self, picture: Image) -> Image:
        """The same picture (160, 160, 3), as this camera sees it."""
        middle = SIDE / 2
        place = cv2.getRotationMatrix2D((middle, middle), self.roll, self.zoom)
        stretch = np.array([[self.stretch, 0, middle * (1 - self.stretch)], [0, 1, 0], [0, 0, 1]])
        place = place @ stretch + np.array([[0, 0, self.right], [0, 0, self.down]])
        seen = cv2.warpAffine(picture, place, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        across = np.linspace(-self.side, self.side, SIDE)
        light = self.exposure * self.contrast * (1 + across)[None, :, None]
        grey = 128 * self.exposure * (1 - self.contrast)
        return _pixels(np.clip(np.rint(seen * light + grey), 0, 255))


def make_shot(rng: random.Random) -> Shot:
    """Any camera in front of the face, any lamp in the room."""
    return Shot(
        zoom=rng.uniform(0.85, 1.15),
        stretch=rng.uniform(0.92, 1.08),
        roll=rng.uniform(-8, 8),
        right=rng.uniform(-8, 8),
        down=rng.uniform(-6, 6),
        exposure=rng.uniform(0.6, 1.25),
        side=rng.uniform(-0.4, 0.4),
        contrast=rng.uniform(0.65, 1.15),
    )


class Face:
    """Draws the frames of one speaker.

    Args:
        rng: chooses how the speaker looks.
        feminine: makes long hair likely and beards impossible.
    """

    def __init__(self, rng: random.Random, *, feminine: bool) -> None:
        self.width = rng.uniform(60, 68)  # all lengths in pixels of the canvas
        self.skin = rng.choice(SKINS)
        self.hair = rng.choice(HAIRS)
        self.wall = rng.choice(WALLS)
        self.clothes = rng.choice(CLOTHES)
        self.iris = rng.choice(IRISES)
        self.height = rng.uniform(78, 88)
        self.eye_distance = self.width * rng.uniform(0.39, 0.44)
        self.eye_size = rng.uniform(10.5, 13)
        self.brow_weight = rng.uniform(3.5, 5) if feminine else rng.uniform(4.5, 7)
        self.nose = rng.uniform(9, 13)
        self.mouth = rng.uniform(25, 30)
        self.long_hair = rng.random() < (0.8 if feminine else 0.1)
        self.fringe = rng.uniform(0.62, 0.82)
        self.glasses = rng.random() < 0.12
        self.beard = not feminine and rng.random() < 0.25
        self._background = self._draw_background()
        self._head, self._mask = self._draw_head()

    def draw(self, pose: Pose) -> Image:
        """(160, 160, 3) blue, green, red."""
        canvas = self._head.copy()
        self._draw_nose(canvas, pose)
        for side in (-1, 1):
            self._draw_eye(canvas, pose, side)
            self._draw_brow(canvas, pose, side)
        self._draw_mouth(canvas, pose)
        neck = (CENTRE_X, CENTRE_Y + 60)  # about which the head tilts
        place = cv2.getRotationMatrix2D(neck, pose.tilt, SCALE)
        place[0, 2] += SIDE / 2 + pose.dx - neck[0]
        place[1, 2] += NECK_Y + pose.dy - neck[1]
        head = cv2.warpAffine(canvas, place, (SIDE, SIDE))
        mask = cv2.warpAffine(self._mask, place, (SIDE, SIDE))
        return _pixels(cv2.blendLinear(head, self._background, mask, 1 - mask))

    def _draw_background(self) -> Image:
        """The wall, lit from above, and the shoulders."""
        light = np.linspace(1.08, 0.85, SIDE, dtype=np.float32)[:, None, None]
        lit = np.clip(light * np.array(self.wall, np.float32), 0, 255)
        image = _pixels(np.repeat(lit, SIDE, axis=1))
        _ellipse(image, SIDE / 2, SIDE + 14, 66, 42, self.clothes)
        neck = _shade(self.skin, 0.78)
        _ellipse(image, SIDE / 2, SIDE - 22, 19, 14, neck)
        _fill(image, [(61, 112), (99, 112), (99, 140), (61, 140)], neck)
        return _pixels(cv2.GaussianBlur(image, (3, 3), 0))

    def _draw_head(self) -> tuple[Image, NDArray[np.float32]]:
        """Hair and skin with soft light, and where they cover the background, in [0, 1]."""
        x, y = CENTRE_X, CENTRE_Y
        image = np.full((CANVAS, CANVAS, 3), self.hair, np.uint8)
        mask = _spot(x, y - 12, self.width + 9, self.height + 6)
        dark, light = _shade(self.skin, 0.82), _shade(self.skin, 1.06)
        if not self.long_hair:
            mask[y + 6 :] = 0  # hair ends at the ears
        for side in (-1, 1):
            if self.long_hair:
                _ellipse(mask, x + side * (self.width - 8), y + 28, 19, 68, (255, 255, 255))
            else:
                _ellipse(image, x + side * self.width, y + 6, 9, 15, dark)  # ears
                _ellipse(mask, x + side * self.width, y + 6, 9, 15, (255, 255, 255))
        face = _spot(x, y + 4, self.width, self.height)
        np.maximum(mask, face, out=mask)
        skin = np.full_like(image, dark)
        _ellipse(skin, x, y + 2, self.width - 9, self.height - 9, self.skin)
        _ellipse(skin, x, y - 44, 34, 17, light)  # forehead
        for side in (-1, 1):
            _ellipse(skin, x + side * 33, y + 24, 17, 15, light)  # cheeks
            # Eye sockets darker than forehead and cheeks: what Haar cascades look for first.
            socket = _shade(self.skin, 0.65)
            _ellipse(skin, x + side * self.eye_distance, y - 13, 19, 13, socket)
        _ellipse(skin, x, y + 2, 7, 26, light)  # bridge of the nose
        _ellipse(skin, x, y + 68, 22, 11, light)  # chin
        skin = _blurred(skin, 6)
        if self.beard:
            beard = _spot(x, y + 50, self.width + 4, self.height - 40, 150)
            _ellipse(beard, x, y + 14, self.width - 12, 26, (0, 0, 0))
            _blend(skin, self.hair, _blurred(beard, 4))
        for side in (-1, 1):
            blush = _spot(x + side * 38, y + 30, 13, 10, 60)
            _blend(skin, (120, 120, 225), _blurred(blush, 6))
        hairline = _spot(x, y - self.height * self.fringe + 84, self.width + 10, 84)
        _blend(image, skin, np.minimum(face, hairline))
        return image, _blurred(mask, 0.8).astype(np.float32) / np.float32(255)

    def _draw_nose(self, canvas: Image, pose: Pose) -> None:
        x, y, size = CENTRE_X, CENTRE_Y + 22 - 3 * pose.wrinkle, self.nose
        shadow = _shade(self.skin, 0.66)
        _ellipse(canvas, x, y + 1, size, 5, _shade(self.skin, 0.9))
        for side in (-1, 1):
            _ellipse(canvas, x + side * size * 0.5, y + 3, 2.6, 1.7, shadow)
            if pose.wrinkle > 0.05:
                crease = _shade(self.skin, 0.95 - 0.2 * pose.wrinkle)
                for up in (8, 15):
                    ends = [(x + side * 4, y - up - 4), (x + side * 10, y - up)]
                    _stroke(canvas, ends, crease, 2)
                fold = [(x + side * (size + 3), y + 1), (x + side * (size + 11), y + 14)]
                _stroke(canvas, fold, crease, 2)

    def _draw_eye(self, canvas: Image, pose: Pose, side: int) -> None:
        x, y, width = CENTRE_X + side * self.eye_distance, CENTRE_Y - 11.0, self.eye_size
        height = 0.52 * width * pose.lids
        line = _shade(self.hair, 0.5)
        if pose.lids > 0.15:
            upper, lower = height, 0.75 * height * (1 - 0.35 * max(0.0, pose.corners))
            # The upper lid from left to right, the lower one back.
            rim = _arc(x, y, width, upper) + _arc(x, y, width, -lower)[::-1]
            _fill(canvas, rim, (236, 240, 240))
            iris = np.clip(height * 0.95, 2.0, 0.56 * width)
            _ellipse(canvas, x, y - 0.4, 0.54 * width, iris, self.iris)
            _ellipse(canvas, x, y - 0.4, 0.28 * width, min(0.28 * width, iris), (12, 12, 14))
            _ellipse(canvas, x + 2, y - 2.4, 1.4, 1.4, (250, 250, 250))
            _stroke(canvas, rim[: len(rim) // 2 + 1], line, 3)
            _stroke(canvas, rim[len(rim) // 2 :], _shade(self.skin, 0.6), 1)
        else:
            _stroke(canvas, _arc(x, y + 1, width, -2.0), line, 3)
        if self.glasses:
            _ellipse(canvas, x, y + 1, width + 7, width + 4, (40, 40, 44), thickness=2)
            inner = (CENTRE_X + side * (self.eye_distance - width - 7), y)
            _stroke(canvas, [inner, (CENTRE_X, y - 2)], (40, 40, 44), 2)

    def _draw_brow(self, canvas: Image, pose: Pose, side: int) -> None:
        x = CENTRE_X + side * self.eye_distance
        y = CENTRE_Y - 28 - 6 * pose.brows
        inner, outer = y - 5 * pose.slant, y + 4 * pose.slant + 1.5
        half = self.eye_size + 3.5
        bow = 3.5 + 2 * pose.brows
        points = [
            (x - side * half * (1 - 2 * t), inner + (outer - inner) * t - bow * 4 * t * (1 - t))
            for t in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        _stroke(canvas, points, _shade(self.hair, 0.55), round(self.brow_weight))

    def _draw_mouth(self, canvas: Image, pose: Pose) -> None:
        x, y = CENTRE_X, CENTRE_Y + 48.0
        half = self.mouth * (1 + 0.22 * pose.spread + 0.12 * pose.corners)
        gap = 15 * max(0.0, pose.open)
        lift = 12 * pose.corners
        lip = tuple(0.62 * c + d for c, d in zip(self.skin, (24, 14, 62), strict=True))
        assert len(lip) == 3
        curve = np.linspace(-1, 1, 13)
        corner_y = y - lift * curve**2 + 0.35 * lift  # corners up, centre down
        arch = 1 - curve**2
        upper = corner_y - 0.4 * gap * arch
        lower = corner_y + 0.7 * gap * arch
        across = x + half * curve
        top, bottom = upper - 4.2 * arch - 1, lower + 5.5 * arch + 1
        _fill(canvas, _ring(across, top, bottom), _shade(lip, 0.95))
        if gap > 1.5:
            _fill(canvas, _ring(across * 0.94 + x * 0.06, upper, lower), (34, 24, 62))
            if gap > 4:
                teeth = np.minimum(upper + 0.3 * gap * np.sqrt(arch), lower)
                inner = slice(1, -1)
                shape = _ring(across[inner], upper[inner] + 0.5, teeth[inner])
                _fill(canvas, shape, (228, 234, 236))
        else:
            _stroke(canvas, list(zip(across, corner_y, strict=True)), _shade(lip, 0.5), 2)


def _pixels(image: NDArray[Any]) -> Image:
    return image.astype(np.uint8, copy=False)


def _blurred(image: Image, sigma: float) -> Image:
    return _pixels(cv2.GaussianBlur(image, (0, 0), sigma))


def _shade(colour: Sequence[float], factor: float) -> Colour:
    blue, green, red = (min(255.0, factor * c) for c in colour)
    return blue, green, red


def _fixed(points: Sequence[tuple[float, float]]) -> NDArray[np.int32]:
    return np.round(np.asarray(points) * (1 << BITS)).astype(np.int32)


def _ellipse(
    image: Image, x: float, y: float, a: float, b: float, colour: Colour, thickness: int = -1
) -> None:
    one = 1 << BITS
    centre, axes = (round(x * one), round(y * one)), (round(a * one), round(b * one))
    cv2.ellipse(image, centre, axes, 0, 0, 360, colour, thickness, cv2.LINE_AA, BITS)


def _spot(x: float, y: float, a: float, b: float, value: int = 255) -> Image:
    """(240, 240): `value` within an ellipse, 0 outside."""
    mask = np.zeros((CANVAS, CANVAS), np.uint8)
    _ellipse(mask, x, y, a, b, (value, value, value))
    return mask


def _fill(image: Image, points: Sequence[tuple[float, float]], colour: Colour) -> None:
    cv2.fillPoly(image, [_fixed(points)], colour, cv2.LINE_AA, BITS)


def _stroke(
    image: Image, points: Sequence[tuple[float, float]], colour: Colour, thickness: int
) -> None:
    cv2.polylines(image, [_fixed(points)], False, colour, thickness, cv2.LINE_AA, BITS)


def _blend(image: Image, over: Image | Colour, weight: NDArray[np.uint8]) -> None:
    """Lay `over` onto the image where `weight` (of 255) says so."""
    fraction = weight.astype(np.float32)[:, :, None] / 255
    image[:] = np.round(image * (1 - fraction) + np.asarray(over, np.float32) * fraction)


def _arc(x: float, y: float, width: float, rise: float) -> list[tuple[float, float]]:
    return [(x + width * t, y - rise * (1 - t * t)) for t in np.linspace(-1, 1, 9)]


def _ring(
    across: NDArray[np.float64], top: NDArray[np.float64], bottom: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """The outline between two curves over the same places."""
    return [*zip(across, top, strict=True), *zip(across[::-1], bottom[::-1], strict=True)]


def blink(seconds: float, period: float, phase: float) -> float:
    """How far the lids are open, 0 to 1: shut for an instant once a period."""
    since = math.fmod(seconds + phase, period)
    return min(1.0, abs(since - 0.1) / 0.1) if since < 0.2 else 1.0
