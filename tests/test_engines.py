"""Batches of rows as engines give them: vectors of the embedder, and failures that are rows."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.clips import tone
from helpers.encoders import write_encoder

from mmembed.embedder import Embedder
from mmembed.engines import EmbedBatch
from mmembed.errors import UsageError


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    write_encoder(folder / "encoder")
    for number in range(3):
        soundfile.write(folder / f"{number}.wav", tone(0.5 + 0.2 * number), 16_000)
    (folder / "bad.wav").write_bytes(b"RIFF, but no sound")
    return folder


def test_rows_have_their_vectors_or_a_reason(here: Path) -> None:
    embed = EmbedBatch(
        str(here / "encoder"), columns={"path": "file", "text": "words", "start": "at"}
    )
    embed = pickle.loads(pickle.dumps(embed))
    batch = {
        "file": np.array([str(here / f"{name}.wav") for name in ("0", "bad", "1", "none", "2")]),
        "words": ["red on blue", "", None, "", float("nan")],
        "at": [0.0, 0.0, 0.1, 0.0, None],
        "id": [7, 8, 9, 10, 11],
    }  # fmt: skip
    found = embed(batch)
    assert found["id"] == batch["id"] and found["embedding"].dtype == np.float32
    assert found["streams"] == ["audio+text", "", "audio", "", "audio"]
    reasons = [reason.partition(":")[0] for reason in found["failed"]]
    assert reasons[0] == reasons[2] == reasons[4] == "" and reasons[3] == "missing"
    assert str(here / "bad.wav") in found["failed"][1]
    embedder = Embedder.from_pretrained(here / "encoder")
    expected = embedder(
        [
            {"path": here / "0.wav", "text": "red on blue"},
            {"path": here / "1.wav", "start": 0.1},
            here / "2.wav",
        ]
    )
    for row, one in zip((0, 2, 4), expected, strict=True):
        np.testing.assert_allclose(found["embedding"][row], one.pooled, atol=1e-5)
    assert np.isnan(found["embedding"][[1, 3]]).all()
    # Pickled again after use, as engines do, without the encoder and its processes.
    assert "embedder" not in vars(pickle.loads(pickle.dumps(embed)))


def test_what_no_row_can_mend_is_an_error(here: Path) -> None:
    embed = EmbedBatch(str(here / "encoder"))
    with pytest.raises(UsageError, match="no column 'path'; it has file"):
        embed({"file": ["a.wav"]})
    with pytest.raises(UsageError, match="one or more of audio, video, text"):
        EmbedBatch(str(here / "encoder"), streams="audio+smell")({"path": ["a.wav"]})
    both = EmbedBatch(str(here / "encoder"), columns={"path": "p", "audio": "a"})
    found = both({"p": [str(here / "0.wav")], "a": [np.zeros(100, np.float32)]})
    assert found["failed"][0].startswith("unusable: ") and "not both" in found["failed"][0]
