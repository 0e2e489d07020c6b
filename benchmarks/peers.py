"""Faces and wav2vec 2.0 vectors of films: the loop that people write, and ours.

    python benchmarks/peers.py FILM... [--workers 1 2] [--wav2vec2 FOLDER]

From files to face crops and sound vectors, seconds of film a second of wall time, all ways in the
same run and in turns, the best of several:

- the loop: `cv2.VideoCapture`, OpenCV's Haar cascade on every frame, a crop of 64 x 64; sound by
  PyAV at 16 kHz; wav2vec2-base of transformers, one film at a time;
- the same with padded batches of eight films;
- ours: decoding processes and the encoder of `mmembed.Embedder`, batches by frames.

Weights are random, of the size of wav2vec2-base, unless a folder is given: speed does not depend on
them. Every way computes with as many threads as it likes; the sound vectors are compared.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import cv2
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from transformers import Wav2Vec2Config, Wav2Vec2Model

from mmembed.data.example import batches
from mmembed.data.inputs import open_sources
from mmembed.data.media.pool import Decoder
from mmembed.embedder import Embedder
from mmembed.errors import DataError

RATE = 16_000  # Hz
CROP = 64  # pixels
AT_ONCE = 8  # films of a padded batch
Vectors = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        films: files with sound and pictures.
        workers: decoding processes of ours.
        wav2vec2: folder of wav2vec2-base; None = random weights.
        rounds: of all ways, of which the best counts.
    """

    films: tyro.conf.Positional[tuple[Path, ...]]
    workers: tuple[int, ...] = (1, 2)
    wav2vec2: Path | None = None
    rounds: int = 2


def main() -> None:
    """Measure and print."""
    settings = tyro.cli(Settings, description=__doc__)
    with TemporaryDirectory() as temporary:
        folder = settings.wav2vec2 or Path(temporary)
        if settings.wav2vec2 is None:
            torch.manual_seed(0)
            Wav2Vec2Model(Wav2Vec2Config()).save_pretrained(folder)
        model = Wav2Vec2Model.from_pretrained(folder).eval()  # type: ignore[no-untyped-call]
        embedder = Embedder.from_pretrained(str(folder))
        ways: dict[str, Callable[[], Vectors]] = {
            "loop, one film at a time": lambda: _loop(settings.films, model, 1),
            f"loop, padded batches of {AT_ONCE}": lambda: _loop(settings.films, model, AT_ONCE),
        }
        decoders = {number: Decoder(number) for number in settings.workers}
        for number, decoder in decoders.items():
            ways[f"ours, {number} decoding"] = lambda d=decoder: _ours(settings.films, embedder, d)  # type: ignore[misc]
        lasts = sum(_seconds(film) for film in settings.films)
        best = dict.fromkeys(ways, float("inf"))
        found = {}
        for _ in range(settings.rounds):
            for name, way in ways.items():
                started = time.monotonic()
                found[name] = way()
                best[name] = min(best[name], time.monotonic() - started)
    first = next(iter(ways))
    print(f"{len(settings.films)} films, {lasts:.0f} s")
    print(f"{'way':32} {'s of film a s':>14} {'times the loop':>15} {'differs by':>11}")
    for name, spent in best.items():
        pairs = zip(found[name], found[first], strict=True)
        differs = max(float(np.abs(one - other).max()) for one, other in pairs)
        print(f"{name:32} {lasts / spent:14.1f} {best[first] / spent:15.2f} {differs:11.1e}")


def _seconds(film: Path) -> float:
    with av.open(str(film)) as file:
        return float((file.duration or 0) / av.time_base)


def _loop(films: Sequence[Path], model: Wav2Vec2Model, at_once: int) -> Vectors:
    """(D,) mean of the last layer of each film; its crops are made and dropped."""
    vectors: Vectors = []
    sounds: list[torch.Tensor] = []
    for number, film in enumerate(films, 1):
        _crops(film)
        sounds.append(_sound(film))
        if len(sounds) == at_once or number == len(films):
            padded = torch.nn.utils.rnn.pad_sequence(sounds, batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence(
                [torch.ones(len(sound), dtype=torch.long) for sound in sounds], batch_first=True
            )
            with torch.no_grad():
                # Base models are trained, and used, without a mask; it is what a batch needs.
                hidden = model(padded, mask if at_once > 1 else None).last_hidden_state
            for row, sound in zip(hidden, sounds, strict=True):
                steps = int(model._get_feat_extract_output_lengths(len(sound)))
                vectors.append(row[:steps].mean(0).numpy())
            sounds = []
    return vectors


def _crops(film: Path) -> list[NDArray[np.uint8]]:
    detector = cv2.CascadeClassifier(
        cv2.data.haarcascades + "haarcascade_frontalface_default.xml"  # type: ignore[attr-defined]
    )
    capture = cv2.VideoCapture(str(film))
    crops: list[NDArray[np.uint8]] = []
    while True:
        there, frame = capture.read()
        if not there:
            return crops
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        faces = detector.detectMultiScale(grey, 1.1, 5)
        if len(faces):
            x, y, width, height = max(faces, key=lambda face: face[2] * face[3])
            grey = grey[y : y + height, x : x + width]
        crops.append(cv2.resize(grey, (CROP, CROP)).astype(np.uint8))


def _sound(film: Path) -> torch.Tensor:
    resampler = av.AudioResampler("s16", "mono", RATE)
    with av.open(str(film)) as file:
        frames = [x for frame in file.decode(audio=0) for x in resampler.resample(frame)]
        frames += resampler.resample(None)
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return torch.from_numpy(samples.astype(np.float32) / 32768)


def _ours(films: Sequence[Path], embedder: Embedder, decoder: Decoder) -> Vectors:
    sources = open_sources(list(films), ("audio", "video"))
    vectors: Vectors = []

    def examples():  # type: ignore[no-untyped-def]
        for example in decoder.load(sources):
            if isinstance(example, DataError):
                raise example
            assert example.video is not None  # its crops are made and dropped
            yield example.only(("audio",))

    for batch in batches(examples()):  # type: ignore[no-untyped-call]
        for found in embedder.embed(batch, words=False):
            vectors.append(found.layers[-1][: found.layers.shape[1] // 2])
    return vectors


if __name__ == "__main__":
    main()
