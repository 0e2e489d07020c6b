"""Recordings by windows: every frame once, moments exact, joined vectors near the whole's."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.clips import grey_steps, tone, write_video
from helpers.encoders import write_encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.embedder import Embedder
from mmembed.embedder.windows import (
    CONTEXT,
    CORE,
    Encoded,
    Moments,
    Window,
    WordMiddle,
    encode_windows,
    place_words,
    plan,
    tile,
)
from mmembed.nn.transformer import VARIANCE_FLOOR


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def embedder(folder: Path) -> Embedder:
    return Embedder.from_pretrained(folder)


def recording(heard: int, seen: int, text: str | None = None) -> Example:
    """So many frames of random sound and pictures."""
    draw = np.random.default_rng(0)
    audio = draw.normal(0, 3_000, 640 * heard).astype(np.int16) if heard else None
    video = draw.integers(0, 256, (seen, 64, 64), np.uint8) if seen else None
    return Example(Utterance("a", None), audio=audio, video=video, text=text)


def joined(embedder: Embedder, example: Example, windows: list[Window]) -> Encoded:
    words = place_words(example.text or "", (), windows[-1].core.stop)
    with torch.no_grad():
        return encode_windows(
            example,
            windows,
            words,
            embedder.encoder,
            lambda part: embedder.hidden([part]),
            embedder.subwords,
            embedder.recogniser,
        )


@given(st.integers(0, 40), st.integers(1, 400), st.integers(1, 60), st.integers(0, 30))
def test_cores_tile_the_frames(start: int, count: int, core: int, context: int) -> None:
    windows = tile(range(start, start + count), core, context)
    assert [frame for window in windows for frame in window.core] == [*range(start, start + count)]
    for window in windows:
        frames = range(window.span.start, window.span.stop)
        assert [*frames[window.kept]] == [*window.core] and 0 < len(window.core) <= core
        before, after = window.core.start - frames.start, frames.stop - window.core.stop
        assert before == min(context, window.core.start - start)
        assert after == min(context, start + count - window.core.stop)


@given(st.lists(st.integers(0, 9), min_size=1).filter(any), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_moments_of_parts_are_those_of_the_whole(sizes: list[int], seed: int) -> None:
    """Far from zero, where sums of squares would lose all digits in float32."""
    generator = torch.Generator().manual_seed(seed)
    parts = [100 + torch.randn(size, 3, generator=generator) for size in sizes]
    moments = Moments()
    for part in parts:
        moments.add(part)
    whole = torch.cat(parts).double().numpy()
    std = np.sqrt(whole.var(0) + VARIANCE_FLOOR) - VARIANCE_FLOOR**0.5
    expected = np.concatenate([whole.mean(0), std])
    np.testing.assert_allclose(moments.mean_and_std().numpy(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("heard", "seen"), [(50, 50), (50, 31), (50, 60), (50, 0), (0, 50)])
@pytest.mark.parametrize("text", [None, "red on blue"])
def test_one_window_is_the_whole(
    embedder: Embedder, heard: int, seen: int, text: str | None
) -> None:
    example = recording(heard, seen, text)
    windows = plan(example, core=100, context=20)
    assert len(windows) == 1
    found = joined(embedder, example, windows)
    with torch.no_grad():
        hidden = embedder.hidden([example])
    torch.testing.assert_close(found.frames, hidden.fused.values, rtol=0, atol=1e-5)
    whole = embedder.encoder.pool(hidden).layers[0]
    torch.testing.assert_close(found.layers, whole, rtol=0, atol=2e-5)


def test_joined_cores_are_near_the_whole(embedder: Embedder) -> None:
    """An encoder that has learned nothing attends evenly: windows differ by some per cent."""
    example = recording(400, 400, "red on blue at nine " * 5)
    whole = embedder.encode([example])
    found = joined(embedder, example, plan(example, core=100, context=50))
    assert found.log_probs is not None and found.log_probs.shape == (400, 18)
    assert found.frames.shape == (400, 32)

    def difference(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(((one - other).norm(dim=-1) / other.norm(dim=-1)).max())

    assert difference(found.frames, whole.frames.item(0)) < 0.15
    assert difference(found.layers[-1], whole.pooled[0]) < 0.03
    # The front ends see a second at most: across seams they are those of the whole.
    first = embedder.encoder.layer_names.index("video 0")
    for layer in (0, first):
        assert difference(found.layers[layer], whole.layers[0, layer]) < 1e-5


def test_pictures_that_go_on_without_sound_have_frames(embedder: Embedder) -> None:
    example = recording(130, 300)
    windows = plan(example, core=100, context=20)
    assert [window.core for window in windows] == [
        range(100), range(100, 130), range(130, 230), range(230, 300)
    ]  # fmt: skip
    found = joined(embedder, example, windows)
    assert len(found.frames) == 300
    silent = replace(example, audio=None, video=example.video[130:])  # type: ignore[index]
    alone = joined(embedder, silent, plan(silent, core=100, context=20))
    torch.testing.assert_close(found.frames[130:], alone.frames, rtol=0, atol=1e-5)


def test_a_core_behind_the_sound_has_no_frames_and_loses_none(embedder: Embedder) -> None:
    example = recording(100, 115)
    windows = plan(example, core=105, context=20)
    assert [window.core for window in windows] == [range(105), range(105, 115)]
    found = joined(embedder, example, windows)
    assert len(found.frames) == 100
    name = embedder.encoder.layer_names.index("video 0")
    whole = embedder.encode([example])
    torch.testing.assert_close(found.layers[name], whole.layers[0, name], rtol=0, atol=1e-4)


def test_windows_after_the_pictures_know_the_absent_vector(embedder: Embedder) -> None:
    example = recording(300, 90)
    found = joined(embedder, example, plan(example, core=100, context=20))
    alone = joined(embedder, heard := replace(example, video=None), plan(heard, 100, 20))
    assert len(found.frames) == 300
    torch.testing.assert_close(found.frames[200:], alone.frames[200:], rtol=0, atol=1e-5)
    assert not torch.allclose(found.frames[:100], alone.frames[:100], atol=1e-3)
    # The layers of the pictures are of the pictures alone, absent vectors are no steps of theirs.
    name = embedder.encoder.layer_names.index("video 0")
    whole = embedder.encode([example])
    torch.testing.assert_close(found.layers[name], whole.layers[0, name], rtol=0, atol=1e-4)


def test_each_window_has_the_words_of_its_span_and_counts_those_of_its_core(
    embedder: Embedder,
) -> None:
    assert place_words("red on blue", (), 30) == [("red", 5.0), ("on", 15.0), ("blue", 25.0)]
    assert place_words("", (), 30) == []
    example = recording(30, 0)
    seen: list[str | None] = []

    def encode(part: Example) -> object:
        seen.append(part.text)
        with torch.no_grad():
            return embedder.hidden([part])

    words = [
        WordMiddle("red", 2.0),
        WordMiddle("lay", 9.5),
        WordMiddle("on", 12.0),
        WordMiddle("at", 29.0),
    ]
    windows = tile(range(30), core=10, context=3)
    found = encode_windows(
        example,
        windows,
        words,
        embedder.encoder,
        encode,  # type: ignore[arg-type]
        embedder.subwords,
    )
    assert seen == ["red lay on", "lay on", "at"]
    # Of "text 0", the embedding alone, the whole has each token once.
    name = embedder.encoder.layer_names.index("text 0")
    whole = embedder.encode([replace(example, text="red lay on at")]).layers[0, name]
    pieces = embedder.tokens("red lay on at")
    once = [len(embedder.tokens(word)) for word in ("red", "lay", "on", "at")]
    assert sum(once) == len(pieces)
    torch.testing.assert_close(found.layers[name], whole, rtol=0, atol=1e-5)


@pytest.fixture
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is longer than 4 s is long, and encoded 2 s at a time."""
    monkeypatch.setattr("mmembed.embedder.clip.LONGEST", 4.0)
    monkeypatch.setattr("mmembed.data.example.LONGEST", 4.0)
    monkeypatch.setattr("mmembed.embedder.windows.plan", partial(plan, core=50, context=20))


@pytest.mark.usefixtures("short_windows")
def test_a_long_recording_is_one_embedding(embedder: Embedder) -> None:
    text = "red on blue at nine " * 3
    video = np.random.default_rng(0).integers(0, 256, (255, 20, 30), np.uint8)
    film = {"audio": tone(10.2, 8_000), "sample_rate": 8_000, "video": video, "text": text}
    clip = {"audio": tone(2), "sample_rate": 16_000}
    first, long, last = embedder([clip, film, clip])
    assert (long.seconds, long.streams) == (10.2, ("audio", "video", "text"))
    assert long.frames.shape == (len(long.times), 32) == (255, 32)
    np.testing.assert_allclose(long.times, (np.arange(255) + 0.5) / 25, rtol=1e-6)
    np.testing.assert_allclose(long.pooled[:32], long.frames.mean(0), atol=1e-4)
    np.testing.assert_allclose(long.pooled[32:], long.frames.std(0), atol=4e-3)  # variance floor
    np.testing.assert_array_equal(long.layers[-1], long.pooled)
    assert [word.text for word in long.words] == text.split()
    for one, other in itertools.pairwise(long.words):
        assert one.start < one.end <= other.start
    assert long.words[-1].start > 4  # times in the recording, not in a window
    # Neighbours do not matter, and those around it are what they always were.
    for part in ("pooled", "frames", "layers"):
        np.testing.assert_allclose(getattr(embedder(**film), part), getattr(long, part), 0, 1e-5)
        np.testing.assert_allclose(getattr(first, part), getattr(last, part), 0, 1e-5)


@pytest.mark.usefixtures("short_windows")
def test_words_of_a_long_recording_are_read_where_they_are_spoken(embedder: Embedder) -> None:
    text = "red on blue at"
    film = {"audio": tone(8), "sample_rate": 16_000, "text": text}

    def frames(middles: Sequence[float]) -> Any:
        words = zip(text.split(), middles, strict=True)
        times = [{"text": word, "start": at - 0.1, "end": at + 0.1} for word, at in words]
        return embedder({**film, "words": times}).frames

    evenly = embedder(film).frames
    np.testing.assert_allclose(frames([1, 3, 5, 7]), evenly, atol=1e-5)
    late = frames([7, 7.2, 7.4, 7.6])
    assert not np.allclose(late[:50], evenly[:50], atol=1e-3)  # no word is near them
    np.testing.assert_allclose(late[:50], embedder({**film, "text": None}).frames[:50], atol=1e-5)


@pytest.mark.usefixtures("short_windows")
def test_a_long_recording_is_transcribed(embedder: Embedder) -> None:
    film = {"audio": tone(10.2, 8_000), "sample_rate": 8_000}
    heard = embedder(**film, transcribe=True)
    fed = embedder(**film, transcribe=True, streams="audio+text")
    assert heard.transcript == fed.transcript and heard.transcript_from == "ctc"
    assert heard.streams == ("audio",) and fed.streams == ("audio", "text")
    assert " ".join(word.text for word in heard.words) == heard.transcript


@pytest.mark.long
def test_a_long_file_is_one_embedding(embedder: Embedder, tmp_path: Path) -> None:
    samples = tone(310.2, 8_000)
    soundfile.write(tmp_path / "film.flac", samples, 8_000)
    samples, _ = soundfile.read(tmp_path / "film.flac", dtype="float32")
    long = embedder(tmp_path / "film.flac", text="red on blue")
    assert (long.seconds, len(long.frames), len(long.words)) == (310.2, 7_755, 3)
    again = embedder(audio=samples, sample_rate=8_000, text="red on blue")
    for part in ("pooled", "frames", "layers"):
        np.testing.assert_allclose(getattr(again, part), getattr(long, part), 0, 1e-5)


def test_the_plan_of_a_recording() -> None:
    assert (CORE + 2 * CONTEXT) / 25 <= 300  # no window is longer than a clip may be
    windows = plan(recording(2 * CORE + 10, 0))
    assert [len(window.core) for window in windows] == [CORE, CORE, 10]


MEASURE = """
import resource, sys
from pathlib import Path
from typing import Any
from mmembed.data.example import Utterance
from mmembed.data.media.load import MediaSource, gather, load_parts
from mmembed.embedder import Embedder
from mmembed.embedder.windows import encode_windows, plan

embedder = Embedder.from_pretrained(sys.argv[1])
for name in sys.argv[2:]:
    example = gather(load_parts(MediaSource(Utterance("a", name), Path(), longest=1000.0)))
    windows = plan(example, core=250, context=50)
    hidden = lambda part: embedder.hidden([part])
    encoded = encode_windows(
        example, windows, [], embedder.encoder, hidden, embedder.subwords
    )
    print(len(encoded.frames), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_slides(path: Path, seconds: int) -> None:
    """A picture every two seconds."""
    times = np.arange(0, seconds, 2)
    write_video(path, grey_steps((20 + times % 200).tolist()), times)


@pytest.mark.slow
def test_memory_does_not_grow_with_length(folder: Path, tmp_path: Path) -> None:
    """24 MB of crops are decoded, kept and encoded in the memory of 6 MB."""
    for seconds in (60, 240):
        write_slides(tmp_path / f"{seconds}.mp4", seconds)
    command = [sys.executable, "-c", MEASURE, str(folder), "60.mp4", "240.mp4"]
    printed = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    (short, before), (long, after) = (
        map(int, line.split()) for line in printed.stdout.splitlines()
    )
    assert long > 3.8 * short
    assert after - before < 8 << 10  # kB; that is less than a third of the crops
