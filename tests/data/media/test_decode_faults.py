"""Damage, disguises and odd timing: a usable clip or a reason, never another exception."""

from __future__ import annotations

import os
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, burst, grey_steps, tone, write_video

from mmembed.data.media import decode as media
from mmembed.data.media.decode import load_clip
from mmembed.errors import DataError


def outcome(path: Path) -> str:
    """The reason why a file is refused, or "ok" for a clip that can be used."""
    try:
        clip = load_clip(path)
    except DataError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{path}: ")
        return error.reason
    assert clip.audio is None or (len(clip.audio) and np.isfinite(clip.audio).all())
    assert clip.video is None or len(clip.video)
    assert clip.audio is not None or clip.video is not None
    return "ok"


def make(path: Path) -> bytes:
    if path.suffix in (".wav", ".flac", ".ogg"):
        soundfile.write(path, tone(1.0), RATE)
    else:
        write_video(path, grey_steps(range(30, 55)), np.arange(25) / 25, tone(1.0))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts", "avi", "wav", "flac", "ogg"])
def test_changed_bytes_and_cuts(tmp_path: Path, kind: str) -> None:
    whole = make(tmp_path / f"whole.{kind}")
    path, rng = tmp_path / f"clip.{kind}", np.random.default_rng(0)
    seen = set()
    for trial in range(40):
        data = bytearray(whole)
        first, last = (0, 1000) if trial % 2 else (len(data) - 2000, len(data))  # mostly headers
        for place in rng.integers(first, last, size=1 + trial):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(len(data)) if trial % 5 == 0 else None])
        seen.add(outcome(path))
    allowed = {"ok", "not_media", "no_streams", "too_short", "too_long", "too_large", "damaged"}
    assert "damaged" in seen and seen <= allowed


def forget_codecs(path: Path, *names: bytes) -> None:
    for name in names:
        path.write_bytes(path.read_bytes().replace(name, b"zzzz"))


@pytest.mark.parametrize(("kind", "names"), [("video", (b"avc1",)), ("audio", (b"mp4a", b"esds"))])
def test_a_stream_of_an_unknown_codec_is_passed_over(
    tmp_path: Path, kind: str, names: tuple[bytes, ...]
) -> None:
    path = write_video(tmp_path / "odd.mp4", grey_steps([80] * 5), np.arange(5) / 25, tone(0.2))
    forget_codecs(path, *names)
    clip = load_clip(path)
    assert (clip.audio is None) == (kind == "audio") and (clip.video is None) == (kind == "video")
    number = 0 if kind == "video" else 1
    assert clip.notes == (f"{kind} stream {number} is passed over: no decoder knows it",)
    with pytest.raises(DataError, match=f"no decoder for its {kind}"):
        load_clip(path, streams=(kind,))


def test_unknown_codecs_alone_are_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mp4", grey_steps([80] * 5), np.arange(5) / 25, tone(0.2))
    forget_codecs(path, b"avc1", b"mp4a", b"esds")
    with pytest.raises(DataError, match="no decoder for its audio and video") as error:
        load_clip(path)
    assert error.value.reason == "damaged"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_pictures_are_no_media(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(cv2.imencode(suffix, np.full((64, 64, 3), 99, np.uint8))[1].tobytes())
    assert outcome(path) == "not_media"


def test_subtitles_alone_are_neither_sound_nor_pictures(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", grey_steps([80] * 5), np.arange(5) / 25)
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nGood evening.\n")
    with (
        av.open(str(tmp_path / "words.srt")) as words,
        av.open(str(tmp_path / "clip.mkv"), "w") as out,
    ):
        stream = out.add_stream_from_template(words.streams.subtitles[0])
        for packet in words.demux():
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    assert outcome(tmp_path / "clip.mkv") == "no_streams"


def test_names_do_not_matter(tmp_path: Path) -> None:
    sound, film = tmp_path / "sound.mp4", tmp_path / "film.wav"
    sound.write_bytes(make(tmp_path / "whole.flac"))
    film.write_bytes(make(tmp_path / "whole.mp4"))
    assert load_clip(sound).video is None and load_clip(film).video is not None


def test_names_with_a_meaning_for_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("12:30.mp4", "concat:a|b.mp4", "%03d.mp4", os.fsdecode(b"caf\xe9.mp4"), "-i.mp4"):
        make(tmp_path / "film.mp4")
        os.replace("film.mp4", name)
        assert outcome(Path(name)) == "ok"


@pytest.mark.parametrize("name", ["n" * 300 + ".mp4", "nul\0.mp4", "link.mp4"])
def test_files_that_cannot_be_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / "link.mp4").symlink_to("link.mp4")
    assert outcome(tmp_path / name) == "unreadable"


def test_length_limit_of_containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("mp4", "ts"):
        make(tmp_path / f"long.{kind}")
    monkeypatch.setattr(media, "LONGEST", 0.5)
    for kind in ("mp4", "ts"):
        assert outcome(tmp_path / f"long.{kind}") == "too_long"
        assert load_clip(tmp_path / f"long.{kind}", start=0.2, end=0.6).seconds == 0.4


def test_pixel_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "large.mp4")
    monkeypatch.setattr(media, "MOST_PIXELS", 1000)
    assert outcome(tmp_path / "large.mp4") == "too_large"


@pytest.mark.parametrize("rate", [12.0, 25.0, 30_000 / 1001, 60.0])
def test_flash_and_burst_at_any_picture_rate(tmp_path: Path, rate: float) -> None:
    times = np.arange(round(2 * rate)) / rate
    shades = [230 if 1.0 <= time < 1.2 else 30 for time in times]
    path = write_video(tmp_path / "clock.mp4", grey_steps(shades), times, burst(2.0, 1.0))
    clip = load_clip(path)
    assert clip.audio is not None and clip.video is not None
    flash = int((clip.video.mean((1, 2)) > 100).argmax()) / 25
    onset = int((np.abs(clip.audio) > 0.1).argmax()) / RATE
    first = times[times >= 1.0][0]  # slow pictures show the flash late, as the viewer saw it
    assert flash == pytest.approx(first, abs=0.04) and onset == pytest.approx(1.0, abs=0.005)


def test_sound_and_pictures_that_start_late_keep_their_places(tmp_path: Path) -> None:
    shades, times = [230 if t == 25 else 30 for t in range(50)], np.arange(50) / 25
    late_sound = write_video(
        tmp_path / "a.mp4", grey_steps(shades), times, burst(1.5, 0.5), sound_at=0.5
    )
    late_film = write_video(
        tmp_path / "b.mp4", grey_steps(shades[13:]), times[13:], burst(2.0, 1.0)
    )
    for path in (late_sound, late_film):
        clip = load_clip(path)
        assert clip.audio is not None and clip.video is not None and len(clip.video) == 50
        assert int(clip.video.mean((1, 2)).argmax()) == 25
        assert int((np.abs(clip.audio) > 0.1).argmax()) / RATE == pytest.approx(1.0, abs=0.005)
    held = load_clip(late_film).video
    assert held is not None and (held[:13] == held[13]).all()  # the first picture, until its time


def test_the_last_pictures_and_samples_are_there(tmp_path: Path) -> None:
    shades = [30 + 8 * k for k in range(25)]  # B-pictures: a decoder holds several back
    path = write_video(tmp_path / "end.mp4", grey_steps(shades), np.arange(25) / 25, tone(1.0))
    clip = load_clip(path)
    assert clip.audio is not None and clip.video is not None and len(clip.video) == 25
    np.testing.assert_allclose((clip.video.mean((1, 2)) - 16) * 255 / 219, shades, atol=3)
    assert np.abs(clip.audio[RATE - 400 : RATE]).max() > 0.4 and len(clip.audio) - RATE < 1024
