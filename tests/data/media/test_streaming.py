"""Long recordings: blocks give the features of the whole, in one pass and in bounded memory."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
from helpers.clips import grey_steps, tone, write_video
from helpers.loading import load_example
from numpy.typing import NDArray

from mmembed.config import MAX_SECONDS
from mmembed.data.corpora.talkers.face import Face, Pose
from mmembed.data.example import LONGEST, Example, ExampleInfo
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media import pool
from mmembed.data.media.load import MediaSource, gather, load_parts
from mmembed.data.media.open import BLOCK, MediaPart
from mmembed.data.media.pool import Decoder
from mmembed.data.media.streaming import stream_clip
from mmembed.data.media.temporary_arrays import TemporaryArray, release
from mmembed.errors import DataError, UsageError

SECONDS = 2 * BLOCK + 3.5  # two whole blocks and a part of one


def in_blocks(path: Path, **part: float) -> Example:
    row = Utterance("a", path.name, **part)  # type: ignore[arg-type]
    return gather(load_parts(MediaSource(row, path.parent, longest=MAX_SECONDS)))


def whole(path: Path, **part: float) -> Example:
    return load_example(Utterance("a", path.name, **part), path.parent)  # type: ignore[arg-type]


def agree(one: Example, other: Example) -> None:
    assert one.streams == other.streams and one.info == other.info
    if other.audio is not None:
        assert one.audio is not None and one.audio.dtype == np.int16
        np.testing.assert_allclose(one.audio, other.audio, rtol=0, atol=1)
    if other.video is not None:
        np.testing.assert_array_equal(one.video, other.video)


def noise(rate: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-0.5, 0.5, round(SECONDS * rate)).astype("f4")


@pytest.mark.parametrize(("name", "rate"), [("a.wav", 8_000), ("a.flac", 44_100)])
def test_sound_has_the_features_of_the_whole(tmp_path: Path, name: str, rate: int) -> None:
    soundfile.write(tmp_path / name, noise(rate), rate)
    agree(in_blocks(tmp_path / name), whole(tmp_path / name))
    part = {"start": 1.25, "end": 2 * BLOCK + 1.25}  # ends with a block
    agree(in_blocks(tmp_path / name, **part), whole(tmp_path / name, **part))


def moving_face(count: int) -> list[NDArray[np.uint8]]:
    """A face on the way across the picture, now and then away for a second."""
    drawn = cv2.cvtColor(Face(random.Random(3), feminine=True).draw(Pose()), 4)
    face = cv2.resize(drawn, (80, 80), interpolation=cv2.INTER_AREA)
    pictures = []
    for t in range(count):
        picture = np.full((96, 160, 3), 128, np.uint8)
        if t % 150 > 25:
            place = 5 + 70 * t // count
            picture[8:88, place : place + 80] = face
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize("name", ["a.mp4", "a.flv"])
def test_a_film_has_the_features_of_the_whole(tmp_path: Path, name: str) -> None:
    """Of kinds that cannot be seeked as well: it is one pass."""
    count = round(SECONDS * 25)
    pictures = moving_face(count)
    write_video(tmp_path / name, pictures, np.arange(count) / 25, noise(16_000))
    agree(in_blocks(tmp_path / name), found := whole(tmp_path / name))
    assert found.info.face == "haar"


def test_pictures_that_stay_for_blocks_and_sound_that_ends(tmp_path: Path) -> None:
    times = [0.0, 0.04, 3 * BLOCK + 0.2, 3 * BLOCK + 0.24]
    path = write_video(tmp_path / "slides.mp4", grey_steps([40, 60, 80, 90]), times, tone(2.0))
    agree(in_blocks(path), found := whole(path))
    assert found.video is not None and len(found.video) == 3 * BLOCK * 25 + 7
    sizes = [len(block.values) for block in stream_clip(MediaPart(path, streams=("video",)))]
    assert sizes == [BLOCK * 25] * 3 + [7]


def test_damage_in_the_middle_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "noise.wav"
    soundfile.write(path, samples := noise(8_000), 8_000, "FLOAT")
    samples[BLOCK * 12_000] = np.inf
    soundfile.write(path, samples, 8_000, "FLOAT")
    with pytest.raises(
        DataError, match=r"noise\.wav: cannot be decoded \(sound holds inf"
    ) as error:
        in_blocks(path)
    assert error.value.reason == "damaged" and "\n" not in str(error.value)


@pytest.fixture(scope="module")
def long_sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.flac"
    samples = np.random.default_rng(1).normal(0, 0.05, 301 * 2_000).astype("f4")
    soundfile.write(path, samples, 2_000)
    return path


def test_a_decoder_maps_what_is_long_where_that_is_wanted(long_sound: Path) -> None:
    row = Utterance("a", long_sound.name, transcript="Hello")
    with Decoder() as decoder:
        tasks = [
            MediaSource(row, long_sound.parent, longest=longest)
            for longest in (MAX_SECONDS, LONGEST)
        ]
        mapped, refused = decoder.load(tasks)
    assert isinstance(refused, DataError) and refused.reason == "too_long"
    assert isinstance(mapped, Example) and isinstance(mapped.audio, np.memmap)
    assert (mapped.text, mapped.info) == ("hello", ExampleInfo(301.0))
    agree(mapped.only(("audio",)), in_blocks(long_sound))
    later = whole(long_sound, start=200.0).audio
    assert later is not None
    np.testing.assert_allclose(mapped.audio[3_200_400:], later[400:], rtol=0, atol=1)


def test_a_long_recording_that_is_damaged_costs_itself_alone(long_sound: Path) -> None:
    data = long_sound.read_bytes()
    (long_sound.parent / "cut.flac").write_bytes(data[: len(data) * 2 // 3])
    rows = [Utterance(name, f"{name}.flac") for name in ("cut", "long")]
    with Decoder() as decoder:
        cut, good = decoder.load(
            [MediaSource(row, long_sound.parent, longest=400.0) for row in rows]
        )
    assert isinstance(good, Example)
    assert isinstance(cut, DataError) and cut.reason == "damaged" and "\n" not in str(cut)


def test_a_header_that_claims_a_day_is_refused_at_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", grey_steps([40, 60, 80]), [0.0, 0.04, 86_000.0])
    row = Utterance("a", path.name)
    with Decoder() as decoder:
        (refused,) = decoder.load([MediaSource(row, tmp_path, longest=MAX_SECONDS)])
    assert isinstance(refused, DataError) and refused.reason == "too_long"
    assert "at most 14400 s" in str(refused)


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", grey_steps([40] * 25), np.arange(25) / 25)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Duration, a float of 8 bytes, in ms
    data[at : at + 8] = struct.pack(">d", 9e7)
    path.write_bytes(data)
    found = whole(path)
    assert found.video is not None and len(found.video) == 25


def test_all_parts_together_have_one_budget(
    long_sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip of which nothing earns it more time has the time of one part."""
    monkeypatch.setattr(pool, "BYTES_A_SECOND", 1e12)
    monkeypatch.setattr(pool, "DECODED_A_SECOND", 1e12)
    row = Utterance("a", long_sound.name)
    with Decoder(seconds=60.0) as decoder:
        tasks = decoder.load([MediaSource(row, long_sound.parent, longest=400.0)])
        deadlines = []
        monkeypatch.setattr(pool._Child, "answer", watch(pool._Child.answer, deadlines.append))
        (found,) = tasks
    assert isinstance(found, Example) and len(deadlines) > 25
    assert max(deadlines[1:]) - min(deadlines[1:]) < 1e-3  # each part left the end where it was


def watch(answer: Callable[[Any], Any], tell: Callable[[float], None]) -> Callable[[Any], Any]:
    """`_Child.answer` that tells each deadline first."""

    def watched(child: Any) -> Any:
        tell(child.deadline)
        return answer(child)

    return watched


def test_more_than_was_allowed_is_not_kept(
    long_sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "BLOCK", -200)  # as if the process had sent more than it may
    with Decoder() as decoder:
        row = Utterance("a", long_sound.name)
        (refused,) = decoder.load([MediaSource(row, long_sound.parent, longest=302.0)])
    assert isinstance(refused, DataError) and refused.reason == "too_long"


def test_a_temporary_array_is_the_array_and_its_pages_can_go(tmp_path: Path) -> None:
    parts = [np.full((n, 3), n, np.uint8) for n in (2, 5, 1)]
    array_file = TemporaryArray()
    for part in parts:
        array_file.add(part)
    array = array_file.finish()
    for _ in range(2):
        np.testing.assert_array_equal(array, np.concatenate(parts))
        release(array)
    release(parts[0])
    release(None)


def test_no_room_for_features_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    with pytest.raises(UsageError, match=r"gone: .*set TMPDIR to a folder with room"):
        TemporaryArray()
