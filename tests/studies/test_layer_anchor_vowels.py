"""Layers compared by vowels that the CTC head finds in known transcripts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.encoders import write_encoder
from helpers.tiny_backbones import write_tiny
from mmembed_export.extract import main as extract
from mmembed_train.finetune import main as finetune

from mmembed.ctc import align
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.embedder import Embedder
from mmembed.errors import UsageError
from mmembed.features.audio import to_int16
from mmembed.metrics.similarity import linear_cka, most_similar_group
from mmembed.report.study import similarities
from mmembed.settings.finetune import LayerAnchorRun
from mmembed.studies.layer_anchor import LayerAnchorStudy
from mmembed.studies.layer_anchor_vowels import Vowels, read_vowels, vowel_similarity

SAID = {"red": "Red on blue.", "lay": "Lay white, at nine!"}


def write_corpus(folder: Path, name: str, pitch: float) -> Path:
    """Five speakers, two sentences each in two emotions, tones of their own; a manifest of them."""
    folder.mkdir()
    rows = []
    for speaker in range(5):
        for number, (key, transcript) in enumerate(SAID.items()):
            for emotion, loudness in {"sad": 0.2, "angry": 0.9}.items():
                file = f"{name}{speaker}{key}{emotion}.wav"
                time = np.arange(16_000 + 1_600 * number) / 16_000
                sound = loudness * np.sin(2 * np.pi * (pitch + 31 * speaker) * time)
                soundfile.write(folder / file, sound, 16_000)
                rows.append(
                    {
                        "key": file[:-4],
                        "media": file,
                        "transcript": transcript,
                        "speaker": f"{name}{speaker}",
                        "labels": {"category": emotion},
                    }
                )
    rows[0]["transcript"] = None  # passed over
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LayerAnchorRun:
    folder = tmp_path_factory.mktemp("vowels")
    encoder = write_encoder(folder / "encoder")
    for name, pitch in (("here", 200.0), ("there", 333.0)):
        clips = write_corpus(folder / name, name, pitch)
        extract([str(clips), "--encoder", str(encoder), "--streams", "audio",
                 "--out", str(folder / "embeddings" / name)])  # fmt: skip
    return LayerAnchorRun(
        source=str(folder / "embeddings" / "here" / "audio"),
        target=str(folder / "embeddings" / "there" / "audio"),
        source_clips=str(folder / "here" / "manifest.jsonl"),
        target_clips=str(folder / "there" / "manifest.jsonl"),
        encoder=str(encoder),
        classes=("sad", "angry"),
        hidden=4,
        group=2,
    )


def test_vectors_are_means_over_the_letters_frames(run: LayerAnchorRun) -> None:
    embedder = Embedder.from_pretrained(run.encoder)
    assert embedder.recogniser is not None
    layers = ("audio 0", "fused")
    keys = ["here0redsad", "here0redangry", "here1laysad", "here4layangry"]
    found = read_vowels(embedder, run.source_clips, ["audio"], layers, keys)
    assert list(found.spoken) == keys[1:]
    assert found.error_rate > 0.5  # it has learned nothing
    for key, said in (("here0redangry", "red on blue"), ("here1laysad", "lay white at nine")):
        samples, _ = soundfile.read(Path(run.source_clips).parent / f"{key}.wav")
        clip = embedder(audio=samples, sample_rate=16_000)
        frames = torch.from_numpy(clip.frames)  # without pictures and words: fused, not spoken
        letters = embedder.recogniser.alphabet.encode(said)
        heard = Example(Utterance(key, None), audio=to_int16(samples))
        log_probs = (
            embedder.recogniser(embedder.hidden([heard]).audio_visual).values.detach().numpy()
        )
        held: dict[str, list[int]] = {}
        for letter, at in zip(f" {said}", align(log_probs, letters), strict=True):
            held.setdefault(letter, []).extend(at)
        spoken = dict(found.spoken[key])
        assert set(spoken) == {letter for letter in said if letter in "aeiouy"}
        for vowel, vectors in spoken.items():
            assert vectors.shape == (2, 32)
            expected = frames[held[vowel]].mean(0)
            np.testing.assert_allclose(vectors[1], expected, atol=1e-5)


def test_the_recogniser_of_another_encoder_gives_the_times(
    run: LayerAnchorRun, tmp_path: Path
) -> None:
    """Whisper has 50 steps a second, the recogniser 25."""
    whisper = write_tiny(tmp_path / "whisper", "whisper")
    embedder = Embedder.from_pretrained(whisper, recogniser=run.encoder)
    key = "here0redangry"
    found = read_vowels(embedder, run.source_clips, ["audio"], ("audio 0", "audio 2"), [key])
    samples, _ = soundfile.read(Path(run.source_clips).parent / f"{key}.wav")
    heard = Example(Utterance(key, None), audio=to_int16(samples))
    listening = Embedder.from_pretrained(run.encoder)
    assert listening.recogniser is not None
    log_probs = listening.recogniser(listening.hidden([heard]).audio_visual).values
    said = "red on blue"
    held = align(log_probs.detach().numpy(), listening.recogniser.alphabet.encode(said))
    steps = torch.from_numpy(
        embedder(audio=samples, sample_rate=16_000).frames
    )  # of the last layer
    for vowel, vectors in found.spoken[key]:
        at = [
            2 * frame + half
            for letter, frames in zip(f" {said}", held, strict=True)
            for frame in frames
            for half in (0, 1)
            if letter == vowel
        ]
        np.testing.assert_allclose(vectors[1], steps[at].mean(0), atol=1e-5)
    assert {vowel for vowel, _ in found.spoken[key]} == {*"eou"}


def test_layers_are_compared_over_common_vowels_of_given_clips() -> None:
    draw = np.random.default_rng(0)
    shared = {vowel: draw.normal(size=4) for vowel in "aei"}

    def clip(noise: float) -> list[tuple[str, np.ndarray]]:
        """Layer 1 says which vowel it is, layer 0 nothing."""
        return [
            (vowel, np.stack([draw.normal(size=4), own + noise * draw.normal(size=4)]))
            for vowel, own in shared.items()
        ]

    source = Vowels({"s1": clip(0.1), "s2": clip(0.1), "other": clip(50)}, 0.0)
    target = Vowels({"t1": [*clip(0.1), ("\u00f6", np.ones((2, 4)))]}, 0.0)
    found = vowel_similarity(source, target, ["s1", "s2", "not there"], ["t1"])
    means = [
        np.stack([np.mean([dict(side.spoken[k])[v] for k in keys], 0) for v in "aei"])
        for side, keys in ((source, ("s1", "s2")), (target, ("t1",)))
    ]
    expected = [[linear_cka(means[0][:, i], means[1][:, j]) for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_allclose(found, expected)
    assert found[1, 1] > 0.95
    with pytest.raises(UsageError, match="two names or more"):
        vowel_similarity(source, target, ["s1"], [])


def test_a_study_anchors_the_group_most_alike_in_vowels(
    run: LayerAnchorRun, tmp_path: Path
) -> None:
    study = LayerAnchorStudy(run)
    assert "group by vowels, not aligned/0" in study.variants
    arguments = ["layer_anchor", "--classes", "sad", "angry", "--hidden", "4", "--group", "2"]
    arguments += ["--source", run.source, "--target", run.target, "--encoder", run.encoder]
    arguments += ["--source-clips", run.source_clips, "--target-clips", run.target_clips]
    arguments += ["--loop.epochs", "1", "--loop.seeds", "0", "--out", str(tmp_path)]
    finetune(arguments)
    results = json.loads((tmp_path / "results.json").read_text())
    assert "group by vowels" in results["tests"]["target"]["variants"]
    told = results["vowel_similarity"]
    assert told["metric"] == "linear CKA of vowels" and "text 0" not in told["layers"]
    assert set(results["letter_error_rate"]) == {"source", "target"}
    embedder = Embedder.from_pretrained(run.encoder)
    layers = told["layers"]
    everyone = [
        read_vowels(embedder, clips, ["audio"], layers, study.tests["target"].keys + source)
        for clips, source in (
            (run.source_clips, tuple(f"here{n}{k}{e}" for n, k, e in every())),
            (run.target_clips, ()),
        )
    ]
    for fold, group in enumerate(told["groups"]):
        train = study.batch(f"group/{fold}", "train", range(study.size(f"group/{fold}", "train")))
        sides = [[k for k in train.keys if k.startswith(side)] for side in ("here", "there")]
        alike = vowel_similarity(everyone[0], everyone[1], sides[0], sides[1])
        assert group == [layers[layer] for layer in most_similar_group(alike, 2)]
    assert len(similarities(results)) == 2


def every() -> list[tuple[int, str, str]]:
    return [(n, k, e) for n in range(5) for k in SAID for e in ("sad", "angry")]


def test_what_does_not_serve_is_told(run: LayerAnchorRun, tmp_path: Path) -> None:
    def told(**settings: object) -> str:
        with pytest.raises(UsageError) as error:
            LayerAnchorStudy(replace(run, **settings))  # type: ignore[arg-type]
        return str(error.value)

    assert "give --target-clips DIR" in told(target_clips="")
    mute = write_encoder(tmp_path / "mute", recogniser=False)
    assert "no recogniser" in told(encoder=str(mute))
    other = Embedder.from_pretrained(run.encoder)
    with torch.no_grad():
        other.encoder.fusion.add_(torch.tensor([0.1, 0.0, 0.0]))
    other.save_pretrained(tmp_path / "other")
    assert "not embeddings by" in told(encoder=str(tmp_path / "other"))
    with pytest.raises(UsageError, match="words have no times"):
        read_vowels(other, run.source_clips, ["audio", "text"], (), ())
    with pytest.raises(UsageError, match="none of the clips"):
        read_vowels(other, run.source_clips, ["audio"], ("fused",), ["here0redsad"])
