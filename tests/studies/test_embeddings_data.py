"""The one reader of embeddings: joined by key, and what cannot be right is one line."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import ragged
from helpers.prepared import change_json, described, embedding, write_embeddings

from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.studies.embeddings_data import (
    EmbeddedClips,
    read_embeddings,
    read_folder,
    subset_folders,
)


def write(folder: Path, subset: str, records: list[Record]) -> Path:
    return write_embeddings(folder / subset, records, subset.split("+"))


def read(folder: Path) -> EmbeddedClips:
    return read_embeddings(subset_folders(folder))


def members(folder: Path) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Key -> layers and JSON, by tarfile alone."""
    found: dict[str, dict[str, Any]] = {}
    with tarfile.open(shard_path(folder, 0)) as tar:
        for member in tar:
            key, _, name = member.name.partition(".")
            file = tar.extractfile(member)
            assert file is not None
            data = file.read()
            value = json.loads(data) if name == "json" else np.load(io.BytesIO(data))
            found.setdefault(key, {})[name] = value
    return {key: (held["layers.npy"], held["json"]) for key, held in found.items()}


def test_the_ragged_corpus_is_joined_by_key(ragged_corpus: Path) -> None:
    folder = ragged_corpus / "embeddings"
    clips = read(folder)
    numbers = [int(key.removeprefix("clip-")) for key in clips.keys]
    assert sorted(numbers) == sorted({*range(ragged.CLIPS)} - {ragged.NOTHING, ragged.BROKEN})
    assert clips.splits.tolist() == [ragged.split(n) for n in numbers]
    assert clips.categories.tolist() == [ragged.category(n) or "" for n in numbers]
    rated = [ragged.sentiment(n) for n in numbers]
    expected = np.array([np.nan if x is None else x for x in rated], np.float32)
    np.testing.assert_array_equal(clips.sentiment.numpy(), expected)
    told = [ragged.emotions(n) or (None,) * 6 for n in numbers]
    assert any(None in one and any(one) for one in told)
    np.testing.assert_array_equal(clips.emotions.numpy(), np.array(told, np.float32))
    assert [row.speaker for row in clips.utterances] == [ragged.speaker(n) for n in numbers]
    assert [row.dialogue for row in clips.utterances] == [ragged.dialogue(n) for n in numbers]
    for subset in clips.steps:
        here = members(folder / subset)
        held = [ragged.in_subset(n, subset) for n in numbers]
        assert clips.present(subset).tolist() == held and len(here) == sum(held)
        for row, values in enumerate(clips.values(subset, range(len(clips)))):
            assert len(values) == (len(clips.layers) if held[row] else 0)
            if held[row]:
                np.testing.assert_array_equal(values.numpy(), here[clips.keys[row]][0])
        assert [clips.keys[row] for row in clips.rows[subset]] == list(here)


def test_groups_are_speakers_else_dialogues_else_clips(ragged_corpus: Path) -> None:
    clips = read(ragged_corpus / "embeddings")
    groups = clips.groups(range(len(clips)))
    assert groups.kind == "speaker or dialogue or clip"
    for key, name in zip(clips.keys, groups.names, strict=True):
        n = int(key.removeprefix("clip-"))
        known = {"speaker": ragged.speaker(n), "dialogue": ragged.dialogue(n), "clip": key}
        assert name == next(f"{kind} {found}" for kind, found in known.items() if found)


def test_order_is_that_of_the_last_folder_and_clips_of_others_follow(tmp_path: Path) -> None:
    write(tmp_path, "audio", [embedding(3), embedding(0)])
    write(tmp_path, "text", [embedding(2), embedding(0), embedding(1)])
    clips = read(tmp_path)
    assert clips.keys == ("clip-2", "clip-0", "clip-1", "clip-3")
    assert clips.rows["audio"].tolist() == [3, 1] and clips.rows["text"].tolist() == [0, 1, 2]
    found = clips.values("audio", [0, 1, 3])
    assert [len(x) for x in found] == [0, 3, 3]
    assert found[0].shape == (0, 8) and found[2].dtype == torch.float32
    np.testing.assert_array_equal(found[2].numpy(), embedding(3).members["layers.npy"])


def test_vectors_of_unwanted_clips_are_not_read(tmp_path: Path) -> None:
    broken = embedding(1, **{"layers.npy": np.full((3, 8), np.nan, np.float32)})
    write(tmp_path, "audio", [embedding(0), broken])
    kept = read_embeddings(subset_folders(tmp_path), lambda row: row.key == "clip-0")
    assert kept.keys == ("clip-0",)
    with pytest.raises(CorruptError, match="layers of clip-1 is not finite"):
        read(tmp_path)


def test_older_records_have_no_dialogue_and_newer_ones_tell_it(tmp_path: Path) -> None:
    write(tmp_path, "audio", [described(0, speaker=None)])
    assert read(tmp_path).groups([0]).kind == "clip"
    write(tmp_path, "text", [described(0, speaker=None, dialogue="talk")])
    assert read(tmp_path).groups([0]).names == ("talk",)


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"labels": {"category": "angry"}}, "category of clip-0 is 'angry' in the first, 'sad' in"),
        ({"labels": {"category": "sad", "sentiment": 1}}, "sentiment of clip-0 is 1.0 in the fir"),
        ({"labels": None}, "category of clip-0 is None in the first"),
        ({"split": "dev"}, "split of clip-0 is 'dev' in the first, 'test' in the other"),
        ({"speaker": None}, "speaker of clip-0 is None in the first, 's0' in the other"),
    ],
)
def test_what_folders_say_of_a_clip_has_to_agree(
    tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    write(tmp_path, "audio", [embedding(0)])
    write(tmp_path, "text", [described(0, **other)])
    with pytest.raises(UsageError, match=told) as error:
        read(tmp_path)
    assert "\n" not in str(error.value) and "extract both from the same manifest" in str(
        error.value
    )


def test_folders_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    def told(folder: Path, kind: type[Exception] = UsageError) -> str:
        with pytest.raises(kind) as error:
            read(folder)
        assert "\n" not in str(error.value)
        return str(error.value)

    encoders = tmp_path / "encoders"
    for subset in ("audio", "text"):
        write(encoders, subset, [embedding(0)])
    change_json(encoders / "text" / "manifest.json", lambda m: m.update(encoder_sha256="f" * 64))
    assert "of different encoders" in told(encoders) and "ffffffffffff" in told(encoders)
    change_json(encoders / "text" / "manifest.json", lambda m: m.pop("encoder_sha256"))
    assert "text of none" in told(encoders)

    layers = tmp_path / "layers"
    for subset in ("audio", "text"):
        write(layers, subset, [embedding(0)])
    change_json(layers / "text" / "manifest.json", lambda m: m["layers"].reverse())
    assert "hold different layers" in told(layers)

    scales = tmp_path / "scales"
    rated = described(0, labels={"sentiment": 0.5})
    sims = described(1, labels={"sentiment": 0.5, "sentiment_limit": 1})
    write(scales, "audio", [rated, sims])
    assert (
        "different scales: clip-0 has a sentiment in [-3, 3], clip-1 has a sentiment in [-1, 1]"
        in told(scales)
    )

    twice = tmp_path / "twice"
    write(twice, "audio", [embedding(0)])
    write_shard(shard_path(twice / "audio", 1), [embedding(0)], {"failed": []})
    (twice / "audio" / "index.arrow").unlink(missing_ok=True)
    assert "clip-0" in told(twice, DataError)

    same = tmp_path / "same"
    write_embeddings(same / "a", [embedding(0)], ["audio"])
    write_embeddings(same / "b", [embedding(0)], ["audio"])
    assert "both of audio" in told(same)

    killed = tmp_path / "killed"
    write(killed, "audio", [embedding(0)])
    write_shard(shard_path(killed / "text", 0), [embedding(0)], {"failed": []})
    assert "not finished" in told(killed)
    assert "holds no embedding shards" in told(tmp_path / "nothing")


def test_records_that_do_not_serve_are_refused(tmp_path: Path) -> None:
    frames = embedding(0)
    held = {n: x for n, x in frames.members.items() if n not in ("layers.npy", "pooled.npy")}
    write_embeddings(tmp_path / "frames", [Record("clip-0", held, frames.meta)], ["audio"])
    with pytest.raises(UsageError, match="holds no layers; extract it with --granularity utteran"):
        read_folder(tmp_path / "frames")
    assert read_folder(tmp_path / "frames", part="frames").steps[""][0].shape == (5, 4)
    wide = embedding(1, **{"layers.npy": np.zeros((3, 9), np.float32)})
    write_embeddings(tmp_path / "wide", [embedding(0), wide], ["audio"])
    with pytest.raises(CorruptError, match=r"layers of clip-1 is \(3, 9\), of others \(3, 8\)"):
        read_folder(tmp_path / "wide")
    odd = described(0, labels={"sentiment": 7})
    write_embeddings(tmp_path / "odd", [odd], ["audio"])
    with pytest.raises(CorruptError, match=r"clip-0 is no embedding: sentiment 7\.0"):
        read_folder(tmp_path / "odd")
