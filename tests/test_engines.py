"""Batches of rows as engines give them: vectors of the embedder, and failures that are rows."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.clips import tone
from helpers.clusters import ray_cluster
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


ROWS = {"file": ["0.wav", "bad.wav", "1.wav", "none.wav", "2.wav"], "id": [7, 8, 9, 10, 11]}


def files(here: Path) -> dict[str, list[Any]]:
    return {**ROWS, "file": [str(here / name) for name in ROWS["file"]]}


def check(here: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """What an engine made of `files`, by their number."""
    assert [row["id"] for row in rows] == ROWS["id"]
    expected = iter(Embedder.from_pretrained(here / "encoder")([here / f"{n}.wav" for n in "012"]))
    for row, name in zip(rows, ROWS["file"], strict=True):
        if name in ("bad.wav", "none.wav"):
            assert str(here / name) in row["failed"] and row["streams"] == ""
            assert np.isnan(row["embedding"]).all()
        else:
            assert row["failed"] == "" and row["streams"] == "audio"
            np.testing.assert_allclose(row["embedding"], next(expected).pooled, atol=1e-5)


def test_datasets_maps_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(here / "hf"))
    import datasets

    embed = EmbedBatch(str(here / "encoder"), columns={"path": "file"})
    made = datasets.Dataset.from_dict(files(here)).map(embed, batched=True, batch_size=2)
    check(here, list(made.with_format("numpy")))


@pytest.mark.long
def test_ray_data_maps_it(here: Path) -> None:
    with ray_cluster(1) as cluster:
        import ray.data

        ray.init(cluster.address, log_to_driver=False)
        try:
            rows = zip(*files(here).values(), strict=True)
            table = [dict(zip(ROWS, row, strict=True)) for row in rows]
            made = ray.data.from_items(table).map_batches(
                EmbedBatch,
                fn_constructor_args=[str(here / "encoder")],
                fn_constructor_kwargs={"columns": {"path": "file"}},
                batch_size=2,
                compute=ray.data.ActorPoolStrategy(size=1),
            )
            check(here, sorted(made.take_all(), key=lambda row: row["id"]))
        finally:
            ray.shutdown()
