"""Kinds of files that people have: all that is in them is decoded, whatever their headers say."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, Film, Voice, grey_steps, tone, write_streams, write_video
from numpy.typing import NDArray

from mmembed.data.media.decode import DecodedMedia, load_clip
from mmembed.data.media.open import MediaPart
from mmembed.data.media.streaming import stream_clip
from mmembed.errors import DataError

SECONDS = 1.6
SHADES = [30 + 5 * k for k in range(40)]
FILM = Film(grey_steps(SHADES))
VOICE = Voice(tone(SECONDS, 44_100), rate=44_100)
LEVEL = 0.5 / np.sqrt(2)


def level(samples: NDArray[np.float32] | None) -> float:
    """Root mean square of the middle."""
    assert samples is not None
    middle = samples[len(samples) // 4 : -len(samples) // 4]
    return float(np.sqrt(np.mean(middle**2)))


def check_whole(clip: DecodedMedia, *, seconds: float = SECONDS, within: float = 0.07) -> None:
    assert clip.audio is not None and clip.seconds == pytest.approx(seconds, abs=within)
    assert level(clip.audio) == pytest.approx(LEVEL, rel=0.07)  # LAME: 5 % softer
    quarters = np.array_split(clip.audio[: round(seconds * RATE)], 8)
    assert all(np.abs(part).max() > 0.4 for part in quarters)


def in_blocks(path: Path) -> tuple[NDArray[np.float32], int, tuple[str, ...]]:
    """Samples, pictures and notes of `stream_clip`."""
    part, samples, pictures = MediaPart(path), [np.zeros(0, np.float32)], 0
    for block in stream_clip(part):
        if block.stream == "audio":
            samples.append(block.values)
        else:
            pictures += len(block.values)
    return np.concatenate(samples), pictures, tuple(part.notes)


@pytest.mark.parametrize(
    ("name", "film", "voice"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "mpeg4", "alac"),
        ("a.mkv", "libx265", "libopus"),
        ("a.wmv", "wmv2", "wmav2"),
        ("a.ts", "mpeg2video", "mp2"),
        ("a.avi", "mjpeg", "libmp3lame"),
    ],
)
@pytest.mark.parametrize("sound_first", [True, False])
def test_each_frame_goes_to_its_track_in_any_order_of_streams(
    tmp_path: Path, name: str, film: str, voice: str, sound_first: bool
) -> None:
    pixels = "yuvj420p" if film == "mjpeg" else "yuv420p"
    rate = 48_000 if voice == "libopus" else 44_100
    bit_rate = 128_000 if voice == "wmav2" else None
    streams = [
        Film(grey_steps(SHADES), film, pixels),
        Voice(tone(SECONDS, rate), voice, rate, bit_rate=bit_rate),
    ]
    path = write_streams(tmp_path / name, *(reversed(streams) if sound_first else streams))
    clip = load_clip(path)
    check_whole(clip, within=0.11)
    assert clip.video is not None and abs(len(clip.video) - len(SHADES)) <= 1
    shown = (clip.video.mean((1, 2)) - 16) * 255 / 219
    assert np.abs(shown[-8:] - SHADES[-8:]).max() < 12  # those that the decoder held back, too
    samples, pictures, _ = in_blocks(path)
    assert pictures == len(clip.video) and abs(len(samples) / rate - len(clip.audio) / RATE) < 1e-3


@pytest.mark.parametrize("variable", [True, False])
def test_mp3_without_a_header_is_read_to_its_end(tmp_path: Path, variable: bool) -> None:
    """By its first frames libsndfile takes the quiet beginning for the bit rate of the whole."""
    samples = np.concatenate([1e-3 * tone(0.8, 44_100), tone(SECONDS, 44_100)])
    voice = Voice(samples, "libmp3lame", 44_100, bit_rate=None if variable else 128_000)
    path = write_streams(tmp_path / "a.mp3", voice, options={"write_xing": "0"})
    clip = load_clip(path)
    assert clip.audio is not None and clip.seconds == pytest.approx(0.8 + SECONDS, abs=0.07)
    check_whole(DecodedMedia(clip.audio[-round(SECONDS * RATE) - 600 : -600], None, SECONDS))
    assert len(in_blocks(path)[0]) == pytest.approx(44_100 * clip.seconds, abs=4)


def as_wav(samples: NDArray[np.float32], path: Path) -> bytearray:
    soundfile.write(path, samples, 44_100, "PCM_16")
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("riff", "data"),
    [(8, 0), (1, 0), (-7, 0), (-2, 44), (None, 0), (0, None), (0xFFFFFFFF, 0xFFFFFFFF),
     (None, None), (0, 0x7FFFF000), (0, 0x80000000), (0, -30_000), (99, 8)],
)  # fmt: skip
def test_wav_with_wrong_lengths_is_read_to_its_end(
    tmp_path: Path, riff: int | None, data: int | None
) -> None:
    """None: never filled in. Small numbers are added to what is right."""
    path = tmp_path / "a.wav"
    whole = as_wav(tone(SECONDS, 44_100), path)
    at = whole.index(b"data") + 4
    for place, right, given in ((4, len(whole) - 8, riff), (at, len(whole) - at - 4, data)):
        wrong = 0 if given is None else given if abs(given) > 1 << 20 else right + given
        whole[place : place + 4] = struct.pack("<I", wrong)
    path.write_bytes(whole)
    check_whole(load_clip(path), within=1e-3)
    np.testing.assert_array_equal(load_clip(path, data=bytes(whole)).audio, load_clip(path).audio)
    assert len(in_blocks(path)[0]) == round(SECONDS * 44_100)


@pytest.mark.parametrize("kind", ["wav", "rf64", "aiff", "au", "caf", "w64"])
def test_uncompressed_sound_cut_short_is_damaged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(SECONDS, 44_100), 44_100, "PCM_16", format=kind.upper())
    check_whole(load_clip(path), within=1e-3)
    data = path.read_bytes()
    for size in (len(data) // 2, len(data) - 5000):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match="bytes of samples are there") as error:
            load_clip(path)
        assert error.value.reason == "damaged"


@pytest.mark.parametrize("kind", ["rf64", "aiff", "au", "caf", "w64"])
@pytest.mark.parametrize("unknown", [b"\0", b"\xff"])
def test_unfinished_headers_of_other_kinds(tmp_path: Path, kind: str, unknown: bytes) -> None:
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(SECONDS, 44_100), 44_100, "PCM_16", format=kind.upper())
    data = bytearray(path.read_bytes())
    place, width = {
        "rf64": (data.find(b"ds64") + 16, 8),
        "aiff": (data.find(b"SSND") + 4, 4),
        "au": (8, 4),
        "caf": (data.find(b"data") + 4, 8),
        "w64": (data.find(b"data\xf3\xac") + 16, 8),
    }[kind]
    data[place : place + width] = unknown * width
    path.write_bytes(data)
    check_whole(load_clip(path), within=1e-3)


def test_chunks_and_tags_behind_the_samples_are_no_samples(tmp_path: Path) -> None:
    whole = bytes(as_wav(tone(SECONDS, 44_100), tmp_path / "a.wav"))
    for behind in (b"LIST" + struct.pack("<I", 9000) + bytes(9000), b"TAG" + bytes(125)):
        (tmp_path / "b.wav").write_bytes(whole + behind)
        assert load_clip(tmp_path / "b.wav").seconds == SECONDS
    empty = as_wav(np.zeros(0, np.float32), tmp_path / "c.wav")
    (tmp_path / "c.wav").write_bytes(empty + b"LIST" + struct.pack("<I", 600) + b"x" * 600)
    with pytest.raises(DataError, match="no sample"):
        load_clip(tmp_path / "c.wav")


def join(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("kind", ["ogg", "opus", "flac", "mp3", "aac", "ts"])
def test_joined_files_are_read_to_the_end_of_the_last(tmp_path: Path, kind: str) -> None:
    codec = {"opus": "libopus", "mp3": "libmp3lame", "flac": "flac"}.get(kind, "aac")
    rate = 48_000 if kind == "opus" else 44_100
    voice = Voice(tone(SECONDS, rate), codec, rate)
    one = tmp_path / f"one.{kind}"
    if kind == "ogg":
        soundfile.write(one, voice.samples, rate)
    else:
        write_streams(one, *([FILM] if kind == "ts" else []), voice)
    path = join(tmp_path / f"three.{kind}", one, one, one)
    clip = load_clip(path)
    check_whole(clip, seconds=3 * SECONDS, within=0.3)
    if kind == "ts":
        assert clip.video is not None and len(clip.video) == pytest.approx(120, abs=4)
    if kind in ("ogg", "ts"):
        assert any("recordings joined in one file" in note for note in clip.notes)
    assert len(in_blocks(path)[0]) == pytest.approx(rate * len(clip.audio) / RATE, abs=4)


def test_joined_files_of_different_rates(tmp_path: Path) -> None:
    for name, rate in (("a.mp3", 44_100), ("b.mp3", 22_050)):
        write_streams(tmp_path / name, Voice(tone(SECONDS, rate), "libmp3lame", rate))
    clip = load_clip(join(tmp_path / "c.mp3", tmp_path / "a.mp3", tmp_path / "b.mp3"))
    check_whole(clip, seconds=2 * SECONDS, within=0.3)
    assert clip.notes == ("the sample rate changes from 44100 to 22050 Hz",)
    assert clip.audio is not None
    second = clip.audio[-RATE - 2000 : -2000]
    assert np.abs(np.fft.rfft(second)).argmax() == 440


@pytest.mark.parametrize("rate", [8_000, 11_025, 12_000, 22_050, 44_100])
@pytest.mark.parametrize(
    "before", [b"", bytes(500), bytes(5000), b"ID3\4\0\0\0\0\7\x76" + bytes(1014)]
)
def test_mp3_of_all_rates_behind_zeros_and_tags(tmp_path: Path, rate: int, before: bytes) -> None:
    path = tmp_path / "a.mp3"
    voice = Voice(tone(SECONDS, rate), "libmp3lame", rate)
    write_streams(path, voice, options={"id3v2_version": "0"})
    path.write_bytes(before + path.read_bytes())
    check_whole(load_clip(path), within=0.2)


def test_adts_behind_a_tag(tmp_path: Path) -> None:
    path = write_streams(tmp_path / "a.aac", VOICE, options={"write_id3v2": "1"}, kind="adts")
    assert path.read_bytes().startswith(b"ID3")
    check_whole(load_clip(path))


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [("a.aiff", "pcm_s16be", None), ("a.au", "pcm_s16be", None), ("a.caf", "pcm_s24be", None),
     ("a.w64", "pcm_s16le", None), ("a.wma", "wmav2", "asf"), ("a.ac3", "ac3", None),
     ("a.mka", "flac", "matroska"), ("a.voc", "pcm_u8", None), ("a.wv", "wavpack", None),
     ("a.tta", "tta", None), ("a.nut", "pcm_f32le", None)],
)  # fmt: skip
def test_other_kinds_of_sound(tmp_path: Path, name: str, codec: str, kind: str | None) -> None:
    voice = Voice(VOICE.samples, codec, 44_100, bit_rate=128_000)
    check_whole(load_clip(write_streams(tmp_path / name, voice, kind=kind)), within=0.11)


def test_blu_ray_streams(tmp_path: Path) -> None:
    voice = Voice(VOICE.samples, "ac3", 44_100)
    path = tmp_path / "a.m2ts"
    write_streams(path, FILM, voice, options={"mpegts_m2ts_mode": "1"}, kind="mpegts")
    clip = load_clip(path)
    check_whole(clip)
    assert clip.video is not None and abs(len(clip.video) - 40) <= 1


def test_times_that_jump_ahead_in_a_broadcast_begin_anew(tmp_path: Path) -> None:
    write_streams(tmp_path / "a.ts", FILM, VOICE)
    write_streams(tmp_path / "b.ts", FILM, VOICE, options={"output_ts_offset": "5000"})
    path = join(tmp_path / "c.ts", tmp_path / "a.ts", tmp_path / "b.ts")
    clip = load_clip(path)
    check_whole(clip, seconds=2 * SECONDS, within=0.2)
    assert clip.video is not None and len(clip.video) == pytest.approx(80, abs=4)


def test_a_long_wait_between_pictures_is_no_new_beginning(tmp_path: Path) -> None:
    times = [0.0, 0.04, 20.0, 20.04]
    path = write_video(tmp_path / "slides.ts", grey_steps([40, 60, 80, 90]), times)
    video = load_clip(path).video
    assert video is not None and len(video) == pytest.approx(502, abs=1)
