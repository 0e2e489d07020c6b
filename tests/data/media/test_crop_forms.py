"""Face crops of any size, grey or RGB: colours, orientation, boxes and memory."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from helpers.clips import Film, Voice, tone, write_streams, write_video
from numpy.typing import NDArray

from mmembed.data.corpora.talkers.face import Face, Pose
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media import video
from mmembed.data.media.decode import load_clip
from mmembed.data.media.load import MediaSource
from mmembed.data.media.pool import Decoder
from mmembed.data.media.video import block_length, hdr_colours, largest_side, picture_of
from mmembed.embedder.clip import Clip
from mmembed.errors import UsageError
from mmembed.features.video import SMALL_GREY, CropForm, face_crops

Frames = NDArray[np.uint8]
COLOUR = CropForm(64, colour=True)
LARGE = CropForm(224, colour=True)
RED, GREEN, BLUE, BROWN = (220, 30, 20), (10, 190, 40), (30, 60, 210), (150, 100, 60)


def quarters(height: int = 48, width: int = 64) -> Frames:
    """Red at the top left, green at the top right, blue and brown below."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = RED, GREEN
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = BLUE, BROWN
    return picture


def talking(count: int) -> list[Frames]:
    """A face that moves to the right across 320 x 240 pixels, in colour."""
    face = cv2.cvtColor(Face(random.Random(3), feminine=True).draw(Pose()), cv2.COLOR_BGR2RGB)
    frames = [np.full((240, 320, 3), (90, 140, 120), np.uint8) for _ in range(count)]
    for number, frame in enumerate(frames):
        frame[40:200, 20 + 2 * number : 180 + 2 * number] = face
    return frames


def load(path: Path, form: CropForm) -> Example:
    return MediaSource(Utterance("a", path.name), path.parent, crops=form).load()


@pytest.mark.parametrize(
    ("codec", "pixels", "size"),
    [("ffv1", "bgr0", 0.6), ("ffv1", "yuv444p", 3), ("mjpeg", "yuvj420p", 12),
     ("libx264", "yuv420p", 12), ("ffv1", "yuv422p10le", 3)],
)  # fmt: skip
def test_colours_are_those_of_the_picture(
    tmp_path: Path, codec: str, pixels: str, size: float
) -> None:
    path = write_streams(tmp_path / "a.mkv", Film([quarters()] * 3, codec, pixels))
    shown = load_clip(path, crops=COLOUR).video
    assert shown is not None and shown.shape == (3, 48, 64, 4)
    for y, x, colour in [(12, 16, RED), (12, 48, GREEN), (36, 16, BLUE), (36, 48, BROWN)]:
        np.testing.assert_allclose(shown[1, y, x, :3].astype(int), colour, atol=size)
    np.testing.assert_array_equal(shown[..., 3], load_clip(path).video)


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, -1, 0)])
def test_colours_stand_upright(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    """The display matrix puts what is at (x, y) to (a x + c y, b x + d y)."""
    path = write_video(tmp_path / "a.mp4", [quarters()] * 3, np.arange(3) / 25)
    a, b, c, d = (n << 16 for n in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    shown = load_clip(path, crops=COLOUR).video
    assert shown is not None
    a, b, c, d = matrix
    height, width = shown.shape[1:3]
    assert (height, width) == ((48, 64) if a else (64, 48))
    for x, y, colour in [(-16, -12, RED), (16, -12, GREEN), (-16, 12, BLUE), (16, 12, BROWN)]:
        row, column = round(b * x + d * y + height / 2), round(a * x + c * y + width / 2)
        np.testing.assert_allclose(shown[1, row, column, :3].astype(int), colour, atol=12)


def test_white_of_hdr_is_white() -> None:
    """ITU-R BT.2408: reference white is 58 % of PQ's signal and 75 % of HLG's."""
    for transfer, white in ((16, 0.58), (18, 0.75)):
        shades = hdr_colours(transfer).astype(int)
        assert shades[0] == 0 and shades[1023] == 255 and (np.diff(shades) >= 0).all()
        assert shades[round(1023 * white)] == pytest.approx(255, abs=3)


def test_hdr_is_shown_in_colour() -> None:
    """Reference white of PQ is white, and what is half as bright has a place in between."""
    shades = []
    for code in (64, 480, 572):  # black, and 58 % of the range
        frame = av.VideoFrame(64, 64, "yuv420p10le")
        for plane, value in zip(frame.planes, (code, 512, 512), strict=True):
            plane.update(np.full(plane.buffer_size // 2, value, "<u2").tobytes())
        frame.color_trc = 16
        shown = picture_of(frame, COLOUR)[32, 32, :3].astype(int)
        assert np.ptp(shown) <= 2
        shades.append(shown[0])
    assert shades[0] == 0 and 128 < shades[1] < 220 and shades[2] > 250


def test_the_boxes_are_those_of_grey(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.mkv", Film(talking(40), "ffv1", "bgr0"))
    pictures = load_clip(path, crops=COLOUR).video
    assert pictures is not None
    grey, how = face_crops(np.ascontiguousarray(pictures[..., 3]))
    assert how == "haar"
    swapped = pictures[..., [3, 0, 3, 3]]  # grey in place of red and of blue, red in place of green
    crops, _ = face_crops(swapped, form=COLOUR)
    np.testing.assert_array_equal(crops[..., 0], grey)
    np.testing.assert_array_equal(crops[..., 2], grey)
    assert not np.array_equal(crops[..., 1], grey)
    np.testing.assert_array_equal(load(path, COLOUR).video, face_crops(pictures, form=COLOUR)[0])


@pytest.mark.parametrize("form", [CropForm(32), CropForm(96), COLOUR, LARGE])
def test_faces_are_averaged_or_enlarged_to_the_size(form: CropForm) -> None:
    fine = np.random.default_rng(0).integers(
        0, 256, (1, 3 * form.size, 3 * form.size, 4), dtype=np.uint8
    )
    fine[..., 3] = 128  # no face
    coarse = np.full((2, 20, 30, 4), (250, 7, 90, 33), np.uint8)
    if not form.colour:
        fine, coarse = fine[..., 0].copy(), coarse[..., 0].copy()
    crops, how = face_crops(fine, form=form)
    means = fine[0].reshape(form.size, 3, form.size, 3, -1).mean((1, 3))[..., :3]
    assert how == "full frame" and crops.shape == (1, *form.shape)
    np.testing.assert_allclose(crops[0].reshape(means.shape), means, atol=1)
    enlarged, _ = face_crops(coarse, form=form)
    assert enlarged.shape == (2, *form.shape)
    assert (enlarged == ((250, 7, 90) if form.colour else 250)).all()


def test_large_crops_are_cut_from_large_pictures(tmp_path: Path) -> None:
    """The finest pattern that 960 pixels show is lost in the 480 that small crops are cut from."""
    assert largest_side(SMALL_GREY) == 480 and largest_side(LARGE) == 1080
    stripes = np.zeros((540, 960, 3), np.uint8)
    stripes[:, ::2] = 255
    path = write_streams(tmp_path / "a.mkv", Film([stripes], "ffv1", "bgr0"))
    shown, small = load_clip(path, crops=LARGE).video, load_clip(path).video
    assert shown is not None and shown.shape == (1, 540, 960, 4) and np.ptp(shown[0, 9]) == 255
    assert small is not None and small.shape == (1, 270, 480) and np.ptp(small) < 9


def test_the_decoding_process_gives_the_same(tmp_path: Path) -> None:
    path = write_streams(
        tmp_path / "a.mkv", Film(talking(30), "ffv1", "bgr0"), Voice(tone(1.2), "flac")
    )
    expected, grey = load(path, LARGE), load(path, SMALL_GREY)
    with Decoder() as decoder:
        (found,) = decoder.load([MediaSource(Utterance("a", "a.mkv"), tmp_path, crops=LARGE)])
    assert isinstance(found, Example)
    assert found.video is not None and found.video.shape == (30, 224, 224, 3)
    np.testing.assert_array_equal(found.video, expected.video)
    assert found.info == expected.info == grey.info
    np.testing.assert_allclose(found.audio, grey.audio, atol=1)


def test_blocks_give_the_crops_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_streams(tmp_path / "a.mkv", Film(talking(70), "ffv1", "bgr0"))
    whole = load(path, LARGE).video
    monkeypatch.setattr(video, "BLOCK_BYTES", 0)
    assert block_length((240, 320), LARGE) == 24  # two searches for faces
    np.testing.assert_array_equal(load(path, LARGE).video, whole)
    frames = np.stack(talking(70))
    (example,) = (Clip(video=frames).source(("video",), None, crops=LARGE).load() for _ in "1")
    np.testing.assert_array_equal(example.video, whole)


def test_blocks_bound_the_memory() -> None:
    assert block_length((270, 480), SMALL_GREY) == block_length((2000, 2000), SMALL_GREY) == 300
    for shape in ((288, 360), (1080, 1920), (4000, 3000)):
        length, scale = block_length(shape, LARGE), min(1.0, 1080 / max(shape))
        assert length % 12 == 0
        assert length * 4 * shape[0] * shape[1] * scale**2 <= video.BLOCK_BYTES


def test_grey_frames_in_memory_give_grey_colours() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 40), dtype=np.uint8)
    crops = Clip(video=frames).source(("video",), None, crops=COLOUR).load().video
    assert crops is not None and crops.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(crops[..., 0], crops[..., 1])
    np.testing.assert_array_equal(crops[..., 0], crops[..., 2])


def test_refuses_sizes_that_are_none() -> None:
    for size in (0, 15, 513, 64.0, True):
        with pytest.raises(UsageError, match=r"give a whole number from 16 to 512"):
            CropForm(size)  # type: ignore[arg-type]
    assert str(LARGE) == "224 x 224 RGB" and CropForm.of(np.zeros((0, 32, 32), np.uint8)).size == 32
