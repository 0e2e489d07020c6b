"""The talkers corpus: real files, made by the real synthesiser and encoder."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from mmembed.data.corpora.talkers import generate
from mmembed.data.corpora.talkers.acting import POSES, PROSODIES, VALENCE, label, pose_of
from mmembed.data.corpora.talkers.clip import FRAME_RATE, SOUND_RATE, render, write_script
from mmembed.data.corpora.talkers.face import Face, Pose, Shot, blink, make_shot
from mmembed.data.corpora.talkers.grammar import FEELINGS, Expression, make_sentence
from mmembed.data.corpora.talkers.voice import synthesise
from mmembed.data.manifest.jsonl import read_manifest
from mmembed.errors import UsageError
from mmembed.features.video import face_crops

USUAL = {"words_per_minute": 170, "pitch": 50, "pitch_range": 50}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("talkers")
    generate(out, speakers=2, clips_per_speaker=2, workers=2)
    return out


def decode(file: object) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    with av.open(file) as container:
        pictures = np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])
        container.seek(0)
        sound = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    return pictures, sound


def scripts(speakers: int = 30, clips: int = 36) -> list:
    return [
        write_script(0, speaker, index) for speaker in range(speakers) for index in range(clips)
    ]


def test_labels_by_hand() -> None:
    labels = label(Expression("happy", 1.0), Expression("sad", 0.5), Expression("happy", 0.75))
    assert labels.sentiment == pytest.approx(1.2 * (1.0 - 0.8 * 0.5 + 0.75))
    assert labels.emotions == (pytest.approx(1.5 * 1.75), 0.75, 0, 0, 0, 0)
    everything = label(*[Expression("anger", 1.0)] * 3)
    assert everything.sentiment == -3 and everything.emotions == (0, 0, 3, 0, 0, 0)
    nothing = label(*[Expression("neutral", 0.0)] * 3)
    assert nothing.sentiment == 0 and nothing.emotions == (0,) * 6


def test_every_feeling_is_acted() -> None:
    assert set(VALENCE) == set(PROSODIES) == set(POSES) == set(FEELINGS)
    assert pose_of(Expression("happy", 0.5)).corners == pytest.approx(0.45)


def test_no_part_suffices_and_all_three_do() -> None:
    clips = scripts()
    sentiment = np.array([clip.utterance.labels.sentiment for clip in clips])
    parts = np.array(
        [[VALENCE[p.feeling] * p.intensity for p in (c.words, c.voice, c.face)] for c in clips]
    )
    alone = [np.corrcoef(part, sentiment)[0, 1] for part in parts.T]
    assert all(0.7 < correlation < 0.85 for correlation in alone)
    assert np.corrcoef(parts.sum(1), sentiment)[0, 1] > 0.99
    pairs = np.corrcoef(parts.T)[np.triu_indices(3, 1)]
    assert pairs.min() > 0.3 and pairs.max() < 0.55  # they agree in half of the clips
    assert ((parts[:, 0] > 0.5) & (parts[:, 1] < -0.3)).mean() > 0.03  # they contradict


def test_grammar() -> None:
    rng = random.Random(0)
    drawn = [make_sentence(rng.choice(FEELINGS), rng.random() < 0.5, rng) for _ in range(60_000)]
    sentences = {sentence for sentence, _ in drawn}
    words = {word for sentence in sentences for word in sentence.split()}
    assert len(sentences) > 10_000
    assert 120 <= len(words) <= 180
    assert {len(sentence.split()) for sentence in sentences} <= set(range(3, 10))
    assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", sentence) for sentence in sentences)
    meanings = dict(drawn)
    assert all(meanings[sentence] == expression for sentence, expression in drawn)


def test_denials_turn_the_meaning() -> None:
    rng = random.Random(1)
    sad = [make_sentence("sad", False, rng)[0] for _ in range(500)]
    assert any(re.search(r"\b(not|never) (good|happy|glad|wonderful)\b", text) for text in sad)
    assert not any(re.search(r"\b(not|never) (sad|gloomy)\b", text) for text in sad)


def test_splits() -> None:
    clips = scripts()
    speakers = {
        split: {c.speaker for c in clips if c.utterance.split == split} for split in ("dev", "test")
    }
    train = [c for c in clips if c.utterance.split == "train"]
    heldout = [c for c in clips if c.utterance.split == "heldout"]
    assert len(speakers["dev"]) == 4 and len(speakers["test"]) == 6
    assert {c.speaker for c in train} == {c.speaker for c in heldout}
    assert len({c.speaker for c in train}) == 20
    assert len(heldout) == 20 * 5
    assert not {c.speaker for c in train} & (speakers["dev"] | speakers["test"])
    others = {c.sentence for c in clips if c.utterance.split != "train"}
    assert not {c.sentence for c in train} & others


def test_a_clip_is_a_function_of_seed_speaker_and_index() -> None:
    assert write_script(3, 4, 5) == write_script(3, 4, 5)
    assert len({write_script(0, 1, index).sentence for index in range(20)}) > 15
    assert [write_script(0, s, 0) for s in range(9)] != [write_script(1, s, 0) for s in range(9)]


def test_speech_does_not_depend_on_what_was_said_before() -> None:
    text = "my brother was not angry"
    first = synthesise(text, "en-us+f2", **USUAL)
    synthesise("something else", "en-us+whisper", words_per_minute=90, pitch=99, pitch_range=99)
    again = synthesise(text, "en-us+f2", **USUAL)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.phonemes == again.phonemes


def test_speech_follows_its_settings() -> None:
    usual = synthesise("the garden was lovely", "en-us+m3", **USUAL)
    slow = synthesise("the garden was lovely", "en-us+m3", **{**USUAL, "words_per_minute": 100})
    assert len(slow.samples) > 1.4 * len(usual.samples)
    starts = [seconds for seconds, _ in usual.phonemes]
    assert starts == sorted(starts) and 0 <= starts[-1] <= len(usual.samples) / usual.rate
    assert "l" in [name for _, name in usual.phonemes]
    with pytest.raises(ValueError, match="no voice 'nobody'"):
        synthesise("hello", "nobody", **USUAL)


def test_blinks() -> None:
    assert blink(0.1, 3.0, 0.0) == 0.0 and blink(1.0, 3.0, 0.0) == 1.0
    assert blink(3.05, 3.0, 0.0) == pytest.approx(0.5)


def test_faces_are_found_and_show_what_they_express() -> None:
    faces = [Face(random.Random(s), feminine=s % 2 == 0) for s in range(8)]
    for face in faces:
        pictures = {feeling: face.draw(pose) for feeling, pose in POSES.items()}
        greys = [cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) for picture in pictures.values()]
        assert face_crops(np.stack(greys))[1] == "haar"
        assert len({picture.tobytes() for picture in pictures.values()}) == len(POSES)
    mouth = (slice(90, 125), slice(55, 105))
    closed, opened = (faces[0].draw(Pose(open=x))[mouth].astype(float) for x in (0.0, 1.0))
    assert (np.abs(opened - closed).max(2) > 40).mean() > 0.03


def test_shots_differ_and_keep_the_face() -> None:
    drawn = Face(random.Random(0), feminine=True).draw(Pose())
    plain = Shot(zoom=1, stretch=1, roll=0, right=0, down=0, exposure=1, side=0, contrast=1)
    np.testing.assert_array_equal(plain.take(drawn), drawn)
    moved = replace(plain, right=5.0, exposure=0.5).take(drawn)
    np.testing.assert_array_equal(moved[:, 5:], np.rint(drawn[:, :-5] / 2))
    shots = [make_shot(random.Random(seed)).take(drawn) for seed in range(12)]
    greys = [cv2.cvtColor(shot, cv2.COLOR_BGR2GRAY) for shot in shots]
    assert all(face_crops(grey[None])[1] == "haar" for grey in greys)
    assert np.std([grey.mean() for grey in greys]) > 10


def test_mouth_follows_the_sound() -> None:
    correlations = []
    for speaker in (0, 1):
        clip = write_script(0, speaker, 0)
        pictures, sound = decode(io.BytesIO(render(clip)))
        frames = len(pictures)
        loud = (sound[: frames * 882].reshape(frames, -1) ** 2).mean(1) ** 0.5
        mouth = pictures[:, 92:122, 60:100].astype(float)
        rest = mouth[loud < 0.01 * loud.max()].mean(0)
        change = np.abs(mouth - rest).mean((1, 2))
        correlations.append(np.corrcoef(change, loud)[0, 1])
    assert min(correlations) > 0.4, correlations


@pytest.mark.slow
def test_files(corpus: Path) -> None:
    rows = read_manifest(corpus / "manifest.jsonl")
    assert [row.key for row in rows] == [f"talkers-s0{s}-00{i}" for s in (0, 1) for i in (0, 1)]
    for row in rows:
        assert row.media is not None
        with av.open(corpus / row.media) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            assert (video.codec.name, audio.codec.name) == ("h264", "aac")
            assert video.average_rate == FRAME_RATE and audio.rate == SOUND_RATE
            assert "creation_time" not in container.metadata
            lengths = [float(stream.duration * stream.time_base) for stream in (video, audio)]
        pictures, sound = decode(corpus / row.media)
        assert pictures.shape[1:] == (160, 160)
        assert lengths == pytest.approx([len(pictures) / FRAME_RATE] * 2, abs=0.001)
        assert 0 <= len(sound) - lengths[1] * SOUND_RATE < 1024  # AAC fills its last packet
        assert 0.9 < len(pictures) / FRAME_RATE < 5.0
        assert np.abs(sound).max() > 0.05


def test_same_bytes_whatever_the_workers(corpus: Path, tmp_path: Path) -> None:
    generate(tmp_path, speakers=2, clips_per_speaker=2, workers=1)
    names = sorted(path.name for path in (corpus / "clips").iterdir())
    assert len(names) == 4
    for name in names:
        assert (tmp_path / "clips" / name).read_bytes() == (corpus / "clips" / name).read_bytes()
    manifest = "manifest.jsonl"
    assert (tmp_path / manifest).read_bytes() == (corpus / manifest).read_bytes()


def test_goes_on_where_it_was_stopped(corpus: Path) -> None:
    clips = sorted((corpus / "clips").iterdir())
    kept, lost = clips[0].stat().st_mtime_ns, clips[1].read_bytes()
    clips[1].unlink()
    seen: list[tuple[int, int]] = []
    generate(
        corpus, speakers=2, clips_per_speaker=2, workers=1,
        on_progress=lambda done, of: seen.append((done, of)),
    )  # fmt: skip
    assert seen == [(3, 4), (4, 4)]
    assert clips[0].stat().st_mtime_ns == kept and clips[1].read_bytes() == lost


def test_refuses_another_corpus_and_impossible_numbers(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed 0 instead of 1"):
        generate(corpus, seed=1, speakers=2, clips_per_speaker=2)
    with pytest.raises(UsageError, match="1 to 180"):
        generate(tmp_path, speakers=181)
    with pytest.raises(UsageError, match="at least 1"):
        generate(tmp_path, clips_per_speaker=0)
