"""Sound at its level and pictures as they are shown, however a file stores them; by value."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, Film, Voice, grey_steps, tone, write_streams, write_video
from helpers.loading import load_example
from numpy.typing import NDArray

from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import load_clip
from mmembed.data.media.open import MediaPart
from mmembed.data.media.streaming import stream_clip
from mmembed.data.media.video import hdr_levels
from mmembed.errors import DataError

VOICE = tone(1.0)
LAYOUTS = {
    "3.0": "FL FR FC", "4.0": "FL FR FC BC", "quad": "FL FR BL BR", "5.0(side)": "FL FR FC SL SR",
    "5.1": "FL FR FC LFE BL BR", "5.1(side)": "FL FR FC LFE SL SR",
    "7.1": "FL FR FC LFE BL BR SL SR", "2.1": "FL FR LFE",
}  # fmt: skip


def write_channels(path: Path, layout: str, **channels: NDArray[np.float32]) -> Path:
    """Sound from some loudspeakers of a layout; the others are silent."""
    names = LAYOUTS.get(layout, "FL FR").split()
    samples = np.stack([channels.get(name, 0 * VOICE) for name in names])
    codec = "flac" if path.suffix in (".flac", ".mka") else "pcm_s16le"
    return write_streams(path, Voice(samples, codec, layout=layout))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "FC" in LAYOUTS[name]])
@pytest.mark.parametrize("suffix", ["wav", "mka"])
def test_speech_in_the_centre_is_the_mono_recording(
    tmp_path: Path, layout: str, suffix: str
) -> None:
    path = write_channels(tmp_path / f"a.{suffix}", layout, FC=VOICE, LFE=tone(1.0, hertz=60.0))
    clip = load_clip(path)
    np.testing.assert_allclose(clip.audio, VOICE, atol=1e-4)
    assert clip.notes == (
        f"{len(LAYOUTS[layout].split())} channels of sound ({LAYOUTS[layout]}) mixed to one",
    )


@pytest.mark.parametrize("layout", ["5.1", "7.1"])
def test_many_channels_of_a_lossy_codec(tmp_path: Path, layout: str) -> None:
    """Eight planes in a frame, which PyAV cannot take apart."""
    samples = np.stack([VOICE * (name == "FC") for name in LAYOUTS[layout].split()])
    clip = load_clip(write_streams(tmp_path / "a.m4a", Voice(samples, layout=layout)))
    assert clip.audio is not None
    np.testing.assert_allclose(clip.audio[4000:12_000], VOICE[4000:12_000], atol=0.02)


@pytest.mark.parametrize("layout", [*LAYOUTS, "stereo"])
def test_speech_in_both_front_channels_keeps_its_level(tmp_path: Path, layout: str) -> None:
    clip = load_clip(write_channels(tmp_path / "a.wav", layout, FL=VOICE, FR=VOICE))
    np.testing.assert_allclose(clip.audio, VOICE, atol=1e-4)


def test_channels_at_the_back_are_3_db_softer(tmp_path: Path) -> None:
    clip = load_clip(write_channels(tmp_path / "a.wav", "quad", BL=VOICE, BR=VOICE))
    np.testing.assert_allclose(clip.audio, VOICE * np.sqrt(0.5), atol=1e-4)


def test_channels_of_unknown_places_become_their_mean(tmp_path: Path) -> None:
    samples = np.stack([VOICE, 0 * VOICE, 0.5 * VOICE], 1)
    soundfile.write(tmp_path / "a.aiff", samples, RATE, "PCM_16")
    clip = load_clip(tmp_path / "a.aiff")
    np.testing.assert_allclose(clip.audio, VOICE / 2, atol=1e-4)
    assert clip.notes == ("3 channels of sound of unknown places: their mean",)


@pytest.mark.parametrize("suffix", ["wav", "flac", "mka"])
@pytest.mark.parametrize("gain", [1.0, 0.7])
def test_channels_that_cancel_each_other_are_not_added(
    tmp_path: Path, suffix: str, gain: float
) -> None:
    path = write_channels(tmp_path / f"a.{suffix}", "stereo", FL=VOICE, FR=-gain * VOICE)
    clip = load_clip(path)
    np.testing.assert_allclose(clip.audio, VOICE, atol=1e-4)
    assert clip.notes == ("the channels cancel each other: the left one alone is used",)


@pytest.mark.parametrize("other", ["noise", "silence", "half", "later"])
def test_channels_that_differ_are_their_mean(tmp_path: Path, other: str) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, RATE).astype("f4")
    right = {"noise": noise, "silence": 0 * VOICE, "half": VOICE / 2, "later": np.roll(noise, 9)}
    left = noise if other == "later" else VOICE
    path = write_channels(tmp_path / "a.wav", "stereo", FL=left, FR=right[other])
    clip = load_clip(path)
    np.testing.assert_allclose(clip.audio, (left + right[other]) / 2, atol=1e-4)
    assert clip.notes == ()


def test_the_default_track_is_taken(tmp_path: Path) -> None:
    for silent, default in ((True, False), (False, True)):
        voices = [
            Voice(VOICE * (not silent), default=default),
            Voice(VOICE * silent, default=not default),
        ]
        path = write_streams(tmp_path / "a.mkv", Film(grey_steps([80] * 25)), *voices)
        clip = load_clip(path)
        assert clip.audio is not None and np.abs(clip.audio).max() > 0.4
        assert len(clip.notes) == 1 and "is passed over: stream" in clip.notes[0]
    row = Utterance("a", "a.mkv")
    assert load_example(row, tmp_path).info.media == clip.notes


@pytest.mark.parametrize(("scale", "bits"), [(9e3, 16), (100.0, 8), (3e6, 24), (1.5e9, 32)])
def test_floats_on_the_scale_of_integers_are_refused(
    tmp_path: Path, scale: float, bits: int
) -> None:
    soundfile.write(tmp_path / "a.wav", 2 * scale * VOICE, RATE, "FLOAT")
    with pytest.raises(
        DataError, match=rf"peaks at .*{bits}-bit integers.*divide them by"
    ) as error:
        load_clip(tmp_path / "a.wav")
    assert error.value.reason == "scale"


@pytest.mark.parametrize("name", ["a.wav", "a.mka"])
def test_floats_beyond_full_scale_are_clipped_and_that_is_noted(tmp_path: Path, name: str) -> None:
    if name.endswith("wav"):
        soundfile.write(tmp_path / name, 5 * VOICE, RATE, "FLOAT")
    else:
        write_streams(tmp_path / name, Voice(5 * VOICE, "pcm_f32le"))
    clip = load_clip(tmp_path / name)
    np.testing.assert_allclose(clip.audio, np.clip(5 * VOICE, -1, 1), atol=1e-5)
    assert clip.notes == ("sound beyond full scale is clipped",)
    part = MediaPart(tmp_path / name)
    assert len([*stream_clip(part)]) == 1 and tuple(part.notes) == clip.notes


def test_a_constant_offset_is_removed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", VOICE * 0.5 + 0.2, RATE, "PCM_24")
    clip = load_clip(tmp_path / "a.wav")
    np.testing.assert_allclose(clip.audio, VOICE * 0.5, atol=1e-4)
    assert clip.notes == ("a constant offset of the sound is removed",)


def test_an_end_behind_the_end_of_the_file_is_noted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", VOICE, RATE)
    write_video(tmp_path / "a.mp4", grey_steps([80] * 25), np.arange(25) / 25)
    for name in ("a.wav", "a.mp4"):
        clip = load_clip(tmp_path / name, start=0.2, end=60.0)
        assert clip.seconds == pytest.approx(0.8)
        assert clip.notes == ("the file ends at 1.00 s, before the end that was given",)
        assert load_clip(tmp_path / name, end=1.05).notes == ()
        with pytest.raises(DataError, match=r"nothing to decode from 2.0 s on") as error:
            load_clip(tmp_path / name, start=2.0, end=60.0)
        assert error.value.reason == "too_short"


ORIENTATIONS = [(a, 0, 0, d) for a in (1, -1) for d in (1, -1)]
ORIENTATIONS += [(0, b, c, 0) for b in (1, -1) for c in (1, -1)]


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_pictures_are_shown_in_all_eight_orientations(
    tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    """The display matrix puts what is at (x, y) to (a x + c y, b x + d y)."""
    picture = np.full((48, 64, 3), 20, np.uint8)
    picture[:16, :16], picture[:16, 48:] = 220, 120  # bright at the top left, grey at the top right
    path = write_video(tmp_path / "a.mp4", [picture] * 3, np.arange(3) / 25)
    a, b, c, d = (n << 16 for n in matrix)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    video = load_clip(path).video
    assert video is not None
    a, b, c, d = matrix
    width, height = (64, 48) if a else (48, 64)
    assert video.shape[1:] == (height, width)
    for x, y, level in ((-24, -16, 205), (24, -16, 119), (-24, 16, 33), (24, 16, 33)):
        shown = video[
            1, round(b * x + d * y + height / 2 - 0.5), round(a * x + c * y + width / 2 - 0.5)
        ]
        assert shown == pytest.approx(level, abs=8)


@pytest.mark.parametrize(
    ("codec", "pixels", "options"),
    [("mjpeg", "yuvj420p", {}), ("libx264", "yuvj420p", {}), ("ffv1", "yuv422p10le", {}),
     ("ffv1", "bgr0", {}), ("ffv1", "gray", {}), ("libx265", "yuv420p10le", {}),
     ("libx264", "yuv420p", {}), ("mpeg4", "yuv420p", {}), ("libx264", "nv12", {})],
)  # fmt: skip
def test_grey_levels_are_those_of_limited_range(
    tmp_path: Path, codec: str, pixels: str, options: dict[str, str]
) -> None:
    shades = [0, 64, 128, 192, 255]
    film = Film(grey_steps([shade for shade in shades for _ in range(5)]), codec, pixels, options)
    video = load_clip(write_streams(tmp_path / "a.mkv", film)).video
    assert video is not None
    shown = video.mean((1, 2))[2::5]
    np.testing.assert_allclose(shown, [16 + 219 * shade / 255 for shade in shades], atol=3)


def test_hdr_is_shown_with_reference_white_as_white() -> None:
    """ITU-R BT.2408: reference white is 58 % of PQ's signal and 75 % of HLG's."""
    for transfer, white in ((16, 0.58), (18, 0.75)):
        levels = hdr_levels(transfer, True).astype(int)
        assert levels[0] == 16 and levels[1023] == 235 and (np.diff(levels) >= 0).all()
        assert levels[round(1023 * white)] == pytest.approx(235, abs=3)
        limited = hdr_levels(transfer, False)
        assert limited[64] == 16 and limited[round(64 + 876 * white)] == pytest.approx(235, abs=3)


def test_hdr_is_noted(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx265", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p10le"
        stream.codec_context.color_trc = 16
        for number in range(3):
            frame = av.VideoFrame(64, 64, "yuv420p10le")
            for plane, code in zip(frame.planes, (572, 512, 512), strict=True):  # 58 % of the range
                plane.update(np.full(plane.buffer_size // 2, code, "<u2").tobytes())
            frame.pts, frame.color_trc = number, 16
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    clip = load_clip(tmp_path / "a.mkv")
    assert clip.notes == ("PQ pictures are shown with 203 cd/m2 as white",)
    assert clip.video is not None and clip.video.mean() == pytest.approx(235, abs=4)
