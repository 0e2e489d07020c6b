"""The manifest row in an embedding's record: whole, and what older records lack is not known."""

from __future__ import annotations

import pytest
from helpers.prepared import embedding, reasons, verify, write_embeddings

from mmembed.data.manifest.utterance import ROW, Labels, Utterance, row_of, utterance_of
from mmembed.embeddings.read import COLUMNS, load_embeddings

LABELS = Labels(-1.0, (0.0, 1.0, 0.0, 3.0, 0.0, 0.5), "sad", ("joy",), scores={"valence": 0.5})
WHOLE = Utterance(
    "clip-0", "films/a.mp4", 1.5, 4.0, "so it goes", "en", None, "s1", "talk-7", 3, "dev",
    "research only", LABELS,
)  # fmt: skip


def test_a_row_comes_back_whole() -> None:
    assert utterance_of("clip-0", row_of(WHOLE)) == WHOLE
    bare = Utterance("clip-1", None)
    assert set(row_of(bare)) == set(ROW) and utterance_of("clip-1", row_of(bare)) == bare


def test_older_records_tell_what_they_hold() -> None:
    older = {"speaker": "s0", "split": None, "labels": {"category": "sad"}, "streams": ["audio"]}
    found = utterance_of("clip-0", older, {"split": "test", "frames": 7})
    assert found == Utterance("clip-0", None, speaker="s0", labels=Labels(category="sad"))
    del older["split"]
    assert utterance_of("clip-0", older, {"split": "test"}).split == "test"


def test_the_table_has_all_fields(tmp_path) -> None:
    assert set(ROW) - {"labels"} <= set(COLUMNS)
    older = embedding(1)
    newer = embedding(0, json={**embedding(0).members["json"], **row_of(WHOLE)})
    table = load_embeddings(write_embeddings(tmp_path, [newer, older], ["audio"])).table
    told = {name: table[name].to_pylist() for name in ROW if name != "labels"}
    assert told["dialogue"] == ["talk-7", None] and told["turn"] == [3, None]
    assert told["transcript"] == ["so it goes", None] and told["start"] == [1.5, None]
    assert told["licence"] == ["research only", None] and told["end"] == [4.0, None]


def test_verify_reads_the_row(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = embedding(0, json={**embedding(0).members["json"], "turn": "third"})
    assert verify(write_embeddings(tmp_path, [broken, embedding(1)], ["audio"])) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == ["record"] and "turn must be a whole number" in printed
