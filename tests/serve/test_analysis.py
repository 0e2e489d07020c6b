"""A clip as the page shows it: words, curves and neighbours against what makes each of them."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.encoders import write_encoder
from helpers.loading import load_example
from helpers.prepared import example
from helpers.served import CLIPS, HOSTILE, open_served, write_regressors, write_served

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import EMOTIONS, Utterance
from mmembed.embedder import Embedder
from mmembed.embeddings.search import EmbeddingSearch
from mmembed.errors import CorruptError, DataError, Stopped, UsageError
from mmembed.serve.analysis import Analyser, windows
from mmembed.studies import trained_on
from mmembed.studies.emotion_predictor import EmotionPredictor
from mmembed.studies.trained_on import Learned, TrainedOn, TrainingData
from mmembed.studies.training_distance import FOLDER, OUTSIDE, TrainingDistances


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_served(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def analyser(made: Path) -> Analyser:
    return open_served(made)


def test_everything_of_a_clip(made: Path, analyser: Analyser) -> None:
    shown = analyser(made / "clip.mp4", "mine.mp4", "Red, on blue!")
    assert shown.name == "mine.mp4"
    assert shown.seconds == pytest.approx(1.2, abs=0.1)  # AAC pads
    assert [(stream.name, stream.present) for stream in shown.streams] == [
        ("audio", True), ("video", True), ("text", True),
    ]  # fmt: skip
    assert [stream.weight for stream in shown.streams] == pytest.approx([0.4, 0.4, 0.2])
    assert (shown.transcript, shown.transcript_from) == ("red on blue", "given")
    embedding = analyser.embedder(made / "clip.mp4", text="red on blue")
    assert [tuple(asdict(word).values()) for word in shown.words] == [
        (word.text, word.start, word.end) for word in embedding.words
    ]
    assert shown.emotion is None  # no regressor of all three
    assert "no regressor for audio+video+text" in shown.notes["emotion"]
    assert shown.curves is not None and shown.curves.streams == "audio+video"
    assert shown.curves.times[0] == 0 and shown.curves.times[-1] == shown.seconds
    assert len(shown.neighbours) == CLIPS
    assert "neighbours" not in shown.notes
    assert shown.notes["streams"].startswith("no face was found")
    assert json.loads(json.dumps(asdict(shown), allow_nan=False))["name"] == "mine.mp4"


def test_what_the_clip_itself_says(made: Path, analyser: Analyser) -> None:
    shown = analyser(made / "clip.mp4", "mine.mp4")
    assert shown.transcript_from == "ctc"
    assert " ".join(word.text for word in shown.words) == shown.transcript
    assert [stream.present for stream in shown.streams] == [True, True, False]
    assert shown.emotion is not None and shown.emotion.streams == "audio+video"
    assert list(shown.emotion.emotions) == list(EMOTIONS)


def test_it_says_what_is_known_and_what_lies_outside(
    made: Path, analyser: Analyser, tmp_path: Path
) -> None:
    plain = analyser(made / "clip.mp4", "mine.mp4")
    assert plain.trained_on == {"regressor": "not recorded", "encoder": "not recorded"}
    assert plain.emotion is not None and plain.emotion.outside is None
    assert plain.notes["emotion"].endswith("is not recorded")
    run = shutil.copytree(made / "emotion", tmp_path / "emotion")
    data = TrainingData("mine", 30, 2, ("synthetic",))
    trained_on.write(run, TrainedOn((data,), analyser.embedder.sha256))
    own = torch.from_numpy(analyser.embedder(made / "clip.mp4").layers)
    for far, outside in ((0.0, False), (50.0, True)):
        noise = torch.randn(30, *own.shape, generator=torch.Generator().manual_seed(0))
        vectors = own + noise + far
        mean, scale = vectors.mean(0), vectors.std(0, unbiased=False)
        known = TrainingDistances.of(vectors, mean, scale, ["a", "b"] * 15)
        assert known is not None
        known.write(run / FOLDER / "audio+video.safetensors")
        predictor = EmotionPredictor.from_folder(analyser.embedder, run)
        shown = Analyser(analyser.embedder, predictor)(made / "clip.mp4", "mine.mp4")
        assert shown.trained_on["regressor"] == "mine (synthetic), 30 clips, 2 speakers"
        assert shown.emotion is not None and shown.emotion.outside is outside
        assert shown.emotion.farther_than == (1.0 if outside else 0.0)
        assert (shown.notes.get("emotion") == OUTSIDE) is outside
        assert shown.emotion.sentiment == plain.emotion.sentiment


def test_what_was_not_learned_is_not_predicted(
    made: Path, analyser: Analyser, tmp_path: Path
) -> None:
    """Sentiment on the scale of CH-SIMS and one emotion were labelled; then no sentiment at all."""
    run = shutil.copytree(made / "emotion", tmp_path / "emotion")
    for targets, limit in ((("sentiment", "anger"), 1.0), (("fear",), 3.0)):
        learned = Learned("audio+video", targets)
        trained_on.write(run, TrainedOn((), "", (learned,), limit))
        predictor = EmotionPredictor.from_folder(analyser.embedder, run)
        shown = Analyser(analyser.embedder, predictor)(made / "clip.mp4", "mine.mp4")
        assert shown.emotion is not None and shown.curves is not None
        emotions = [name for name in targets if name != "sentiment"]
        assert list(shown.emotion.emotions) == list(shown.curves.emotions) == emotions
        assert (shown.emotion.sentiment is not None) is ("sentiment" in targets)
        assert (len(shown.curves.sentiment) > 0) is ("sentiment" in targets)
        assert shown.curves.limit == limit
        part = load_example(Utterance("clip", "clip.mp4"), made)
        labels, _ = predictor.with_distance(part)
        assert [math.isnan(x) for x in labels.intensities] == [e not in targets for e in EMOTIONS]
        assert labels.sentiment is None or abs(labels.sentiment) <= limit


def test_a_point_of_a_curve_is_the_answer_for_its_window(made: Path, analyser: Analyser) -> None:
    curves = analyser(made / "clip.mp4", "mine.mp4").curves
    assert curves is not None and analyser.predictor is not None
    # At the start a second lies ahead, in the middle all of the clip is nearer than that.
    for place, span in (0, {"start": 0.0, "end": 1.0}), (len(curves.times) // 2, {}):
        part = load_example(Utterance("clip", "clip.mp4"), made)
        if span:
            assert part.audio is not None and part.video is not None
            part = Example(part.utterance, part.audio[:16_000], part.video[:25])
        answer, _ = analyser.predictor.with_distance(part)
        assert curves.sentiment[place] == pytest.approx(answer.sentiment, abs=1e-5)
        assert [curves.emotions[name][place] for name in EMOTIONS] == pytest.approx(
            answer.emotions, abs=1e-5
        )


def test_neighbours_are_those_of_the_search(made: Path, analyser: Analyser) -> None:
    near = [one.found for one in analyser(made / "clip.mp4", "mine.mp4", "red").neighbours]
    vector = analyser.embedder(made / "clip.mp4").pooled  # the folder has no words
    hits = EmbeddingSearch.open(made / "near" / "audio+video").nearest(vector)
    assert [one.key for one in near] == [f"clip-{hit.row}" for hit in hits]
    assert [one.cosine for one in near] == pytest.approx([hit.cosine for hit in hits], abs=1e-6)
    assert [one.rank for one in near] == [1, 2, 3, 4, 5]
    assert {(one.speaker, one.text) for one in near} == {(HOSTILE, HOSTILE)}
    pictures = [one.picture for one in analyser(made / "clip.mp4", "mine.mp4").neighbours]
    assert all(picture and picture.startswith("data:image/jpeg;base64,") for picture in pictures)


def test_a_clip_without_pictures(made: Path, analyser: Analyser) -> None:
    shown = analyser(made / "sound.m4a", "s.m4a")
    assert [stream.present for stream in shown.streams] == [True, False, False]
    assert shown.curves is not None and shown.curves.streams == "audio"
    assert shown.notes["neighbours"].startswith("the query has only audio of audio+video;")
    assert "streams" not in shown.notes


def test_notes_say_what_was_not_given(made: Path, tmp_path: Path) -> None:
    embedder = Embedder.from_pretrained(write_encoder(tmp_path / "e", recogniser=False))
    shown = Analyser(embedder)(made / "clip.mp4", "mine.mp4")
    assert (shown.words, shown.transcript, shown.emotion, shown.curves, shown.neighbours) == (
        (), None, None, None, (),
    )  # fmt: skip
    assert "holds no recogniser.safetensors" in shown.notes["words"]
    helped = Embedder.from_pretrained(tmp_path / "e", recogniser=write_encoder(tmp_path / "r"))
    told = Analyser(helped)(made / "clip.mp4", "mine.mp4")
    assert told.transcript_from == "ctc" and "words" not in told.notes
    assert " ".join(word.text for word in told.words) == told.transcript
    assert "without --regressor" in shown.notes["curves"]
    assert "without --regressor" in shown.notes["emotion"]
    assert "without --embeddings" in shown.notes["neighbours"]
    words = Analyser(embedder, search=EmbeddingSearch.open(made / "near" / "text"))
    assert "nothing in common" in words(made / "clip.mp4", "mine.mp4").notes["neighbours"]


def test_a_bad_clip_is_one_line_with_its_name(made: Path, analyser: Analyser) -> None:
    with pytest.raises(DataError, match=r"^mine: not a media file") as caught:
        analyser(made / "bad.mp4", "mine")
    assert caught.value.reason == "not_media"
    with pytest.raises(DataError, match=r"^mine: no such file"):
        analyser(made / "gone.mp4", "mine")


def test_nothing_goes_on_once_it_is_stopped(made: Path) -> None:
    analyser = open_served(made)
    analyser.stop()
    with pytest.raises(Stopped):
        analyser(made / "clip.mp4", "mine.mp4")


def test_parts_that_do_not_fit_are_refused(made: Path, analyser: Analyser, tmp_path: Path) -> None:
    write_regressors(tmp_path / "other", ["audio"], layers=3)
    with pytest.raises(UsageError, match="on 3 layers of 64, the encoder has 10 of 64"):
        EmotionPredictor.from_folder(analyser.embedder, tmp_path / "other")
    with pytest.raises(CorruptError, match=r"holds no run of emotion, .*run\.json is missing"):
        EmotionPredictor.from_folder(analyser.embedder, made / "near")
    search = EmbeddingSearch.open(made / "near" / "text")
    analyser.embedder.sha256, right = "0" * 64, analyser.embedder.sha256
    try:
        with pytest.raises(UsageError, match=r"near/text: another encoder"):
            Analyser(analyser.embedder, search=search)
    finally:
        analyser.embedder.sha256 = right


def lasting(audio: int, video: int | None) -> Example:
    """So many hundredths of a second, the number of each in its samples, and so many pictures."""
    samples = np.arange(audio, dtype=np.int16).repeat(160)
    crops = None if video is None else np.zeros((video, 64, 64), np.uint8)
    return Example(Utterance("long", None), samples, crops)


def test_windows_by_hand() -> None:
    found = windows(lasting(400, 100), 4.0)
    assert [time for time, _ in found] == [n / 4 for n in range(17)]
    for place, (first, last, pictures) in {
        0: (0, 99, 25), 8: (100, 299, 50), 10: (150, 349, 50), 16: (300, 399, 25),
    }.items():  # fmt: skip
        part = found[place][1]
        assert part.audio is not None and part.video is not None
        assert (part.audio[0], part.audio[-1]) == (first, last)
        assert len(part.video) == pictures


def test_windows_end_with_a_stream_and_are_not_too_many() -> None:
    times = [time for time, _ in windows(lasting(400, 50), 4.0)]
    assert times == [n / 4 for n in range(12)]  # at 3 s the pictures have been over for a second
    times = [time for time, _ in windows(lasting(30_000, None), 300.0)]
    assert len(times) == 240 and times[-1] == 300
    assert [time for time, _ in windows(lasting(5, None), 0.05)] == [0.0, 0.05]


def test_a_part_of_a_prepared_clip_keeps_its_words_out() -> None:
    assert all(part.text is None for _, part in windows(example(0).only(("audio", "video")), 0.5))
