"""Crops of drawn faces and of plain pictures, against hand-made crops."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mmembed.data.corpora.talkers.face import Face, Pose
from mmembed.errors import UsageError
from mmembed.features import video
from mmembed.features.video import (
    CROP,
    check_face_model,
    face_crops,
)

Frames = NDArray[np.uint8]
WALL = 128


@pytest.fixture(scope="module")
def portrait() -> Frames:
    """(160, 160) grey; its face is about 90 pixels wide, in the middle."""
    drawn = Face(random.Random(3), feminine=True).draw(Pose())
    return cv2.cvtColor(drawn, cv2.COLOR_BGR2GRAY).astype(np.uint8)


def scene(portrait: Frames, right: int, down: int = 60) -> Frames:
    """The portrait on a wall of 480 x 320 pixels."""
    picture = np.full((320, 480), WALL, np.uint8)
    picture[down : down + 160, right : right + 160] = portrait
    return picture


def place_of(crop: Frames, portrait: Frames) -> tuple[float, float, float]:
    """Where in the portrait a crop was cut: (x, y, side), the best of all scales and places."""
    best = (-1.0, 0.0, 0.0, 0.0)
    for side in range(60, 156, 2):
        template = cv2.resize(crop, (side, side), interpolation=cv2.INTER_LINEAR)
        scores = cv2.matchTemplate(portrait, template, cv2.TM_CCOEFF_NORMED)
        _, score, _, (x, y) = cv2.minMaxLoc(scores)
        best = max(best, (score, x + side / 2, y + side / 2, float(side)))
    return best[1:]


def gradient(height: int, width: int) -> Frames:
    rows, columns = np.mgrid[:height, :width]
    return (rows + columns).astype(np.uint8)


def test_without_a_face_the_central_square_is_taken() -> None:
    picture = gradient(64, 100)
    crops, how = face_crops(np.stack([picture] * 3))
    assert how == "full frame" and crops.shape == (3, CROP, CROP) and crops.dtype == np.uint8
    for crop in crops:
        np.testing.assert_array_equal(crop, picture[:, 18:82])


def test_full_frames_are_scaled_to_the_crop() -> None:
    crops, _ = face_crops(gradient(128, 128)[None])
    middles = 2 * (np.arange(CROP)[:, None] + np.arange(CROP)[None]) + 1.0  # of 2 x 2 pixels
    assert np.abs(crops[0].astype(float) - middles).max() <= 0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 3)])
def test_tiny_pictures_are_stretched(shape: tuple[int, int]) -> None:
    crops, how = face_crops(np.full((2, *shape), 9, np.uint8))
    assert how == "full frame" and (crops == 9).all()


def test_refuses_what_is_not_frames() -> None:
    for shape in [(0, 8, 8), (8, 8)]:
        with pytest.raises(ValueError, match="frames must be"):
            face_crops(np.zeros(shape, np.uint8))


def test_finds_the_face(portrait: Frames) -> None:
    crops, how = face_crops(scene(portrait, 200)[None])
    x, y, side = place_of(crops[0], portrait)
    assert how == "haar"
    assert abs(x - 80) < 8 and abs(y - 80) < 15 and 80 < side < 150


def test_follows_a_moving_face(portrait: Frames) -> None:
    rights = [40 + 4 * t for t in range(61)]  # searched at 0, 12, ..., 60; in between interpolated
    crops, how = face_crops(np.stack([scene(portrait, right) for right in rights]))
    assert how == "haar"
    places = np.array([place_of(crops[t], portrait) for t in range(0, 61, 4)])
    assert np.abs(places[:, :2] - np.median(places[:, :2], axis=0)).max() < 6
    assert np.ptp(places[:, 2]) < 16


def test_one_wrong_detection_disappears(portrait: Frames) -> None:
    still = [scene(portrait, 150)] * 49
    jumped = [*still[:24], scene(portrait, 300), *still[25:]]
    crops, _ = face_crops(np.stack(still))
    others, _ = face_crops(np.stack(jumped))
    gap = np.delete(crops, 24, 0).astype(float) - np.delete(others, 24, 0)
    assert np.abs(gap).mean() < 1  # detected at other times, by a fraction of a pixel elsewhere
    places = [place_of(crop, portrait) for crop in (others[12], others[36])]
    assert np.abs(np.array(places) - place_of(crops[12], portrait)).max() < 3


def test_a_face_is_followed_between_detections(
    portrait: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    detect, seen = video._haar, []

    def counted(frame: Frames, last: video.Box | None) -> np.ndarray:
        seen.append(frame)
        return detect(frame, last)

    monkeypatch.setattr(video, "_haar", counted)
    frames = [scene(portrait, 100 + t // 4) for t in range(61)]
    face_crops(np.stack(frames))
    assert len(seen) == 2  # of the six frames that are searched
    assert all((frames[t] == one).all() for t, one in zip((0, 48), seen, strict=True))
    seen.clear()
    blank = np.full((320, 480), WALL, np.uint8)
    face_crops(np.stack([*frames[:13], *[blank] * 24, *frames[37:]]))
    assert len(seen) == 3  # at 24 and 36, where it is gone, and not when it is there again


def test_a_followed_face_lies_where_it_is(portrait: Frames) -> None:
    for step in (-1.5, 0.5, 2.0):  # pixels a frame
        frames = np.stack([scene(portrait, int(200 + step * t)) for t in range(37)])
        faces = video.FaceCrops()
        faces.add(frames)
        moved = np.array([box[0] for _, box in faces._found]) - faces._found[0][1][0]
        assert np.abs(moved - [int(step * t) for t in (0, 12, 24, 36)]).max() < 1.5


def test_a_face_seen_once_holds_for_all_frames(portrait: Frames) -> None:
    blank = np.full((320, 480), WALL, np.uint8)
    crops, how = face_crops(np.stack([*[blank] * 12, scene(portrait, 200), *[blank] * 12]))
    alone, _ = face_crops(scene(portrait, 200)[None])
    assert how == "haar"
    np.testing.assert_array_equal(crops[12], alone[0])
    assert (crops[:12] == WALL).all() and (crops[13:] == WALL).all()


def test_a_face_at_the_edge_repeats_the_edge(portrait: Frames) -> None:
    cuts = (face_crops(portrait[None, :, cut:]) for cut in range(60, 0, -2))
    crops = next(crops for crops, how in cuts if how == "haar")  # the face is just still found
    assert (crops[0, :, 0] == crops[0, :, 1]).all()


def test_large_pictures_are_averaged_not_sampled() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1, 320, 320), dtype=np.uint8)
    crops, how = face_crops(noise)
    means = noise.reshape(64, 5, 64, 5).mean((1, 3))  # 320 / 64 = 5
    assert how == "full frame"
    np.testing.assert_allclose(crops[0], means, atol=1)


@pytest.fixture
def bright_squares(tmp_path: Path) -> Path:
    """A network with YuNet's inputs and outputs that finds squares of 32 pixels brighter than 200.

    The published weights are nobody's to ship; what is tested is how they are asked.
    """
    nodes, outputs, weights = [], [], {}
    for stride in (8, 16, 32):
        cells = (320 // stride) ** 2
        kernel = np.full((1, 3, stride, stride), 1 / (3 * stride**2), np.float32)
        weights[f"kernel_{stride}"] = kernel
        weights[f"shape_{stride}"] = np.array([1, -1, 1], np.int64)
        nodes += [
            helper.make_node("Conv", ["input", f"kernel_{stride}"], [f"mean_{stride}"],
                             strides=[stride, stride]),
            helper.make_node("Sub", [f"mean_{stride}", "level"], [f"over_{stride}"]),
            helper.make_node("Sigmoid", [f"over_{stride}"], [f"score_{stride}"]),
            helper.make_node("Reshape", [f"score_{stride}", f"shape_{stride}"], [f"cls_{stride}"]),
            helper.make_node("Mul", [f"cls_{stride}", "zero"], [f"none_{stride}"]),
        ]  # fmt: skip
        for name, values in {
            "obj": np.full((1, cells, 1), 1.0 if stride == 32 else 0.0),
            "bbox": np.tile(
                [0.5, 0.5, 0.0, 0.0], (1, cells, 1)
            ),  # from the cell's corner: its size
            "kps": np.zeros((1, cells, 10)),
        }.items():
            weights[f"{name}_const_{stride}"] = values.astype(np.float32)
            nodes.append(  # what does not depend on the picture would be no layer to OpenCV
                helper.make_node("Add", [f"none_{stride}", f"{name}_const_{stride}"],
                                 [f"{name}_{stride}"])
            )  # fmt: skip
    weights |= {"level": np.float32(200), "zero": np.float32(0)}
    widths = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    for name, width in widths.items():
        for stride in (8, 16, 32):
            shape = [1, (320 // stride) ** 2, width]
            outputs.append(
                helper.make_tensor_value_info(f"{name}_{stride}", TensorProto.FLOAT, shape)
            )
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 320, 320])
    constants = [numpy_helper.from_array(np.asarray(w), name) for name, w in weights.items()]
    graph = helper.make_graph(nodes, "squares", [picture], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, tmp_path / "squares.onnx")
    return tmp_path / "squares.onnx"


def test_yunet_is_asked_when_its_model_is_given(bright_squares: Path) -> None:
    frame = np.zeros((640, 640), np.uint8)  # searched at half the size
    frame[192:256, 320:384] = 255
    crops, how = face_crops(frame[None], bright_squares)
    assert how == "yunet"
    # The crop is 1.2 times the square around it: its middle is bright, its rim dark.
    assert crops[0, 32, 32] > 250 and crops[0, 1].max() < 5 and crops[0, :, 62:].max() < 5
    assert (crops[0] > 128).mean() == pytest.approx(1 / 1.2**2, abs=0.05)
    _, how = face_crops(np.zeros((1, 320, 320), np.uint8), bright_squares)
    assert how == "full frame"


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    for name in ("a.onnx", "gone.onnx"):
        with pytest.raises(UsageError, match="not a model of YuNet"):
            check_face_model(tmp_path / name)
