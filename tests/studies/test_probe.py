"""The linear probe: folds never share a speaker, it finds what is there and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import ragged
from helpers.prepared import described, embedding, write_embeddings

from mmembed.commands.probe import main
from mmembed.data.shards.layout import Record
from mmembed.errors import UsageError
from mmembed.studies.probe import (
    Labelled,
    centre_speakers,
    probe,
    read_labelled,
)
from mmembed.studies.splits import group_folds

SPEAKERS = np.repeat([f"s{n}" for n in range(8)], 12)
LABELS = np.tile(["anger", "fear", "joy"], 32)


def made(strength: float) -> Labelled:
    """Noise with the label in three of ten columns and the speaker, strongly, in one."""
    random = np.random.default_rng(0)
    vectors = random.standard_normal((96, 10))
    for column, label in enumerate(("anger", "fear", "joy")):
        vectors[label == LABELS, column] += strength
    vectors[:, 9] += 20 * np.repeat(random.standard_normal(8), 12)
    return Labelled(vectors, LABELS, SPEAKERS)


def test_finds_what_is_there() -> None:
    result = probe(made(2.0), folds=4)
    assert result["uar"] > 0.7
    assert result["low"] <= result["uar"] <= result["high"]
    assert result["chance"] == pytest.approx(1 / 3)
    assert np.sum(result["confusion"]) == 96 and result["speakers"] == 8


def test_centring_takes_the_speaker_away_and_leaves_the_label() -> None:
    """Offsets of speakers far larger than the labels' hide these from the plain probe."""
    data = made(2.0)
    offsets = 50 * np.random.default_rng(2).standard_normal((8, 10))
    data.vectors[:] += np.repeat(offsets, 12, axis=0)
    before = data.vectors.copy()
    centred = centre_speakers(data)
    assert np.array_equal(data.vectors, before)
    means = [centred.vectors[data.groups == s].mean(0) for s in sorted(set(SPEAKERS))]
    assert np.abs(means).max() < 1e-12
    assert probe(data, folds=4)["uar"] < 0.6 < 0.8 < probe(centred, folds=4)["uar"]


def test_noise_stays_near_chance() -> None:
    assert 0.15 < probe(made(0.0), folds=4)["uar"] < 0.5


def test_ragged_clips_are_probed_by_what_is_known_of_them(
    ragged_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = ragged_corpus / "embeddings" / "audio", tmp_path / "out.json"
    main([str(folder), "--folds", "4", "--out", str(out)])
    printed = capsys.readouterr().out
    assert "folds of speakers or dialogues or clips" in printed
    told = json.loads(out.read_text())[str(folder)]
    held = [n for n in range(ragged.CLIPS) if ragged.in_subset(n, "audio") and ragged.category(n)]
    groups = {ragged.speaker(n) or ragged.dialogue(n) or n for n in held}
    assert (told["items"], told["groups"]) == (len(held), len(groups))
    assert told["grouping"] == "speaker or dialogue or clip" and "speakers" not in told
    matrix = np.array(told["confusion"])
    by_class = [sum(ragged.category(n) == name for n in held) for name in told["classes"]]
    assert matrix.sum(1).tolist() == by_class
    recalls = matrix.diagonal() / matrix.sum(1)
    assert told["uar"] == pytest.approx(recalls.mean()) and told["low"] < told["uar"]
    for data in [read_labelled(folder)]:
        for fold in group_folds(data.groups, 4, data.grouping):
            assert not {*data.groups[fold]} & {*data.groups[~fold]}
        with pytest.raises(UsageError, match="it needs the speaker of each"):
            centre_speakers(data)
    known = read_labelled(folder, ["train-1", "test-2"])
    assert known.grouping == "speaker" and {*known.groups} == {"train-1", "test-2"}


def test_what_cannot_be_probed_is_one_line(tmp_path: Path) -> None:
    held = {n: x for n, x in embedding(0).members.items() if n in ("frames.npy", "json")}
    write_embeddings(tmp_path / "frames", [Record("clip-0", held, {})], ["audio"])
    with pytest.raises(UsageError, match="holds no layers; extract it with --granularity utteran"):
        main([str(tmp_path / "frames")])
    records = [described(n, speaker=None if n % 2 else f"s{n}") for n in range(9)]
    write_embeddings(tmp_path / "sad", records, ["audio"])
    with pytest.raises(UsageError, match="all items are sad"):
        main([str(tmp_path / "sad")])
    records = [described(n, labels={"category": "ab"[n // 2 % 2]}) for n in range(5)]
    write_embeddings(tmp_path / "few", records, ["audio"])
    with pytest.raises(UsageError, match="8 folds need as many speakers, found 5 speakers"):
        main([str(tmp_path / "few")])
