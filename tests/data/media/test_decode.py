"""Decoding is checked on files that the tests write, with content whose times are known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, burst, grey_steps, tone, write_video
from numpy.typing import NDArray

from mmembed.data.example import LONGEST
from mmembed.data.media.decode import load_clip
from mmembed.data.media.video import SIDES
from mmembed.errors import DataError


def reason(path: Path, **part: float | None) -> str:
    with pytest.raises(DataError) as error:
        load_clip(path, **part)  # type: ignore[arg-type]
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return error.value.reason


def levels(video: NDArray[np.uint8] | None) -> NDArray[np.float64]:
    """The grey level that was written, from the limited range of the luma plane."""
    assert video is not None
    return (video.reshape(len(video), -1).mean(1) - 16) * 255 / 219


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3"])
def test_sound_files_keep_time_pitch_and_level(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"tone.{kind}"
    soundfile.write(path, tone(1.0, 44_100), 44_100)
    clip = load_clip(path)
    assert clip.video is None and clip.audio is not None
    assert clip.seconds == pytest.approx(1.0, abs=0.001)
    middle = clip.audio[4_000:12_000]
    assert np.abs(np.fft.rfft(middle)).argmax() == 220  # 440 Hz at 2 Hz a bin
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_stereo_is_the_mean_of_the_channels_in_files_and_containers(tmp_path: Path) -> None:
    stereo = np.stack([tone(1.0, 8_000), 0.5 * tone(1.0, 8_000)])
    soundfile.write(tmp_path / "stereo.wav", stereo.T, 8_000)
    write_video(tmp_path / "stereo.mp4", sound=stereo, rate=8_000)
    for name in ("stereo.wav", "stereo.mp4"):
        audio = load_clip(tmp_path / name).audio
        assert audio is not None and audio.dtype == np.float32
        assert abs(len(audio) - RATE) <= 2048  # an AAC frame of 1024 samples at 8 kHz
        middle = audio[4_000:12_000]
        assert np.sqrt(np.mean(middle**2)) == pytest.approx(0.375 / np.sqrt(2), rel=0.03)


def test_sound_above_the_new_nyquist_frequency_is_removed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "high.wav", tone(1.0, 44_100, 11_000.0), 44_100)
    audio = load_clip(tmp_path / "high.wav").audio
    assert audio is not None and np.abs(audio[800:-800]).max() < 0.002


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_flash_and_burst_share_a_clock(tmp_path: Path, suffix: str) -> None:
    flash_at = 0.8
    pictures = grey_steps([230 if k == 20 else 30 for k in range(50)])
    path = write_video(
        tmp_path / f"clock.{suffix}",
        pictures,
        [k / 25 for k in range(50)],
        burst(2.0, flash_at, 44_100),
        rate=44_100,
    )
    clip = load_clip(path)
    assert clip.audio is not None and clip.video is not None
    assert abs(len(clip.video) - 50) <= 1  # time 0 may be that of the encoder's first silence
    flash = levels(clip.video).argmax() / 25
    onset = np.flatnonzero(np.abs(clip.audio) > 0.1)[0] / RATE
    assert flash == pytest.approx(flash_at, abs=0.041)
    assert onset == pytest.approx(flash, abs=0.04)


@pytest.mark.long
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_one_clock_for_ten_minutes(tmp_path: Path, suffix: str) -> None:
    """NTSC pictures and 44.1 kHz sound: neither rate divides anything."""
    seconds, rate = 600, 44_100
    times = np.arange(seconds * 30_000 // 1001) * 1001 / 30_000
    marks = times[[30, 8_700, 17_900]]
    shades = [
        230 if ((times[k] >= marks) & (times[k] < marks + 0.1)).any() else 30
        for k in range(len(times))
    ]
    sound = np.zeros(seconds * rate, np.float32)
    for mark in marks:
        sound[round(mark * rate) : round((mark + 0.1) * rate)] = tone(0.1, rate)
    path = tmp_path / f"long.{suffix}"
    write_video(path, grey_steps(shades, 32, 32), times, sound, rate=rate, fps=30)
    for mark in marks:
        clip = load_clip(path, start=mark - 1, end=mark + 1)
        assert clip.audio is not None and clip.video is not None
        flash = np.flatnonzero(levels(clip.video) > 130)[0] / 25
        onset = np.flatnonzero(np.abs(clip.audio) > 0.1)[0] / RATE
        print(f"{suffix}, {mark:.0f} s: picture {flash - 1:+.3f} s, sound {onset - 1:+.3f} s")
        assert flash == pytest.approx(1.0, abs=0.04) and onset == pytest.approx(flash, abs=0.04)


def test_late_sound_keeps_its_place(tmp_path: Path) -> None:
    pictures, times = grey_steps([90] * 50), [k / 25 for k in range(50)]
    path = write_video(tmp_path / "late.mkv", pictures, times, tone(1.0), sound_at=0.6)
    audio = load_clip(path).audio
    assert audio is not None
    assert np.flatnonzero(np.abs(audio) > 0.1)[0] / RATE == pytest.approx(0.6, abs=0.04)


def test_12_pictures_a_second_are_repeated(tmp_path: Path) -> None:
    shades = [20 * k + 10 for k in range(12)]
    path = write_video(
        tmp_path / "slow.mp4", grey_steps(shades), [k / 12 for k in range(12)], fps=12
    )
    video = load_clip(path).video
    shown = [shades[int((k + 0.5) / 25 * 12)] for k in range(25)]
    np.testing.assert_allclose(levels(video), shown, atol=6)


def test_variable_rate_shows_each_picture_for_its_time(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.4, 0.44, 1.0]
    path = write_video(tmp_path / "vfr.mp4", grey_steps([30, 80, 130, 180, 230]), times)
    shown = levels(load_clip(path).video)
    expected = [30] + [80] * 9 + [130] + [180] * 14 + [230]
    np.testing.assert_allclose(shown[: len(expected)], expected, atol=6)


def test_fast_video_is_thinned(tmp_path: Path) -> None:
    pictures = grey_steps([4 * k + 5 for k in range(60)])
    path = write_video(tmp_path / "fast.mp4", pictures, [k / 60 for k in range(60)], fps=60)
    video = load_clip(path).video
    assert video is not None and len(video) == 25
    assert (np.diff(levels(video)) > 0).all()


def test_luma_of_wide_pictures_matches_the_known_formula(tmp_path: Path) -> None:
    picture = np.zeros((50, 70, 3), np.uint8)  # 70 is no multiple of the padding of a row
    picture[:, :35] = (200, 100, 50)
    path = write_video(tmp_path / "colour.mp4", [picture] * 5, [k / 25 for k in range(5)])
    video = load_clip(path).video
    assert video is not None and video.shape == (5, 50, 70)
    # ITU-R BT.601: Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255
    assert video[2, :, 5:30].mean() == pytest.approx(16 + 106.7, abs=2)
    assert video[2, :, 42:].mean() == pytest.approx(16, abs=2)


def test_large_pictures_are_scaled_down(tmp_path: Path) -> None:
    path = write_video(tmp_path / "large.mp4", grey_steps([99], 540, 960), [0.0])
    video = load_clip(path).video
    assert video is not None and video.shape == (1, SIDES[0] * 540 // 960, SIDES[0])


def test_turned_pictures_are_set_upright(tmp_path: Path) -> None:
    picture = np.full((48, 64, 3), 20, np.uint8)
    picture[:16] = 220
    path = write_video(tmp_path / "phone.mp4", [picture] * 5, [k / 25 for k in range(5)])
    data = bytearray(path.read_bytes())
    # The matrix of the track header (ISO/IEC 14496-12, 8.3.2), 40 bytes into a version 0 box:
    # clockwise by 90 degrees, as phones that were held upright write it.
    at = data.index(b"tkhd") + 4 + 40
    turn = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in turn)
    path.write_bytes(data)
    video = load_clip(path).video
    assert video is not None and video.shape[1:] == (64, 48)
    assert video[2, :, 36:].mean() > 180 and video[2, :, :28].mean() < 60  # the top is now right


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_a_part_equals_that_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    shades = [(37 * k) % 200 + 20 for k in range(125)]
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 5 * RATE).astype("f4")
    path = write_video(
        tmp_path / f"long.{suffix}", grey_steps(shades), [k / 25 for k in range(125)], noise
    )
    whole, part = load_clip(path), load_clip(path, start=3.0, end=4.0)
    assert whole.audio is not None and part.audio is not None
    assert whole.video is not None and part.video is not None
    assert part.seconds == 1.0
    np.testing.assert_array_equal(part.video, whole.video[75:100])
    np.testing.assert_allclose(part.audio, whole.audio[48_000:64_000], atol=1e-4)


def test_a_part_of_a_sound_file(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 2 * RATE).astype("f4")
    soundfile.write(tmp_path / "noise.flac", noise, RATE)
    whole = load_clip(tmp_path / "noise.flac").audio
    part = load_clip(tmp_path / "noise.flac", start=0.5, end=1.25).audio
    assert whole is not None and part is not None
    np.testing.assert_array_equal(part, whole[8_000:20_000])


def test_clips_of_one_stream(tmp_path: Path) -> None:
    silent = load_clip(write_video(tmp_path / "silent.mp4", grey_steps([80] * 3), [0, 0.04, 0.08]))
    assert silent.audio is None and silent.video is not None and len(silent.video) == 3
    blind = load_clip(write_video(tmp_path / "blind.mp4", sound=tone(0.5)))
    assert blind.video is None and blind.audio is not None


def test_only_wanted_streams_are_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "both.mp4", grey_steps([80] * 3), [0, 0.04, 0.08], tone(0.5))
    assert load_clip(path, streams=("audio", "text")).video is None
    assert load_clip(path, streams=("video",)).audio is None


def test_very_short_clips(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", tone(0.05), RATE)
    assert load_clip(tmp_path / "short.wav").seconds == 0.05
    clip = load_clip(write_video(tmp_path / "short.mp4", grey_steps([80]), [0.0], tone(0.05)))
    assert clip.audio is not None and clip.video is not None and len(clip.video) >= 1


def test_decoding_is_repeatable(tmp_path: Path) -> None:
    pictures = grey_steps(range(10, 60))
    path = write_video(tmp_path / "again.mp4", pictures, [k / 25 for k in range(50)], tone(2.0))
    first, second = load_clip(path), load_clip(path)
    assert first.audio is not None and first.video is not None and len(first.video) == 50
    np.testing.assert_array_equal(first.audio, second.audio)
    np.testing.assert_array_equal(first.video, second.video)


PLAYLISTS = {
    "hls": b"#EXTM3U\n#EXTINF:1,\nother.mp4\n",
    "hls behind an ID3 tag": b"ID3\x03\0\0\0\0\0\0#EXTM3U\n#EXTINF:1,\nother.mp4\n",
    "concat": b"ffconcat version 1.0\nfile other.mp4\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_open_nothing_else(tmp_path: Path, name: str) -> None:
    write_video(tmp_path / "other.mp4", grey_steps([80] * 5), [k / 25 for k in range(5)])
    path = tmp_path / "clip.mp4"
    path.write_bytes(PLAYLISTS[name])
    assert reason(path) in ("not_media", "damaged")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"Good evening, this is a text and no film at all. " * 9, "not_media"),
        (bytes(1000), "not_media"),
        (b"\0\0\0\x18ftypisom" + bytes(1000), "damaged"),
        (b"RIFF\x10\0\0\0WAVEnonsense", "damaged"),
        (b"ID3nonsense", "damaged"),
    ],
)
def test_files_that_hold_no_media(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    assert reason(path) == code


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert reason(tmp_path / "nowhere.mp4") == "missing"
    assert reason(tmp_path) == "not_media"


Writer = Callable[[Path], object]
WRITERS: dict[str, Writer] = {
    "wav": lambda path: soundfile.write(path, tone(2.0), RATE),
    "flac": lambda path: soundfile.write(path, tone(2.0), RATE),
    "ogg": lambda path: soundfile.write(path, tone(2.0), RATE),
    "mp3": lambda path: soundfile.write(path, tone(2.0), RATE),
    "mp4": lambda path: write_video(path, grey_steps([80] * 50), np.arange(50) / 25, tone(2.0)),
    "faststart.mp4": lambda path: write_video(
        path, grey_steps([80] * 50), np.arange(50) / 25, tone(2.0),
        options={"movflags": "faststart"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS)
def test_files_cut_short(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"whole.{kind}"
    WRITERS[kind](path)
    cut = tmp_path / f"cut.{kind}"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    assert load_clip(path).seconds == pytest.approx(2.0, abs=0.1)
    assert reason(cut) == "damaged"


def test_too_little_and_too_much(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    assert reason(tmp_path / "none.wav") == "too_short"
    soundfile.write(tmp_path / "long.wav", np.zeros(8_000 * 301, np.int16), 8_000)
    assert reason(tmp_path / "long.wav") == "too_long"
    assert reason(tmp_path / "long.wav", end=LONGEST + 1) == "too_long"
    assert load_clip(tmp_path / "long.wav", start=290.0).seconds == 11.0
    assert reason(tmp_path / "long.wav", start=302.0) == "too_short"
    assert reason(tmp_path / "long.wav", start=2.0, end=1.0) == "too_short"


def test_streams_that_are_not_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "sound.wav", tone(1.0), RATE)
    with pytest.raises(DataError, match="holds no video") as error:
        load_clip(tmp_path / "sound.wav", streams=("video",))
    assert error.value.reason == "no_streams"


def test_impossible_sample_rates_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", tone(1.0, 44_099), 44_099)
    assert load_clip(tmp_path / "odd.wav").seconds == pytest.approx(1.0, abs=0.001)
    soundfile.write(tmp_path / "fast.wav", tone(0.001, 2_000_000_000 // 1000), 2_000_000_000)
    assert reason(tmp_path / "fast.wav") == "damaged"
