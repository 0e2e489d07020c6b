"""`mmembed evaluate` of encoders: `mmembed extract` makes their embeddings first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, tone
from helpers.encoders import write_encoder
from helpers.extracting import contents
from mmembed_export.extract import main as extract

from mmembed.commands.evaluate import main
from mmembed.errors import UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder, and 24 sounds of two emotions and six speakers."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_encoder(folder / "encoder")
    rows = []
    for number in range(24):
        noise = np.random.default_rng(number).normal(0, 0.1, RATE // 5).astype("f4")
        hertz = (300, 340)[number % 2]
        soundfile.write(folder / f"{number}.wav", tone(0.2, hertz=hertz) + noise, RATE)
        label = {"category": ("anger", "joy")[number % 2]}
        row = {"key": f"clip-{number}", "media": f"{number}.wav", "labels": label}
        rows.append(row | {"speaker": f"s{number // 2 % 6}"})
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "clips.jsonl").write_text(text)
    listed = "".join(f"{n},{('a', 'j')[n % 2]},{n % 3}\n" for n in range(24))
    (folder / "folds.csv").write_text(f"file,emotion,test_folds\n{listed}")
    return folder


def evaluate(folder: Path, *arguments: object) -> dict[str, Any]:
    out = folder / "out.json"
    main([*map(str, arguments), "--out", str(out)])
    told: dict[str, Any] = json.loads(out.read_text())["embeddings"]
    return told


def test_an_encoder_embeds_the_clips_first(folder: Path, tmp_path: Path) -> None:
    encoder, clips = str(folder / "encoder"), str(folder / "clips.jsonl")
    made = tmp_path / "made"
    given = (encoder, "--clips", clips, "--vectors", made, "--streams", "audio")
    told = evaluate(tmp_path, "maeb", *given)
    extract([clips, "--encoder", encoder, "--out", str(tmp_path / "own"), "--streams", "audio"])
    own = str(tmp_path / "own" / "audio")
    assert told == {encoder: evaluate(tmp_path, "maeb", own)[own]}
    (ours,) = made.glob("*/audio")
    before = contents(ours)
    assert before == contents(Path(own))
    assert evaluate(tmp_path, "honest", *given)[encoder]["honest"] == told[encoder]["honest"]
    assert contents(ours) == before


def test_emobox_gets_its_frames(folder: Path, tmp_path: Path) -> None:
    encoder = str(folder / "encoder")
    told = evaluate(
        *(tmp_path, "emobox", encoder, "--clips", folder / "clips.jsonl"),
        *("--vectors", tmp_path / "made", "--folds-file", folder / "folds.csv", "--epochs", 1),
    )[encoder]
    leaks = [(f["test_speakers"], f["test_speakers_in_training"]) for f in told["folds"]]
    assert told["clips"] == 24 and len(leaks) == 3
    assert all(shared == speakers > 0 for speakers, shared in leaks)
    assert told["honest"] is not None


def test_what_does_not_go_together_is_one_line(folder: Path, tmp_path: Path) -> None:
    def told(*arguments: object) -> str:
        with pytest.raises(UsageError) as error:
            main(["maeb", *map(str, arguments)])
        assert "\n" not in str(error.value)
        return str(error.value)

    encoder, clips = folder / "encoder", ("--clips", folder / "clips.jsonl")
    for name in (encoder, "openai/whisper-base"):
        assert f"{name}: no folder of embeddings; of an encoder name the clips" in told(name)
    assert "name a folder for their embeddings by --vectors" in told(encoder, *clips)
    assert "--vectors, --streams: go with --clips" in told(encoder, "--vectors", tmp_path)
    given = (encoder, *clips, "--vectors", tmp_path, "--streams", "smell")
    assert "streams 'smell': one or more of audio" in told(*given)
