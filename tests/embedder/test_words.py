"""Vectors of words: at given times, at any rate of frames, or found by another recogniser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.clips import grey_steps, tone, write_video
from helpers.encoders import write_encoder
from helpers.tiny_backbones import write_tiny

from mmembed.data.example import Example
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.manifest.utterance import Utterance
from mmembed.embedder import Embedder
from mmembed.embedder.recogniser import embed_words, frames_of, readable
from mmembed.embedder.windows import place_words
from mmembed.errors import UsageError

TIMES = [
    {"text": "Red,", "start": 0.1, "end": 0.3},
    {"text": "on", "start": 0.3, "end": 0.302},
    {"text": "blue", "start": 0.5, "end": 1.0},
]
GIVEN = {"text": "Red on blue!", "words": TIMES}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("words")
    made = {kind: write_tiny(folder / kind, kind) for kind in ("whisper", "bert", "vit")}
    write_video(folder / "a.mp4", grey_steps(range(30, 130, 4)), np.arange(25) / 25, tone(1.0))
    return {**made, "ours": write_encoder(folder / "ours"), "clip": folder / "a.mp4"}


# Frames whose values tell which they are.


@pytest.mark.parametrize(
    ("start", "end", "rate", "expected"),
    [
        (0.0, 0.2, 50, range(0, 10)),
        (0.08, 0.24, 25, range(2, 6)),  # what a recogniser at 25 Hz finds
        (0.08, 0.24, 50, range(4, 12)),
        (0.095, 0.105, 25, range(2, 3)),  # with the middle of frame 2
        (0.061, 0.079, 25, range(1, 2)),  # between two middles: in frame 1
        (0.4, 0.4, 25, range(9, 10)),  # at the very end
        (0.38, 0.9, 25, range(9, 10)),
        (0.42, 0.5, 25, range(9, 10)),  # after it
    ],
)
def test_a_word_has_the_frames_whose_middle_it_holds(
    start: float, end: float, rate: int, expected: range
) -> None:
    assert frames_of(TimedWord("a", start, end), rate, round(0.4 * rate)) == expected


def test_vectors_are_mean_and_deviation_of_these_frames() -> None:
    frames = torch.tensor([[0.0, 9.0], [1.0, 9.0], [2.0, 9.0], [3.0, 9.0], [40.0, 9.0]])
    words = (TimedWord("A-b", 0.0, 0.08), TimedWord("c", 0.08, 0.081), TimedWord("d", 0.1, 0.2))
    found = embed_words(words, frames, 50)
    assert [(word.text, word.start, word.end) for word in found] == [
        ("a b", 0.0, 0.08), ("c", 0.08, 0.081), ("d", 0.1, 0.2),
    ]  # fmt: skip
    vectors = torch.stack([word.vector for word in found])
    expected = [[1.5, 9.0, 1.25**0.5, 0.0], [40.0, 9.0, 0.0, 0.0], [40.0, 9.0, 0.0, 0.0]]
    torch.testing.assert_close(vectors, torch.tensor(expected), atol=4e-3, rtol=0)
    with pytest.raises(ValueError, match=r"'late' starts at 5 s, the clip ends at 0\.1 s"):
        embed_words([*words, TimedWord("late", 5, 6)], frames, 50)


def test_a_long_text_stands_where_it_is_spoken() -> None:
    words = (TimedWord("Red,", 0.0, 0.4), TimedWord("on", 0.4, 3.6), TimedWord("blue", 9.0, 99.0))
    assert place_words("red on blue", words, 250) == [("red", 5.0), ("on", 50.0), ("blue", 249.5)]
    assert place_words("red on", words, 20) == [("red", 5.0), ("on", 15.0)]  # of other words
    assert place_words("", words, 20) == []


# Clips as users describe them.


def spoken_at(embedding: Any, rate: int) -> None:
    """Its words are those of `TIMES`, of its own frames."""
    assert embedding.words_from == "given"
    assert [(w.text, w.start, w.end) for w in embedding.words] == [
        ("red", 0.1, 0.3), ("on", 0.3, 0.302), ("blue", 0.5, 1.0),
    ]  # fmt: skip
    middles = (np.arange(len(embedding.frames)) + 0.5) / rate
    for word in embedding.words:
        held = (word.start <= middles) & (middles < word.end)
        held = held if held.any() else middles == middles[int(word.start * rate)]
        mean, std = np.split(word.vector, 2)
        np.testing.assert_allclose(mean, embedding.frames[held].mean(0), atol=1e-5)
        np.testing.assert_allclose(std, embedding.frames[held].std(0), atol=4e-3)


def test_given_times_on_our_frames(folders: dict[str, Path]) -> None:
    embedder = Embedder.from_pretrained(folders["ours"])
    plain = embedder(folders["clip"], text=GIVEN["text"])
    found = embedder({"path": folders["clip"], **GIVEN})
    spoken_at(found, 25)
    assert plain.words_from == "ctc"
    np.testing.assert_array_equal(found.frames, plain.frames)  # short clips: times change no other


def test_given_times_on_frames_of_others(folders: dict[str, Path]) -> None:
    audio = {"audio": np.random.default_rng(0).uniform(-0.5, 0.5, 16_000), "sample_rate": 16_000}
    alone = Embedder.from_pretrained(folders["whisper"])({**audio, **GIVEN})
    assert alone.frames.shape == (50, 16)
    spoken_at(alone, 50)
    beside = Embedder.from_pretrained([f"audio={folders['whisper']}", f"text={folders['bert']}"])
    both = beside({**audio, **GIVEN})
    assert both.frames.shape == (25, 32) and both.words[0].vector.shape == both.pooled.shape
    spoken_at(both, 25)


def test_given_times_in_a_long_recording(folders: dict[str, Path]) -> None:
    noise = np.random.default_rng(0).normal(0, 2000, 301 * 16_000).astype(np.int16)
    words = (TimedWord("red", 0.5, 1.0), TimedWord("blue", 299.0, 300.5))
    row = Utterance("film", None, transcript="red blue", words=words)
    (found,) = Embedder.from_pretrained(folders["whisper"]).embed([Example(row, audio=noise)])
    last = found.words[1].vector
    np.testing.assert_allclose(last[:16], found.frames[14_950:15_025].mean(0), atol=1e-4)


def test_why_there_are_no_words(folders: dict[str, Path]) -> None:
    embedder = Embedder.from_pretrained(folders["whisper"])
    with pytest.raises(UsageError, match=r"holds no recogniser\.safetensors; name one.*give their"):
        _ = embedder(folders["clip"], text="red").words
    late = {"text": "red", "words": [{"text": "red", "start": 7, "end": 8}]}
    found = embedder({"path": folders["clip"], **late})
    assert found.words_from is None
    with pytest.raises(UsageError, match=r"'red' starts at 7\.0 s, the clip ends at 1"):
        _ = found.words
    texts = Embedder.from_pretrained(folders["bert"])
    with pytest.raises(UsageError, match="neither sound nor pictures"):
        _ = texts(GIVEN).words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("red on blue", "words must be a list of objects, found 'red on blue'"),
        (TIMES[:2], "words are not the transcript: found no more words where it has 'blue'"),
        (
            [{**TIMES[0], "end": float("nan")}, *TIMES[1:]],
            "word 1: end must be a number, found nan",
        ),
        ([*TIMES[:2], {**TIMES[2], "end": 1.4}], "'blue': ends at 1.4 s, its utterance at 1 s"),
    ],
)
def test_times_that_cannot_be_are_one_line(
    folders: dict[str, Path], words: Any, message: str
) -> None:
    clip = {"path": folders["clip"], "end": 1.0, "text": GIVEN["text"], "words": words, "key": "a"}
    with pytest.raises(UsageError) as raised:
        Embedder.from_pretrained(folders["whisper"])(clip)
    assert str(raised.value).startswith("a: ") and message in str(raised.value)


# Times by the recogniser of another folder.


def test_another_recogniser_finds_the_words(folders: dict[str, Path]) -> None:
    names = {"audio": folders["whisper"]}
    ours = Embedder.from_pretrained(folders["ours"])
    other = Embedder.from_pretrained(names, recogniser=folders["ours"])
    for clips in ({"path": folders["clip"], "text": "red on"}, folders["clip"]):
        (example,) = other.read([clips])
        (alone,) = ours.embed([example.only(("audio",))], transcribe=True)
        (found,) = other.embed([example], transcribe=True)
        assert (found.words_from, found.transcript) == ("ctc", alone.transcript)
        assert found.transcript_from == alone.transcript_from
        assert [word[:3] for word in found.words] == [word[:3] for word in alone.words]
        assert found.frames.shape[1] == 16 and found.words
        for word in found.words:
            held = slice(round(word.start * 50), round(word.end * 50))
            np.testing.assert_allclose(word.vector[:16], found.frames[held].mean(0), atol=1e-5)
    spoken_at(other({"path": folders["clip"], **GIVEN}), 50)  # given ones come first


def test_its_transcript_may_be_the_text_stream(folders: dict[str, Path]) -> None:
    names = {"audio": str(folders["whisper"]), "text": str(folders["bert"])}
    embedder = Embedder.from_pretrained(names, recogniser=folders["ours"])
    fed = embedder(folders["clip"], transcribe=True, streams="audio+text")
    assert fed.streams == ("audio", "text") and fed.transcript_from == "ctc"
    known = embedder(folders["clip"], text=fed.transcript)
    np.testing.assert_allclose(fed.layers, known.layers, atol=1e-5)
    assert [word[:3] for word in fed.words] == [word[:3] for word in known.words]


def test_it_takes_the_place_of_ones_own(folders: dict[str, Path], tmp_path: Path) -> None:
    silent = write_encoder(tmp_path / "silent", recogniser=False)
    with pytest.raises(UsageError, match=r"recogniser .*silent: holds no recogniser\.safetensors"):
        Embedder.from_pretrained(folders["ours"], recogniser=silent)
    with pytest.raises(UsageError, match="transcribe: the encoder folder holds no recogniser"):
        Embedder.from_pretrained(silent)(folders["clip"], transcribe=True)
    helped = Embedder.from_pretrained(silent, recogniser=folders["ours"])
    alone = Embedder.from_pretrained(folders["ours"])
    for one, other in zip(
        helped(folders["clip"], text="red on").words,
        alone(folders["clip"], text="red on").words,
        strict=True,
    ):
        assert one[:3] == other[:3]
        np.testing.assert_allclose(one.vector, other.vector, atol=1e-5)


def test_it_reads_no_crops_of_another_form(folders: dict[str, Path]) -> None:
    embedder = Embedder.from_pretrained({"video": folders["vit"]}, recogniser=folders["ours"])
    (example,) = embedder.read([{"path": folders["clip"], "text": "red"}])
    assert example.video is not None and example.video.shape[1:] == (32, 32, 3)
    assert not readable([example], embedder.listener.encoder)  # type: ignore[union-attr]
    (found,) = embedder.embed([example])
    with pytest.raises(UsageError, match="the recogniser reads none of these streams"):
        _ = found.words
    small = replace(example, video=np.zeros((25, 64, 64), np.uint8))
    assert embedder.embed([small])[0].words_from == "ctc"
