"""Clips to vectors as users call it: files and arrays, alone and together, streams missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.clips import burst, grey_steps, tone, write_video
from helpers.encoders import write_encoder
from helpers.prepared import example

from mmembed.batch import Packed
from mmembed.data.dataset import Examples
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.prepare import prepare_shards
from mmembed.embedder import Embedder, Embedding, Recogniser
from mmembed.embedder.clip import to_pictures
from mmembed.errors import DataError, UsageError
from mmembed.features.text import Vocabulary
from mmembed.streams import stream_subsets, subset_name

TEXT = "Red, on blue!"
A_DAY = np.broadcast_to(np.float32(0), 86_401_000)  # and a second


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder.from_pretrained(write_encoder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    grey = grey_steps(range(30, 130, 4))
    write_video(folder / "both.mp4", grey, np.arange(25) / 25, tone(1.0))
    write_video(folder / "mute.mp4", grey[:14], np.arange(14) / 25)
    soundfile.write(folder / "sound.wav", burst(1.3, 0.4), 16_000)
    return folder


def same(one: Embedding, other: Embedding, tolerance: float) -> None:
    for name in ("pooled", "frames", "layers", "times"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), 0, tolerance)


def test_seven_subsets_alone_and_together(embedder: Embedder, media: Path) -> None:
    files = {("audio", "video"): "both.mp4", ("video",): "mute.mp4", ("audio",): "sound.wav"}
    clips: list[Any] = []
    for subset in stream_subsets():
        perceived = tuple(stream for stream in subset if stream != "text")
        clip = {"path": media / files[perceived]} if perceived else {}
        clips.append({**clip, "text": TEXT} if "text" in subset else clip["path"])
    together = embedder(clips)
    assert [embedding.streams for embedding in together] == stream_subsets()
    for clip, embedding in zip(clips, together, strict=True):
        alone = embedder(**clip) if clip == {"text": TEXT} else embedder(clip)
        same(alone, embedding, 1e-5)
        assert embedding.pooled.shape == (64,) and embedding.layers.shape == (10, 64)
        assert embedding.frames.shape == (len(embedding.times), 32)
        assert len(embedding.layer_names) == 10
    lasts = [embedding.seconds for embedding in together]
    assert lasts == [1.3, 0.56, None, 1.0, 1.3, 0.56, 1.0] or lasts[3] > 1  # AAC pads
    np.testing.assert_allclose(together[1].times, (np.arange(14) + 0.5) / 25, atol=1e-6)
    assert np.isnan(together[2].times).all()


def random_clip(seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    return {
        "audio": draw.uniform(-1, 1, 7_000),
        "sample_rate": 16_000,
        "video": draw.integers(0, 256, (11, 40, 50), np.uint8),
        "text": " ".join(draw.choice(["red", "blue", "nine"], 3)),
    }


@pytest.mark.parametrize("subset", stream_subsets()[:-1])
def test_content_of_absent_streams_changes_no_bit(
    embedder: Embedder, subset: tuple[str, ...]
) -> None:
    clip, other = random_clip(0), random_clip(1)
    held = {*subset, *(["sample_rate"] if "audio" in subset else [])}
    only = {name: value for name, value in clip.items() if name in held}
    streams = subset_name(subset)
    plain = embedder(**only)
    same(embedder(**clip, streams=streams), plain, 0)
    same(embedder(**{**other, **only}, streams=streams), plain, 0)
    assert plain.streams == subset


def test_arrays_give_what_their_file_gives(embedder: Embedder, media: Path) -> None:
    samples, rate = soundfile.read(media / "sound.wav", dtype="int16")
    from_file = embedder(media / "sound.wav")
    same(embedder(audio=samples, sample_rate=rate), from_file, 0)
    floats = torch.from_numpy(samples / 32768.0)
    same(embedder(audio=floats, sample_rate=rate), from_file, 0)


def test_a_clip_in_memory_in_a_file_and_in_a_shard_has_the_same_vectors(
    embedder: Embedder, media: Path, tmp_path: Path
) -> None:
    """Bit for bit, though memory and file are finer than the 16 bits of the shard."""
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 30_000)
    soundfile.write(media / "fine.wav", sound, 22_050, "DOUBLE")
    rows = [Utterance("fine", "fine.wav"), Utterance("both", "both.mp4", transcript=TEXT)]
    prepare_shards(rows, media, tmp_path, workers=1)
    fine, both = embedder.embed(list(Examples([tmp_path])))
    same(fine, embedder(media / "fine.wav"), 0)
    same(fine, embedder(audio=sound, sample_rate=22_050), 0)
    same(both, embedder(media / "both.mp4", text=TEXT), 0)


def test_sound_beyond_full_scale_is_clipped_and_that_is_noted(embedder: Embedder) -> None:
    loud = 3 * burst(1.3, 0.4)
    found = embedder(audio=loud, sample_rate=16_000)
    same(found, embedder(audio=np.clip(loud, -1, 1), sample_rate=16_000), 0)
    for audio, rate in ((loud, 16_000), (np.tile(loud, 15), 1_000)):  # the second is long
        (example,) = embedder.read([{"audio": audio, "sample_rate": rate}])
        assert example.info.media == ("sound beyond full scale is clipped",)
        assert example.audio is not None and example.audio.max() == 2**15 - 1


def test_tensors_of_any_kind_are_arrays(embedder: Embedder, media: Path) -> None:
    samples, rate = soundfile.read(media / "sound.wav", dtype="int16")
    given = torch.from_numpy(samples / 32768.0)
    padded = torch.zeros(len(given), 2, dtype=torch.float64)
    padded[:, 0] = given
    plain = embedder(audio=given.numpy(), sample_rate=rate)
    for audio in (given.requires_grad_(), padded[:, 0], given.detach().flip(0).numpy()[::-1]):
        same(embedder(audio=audio, sample_rate=rate), plain, 0)
    coarse = given.detach().to(torch.bfloat16)
    same(
        embedder(audio=coarse, sample_rate=rate),
        embedder(audio=coarse.float(), sample_rate=rate),
        0,
    )
    video = torch.zeros(5, 40, 50, dtype=torch.uint8)
    same(embedder(video=video), embedder(video=video.numpy()), 0)


def test_frames_are_the_luma_of_a_file() -> None:
    even = np.stack(grey_steps([0, 128, 255], 7, 9))  # odd sizes
    for frames in (even, even[..., 0]):
        luma = to_pictures(frames, "clip")
        assert luma.shape == (3, 7, 9) and np.ptp(luma, axis=(1, 2)).tolist() == [0, 0, 0]
        assert luma[:, 0, 0].tolist() == [16, 126, 235]  # video levels of BT.601
    assert to_pictures(np.zeros((2, 600, 960), np.uint8), "clip").shape == (2, 300, 480)


def test_part_of_a_file(embedder: Embedder, media: Path) -> None:
    part = embedder({"path": media / "sound.wav", "start": 0.4, "end": 0.8, "key": "middle"})
    assert (part.key, part.seconds, len(part.frames)) == ("middle", 0.4, 10)


def test_words_of_a_known_transcript(embedder: Embedder, media: Path) -> None:
    embedding = embedder(media / "both.mp4", text=TEXT)
    assert (embedding.transcript, embedding.transcript_from) == ("red on blue", "given")
    assert [word.text for word in embedding.words] == ["red", "on", "blue"]
    end = 0.0
    for _, start, stop, vector in embedding.words:
        assert end <= start < stop
        end = stop
        frames = embedding.frames[round(start * 25) : round(stop * 25)]
        np.testing.assert_allclose(vector[:32], frames.mean(0), atol=1e-5)
        np.testing.assert_allclose(vector[32:], frames.std(0), atol=4e-3)  # variance floor
    unused = embedder(media / "both.mp4", text=TEXT, streams="audio+video")
    assert unused.streams == ("audio", "video") and len(unused.words) == 3
    same(unused, embedder(media / "both.mp4"), 0)


def test_the_clips_own_transcript(embedder: Embedder, media: Path) -> None:
    plain = embedder(media / "both.mp4")
    heard = embedder(media / "both.mp4", transcribe=True)
    assert heard.transcript_from == "ctc" and heard.streams == ("audio", "video")
    same(heard, plain, 0)
    assert heard.transcript and " ".join(w.text for w in heard.words) == heard.transcript
    fed = embedder(media / "both.mp4", transcribe=True, streams="audio+video+text")
    assert fed.streams == ("audio", "video", "text") and fed.transcript_from == "ctc"
    same(fed, embedder(media / "both.mp4", text=heard.transcript), 0)
    known = embedder(media / "both.mp4", text=TEXT, transcribe=True)
    assert known.transcript_from == "given"
    with pytest.raises(
        UsageError, match=r"both\.mp4: no times of words: they are not known.*transcribe=True"
    ):
        _ = plain.words


def test_words_that_cannot_be_placed(embedder: Embedder, media: Path) -> None:
    with pytest.raises(UsageError, match="neither sound nor pictures"):
        _ = embedder(text="red").words
    with pytest.raises(UsageError, match="tokens do not fit in 33 frames"):
        _ = embedder(media / "sound.wav", text="red on blue " * 9).words


def test_letters_make_words() -> None:
    alphabet = Vocabulary.train(["ab c"], 10, "char")
    recogniser = Recogniser(torch.nn.Linear(4, len(alphabet)), alphabet)
    space, a, b, _, c = alphabet.encode("ab c")
    emitted = [space, 0, a, a, 0, b, 0, space, c, 0]
    log_probs = torch.full((10, len(alphabet)), -9.0)
    log_probs[range(10), emitted] = 0.0
    assert recogniser.transcribe(log_probs) == "ab c"
    found = recogniser.find_words(log_probs.numpy(), "ab c")
    assert found == [("ab", range(2, 6)), ("c", range(8, 9))]
    words = recogniser.time_words(log_probs, "ab c")
    assert words == (TimedWord("ab", 2 / 25, 6 / 25), TimedWord("c", 8 / 25, 9 / 25))


def test_tensors_on_request(embedder: Embedder) -> None:
    arrays, tensors = embedder(text=TEXT), embedder(text=TEXT, tensors=True)
    assert arrays.pooled.dtype == np.float32 and isinstance(tensors.frames, torch.Tensor)
    np.testing.assert_array_equal(arrays.layers, tensors.layers.numpy())
    assert embedder([]) == []


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        ({}, "clip: has no audio or video or text"),
        ({"text": "?!"}, "clip: has no audio or video or text"),
        ({"clips": "lost.mp4"}, "lost.mp4: no such file"),
        ({"clips": {"file": "a.mp4"}}, "a clip has no 'file'; it has path, start"),
        ({"clips": np.zeros(9)}, "a path or a dict, found ndarray; audio goes to audio="),
        ({"clips": "a.mp4", "audio": np.zeros(9)}, "a.mp4: give a path or arrays, not both"),
        ({"clips": ["a.mp4"], "text": "a"}, "text: of several clips, each has its own"),
        ({"audio": np.zeros(9)}, "sample_rate is None"),
        ({"audio": np.zeros((2, 9)), "sample_rate": 16_000}, r"mono, \(samples,\), found \(2, 9\)"),
        ({"audio": np.full(9, np.nan), "sample_rate": 16_000}, "not finite"),
        ({"audio": np.zeros(9, np.uint8), "sample_rate": 16_000}, "found uint8"),
        ({"audio": np.full(9, 9e3), "sample_rate": 16_000}, "peaks at 9000 .*divide them by 32768"),
        ({"audio": [[0.0], [0.0, 1.0]], "sample_rate": 16_000}, "audio is no array"),
        (
            {"clips": "a.wav", "max_seconds": 10.0},
            "max_seconds 10: give a number from 300 to 86400",
        ),
        ({"audio": A_DAY, "sample_rate": 1000}, "lasts 86401 s, at most 86400 s"),
        ({"video": np.zeros((3, 8, 8))}, r"uint8.*found \(3, 8, 8\) of float64"),
        ({"text": "a", "streams": "sound"}, "streams 'sound': one or more of audio, video, text"),
        ({"text": "a", "streams": "audio"}, "clip: has no audio"),
    ],
)
def test_bad_calls_are_one_line(embedder: Embedder, clip: dict[str, Any], words: str) -> None:
    with pytest.raises((UsageError, DataError), match=words) as error:
        embedder(**clip)
    assert "\n" not in str(error.value)


def test_its_decoding_processes_stay_for_the_next_call(media: Path, embedder: Embedder) -> None:
    def pids() -> set[int]:
        return {child._process.pid for child in embedder.decoder._children}

    embedder.close()
    one = embedder(media / "sound.wav")
    (first,) = pids()
    for _ in range(3):
        same(embedder(media / "sound.wav"), one, 0)
    assert pids() == {first}
    embedder.workers = 3
    del embedder.decoder
    for again in embedder([media / "sound.wav"] * 6):
        same(again, one, 1e-5)
    assert len(pids()) == 3
    embedder.close()
    assert not pids()
    same(embedder(media / "sound.wav"), one, 0)


def test_tensors_for_a_gpu_lie_in_pinned_memory(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a CPU can tell: those that it is given are asked to be pinned, and no others."""
    pinned: list[Packed] = []
    monkeypatch.setattr(Packed, "pin_memory", lambda self: pinned.append(self) or self)
    clips = [example(0), example(1)]
    plain = embedder.pack(clips)
    assert plain is not None and not pinned
    monkeypatch.setattr(embedder, "device", torch.device("cuda"))
    inputs = embedder.pack(clips)
    assert inputs is not None and pinned == [*inputs.streams.values()]
    for stream, steps in plain.streams.items():
        assert torch.equal(steps.values, inputs.streams[stream].values)
