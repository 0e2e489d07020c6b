"""Recordings above 300 s through `mmembed extract`: a record, or a line that says why not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.clips import tone
from helpers.encoders import write_encoder
from mmembed_export.extract import main

from mmembed.data.shards.layout import ShardSet


@pytest.mark.long
def test_a_long_recording_is_one_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = write_encoder(tmp_path / "encoder")
    clips = tmp_path / "clips"
    clips.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 301 * 2_000).astype("f4")
    soundfile.write(clips / "b-long.flac", noise, 2_000)
    whole = (clips / "b-long.flac").read_bytes()
    (clips / "a-cut.flac").write_bytes(whole[: len(whole) // 2])
    soundfile.write(clips / "c-short.wav", tone(1.0), 16_000)
    options = ["--encoder", str(encoder), "--out", str(tmp_path / "out")]
    main([str(clips), *options, "--frames", "--error-budget", "0.5"])
    shards = ShardSet(tmp_path / "out")
    frames = [len(shards.read(place).members["frames.npy"]) for place in range(len(shards))]
    assert frames == [7_525, 25]
    assert shards.read(0).members["json"]["notes"] == {"seconds": 301.0}  # type: ignore[index]
    (failed,) = map(json.loads, (tmp_path / "out" / "failed.jsonl").read_text().splitlines())
    assert failed["reason"] == "damaged" and failed["item"].endswith("a-cut.flac")
    assert "2 embeddings" in capsys.readouterr().out
