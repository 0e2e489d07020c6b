"""The adapter for MTEB and sentence-transformers: its vectors, the figure of MTEB's own task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from helpers.clips import RATE, grey_steps, tone, write_video
from helpers.encoders import write_encoder
from mmembed_export.extract import main as extract
from numpy.typing import NDArray

from mmembed.commands.evaluate import main as evaluate
from mmembed.embeddings.mteb import TOGETHER, MtebEncoder
from mmembed.errors import DataError, UsageError

pytestmark = pytest.mark.slow

EMOTIONS = ("anger", "fear", "joy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("mteb") / "encoder")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> MtebEncoder:
    return MtebEncoder(folder, workers=1)


def sound(number: int) -> NDArray[np.float32]:
    """A tone in noise: of each emotion another pitch, in part that of the next."""
    random = np.random.default_rng(number)
    hertz = (300, 330, 363)[number % 3] * random.uniform(0.93, 1.07)
    noise = random.normal(0, 0.15, RATE // 2)
    return np.clip(tone(0.5, hertz=hertz) + noise, -1, 1).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """60 sounds beside a manifest."""
    folder = tmp_path_factory.mktemp("sounds")
    files = [folder / f"{number:03}.wav" for number in range(60)]
    for number, file in enumerate(files):
        soundfile.write(file, sound(number), RATE)
    rows = [
        {"key": file.stem, "media": file.name, "speaker": f"s{n // 3 % 6}"}
        | {"labels": {"category": EMOTIONS[n % 3]}}
        for n, file in enumerate(files)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "manifest.jsonl").write_text(lines)
    return files


@pytest.fixture(scope="module")
def ours(files: list[Path], folder: Path) -> dict[str, Any]:
    """What `mmembed evaluate maeb` says of what `mmembed extract` makes of them."""
    embeddings, out = files[0].parent / "embeddings", files[0].parent / "out.json"
    manifest = files[0].parent / "manifest.jsonl"
    arguments = ["--encoder", folder, "--out", embeddings, "--streams", "audio", "--workers", 1]
    extract([str(manifest), *map(str, arguments)])
    evaluate(["maeb", str(embeddings / "audio"), "--out", str(out)])
    (told,) = json.loads(out.read_text())["embeddings"].values()
    assert isinstance(told, dict) and 0.5 < told["accuracy"] < 1
    return told


def mteb_task(audio: Sequence[Any], feature: Any = None) -> Any:
    """A task of MTEB's own class on these clips."""
    pytest.importorskip("mteb", reason="the extra mteb is not installed")
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.classification import AbsTaskClassification
    from mteb.abstasks.task_metadata import TaskMetadata

    unknown = "reference date domains task_subtypes license annotations_creators dialect"
    unknown += " sample_creation bibtex_citation"

    class Tones(AbsTaskClassification):  # type: ignore[misc]
        metadata = TaskMetadata(
            name="Tones",
            description="Tones in noise.",
            dataset={"path": "none", "revision": "none"},
            type="AudioClassification",
            category="a2c",
            modalities=["audio"],
            eval_splits=["train"],
            eval_langs=["zxx-Zxxx"],
            main_score="accuracy",
            **dict.fromkeys(unknown.split()),
        )
        input_column_name = "audio"
        is_cross_validation = True

    labels = [number % 3 for number in range(len(audio))]
    clips = Dataset.from_dict({"audio": audio, "label": labels})
    task = Tones()
    task.dataset = DatasetDict(train=clips.cast_column("audio", feature) if feature else clips)
    task.data_loaded = True
    return task


def assert_same(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """To the last digit."""
    assert (theirs["accuracy"], theirs["f1"]) == (ours["accuracy"], ours["macro_f1"])
    folds = zip(theirs["scores_per_experiment"], ours["folds"], strict=True)
    assert all(fold["accuracy"] == own["accuracy"] for fold, own in folds)


@pytest.mark.filterwarnings("ignore:Precision is ill-defined")
def test_the_task_of_mteb_gives_the_figure_of_evaluate_maeb(
    encoder: MtebEncoder, files: list[Path], ours: dict[str, Any]
) -> None:
    form = ("array", "sampling_rate")
    task = mteb_task([dict(zip(form, soundfile.read(file), strict=True)) for file in files])
    found = task.evaluate(encoder, "train", encode_kwargs={"batch_size": 7})
    assert_same(found["default"], ours)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:Precision is ill-defined")
def test_the_runner_of_mteb_takes_the_encoder(
    encoder: MtebEncoder, files: list[Path], ours: dict[str, Any]
) -> None:
    """On a dataset of sound files. It imports sentence-transformers."""
    mteb = pytest.importorskip("mteb", reason="the extra mteb is not installed")
    from datasets import Audio

    task = mteb_task([str(file) for file in files], Audio())
    done = mteb.evaluate(encoder, task, cache=None, show_progress_bar=False)
    (found,) = done.task_results[0].scores["train"]
    assert_same(found, ours)


def test_the_meta_data_come_from_the_encoder(encoder: MtebEncoder) -> None:
    pytest.importorskip("mteb", reason="the extra mteb is not installed")
    meta = encoder.mteb_model_meta
    embedder = encoder.embedder
    assert (meta.name, meta.revision) == ("mmembed/made", embedder.sha256)
    assert meta.n_parameters == sum(x.numel() for x in embedder.encoder.parameters())
    assert meta.embed_dim == encoder.encode("red").shape[0]
    assert meta.modalities == encoder.modalities == ["audio", "video", "text"]
    assert meta.similarity_fn_name.value == "cosine"


class SoundDecoder:
    """Of stereo sound, as torchcodec's AudioDecoder."""

    def __init__(self, samples: NDArray[np.float32]) -> None:
        self.samples = samples

    def get_all_samples(self) -> Any:
        both = torch.from_numpy(np.stack([self.samples, self.samples]))
        return SimpleNamespace(data=both, sample_rate=RATE)


class PictureDecoder:
    """Of pictures at 5 Hz from 0.2 s on, as torchcodec's VideoDecoder."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]]) -> None:
        self.pictures = torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2))
        last = 0.2 + len(pictures) / 5
        self.metadata = SimpleNamespace(begin_stream_seconds=0.2, end_stream_seconds=last)

    def get_frames_played_at(self, seconds: list[float]) -> Any:
        shown = [int((second - 0.2) * 5 + 1e-6) for second in seconds]
        return SimpleNamespace(data=self.pictures[shown])


def test_a_stream_comes_in_many_forms_and_gives_one_vector(
    encoder: MtebEncoder, tmp_path: Path
) -> None:
    samples, pictures = sound(0), grey_steps([40, 90, 140, 190])
    wav = tmp_path / "clip.wav"
    soundfile.write(wav, samples, RATE, subtype="FLOAT")
    array = {"array": samples, "sampling_rate": RATE}
    sounds = [
        *(str(wav), array, {**array, "array": samples.tolist()}, SoundDecoder(samples)),
        *({"path": str(wav), "bytes": None}, {"path": "a.wav", "bytes": wav.read_bytes()}),
    ]
    expected = encoder.embedder(audio=samples, sample_rate=RATE)
    for found in encoder.encode([{"audio": each} for each in sounds]):
        np.testing.assert_allclose(found, expected.pooled, atol=1e-6)
    frames = np.repeat(np.stack(pictures), 5, axis=0)
    expected = encoder.embedder(video=frames)
    videos = [frames, torch.from_numpy(frames.transpose(0, 3, 1, 2)), PictureDecoder(pictures)]
    for found in encoder.encode([{"video": each} for each in videos]):
        np.testing.assert_allclose(found, expected.pooled, atol=1e-6)


def test_a_clip_has_several_streams_each_of_its_own_file(
    encoder: MtebEncoder, tmp_path: Path
) -> None:
    pictures = grey_steps([40, 90, 140, 190] * 3)
    times = [number / 25 for number in range(12)]
    film = write_video(tmp_path / "film.mp4", pictures, times, sound(1))
    soundfile.write(tmp_path / "other.wav", sound(2), RATE, subtype="FLOAT")
    clips: list[dict[str, Any]] = [
        {"video": film},
        {"audio": film, "video": film},
        {"audio": tmp_path / "other.wav", "video": film, "text": "Red on blue!"},
        {"text": "red on blue", "audio": None},
    ]
    embedder = encoder.embedder
    read = next(iter(embedder.read([film], "video")))
    expected = [
        embedder(film, streams="video"),
        embedder(film, streams="audio+video"),
        None,
        embedder(text="red on blue"),
    ]
    found = encoder.encode(clips)
    assert found.dtype == np.float32
    for ours, other in zip(found, expected, strict=True):
        if other is not None:
            np.testing.assert_allclose(ours, other.pooled, atol=1e-6)
    (mixed,) = embedder.read([{"audio": sound(2), "sample_rate": RATE, "text": "red on blue"}])
    (whole,) = embedder.embed([replace(mixed, video=read.video)])
    np.testing.assert_allclose(found[2], whole.pooled, atol=1e-6)


def test_the_call_shape_of_sentence_transformers(encoder: MtebEncoder) -> None:
    words = ["red on blue", "lay white at nine", "red at nine"] * (TOGETHER // 2)
    vectors = encoder.encode(words, batch_size=8, show_progress_bar=False)
    assert vectors.shape == (len(words), 64)
    np.testing.assert_allclose(vectors[3:6], vectors[:3], atol=1e-6)
    np.testing.assert_allclose(encoder.encode(words[1]), vectors[1], atol=1e-6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = encoder.similarity(vectors[:3], torch.from_numpy(vectors[:2]))
    np.testing.assert_allclose(cosines, unit[:3] @ unit[:2].T, atol=1e-6)
    assert encoder.similarity(vectors[0], vectors[0]).tolist() == [[pytest.approx(1)]]
    pairs = encoder.similarity_pairwise(vectors[:2], vectors[1:3])
    np.testing.assert_allclose(pairs, (unit[:2] * unit[1:3]).sum(1), atol=1e-6)


def test_what_cannot_be_embedded_is_one_line(encoder: MtebEncoder, tmp_path: Path) -> None:
    def told(clips: Any, **options: Any) -> str:
        with pytest.raises((UsageError, DataError)) as error:
            encoder.encode(clips, **options)
        assert "\n" not in str(error.value)
        return str(error.value)

    soundfile.write(tmp_path / "a.wav", sound(0), RATE)
    assert "is a file: give" in told(str(tmp_path / "a.wav"))
    assert "a clip has no 'image'; it has audio, video, text" in told([{"image": "x"}])
    assert "found int" in told([3])
    assert "no clip was given" in told([])
    assert "a clip has nothing; the encoder reads audio" in told([{}])
    assert "encode has no argument 'precision'" in told("red", precision="int8")
    assert "absent.wav" in told({"audio": tmp_path / "absent.wav"})
